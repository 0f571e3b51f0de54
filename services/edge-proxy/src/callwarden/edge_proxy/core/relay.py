"""Requests inside a call, both ways: ACK, BYE, re-INVITE, UPDATE, INFO, PRACK … (RFC 3261 16, 12.2).

The signed cookie of our Record-Route shows that the call is ours and which side is speaking; it is enough even where
this edge knows nothing else of the call (DESIGN D6). A request goes to where the other side is known to be, never to an
address that the sender chose. In: passing on. Out: the call's clock (`active_call`).
"""

from dataclasses import dataclass

from callwarden.edge_proxy.core import cookie, forwarding, tags, validation
from callwarden.edge_proxy.core.active_call import ActiveCalls
from callwarden.edge_proxy.core.call import CallSide, EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.cookie import Cookie, CookieFault
from callwarden.edge_proxy.core.effects import CallEnded
from callwarden.edge_proxy.core.statuses import OVERLOAD_RETRY_S
from callwarden.sip import build
from callwarden.sip.address import Endpoint, SocketAddress
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response
from callwarden.sip.nameaddr import NameAddr, parse_name_addr
from callwarden.sip.transaction import ClientTransaction, Peer, Send, ServerTransaction, TooManyTransactions
from callwarden.sip.uri import Uri

# Answers to a BYE after which the call is over. Others (a wrong number, a challenge) mean that it goes on, and so does
# its clock: else a BYE made to be refused would stop the charge and not the call.
_ENDING = frozenset({408, 481})
_REFRESHING = frozenset({"INVITE", "UPDATE"})  # RFC 3261 12.2, RFC 3311


@dataclass(slots=True)
class InDialogRequest:
    """One request on its way through. Mutable: it waits for its branch."""

    method: str
    server: ServerTransaction
    call: EdgeCall | None
    cookie: Cookie
    call_id: str
    begun_unix_s: float
    contact: str
    client: ClientTransaction | None = None


