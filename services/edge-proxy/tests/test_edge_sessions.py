"""How long a session lasts that a side has to refresh, and what a refresh changes (RFC 4028, RFC 3261 12.2)."""

import pytest
from edge_world import Agent, AnsweredCall, EdgeWorld

from callwarden.edge_proxy.core.effects import CallAdmitted
from callwarden.sip import build
from callwarden.sip.message import Request

NUMBER = "+49301234567"


def paid_ahead(spec: dict[str, object] | None = None) -> EdgeWorld:
    """A world in which no talk time has to be asked for, so that no other alarm covers for that of the session."""
    world = EdgeWorld(spec)
    world.admit = lambda question: CallAdmitted(7_200, True, 7_200, world.routes)
    return world


def accept(agent: Agent, request: Request, session: str | None) -> None:
    headers = [("Contact", agent.contact), *([] if session is None else [("Session-Expires", session)])]
    agent.send(build.response(request, 200, to_tag="callee", headers=headers))


def talk(world: EdgeWorld, session: str | None) -> tuple[Agent, Agent, AnsweredCall]:
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    accept(carrier, incoming, session)
    call = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    alice.send(call.from_caller("ACK", cseq=invite.cseq.number))
    carrier.got("ACK")
    return alice, carrier, call


def refresh(call: AnsweredCall, session: str | None, cseq: int = 9) -> None:
    call.caller.send(call.from_caller("UPDATE", cseq=cseq))
    accept(call.callee, call.callee.got("UPDATE"), session)
    call.caller.response(200)


@pytest.mark.parametrize(
    ("session", "ends"),
    [
        ("90", True),
        ("90 ;refresher=uas", True),
        (" 90\t;refresher=uas", True),
        ("", False),
        ("soon", False),
        ("-90", False),
        ("9.0", False),
        ("\N{ARABIC-INDIC DIGIT NINE}\N{ARABIC-INDIC DIGIT ZERO}", False),
        ("\N{SUPERSCRIPT TWO}", False),
        ("9" * 5_000, False),  # more than Python reads as a number
    ],
)
def test_a_session_lasts_as_long_as_its_header_says_if_it_can_be_read(session: str, ends: bool) -> None:
    world = paid_ahead()
    talk(world, session)
    world.advance(89.9)
    assert not world.ended
    world.advance(0.2)
    assert [ended.reason for ended in world.ended] == (["cut-session-expired"] if ends else [])


def test_a_session_may_begin_with_a_refresh() -> None:
    world = paid_ahead()
    _, _, call = talk(world, None)
    world.advance(10)
    refresh(call, "90")
    world.advance(89.9)
    assert not world.ended
    world.advance(0.2)
    assert [ended.reason for ended in world.ended] == ["cut-session-expired"]


def test_a_session_may_be_made_shorter_by_a_refresh() -> None:
    world = paid_ahead()
    _, _, call = talk(world, "1800")
    world.advance(10)
    refresh(call, "90")
    world.advance(90.1)
    assert [ended.reason for ended in world.ended] == ["cut-session-expired"]


def test_a_session_ends_with_a_refresh_that_names_none() -> None:
    world = paid_ahead()
    _, _, call = talk(world, "90")
    world.advance(10)
    refresh(call, None)
    world.advance(600)
    assert not world.ended


def test_a_refresh_that_is_accepted_after_the_end_sets_no_alarm() -> None:
    world = paid_ahead()
    alice, carrier, call = talk(world, None)
    alice.send(call.from_caller("UPDATE", cseq=9))
    update = carrier.got("UPDATE")
    alice.send(call.from_caller("BYE", cseq=10))
    carrier.respond(carrier.got("BYE"), 200)
    accept(carrier, update, "90")
    assert len(world.edge.calls.wheel) == 0
    assert [ended.reason for ended in world.ended] == ["caller-bye"]
