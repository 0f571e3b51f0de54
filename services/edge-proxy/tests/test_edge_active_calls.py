"""The clock of an answered call: slices asked for ahead, the cut to the second, BYEs that both sides accept."""

import pytest
from edge_world import Agent, AnsweredCall, EdgeWorld

from callwarden.edge_proxy.core.call_states import CallState
from callwarden.edge_proxy.core.effects import CallAdmitted, CallExtended, CallRefused, ExtendCall, Unanswered
from callwarden.kernel.verdict import Reason, Refuse


def running(world: EdgeWorld) -> tuple[Agent, Agent, AnsweredCall]:
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    return alice, bob, world.talk(alice, bob, "bob")


def extensions(world: EdgeWorld) -> list[ExtendCall]:
    return [asked for asked in world.asked if isinstance(asked, ExtendCall)]


def test_the_next_slice_is_asked_for_before_the_present_one_ends() -> None:
    world = EdgeWorld()
    alice, _, _ = running(world)
    world.advance(53.9)
    assert not extensions(world)
    world.advance(0.2)  # a tenth of 60 s ahead
    (question,) = extensions(world)
    assert question.granted_s == 60
    assert question.answered_at_s == world.started[0].answered_at_s
    world.advance(60)
    assert [asked.granted_s for asked in extensions(world)] == [60, 120]
    assert not alice.inbox


def test_a_refused_extension_lets_the_call_finish_what_is_paid_for() -> None:
    world = EdgeWorld()
    alice, bob, _ = running(world)
    world.extend = lambda question: CallRefused(Refuse(Reason.CREDIT, "credit"))
    world.advance(59.9)
    assert not alice.inbox
    assert not bob.inbox
    world.advance(0.2)
    alice.got("BYE")
    bob.got("BYE")
    (ended,) = world.ended
    assert ended.reason == "cut-credit"
    assert 60 <= ended.ended_at_s - ended.answered_at_s < 60.1
    assert len(extensions(world)) == 1


def test_a_final_extension_is_the_last_question() -> None:
    world = EdgeWorld()
    alice, _, _ = running(world)
    world.extend = lambda question: CallExtended(71, final=True)
    world.advance(70.9)
    assert not alice.inbox
    world.advance(0.2)
    alice.got("BYE")
    assert [ended.reason for ended in world.ended] == ["cut-credit"]
    assert len(extensions(world)) == 1


def test_while_admission_is_dead_a_call_goes_on_for_its_slice_and_the_grace() -> None:
    world = EdgeWorld({"spend": {"grace": "5s"}})
    alice, _, _ = running(world)
    world.extend = lambda question: Unanswered()
    world.advance(64.9)
    assert not alice.inbox
    assert len(extensions(world)) > 5  # asked again and again
    world.advance(0.2)
    alice.got("BYE")
    assert [ended.reason for ended in world.ended] == ["cut-unavailable"]


def test_admission_that_comes_back_in_time_saves_the_call() -> None:
    world = EdgeWorld()
    alice, _, _ = running(world)
    world.extend = lambda question: Unanswered()
    world.advance(61)
    world.extend = lambda question: CallExtended(120, final=False)
    world.advance(30)
    assert not alice.inbox
    assert not world.ended


def test_an_answer_that_never_comes_is_no_free_call() -> None:
    world = EdgeWorld()
    alice, _, _ = running(world)
    world.hold_answers = True
    world.advance(65.1)
    alice.got("BYE")


def test_a_late_answer_to_an_old_question_takes_nothing_back() -> None:
    world = EdgeWorld()
    alice, _, _ = running(world)
    world.extend = lambda question: CallExtended(30, final=False)
    world.advance(56)
    assert not alice.inbox


@pytest.mark.parametrize("granted_s", [1, 2, 3])
def test_short_slices_are_extended_half_way(granted_s: int) -> None:
    world = EdgeWorld()
    world.admit = lambda question: CallAdmitted(granted_s, False, 7_200, ())
    world.extend = lambda question: CallExtended(question.granted_s + granted_s, False)
    alice, _, _ = running(world)
    world.advance(10)
    assert not alice.inbox
    assert not world.ended


@pytest.mark.setting("call-timeout")
def test_no_talk_is_longer_than_policy_allows() -> None:
    world = EdgeWorld({"session": {"callTimeout": "90s"}})
    alice, _, _ = running(world)
    world.advance(89.9)
    assert not alice.inbox
    world.advance(0.2)
    alice.got("BYE")
    assert [ended.reason for ended in world.ended] == ["cut-duration"]


def test_no_talk_is_longer_than_admission_allows() -> None:
    world = EdgeWorld()
    world.admit = lambda question: CallAdmitted(60, False, 100, ())
    alice, _, _ = running(world)
    world.advance(100.1)
    alice.got("BYE")
    assert [ended.reason for ended in world.ended] == ["cut-duration"]


def test_no_more_is_asked_for_than_may_be_talked() -> None:
    world = EdgeWorld()
    world.admit = lambda question: CallAdmitted(100, False, 100, ())
    alice, _, _ = running(world)
    world.advance(99.9)
    assert not alice.inbox
    assert not extensions(world)
    world.advance(0.2)
    assert [ended.reason for ended in world.ended] == ["cut-duration"]


@pytest.mark.setting("session-probe")
def test_while_a_question_is_open_no_other_alarm_asks_again() -> None:
    world = EdgeWorld({"session": {"probe": "57s"}})
    alice, bob, _ = running(world)
    world.hold_answers = True
    world.advance(57.1)
    for agent in (alice, bob):
        agent.respond(agent.got("OPTIONS"), 200)
    assert len(extensions(world)) == 1
    world.release()
    world.hold_answers = False
    world.advance(30)
    assert not world.ended


