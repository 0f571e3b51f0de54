"""Only active accounts call, and only those of active resellers."""

from callwarden.call_admission.admission.core.rules.rule import AdmissionRule, Question, RuleFinding, passed, refused
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import RESELLER
from callwarden.kernel.verdict import Mode, Reason


class AccountStatusRule(AdmissionRule):
    """Asked again at each slice: the calls of an account that is disabled end with what they have paid for."""

    name = "account"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        account = snapshot.account
        if not account.active:
            return refused(self.name, mode, Reason.ACCOUNT_DISABLED, "The account is disabled.")
        counted = snapshot.counted.get(RESELLER)
        reseller = None if counted is None else counted.account
        # A running call is still counted with the reseller that its account has left since.
        if reseller is not None and reseller.id == account.parent and not reseller.active:
            text = f"The account's reseller {reseller.name} is disabled."
            return refused(self.name, mode, Reason.ACCOUNT_DISABLED, text)
        return passed(self.name, mode)
