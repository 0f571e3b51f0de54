"""The transaction layer of RFC 3261 section 17 and RFC 6026, for a stateful proxy or user agent.

In: messages, the peer they came from, the time.  Out: values (``Send`` these bytes, here is a request, …) in the order
in which they happened.  No socket, no clock, no chance: branches come with the requests, ``now_s`` with each call.

How it is used::

    layer = TransactionLayer()
    for output in layer.receive(parse(data), peer, now_s):
        match output:
            case Send(data, to): transport.sendto(data, to.address)
            case RequestReceived(request, source): ...   # new; nothing is remembered yet
            case ResponseReceived(transaction, response): ...
            case AckReceived(request, source): ...       # to a 2xx, or to nothing we know (our stateless 407)
            case Cancelled(transaction): ...             # the CANCEL is already answered; answer the INVITE with 487

A request costs nothing until ``accept`` makes a server transaction of it; answer statelessly by sending
``build.response(...)`` yourself.  ``accept`` at once, before anything is awaited, else a retransmission is taken for
another request.  Retransmissions, ACKs to failures and CANCELs are the layer's business from then on.  Call
``handle_timers`` when ``next_timer_s`` has come.  Timer C and forking are the proxy's.

The machines themselves are in ``tables``, and what their actions do in ``actions``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from callwarden.sip import build
from callwarden.sip.actions import COMPILED
from callwarden.sip.message import Request, Response
from callwarden.sip.outputs import (
    AckReceived,
    Cancelled,
    Output,
    Peer,
    RequestReceived,
    ResponseReceived,
    Send,
    StrayResponse,
    Terminated,
    TransactionTimedOut,
    TransportFailed,
)
from callwarden.sip.tables import TransactionEvent, TransactionKind, TransactionState
from callwarden.sip.timers import Timers
from callwarden.sip.via import MAGIC_COOKIE

__all__ = [
    "AckReceived",
    "Cancelled",
    "ClientTransaction",
    "Misuse",
    "Output",
    "Peer",
    "RequestReceived",
    "ResponseReceived",
    "Send",
    "ServerTransaction",
    "StrayResponse",
    "Terminated",
    "TimerValues",
    "TooManyTransactions",
    "Transaction",
    "TransactionLayer",
    "TransactionTimedOut",
    "TransportFailed",
]

TRANSACTIONS_MAX = 100_000  # 500 calls/s keep 3 × 32 s × 500 = 48,000 alive; an idle one takes about 1 KB.


class Misuse(RuntimeError):
    """Our own code asked for what the machine does not allow."""


class TooManyTransactions(RuntimeError):
    """The layer is full.  Answer 503 statelessly."""


@dataclass(frozen=True, slots=True)
class TimerValues:
    """RFC 3261 17.1.1.1 and table 4.  A test hands in smaller ones."""

    t1_s: float = 0.5  # estimate of the round trip
    t2_s: float = 4.0  # longest interval between retransmissions of non-INVITE requests and INVITE answers
    t4_s: float = 5.0  # how long a message may stay in the network
    d_s: float = 32.0  # how long a client waits for retransmitted failures, over UDP at least 32 s

    @property
    def give_up_s(self) -> float:
        """Timers B, F, H, J, L, M."""
        return 64 * self.t1_s


class _Transaction:
    """What both sides have.  Mutable: it is the state.

    ``context`` is the user's own, for instance the transaction at the other side of a proxy.  Two that name each other
    are left to the garbage collector; setting one's to None at Terminated frees both at once.
    """

    __slots__ = (
        "_last_sent",
        "_request",
        "_rows",
        "_silent",
        "context",
        "expire_at_s",
        "interval_s",
        "key",
        "kind",
        "method",
        "peer",
        "retransmit_at_s",
        "state",
    )

    def __init__(
        self,
        kind: TransactionKind,
        state: TransactionState,
        key: str,
        request: Request,
        peer: Peer,
        silent: bool = False,
    ) -> None:
        self.kind = kind
        self.state = state
        self.key = key
        self.method = request.method
        self.peer = peer
        self.context: Any = None
        self.interval_s = 0.0
        self.retransmit_at_s = 0.0
        self.expire_at_s = 0.0
        self._request: Request | None = request
        self._rows = COMPILED[kind][state]
        self._last_sent = b""
        self._silent = silent

    @property
    def request(self) -> Request:
        """The request, until the final answer; then it is let go (half a minute of calls would fill the memory)."""
        if self._request is None:
            raise Misuse("the request is forgotten after the final answer")
        return self._request

    @property
    def is_final(self) -> bool:
        """A final answer was sent or received, or all is over."""
        return self.state not in (TransactionState.CALLING, TransactionState.TRYING, TransactionState.PROCEEDING)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.state}>"


class ServerTransaction(_Transaction):
    """A request that we answer."""

    __slots__ = ("_cancelled",)

    def __init__(
        self,
        kind: TransactionKind,
        state: TransactionState,
        key: str,
        request: Request,
        peer: Peer,
        silent: bool = False,
    ) -> None:
        super().__init__(kind, state, key, request, peer, silent)
        self._cancelled = False  # the user knows


class ClientTransaction(_Transaction):
    """A request that we sent."""

    __slots__ = ("_cancel", "_cancelled")

    def __init__(
        self,
        kind: TransactionKind,
        state: TransactionState,
        key: str,
        request: Request,
        peer: Peer,
        silent: bool = False,
    ) -> None:
        super().__init__(kind, state, key, request, peer, silent)
        self._cancel = False  # wanted, waits for the first provisional
        self._cancelled = False  # sent


Transaction = ServerTransaction | ClientTransaction


class TransactionLayer:
    """All transactions of one transport user."""

    def __init__(
        self,
        timers: TimerValues | None = None,
        *,
        transactions_max: int = TRANSACTIONS_MAX,
        tag_secret: bytes = b"",
    ) -> None:
        """With ``tag_secret`` the 200 to a CANCEL has the To tag that ``build.local_tag`` gives for the INVITE."""
        self._values = timers or TimerValues()
        self._give_up_s = self._values.give_up_s
        self._transactions_max = transactions_max
        self._tag_secret = tag_secret
        self._servers: dict[str, ServerTransaction] = {}
        self._clients: dict[str, ClientTransaction] = {}
        self._timers: Timers[Transaction] = Timers()

    def __len__(self) -> int:
        return len(self._servers) + len(self._clients)

    # From the network.

    def receive(self, message: Request | Response, source: Peer, mono_s: float) -> list[Output]:
        """Take a message in.  Needs no more of it than ``parse`` has checked, so it raises nothing."""
        out: list[Output] = []
        if isinstance(message, Response):
            client = self._clients.get(f"{message.via.params.get('branch')}|{message.cseq.method}")
            if client is None:
                out.append(StrayResponse(message, source))
            else:
                status = message.status
                event = (
                    TransactionEvent.PROVISIONAL
                    if status < 200
                    else TransactionEvent.SUCCESS
                    if status < 300
                    else TransactionEvent.FAILURE
                )
                self._run(client, event, message, mono_s, out)
            return out

        method = message.method
        hop = _hop(message)
        if method == "ACK":
            server = self._servers.get(hop + "INVITE")
            if server is None:
                out.append(AckReceived(message, source))
            else:
                server_event = TransactionEvent.ACK
                self._run(server, server_event, message, mono_s, out)
            return out
        server = self._servers.get(hop + method)
        if server is not None:
            self._run(server, TransactionEvent.REQUEST, message, mono_s, out)
        elif method == "CANCEL" and (invite := self._servers.get(hop + "INVITE")) is not None:
            self._cancelled(message, invite, source, mono_s, out)
        else:
            out.append(RequestReceived(message, source))
        return out

    def transport_failed(self, transaction: Transaction, mono_s: float) -> list[Output]:
        """The transport could not send what this transaction sent last (RFC 3261 17.1.4, 17.2.4)."""
        out: list[Output] = []
        if transaction.state is not TransactionState.TERMINATED:
            self._run(transaction, TransactionEvent.TRANSPORT_ERROR, None, mono_s, out)
        return out

    def send_failed(self, data: bytes, mono_s: float) -> list[Output]:
        """The transport learned that a datagram of ours did not arrive: its client transaction has failed (18.4).

        ``data`` may be only its beginning, as an ICMP error quotes it.  Nobody can guess a branch of ours, so what
        names one is about our request and no stranger's invention.  Anything else is ignored, and so is what comes
        after an answer.  Responses are not looked for: a client that misses one sends its request again.
        """
        found = _request_sent(data)
        if found is None:
            return []
        method, branch = found.groups()
        client = self._clients.get(f"{branch.decode('latin-1')}|{method.decode('ascii')}")
        if client is None or client.is_final:
            return []
        if client.kind is TransactionKind.INVITE_CLIENT and client.state is TransactionState.PROCEEDING:
            return []
        return self.transport_failed(client, mono_s)

    # From the user.

    def accept(self, request: Request, peer: Peer, mono_s: float) -> ServerTransaction:
        """Make a server transaction of a request that was handed out.  ``peer`` is where its answers go.

        Nothing is sent: answer an INVITE with 100 within 200 ms (RFC 3261 17.2.1).  Raises TooManyTransactions.
        """
        method = request.method
        key = _hop(request) + method
        if method == "ACK" or key in self._servers:
            raise Misuse("an ACK, or a request accepted before")
        if len(self) >= self._transactions_max:
            raise TooManyTransactions
        if method == "INVITE":
            server = ServerTransaction(TransactionKind.INVITE_SERVER, TransactionState.PROCEEDING, key, request, peer)
        else:
            server = ServerTransaction(TransactionKind.SERVER, TransactionState.TRYING, key, request, peer)
        self._servers[key] = server
        return server

    def respond(self, transaction: ServerTransaction, response: Response, mono_s: float) -> list[Output]:
        """Answer.  After a final answer all else is dropped, but that a 2xx to INVITE may be repeated."""
        out: list[Output] = []
        status = response.status
        event = (
            TransactionEvent.SEND_PROVISIONAL
            if status < 200
            else TransactionEvent.SEND_SUCCESS
            if status < 300
            else TransactionEvent.SEND_FAILURE
        )
        self._run(transaction, event, response, mono_s, out)
        return out

    def send_request(self, request: Request, peer: Peer, mono_s: float) -> tuple[ClientTransaction, list[Output]]:
        """Send a request that carries our Via with a fresh branch.  Not for ACK.  Raises TooManyTransactions."""
        if len(self) >= self._transactions_max:
            raise TooManyTransactions
        out: list[Output] = []
        return self._send(request, peer, mono_s, out, silent=False), out

    def cancel(self, transaction: ClientTransaction, mono_s: float) -> list[Output]:
        """Cancel an INVITE we sent: at once if it has a provisional answer, else when the first comes (RFC 3261 9.1).

        After a final answer, or a second time, it does nothing.  The answer to the CANCEL is not handed out; the INVITE
        ends with its own (487) or with TimedOut after 64 T1.
        """
        if transaction.kind is not TransactionKind.INVITE_CLIENT:
            raise Misuse("only an INVITE can be cancelled")
        out: list[Output] = []
        if transaction.state is TransactionState.CALLING:
            transaction._cancel = True
        elif transaction.state is TransactionState.PROCEEDING:
            self._cancel(transaction, mono_s, out)
        return out

    def drop(self, transaction: Transaction) -> None:
        """Forget a transaction without a word to either side."""
        if transaction.state is not TransactionState.TERMINATED:
            self._forget(transaction)

    # From the clock.

    def next_timer_s(self) -> float | None:
        """When ``handle_timers`` has something to do next; None: nothing is waited for."""
        return self._timers.next_s()

    def handle_timers(self, mono_s: float) -> list[Output]:
        """Do what is due."""
        out: list[Output] = []
        for entry in self._timers.due(mono_s):
            if self._timers.runs(entry):
                _, expires, transaction = entry
                if expires:
                    transaction.expire_at_s = 0.0
                    self._run(transaction, TransactionEvent.EXPIRE, None, mono_s, out)
                else:
                    transaction.retransmit_at_s = 0.0
                    self._run(transaction, TransactionEvent.RETRANSMIT, None, mono_s, out)
        return out

    # The engine.

    def _run(
        self,
        transaction: Transaction,
        event: TransactionEvent,
        message: Request | Response | None,
        mono_s: float,
        out: list[Output],
    ) -> None:
        row = transaction._rows.get(event)
        if row is None:
            raise Misuse(f"{transaction.kind} transaction: {event} in state {transaction.state}")
        state, rows, actions = row
        was = transaction.state
        transaction.state = state
        transaction._rows = rows
        for action in actions:
            action(self, transaction, message, mono_s, out)
        if state is TransactionState.TERMINATED and was is not TransactionState.TERMINATED:
            self._forget(transaction)
            if not transaction._silent:
                out.append(Terminated(transaction))

    def _forget(self, transaction: Transaction) -> None:
        # The timer queues may name it for half a minute more: keep it small.
        transaction.state = TransactionState.TERMINATED
        transaction._rows = COMPILED[transaction.kind].get(TransactionState.TERMINATED, {})
        transaction._request = None
        transaction._last_sent = b""
        transaction.retransmit_at_s = transaction.expire_at_s = 0.0
        if isinstance(transaction, ServerTransaction):
            del self._servers[transaction.key]
        else:
            del self._clients[transaction.key]

    def _send(self, request: Request, peer: Peer, mono_s: float, out: list[Output], silent: bool) -> ClientTransaction:
        method = request.method
        key = f"{request.via.params.get('branch')}|{method}"
        if method == "ACK" or key in self._clients:
            raise Misuse("an ACK, or a branch used before")
        if method == "INVITE":
            client = ClientTransaction(
                TransactionKind.INVITE_CLIENT, TransactionState.CALLING, key, request, peer, silent
            )
        else:
            client = ClientTransaction(TransactionKind.CLIENT, TransactionState.TRYING, key, request, peer, silent)
        self._clients[key] = client
        client._last_sent = data = request.to_bytes()
        if peer.transport == "UDP":
            client.interval_s = self._values.t1_s
            self._timers.start_retransmit(client, mono_s, client.interval_s)  # A or E
        self._timers.start_expire(client, mono_s, self._give_up_s)  # B or F
        out.append(Send(data, peer))
        return client

    def _cancel(self, invite: ClientTransaction, mono_s: float, out: list[Output]) -> None:
        if invite._cancelled:
            return
        invite._cancelled = True
        self._send(build.cancel(invite.request), invite.peer, mono_s, out, silent=True)
        self._timers.start_expire(invite, mono_s, self._give_up_s)  # RFC 3261 9.1: then it is taken for cancelled

    def _cancelled(
        self, request: Request, invite: ServerTransaction, source: Peer, mono_s: float, out: list[Output]
    ) -> None:
        # RFC 3261 9.2; its own transaction answers its retransmissions.
        ok = build.response(request, 200, to_tag=build.local_tag(request, self._tag_secret))
        if len(self) < self._transactions_max:
            key = _hop(request) + "CANCEL"
            server = ServerTransaction(
                TransactionKind.SERVER, TransactionState.TRYING, key, request, invite.peer, silent=True
            )
            self._servers[key] = server
            self._run(server, TransactionEvent.SEND_SUCCESS, ok, mono_s, out)
        else:
            out.append(Send(ok.to_bytes(), invite.peer))
        if invite.state is TransactionState.PROCEEDING and not invite._cancelled:
            invite._cancelled = True
            out.append(Cancelled(invite))


# The method and the top Via's branch of a request as we send it; what follows the branch shows that it is complete.
_request_sent = re.compile(
    rb"([A-Z]+) [^\r\n]+ SIP/2\.0\r\n(?:(?!Via:)[^\r\n]+\r\n)*+Via:[^\r\n]*?;branch=([^;,\r\n]+)[;,\r]"
).match


def _hop(request: Request) -> str:
    """What identifies a server transaction besides the method (RFC 3261 17.2.3), made for ``hop + method``."""
    via = request.via
    branch = via.params.get("branch")
    if branch is not None and branch.startswith(MAGIC_COOKIE) and branch != MAGIC_COOKIE:  # RFC 4475 3.2.1
        return f"{branch}|{via.host.lower()}:{via.port}|"
    # RFC 2543: what stays the same in the INVITE, its retransmissions, its CANCEL and its ACK, stamped or not.
    return f"{request.call_id}|{request.cseq.number}|{request.get('from')}|{request.uri_text}|{branch}|{via.sent_by}|"
