"""What a rule is: a small pure object that looks at a snapshot and says what it finds.

To add one: write a module with its class, put one instance into the table in `rules/__init__.py`. Its name is the key
of its mode in policy (spec.modes), and what explain, metrics and simulations show.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.calls import Route
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.tariff import Price
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult

ACCOUNT: Final = "account"
POLICY: Final = "policy"


@dataclass(slots=True)
class Question:
    """The part of an admission or an extension that rules look at. Made for every decision, so not frozen."""

    destination: str
    local: bool
    price: Price | None
    """None: rating gave none."""
    is_free: bool
    answers: tuple[float, ...]
    """The earliest and the last moment of answer, see slices.possible_answers."""
    least_s: int
    """Talk time without which the answer is no."""
    wanted_s: int = 0
    """Talk time that is granted where nothing bounds it."""
    marks: tuple[str, ...] | None = None
    """Of a running call: velocity rules that it is counted under. None: a new call."""


@dataclass(slots=True)
class ShardDemand:
    """A limit that is shared out to the shards of its owner, which is short of it or may soon be: `needed` more are
    asked for than `owner`'s shard may leave."""

    owner: str
    quantity: str
    limit: int
    needed: int


@dataclass(slots=True)
class RuleFinding:
    """A rule's result and, where it enforces them, the bounds it sets. None: it sets none."""

    result: RuleResult
    budget_micros: int | None = None
    """Most that the call may cost in total."""
    talk_s_max: int | None = None
    routes: tuple[Route, ...] | None = None
    """The routes it leaves, where they are fewer."""
    bounded: tuple[ShardDemand, ...] = ()
    warnings: tuple[Refuse, ...] = ()
    """Notices about a call that may go on."""


@dataclass(frozen=True, slots=True)
class LimitUsage:
    """What is used of one limit now, for people: `callwarden limits show`."""

    counter: str
    """What is counted: "calls", "spent", "credit", "talk" …"""
    unit: str
    """ "calls", "micros" or "s"."""
    used: int
    limit: int | None
    """None: no limit."""
    window: str = "now"
    resets_at_s: float = 0.0
    """When the count restarts; 0: it is sliding or has no end."""
    source: str = POLICY
    """Who set the limit: "account", "policy", "reseller NAME"."""

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(self.limit - self.used, 0)


class AdmissionRule(Protocol):
    """One limit. Pure: equal arguments, equal finding. A rule is a subclass and takes what it leaves out from here."""

    name: str
    extends: bool = False
    """Whether a running call is asked about again at each slice."""

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        """What this rule says. `mode` is never OFF; the finding's refusal is the same in the other two."""
        ...

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        """What is used of this rule's limits, over all shards. Empty: it has none, or none holds."""
        return ()

    def idle(self, policy: AdmissionPolicy) -> str:
        """Why this rule has nothing to say of any call under this policy: then it isn't asked. Empty: it may have."""
        return ""


# The same few dozen findings come again for every call; shared, since nothing in them changes (0.15 instead of 2 µs).
# The keys hold no mode: hashing an Enum is a Python function (0.3 µs).
_ENFORCE: Final = Mode.ENFORCE


@lru_cache(None)
def _without_refusal(rule: str, is_enforced: bool, skipped: str = "") -> RuleFinding:
    return RuleFinding(RuleResult(rule, Mode.ENFORCE if is_enforced else Mode.REPORT, skipped=skipped))


def passed(rule: str, mode: Mode) -> RuleFinding:
    """Nothing to say against the call, and no number to show."""
    return _without_refusal(rule, mode is _ENFORCE)


def skipped(rule: str, mode: Mode, why: str) -> RuleFinding:
    """The rule doesn't apply to this call. `why` is a fixed text, of which there are a dozen."""
    return _without_refusal(rule, mode is _ENFORCE, why)


def refused(
    rule: str,
    mode: Mode,
    reason: Reason,
    text: str,
    *,
    counter: str = "",
    value: int = 0,
    limit: int = 0,
    window: str = "",
    retry_after_s: int = 0,
) -> RuleFinding:
    """A no with all its numbers."""
    refuse = Refuse(reason, rule, counter, value, limit, window, text, retry_after_s)
    return RuleFinding(RuleResult(rule, mode, refuse, counter, value, limit, window))
