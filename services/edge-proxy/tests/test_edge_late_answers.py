"""A 2xx that nobody waits for any more: of another phone, of a route that was left, after the end (RFC 3261 13.2.2.4,
9.1). No one but the edge can end such a call, and it does so once."""

import pytest
from edge_world import Agent, AnsweredCall, EdgeWorld

from callwarden.edge_proxy.core.active_call import FORKS_MAX
from callwarden.sip.message import Request

NUMBER = "+49301234567"


def answered(world: EdgeWorld) -> tuple[Agent, Agent, AnsweredCall]:
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    return alice, carrier, world.talk(alice, carrier, NUMBER)


def requests(agent: Agent) -> list[Request]:
    """Those it was sent; all it was sent is gone then."""
    found = [message for message in agent.inbox if isinstance(message, Request)]
    agent.inbox.clear()
    return found


def methods(agent: Agent) -> list[str]:
    return [request.method for request in requests(agent)]


def test_the_answers_of_a_forked_call_are_ended_up_to_a_bound() -> None:
    world = EdgeWorld()
    alice, carrier, talk = answered(world)
    for number in range(FORKS_MAX):
        carrier.respond(talk.incoming, 200, tag=f"fork-{number}")
        assert methods(carrier) == ["ACK", "BYE"]
    carrier.respond(talk.incoming, 200, tag="one-more")
    assert methods(carrier) == []
    assert not alice.inbox
    assert not world.ended


def test_the_answers_of_a_call_that_is_over_are_told_apart_by_their_tags() -> None:
    """The one that was answered has its BYE; the phone that comes late would talk to nobody, at our cost."""
    world = EdgeWorld()
    alice, carrier, talk = answered(world)
    alice.send(talk.from_caller("BYE", cseq=9))
    carrier.respond(carrier.got("BYE"), 200)
    alice.response(200)
    carrier.respond(talk.incoming, 200)
    assert methods(carrier) == []
    late = carrier.respond(talk.incoming, 200, tag="late")
    ack, bye = requests(carrier)
    assert (ack.method, bye.method) == ("ACK", "BYE")
    assert ack.to.tag == bye.to.tag == "late"
    carrier.send(late)
    assert methods(carrier) == ["ACK"]
    assert not alice.inbox
    assert len(world.ended) == 1


def test_a_route_that_was_left_and_answers_while_the_next_one_talks_is_ended() -> None:
    world = EdgeWorld({"session": {"callInitTimeout": "5s"}})
    alice = world.registered("alice", "192.0.2.1")
    slow, good = world.carrier("198.51.100.1"), world.carrier("198.51.100.2")
    world.invite(alice, NUMBER)
    incoming = slow.got("INVITE")
    world.advance(5.1)
    good.respond(good.got("INVITE"), 200)
    alice.response(200)
    slow.inbox.clear()
    late = slow.respond(incoming, 200, contact=False)
    ack, bye = requests(slow)[-2:]
    assert (ack.method, bye.method) == ("ACK", "BYE")
    assert ack.uri_text == bye.uri_text == "sip:198.51.100.1:5060"  # it named no Contact: where its INVITE went
    slow.inbox.clear()
    slow.send(late)
    assert methods(slow) == ["ACK"]
    assert not alice.inbox
    assert not world.ended


@pytest.mark.setting("ring-timeout")
def test_a_phone_that_answers_too_late_and_names_no_contact_is_told_by_its_invites_uri() -> None:
    world = EdgeWorld({"session": {"ringTimeout": "30s"}})
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    world.advance(30.1)
    bob.got("CANCEL")
    bob.respond(incoming, 200, contact=False)
    ack, bye = requests(bob)
    assert ack.uri_text == bye.uri_text == incoming.uri_text


def test_a_late_answer_is_ended_through_the_proxies_it_names() -> None:
    world = EdgeWorld()
    _, carrier, talk = answered(world)
    incoming = talk.incoming.copy()
    incoming.push_record_route("sip:two.example;lr")
    incoming.push_record_route("sip:one.example;lr")
    carrier.respond(incoming, 200, tag="late")
    for request in requests(carrier):
        assert request.get_all("route") == ["<sip:two.example;lr>", "<sip:one.example;lr>"]
        assert request.uri_text == "sip:carrier@198.51.100.1:5060"
        assert request.call_id == talk.invite.call_id
        assert request.cseq.number == talk.invite.cseq.number + (request.method == "BYE")
