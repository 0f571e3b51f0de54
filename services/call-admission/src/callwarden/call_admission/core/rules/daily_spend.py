"""What an account may spend in one calendar day of its time zone."""

from callwarden.call_admission.core.days import end_of_day
from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.rules.rule import ACCOUNT, POLICY, Finding, Question, Use, refused, skipped
from callwarden.call_admission.core.slices import cost_max
from callwarden.call_admission.core.snapshot import Account, AccountType, Snapshot
from callwarden.kernel.money import format_amount
from callwarden.kernel.verdict import Mode, Reason, RuleResult


class DailySpend:
    """The account's own limit goes before the one for its type. Counts what is settled and what running calls hold."""

    name = "daily_spend"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> Finding:
        account = snapshot.account
        limit = _limit(account, policy)
        if limit is None:
            return skipped(self.name, mode, "no limit")
        if question.price is None:
            return skipped(self.name, mode, "no price")
        if question.is_free:
            return skipped(self.name, mode, "free call")
        spent = snapshot.spent_micros + snapshot.held_day_micros
        window = f"day {snapshot.day} {account.time_zone}"
        left = limit - spent
        if cost_max(question.price, question.answers, question.least_s) <= left:
            return Finding(RuleResult(self.name, mode, None, "spent", spent, limit, window), budget_micros=left)
        text = (
            f"The account has spent {format_amount(spent, account.currency)} of the "
            f"{format_amount(limit, account.currency)} it may spend in a day."
        )
        return refused(
            self.name, mode, Reason.DAILY_SPEND, text, counter="spent", value=spent, limit=limit, window=window
        )

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[Use, ...]:
        account = snapshot.account
        limit = _limit(account, policy)
        if limit is None:
            return ()
        spent = snapshot.spent_micros + snapshot.held_day_micros
        source = POLICY if account.daily_micros is None else ACCOUNT
        window, ends_s = f"day {snapshot.day} {account.time_zone}", end_of_day(snapshot.day, account.time_zone)
        return (Use("spent", "micros", spent, limit, window, ends_s, source),)


def _limit(account: Account, policy: AdmissionPolicy) -> int | None:
    if account.daily_micros is not None:
        return account.daily_micros
    if account.type is AccountType.ENDUSER:
        return policy.daily_enduser_micros
    return policy.daily_traffic_sender_micros if account.type is AccountType.TRAFFIC_SENDER else None
