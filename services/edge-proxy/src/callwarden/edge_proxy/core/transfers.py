"""REFER: one side of a call asks the other one to call somebody (RFC 3515).

Off towards carriers, unless policy says otherwise: a carrier would place the call itself, at a price that no account
was asked for. Whom to call is decided like a new call. In: one REFER. Out: the call that follows (`call_setup`).
"""

from callwarden.edge_proxy.core import callers
from callwarden.edge_proxy.core.call import EdgeCall
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.cookie import Cookie
from callwarden.edge_proxy.core.effects import AdmitCall, CallEnded, FindCalled
from callwarden.edge_proxy.core.locations import Locations
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip.address import SocketAddress
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request
from callwarden.sip.nameaddr import parse_name_addr

OFF, PHONES, ALL = 0, 1, 2  # spec.routing.transfers


class Transfers:
    """Decides. Holds no state but what it shares."""

    def __init__(self, context: Context, locations: Locations) -> None:
        self._context = context
        self._locations = locations

    def judge(
        self, request: Request, found: Cookie, call: EdgeCall | None, source: SocketAddress, are_phones: bool
    ) -> Refuse | AdmitCall | None:
        """Why it is refused, the question that decides it, or None: it may pass.

        Who is asked by a phone places the call as its own, and that is decided when it comes. `are_phones`: both sides
        are phones of ours.
        """
        context = self._context
        rules = context.book.default if call is None else call.rules
        if rules.transfers == OFF or (rules.transfers == PHONES and not are_phones):
            return Refuse(Reason.TRANSFER, "transfer", text="policy lets nobody transfer this call")
        values = request.get_all("refer-to")
        if len(values) != 1:  # RFC 3515 2.4.1
            return Refuse(Reason.MALFORMED, "transfer", text="not one Refer-To")
        try:
            uri = parse_name_addr(values[0]).uri
        except Malformed:
            return Refuse(Reason.MALFORMED, "transfer", text="Refer-To can't be read")
        called = callers.called_uri(uri, "", context.proxy, self._locations, context.unix_s)
        if isinstance(called, Refuse):
            return called
        if are_phones:
            return None
        return AdmitCall(
            hold_id=context.new_id(),
            account_id=found.account_id if call is None else call.account_id,
            destination=called.destination,
            dialled=called.dialled,
            caller_number="" if call is None else call.caller_number,
            source=source.host,
            local=called.local,
            at_s=context.unix_s,
            call_id=request.call_id,
            traceparent=context.new_traceparent(),
        )

    def whose(self, request: Request, question: AdmitCall) -> FindCalled:
        """Is it a number of ours that the other side is asked to call? Of a request that `judge` could read."""
        realm = self._context.proxy.realm_of(parse_name_addr(request.get_all("refer-to")[0]).uri) or ""
        return FindCalled(question.dialled[: callers.DIALLED_MAX], realm, request.call_id, question.traceparent)

    def release(self, question: AdmitCall) -> CallEnded:
        """The end of what was only asked: no call of ours follows."""
        return CallEnded(
            question.hold_id,
            question.call_id,
            question.account_id,
            0.0,
            self._context.unix_s,
            "transferred",
            487,
            "",
            question.traceparent,
            question.destination,
        )
