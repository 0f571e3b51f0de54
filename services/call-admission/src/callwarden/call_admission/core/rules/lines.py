"""Calls at the same time."""

from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.rules.rule import ACCOUNT, POLICY, Finding, Question, Use, refused
from callwarden.call_admission.core.snapshot import Snapshot
from callwarden.kernel.verdict import Mode, Reason, RuleResult


class Lines:
    """Counted from holds that haven't expired; the account's own limit goes before policy's."""

    name = "lines"
    extends = False

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> Finding:
        limit = snapshot.account.max_lines
        if limit is None:
            limit = policy.lines_max
        lines = snapshot.lines
        if lines < limit:
            return Finding(RuleResult(self.name, mode, None, "calls", lines, limit, "now"))
        text = f"All {limit} lines of the account are in use." if limit else "The account has no lines."
        return refused(self.name, mode, Reason.LINES, text, counter="calls", value=lines, limit=limit, window="now")

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[Use, ...]:
        own = snapshot.account.max_lines
        limit, source = (policy.lines_max, POLICY) if own is None else (own, ACCOUNT)
        return (Use("calls", "calls", snapshot.lines, limit, source=source),)
