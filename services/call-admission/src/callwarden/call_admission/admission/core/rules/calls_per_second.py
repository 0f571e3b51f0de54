"""New calls of an account within a second."""

from callwarden.call_admission.admission.core.rules.counted_limit import CALLS, CountedLimit, counts, measure
from callwarden.call_admission.admission.core.rules.rule import ACCOUNT as OWN
from callwarden.call_admission.admission.core.rules.rule import (
    POLICY,
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.kernel.verdict import Mode, Reason

RETRY_AFTER_S = 1


class CallsPerSecondRule(AdmissionRule):
    """Admitted calls of the last second, however they ended. The account's own limit goes before policy's."""

    name = "calls_per_second"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = _measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "no limit")
        text = f"The account may begin {measured.whole} calls within a second."
        return counts(self.name, mode, Reason.RATE, measured, text, retry_after_s=RETRY_AFTER_S)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        measured = _measure(snapshot, policy)
        return () if measured is None else (measured.use(),)


def _measure(snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
    limit, source = snapshot.account.max_per_second, OWN
    if limit is None:
        limit, source = policy.per_second_max, POLICY
    if limit is None:
        return None
    return measure(snapshot.counted[ACCOUNT], "calls_per_second", limit, snapshot.unix_s, "calls", CALLS, "1 s", source)
