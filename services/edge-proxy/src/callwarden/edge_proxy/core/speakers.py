"""Who speaks in a dialog, and whether it may: cookies, tags and addresses of requests inside calls (DESIGN D14).

In: which call and side a request is of. Out: what becomes of it (`relay`).
"""

from typing import NamedTuple
from uuid import UUID

from callwarden.edge_proxy.core import cookie, tags
from callwarden.edge_proxy.core.call import CallSide, EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.cookie import Cookie, CookieFault
from callwarden.edge_proxy.core.sources import Sources
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request
from callwarden.sip.uri import Uri

MOVED_MAX = 10_000  # Of calls of other edges; a forgotten one is challenged once more.


def sender(call: EdgeCall, found: Cookie) -> CallSide | None:
    """The side that speaks."""
    return call.caller if found.from_caller else call.callee


def receiver(call: EdgeCall, found: Cookie) -> CallSide | None:
    """The side that is spoken to."""
    return call.callee if found.from_caller else call.caller


class MovedLeg(NamedTuple):
    """Where a leg is that isn't where its cookie says. `is_recorded`: the call's record says so, too."""

    address: SocketAddress
    is_recorded: bool


class Speakers:
    """Finds who speaks. Mutable only in the legs that moved while another edge watches their call."""

    def __init__(self, context: Context, calls: EdgeCalls, sources: Sources) -> None:
        self._context = context
        self._calls = calls
        self._sources = sources
        self._moved: dict[tuple[UUID, bool], MovedLeg] = {}  # by hold and whether it is the caller's
        self._route_prefix = f"<sip:{context.proxy.address};lr;{cookie.PARAMETER}="

    def read(self, request: Request) -> Cookie | CookieFault | None:
        """The cookie of the request: in its top Route, or in its Request-URI where a strict router put it (16.4)."""
        context = self._context
        text = self.only_route(request) or self._routed(request)
        if not text:
            return self._find_dialog(request)
        from_tag, to_tag = tags.from_tag(request), tags.to_tag(request)
        call = self._calls.find_cookie(text)
        if call is not None and call.call_id == request.call_id:
            from_caller = text == call.caller_cookie
            of_caller, of_callee = (from_tag, to_tag) if from_caller else (to_tag, from_tag)
            if of_caller == call.caller_tag and self.is_callees(call, of_callee):
                return Cookie(call.hold_id, from_caller, None)
            return CookieFault.WRONG_TAG
        found = cookie.read(context.keys, text, request.call_id, from_tag, to_tag, context.unix_s)
        if not isinstance(found, Cookie) or (call := self._calls.get(found.hold_id)) is None:
            return found
        # Of an early dialog, of a call that another edge set up, or of a dialog that was not the one answered.
        is_callees = self.is_callees(call, to_tag if found.from_caller else from_tag)
        return found if is_callees else CookieFault.WRONG_TAG

    def is_in(self, call: EdgeCall, request: Request, found: Cookie) -> bool:
        """Whether the tags are those of the call's dialog. A callee's cookie alone doesn't show its own tag."""
        from_tag, to_tag = tags.from_tag(request), tags.to_tag(request)
        of_caller, of_callee = (from_tag, to_tag) if found.from_caller else (to_tag, from_tag)
        return of_caller == call.caller_tag and self.is_callees(call, of_callee)

    @staticmethod
    def is_callees(call: EdgeCall, tag: str | None) -> bool:
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

    def may_speak(self, found: Cookie, call: EdgeCall | None, source: SocketAddress) -> bool:
        """Whether the side may speak from there: a phone from its address, a trunk from any of that trunk's."""
        side = None if call is None else sender(call, found)
        if side is not None:
            return source.host in side.hosts or (side.trunk != "" and self.is_trunks(source.host, side.trunk))
        known = found.source
        if known is None or known.host == source.host:
            return True
        moved = self._moved.get((found.hold_id, found.from_caller))
        return moved is not None and moved.address.host == source.host

    def is_trunks(self, host: str, trunk: str) -> bool:
        """Whether it is known to be an address of this trunk."""
        return self._sources.is_of(host, trunk) or self._context.is_carriers(host, trunk)

    # Legs that moved, of calls that another edge watches.

    def moved(self, found: Cookie, to: SocketAddress) -> None:
        """The side that spoke has shown at this edge that it is there now."""
        self._keep((found.hold_id, found.from_caller), MovedLeg(to, is_recorded=False))

    def moved_receiver(self, found: Cookie) -> SocketAddress | None:
        """Where the other side is now, if it isn't where the cookie says."""
        moved = self._moved.get((found.hold_id, not found.from_caller))
        return None if moved is None else moved.address

    def reconcile(self, call: EdgeCall, found: Cookie) -> None:
        """What the record says of both sides, and what this edge knows and the record doesn't say yet."""
        for from_caller, side, known in (
            (found.from_caller, sender(call, found), found.source),
            (not found.from_caller, receiver(call, found), found.target),
        ):
            if side is None or not side.is_phone:
                continue
            key = call.hold_id, from_caller
            moved = self._moved.get(key)
            if moved is not None and not moved.is_recorded and moved.address != side.address:
                side.hosts, side.address = (moved.address.host,), moved.address
            elif isinstance(side.address, SocketAddress) and (moved is not None or side.address != known):
                self._keep(key, MovedLeg(side.address, is_recorded=True))

    def _keep(self, key: tuple[UUID, bool], moved: MovedLeg) -> None:
        if key not in self._moved and len(self._moved) >= MOVED_MAX:
            del self._moved[next(iter(self._moved))]
        self._moved[key] = moved

    def only_route(self, request: Request) -> str | None:
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
