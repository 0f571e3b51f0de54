"""Client transactions on the wire: what is sent again when, what is absorbed, what comes up."""

import pytest

from callwarden.sip.tables import TransactionState
from callwarden.sip.transaction import (
    Misuse,
    ResponseReceived,
    Send,
    StrayResponse,
    Terminated,
    TransactionLayer,
    TransactionTimedOut,
    TransportFailed,
)

from .sip_samples import CALLEE, other, request
from .transaction_steps import TCP, answer, calling, kinds, run_clock, times


def test_an_invite_is_sent_again_at_doubling_intervals_and_given_up_after_64_t1() -> None:
    layer = TransactionLayer()
    _, client = calling(layer)
    happened = run_clock(layer, 100.0)
    assert times(happened, Send) == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]  # timer A
    assert happened[-2:] == [(32.0, TransactionTimedOut(client)), (32.0, Terminated(client))]  # timer B


def test_a_provisional_stops_both_timers() -> None:
    layer = TransactionLayer()
    invite, client = calling(layer)
    trying, ringing = answer(invite, 100), answer(invite, 180)
    assert layer.receive(trying, CALLEE, 0.1) == [ResponseReceived(client, trying)]
    assert layer.next_timer_s() is None
    assert layer.receive(ringing, CALLEE, 3.0) == [ResponseReceived(client, ringing)]


def test_a_failure_is_acknowledged_each_time_and_told_once() -> None:
    layer = TransactionLayer()
    invite, client = calling(layer)
    busy = answer(invite, 486)
    first = layer.receive(busy, CALLEE, 1.0)
    assert first[1:] == [ResponseReceived(client, busy)]
    assert isinstance(first[0], Send)
    ack = request(first[0].data)
    assert (ack.method, ack.uri_text, ack.to.tag) == ("ACK", invite.uri_text, "b")
    assert (ack.via, ack.cseq.number, ack.get("from")) == (invite.via, invite.cseq.number, invite.get("from"))
    assert layer.receive(busy, CALLEE, 1.5) == [first[0]]
    assert run_clock(layer, 100.0) == [(33.0, Terminated(client))]  # timer D


def test_the_ack_to_a_failure_keeps_the_route() -> None:
    layer = TransactionLayer()
    invite = request()
    invite.push_route("sip:gw.example.com;lr")
    layer.send_request(invite, CALLEE, 0.0)
    (ack, _) = layer.receive(answer(invite, 486), CALLEE, 1.0)
    assert isinstance(ack, Send)
    assert request(ack.data).get("route") == "<sip:gw.example.com;lr>"


def test_every_2xx_is_passed_on_and_none_is_acknowledged_by_the_layer() -> None:
    layer = TransactionLayer()
    invite, client = calling(layer)
    first, fork = answer(invite, 200), answer(invite, 200, to_tag="c")
    for ok in (first, first, fork):
        assert layer.receive(ok, CALLEE, 1.0) == [ResponseReceived(client, ok)]
    assert layer.receive(answer(invite, 180), CALLEE, 1.0) == []
    assert layer.receive(answer(invite, 486), CALLEE, 1.0) == []
    assert run_clock(layer, 100.0) == [(33.0, Terminated(client))]  # timer M
    assert layer.receive(first, CALLEE, 34.0) == [StrayResponse(first, CALLEE)]


def test_over_tcp_an_invite_is_sent_once() -> None:
    layer = TransactionLayer()
    _, client = calling(layer, TCP)
    assert run_clock(layer, 100.0) == [(32.0, TransactionTimedOut(client)), (32.0, Terminated(client))]


def test_a_transport_that_fails_ends_the_transaction() -> None:
    layer = TransactionLayer()
    _, client = calling(layer)
    assert layer.transport_failed(client, 0.0) == [TransportFailed(client), Terminated(client)]
    assert layer.transport_failed(client, 0.0) == []
    assert run_clock(layer, 100.0) == []


