"""What calls from one source address may come to within a sliding period: number, talk time, cost."""

from callwarden.call_admission.admission.core.rules.counted_limit import (
    CALLS,
    MICROS,
    SECONDS,
    CountedLimit,
    counts,
    measure,
    needs_money,
    spends,
    spent_text,
)
from callwarden.call_admission.admission.core.rules.rule import (
    POLICY,
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AddressPolicy, AdmissionPolicy
from callwarden.call_admission.model.scopes import ADDRESS
from callwarden.kernel.verdict import Mode, Reason


def _measure(
    snapshot: Snapshot, policy: AdmissionPolicy, quantity: str, limit: int | None, counter: str, unit: str
) -> CountedLimit | None:
    counted, only = snapshot.counted.get(ADDRESS), policy.address.account
    if limit is None or counted is None or only not in (None, snapshot.account.name):
        return None
    window = _period(policy.address)
    return measure(counted, quantity, limit, snapshot.unix_s, counter, unit, window, POLICY)


def _period(address: AddressPolicy) -> str:
    """ "24 h", or what the period is in seconds."""
    hours, rest_ms = divmod(address.period_ms, 3_600_000)
    return f"{address.period_ms / 1_000:g} s" if rest_ms else f"{hours} h"


class AddressCallsRule(AdmissionRule):
    """Admitted calls that began within the period, however they ended."""

    name = "address_calls"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = self._measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "not counted")
        text = f"The source address has made the {measured.whole} calls that it may within {measured.window}."
        return counts(self.name, mode, Reason.ADDRESS_QUOTA, measured, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        measured = self._measure(snapshot, policy)
        return () if measured is None else (measured.use(),)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "no limit" if policy.address.calls_max is None else ""

    def _measure(self, snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
        return _measure(snapshot, policy, "period_calls", policy.address.calls_max, "calls", CALLS)


class AddressDurationRule(AdmissionRule):
    """Talk time of the calls that began within the period, with what is granted to running ones. No running call is
    cut; the next is refused."""

    name = "address_duration"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = self._measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "not counted")
        text = f"The source address has used the {measured.whole} s of talk that it may within {measured.window}."
        return counts(self.name, mode, Reason.ADDRESS_QUOTA, measured, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        measured = self._measure(snapshot, policy)
        return () if measured is None else (measured.use(),)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "no limit" if policy.address.talk_s_max is None else ""

    def _measure(self, snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
        return _measure(snapshot, policy, "period_talk", policy.address.talk_s_max, "talk", SECONDS)


class AddressCostRule(AdmissionRule):
    """What those calls have cost, with what is held for running ones: a running call is cut when it is used up."""

    name = "address_cost"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = self._measure(snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "not counted")
        if why := needs_money(question):
            return skipped(self.name, mode, why)
        text = spent_text("Calls from the source address have", f"within {measured.window}", snapshot.account.currency)
        return spends(self.name, mode, Reason.ADDRESS_QUOTA, measured, question, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        measured = self._measure(snapshot, policy)
        return () if measured is None else (measured.use(),)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "no limit" if policy.address.micros_max is None else ""

    def _measure(self, snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit | None:
        return _measure(snapshot, policy, "period_cost", policy.address.micros_max, "spent", MICROS)
