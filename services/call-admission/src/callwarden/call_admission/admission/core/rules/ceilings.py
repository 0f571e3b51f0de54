"""Ceilings over the whole system and over a realm: calls at the same time, and new ones within a second."""

from abc import abstractmethod

from callwarden.call_admission.admission.core.rules.counted_limit import CALLS, CountedLimit, counts, measure
from callwarden.call_admission.admission.core.rules.rule import (
    POLICY,
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AdmissionPolicy, Ceiling
from callwarden.call_admission.model.scopes import SYSTEM
from callwarden.kernel.verdict import Mode, Reason

RETRY_AFTER_S = 1


class _CeilingRule(AdmissionRule):
    def __init__(self, owner: str) -> None:
        self._owner = owner

    def _ceiling(self, policy: AdmissionPolicy) -> Ceiling:
        return policy.system if self._owner == SYSTEM else policy.realm

    @abstractmethod
    def _limit(self, policy: AdmissionPolicy) -> int | None: ...

    @abstractmethod
    def _measure(self, snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None: ...

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        measured = self._measure(snapshot, policy)
        return () if measured is None else (measured.use(),)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "no ceiling" if self._limit(policy) is None else ""


class CeilingCallsRule(_CeilingRule):
    """Counted from holds that haven't expired."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.name = f"{owner}_calls"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = self._measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "not counted")
        text = f"The {self._owner}'s ceiling of {measured.whole} calls at the same time is reached."
        return counts(self.name, mode, Reason.CEILING, measured, text)

    def _limit(self, policy: AdmissionPolicy) -> int | None:
        return self._ceiling(policy).calls_max

    def _measure(self, snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
        limit, counted = self._limit(policy), snapshot.counted.get(self._owner)
        if limit is None or counted is None:
            return None
        return measure(counted, "calls", limit, snapshot.unix_s, "calls", CALLS, "now", POLICY)


class CeilingRateRule(_CeilingRule):
    """Admitted calls of the last second."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.name = f"{owner}_rate"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = self._measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "not counted")
        text = f"The {self._owner} may begin {measured.whole} calls within a second."
        return counts(self.name, mode, Reason.RATE, measured, text, retry_after_s=RETRY_AFTER_S)

    def _limit(self, policy: AdmissionPolicy) -> int | None:
        return self._ceiling(policy).per_second_max

    def _measure(self, snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
        limit, counted = self._limit(policy), snapshot.counted.get(self._owner)
        if limit is None or counted is None:
            return None
        return measure(counted, "calls_per_second", limit, snapshot.unix_s, "calls", CALLS, "1 s", POLICY)
