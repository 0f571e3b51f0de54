"""Calls from the INVITE to their end, seen from all sides."""

import pytest
from edge_world import REALM, SDP, Agent, EdgeWorld, account_id

from callwarden.edge_proxy.core.effects import (
    AdmitCall,
)
from callwarden.kernel.clock import UnixS
from callwarden.sip import build
from callwarden.sip.message import Request

NUMBER = "+49301234567"


def hang_up(world: EdgeWorld, caller: Agent, callee: Agent, talk_bye: Request) -> None:
    caller.send(talk_bye)
    callee.respond(callee.got("BYE"), 200)
    caller.response(200)


def test_a_local_call_is_set_up_acknowledged_and_ended() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    bob = world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
    assert (question.local, question.destination, question.account_id) == (True, "bob", account_id("alice"))
    assert talk.incoming.uri_text == "sip:bob@192.0.2.2:5060"
    world.advance(10)
    hang_up(world, alice, bob, talk.from_caller("BYE", cseq=9))
    (started,), (ended,) = world.started, world.ended
    assert started.hold_id == ended.hold_id == question.hold_id
    assert ended.reason == "caller-bye"
    assert ended.ended_at_s - ended.answered_at_s == 10
    told = (ended.destination, ended.caller_number, ended.source, ended.local)
    assert told == (question.destination, question.caller_number, question.source, True)
    assert len(world.edge.calls) == 0


def test_a_call_to_another_accounts_number_stays_local() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    bob = world.registered("bob", "192.0.2.2", numbers=("+4930222",))
    world.invite(alice, "0049 30-222".replace(" ", ""))
    assert bob.got("INVITE").uri_text == "sip:bob@192.0.2.2:5060"
    (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
    assert (question.local, question.destination, question.dialled) == (True, "bob", "004930-222")


def test_a_number_that_is_nobodys_goes_to_the_carrier_as_its_route_wants_it() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1", numbers=("+4930111",))
    carrier = world.carrier()
    world.routes = (world.routes[0]._replace(add_prefix="99#", strip_digits=2),)
    world.invite(alice, NUMBER)
    invite = carrier.got("INVITE")
    assert invite.uri_text == "sip:99#301234567@198.51.100.1:5060"
    (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
    assert (question.local, question.destination, question.caller_number) == (False, "49301234567", "+4930111")
    assert "proxy-authorization" not in invite  # a carrier has no business with our users' digests
    assert invite.body == SDP


def test_the_callee_hangs_up() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    hang_up(world, bob, alice, talk.from_callee("BYE"))
    assert [ended.reason for ended in world.ended] == ["callee-bye"]


@pytest.mark.cases
@pytest.mark.parametrize("step_s", [-3_600.0, -5.0, 5.0, 3_600.0])
def test_a_wall_clock_that_is_set_during_a_call_does_not_change_how_long_it_was(step_s: float) -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    answered_at_s = world.unix_s
    world.advance(7)
    world.unix_s = UnixS(world.unix_s + step_s)
    world.advance(13)
    hang_up(world, alice, bob, talk.from_caller("BYE", cseq=9))
    (ended,) = world.ended
    assert (ended.answered_at_s, ended.ended_at_s) == (answered_at_s, answered_at_s + 20)


@pytest.mark.parametrize("status", [400, 401, 403, 420])
def test_a_bye_that_is_refused_does_not_stop_the_clock(status: int) -> None:
    """Else a caller could send one that the callee must refuse, and talk on for nothing."""
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    alice.send(talk.from_caller("BYE", cseq=1))
    bob.respond(bob.got("BYE"), status)
    alice.response(status)
    assert not world.ended
    assert len(world.edge.calls) == 1
    hang_up(world, alice, bob, talk.from_caller("BYE", cseq=9))
    assert len(world.ended) == 1


@pytest.mark.parametrize("answer", [408, 481, 500, 503, 603, None])
def test_a_bye_whose_answer_leaves_doubt_has_the_edge_end_the_call_at_both_sides(answer: int | None) -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    alice.send(talk.from_caller("BYE", cseq=9))
    if answer is None:
        world.advance(33)
    else:
        bob.respond(bob.got("BYE"), answer)
    (ended,) = world.ended
    assert ended.reason == ("cut-bye-unanswered" if answer is None else "cut-bye-refused")
    assert ended.ended_at_s - ended.answered_at_s == (32 if answer is None else 0)  # what could be talked until the cut
    if answer is not None:
        alice.response(answer)
    own = [message for message in (*alice.inbox, *bob.inbox) if message.get("reason")]
    assert {(type(message), message.to.tag) for message in own} == {(Request, "caller"), (Request, "callee")}


@pytest.mark.parametrize("status", [486, 480, 404, 603])
def test_what_the_callee_answers_comes_to_the_caller(status: int) -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    alice.response(180)
    bob.respond(incoming, status)
    assert bob.got("ACK").cseq.number == invite.cseq.number  # the edge's own, hop by hop
    alice.send(build.ack(invite, alice.response(status)))
    (ended,) = world.ended
    assert (ended.reason, ended.sip_status, ended.answered_at_s) == ("rejected", status, 0.0)
    assert ended.destination
    assert not world.started


def test_cancel_while_it_rings() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    alice.response(180)
    alice.send(build.cancel(invite))
    assert alice.response(200).cseq.method == "CANCEL"
    bob.respond(bob.got("CANCEL"), 200)
    bob.respond(incoming, 487)
    bob.got("ACK")
    alice.response(487)
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("cancelled", 487)]


def test_cancel_before_a_word_from_the_callee_waits_for_one() -> None:
    """RFC 3261 9.1: no CANCEL before a provisional answer."""
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    alice.send(build.cancel(invite))
    alice.response(200)
    alice.response(487)
    assert not bob.inbox
    bob.respond(incoming, 180)
    bob.got("CANCEL")
    assert len(world.ended) == 1


def test_cancel_while_admission_is_asked_releases_the_hold_after_its_answer() -> None:
    """An end that is told before its hold is made would be lost, and the line with it."""
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    first = alice.request("INVITE", f"sip:bob@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    world.hold_answers = True
    alice.send(again)
    alice.response(100)
    world.release()  # auth
    alice.send(build.cancel(again))
    alice.response(200)
    alice.response(487)
    assert not world.ended
    world.release()  # call-admission: admitted
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("cancelled", 487)]
    assert not bob.inbox
    assert len(world.edge.calls) == 0


def test_an_answer_that_crosses_the_cancel_wins() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    alice.response(180)
    alice.send(build.cancel(invite))
    alice.response(200)
    bob.respond(incoming, 200)
    alice.response(200)
    assert len(world.started) == 1


@pytest.mark.setting("call-init-timeout")
def test_a_target_that_says_nothing_is_left_for_the_next_route() -> None:
    world = EdgeWorld({"session": {"callInitTimeout": "5s"}})
    alice = world.registered("alice", "192.0.2.1")
    dead, good = world.carrier("198.51.100.1", trunk="dead"), world.carrier("198.51.100.2", trunk="good")
    world.invite(alice, NUMBER)
    first = dead.got("INVITE")
    world.advance(4.9)
    assert not good.inbox
    world.advance(0.2)
    second = good.got("INVITE")
    assert second.via.branch != first.via.branch
    good.respond(second, 200)
    alice.response(200)
    assert world.started[0].trunk == "good"


@pytest.mark.setting("call-init-timeout")
def test_a_target_that_wakes_up_after_it_was_left_is_cancelled() -> None:
    world = EdgeWorld({"session": {"callInitTimeout": "5s"}})
    alice = world.registered("alice", "192.0.2.1")
    slow, good = world.carrier("198.51.100.1"), world.carrier("198.51.100.2")
    world.invite(alice, NUMBER)
    invite = slow.got("INVITE")
    world.advance(5.1)
    good.got("INVITE")
    slow.inbox.clear()
    slow.respond(invite, 180)
    slow.got("CANCEL")
    assert not alice.inbox


@pytest.mark.setting("call-init-timeout")
def test_when_no_target_says_anything_the_caller_hears_408() -> None:
    world = EdgeWorld({"session": {"callInitTimeout": "5s"}})
    alice = world.registered("alice", "192.0.2.1")
    world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    world.advance(5.1)
    alice.response(408)
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("timeout", 408)]


