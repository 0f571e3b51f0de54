"""Requests of our own in a dialog that isn't ours: the BYEs that cut a call, the ACK and BYE that an answer gets which
comes too late (RFC 3261 12, 15; callwarden.sip.dialog).

In: what was kept of INVITE and 200. Out: when and why (`talk`).
"""

from dataclasses import replace

from callwarden.edge_proxy.core.call import Call, Side
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.cookie import PARAMETER
from callwarden.sip.dialog import Dialog, between
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Message, Request, Response, parse
from callwarden.sip.transaction import Peer, Send, TooManyTransactions
from callwarden.sip.uri import Uri
from callwarden.sip.via import MAGIC_COOKIE, PORT_DEFAULT

# What dialogs are made of, and what a parser insists on.
_KEPT = frozenset({"via", "from", "to", "call-id", "cseq", "contact", "record-route"})
_BRANCH_BYTES = 8


def skeleton(start: str, message: Message) -> bytes:
    """A message without what a dialog doesn't need: 450 bytes for a second-long memory of 50,000 calls. 2 µs."""
    lines = [line for key, line in zip(message._keys, message._lines, strict=True) if key in _KEPT]
    return "\r\n".join([start, *lines, "", ""]).encode()


def is_ours(uri: Uri) -> bool:
    """A Record-Route of an edge: nobody else's has the parameter."""
    return PARAMETER in uri.params


def routes_beyond(response: Response) -> list[Uri]:
    """The routes of the proxies behind us, nearest first, from the Record-Route of an answer that comes from there."""
    if response._keys.count("record-route") == 1 and "," not in (response.get("record-route") or ""):
        return []  # ours alone, as nearly always
    routes = [route.uri for route in response.record_routes]
    first_ours = next((at for at, uri in enumerate(routes) if is_ours(uri)), 0)
    return routes[:first_ours][::-1]


def next_hop(routes: list[Uri], contact: Uri | None) -> tuple[str, int] | None:
    """Where requests to one side go: its first route, else its Contact."""
    uri = routes[0] if routes else contact
    if uri is None or not uri.is_sip:
        return None
    return uri.host.strip("[]"), uri.port or PORT_DEFAULT


def send_byes(context: Context, call: Call) -> None:
    """A BYE to each side as if from the other, with the numbers and targets that hold now (RFC 3261 15.1.1)."""
    assert call.caller is not None
    assert call.callee is not None
    try:
        invite, answer = parse(call.invite_bytes), parse(call.answer_bytes)
        assert isinstance(invite, Request)
        assert isinstance(answer, Response)
        as_caller, as_callee = between(invite, answer, is_ours)
    except Malformed:
        return  # It had no Contact: nobody can be told, and the sides can't tell each other either.
    _bye(context, as_caller, call.caller, call.callee)
    _bye(context, as_callee, call.callee, call.caller)


def _bye(context: Context, dialog: Dialog, of: Side, to: Side) -> None:
    dialog = replace(dialog, local_cseq=max(dialog.local_cseq, of.cseq), target=to.target or dialog.target)
    dialog, bye = dialog.request("BYE", _via(context), headers=[("Reason", 'SIP;cause=200;text="Call ended"')])
    of.cseq = dialog.local_cseq
    try:
        _, effects = context.layer.send_request(bye, to.peer, context.now_s)
    except TooManyTransactions:
        context.effects.append(Send(bye.to_bytes(), to.peer))  # once, without care for its answer
        return
    context.effects += effects


class LateAnswer:
    """A 2xx that came after we had given up on its branch: acknowledged whenever it comes, and ended once."""

    __slots__ = ("_ack", "_peer")

    def __init__(self, context: Context, response: Response, peer: Peer) -> None:
        """Sends ACK and BYE. Raises Malformed if the answer can't be told where it came from."""
        contacts = response.contacts
        if not contacts:
            raise Malformed("Missing Contact")
        routes = [route for route in response.record_routes if not is_ours(route.uri)]
        dialog = Dialog(
            call_id=response.call_id,
            local=response.get("from") or "",
            remote=response.get("to") or "",
            target=str(contacts[0].uri),
            routes=tuple(f"<{route.uri}>" for route in reversed(routes)),
            local_cseq=response.cseq.number,
            remote_cseq=0,
        )
        dialog, ack = dialog.request("ACK", _via(context))
        self._ack = ack.to_bytes()
        self._peer = peer
        self.again(context)
        _, bye = dialog.request("BYE", _via(context))
        _, effects = context.layer.send_request(bye, peer, context.now_s)
        context.effects += effects

    def again(self, context: Context) -> None:
        context.effects.append(Send(self._ack, self._peer))


def _via(context: Context) -> str:
    branch = f"{MAGIC_COOKIE}{context.chance(_BRANCH_BYTES).hex()}"
    return f"SIP/2.0/UDP {context.site.address};branch={branch}"
