"""What the edge needs of the world. Adapters make these; values are the core's own.

Every failure to answer is a CallwardenError: Unavailable, TimedOut or Exhausted; the app makes `Unreachable` of it.
"""

from collections.abc import Sequence, Set
from typing import Protocol
from uuid import UUID

from callwarden.edge_proxy.core.counters import EdgeAddressReport
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    CallAdmitted,
    CallEnded,
    CallerIdentity,
    CallExtended,
    CallNews,
    CallPlacedElsewhere,
    CallRefused,
    CallStarted,
    EdgeDecision,
    ExtendCall,
    FindCalled,
    FoundCalled,
    LoadRecord,
    NoRecord,
    Rejected,
    ScannerSeen,
    StoreLocation,
    StoreRecord,
    VerifyDigest,
    VerifySource,
)
from callwarden.edge_proxy.core.records import DialogRecord
from callwarden.sip.address import Endpoint


class DatagramTransport(Protocol):
    """The socket."""

    def send(self, data: bytes, to: Endpoint) -> None:
        """Put a datagram on the wire; a name is looked up in the background. Never waits, never raises.

        UDP may lose it without a word. Where the system knows that it did not arrive, `EdgeApp.send_failed` is called,
        later: never before this returns.
        """
        ...


class Identities(Protocol):
    """auth."""

    async def verify(self, question: VerifyDigest) -> CallerIdentity | Rejected: ...

    async def verify_source(self, question: VerifySource) -> CallerIdentity | Rejected: ...

    async def find_called(self, question: FindCalled) -> FoundCalled: ...


class AdmissionClient(Protocol):
    """call-admission. Asked twice about the same hold, it answers the same."""

    async def admit(self, question: AdmitCall) -> CallAdmitted | CallRefused | CallPlacedElsewhere: ...

    async def extend(self, question: ExtendCall) -> CallExtended | CallRefused: ...


class Guard(Protocol):
    """rate-guard."""

    async def report(self, reports: list[EdgeAddressReport]) -> None:
        """Pass the sums on to the service that counts each address. Never raises for the network: what
        can't be sent is counted as lost, and the edge's own limits apply."""
        ...

    async def ban(self, scanner: ScannerSeen) -> None:
        """Have an address banned everywhere."""
        ...


class Directory(Protocol):
    """Where phones are, shared by all edges."""

    def store(self, change: StoreLocation) -> None:
        """Keep a location, or forget one without bindings. Returns at once; done when NATS is there."""
        ...


class DialogRecords(Protocol):
    """Running calls, kept so that another process can go on with them."""

    def store(self, change: StoreRecord) -> None:
        """Keep a record. Returns at once; where it can't be kept the call has no heir."""
        ...

    def forget(self, hold_id: UUID) -> None:
        """The call is over."""
        ...

    async def load(self, question: LoadRecord) -> DialogRecord | NoRecord:
        """The record that another edge keeps of a call."""
        ...

    @property
    def has_successor(self) -> bool:
        """Whether an edge is there that isn't to stop as well."""
        ...

    async def say_draining(self) -> None:
        """This edge is to stop: no other one counts on it any more. Where that can't be said, it isn't."""
        ...

    async def hand_over(self, records: Sequence[StoreRecord]) -> set[UUID]:
        """Keep these records now; the holds of those that are kept."""
        ...

    async def leave(self, hold_ids: Set[UUID]) -> Set[UUID]:
        """Have the others take these calls, whose records are kept. Those that nobody has taken in time."""
        ...


class EdgeEventPublisher(Protocol):
    """JetStream, by way of the disk while it is away. Neither waits nor fails for the network."""

    def started(self, event: CallStarted) -> None: ...

    def ended(self, event: CallEnded) -> None: ...

    def decided(self, event: EdgeDecision) -> None: ...


class OtherEdges(Protocol):
    """The other edges, one of which may watch a call of which a request came here."""

    @property
    def is_heard(self) -> bool:
        """Whether what they say arrives now, as far as is known."""
        ...

    def publish(self, news: CallNews) -> None:
        """Say it to those that are there now; nothing is kept for others. Neither waits nor fails for the network."""
        ...
