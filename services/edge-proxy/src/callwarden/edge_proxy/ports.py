"""What the edge needs of the world. Adapters make these; values are the core's own.

Every failure to answer is a CallwardenError: Unavailable, TimedOut or Exhausted; the app makes `Unreachable` of it.
"""

from typing import Protocol
from uuid import UUID

from callwarden.edge_proxy.core.counters import AddressReport
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    Admitted,
    CallEnded,
    CallStarted,
    Decided,
    ExtendCall,
    Extended,
    Identity,
    Refused,
    Rejected,
    ScannerSeen,
    StoreLocation,
    StoreRecord,
    VerifyDigest,
    VerifySource,
)


class Transport(Protocol):
    """The socket."""

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        """Put a datagram on the wire to a host (address or name) and port. Never waits, never raises: UDP may lose."""
        ...


class Identities(Protocol):
    """auth."""

    async def verify(self, question: VerifyDigest) -> Identity | Rejected: ...

    async def verify_source(self, question: VerifySource) -> Identity | Rejected: ...


class Admission(Protocol):
    """call-admission. Asked twice about the same hold, it answers the same."""

    async def admit(self, question: AdmitCall) -> Admitted | Refused: ...

    async def extend(self, question: ExtendCall) -> Extended | Refused: ...


class Guard(Protocol):
    """rate-guard."""

    async def report(self, reports: list[AddressReport]) -> None:
        """Give the sums to whoever counts each address. Never raises for the network: what can't be told is counted
        as lost, and the edge's own limits hold."""
        ...

    async def ban(self, scanner: ScannerSeen) -> None:
        """Have an address banned everywhere."""
        ...


class Directory(Protocol):
    """Where phones are, shared by all edges."""

    def store(self, change: StoreLocation) -> None:
        """Keep a location, or forget one without bindings. Returns at once; done when NATS is there."""
        ...


class Records(Protocol):
    """Running calls, kept so that another process can go on with them."""

    def store(self, change: StoreRecord) -> None:
        """Keep a record. Returns at once; where it can't be kept the call has no heir."""
        ...

    def forget(self, hold_id: UUID) -> None:
        """The call is over."""
        ...


class Events(Protocol):
    """JetStream, by way of the disk while it is away. Neither waits nor fails for the network."""

    def started(self, event: CallStarted) -> None: ...

    def ended(self, event: CallEnded) -> None: ...

    def decided(self, event: Decided) -> None: ...