@pytest.mark.setting("ring-timeout")
def test_a_call_that_rings_too_long_is_cancelled_and_its_hold_released() -> None:
    world = EdgeWorld({"session": {"ringTimeout": "30s"}})
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    alice.response(180)
    world.advance(29.9)
    assert not bob.inbox
    world.advance(0.2)
    bob.respond(bob.got("CANCEL"), 200)
    bob.respond(incoming, 487)
    alice.response(408)
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("ring-timeout", 408)]


def test_an_answer_after_the_ring_timeout_is_acknowledged_and_ended_at_once() -> None:
    """Nobody else would: the caller has its 408."""
    world = EdgeWorld({"session": {"ringTimeout": "30s"}})
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    world.advance(30.1)
    bob.got("CANCEL")
    answer = bob.respond(incoming, 200)
    ack, bye = bob.got("ACK"), bob.got("BYE")
    assert ack.to.tag == bye.to.tag == answer.to.tag
    assert ack.from_.tag == "caller"
    assert bye.cseq.number == ack.cseq.number + 1
    bob.respond(bye, 200)
    bob.send(answer)
    assert bob.got("ACK").to_bytes() == ack.to_bytes()
    assert not bob.inbox
    assert not world.started


def test_a_repeated_invite_is_answered_and_not_passed_on_twice() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    alice.response(180)
    alice.send(invite)
    alice.response(180)
    assert not bob.inbox
    assert len([asked for asked in world.asked if isinstance(asked, AdmitCall)]) == 1


def test_an_invite_that_nobody_hears_is_sent_again() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    world.advance(1.6)
    assert len(bob.raw) == 4 + 1  # two answers to REGISTER, then T1 and 2 T1 later
    assert bob.raw[-1] == bob.raw[-2] == bob.raw[-3]


def test_a_repeated_200_is_passed_on_each_time() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    answer = bob.respond(bob.got("INVITE"), 200)
    alice.response(200)
    bob.send(answer)
    alice.response(200)
    assert len(world.started) == 1
