"""Premium-rate and shared-cost numbers of any country."""

from callwarden.call_admission.core.number_plan import Kind, kind_of
from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.rules.rule import Finding, Question, passed, refused, skipped
from callwarden.call_admission.core.snapshot import Snapshot
from callwarden.kernel.verdict import Mode, Reason


class Premium:
    name = "premium"
    extends = False

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> Finding:
        if question.local:
            return skipped(self.name, mode, "local call")
        if not policy.block_premium:
            return skipped(self.name, mode, "not blocked by policy")
        match kind_of(question.destination):
            case Kind.PREMIUM:
                return refused(self.name, mode, Reason.PREMIUM, "The number is a premium-rate one.", window="premium")
            case Kind.SHARED_COST:
                text = "The number is a shared-cost one."
                return refused(self.name, mode, Reason.PREMIUM, text, window="shared-cost")
            case Kind.OTHER:
                return passed(self.name, mode)
