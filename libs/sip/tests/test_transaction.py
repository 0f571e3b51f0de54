"""The transaction layer on the wire: what is sent again when, what is absorbed, what comes up."""

import pytest

from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.tables import TransactionState
from callwarden.sip.transaction import (
    AckReceived,
    Cancelled,
    ClientTransaction,
    Misuse,
    Output,
    Peer,
    RequestReceived,
    ResponseReceived,
    Send,
    ServerTransaction,
    StrayResponse,
    Terminated,
    TimerValues,
    TooManyTransactions,
    TransactionLayer,
    TransactionTimedOut,
    TransportFailed,
)

from .sip_samples import CALLEE, CALLER, following, other, request

TCP = CALLEE._replace(transport="TCP")


def sent(outputs: list[Output]) -> list[str]:
    """The start lines of what is to be sent."""
    return [str(parse(output.data)._start_line()) for output in outputs if isinstance(output, Send)]


def kinds(outputs: list[Output]) -> list[type]:
    return [type(output) for output in outputs]


def run_clock(layer: TransactionLayer, until_s: float) -> list[tuple[float, Output]]:
    """Fire all timers up to that time, each when it is due."""
    happened: list[tuple[float, Output]] = []
    while (at_s := layer.next_timer_s()) is not None and at_s <= until_s:
        happened += [(round(at_s, 3), output) for output in layer.handle_timers(at_s)]
    return happened


def times(happened: list[tuple[float, Output]], kind: type) -> list[float]:
    return [at_s for at_s, output in happened if isinstance(output, kind)]


def accepted(layer: TransactionLayer, message: Request, peer: Peer = CALLER, mono_s: float = 0.0) -> ServerTransaction:
    assert kinds(layer.receive(message, peer, mono_s)) == [RequestReceived]
    return layer.accept(message, peer, mono_s)


def calling(layer: TransactionLayer, peer: Peer = CALLEE) -> tuple[Request, ClientTransaction]:
    invite = request()
    client, outputs = layer.send_request(invite, peer, 0.0)
    assert outputs == [Send(invite.to_bytes(), peer)]
    return invite, client


def answer(message: Request, status: int, to_tag: str = "b") -> Response:
    response = parse(build.response(message, status, to_tag=to_tag).to_bytes())
    assert isinstance(response, Response)
    return response


# Server, INVITE.


def test_a_request_costs_no_state_until_it_is_accepted() -> None:
    layer = TransactionLayer()
    for _ in range(3):
        assert kinds(layer.receive(request(), CALLER, 0.0)) == [RequestReceived]
    assert len(layer) == 0
    assert layer.next_timer_s() is None


def test_a_retransmitted_invite_gets_the_last_provisional_again_and_never_comes_up() -> None:
    layer = TransactionLayer()
    server = accepted(layer, request())
    assert layer.receive(request(), CALLER, 0.1) == []
    (trying,) = layer.respond(server, build.response(server.request, 100), 0.1)
    assert layer.receive(request(), CALLER, 0.5) == [trying]
    (ringing,) = layer.respond(server, build.response(server.request, 180), 1.0)
    assert layer.receive(request(), CALLER, 1.5) == [ringing]


def test_a_failure_is_repeated_until_the_ack_and_the_ack_is_absorbed() -> None:
    layer = TransactionLayer()
    invite = request()
    server = accepted(layer, invite)
    busy = build.response(invite, 486)
    assert layer.respond(server, busy, 0.0) == [Send(busy.to_bytes(), CALLER)]
    assert times(run_clock(layer, 10.0), Send) == [0.5, 1.5, 3.5, 7.5]  # timer G: doubles up to T2
    ack = following(invite, "ACK", busy.get("to"))
    assert layer.receive(ack, CALLER, 10.0) == []
    assert server.state is TransactionState.CONFIRMED
    assert layer.receive(ack, CALLER, 10.1) == []
    assert layer.receive(invite, CALLER, 10.2) == []
    assert run_clock(layer, 60.0) == [(15.0, Terminated(server))]  # timer I
    assert len(layer) == 0


def test_a_failure_that_nobody_acknowledges_is_given_up_after_64_t1() -> None:
    layer = TransactionLayer()
    server = accepted(layer, request())
    layer.respond(server, build.response(server.request, 486), 0.0)
    happened = run_clock(layer, 100.0)
    assert times(happened, Send) == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert happened[-2:] == [(32.0, TransactionTimedOut(server)), (32.0, Terminated(server))]


def test_a_2xx_is_repeated_by_the_user_only_and_its_ack_comes_up() -> None:
    layer = TransactionLayer()
    invite = request()
    server = accepted(layer, invite)
    ok = build.response(invite, 200)
    assert layer.respond(server, ok, 0.0) == [Send(ok.to_bytes(), CALLER)]
    assert layer.receive(invite, CALLER, 0.5) == []  # RFC 6026 7.1
    assert layer.respond(server, ok, 0.5) == [Send(ok.to_bytes(), CALLER)]
    same_branch = following(invite, "ACK", ok.get("to"))  # an RFC 2543 habit
    assert layer.receive(same_branch, CALLER, 1.0) == [AckReceived(same_branch, CALLER)]
    assert run_clock(layer, 100.0) == [(32.0, Terminated(server))]  # timer L
    assert layer.respond(server, ok, 40.0) == []


def test_an_answer_after_the_final_one_is_dropped() -> None:
    layer = TransactionLayer()
    server = accepted(layer, request())
    late = build.response(server.request, 200)
    layer.respond(server, build.response(server.request, 486), 0.0)
    assert layer.respond(server, late, 0.1) == []
    assert server.state is TransactionState.COMPLETED


