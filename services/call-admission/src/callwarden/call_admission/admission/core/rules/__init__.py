"""The rules of admission, in the order in which they are shown; the first that refuses names the reason.

Telling ones first: an account that is disabled or a destination that is blocked stays so whatever is left of it. Then
the price and the ways, who is full (from the system to the account), how quickly it goes, what may be spent, and what
is out of line.
"""

from typing import Final

from callwarden.call_admission.admission.core.rules import ceilings
from callwarden.call_admission.admission.core.rules.account_status import AccountStatus
from callwarden.call_admission.admission.core.rules.address import AddressCalls, AddressCost, AddressDuration
from callwarden.call_admission.admission.core.rules.baseline import Baseline
from callwarden.call_admission.admission.core.rules.calls_per_second import CallsPerSecond
from callwarden.call_admission.admission.core.rules.credit import Credit
from callwarden.call_admission.admission.core.rules.daily_spend import DailySpend
from callwarden.call_admission.admission.core.rules.destinations import Destinations
from callwarden.call_admission.admission.core.rules.duration import Duration
from callwarden.call_admission.admission.core.rules.dynamic_daily import DynamicDaily
from callwarden.call_admission.admission.core.rules.lines import Lines
from callwarden.call_admission.admission.core.rules.lists import NumberLists
from callwarden.call_admission.admission.core.rules.monthly_spend import MonthlySpend
from callwarden.call_admission.admission.core.rules.new_destination import NewDestination
from callwarden.call_admission.admission.core.rules.only_local import OnlyLocal
from callwarden.call_admission.admission.core.rules.premium import Premium
from callwarden.call_admission.admission.core.rules.rate import Rate
from callwarden.call_admission.admission.core.rules.reseller import ResellerLines, ResellerSpend
from callwarden.call_admission.admission.core.rules.routes import Billing, Cost, Profit
from callwarden.call_admission.admission.core.rules.rule import Finding, Question, Rule, Use
from callwarden.call_admission.admission.core.rules.satellite import Satellite
from callwarden.call_admission.admission.core.rules.talk_time import CarrierTalkTime, TalkTime
from callwarden.call_admission.admission.core.rules.velocity import VelocityRules
from callwarden.call_admission.model.usage import REALM, SYSTEM

RULES: Final[tuple[Rule, ...]] = (
    AccountStatus(),
    OnlyLocal(),
    NumberLists(),
    Destinations(),
    Premium(),
    Satellite(),
    Rate(),
    Billing(),
    CarrierTalkTime(),
    Cost(),
    Profit(),
    ceilings.Calls(SYSTEM),
    ceilings.Rate(SYSTEM),
    ceilings.Calls(REALM),
    ceilings.Rate(REALM),
    ResellerLines(),
    Lines(),
    CallsPerSecond(),
    AddressCalls(),
    AddressDuration(),
    VelocityRules(),
    NewDestination(),
    TalkTime(),
    Duration(),
    AddressCost(),
    ResellerSpend(),
    MonthlySpend(),
    DailySpend(),
    DynamicDaily(),
    Credit(),
    Baseline(),
)

__all__ = ["RULES", "Finding", "Question", "Rule", "Use"]
