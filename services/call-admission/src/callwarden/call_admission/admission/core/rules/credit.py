"""Prepaid credit."""

from callwarden.call_admission.admission.core.rules.counted_limit import MICROS, needs_money
from callwarden.call_admission.admission.core.rules.rule import ACCOUNT as OWN
from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    ShardDemand,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.slices import cost_max
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.kernel.money import format_amount
from callwarden.kernel.verdict import Mode, Reason, RuleResult


class CreditRule(AdmissionRule):
    """What a prepaid account has, its running calls' holds taken off, must pay for the least talk time. `value` is what
    it has, `limit` what is needed, in micros."""

    name = "credit"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        account, price = snapshot.account, question.price
        if not account.prepaid:
            return skipped(self.name, mode, "postpaid account")
        if price is None or question.is_free:
            return skipped(self.name, mode, needs_money(question))
        available = snapshot.available_micros
        needed = cost_max(price, question.answers, question.least_s)
        if needed <= available:
            result = RuleResult(self.name, mode, None, "credit", available, needed, "call")
            finding = RuleFinding(result, budget_micros=available)
        else:
            shown = _over_all(snapshot, available)
            text = (
                f"{question.least_s} s of talk cost {format_amount(needed, account.currency)}; "
                f"the account has {format_amount(shown, account.currency)} left."
            )
            finding = refused(
                self.name, mode, Reason.CREDIT, text, counter="credit", value=shown, limit=needed, window="call"
            )
        if snapshot.counted[ACCOUNT].is_sharded:
            wanted = cost_max(price, question.answers, question.wanted_s)
            if wanted > available:
                limit = account.balance_micros + account.overdraft_micros
                finding.bounded = (ShardDemand(ACCOUNT, "credit", limit, wanted - available),)
        return finding

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        """What running calls hold of it."""
        account = snapshot.account
        if not account.prepaid:
            return ()
        credit_micros = snapshot.balance_micros + account.overdraft_micros
        return (LimitUsage("credit", MICROS, snapshot.held_micros, credit_micros, source=OWN),)


def _over_all(snapshot: Snapshot, available_micros: int) -> int:
    """What the whole account has left, where that is known."""
    account, total = snapshot.account, snapshot.counted[ACCOUNT].total
    if total is None:
        return available_micros
    return account.balance_micros + account.overdraft_micros - total.used("credit", snapshot.unix_s)
