"""The longest talk time of one call."""

from functools import lru_cache
from typing import Final

from callwarden.call_admission.admission.core.rules.rule import AdmissionRule, Question, RuleFinding, refused
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.verdict import Mode, Reason, RuleResult


@lru_cache(256)
def _bounded(is_enforced: bool, talk_s_max: int) -> RuleFinding:
    mode = Mode.ENFORCE if is_enforced else Mode.REPORT
    return RuleFinding(RuleResult("duration", mode, None, "seconds", 0, talk_s_max, "call"), talk_s_max=talk_s_max)


_ENFORCE: Final = Mode.ENFORCE


class DurationRule(AdmissionRule):
    """Refuses no new call; it bounds what is granted, so that the edge cuts there. The shorter of call timeout and
    absolute timeout holds."""

    name = "duration"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        limit_s = policy.talk_s_max
        if question.least_s <= limit_s or question.least_s <= policy.slice.minimum_s:
            return _bounded(mode is _ENFORCE, limit_s)
        text = f"The call has had the {limit_s} s that one may last."
        return refused(
            self.name, mode, Reason.DURATION, text,
            counter="seconds", value=question.least_s - 1, limit=limit_s, window="call",
        )  # fmt: skip
