"""Only active accounts call."""

from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.rules.rule import Finding, Question, Use, passed, refused
from callwarden.call_admission.core.snapshot import Snapshot
from callwarden.kernel.verdict import Mode, Reason


class AccountStatus:
    """Asked again at each slice: the calls of an account that is disabled end with what they have paid for."""

    name = "account"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> Finding:
        if snapshot.account.active:
            return passed(self.name, mode)
        return refused(self.name, mode, Reason.ACCOUNT_DISABLED, "The account is disabled.")

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[Use, ...]:
        return ()
