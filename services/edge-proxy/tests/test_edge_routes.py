"""Several targets of one call, tried one after the other (RFC 3261 16.6, 16.7)."""

import pytest
from edge_world import EdgeWorld

from callwarden.sip.message import Request

NUMBER = "+49301234567"


@pytest.mark.parametrize("status", [401, 407, 408, 430, 500, 503, 302])
def test_a_route_that_fails_leads_to_the_next(status: int) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    bad, good = world.carrier("198.51.100.1"), world.carrier("198.51.100.2")
    world.invite(alice, NUMBER)
    bad.respond(bad.got("INVITE"), status, contact=False)
    bad.got("ACK")
    good.respond(good.got("INVITE"), 200)
    alice.response(200)


@pytest.mark.parametrize(("status", "heard"), [(300, 502), (503, 500), (500, 500), (302, 502), (407, 502)])
def test_when_the_last_route_fails_the_caller_hears_what_concerns_him(status: int, heard: int) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    carrier = world.carrier()
    world.invite(alice, NUMBER)
    carrier.respond(carrier.got("INVITE"), status, contact=False)
    assert alice.response(heard).get("proxy-authenticate") is None


@pytest.mark.parametrize("status", [400, 402, 404, 431, 486, 600])
def test_a_carriers_word_about_the_callee_is_final(status: int) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    first, second = world.carrier("198.51.100.1"), world.carrier("198.51.100.2")
    world.invite(alice, NUMBER)
    first.respond(first.got("INVITE"), status)
    alice.response(status)
    assert not second.inbox


def test_all_phones_of_a_user_are_tried_one_after_the_other_and_the_best_answer_is_kept() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    desk = world.registered("bob", "192.0.2.2", 5060)
    mobile = world.registered("bob", "192.0.2.2", 5070)
    world.invite(alice, "bob")
    mobile.respond(mobile.got("INVITE"), 480)  # registered last, tried first
    desk.respond(desk.got("INVITE"), 500)
    alice.response(480)


def test_a_decline_stops_the_search() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    desk = world.registered("bob", "192.0.2.2", 5060)
    mobile = world.registered("bob", "192.0.2.2", 5070)
    world.invite(alice, "bob")
    mobile.respond(mobile.got("INVITE"), 603)
    alice.response(603)
    assert not [message for message in desk.inbox if isinstance(message, Request)]


def test_the_cookie_of_a_route_that_was_left_is_that_of_no_call() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    first, second = world.carrier("198.51.100.1"), world.carrier("198.51.100.2")
    world.invite(alice, NUMBER)
    left = first.got("INVITE")
    first.respond(left, 500)
    tried = second.got("INVITE")
    cookies = [invite.record_routes[0].uri.params["cw"] or "" for invite in (left, tried)]
    assert [world.edge.calls.find_cookie(text) is not None for text in cookies] == [False, True]
