"""Requests inside a call, both ways: ACK, BYE, re-INVITE, UPDATE, INFO, PRACK … (RFC 3261 16, 12.2).

The signed cookie of our Record-Route shows that the call is ours, which side is speaking and where from; it is enough
even where this edge knows nothing else of the call (DESIGN D6, D14). A request goes to where the other side is known to
be, never to an address that the sender chose. In: passing on. Out: the call's clock (`active_call`).
"""

from dataclasses import dataclass

from callwarden.edge_proxy.core import cookie, forwarding, tags, validation
from callwarden.edge_proxy.core.active_call import ActiveCalls
from callwarden.edge_proxy.core.call import CallSide, EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.cookie import Cookie, CookieFault
from callwarden.edge_proxy.core.effects import CallEnded
from callwarden.edge_proxy.core.sources import Sources
from callwarden.edge_proxy.core.statuses import OVERLOAD_RETRY_S
from callwarden.sip import build
from callwarden.sip.address import Endpoint, SocketAddress
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response
from callwarden.sip.nameaddr import parse_name_addr
from callwarden.sip.transaction import ClientTransaction, Peer, Send, ServerTransaction, TooManyTransactions
from callwarden.sip.uri import Uri

# Answers after which nobody knows whether there still is a call: the edge ends it at both sides (RFC 3261 12.2.1.2).
# Others to a BYE (a challenge, a bad request) mean that the call goes on, and so does its clock.
_DOUBTFUL = frozenset({408, 481})
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
    begun_mono_s: float
    contact: str
    source: SocketAddress
    client: ClientTransaction | None = None


