"""Requests of our own in a dialog that isn't ours: the BYEs that cut a call, the ACK and BYE that an answer gets which
comes too late (RFC 3261 12, 15; callwarden.sip.dialog).

In: what to send. Out: when and why (`active_call`), what dialogs are made of (`dialogs`).
"""

from dataclasses import replace

from callwarden.edge_proxy.core.call import CallSide, EdgeCall
from callwarden.edge_proxy.core.call_states import CallEvent, SideEvent, SideState
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.dialogs import dialogs_of, is_ours
from callwarden.sip.dialog import Dialog
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Response
from callwarden.sip.transaction import Peer, Send, TooManyTransactions
from callwarden.sip.via import MAGIC_COOKIE

_BRANCH_BYTES = 8
# Where a BYE is refused for its number, the side has used some that went by us (RFC 3261 12.2.2).
_CSEQ_AHEAD = 1_000


def send_byes(context: Context, call: EdgeCall) -> None:
    """A BYE to each side as if from the other, with the numbers and targets that hold now (RFC 3261 15.1.1)."""
    assert call.caller is not None
    assert call.callee is not None
    as_caller, as_callee = dialogs_of(call)
    for bye in (
        CutBye(call, as_caller, of=call.caller, to=call.callee),
        CutBye(call, as_callee, of=call.callee, to=call.caller),
    ):
        bye.send(context)


class CutBye:
    """A BYE of the edge to one side, until that side has answered or shown that it never will."""

    __slots__ = ("_call", "_dialog", "_is_second", "_of", "_to")

    def __init__(self, call: EdgeCall, dialog: Dialog, *, of: CallSide, to: CallSide) -> None:
        self._call = call
        self._dialog = replace(dialog, local_cseq=max(dialog.local_cseq, of.cseq), target=to.target or dialog.target)
        self._of, self._to = of, to
        self._is_second = False

    def send(self, context: Context) -> None:
        self._to.step(SideEvent.TELL)
        reason = ("Reason", 'SIP;cause=200;text="Call ended"')
        self._dialog, bye = self._dialog.request("BYE", _via(context), headers=[reason])
        self._of.cseq = self._dialog.local_cseq
        peer = Peer(self._to.address)
        try:
            client, effects = context.layer.send_request(bye, peer, context.mono_s)
        except TooManyTransactions:
            context.effects.append(Send(bye.to_bytes(), peer))  # once, without care for its answer
            self.closed()
            return
        client.context = self
        context.effects += effects

    def answered(self, context: Context, status: int) -> None:
        """It has an answer; a provisional one changes nothing."""
        if status < 200:
            return
        if status >= 500 and not self._is_second:
            self._is_second = True
            self._dialog = replace(self._dialog, local_cseq=self._dialog.local_cseq + _CSEQ_AHEAD)
            self.send(context)
        else:
            self.closed()

    def closed(self) -> None:
        """It has its final answer, or will never have one."""
        call = self._call
        self._to.step(SideEvent.CLOSED)
        if self._of.state is SideState.GONE:
            call.step(CallEvent.CLOSED)
            call.caller = call.callee = None


def send_probes(context: Context, call: EdgeCall) -> None:
    """Ask each side whether it still knows the call. Raises TooManyTransactions."""
    assert call.caller is not None
    assert call.callee is not None
    as_caller, as_callee = dialogs_of(call)
    _probe(context, call, as_caller, of=call.caller, to=call.callee)
    _probe(context, call, as_callee, of=call.callee, to=call.caller)


class Probe:
    """An OPTIONS of the edge inside a call. Any answer but 408 and 481 says that the side knows the call."""

    __slots__ = ("call",)

    def __init__(self, call: EdgeCall) -> None:
        self.call = call


def _probe(context: Context, call: EdgeCall, dialog: Dialog, *, of: CallSide, to: CallSide) -> None:
    # The highest number that was used, once more: a higher one would make the real side's next request too low, and
    # only a lower one is out of order (RFC 3261 12.2.2).
    number = max(dialog.local_cseq, of.cseq, 1)
    dialog = replace(dialog, local_cseq=number - 1, target=to.target or dialog.target)
    _, options = dialog.request("OPTIONS", _via(context))
    client, effects = context.layer.send_request(options, Peer(to.address), context.mono_s)
    client.context = Probe(call)
    context.effects += effects


class LateAnswer:
    """A 2xx that came after we had given up on its branch: acknowledged whenever it comes, and ended once."""

    __slots__ = ("_ack", "_peer")

    def __init__(self, context: Context, response: Response, peer: Peer, uri: str) -> None:
        """Sends ACK and BYE. An answer without a readable Contact gets them where its INVITE went; `uri` is its URI."""
        try:
            target = str(response.contacts[0].uri) if response.contacts else uri
            routes = [route for route in response.record_routes if not is_ours(route.uri)]
        except Malformed:
            target, routes = uri, []
        dialog = Dialog(
            call_id=response.call_id,
            local=response.get("from") or "",
            remote=response.get("to") or "",
            target=target,
            routes=tuple(f"<{route.uri}>" for route in reversed(routes)),
            local_cseq=response.cseq.number,
            remote_cseq=0,
        )
        dialog, ack = dialog.request("ACK", _via(context))
        self._ack = ack.to_bytes()
        self._peer = peer
        self.again(context)
        _, bye = dialog.request("BYE", _via(context))
        try:
            _, effects = context.layer.send_request(bye, peer, context.mono_s)
        except TooManyTransactions:
            effects = [Send(bye.to_bytes(), peer)]
        context.effects += effects

    def again(self, context: Context) -> None:
        context.effects.append(Send(self._ack, self._peer))


def _via(context: Context) -> str:
    branch = f"{MAGIC_COOKIE}{context.random_bytes(_BRANCH_BYTES).hex()}"
    return f"SIP/2.0/UDP {context.proxy.address};branch={branch}"
