"""While a target rings: what the caller hears, how long it may last, and which answer is the best (RFC 3261 16.7)."""

import pytest
from edge_world import EdgeWorld

from callwarden.sip import build
from callwarden.sip.message import Request, Response

NUMBER = "+49301234567"


def test_the_ring_time_counts_from_the_first_sign_and_later_ones_pass() -> None:
    world = EdgeWorld({"session": {"ringTimeout": "30s"}})
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 100, tag="")
    assert not alice.inbox  # it has its own 100
    world.advance(2)
    bob.respond(incoming, 180)
    alice.response(180)
    world.advance(20)
    bob.respond(incoming, 183)
    alice.response(183)
    world.advance(7.9)
    assert not alice.inbox
    world.advance(0.2)
    alice.response(408)


@pytest.mark.setting("ring-timeout")
def test_a_next_route_rings_no_longer_than_the_hold_was_made_for() -> None:
    world = EdgeWorld({"session": {"ringTimeout": "30s", "callInitTimeout": "5s"}})
    alice = world.registered("alice", "192.0.2.1")
    world.carrier("198.51.100.1")
    second = world.carrier("198.51.100.2")
    world.invite(alice, NUMBER)
    world.advance(9)  # the first one was left after 5 s
    second.respond(second.got("INVITE"), 180)
    alice.response(180)
    world.advance(25.9)
    assert not alice.inbox
    world.advance(0.2)
    alice.response(408)


@pytest.mark.setting("call-init-timeout")
def test_no_route_is_begun_after_the_time_the_hold_was_made_for() -> None:
    world = EdgeWorld({"session": {"ringTimeout": "10s", "callInitTimeout": "5s"}})
    alice = world.registered("alice", "192.0.2.1")
    carriers = [world.carrier(f"198.51.100.{number}") for number in range(1, 6)]
    world.invite(alice, NUMBER)
    world.advance(40)
    assert [bool(carrier.inbox) for carrier in carriers] == [True, True, True, False, False]
    alice.response(408)
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("timeout", 408)]


@pytest.mark.parametrize(
    ("first", "second", "heard"),
    [
        (486, 404, 486),
        (480, 500, 480),
        (500, 480, 480),
        (500, 503, 500),
        (404, 603, 603),
        (404, 600, 600),
        (503, 486, 486),
    ],
)
def test_of_two_phones_the_better_answer_is_heard(first: int, second: int, heard: int) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    desk, mobile = world.registered("bob", "192.0.2.2", 5060), world.registered("bob", "192.0.2.2", 5070)
    world.invite(alice, "bob")
    mobile.respond(mobile.got("INVITE"), first)
    desk.respond(desk.got("INVITE"), second)
    alice.response(heard)
    (ended,) = world.ended
    assert (ended.reason, ended.sip_status, ended.answered_at_s) == ("rejected", heard, 0.0)


def test_a_phone_that_says_nothing_does_not_spoil_the_answer_of_another_one() -> None:
    world = EdgeWorld({"session": {"callInitTimeout": "5s"}})
    alice = world.registered("alice", "192.0.2.1")
    world.registered("bob", "192.0.2.2", 5060)
    mobile = world.registered("bob", "192.0.2.2", 5070)
    world.invite(alice, "bob")
    mobile.respond(mobile.got("INVITE"), 486)
    world.advance(5.1)
    alice.response(486)


def test_who_gave_up_hears_no_more_of_the_target_than_its_end() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    alice.response(180)
    alice.send(build.cancel(invite))
    alice.response(200)
    bob.respond(incoming, 183)
    assert not alice.inbox
    cancel = bob.got("CANCEL")
    bob.respond(cancel, 200)
    bob.respond(incoming, 600)  # whatever it says
    assert isinstance(final := alice.next(), Response)
    assert final.status == 487
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("cancelled", 487)]


def test_who_gave_up_hears_487_when_the_target_never_answers_its_cancel() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    slow, other = world.carrier("198.51.100.1"), world.carrier("198.51.100.2")
    invite = world.invite(alice, NUMBER)
    slow.respond(slow.got("INVITE"), 180)
    alice.response(180)
    alice.send(build.cancel(invite))
    alice.response(200)
    world.advance(40)
    alice.response(487)
    assert not [message for message in other.inbox if isinstance(message, Request)]
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("cancelled", 487)]
