"""Calls that are refused: what each side hears, and what follows when a service is dead or the edge drains."""

import pytest
from edge_world import PASSWORD, REALM, Agent, EdgeWorld

from callwarden.edge_proxy.core.context import Intake
from callwarden.edge_proxy.core.effects import (
    Answer,
    CallAdmitted,
    CallerIdentity,
    CallExtended,
    CallRefused,
    Rejected,
    Unanswered,
)
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip import build
from callwarden.sip.message import Request

NUMBER = "+49301234567"


def hang_up(world: EdgeWorld, caller: Agent, callee: Agent, talk_bye: Request) -> None:
    caller.send(talk_bye)
    callee.respond(callee.got("BYE"), 200)
    caller.response(200)


def _trunk() -> CallerIdentity:
    return CallerIdentity("account-switch", "traffic-sender", (), "", 60)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.LINES, 486),
        (Reason.CREDIT, 403),
        (Reason.DAILY_SPEND, 403),
        (Reason.PREMIUM, 403),
        (Reason.NO_ROUTE, 503),
        (Reason.ACCOUNT_DISABLED, 403),
    ],
)
def test_a_refused_call_gets_the_status_of_its_reason_and_no_more(reason: Reason, status: int) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.admit = lambda question: CallRefused(Refuse(reason, "some-rule", counter="secret", value=5, limit=5))
    world.invite(alice, NUMBER)
    answer = alice.response(status)
    assert "reason" not in answer
    assert b"secret" not in answer.to_bytes()
    assert not world.ended  # no hold, nothing to end
    assert not world.decided  # call-admission keeps its own decisions


@pytest.mark.setting("quotadiscreason")
def test_policy_chooses_the_status_of_a_refusal_for_a_quota() -> None:
    world = EdgeWorld({"spend": {"rejectStatus": 402}})
    alice = world.registered("alice", "192.0.2.1")
    world.admit = lambda question: CallRefused(Refuse(Reason.CREDIT, "credit"))
    world.invite(alice, NUMBER)
    alice.response(402)


