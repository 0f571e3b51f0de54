"""The outputs of the transaction layer: bytes to send, messages to hand on, ends.  And where to: ``Peer``.

In: plain values, NamedTuples because a few are made for each datagram.  Out: when each arises (``transaction``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from callwarden.sip.address import Endpoint
from callwarden.sip.message import Request, Response

if TYPE_CHECKING:
    from callwarden.sip.transaction import ClientTransaction, ServerTransaction, Transaction


class Peer(NamedTuple):
    """Where a message came from or goes.  A NamedTuple because one is made for each datagram.

    ``flow`` is the edge's own number for the socket or connection; the layer only hands it back.
    """

    address: Endpoint
    transport: str = "UDP"
    flow: int = 0

    @property
    def is_reliable(self) -> bool:
        return self.transport != "UDP"


class Send(NamedTuple):
    """Put these bytes on the wire."""

    data: bytes
    to: Peer


class RequestReceived(NamedTuple):
    """A request that belongs to no transaction.  ACK never comes so; a CANCEL does if its INVITE is unknown (481)."""

    request: Request
    source: Peer


class AckReceived(NamedTuple):
    """An ACK that ends no failure of ours: to a 2xx (pass it on) or to nothing that we know (drop it)."""

    request: Request
    source: Peer


class ResponseReceived(NamedTuple):
    """An answer to a request we sent: each provisional, the final once, but a 2xx to INVITE each time it comes."""

    transaction: ClientTransaction
    response: Response


class StrayResponse(NamedTuple):
    """An answer to nothing we know.  A proxy drops it (RFC 6026 7.3)."""

    response: Response
    source: Peer


class Cancelled(NamedTuple):
    """The caller gave up.  Its CANCEL has its 200; cancel the branch and answer the INVITE with 487."""

    transaction: ServerTransaction


class TransactionTimedOut(NamedTuple):
    """No answer came (client: take it for a 408), or no ACK to our failure (server: nothing to do)."""

    transaction: Transaction


class TransportFailed(NamedTuple):
    """What the transport reported by ``transport_failed`` ended this transaction (client: take it for a 503)."""

    transaction: Transaction


class Terminated(NamedTuple):
    """The transaction is forgotten.  Always its last output."""

    transaction: Transaction


Output = (
    Send
    | RequestReceived
    | AckReceived
    | ResponseReceived
    | StrayResponse
    | Cancelled
    | TransactionTimedOut
    | TransportFailed
    | Terminated
)