def test_an_ack_to_a_stateless_answer_comes_up_as_one_to_nothing() -> None:
    layer = TransactionLayer()
    invite = request()
    challenge = build.response(invite, 407, to_tag=build.local_tag(invite, b"secret"))
    ack = following(invite, "ACK", challenge.get("to"))
    assert layer.receive(ack, CALLER, 0.0) == [AckReceived(ack, CALLER)]
    assert ack.to.tag == build.local_tag(ack, b"secret")
    assert ack.to.tag != build.local_tag(ack, b"another")
    assert len(layer) == 0


def test_over_tcp_nothing_is_sent_again_and_an_ack_ends_it_at_once() -> None:
    layer = TransactionLayer()
    invite = request()
    server = accepted(layer, invite, TCP)
    busy = build.response(invite, 486)
    layer.respond(server, busy, 0.0)
    assert layer.next_timer_s() == 32.0
    layer.receive(following(invite, "ACK", busy.get("to")), TCP, 1.0)
    assert run_clock(layer, 1.0) == [(1.0, Terminated(server))]


# CANCEL, server side.


def test_a_cancel_is_answered_by_the_layer_and_told_once() -> None:
    layer = TransactionLayer(tag_secret=b"secret")
    invite = request()
    server = accepted(layer, invite)
    cancel = following(invite, "CANCEL")
    outputs = layer.receive(cancel, CALLER, 1.0)
    assert sent(outputs) == ["SIP/2.0 200 OK"]
    assert outputs[1:] == [Cancelled(server)]
    ok = outputs[0]
    assert isinstance(ok, Send)
    assert parse(ok.data).to.tag == build.local_tag(invite, b"secret")  # RFC 3261 9.2: the tag of the INVITE's answer
    assert layer.receive(cancel, CALLER, 1.5) == [ok]
    assert len(layer) == 2
    layer.respond(server, build.response(invite, 487), 1.5)
    happened = run_clock(layer, 100.0)
    assert all(
        output.transaction is server for _, output in happened if isinstance(output, TransactionTimedOut | Terminated)
    )
    assert len(layer) == 0


def test_a_cancel_that_comes_again_after_its_own_transaction_is_told_no_second_time() -> None:
    layer = TransactionLayer()
    accepted(layer, request())
    layer.receive(following(request(), "CANCEL"), CALLER, 1.0)
    run_clock(layer, 40.0)
    assert kinds(layer.receive(following(request(), "CANCEL"), CALLER, 40.0)) == [Send]


def test_a_cancel_after_the_final_answer_changes_nothing() -> None:
    layer = TransactionLayer()
    invite = request()
    server = accepted(layer, invite)
    layer.respond(server, build.response(invite, 200), 0.0)
    outputs = layer.receive(following(invite, "CANCEL"), CALLER, 1.0)
    assert sent(outputs) == ["SIP/2.0 200 OK"]
    assert len(outputs) == 1


def test_a_cancel_of_nothing_comes_up_to_be_answered_481() -> None:
    layer = TransactionLayer()
    cancel = following(request(), "CANCEL")
    assert layer.receive(cancel, CALLER, 0.0) == [RequestReceived(cancel, CALLER)]


def test_a_cancel_from_another_sent_by_matches_nothing() -> None:
    layer = TransactionLayer()
    accepted(layer, request())
    cancel = following(request(), "CANCEL")
    cancel.set_top_via(cancel.via._replace(host="192.0.2.66"))
    assert kinds(layer.receive(cancel, CALLER, 0.0)) == [RequestReceived]


# Server, other requests.


def test_a_request_is_absorbed_until_answered_and_then_answered_again_for_64_t1() -> None:
    layer = TransactionLayer()
    bye = other("BYE")
    server = accepted(layer, bye)
    assert layer.receive(bye, CALLER, 0.5) == []
    ok = build.response(bye, 200)
    layer.respond(server, ok, 1.0)
    assert layer.receive(bye, CALLER, 1.5) == [Send(ok.to_bytes(), CALLER)]
    assert run_clock(layer, 32.9) == []
    assert run_clock(layer, 100.0) == [(33.0, Terminated(server))]  # timer J
    assert kinds(layer.receive(bye, CALLER, 34.0)) == [RequestReceived]


def test_answers_go_where_the_first_request_wanted_them() -> None:
    layer = TransactionLayer()
    bye = other("BYE")
    server = accepted(layer, bye)
    (first,) = layer.respond(server, build.response(bye, 200), 0.0)
    attacker = Peer(SocketAddress("203.0.113.9", 5060))
    assert layer.receive(bye, attacker, 0.1) == [first]
    assert isinstance(first, Send)
    assert first.to == CALLER


def test_a_request_without_the_magic_cookie_is_matched_by_what_it_says() -> None:
    """RFC 3261 17.2.3, for RFC 2543 clients; also after the top Via was stamped."""
    layer = TransactionLayer()
    invite = request()
    invite.set("Via", "SIP/2.0/UDP 192.0.2.1:5060")
    again = request(invite.to_bytes())
    ack = following(invite, "ACK", "<sip:+4930123456@sip.example.com>;tag=b")
    assert kinds(layer.receive(invite, CALLER, 0.0)) == [RequestReceived]
    invite.stamp_source("203.0.113.1", 1024)
    server = layer.accept(invite, CALLER, 0.0)
    (trying,) = layer.respond(server, build.response(invite, 100), 0.0)
    assert layer.receive(again, CALLER, 0.5) == [trying]
    layer.respond(server, build.response(invite, 486), 1.0)
    assert layer.receive(ack, CALLER, 1.2) == []
    assert server.state is TransactionState.CONFIRMED


# Client, INVITE.


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


# CANCEL, client side.


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


# Client, other requests.


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


# The layer itself.


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


def test_the_request_is_let_go_after_the_final_answer() -> None:
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
