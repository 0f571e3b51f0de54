"""Trunks that reach local users and local numbers only."""

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.verdict import Mode, Reason


class OnlyLocalRule(AdmissionRule):
    """A call that came in by such a trunk never goes to a carrier."""

    name = "only_local"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        trunk = snapshot.trunk
        if trunk is None:
            return skipped(self.name, mode, "no trunk")
        if not trunk.only_local:
            return skipped(self.name, mode, "not only local")
        if question.local:
            return passed(self.name, mode)
        text = f"Calls by trunk {trunk.name} reach local numbers only."
        return refused(self.name, mode, Reason.ONLY_LOCAL, text, counter="trunk", window=trunk.name)
