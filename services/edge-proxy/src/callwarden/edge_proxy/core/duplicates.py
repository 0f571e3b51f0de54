"""INVITEs that come to two edges: sent again after a change of DNS or of a balancer, or doubled on the way.

Both edges choose the same id for the call's hold, so that call-admission places one, for the edge that asks first. That
one places the call. The other one says nothing more to the caller, and passes on only that he gives up. In: the id,
and what an edge knows of calls that another one places. Out: calls themselves (`call_setup`).
"""

from typing import Final
from uuid import UUID, uuid5

from callwarden.edge_proxy.core import tags
from callwarden.edge_proxy.core.call import EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.call_states import CallEvent, CallState
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.effects import CallNews, NewsKind
from callwarden.sip.address import Endpoint, SocketAddress
from callwarden.sip.message import Request
from callwarden.sip.via import MAGIC_COOKIE

ELSEWHERE_MAX: Final = 10_000  # Such an INVITE that is forgotten is challenged as a new one is.
_HOLDS: Final = UUID("9a4c8f5e-6d0b-4d57-9c0e-0b1f9ab4b0a3")


def hold_id_of(request: Request, source: Endpoint) -> UUID | None:
    """The hold of the call that an INVITE sets up, the same at every edge: made of what identifies its transaction and
    its call (RFC 3261 17.2.3, 8.2.2.2) and of the host that sent it. A CANCEL has all that in common with its INVITE
    (9.1). None: its branch is one of RFC 2543, which isn't unique.
    """
    via = request.via
    branch = via.params.get("branch") or ""
    if not branch.startswith(MAGIC_COOKIE) or branch == MAGIC_COOKIE:
        return None
    from_tag, number = tags.from_tag(request) or "", str(request.cseq.number)
    parts = branch, via.host.lower(), str(via.port), request.call_id, from_tag, number, source.host
    return uuid5(_HOLDS, "\0".join(parts))


class Duplicates:
    """The calls that another edge places although their INVITEs came here, too. Mutable: it is the state."""

    def __init__(self, context: Context, calls: EdgeCalls) -> None:
        self._context = context
        self._calls = calls
        self._elsewhere: dict[UUID, None] = {}

    def find(self, request: Request, source: Endpoint) -> UUID | None:
        """The hold of the call, if this INVITE, or the one of this CANCEL, belongs to such a call."""
        if not self._elsewhere:
            return None
        hold_id = hold_id_of(request, source)
        return hold_id if hold_id in self._elsewhere else None

    def leave(self, call: EdgeCall) -> None:
        """Another edge places this call: the caller gets all answers from there."""
        context = self._context
        if call.state is CallState.ABANDONED:
            context.effects.append(CallNews(call.hold_id, NewsKind.CANCELLED, True, None))
        elif call.server is not None:
            context.layer.drop(call.server)
        call.step(CallEvent.PLACED_ELSEWHERE)
        call.server = None
        self._calls.remove(call)
        if len(self._elsewhere) >= ELSEWHERE_MAX:
            del self._elsewhere[next(iter(self._elsewhere))]
        self._elsewhere[call.hold_id] = None

    def cancel(self, request: Request, source: SocketAddress) -> None:
        """A CANCEL whose INVITE has no transaction here."""
        hold_id = self.find(request, source)
        if hold_id is not None:
            self._context.effects.append(CallNews(hold_id, NewsKind.CANCELLED, True, None))
        self._context.answer_stateless(request, source, 481 if hold_id is None else 200)