@pytest.mark.setting("quotadiscreason")
def test_a_trunk_hears_the_reason_and_a_full_trunk_503() -> None:
    world = EdgeWorld()
    switch = world.agent("203.0.113.5", 5060, "switch")
    world.trunks["203.0.113.5"] = _trunk()
    world.admit = lambda question: CallRefused(Refuse(Reason.LINES, "lines", window="now"))
    switch.send(switch.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    switch.response(100)
    answer = switch.response(503)
    assert answer.get("reason") == 'SIP;cause=503;text="lines: lines now"'
    assert answer.get("retry-after") == "2"


def test_what_a_trunk_is_told_fits_into_a_quoted_text() -> None:
    world = EdgeWorld()
    switch = world.agent("203.0.113.5", 5060, "switch")
    world.trunks["203.0.113.5"] = _trunk()
    world.admit = lambda question: CallRefused(Refuse(Reason.LINES, 'a"b\\c\r\nd' + "x" * 200))
    switch.send(switch.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    switch.response(100)
    text = "lines: abcd" + "x" * 117
    assert switch.response(503).get("reason") == f'SIP;cause=503;text="{text}"'


def test_when_admission_is_dead_calls_are_refused_and_come_again() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.admit = lambda question: Unanswered()
    world.invite(alice, NUMBER)
    assert alice.response(503).get("retry-after") == "5"
    assert [decided.refuse.reason for decided in world.decided] == [Reason.UNAVAILABLE]
    # The hold may stand all the same: only the answer was lost.
    assert [ended.sip_status for ended in world.ended] == [503]


def test_when_auth_is_dead_calls_are_refused_and_come_again() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    world.hold_answers = True
    alice.send(again)
    alice.response(100)
    world.release(Unanswered())
    assert alice.response(503).get("retry-after") == "5"
    assert len(world.edge.calls) == 0


def test_a_draining_edge_takes_no_new_calls_and_lets_running_ones_end() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    world.edge.take_calls(Intake.REFUSED)
    alice.send(alice.request("INVITE", f"sip:bob@{REALM}", call_id="another"))
    assert "retry-after" in alice.response(503)
    hang_up(world, alice, bob, talk.from_caller("BYE", cseq=9))
    assert len(world.ended) == 1


def test_what_is_left_when_the_drain_is_over_is_cut() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.talk(alice, bob, "bob")
    world.edge.cut_all("edge-drain", world.mono_s, world.unix_s)
    world.settle()
    alice.got("BYE")
    bob.got("BYE")
    assert [ended.reason for ended in world.ended] == ["edge-drain"]


def test_an_edge_that_leaves_answers_no_new_call_so_that_the_caller_asks_again() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.edge.take_calls(Intake.IGNORED)
    alice.send(alice.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    assert not alice.inbox


def test_who_rings_when_the_drain_is_over_stops_and_the_caller_may_try_elsewhere() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    bob.respond(bob.got("INVITE"), 180)
    alice.response(180)
    assert world.edge.in_setup == 1
    world.edge.cut_all("edge-drain", world.mono_s, world.unix_s)
    world.settle()
    alice.response(503)
    bob.got("CANCEL")
    assert [ended.reason for ended in world.ended] == ["edge-drain"]
    assert world.edge.in_setup == 0


def test_a_call_that_was_handed_over_is_no_longer_cut_here_and_its_bye_passes() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    (stored,) = world.edge.records()
    world.edge.release({stored.record.hold_id}, world.mono_s)
    world.edge.cut_all("edge-drain", world.mono_s, world.unix_s)
    world.settle()
    assert world.ended == []
    hang_up(world, alice, bob, talk.from_caller("BYE", cseq=9))


def test_every_end_is_told_once() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.send(talk.from_callee("BYE"))  # both at once
    bob.respond(bob.got("BYE"), 200)
    alice_bye = next(message for message in alice.inbox if isinstance(message, Request))
    alice.respond(alice_bye, 200)
    assert len(world.ended) == 1


def test_an_extension_after_the_end_changes_nothing() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    world.hold_answers = True
    world.advance(58)
    hang_up(world, alice, bob, talk.from_caller("BYE", cseq=9))
    world.release(CallExtended(120, final=False))
    assert len(world.edge.calls.wheel) == 0
    world.advance(200)
    assert len(world.ended) == 1
    assert len(world.edge.calls) == 0


@pytest.mark.parametrize("answer", [None, Rejected(Reason.CREDENTIALS), Unanswered()])
def test_who_gives_up_while_auth_is_asked_is_asked_about_no_further(answer: Answer | None) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.asked.clear()
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    invite = alice.with_credentials(first, alice.response(407))
    world.hold_answers = True
    alice.send(invite)
    alice.response(100)
    alice.send(build.cancel(invite))
    alice.response(200)
    alice.response(487)
    world.release(answer)
    assert not alice.inbox
    assert len(world.asked) == 1
    assert len(world.edge.calls) == 0
    assert not world.decided


def test_a_wrong_password_is_asked_again_like_an_unknown_user() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    nobody = world.agent("192.0.2.3", 5060, "nobody")
    answers = []
    for agent, password in ((alice, "guess"), (nobody, PASSWORD)):
        first = agent.request("INVITE", f"sip:{NUMBER}@{REALM}")
        agent.send(first)
        agent.send(agent.with_credentials(first, agent.response(407), password))
        agent.response(100)
        answers.append([key for key, _ in agent.response(407).headers()])
    assert answers[0] == answers[1]
    assert [decided.refuse.reason for decided in world.decided] == [Reason.CREDENTIALS] * 2
    assert not world.ended


def test_admission_final_grants_are_not_asked_to_grow() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.admit = lambda question: CallAdmitted(7, True, 7_200, ())
    world.talk(alice, bob, "bob")
    world.advance(6.9)
    assert not alice.inbox
    world.advance(0.2)
    alice.got("BYE")
    assert [ended.reason for ended in world.ended] == ["cut-credit"]
