"""Premium-rate and shared-cost numbers of any country."""

from typing import Final

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.number_plan import NumberKind, kind_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.verdict import Mode, Reason


class PremiumRule(AdmissionRule):
    name = "premium"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        if question.local:
            return skipped(self.name, mode, "local call")
        kind = kind_of(question.destination)
        if kind is _OTHER:
            return passed(self.name, mode)
        text = f"The number is a {kind.value} one."
        return refused(self.name, mode, Reason.PREMIUM, text, window=kind.value)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.block_premium else "not blocked by policy"


_OTHER: Final = NumberKind.OTHER  # Looked up once: an Enum's attribute costs more than the rule.
