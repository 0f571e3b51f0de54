"""Whatever comes, the edge goes on: no input raises, what it sends is SIP, strangers get one answer and no memory."""

from functools import cache

from edge_world import REALM, EdgeWorld, parse_request
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.edge_proxy.core.keys import derive
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request
from callwarden.sip.transaction import Send

ALICE, BOB = SocketAddress("192.0.2.1", 5060), SocketAddress("192.0.2.2", 5060)
Datagram = tuple[bytes, str, int]

# Pieces that mean something in the wrong place.
PIECES = (
    b"",
    b"\r\n",
    b"\r\n ",
    b";",
    b",",
    b"<",
    b">",
    b'"',
    b"%",
    b"%ff",
    b"%00",
    b"@",
    b":",
    b"?",
    b"*",
    b";tag=x",
    b";lr",
    b"sip:",
    b"tel:+49",
    b"sips:",
    b"SIP/2.0",
    b"[::1]",
    b"999999999999",
    b"-1",
    b"0",
    b"\xc3\xbc",
    b"\xff",
    b"ACK",
    b"CANCEL",
    b"BYE",
    b"INVITE",
    b"REGISTER",
    b"\r\nRoute: <sip:192.0.2.10:5060;lr;cw=AAAA>",
    b"\r\nRoute: <sip:elsewhere>",
    b"\r\nContact: *",
    b"\r\nExpires: 0",
    b"\r\nMax-Forwards: 0",
    b"\r\nProxy-Require: x",
    b"\r\nContent-Length: 5",
    b"\r\nRecord-Route: <sip:x;lr>, <sip:y>",
)


@cache
def session() -> tuple[Datagram, ...]:
    """Every datagram that reaches the edge in two registrations and a call with everything in it."""
    seen: list[Datagram] = []
    world = EdgeWorld()
    receive = world.receive

    def tap(data: bytes, host: str, port: int) -> None:
        seen.append((data, host, port))
        receive(data, host, port)

    world.receive = tap  # type: ignore[method-assign]
    alice, bob = world.registered("alice", *ALICE, numbers=("+4930111",)), world.registered("bob", *BOB)
    talk = world.talk(alice, bob, "bob")
    alice.send(talk.from_caller("INFO", cseq=20))
    bob.respond(bob.got("INFO"), 200)
    bob.send(talk.from_callee("INVITE", cseq=5))
    alice.respond(next(message for message in alice.inbox if isinstance(message, Request)), 488)
    alice.send(talk.from_caller("BYE", cseq=30))
    alice.inbox.clear()
    bob.inbox.clear()
    invite = world.invite(alice, "bob", call_id="cancelled")
    bob.respond(bob.got("INVITE"), 180)
    alice.send(build.cancel(parse_request(invite.to_bytes())))
    return tuple(seen)


@st.composite
def mutated(draw: st.DrawFn) -> Datagram:
    """One of those datagrams with a few edits, from one of the ends or from a stranger."""
    data, host, port = draw(st.sampled_from(session()))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.sampled_from((0, 0, 1, 2, 5, 20, 100))))
        data = data[:at] + draw(st.sampled_from(PIECES)) + data[until:]
    source = draw(st.sampled_from(((host, port), (host, port), ALICE, BOB, ("203.0.113.9", 5060))))
    return data, *source


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(mutated(), st.sampled_from(session())), max_size=25))
def test_no_datagrams_in_any_order_break_the_edge(datagrams: list[Datagram]) -> None:
    world = EdgeWorld()
    world.registered("alice", *ALICE, numbers=("+4930111",))
    world.registered("bob", *BOB)
    for data, host, port in datagrams:
        world.receive(data, host, port)  # what the edge sends is parsed on the way to its agents
    world.advance(200)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.advance(40)
    assert len(world.edge.calls) == 0
    assert len(world.edge.layer) == 0
    assert len(world.edge.calls.wheel) == 0


@settings(max_examples=300, deadline=None)
@given(mutated())
def test_a_stranger_gets_one_answer_at_most_and_only_himself(datagram: Datagram) -> None:
    world = EdgeWorld()
    world.keys = derive([bytes(32)])  # so that what was recorded is nothing to this edge
    world.edge = world.new_edge()
    data = datagram[0]
    world.edge.receive(data, SocketAddress("203.0.113.9", 5060), world.mono_s, world.unix_s)
    world.settle()
    sent = [effect for effect in world.lost if isinstance(effect, Send)]
    assert len(sent) <= 1
    assert all(effect.to.address.host == "203.0.113.9" for effect in sent)
    assert len(world.edge.layer) == 0
    assert len(world.edge.calls) == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_taken_without_an_answer_or_with_one(data: bytes) -> None:
    world = EdgeWorld()
    world.edge.receive(data, SocketAddress("203.0.113.9", 5060), world.mono_s, world.unix_s)
    world.settle()
    assert len(world.lost) <= 1


def test_the_recorded_session_has_what_it_should() -> None:
    starts = {data.split(b" ", 1)[0] for data, _, _ in session()}
    assert starts >= {b"REGISTER", b"INVITE", b"ACK", b"BYE", b"INFO", b"CANCEL", b"SIP/2.0"}
    assert any(f"@{REALM}".encode() in data for data, _, _ in session())
