"""The rules of admission, in the order in which they are shown; the first that refuses names the reason.

Telling ones first: an account that is disabled or a destination that is blocked stays so whatever is left of it. Then
the price and the ways, who is full (from the system to the account), how quickly it goes, what may be spent, and what
is out of line.
"""

from typing import Final

from callwarden.call_admission.admission.core.rules import ceilings
from callwarden.call_admission.admission.core.rules.account_status import AccountStatusRule
from callwarden.call_admission.admission.core.rules.address import (
    AddressCallsRule,
    AddressCostRule,
    AddressDurationRule,
)
from callwarden.call_admission.admission.core.rules.baseline import BaselineRule
from callwarden.call_admission.admission.core.rules.calls_per_second import CallsPerSecondRule
from callwarden.call_admission.admission.core.rules.credit import CreditRule
from callwarden.call_admission.admission.core.rules.daily_spend import DailySpendRule
from callwarden.call_admission.admission.core.rules.destinations import DestinationsRule
from callwarden.call_admission.admission.core.rules.duration import DurationRule
from callwarden.call_admission.admission.core.rules.dynamic_daily import DynamicDailyRule
from callwarden.call_admission.admission.core.rules.lines import LinesRule
from callwarden.call_admission.admission.core.rules.lists import NumberListsRule
from callwarden.call_admission.admission.core.rules.monthly_spend import MonthlySpendRule
from callwarden.call_admission.admission.core.rules.new_destination import NewDestinationRule
from callwarden.call_admission.admission.core.rules.only_local import OnlyLocalRule
from callwarden.call_admission.admission.core.rules.premium import PremiumRule
from callwarden.call_admission.admission.core.rules.rate import RateRule
from callwarden.call_admission.admission.core.rules.reseller import ResellerLinesRule, ResellerSpendRule
from callwarden.call_admission.admission.core.rules.routes import BillingRule, CostRule, ProfitRule
from callwarden.call_admission.admission.core.rules.rule import AdmissionRule, LimitUsage, Question, RuleFinding
from callwarden.call_admission.admission.core.rules.satellite import SatelliteRule
from callwarden.call_admission.admission.core.rules.talk_time import CarrierTalkTimeRule, TalkTimeRule
from callwarden.call_admission.admission.core.rules.velocity import VelocityRules
from callwarden.call_admission.model.scopes import REALM, SYSTEM

RULES: Final[tuple[AdmissionRule, ...]] = (
    AccountStatusRule(),
    OnlyLocalRule(),
    NumberListsRule(),
    DestinationsRule(),
    PremiumRule(),
    SatelliteRule(),
    RateRule(),
    BillingRule(),
    CarrierTalkTimeRule(),
    CostRule(),
    ProfitRule(),
    ceilings.CeilingCallsRule(SYSTEM),
    ceilings.CeilingRateRule(SYSTEM),
    ceilings.CeilingCallsRule(REALM),
    ceilings.CeilingRateRule(REALM),
    ResellerLinesRule(),
    LinesRule(),
    CallsPerSecondRule(),
    AddressCallsRule(),
    AddressDurationRule(),
    VelocityRules(),
    NewDestinationRule(),
    TalkTimeRule(),
    DurationRule(),
    AddressCostRule(),
    ResellerSpendRule(),
    MonthlySpendRule(),
    DailySpendRule(),
    DynamicDailyRule(),
    CreditRule(),
    BaselineRule(),
)

__all__ = ["RULES", "AdmissionRule", "LimitUsage", "Question", "RuleFinding"]