class Relay:
    """Passes requests inside calls. Holds no state but what it shares."""

    def __init__(self, context: Context, calls: EdgeCalls, active_calls: ActiveCalls) -> None:
        self._context = context
        self._calls = calls
        self._active_calls = active_calls
        self._route_prefix = f"<sip:{context.proxy.address};lr;{cookie.PARAMETER}="

    def request(self, request: Request, source: SocketAddress) -> None:
        """A request with a tag in To, but ACK."""
        context = self._context
        fault = validation.check(request, context.proxy.address, inside=True)
        if fault is not None:
            context.counters.wrong(source.host, context.mono_s)
            context.answer_stateless(request, source, fault.status, fault.reason, fault.headers)
            return
        found = self._read(request)
        if not isinstance(found, Cookie):
            status = self._judge(found, source)
            context.answer_stateless(request, source, status)
            return
        call = self._calls.get(found.hold_id)
        if call is None and self._calls.was_closed(found.hold_id):
            context.answer_stateless(request, source, 481)
            return
        try:
            self._pass(request, source, found, call)
        except Malformed as error:
            context.answer_stateless(request, source, error.status, error.reason)  # its next hop is no place to send to
        except TooManyTransactions:
            context.stats.unavailable += 1
            context.answer_stateless(request, source, 503, None, [("Retry-After", str(OVERLOAD_RETRY_S))])

    def _pass(self, request: Request, source: SocketAddress, found: Cookie, call: EdgeCall | None) -> None:
        context = self._context
        method = request.method
        copy, to = self._prepare(request, found, call, None)
        server = context.layer.accept(request, context.reply_peer(request, source), context.mono_s)
        contact = (request.get("contact") or "") if method in _REFRESHING else ""
        forwarded = InDialogRequest(method, server, call, found, request.call_id, context.unix_s, contact)
        server.context = forwarded
        if method == "INVITE":
            context.respond(server, build.response(request, 100))
        if call is not None and (side := self._sender(call, found)) is not None:
            side.cseq = max(side.cseq, request.cseq.number)
            if side.is_phone:
                side.address = source  # a NAT may have given it another port since
        try:
            client, effects = context.layer.send_request(copy, Peer(to), context.mono_s)
        except TooManyTransactions:
            context.layer.drop(server)
            raise
        client.context = forwarded
        forwarded.client = client
        context.effects += effects

    def ack(self, request: Request, source: SocketAddress) -> None:
        """An ACK to a 2xx goes on without a transaction (RFC 3261 16.11, 17.1.1.3). It is never answered."""
        context = self._context
        try:
            found = self._read(request)
            if isinstance(found, Cookie) and request.max_forwards != 0:
                branch = build.stateless_branch(request, context.keys.tags[:32])
                copy, to = self._prepare(request, found, self._calls.get(found.hold_id), branch)
                context.effects.append(Send(copy.to_bytes(), Peer(to)))
                return
        except Malformed:
            found = CookieFault.FORGED
        # To an answer of our own without a transaction (407), mostly.
        context.stats.acks_dropped += 1
        if found is CookieFault.FORGED:
            context.counters.wrong(source.host, context.mono_s)

    # Where from, where to.

    def _read(self, request: Request) -> Cookie | CookieFault | None:
        """The cookie of the request: in its top Route, or in its Request-URI where a strict router put it (16.4)."""
        context = self._context
        text = self._only_route(request) or self._routed(request)
        if not text:
            return None
        from_tag, to_tag = tags.from_tag(request), tags.to_tag(request)
        call = self._calls.find_cookie(text)
        if call is not None and call.call_id == request.call_id:
            if from_tag == call.caller_tag:
                return Cookie(call.hold_id, True, None)
            if to_tag == call.caller_tag:
                return Cookie(call.hold_id, False, None)
        return cookie.read(context.keys, text, request.call_id, from_tag, to_tag, context.unix_s)

    def _only_route(self, request: Request) -> str | None:
        """The cookie where the one Route is ours as we wrote it, which is nearly always: nothing is taken apart."""
        if request._keys.count("route") != 1:
            return None
        value = request.get("route") or ""
        prefix = self._route_prefix
        if not value.startswith(prefix) or not value.endswith(">"):
            return None
        text = value[len(prefix) : -1]
        return text if text.replace("-", "").replace("_", "").isalnum() else None

    def _routed(self, request: Request) -> str | None:
        uri: Uri | None = None
        if "route" in request:
            top = request.routes[0].uri
            if self._context.proxy.is_us(top):
                uri = top
        if uri is None and cookie.PARAMETER in request.uri.params and self._context.proxy.is_us(request.uri):
            uri = request.uri
        return uri.params.get(cookie.PARAMETER) if uri is not None else None

    def _judge(self, fault: CookieFault | None, source: SocketAddress) -> int:
        """The status for a request whose cookie is worth nothing."""
        context = self._context
        match fault:
            case CookieFault.FORGED:
                context.stats.cookies_forged += 1
                context.counters.wrong(source.host, context.mono_s)
                return 403
            case CookieFault.EXPIRED:
                context.stats.cookies_expired += 1
        return 481

    def _prepare(
        self, request: Request, found: Cookie, call: EdgeCall | None, branch: str | None
    ) -> tuple[Request, Endpoint]:
        """The copy for the next hop (16.4, 16.6), and where that is."""
        if self._only_route(request) is not None:
            copy = forwarding.forward(self._context, request, uri=request.uri_text, branch=branch)
            copy.remove("route")
            return copy, self._next(request, [], found, call)
        routes = request.routes if "route" in request else []
        uri = request.uri_text
        drop_last = False
        if routes and not self._context.proxy.is_us(routes[0].uri):
            # A strict router before us: the Request-URI is ours, the real one is the last Route (16.4).
            uri, drop_last = str(routes[-1].uri), True
            rest = routes[:-1]
        else:
            rest = routes[1:]
        strict = bool(rest) and not rest[0].uri.is_loose
        copy = forwarding.forward(self._context, request, uri=str(rest[0].uri) if strict else uri, branch=branch)
        if strict:
            # 16.6 step 6: a strict router after us.
            copy.remove("route")
            for route in rest[1:]:
                copy.add("Route", str(route))
            copy.add("Route", f"<{uri}>")
        elif drop_last:
            copy.remove("route")
            for route in rest:
                copy.add("Route", str(route))
        elif routes:
            copy.pop_route()
        return copy, self._next(request, rest, found, call)

    def _next(self, request: Request, rest: list[NameAddr], found: Cookie, call: EdgeCall | None) -> Endpoint:
        """Where the other side is."""
        side = None if call is None else self._receiver(call, found)
        if side is not None:
            return side.address
        if found.target is not None:
            return found.target
        # A carrier known by name only, and a call that this edge doesn't know.
        hop = rest[0].uri if rest else request.uri
        return hop.endpoint

    @staticmethod
    def _sender(call: EdgeCall, found: Cookie) -> CallSide | None:
        return call.caller if found.from_caller else call.callee

    @staticmethod
    def _receiver(call: EdgeCall, found: Cookie) -> CallSide | None:
        return call.callee if found.from_caller else call.caller

    # What comes back.

    def response(self, forwarded: InDialogRequest, response: Response) -> None:
        """An answer to a request that was passed on."""
        context = self._context
        status = response.status
        if status == 100:
            return
        if 200 <= status < 300 and forwarded.call is not None and forwarded.method in _REFRESHING:
            self._refresh(forwarded, forwarded.call, response)
        response.pop_via()
        context.respond(forwarded.server, response)
        if forwarded.method == "BYE" and (200 <= status < 300 or status in _ENDING):
            self._bye_done(forwarded)

    def timed_out(self, forwarded: InDialogRequest) -> None:
        """No answer came (timer B or F)."""
        context = self._context
        if forwarded.method == "BYE":
            self._bye_done(forwarded)
        if forwarded.method == "INVITE":
            context.answer(forwarded.server, 408)
        else:
            context.layer.drop(forwarded.server)  # RFC 4320 4.2: a 408 to a non-INVITE comes too late to be of use

    def send_failed(self, forwarded: InDialogRequest) -> None:
        """It could not be sent: as if a 503 had come, which RFC 3261 16.7 step 6 turns into 500 (16.9)."""
        if forwarded.method == "BYE":
            self._bye_done(forwarded)
        self._context.answer(forwarded.server, 500)

    def cancelled(self, forwarded: InDialogRequest) -> None:
        """The re-INVITE was cancelled."""
        context = self._context
        if forwarded.client is not None:
            context.effects += context.layer.cancel(forwarded.client, context.mono_s)

    def _bye_done(self, forwarded: InDialogRequest) -> None:
        context = self._context
        why = "caller-bye" if forwarded.cookie.from_caller else "callee-bye"
        if forwarded.call is not None:
            self._active_calls.hung_up(forwarded.call, why, forwarded.begun_unix_s)
        elif not self._calls.was_closed(forwarded.cookie.hold_id):
            # Of a call that another edge, or this one before a restart, set up: its hold knows the rest.
            self._calls.close_unknown(forwarded.cookie.hold_id)
            context.effects.append(
                CallEnded(
                    forwarded.cookie.hold_id,
                    forwarded.call_id,
                    forwarded.cookie.account_id,
                    0.0,
                    forwarded.begun_unix_s,
                    why,
                    0,
                    "",
                    context.new_traceparent(),
                )
            )

    def _refresh(self, forwarded: InDialogRequest, call: EdgeCall, response: Response) -> None:
        """Remember where each side wants to be called from now on (RFC 3261 12.2.1.2)."""
        sender, receiver = self._sender(call, forwarded.cookie), self._receiver(call, forwarded.cookie)
        if sender is None or receiver is None:
            return
        try:
            if forwarded.contact:
                sender.target = str(parse_name_addr(forwarded.contact).uri)
            if response.contacts:
                receiver.target = str(response.contacts[0].uri)
        except Malformed:
            return
