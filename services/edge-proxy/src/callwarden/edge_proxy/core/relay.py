"""Requests inside a call, both ways: ACK, BYE, re-INVITE, UPDATE, INFO, PRACK … (RFC 3261 16, 12.2).

A request goes to where the other side is known to be, never to an address that the sender chose. In: passing on. Out:
whether it may pass (`dialog_gate`), the call's clock (`active_call`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from callwarden.edge_proxy.core import dialogs, forwarding
from callwarden.edge_proxy.core.active_call import ActiveCalls
from callwarden.edge_proxy.core.call import EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.cookie import Cookie, CookieFault
from callwarden.edge_proxy.core.effects import CallEnded, CallNews, ForgetRecord, NewsKind
from callwarden.edge_proxy.core.speakers import Speakers, receiver, sender
from callwarden.edge_proxy.core.statuses import OVERLOAD_RETRY_S
from callwarden.sip import build
from callwarden.sip.address import Endpoint, SocketAddress
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response
from callwarden.sip.nameaddr import parse_name_addr
from callwarden.sip.transaction import ClientTransaction, Peer, Send, ServerTransaction, TooManyTransactions

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

    def __init__(
        self,
        context: Context,
        calls: EdgeCalls,
        speakers: Speakers,
        active_calls: ActiveCalls,
        is_peer: Callable[[str], bool],
    ) -> None:
        """`is_peer`: whether an address is a trunk's or carrier's of ours, and no phone's."""
        self._context = context
        self._calls = calls
        self._speakers = speakers
        self._active_calls = active_calls
        self._is_peer = is_peer

    def pass_on(
        self,
        request: Request,
        source: SocketAddress,
        found: Cookie,
        call: EdgeCall | None,
    ) -> None:
        """A request that may pass."""
        context = self._context
        method = request.method
        try:
            copy, to = self._prepare(request, found, call, None)
            server = context.layer.accept(request, context.reply_peer(request, source), context.mono_s)
        except Malformed as error:
            # Its next hop is no place to send to.
            context.answer_stateless(request, source, error.status, error.reason)
            return
        except TooManyTransactions:
            self._overloaded(request, source)
            return
        contact = (request.get("contact") or "") if method in _REFRESHING else ""
        forwarded = InDialogRequest(
            method, server, call, found, request.call_id, context.unix_s, context.mono_s, contact, source
        )
        server.context = forwarded
        if method == "INVITE":
            context.respond(server, build.response(request, 100))
        if call is not None and (side := sender(call, found)) is not None:
            side.cseq = max(side.cseq, request.cseq.number)
        try:
            client, effects = context.layer.send_request(copy, Peer(to), context.mono_s)
        except TooManyTransactions:
            context.layer.drop(server)
            self._overloaded(request, source)
            return
        client.context = forwarded
        forwarded.client = client
        context.effects += effects

    def _overloaded(self, request: Request, source: SocketAddress) -> None:
        self._context.stats.unavailable += 1
        self._context.answer_stateless(request, source, 503, None, [("Retry-After", str(OVERLOAD_RETRY_S))])

    def ack(self, request: Request, source: SocketAddress) -> None:
        """An ACK to a 2xx goes on without a transaction (RFC 3261 16.11, 17.1.1.3). It is never answered."""
        context = self._context
        try:
            found = self._speakers.read(request)
            if isinstance(found, Cookie) and request.max_forwards != 0:
                call = self._calls.get(found.hold_id)
                if self._speakers.may_speak(found, call, source):
                    branch = build.stateless_branch(request, context.keys.tags[:32])
                    copy, to = self._prepare(request, found, call, branch)
                    context.effects.append(Send(copy.to_bytes(), Peer(to)))
                    if found.from_caller:
                        if call is not None:
                            call.is_acknowledged = True
                        elif not self._calls.was_closed(found.hold_id):
                            # The edge that set the call up would end it for want of this.
                            context.effects.append(CallNews(found.hold_id, NewsKind.ACKNOWLEDGED, True, None))
                    return
                found = CookieFault.FORGED
        except Malformed:
            found = CookieFault.FORGED
        # To an answer of our own without a transaction (407), mostly.
        context.stats.acks_dropped += 1
        if found is CookieFault.FORGED:
            context.counters.wrong(source.host, context.mono_s)

    # Where to.

    def _prepare(
        self, request: Request, found: Cookie, call: EdgeCall | None, branch: str | None
    ) -> tuple[Request, Endpoint]:
        """The copy for the next hop (16.4, 16.6), and where that is."""
        if self._speakers.only_route(request) is not None:
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
        side = None if call is None else receiver(call, found)
        if side is not None:
            return side.address
        if (moved := self._speakers.moved_receiver(found)) is not None:
            return moved
        if found.target is not None:
            return found.target
        # Only the other edge can know it; what the sender wrote into its request is no place to send to.
        raise Malformed("Unknown Dialog", status=481)

    # What comes back.

    def response(self, forwarded: InDialogRequest, response: Response) -> None:
        """An answer to a request that was passed on."""
        context = self._context
        status = response.status
        if status == 100:
            return
        call = forwarded.call
        if 200 <= status < 300 and call is not None and not call.is_elsewhere:
            self._follow(forwarded, call)
            if forwarded.method in _REFRESHING:
                self._refresh(forwarded, call, response)
                self._active_calls.refreshed(call, dialogs.session_s_of(response))
        elif 200 <= status < 300 and forwarded.method in _REFRESHING:
            found, session_s = forwarded.cookie, dialogs.session_s_of(response)
            context.effects.append(CallNews(found.hold_id, NewsKind.REFRESHED, found.from_caller, None, session_s))
        if not self._is_trusted(forwarded):
            forwarding.clean_identity(response)
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

    def _is_trusted(self, forwarded: InDialogRequest) -> bool:
        """Whether who answers may say who somebody is: a trunk or carrier, not a phone."""
        call = forwarded.call
        side = None if call is None else receiver(call, forwarded.cookie)
        if side is not None:
            return not side.is_phone
        source = self._context.source
        return source is not None and self._is_peer(source.host)

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
        """The other side may or may not believe in the call: it is ended at both (DESIGN D14), also where another edge
        watches it.

        Of a call without a record, which is seconds old, the edge that knows it asks both sides itself.
        """
        call = forwarded.call
        if call is None or self._calls.was_closed(call.hold_id):
            return
        if call.is_elsewhere:
            self._active_calls.take_over(call)
            self._context.effects.append(CallNews(call.hold_id, NewsKind.ENDED, forwarded.cookie.from_caller, None))
        self._active_calls.cut(call, why)

    def _follow(self, forwarded: InDialogRequest, call: EdgeCall) -> None:
        """A NAT may give a phone another port: it is followed there once the other side has accepted its request."""
        side = sender(call, forwarded.cookie)
        if side is not None and side.is_phone:
            side.address = forwarded.source

    def _bye_done(self, forwarded: InDialogRequest) -> None:
        context = self._context
        why = "caller-bye" if forwarded.cookie.from_caller else "callee-bye"
        call = forwarded.call
        if call is not None and not call.is_elsewhere:
            self._active_calls.hung_up(call, why, forwarded.begun_mono_s)
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
            context.effects.append(
                CallNews(
                    forwarded.cookie.hold_id,
                    NewsKind.ENDED,
                    forwarded.cookie.from_caller,
                    None,
                    age_s=context.mono_s - forwarded.begun_mono_s,
                )
            )
            if call is not None:
                context.effects.append(ForgetRecord(call.hold_id))

    def _refresh(self, forwarded: InDialogRequest, call: EdgeCall, response: Response) -> None:
        """Remember where each side wants to be called from now on (RFC 3261 12.2.1.2)."""
        asking, answering = sender(call, forwarded.cookie), receiver(call, forwarded.cookie)
        if asking is None or answering is None:
            return
        try:
            if forwarded.contact:
                asking.target = str(parse_name_addr(forwarded.contact).uri)
            if response.contacts:
                answering.target = str(response.contacts[0].uri)
        except Malformed:
            return
