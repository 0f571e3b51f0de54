"""Cases: a carrier's odd 200 reaches the caller, a phone's odd INVITE the carrier."""

import pytest
from edge_world import REALM, SDP, EdgeWorld

from callwarden.sip import build

pytestmark = pytest.mark.cases

NUMBER = "+49301234567"


@pytest.mark.parametrize(
    "line",
    [
        b"Server: B\xfcro",
        b"no colon at all",
        b"Content-Length: 7",
        b"X-Bell: \x07",
        b"X-Long: " + b"a" * 10_000,
        b"\r\n".join(b"X-%d: y" % number for number in range(200)),
    ],
    ids=["Latin-1", "colonless", "second Content-Length", "bell", "long", "many"],
)
def test_the_200_of_a_carrier_reaches_the_caller(line: bytes) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    world.invite(alice, NUMBER)
    response = build.response(carrier.got("INVITE"), 200, to_tag="c", headers=[("Contact", carrier.contact)], body=SDP)
    carrier.send(response.to_bytes().replace(b"Contact: ", line + b"\r\nContact: ", 1))
    got = alice.response(200)
    assert got.body == SDP
    assert got.get_all("content-length") == [str(len(SDP))]
    if b"Content-Length" not in line:
        assert line in alice.raw[-1]
    assert len(world.started) == 1


def test_an_invite_with_a_name_in_latin_1_goes_out_as_it_came() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}", body=SDP)
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407)).to_bytes()
    alice.send(again.replace(b"From: ", b'From: "J\xfcrgen" ').replace(b"Contact", b"User-Agent: T\xe9l\r\nContact"))
    alice.response(100)
    invite = carrier.got("INVITE")
    assert b'From: "J\xfcrgen" <sip:alice@' in carrier.raw[-1]
    assert b"User-Agent: T\xe9l" in carrier.raw[-1]
    carrier.respond(invite, 486)
    assert b'From: "J\xfcrgen" <sip:alice@' in alice.response(486).to_bytes()


def test_a_phone_whose_user_agent_is_latin_1_registers() -> None:
    world = EdgeWorld()
    bob = world.user("bob", "192.0.2.2")
    register = bob.request("REGISTER", f"sip:{REALM}", to=f"<sip:bob@{REALM}>")
    bob.send(register)
    again = bob.with_credentials(register, bob.response(401)).to_bytes()
    bob.send(again.replace(b"Contact", b"User-Agent: T\xe9l\r\nContact"))
    bob.response(200)
    location = world.edge.locations.get(REALM, "bob")
    assert location is not None
    assert location.bindings[0].user_agent == "T?l"


@pytest.mark.parametrize("line", [b"no colon at all", b"Content-Length: 1", b"Require: \xfc", b"Subject: \x07"])
def test_a_request_that_can_not_be_read_is_answered_400(line: bytes) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    agent.send(agent.request("OPTIONS", f"sip:{REALM}").to_bytes().replace(b"Contact: ", line + b"\r\nContact: "))
    agent.response(400)
