"""Server transactions on the wire: what is sent again when, what is absorbed, what comes up."""

from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import parse
from callwarden.sip.tables import TransactionState
from callwarden.sip.transaction import (
    AckReceived,
    Cancelled,
    Peer,
    RequestReceived,
    Send,
    Terminated,
    TransactionLayer,
    TransactionTimedOut,
)

from .sip_samples import CALLER, following, other, request
from .transaction_steps import TCP, accepted, kinds, run_clock, sent, times


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
