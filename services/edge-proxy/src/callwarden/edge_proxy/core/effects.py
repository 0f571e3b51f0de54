"""What the core wants done, and the questions it has: plain values, in the order in which they arose.

In: effects (besides `callwarden.sip.transaction.Send`), questions and their answers. Out: who does it (`app`).

The app finds the answer to each `Ask`, however long that takes, and hands it to `Edge.resume` under the same number:
exactly once. No answer is an answer, too: `Unanswered`.

NamedTuples where one is made for each call (0.3 µs against 0.9 for a frozen dataclass), dataclasses elsewhere.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from callwarden.edge_proxy.core.locations import Location
from callwarden.edge_proxy.core.records import DialogRecord
from callwarden.kernel.verdict import Reason, Refuse, RuleResult
from callwarden.sip.address import Endpoint, SocketAddress
from callwarden.sip.digest import Credentials

# Questions.


class VerifyDigest(NamedTuple):
    """Whose credentials are these? Answered by Identity, Rejected or Unreachable."""

    credentials: Credentials
    method: str
    source: str
    call_id: str
    traceparent: str
    called: str = ""
    """Of an INVITE: the called number or user."""
    is_registered: bool = False
    """A phone of this user is registered from there."""
    called_realm: str = ""


class VerifySource(NamedTuple):
    """Which trunk may send from this address? Answered by Identity, Rejected or Unreachable."""

    source: str
    called: str
    call_id: str
    traceparent: str
    called_realm: str = ""


class FindCalled(NamedTuple):
    """Is this number or name one of ours? Answered by FoundCalled or Unanswered."""

    called: str
    called_realm: str
    call_id: str
    traceparent: str


class AdmitCall(NamedTuple):
    """May this account place this call? Answered by Admitted, Refused or Unreachable."""

    hold_id: UUID
    account_id: str
    destination: str
    dialled: str
    caller_number: str
    source: str
    local: bool
    at_s: float
    call_id: str
    traceparent: str
    trunk: str = ""


class ExtendCall(NamedTuple):
    """More talk time for this call? Answered by Extended, Refused or Unreachable."""

    hold_id: UUID
    account_id: str
    answered_at_s: float
    granted_s: int
    call_id: str
    traceparent: str


class LoadRecord(NamedTuple):
    """What does another edge know of this call? Answered by DialogRecord, NoRecord or Unanswered."""

    hold_id: UUID
    call_id: str
    traceparent: str


Question = VerifyDigest | VerifySource | FindCalled | AdmitCall | ExtendCall | LoadRecord

# Answers.


class CarrierRoute(NamedTuple):
    """One way to a carrier, or to a trunk's own numbers."""

    trunk: str
    address: Endpoint
    add_prefix: str
    strip_digits: int


class NumberOwner(NamedTuple):
    """Whose number was called, and the trunks by which it gets calls while no phone of it is registered."""

    account_id: str
    trunks: tuple[CarrierRoute, ...] = ()


class CallerIdentity(NamedTuple):
    """Who it is. `kind` is "enduser", "traffic-sender" or "carrier"; `numbers` are E.164 with "+"; `trunk` by which the
    address was known, empty: by a password; `called_owner` of the called number, None: no account of ours."""

    account_id: str
    kind: str
    numbers: tuple[str, ...]
    tech_prefix: str
    ttl_s: int
    trunk: str = ""
    called_owner: NumberOwner | None = None
    called_is_user: bool = False
    """The called name consists of digits, and is that of a user of the realm that was called."""

    @property
    def is_trunk(self) -> bool:
        return self.kind != "enduser"


class Rejected(NamedTuple):
    reason: Reason


class FoundCalled(NamedTuple):
    """`ours`: a call to it never leaves."""

    ours: bool


class CallAdmitted(NamedTuple):
    """`granted_s` is talk time from the answer; `final`: no more can be had."""

    granted_s: int
    final: bool
    max_duration_s: int
    routes: tuple[CarrierRoute, ...]


class CallPlacedElsewhere(NamedTuple):
    """The INVITE came to another edge, too, which places the call."""


class CallExtended(NamedTuple):
    granted_s: int
    final: bool


@dataclass(frozen=True, slots=True)
class CallRefused:
    """call-admission refuses. `sip_status` is the policy's status for it, 0: that of the edge's table."""

    refuse: Refuse
    sip_status: int = 0


class Unanswered(NamedTuple):
    """The question could not be answered; `overloaded`: because there is too much to do."""

    overloaded: bool = False


class NoRecord(NamedTuple):
    """There is none: the call is over, or seconds old."""


Answer = (
    CallerIdentity
    | Rejected
    | FoundCalled
    | CallAdmitted
    | CallExtended
    | CallRefused
    | CallPlacedElsewhere
    | DialogRecord
    | NoRecord
    | Unanswered
)


class Ask(NamedTuple):
    """A question. Its answer comes back under `number`, which no other question of this edge ever has."""

    number: int
    question: Question


# What happened.


class CallStarted(NamedTuple):
    hold_id: UUID
    call_id: str
    account_id: str
    answered_at_s: float
    trunk: str
    traceparent: str


class CallEnded(NamedTuple):
    """`answered_at_s` 0: never answered, or not known to this edge. `sip_status` of a call that wasn't answered."""

    hold_id: UUID
    call_id: str
    account_id: str
    answered_at_s: float
    ended_at_s: float
    reason: str
    sip_status: int
    trunk: str
    traceparent: str
    # For statistics of callers and targets; empty where this edge doesn't know them.
    destination: str = ""
    caller_number: str = ""
    source: str = ""
    local: bool = False


@dataclass(frozen=True, slots=True)
class EdgeDecision:
    """A refusal by the edge, with every rule that was looked at on the way."""

    event_id: UUID
    at_s: float
    call_id: str
    traceparent: str
    method: str
    refuse: Refuse
    rules: tuple[RuleResult, ...]
    revision: int
    account_id: str
    source: str


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Keep where a user's phones are, for all edges; a location without bindings is to be forgotten."""

    location: Location
    expires_s: float


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """Keep what another process needs to go on with this call; it is worth nothing after `expires_s` seconds."""

    record: DialogRecord
    expires_s: float


@dataclass(frozen=True, slots=True)
class ForgetRecord:
    """The call is over."""

    hold_id: UUID


class NewsKind(Enum):
    """What an edge may tell of a call that another one watches, or sets up."""

    ACKNOWLEDGED = "acknowledged"
    CANCELLED = "cancelled"
    ENDED = "ended"
    MOVED = "moved"
    REFRESHED = "refreshed"


@dataclass(frozen=True, slots=True)
class CallNews:
    """To be told to the other edges, one of which watches this call: by which side it ended and how long ago the BYE
    came, where a leg is now, or for how long the session was refreshed (RFC 4028; 0: for ever)."""

    hold_id: UUID
    kind: NewsKind
    from_caller: bool
    address: SocketAddress | None
    session_s: int = 0
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ScannerSeen:
    """A known scanner: its address is to be banned everywhere."""

    source: str
    evidence: str
    ban_s: int
