"""What an account may spend in one calendar day of its time zone."""

from callwarden.call_admission.admission.core.rules.counted_limit import (
    MICROS,
    CountedLimit,
    measure,
    needs_money,
    spends,
    spent_text,
)
from callwarden.call_admission.admission.core.rules.rule import ACCOUNT as OWN
from callwarden.call_admission.admission.core.rules.rule import (
    POLICY,
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.days import end_of_day
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.call_admission.model.spans import day_spend
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Mode, Reason


class DailySpendRule(AdmissionRule):
    """The account's own limit goes before the one for its type, unless policy switches it off. Counts what is settled
    and what running calls hold, on the day on which each began."""

    name = "daily_spend"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = _measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "no limit")
        if why := needs_money(question):
            return skipped(self.name, mode, why)
        text = spent_text("The account has", "in a day", snapshot.account.currency)
        return spends(self.name, mode, Reason.DAILY_SPEND, measured, question, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        measured = _measure(snapshot, policy)
        if measured is None:
            return ()
        return (measured.use(end_of_day(snapshot.day, snapshot.account.time_zone)),)


def _measure(snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
    account = snapshot.account
    limit, source = account.daily_micros if policy.daily_per_account else None, OWN
    if limit is None:
        source = POLICY
        if account.type is AccountType.ENDUSER:
            limit = policy.daily_enduser_micros
        elif account.type is AccountType.TRAFFIC_SENDER:
            limit = policy.daily_traffic_sender_micros
    if limit is None:
        return None
    window = f"day {snapshot.day} {account.time_zone}"
    counted = snapshot.counted[ACCOUNT]
    if counted.is_sharded:
        quantity = day_spend(snapshot.day.toordinal())
        return measure(counted, quantity, limit, snapshot.unix_s, "spent", MICROS, window, source)
    spent = snapshot.spent_micros + snapshot.held_day_micros
    return CountedLimit("spent", MICROS, spent, limit, limit - spent, window, source, limit)
