"""What a postpaid account may spend in one calendar month of its time zone."""

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
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.days import end_of_month
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.call_admission.model.spans import month_spend
from callwarden.kernel.verdict import Mode, Reason


class MonthlySpendRule(AdmissionRule):
    """The account's limit, as it has grown: by its increment at the start of each month that follows one with a call,
    up to its ceiling. Counts what is settled and what running calls hold, in the month in which each began. A prepaid
    account is held to its credit instead."""

    name = "monthly_spend"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        account = snapshot.account
        if account.prepaid:
            return skipped(self.name, mode, "prepaid account")
        measured = monthly(account, snapshot.counted[ACCOUNT], snapshot, OWN)
        if measured is None:
            return skipped(self.name, mode, "no limit")
        if why := needs_money(question):
            return skipped(self.name, mode, why)
        text = spent_text("The account has", "in this month", account.currency)
        return spends(self.name, mode, Reason.MONTHLY_SPEND, measured, question, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        account = snapshot.account
        if account.prepaid or not policy.check_postpaid:
            return ()
        measured = monthly(account, snapshot.counted[ACCOUNT], snapshot, OWN)
        return () if measured is None else (measured.use(end_of_month(snapshot.day, account.time_zone)),)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.check_postpaid else "not checked by policy"


def monthly(account: Account, counted: CounterView, snapshot: Snapshot, source: str) -> CountedLimit | None:
    """The limit of the account or reseller that is counted there, in the month of the call; None: it has none."""
    day = snapshot.day
    month = day.year * 12 + day.month - 1
    limit = (counted.total or counted.usage).monthly_limit(account, month)
    if limit is None:
        return None
    window = f"month {day.year}-{day.month:02} {snapshot.account.time_zone}"
    return measure(counted, month_spend(month), limit, snapshot.unix_s, "spent", MICROS, window, source)
