"""Prefixes that may or may not be called, as policy lists them."""

from collections.abc import Set

from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.rules.rule import Finding, Question, Use, passed, refused, skipped
from callwarden.call_admission.core.snapshot import Snapshot
from callwarden.kernel.verdict import Mode, Reason


def longest_prefix(number: str, prefixes: Set[str]) -> str:
    """The longest of `prefixes` that the number begins with, or "". At most 15 look-ups, however long the list."""
    for length in range(min(len(number), 15), 0, -1):
        if number[:length] in prefixes:
            return number[:length]
    return ""


class Destinations:
    """The longer prefix wins, so that +4930 can be allowed where +49 is blocked; equal ones: block."""

    name = "destinations"
    extends = False

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> Finding:
        if question.local:
            return skipped(self.name, mode, "local call")
        allowed, blocked = policy.allowed_prefixes, policy.blocked_prefixes
        if not allowed and not blocked:
            return skipped(self.name, mode, "no list")
        allow = longest_prefix(question.destination, allowed)
        block = longest_prefix(question.destination, blocked)
        if block and len(block) >= len(allow):
            text = f"Calls to +{block} are blocked."
            return refused(self.name, mode, Reason.DESTINATION, text, counter="prefix", window=f"+{block}")
        if allowed and not allow:
            text = "Calls are allowed to listed prefixes only, and this isn't one."
            return refused(self.name, mode, Reason.DESTINATION, text, counter="prefix")
        return passed(self.name, mode)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[Use, ...]:
        return ()