@pytest.mark.setting("absolute-timeout")
def test_no_call_outlives_the_absolute_time_out_and_both_sides_get_bye() -> None:
    world = EdgeWorld({"session": {"absoluteTimeout": "2m", "callTimeout": "1h"}})
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 180)
    alice.response(180)
    world.advance(50)
    bob.respond(incoming, 200)
    alice.send(AnsweredCall(world, alice, bob, invite, alice.response(200), incoming).from_caller("ACK", cseq=2))
    bob.inbox.clear()
    world.advance(69.9)
    assert not bob.inbox
    world.advance(0.2)
    alice.got("BYE")
    bob.got("BYE")
    assert [ended.reason for ended in world.ended] == ["cut-absolute"]


def test_the_byes_of_a_cut_are_those_of_the_dialog() -> None:
    """Tags, Call-ID, Request-URI, numbers above those used, no route of ours (RFC 3261 12.2.1.1)."""
    world = EdgeWorld()
    alice, bob, talk = running(world)
    # Both sides have used higher numbers since, and the callee has moved its Contact.
    alice.send(talk.from_caller("INFO", cseq=40))
    bob.respond(bob.got("INFO"), 200)
    alice.response(200)
    bob.send(talk.from_callee("UPDATE", cseq=7, headers=[]))
    alice.respond(alice.got("UPDATE"), 200)
    bob.response(200)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    to_bob, to_alice = bob.got("BYE"), alice.got("BYE")
    assert to_bob.call_id == to_alice.call_id == talk.invite.call_id
    assert to_bob.from_.tag == to_alice.to.tag == "caller"
    assert to_bob.to.tag == to_alice.from_.tag == talk.answer.to.tag
    assert to_bob.uri_text == str(talk.answer.contacts[0].uri)
    assert to_alice.uri_text == str(talk.invite.contacts[0].uri)
    assert to_bob.cseq.number == 41
    assert to_alice.cseq.number == 8
    assert "route" not in to_bob
    assert "route" not in to_alice
    assert to_bob.get("reason") == to_alice.get("reason") == 'SIP;cause=200;text="Call ended"'


def test_a_cut_reaches_a_side_that_has_moved() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    refresh = talk.from_callee("UPDATE", cseq=3)
    refresh.set("Contact", "<sip:elsewhere@192.0.2.2:5060>")
    bob.send(refresh)
    alice.respond(alice.got("UPDATE"), 200)
    bob.response(200)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    assert bob.got("BYE").uri_text == "sip:elsewhere@192.0.2.2:5060"


def test_a_cut_goes_through_the_proxies_on_a_carriers_side() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    front = world.carrier("198.51.100.1")
    inner = world.agent("198.51.100.9", 5080, "inner")
    world.invite(alice, "+49301234")
    incoming = front.got("INVITE")
    incoming.push_record_route("sip:198.51.100.1;lr")
    incoming.push_record_route("sip:198.51.100.9:5080;lr")
    front.respond(incoming, 200)
    alice.response(200)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    bye = front.got("BYE")
    assert [str(route.uri) for route in bye.routes] == ["sip:198.51.100.1;lr", "sip:198.51.100.9:5080;lr"]
    assert not inner.inbox


def test_a_call_whose_sides_gave_no_contact_ends_at_its_time_all_the_same() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.admit = lambda question: CallAdmitted(10, True, 7_200, ())
    world.invite(alice, "bob")
    bob.respond(bob.got("INVITE"), 200, contact=False)
    alice.response(200)
    world.advance(10.1)
    assert [ended.reason for ended in world.ended] == ["cut-credit"]


def test_a_hundred_calls_leave_nothing_behind() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    for number in range(100):
        talk = world.talk(alice, bob, "bob", call_id=f"call-{number}")
        alice.send(talk.from_caller("BYE", cseq=9))
        bob.respond(bob.got("BYE"), 200)
        alice.response(200)
    world.advance(40)
    assert len(world.edge.calls) == 0
    assert len(world.edge.layer) == 0
    assert len(world.edge.calls.wheel) == 0
    assert len(world.ended) == 100


def test_early_media_answers_pass_before_the_clock_starts() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    incoming = bob.got("INVITE")
    bob.respond(incoming, 183)
    alice.response(183)
    world.advance(30)
    assert not world.started
    bob.respond(incoming, 200)
    alice.response(200)
    assert world.started[0].answered_at_s == world.unix_s


@pytest.mark.setting("session-probe")
def test_a_probe_that_is_far_off_delays_no_end() -> None:
    world = EdgeWorld({"session": {"probe": "10m"}})
    world.admit = lambda question: CallAdmitted(10, True, 7_200, ())
    running(world)
    world.advance(10.1)
    assert [ended.reason for ended in world.ended] == ["cut-credit"]


@pytest.mark.parametrize(
    ("answers", "sent"), [((200,), 1), ((481,), 1), ((100, 200), 1), ((500, 200), 2), ((500, 500), 2), ((), 1)]
)
def test_a_cut_call_is_over_when_both_sides_have_answered_or_never_will(answers: tuple[int, ...], sent: int) -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    call = world.edge.calls.find_dialog(talk.invite.call_id)
    assert call is not None
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    bob.respond(bob.got("BYE"), 200)
    byes = [alice.got("BYE")]
    for status in answers:
        assert call.state is CallState.CUTTING
        alice.respond(byes[-1], status)
        if alice.inbox:
            byes.append(alice.got("BYE"))
    if not answers:
        world.advance(33)
    assert call.state is CallState.ENDED
    assert len(byes) == sent
