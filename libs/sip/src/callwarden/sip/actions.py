"""What the actions of the transaction machines do, one function each, and the tables with these functions in place.

In: a transaction, the message at hand, the time.  Out: which action follows what (``tables``), who runs them
(``transaction``).  These are that layer's own hands: they use its timers and its transactions' inner state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from callwarden.sip import build
from callwarden.sip.message import Request
from callwarden.sip.outputs import AckReceived, Output, ResponseReceived, Send, TransactionTimedOut, TransportFailed
from callwarden.sip.tables import TABLES, Action, TransactionEvent, TransactionKind, TransactionState

if TYPE_CHECKING:
    from callwarden.sip.transaction import TransactionLayer


def _act_send(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    data = message.to_bytes()
    tx._last_sent = data
    out.append(Send(data, tx.peer))


def _act_resend(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    if tx._last_sent:
        out.append(Send(tx._last_sent, tx.peer))


def _act_back_off(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    interval_s = tx.interval_s * 2
    if tx.kind is not TransactionKind.INVITE_CLIENT:  # timer A doubles until B ends it; E and G stop at T2
        interval_s = min(interval_s, layer._values.t2_s)
    tx.interval_s = interval_s
    layer._timers.start_retransmit(tx, mono_s, interval_s)
    out.append(Send(tx._last_sent, tx.peer))


def _act_slow_down(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx.interval_s = layer._values.t2_s


def _act_stop_retransmitting(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx.retransmit_at_s = 0.0


def _act_stop_expiring(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx.expire_at_s = 0.0


def _act_send_ack(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    _act_send(layer, tx, build.ack(tx.request, message), mono_s, out)


def _act_deliver(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    if isinstance(message, Request):
        out.append(AckReceived(message, tx.peer))
        return
    if not tx._silent:
        out.append(ResponseReceived(tx, message))
    if tx.state is TransactionState.PROCEEDING and tx.kind is TransactionKind.INVITE_CLIENT and tx._cancel:
        layer._cancel(tx, mono_s, out)


def _act_time_out(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    if not tx._silent:
        out.append(TransactionTimedOut(tx))


def _act_fail(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    if not tx._silent:
        out.append(TransportFailed(tx))


def _act_start_d(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx._request = None
    layer._timers.start_expire(tx, mono_s, 0.0 if tx.peer.is_reliable else layer._values.d_s)


def _act_start_h(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx._request = None
    if not tx.peer.is_reliable:
        tx.interval_s = layer._values.t1_s
        layer._timers.start_retransmit(tx, mono_s, tx.interval_s)
    layer._timers.start_expire(tx, mono_s, layer._give_up_s)


def _act_start_i_k(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx._request = None
    tx._last_sent = b""
    layer._timers.start_expire(tx, mono_s, 0.0 if tx.peer.is_reliable else layer._values.t4_s)


def _act_start_j(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx._request = None
    layer._timers.start_expire(tx, mono_s, 0.0 if tx.peer.is_reliable else layer._give_up_s)


def _act_start_l_m(layer: TransactionLayer, tx: Any, message: Any, mono_s: float, out: list[Output]) -> None:
    tx._request = None
    tx._last_sent = b""  # a 2xx is repeated by the user agent that gave it
    layer._timers.start_expire(tx, mono_s, layer._give_up_s)


_Act = Callable[..., None]  # as those above: layer, transaction, message, mono_s, outputs
_ACTIONS: dict[Action, _Act] = {
    Action.SEND: _act_send,
    Action.RESEND: _act_resend,
    Action.BACK_OFF: _act_back_off,
    Action.SLOW_DOWN: _act_slow_down,
    Action.STOP_RETRANSMITTING: _act_stop_retransmitting,
    Action.STOP_EXPIRING: _act_stop_expiring,
    Action.SEND_ACK: _act_send_ack,
    Action.DELIVER: _act_deliver,
    Action.TIME_OUT: _act_time_out,
    Action.FAIL: _act_fail,
    Action.START_D: _act_start_d,
    Action.START_H: _act_start_h,
    Action.START_I: _act_start_i_k,
    Action.START_J: _act_start_j,
    Action.START_K: _act_start_i_k,
    Action.START_L: _act_start_l_m,
    Action.START_M: _act_start_l_m,
}

# The tables with actions as functions and the next state's rows at hand: one look-up for each event.
_Rows = dict[TransactionEvent, Any]  # Event -> (State, _Rows, tuple[_Act, ...]); recursive, which mypy can't name
COMPILED: dict[TransactionKind, dict[TransactionState, _Rows]] = {
    kind: {state: {} for state in [*table, TransactionState.TERMINATED]} for kind, table in TABLES.items()
}
for _kind, _table in TABLES.items():
    for _state, _table_rows in _table.items():
        for _event, (_next, _actions) in _table_rows.items():
            COMPILED[_kind][_state][_event] = (
                _next,
                COMPILED[_kind][_next],
                tuple(_ACTIONS[action] for action in _actions),
            )
