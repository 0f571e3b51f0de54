"""Notices about limits: one is nearly or fully used, has blocked a call, or calls come suspiciously fast.

In: which results of a decision are worth a notice. Out: that each is sent once a day (usage, transaction), how it is
published (adapters.events_nats).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from callwarden.call_admission.admission.core.decide import Evaluation
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.usage import BLOCKED, WARNED
from callwarden.kernel.verdict import Mode, Refuse, RuleResult


@dataclass(frozen=True, slots=True)
class Notice:
    """One limit of one account: published once for each rule, level and day."""

    account_id: UUID
    account: str
    realm: str
    rule: str
    level: int
    """Percent of the limit that is used; usage.BLOCKED: a call was refused; WARNED: a velocity rule's warning."""
    counter: str
    value: int
    limit: int
    window: str
    at_s: float
    call_id: str


def levels(decided: Evaluation, policy: AdmissionPolicy) -> Iterator[tuple[RuleResult, int]]:
    """The results that are worth a notice, each with its highest percentage, and a block in addition."""
    blocked = decided.verdict.rule if isinstance(decided.verdict, Refuse) else ""
    thresholds = policy.thresholds
    for result in decided.rules:
        limit = result.limit
        if thresholds and limit and result.window not in _NO_USE and result.value * 100 >= thresholds[-1] * limit:
            percent = result.value * 100 // limit
            yield result, next(level for level in thresholds if percent >= level)
        if result.rule == blocked and result.mode is Mode.ENFORCE:
            yield result, BLOCKED
    for warning in decided.warnings:
        yield _result_of(warning), WARNED


def _result_of(warning: Refuse) -> RuleResult:
    """Of a warning: under its own name, so that it doesn't hide a later block by the same rule."""
    name = f"{warning.rule}.warning"
    return RuleResult(
        name, Mode.REPORT, None, warning.counter, warning.value, warning.limit, warning.window
    )  # fmt: skip


_NO_USE = frozenset({"", "call"})
"""Windows of limits on a single call, which nothing uses up."""
