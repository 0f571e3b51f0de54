"""An edge with no room for one more transaction: it says so, forgets nothing that runs, and ends calls all the same."""

import pytest
from edge_world import REALM, Agent, AnsweredCall, EdgeWorld

from callwarden.edge_proxy.core import call
from callwarden.sip.message import Response

NUMBER = "+49301234567"


def fill(world: EdgeWorld, *, left: int = 0) -> None:
    world.edge.layer._transactions_max = len(world.edge.layer) + left


def talking(world: EdgeWorld) -> tuple[Agent, Agent, AnsweredCall]:
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    return alice, carrier, world.talk(alice, carrier, NUMBER)


def is_overloaded(answer: Response) -> bool:
    return (answer.status, answer.get("retry-after")) == (503, "5")


def test_a_phone_that_registers_comes_again() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("REGISTER", f"sip:{REALM}", to=f"<sip:alice@{REALM}>")
    alice.send(first)
    fill(world)
    alice.send(alice.with_credentials(first, alice.response(401)))
    assert is_overloaded(alice.response(503))
    assert world.edge.stats.unavailable == 1
    assert not world.asked


def test_a_call_that_could_not_be_sent_on_is_refused_and_its_hold_released() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    fill(world, left=1)
    world.invite(alice, NUMBER)
    assert is_overloaded(alice.response(503))
    assert not carrier.inbox
    assert [(ended.reason, ended.sip_status) for ended in world.ended] == [("refused-overload", 503)]
    assert [decided.refuse.rule for decided in world.decided] == ["transactions"]
    assert len(world.edge.calls) == 0


@pytest.mark.parametrize("left", [0, 1])
def test_a_request_in_a_call_is_refused_and_leaves_nothing_behind(left: int) -> None:
    world = EdgeWorld()
    alice, carrier, talk = talking(world)
    fill(world, left=left)
    before = len(world.edge.layer)
    info = talk.from_caller("INFO", cseq=9)
    alice.send(info)
    assert is_overloaded(alice.response(503))
    assert len(world.edge.layer) == before
    assert world.edge.stats.unavailable == 1
    fill(world, left=2)
    alice.send(info)
    carrier.respond(carrier.got("INFO"), 200)
    alice.response(200)


def test_a_cut_is_told_once_to_both_sides() -> None:
    world = EdgeWorld()
    alice, carrier, _ = talking(world)
    fill(world)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    for agent in (alice, carrier):
        agent.got("BYE")
    world.advance(10)
    assert not alice.inbox
    assert not carrier.inbox
    assert [ended.reason for ended in world.ended] == ["test"]


def test_a_late_answer_is_ended_by_a_bye_that_is_sent_once() -> None:
    world = EdgeWorld()
    _, carrier, talk = talking(world)
    fill(world)
    carrier.respond(talk.incoming, 200, tag="fork")
    carrier.got("ACK")
    assert carrier.got("BYE").to.tag == "fork"
    world.advance(10)
    assert not carrier.inbox


@pytest.mark.setting("session-probe")
def test_sides_are_probed_the_next_time() -> None:
    world = EdgeWorld({"session": {"probe": "60s"}})
    alice, carrier, _ = talking(world)
    world.advance(59)
    fill(world)
    world.advance(2)
    assert not alice.inbox
    assert not carrier.inbox
    fill(world, left=2)
    world.advance(60)
    for agent in (alice, carrier):
        agent.respond(agent.got("OPTIONS"), 200)
    assert not world.ended


def test_an_edge_with_as_many_calls_as_it_can_keep_refuses_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "CALLS_MAX", 1)
    world = EdgeWorld()
    alice, carrier, talk = talking(world)
    alice.send(alice.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id="second"))
    assert is_overloaded(alice.response(503))
    assert world.edge.stats.unavailable == 1
    alice.send(talk.from_caller("BYE", cseq=9))
    carrier.respond(carrier.got("BYE"), 200)
    alice.response(200)
    alice.send(alice.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id="third"))
    alice.response(407)