def test_a_cancel_waits_for_the_first_provisional() -> None:
    layer = TransactionLayer()
    invite, client = calling(layer)
    assert layer.cancel(client, 0.1) == []
    outputs = layer.receive(answer(invite, 100), CALLEE, 0.2)
    assert kinds(outputs) == [ResponseReceived, Send]
    assert isinstance(outputs[1], Send)
    cancel = request(outputs[1].data)
    assert (cancel.method, cancel.via, cancel.uri_text) == ("CANCEL", invite.via, invite.uri_text)
    assert (cancel.cseq.number, cancel.get("to")) == (invite.cseq.number, invite.get("to"))
    assert layer.receive(answer(invite, 180), CALLEE, 0.3)[1:] == []  # not a second time
    assert layer.cancel(client, 0.3) == []


def test_a_cancelled_invite_ends_with_its_487() -> None:
    layer = TransactionLayer()
    invite, client = calling(layer)
    layer.receive(answer(invite, 180), CALLEE, 0.1)
    (cancel,) = layer.cancel(client, 0.2)
    assert isinstance(cancel, Send)
    assert layer.receive(answer(request(cancel.data), 200), CALLEE, 0.3) == []  # its answer is nobody's business
    outputs = layer.receive(answer(invite, 487), CALLEE, 0.4)
    assert kinds(outputs) == [Send, ResponseReceived]
    assert times(run_clock(layer, 100.0), Terminated) == [32.4]
    assert client.state is TransactionState.TERMINATED


def test_a_cancelled_invite_that_nobody_answers_is_given_up_after_64_t1() -> None:
    """RFC 3261 9.1."""
    layer = TransactionLayer()
    invite, client = calling(layer)
    layer.receive(answer(invite, 180), CALLEE, 1.0)
    layer.cancel(client, 2.0)
    happened = run_clock(layer, 100.0)
    assert [entry for entry in happened if not isinstance(entry[1], Send)] == [
        (34.0, TransactionTimedOut(client)),
        (34.0, Terminated(client)),
    ]
    assert len(layer) == 0


def test_a_cancel_that_crosses_a_final_answer_is_not_sent() -> None:
    layer = TransactionLayer()
    invite, client = calling(layer)
    layer.cancel(client, 0.1)
    assert kinds(layer.receive(answer(invite, 200), CALLEE, 0.2)) == [ResponseReceived]
    assert layer.cancel(client, 0.3) == []


def test_only_an_invite_can_be_cancelled() -> None:
    layer = TransactionLayer()
    client, _ = layer.send_request(other("BYE"), CALLEE, 0.0)
    with pytest.raises(Misuse):
        layer.cancel(client, 0.0)


def test_a_request_is_sent_again_up_to_t2_apart_and_given_up_after_64_t1() -> None:
    layer = TransactionLayer()
    client, _ = layer.send_request(other("BYE"), CALLEE, 0.0)
    happened = run_clock(layer, 100.0)
    assert times(happened, Send) == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]  # timer E
    assert happened[-2:] == [(32.0, TransactionTimedOut(client)), (32.0, Terminated(client))]  # timer F


def test_after_a_provisional_a_request_is_sent_again_every_t2_only() -> None:
    layer = TransactionLayer()
    bye = other("BYE")
    client, _ = layer.send_request(bye, CALLEE, 0.0)
    layer.receive(answer(bye, 100), CALLEE, 0.1)
    happened = run_clock(layer, 100.0)
    assert times(happened, Send) == [0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
    assert happened[-1] == (32.0, Terminated(client))


def test_a_final_answer_is_told_once() -> None:
    layer = TransactionLayer()
    bye = other("BYE")
    client, _ = layer.send_request(bye, CALLEE, 0.0)
    ok = answer(bye, 200)
    assert layer.receive(ok, CALLEE, 0.1) == [ResponseReceived(client, ok)]
    assert layer.receive(ok, CALLEE, 0.2) == []
    assert run_clock(layer, 100.0) == [(5.1, Terminated(client))]  # timer K


def test_an_answer_to_another_method_of_the_same_branch_is_stray() -> None:
    layer = TransactionLayer()
    bye = other("BYE")
    layer.send_request(bye, CALLEE, 0.0)
    bye.method = "INFO"
    bye.set("CSeq", "1 INFO")
    assert kinds(layer.receive(answer(bye, 200), CALLEE, 0.1)) == [StrayResponse]
