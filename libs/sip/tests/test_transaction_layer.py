"""The transaction layer as a whole: its bounds, its order, its misuse."""

import pytest

from callwarden.sip import build
from callwarden.sip.tables import TransactionState
from callwarden.sip.transaction import (
    Cancelled,
    Misuse,
    ResponseReceived,
    Send,
    Terminated,
    TimerValues,
    TooManyTransactions,
    TransactionLayer,
)

from .sip_samples import CALLEE, CALLER, following, other, request
from .transaction_steps import accepted, answer, calling, kinds, run_clock, sent, times


def test_the_number_of_transactions_is_bounded() -> None:
    layer = TransactionLayer(transactions_max=2)
    accepted(layer, other("BYE", "z9hG4bK1"))
    client, _ = layer.send_request(other("BYE", "z9hG4bK2"), CALLEE, 0.0)
    with pytest.raises(TooManyTransactions):
        layer.accept(other("BYE", "z9hG4bK3"), CALLER, 0.0)
    with pytest.raises(TooManyTransactions):
        layer.send_request(other("BYE", "z9hG4bK4"), CALLEE, 0.0)
    layer.drop(client)
    layer.accept(other("BYE", "z9hG4bK3"), CALLER, 0.0)
    assert len(layer) == 2


def test_a_full_layer_still_answers_a_cancel() -> None:
    layer = TransactionLayer(transactions_max=1)
    invite = request()
    server = accepted(layer, invite)
    outputs = layer.receive(following(invite, "CANCEL"), CALLER, 0.0)
    assert sent(outputs) == ["SIP/2.0 200 OK"]
    assert outputs[1:] == [Cancelled(server)]
    assert len(layer) == 1
    assert kinds(layer.receive(following(invite, "CANCEL"), CALLER, 0.1)) == [Send]


def test_a_request_is_not_accepted_twice_and_a_branch_not_used_twice() -> None:
    layer = TransactionLayer()
    accepted(layer, other("BYE"))
    with pytest.raises(Misuse):
        layer.accept(other("BYE"), CALLER, 0.0)
    layer.send_request(other("BYE"), CALLEE, 0.0)
    with pytest.raises(Misuse):
        layer.send_request(other("BYE"), CALLEE, 0.0)
    with pytest.raises(Misuse):
        layer.send_request(other("ACK"), CALLEE, 0.0)
    with pytest.raises(Misuse):
        layer.accept(other("ACK"), CALLEE, 0.0)


def test_an_event_that_the_table_lacks_is_an_error_and_changes_nothing() -> None:
    layer = TransactionLayer()
    server = accepted(layer, other("BYE"))
    client, _ = layer.send_request(other("BYE"), CALLEE, 0.0)
    with pytest.raises(Misuse):
        layer.respond(client, answer(other("BYE"), 200), 0.0)  # type: ignore[arg-type]  # the misuse in question
    assert (server.state, client.state) == (TransactionState.TRYING, TransactionState.TRYING)


def test_a_dropped_transaction_is_silent() -> None:
    layer = TransactionLayer()
    server = accepted(layer, request())
    layer.respond(server, build.response(server.request, 486), 0.0)
    layer.drop(server)
    assert run_clock(layer, 100.0) == []
    assert len(layer) == 0


def test_the_request_is_forgotten_after_the_final_answer() -> None:
    layer = TransactionLayer()
    server = accepted(layer, request())
    layer.respond(server, build.response(server.request, 200), 0.0)
    with pytest.raises(Misuse):
        _ = server.request


def test_timers_are_handed_in() -> None:
    layer = TransactionLayer(TimerValues(t1_s=0.01, t2_s=0.02, t4_s=0.03, d_s=0.05))
    layer.send_request(other("BYE"), CALLEE, 0.0)
    assert times(run_clock(layer, 0.1), Send) == [0.01, 0.03, 0.05, 0.07, 0.09]


def test_a_tick_that_comes_late_fires_each_timer_once() -> None:
    layer = TransactionLayer()
    _, client = calling(layer)
    assert len(sent(layer.handle_timers(5.0))) == 1
    assert layer.handle_timers(5.0) == []
    assert layer.next_timer_s() == 6.0
    assert layer.handle_timers(1000.0)[-1] == Terminated(client)


def test_a_thousand_calls_leave_nothing_behind() -> None:
    layer = TransactionLayer()
    for number in range(1000):
        mono_s = number / 100
        invite = request()
        invite.set_top_via(invite.via._replace(params={"branch": f"z9hG4bK{number}"}))
        server = accepted(layer, invite, mono_s=mono_s)
        copy = invite.copy()
        copy.push_via(f"SIP/2.0/UDP edge.example.com;branch=z9hG4bKe{number}")
        client, _ = layer.send_request(copy, CALLEE, mono_s)
        client.context = server
        layer.receive(answer(copy, 180), CALLEE, mono_s)
        (received,) = layer.receive(answer(copy, 200 if number % 2 else 486), CALLEE, mono_s)[-1:]
        assert isinstance(received, ResponseReceived)
        received.response.pop_via()
        layer.respond(server, received.response, mono_s)
    run_clock(layer, 1000.0)
    assert len(layer) == 0
    assert len(layer._timers) == 0
