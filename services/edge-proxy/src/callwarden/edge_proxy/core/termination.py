"""Requests of our own in a dialog that isn't ours: the BYEs that cut a call, the ACK and BYE that an answer gets which
comes too late (RFC 3261 12, 15; callwarden.sip.dialog).

In: what to send. Out: when and why (`active_call`), what dialogs are made of (`dialogs`).
"""

from dataclasses import replace

from callwarden.edge_proxy.core.call import CallSide, EdgeCall
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.dialogs import dialogs_of, is_ours
from callwarden.sip.dialog import Dialog
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Response
from callwarden.sip.transaction import Peer, Send, TooManyTransactions
from callwarden.sip.via import MAGIC_COOKIE

_BRANCH_BYTES = 8


def send_byes(context: Context, call: EdgeCall) -> None:
    """A BYE to each side as if from the other, with the numbers and targets that hold now (RFC 3261 15.1.1)."""
    assert call.caller is not None
    assert call.callee is not None
    try:
        as_caller, as_callee = dialogs_of(call)
    except Malformed:
        return  # It had no Contact: neither we nor the sides can send a BYE.
    _bye(context, as_caller, call.caller, call.callee)
    _bye(context, as_callee, call.callee, call.caller)


def _bye(context: Context, dialog: Dialog, of: CallSide, to: CallSide) -> None:
    dialog = replace(dialog, local_cseq=max(dialog.local_cseq, of.cseq), target=to.target or dialog.target)
    dialog, bye = dialog.request("BYE", _via(context), headers=[("Reason", 'SIP;cause=200;text="Call ended"')])
    of.cseq = dialog.local_cseq
    try:
        _, effects = context.layer.send_request(bye, Peer(to.address), context.mono_s)
    except TooManyTransactions:
        context.effects.append(Send(bye.to_bytes(), Peer(to.address)))  # once, without care for its answer
        return
    context.effects += effects


class LateAnswer:
    """A 2xx that came after we had given up on its branch: acknowledged whenever it comes, and ended once."""

    __slots__ = ("_ack", "_peer")

    def __init__(self, context: Context, response: Response, peer: Peer) -> None:
        """Sends ACK and BYE. Raises Malformed if the answer has no Contact or can't be read."""
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
        _, effects = context.layer.send_request(bye, peer, context.mono_s)
        context.effects += effects

    def again(self, context: Context) -> None:
        context.effects.append(Send(self._ack, self._peer))


def _via(context: Context) -> str:
    branch = f"{MAGIC_COOKIE}{context.random_bytes(_BRANCH_BYTES).hex()}"
    return f"SIP/2.0/UDP {context.proxy.address};branch={branch}"
