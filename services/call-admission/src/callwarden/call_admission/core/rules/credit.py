"""Prepaid credit."""

from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.rules.rule import ACCOUNT, Finding, Question, Use, refused, skipped
from callwarden.call_admission.core.slices import cost_max
from callwarden.call_admission.core.snapshot import Snapshot
from callwarden.kernel.money import format_amount
from callwarden.kernel.verdict import Mode, Reason, RuleResult


class Credit:
    """What a prepaid account has, its running calls' holds taken off, must pay for the least talk time. `value` is what
    it has, `limit` what is needed, in micros."""

    name = "credit"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> Finding:
        account = snapshot.account
        if not account.prepaid:
            return skipped(self.name, mode, "postpaid account")
        if question.price is None:
            return skipped(self.name, mode, "no price")
        if question.is_free:
            return skipped(self.name, mode, "free call")
        available = snapshot.available_micros
        needed = cost_max(question.price, question.answers, question.least_s)
        if needed <= available:
            return Finding(
                RuleResult(self.name, mode, None, "credit", available, needed, "now"), budget_micros=available
            )
        text = (
            f"{question.least_s} s of talk cost {format_amount(needed, account.currency)}; "
            f"the account has {format_amount(available, account.currency)} left."
        )
        return refused(
            self.name, mode, Reason.CREDIT, text, counter="credit", value=available, limit=needed, window="now"
        )

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[Use, ...]:
        """What running calls hold of it."""
        account = snapshot.account
        if not account.prepaid:
            return ()
        credit_micros = snapshot.balance_micros + account.overdraft_micros
        return (Use("credit", "micros", snapshot.held_micros, credit_micros, source=ACCOUNT),)
