"""What an account may spend in a day, against what it has spent before."""

from callwarden.call_admission.admission.core.rules.counted_limit import (
    MICROS,
    CountedLimit,
    needs_money,
    part_of,
    spends,
    spent_text,
)
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


class DynamicDailyRule(AdmissionRule):
    """No more than policy's multiple of the largest spend of a day so far, and no less than its floor. A day is counted
    as in the daily limit. A sharded account's shards each go by their own largest spend and their part of the floor."""

    name = "dynamic_daily"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = _measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "not this type")
        if why := needs_money(question):
            return skipped(self.name, mode, why)
        text = spent_text("The account has", "in a day, by what it has spent before", snapshot.account.currency)
        return spends(self.name, mode, Reason.DAILY_SPEND, measured, question, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        measured = _measure(snapshot, policy)
        if measured is None:
            return ()
        return (measured.use(end_of_day(snapshot.day, snapshot.account.time_zone)),)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "off by policy" if policy.dynamic_daily is None else ""


def _measure(snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
    dynamic, account, counted = policy.dynamic_daily, snapshot.account, snapshot.counted[ACCOUNT]
    if dynamic is None:
        return None
    if account.type is AccountType.ENDUSER:
        floor = dynamic.floor_enduser_micros
    elif account.type is AccountType.TRAFFIC_SENDER and dynamic.traffic_senders:
        floor = dynamic.floor_traffic_sender_micros
    else:
        return None
    day, usage = snapshot.day.toordinal(), counted.usage
    limit = max(part_of(counted, floor), dynamic.multiplier * usage.peak_before(day))
    spent = usage.used(day_spend(day), snapshot.unix_s)
    window = f"day {snapshot.day} {account.time_zone}"
    return CountedLimit("spent", MICROS, spent, limit, limit - spent, window, POLICY, limit)
