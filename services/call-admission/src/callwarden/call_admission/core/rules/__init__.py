"""The rules of admission, in the order in which they are shown; the first that refuses names the reason.

Cheap and telling ones first: an account that is disabled or a destination that is blocked stays so whatever the credit.
"""

from typing import Final

from callwarden.call_admission.core.rules.account_status import AccountStatus
from callwarden.call_admission.core.rules.credit import Credit
from callwarden.call_admission.core.rules.daily_spend import DailySpend
from callwarden.call_admission.core.rules.destinations import Destinations
from callwarden.call_admission.core.rules.duration import Duration
from callwarden.call_admission.core.rules.lines import Lines
from callwarden.call_admission.core.rules.lists import NumberLists
from callwarden.call_admission.core.rules.premium import Premium
from callwarden.call_admission.core.rules.rate import Rate
from callwarden.call_admission.core.rules.rule import Finding, Question, Rule, Use
from callwarden.call_admission.core.rules.satellite import Satellite

RULES: Final[tuple[Rule, ...]] = (
    AccountStatus(),
    Destinations(),
    NumberLists(),
    Premium(),
    Satellite(),
    Rate(),
    Lines(),
    Duration(),
    DailySpend(),
    Credit(),
)

__all__ = ["RULES", "Finding", "Question", "Rule", "Use"]