class Relay:
    """Passes requests inside calls. Holds no state but what it shares."""

    def __init__(self, context: Context, calls: EdgeCalls, sources: Sources, active_calls: ActiveCalls) -> None:
        self._context = context
        self._calls = calls
        self._sources = sources
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
        if not self._may_speak(found, call, source):
            context.stats.cookies_forged += 1
            context.counters.wrong(source.host, context.mono_s)
            context.answer_stateless(request, source, 403)
            return
        if request.method == "REFER" and not self._may_refer(found, call):
            context.answer_stateless(request, source, 403)
            return
        try:
            self._pass(request, source, found, call)
        except Malformed as error:
            context.answer_stateless(request, source, error.status, error.reason)  # its next hop is no place to send to
        except TooManyTransactions:
            context.stats.unavailable += 1
            context.answer_stateless(request, source, 503, None, [("Retry-After", str(OVERLOAD_RETRY_S))])

    def _may_refer(self, found: Cookie, call: EdgeCall | None) -> bool:
        """Only to a phone of ours, whose new call is decided like any other. A carrier would place it itself, and
        charge us for what no account was asked for."""
        receiver = None if call is None else self._receiver(call, found)
        return self._context.is_from_peer if receiver is None else receiver.is_phone

    def _pass(self, request: Request, source: SocketAddress, found: Cookie, call: EdgeCall | None) -> None:
        context = self._context
        method = request.method
        copy, to = self._prepare(request, found, call, None)
        server = context.layer.accept(request, context.reply_peer(request, source), context.mono_s)
        contact = (request.get("contact") or "") if method in _REFRESHING else ""
        forwarded = InDialogRequest(
            method, server, call, found, request.call_id, context.unix_s, context.mono_s, contact, source
        )
        server.context = forwarded
        if method == "INVITE":
            context.respond(server, build.response(request, 100))
        if call is not None and (side := self._sender(call, found)) is not None:
            side.cseq = max(side.cseq, request.cseq.number)
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
                call = self._calls.get(found.hold_id)
                if self._may_speak(found, call, source):
                    branch = build.stateless_branch(request, context.keys.tags[:32])
                    copy, to = self._prepare(request, found, call, branch)
                    context.effects.append(Send(copy.to_bytes(), Peer(to)))
                    if call is not None and found.from_caller:
                        call.is_acknowledged = True
                    return
                found = CookieFault.FORGED
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
            return self._find_dialog(request)
        from_tag, to_tag = tags.from_tag(request), tags.to_tag(request)
        call = self._calls.find_cookie(text)
        if call is not None and call.call_id == request.call_id:
            from_caller = text == call.caller_cookie
            of_caller, of_callee = (from_tag, to_tag) if from_caller else (to_tag, from_tag)
            if of_caller == call.caller_tag and self._is_callees(call, of_callee):
                return Cookie(call.hold_id, from_caller, None)
            return CookieFault.WRONG_TAG
        found = cookie.read(context.keys, text, request.call_id, from_tag, to_tag, context.unix_s)
        if not isinstance(found, Cookie) or (call := self._calls.get(found.hold_id)) is None:
            return found
        # Of an early dialog, of a call that another edge set up, or of a dialog that was not the one answered.
        is_callees = self._is_callees(call, to_tag if found.from_caller else from_tag)
        return found if is_callees else CookieFault.WRONG_TAG

    @staticmethod
    def _is_callees(call: EdgeCall, tag: str | None) -> bool:
        """Whether it is the tag of the callee that answered, or of one that may."""
        return tag == call.callee_tag if call.callee_tag else tag in call.early

    def _find_dialog(self, request: Request) -> Cookie | None:
        """A request without our Route, from a side that dropped Record-Route and sends all through us."""
        call = self._calls.find_dialog(request.call_id)
        if call is None:
            return None
        from_tag, to_tag = tags.from_tag(request), tags.to_tag(request)
        if (from_tag, to_tag) == (call.caller_tag, call.callee_tag):
            return Cookie(call.hold_id, True, None)
        if (from_tag, to_tag) == (call.callee_tag, call.caller_tag):
            return Cookie(call.hold_id, False, None)
        return None

    def _may_speak(self, found: Cookie, call: EdgeCall | None, source: SocketAddress) -> bool:
        """Whether the side may speak from there: a phone from its address, a trunk from any of the trunk's."""
        side = None if call is None else self._sender(call, found)
        if side is not None:
            return source.host in side.hosts or (not side.is_phone and self._sources.is_trunk(source.host))
        known = found.source
        return known is None or known.host == source.host or self._sources.is_trunk(source.host)

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
        """Count a request whose cookie is worth nothing, and say that there is no such dialog (RFC 3261 12.2.2)."""
        context = self._context
        match fault:
            case CookieFault.FORGED | CookieFault.WRONG_TAG:
                context.stats.cookies_forged += 1
                context.counters.wrong(source.host, context.mono_s)
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
            return copy, self._next(found, call)
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
        return copy, self._next(found, call)

    def _next(self, found: Cookie, call: EdgeCall | None) -> Endpoint:
        """Where the other side is. Raises Malformed if that isn't known."""
        side = None if call is None else self._receiver(call, found)
        if side is not None:
            return side.address
        if found.target is not None:
            return found.target
        # Only the other edge can know it; what the sender wrote into its request is no place to send to.
        raise Malformed("Unknown Dialog", status=481)

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
        call = forwarded.call
        if 200 <= status < 300 and call is not None:
            self._follow(forwarded, call)
            if forwarded.method in _REFRESHING:
                self._refresh(forwarded, call, response)
                self._active_calls.refreshed(call, response)
        if forwarding.take_out_our_challenges(response, context.proxy.realms) and status in (401, 407):
            response = build.response(forwarded.server.request, 502, to_tag="")  # a challenge in our name isn't theirs
        else:
            response.pop_via()
        context.respond(forwarded.server, response)
        if forwarded.method == "BYE":
            if 200 <= status < 300:
                self._bye_done(forwarded)
            elif status in _DOUBTFUL or status >= 500:
                self._doubt(forwarded, "cut-bye-refused")
        elif forwarded.method in _REFRESHING and status in _DOUBTFUL:
            self._doubt(forwarded, "cut-dialog-unknown")

    def timed_out(self, forwarded: InDialogRequest) -> None:
        """No answer came (timer B or F)."""
        context = self._context
        if forwarded.method == "INVITE":
            context.answer(forwarded.server, 408)
        else:
            context.layer.drop(forwarded.server)  # RFC 4320 4.2: a 408 to a non-INVITE comes too late to be of use
        if forwarded.method == "BYE":
            self._doubt(forwarded, "cut-bye-unanswered")
        elif forwarded.method in _REFRESHING:
            self._doubt(forwarded, "cut-dialog-unknown")

    def send_failed(self, forwarded: InDialogRequest) -> None:
        """It could not be sent: as if a 503 had come, which RFC 3261 16.7 step 6 turns into 500 (16.9)."""
        self._context.answer(forwarded.server, 500)
        if forwarded.method == "BYE":
            self._doubt(forwarded, "cut-bye-unanswered")

    def cancelled(self, forwarded: InDialogRequest) -> None:
        """The re-INVITE was cancelled."""
        context = self._context
        if forwarded.client is not None:
            context.effects += context.layer.cancel(forwarded.client, context.mono_s)

    def _doubt(self, forwarded: InDialogRequest, why: str) -> None:
        """The other side may or may not believe in the call: it is ended at both (DESIGN D14).

        Of a call that this edge doesn't know, the edge that does goes on with the charge, and asks both sides itself.
        """
        if forwarded.call is not None:
            self._active_calls.cut(forwarded.call, why)

    def _follow(self, forwarded: InDialogRequest, call: EdgeCall) -> None:
        """A NAT may give a phone another port: it is followed there once the other side has accepted its request."""
        side = self._sender(call, forwarded.cookie)
        if side is not None and side.is_phone:
            side.address = forwarded.source

    def _bye_done(self, forwarded: InDialogRequest) -> None:
        context = self._context
        why = "caller-bye" if forwarded.cookie.from_caller else "callee-bye"
        if forwarded.call is not None:
            self._active_calls.hung_up(forwarded.call, why, forwarded.begun_mono_s)
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
