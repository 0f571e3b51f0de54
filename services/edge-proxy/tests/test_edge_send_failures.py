"""A datagram that did not arrive counts as a 503 (RFC 3261 16.9, 8.1.3.1): the next route is tried at once."""

import pytest
from edge_world import Agent, EdgeWorld

from callwarden.edge_proxy.core.call_states import CallState
from callwarden.edge_proxy.core.effects import CarrierRoute
from callwarden.sip import build
from callwarden.sip.address import HostName
from callwarden.sip.message import Request
from callwarden.sip.transaction import Send

NUMBER = "+49301234"


def fail(world: EdgeWorld, data: bytes) -> None:
    """The transport reports these bytes, all or the first of a datagram, as not sent."""
    world.edge.send_failed(data, world.mono_s, world.unix_s)
    world.settle()


def ringing(world: EdgeWorld) -> tuple[Agent, Agent, Agent]:
    alice = world.registered("alice", "192.0.2.1")
    first, second = world.carrier("198.51.100.1", trunk="first"), world.carrier("198.51.100.2", trunk="second")
    world.invite(alice, NUMBER)
    return alice, first, second


def test_a_route_that_can_not_be_reached_is_left_for_the_next_at_once() -> None:
    world = EdgeWorld()
    alice, first, second = ringing(world)
    first.got("INVITE")
    assert not second.inbox
    fail(world, first.raw[-1])
    second.respond(second.got("INVITE"), 200)
    alice.response(200)
    assert world.started[0].trunk == "second"
    world.advance(40)
    assert not first.inbox  # neither retransmissions nor a CANCEL


def test_when_no_route_can_be_reached_the_caller_hears_500_and_the_hold_is_released() -> None:
    world = EdgeWorld()
    alice, first, second = ringing(world)
    fail(world, first.raw[-1])
    fail(world, second.raw[-1])
    alice.response(500)  # 16.7 step 6: 503 would be about us
    (ended,) = world.ended
    assert (ended.reason, ended.sip_status) == ("rejected", 500)
    assert len(world.edge.calls) == 0


@pytest.mark.parametrize("octets", [0, 28, 100])
def test_an_error_that_does_not_quote_a_whole_branch_changes_nothing(octets: int) -> None:
    """Old routers quote eight bytes; what has no branch could be anybody's invention."""
    world = EdgeWorld()
    _, first, second = ringing(world)
    fail(world, first.raw[-1][:octets])
    assert not second.inbox


def test_an_error_quotes_enough_with_the_first_line_and_the_top_via() -> None:
    world = EdgeWorld()
    _, first, second = ringing(world)
    data = first.raw[-1]
    end = data.index(b";branch=") + data[data.index(b";branch=") :].index(b"\r")
    fail(world, data[:end])
    assert not second.inbox
    fail(world, data[: end + 1])
    second.got("INVITE")


def test_a_forged_error_changes_nothing() -> None:
    world = EdgeWorld()
    _, first, second = ringing(world)
    via = b"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK0123456789abcdef-01234567\r\n"
    for data in (via, b"", b"\0" * 500, first.raw[-1].replace(b"z9hG4bK", b"z9hG4bL")):
        fail(world, data)
    assert not second.inbox


def test_an_error_that_comes_after_an_answer_changes_nothing() -> None:
    world = EdgeWorld()
    alice, first, second = ringing(world)
    invite = first.got("INVITE")
    first.respond(invite, 180)
    alice.response(180)
    fail(world, first.raw[-1])
    assert not second.inbox
    first.respond(invite, 200)
    alice.response(200)
    fail(world, first.raw[-1])
    assert not world.ended


def test_a_caller_who_gave_up_hears_487_and_no_other_route_is_tried() -> None:
    world = EdgeWorld()
    alice, first, second = ringing(world)
    fail(world, first.raw[-1])
    assert isinstance(second.inbox[0], Request)
    alice.send(_cancel(alice))
    alice.response(200)
    alice.response(487)
    fail(world, second.raw[-1])
    assert [ended.reason for ended in world.ended] == ["cancelled"]


def _cancel(alice: Agent) -> Request:

    assert alice.last_invite is not None
    return build.cancel(alice.last_invite)


def test_a_bye_that_can_not_be_sent_ends_the_call() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    call = world.talk(alice, bob, "bob")
    alice.send(call.from_caller("BYE", cseq=9))
    bob.got("BYE")
    fail(world, bob.raw[-1])
    alice.response(500)
    assert [ended.reason for ended in world.ended] == ["cut-bye-unanswered"]
    alice.got("BYE")
    bob.got("BYE")


def test_another_request_that_can_not_be_sent_is_answered_and_the_call_goes_on() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    call = world.talk(alice, bob, "bob")
    for cseq, method in enumerate(("INFO", "INVITE"), start=9):
        alice.send(call.from_caller(method, cseq=cseq))
        alice.inbox.clear()
        fail(world, bob.raw[-1])
        alice.response(500)
    assert not world.ended


def test_a_carrier_by_name_is_sent_to_by_name_and_never_taken_for_an_address() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.routes = (CarrierRoute("named", HostName("gw.example.org", 5080), "", 0),)
    second = world.carrier("198.51.100.2", trunk="second")
    world.invite(alice, NUMBER)
    (sent,) = [effect for effect in world.lost if isinstance(effect, Send)]
    assert sent.to.address == HostName("gw.example.org", 5080)
    assert b"INVITE sip:49301234@gw.example.org:5080 SIP/2.0" in sent.data
    fail(world, sent.data)  # the name is unknown
    second.got("INVITE")


def test_a_side_that_can_not_be_reached_when_the_call_is_cut_is_gone() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    call = world.edge.calls.find_dialog(world.talk(alice, bob, "bob").invite.call_id)
    assert call is not None
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    alice.respond(alice.got("BYE"), 200)
    states = [call.state]
    fail(world, bob.raw[-1])
    states.append(call.state)
    assert states == [CallState.CUTTING, CallState.ENDED]
    world.advance(40)
    assert len([data for data in bob.raw if data.startswith(b"BYE")]) == 1


@pytest.mark.setting("session-probe")
def test_a_side_that_a_probe_can_not_reach_is_gone() -> None:
    world = EdgeWorld({"session": {"probe": "60s"}})
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.talk(alice, bob, "bob")
    world.advance(60.1)
    fail(world, bob.raw[-1])
    assert [ended.reason for ended in world.ended] == ["cut-gone"]
