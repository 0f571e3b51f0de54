"""What another process needs to know of a running call to go on with its clock and to cut it (DESIGN D6).

In: making a record of a call, and a call of a record. Out: where records are kept, who takes a dead edge's (adapters).
"""

from dataclasses import dataclass, replace
from uuid import UUID

from callwarden.edge_proxy.core import dialogs
from callwarden.edge_proxy.core.call import CallSide, EdgeCall
from callwarden.edge_proxy.core.call_states import CallState
from callwarden.edge_proxy.core.rules import Rules
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.sip.address import Endpoint
from callwarden.sip.dialog import Dialog
from callwarden.sip.malformed import Malformed
from callwarden.sip.nameaddr import parse_name_addr
from callwarden.sip.uri import parse_uri

# A record isn't rewritten for each request of a call. Numbers must grow and need not follow each other (RFC 3261
# 12.2.2), so the BYE of who takes over jumps ahead of all that may have been used.
CSEQ_AHEAD = 1_000


@dataclass(frozen=True, slots=True)
class Leg:
    """One side: its From or To value with tag, its Contact, where it is, its last number, and the routes to it.

    `hosts` are those it may speak from; `account_id` and `trunk` as in `CallSide`. Records of older edges have none,
    and don't say whether it is a phone.
    """

    header: str
    target: str
    address: Endpoint
    cseq: int
    routes: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    account_id: str = ""
    trunk: str = ""
    is_phone: bool | None = None


@dataclass(frozen=True, slots=True)
class DialogRecord:
    """A running call."""

    hold_id: UUID
    call_id: str
    account_id: str
    answered_at_s: float
    granted_s: int
    caller: Leg
    callee: Leg


def record_of(call: EdgeCall) -> DialogRecord | None:
    """The record of a running call; None where no other edge could cut it."""
    assert call.caller is not None
    assert call.callee is not None
    try:
        as_caller, as_callee = dialogs.dialogs_of(call)
    except Malformed:
        return None
    return DialogRecord(
        call.hold_id,
        call.call_id,
        call.account_id,
        call.answered_unix_s,
        call.granted_s,
        _leg(as_caller.local, as_callee, call.caller),
        _leg(as_callee.local, as_caller, call.callee),
    )


def _leg(header: str, towards: Dialog, side: CallSide) -> Leg:
    return Leg(
        header,
        side.target or towards.target,
        side.address,
        side.cseq,
        towards.routes,
        side.hosts,
        side.account_id,
        side.trunk,
        side.is_phone,
    )


def call_of(record: DialogRecord, rules: Rules, traceparent: str, mono_s: MonoS, unix_s: UnixS) -> EdgeCall:
    """The call as the edge that adopts it runs it. It asks for more talk time at once (`ActiveCalls.adopt`)."""
    call = EdgeCall(record.hold_id, record.call_id, traceparent, None, record.caller.address, rules, CallState.RECORDED)
    call.account_id = record.account_id
    call.answered_unix_s = record.answered_at_s
    call.answered_mono_s = mono_s - (unix_s - record.answered_at_s)
    call.admitted_mono_s = call.answered_mono_s
    call.granted_s = record.granted_s
    call.max_s = rules.call_timeout_s
    call.is_acknowledged = True  # who died would have cut it
    caller, callee = record.caller, record.callee
    call.caller_tag, call.callee_tag = (parse_name_addr(leg.header).tag or "" for leg in (caller, callee))
    call.caller, call.callee = _side(caller), _side(callee)
    base = Dialog(record.call_id, caller.header, callee.header, callee.target, callee.routes, caller.cseq, callee.cseq)
    call.dialogs = (
        base,
        replace(
            base,
            local=callee.header,
            remote=caller.header,
            target=caller.target,
            routes=caller.routes,
            local_cseq=callee.cseq,
            remote_cseq=caller.cseq,
        ),
    )
    return call


def _side(leg: Leg) -> CallSide:
    # A phone behind a NAT is where its packets come from, whatever its Contact is.
    is_phone = not _leads_to(leg.target, leg.address) if leg.is_phone is None else leg.is_phone
    side = CallSide(leg.address, is_phone, leg.cseq + CSEQ_AHEAD, leg.account_id, leg.trunk)
    side.hosts = leg.hosts or side.hosts
    return side


def _leads_to(uri: str, address: Endpoint) -> bool:
    try:
        return parse_uri(uri).endpoint == address
    except Malformed:
        return False
