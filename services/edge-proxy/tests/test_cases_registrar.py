"""Cases: what phones register, and the numbers they dial."""

from collections.abc import Sequence

import pytest
from edge_world import REALM, Agent, EdgeWorld

from callwarden.edge_proxy.adapters.locations_nats import _decode, _encode
from callwarden.edge_proxy.core.effects import AdmitCall
from callwarden.sip.message import Response

pytestmark = pytest.mark.cases

INSTANCE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>"'


def register(
    agent: Agent, *contacts: str, headers: Sequence[tuple[str, str]] = (), call_id: str = "r", cseq: int = 1
) -> Response:
    request = agent.request("REGISTER", f"sip:{REALM}", to=f"<sip:bob@{REALM}>", call_id=call_id, cseq=cseq)
    request.remove("contact")
    for contact in contacts:
        request.add("Contact", contact)
    for name, value in headers:
        request.add(name, value)
    agent.send(request)
    agent.send(agent.with_credentials(request, agent.response(401)))
    answer = agent.next()
    assert isinstance(answer, Response)
    return answer


def bob() -> tuple[EdgeWorld, Agent]:
    world = EdgeWorld()
    return world, world.user("bob", "192.0.2.2")


def test_q_is_kept_echoed_and_followed() -> None:
    world, phone = bob()
    low, high = world.agent("192.0.2.2", 7001), world.agent("192.0.2.2", 7002)
    contacts = "<sip:bob@192.0.2.2:7001>;q=0.2, <sip:bob@192.0.2.2:7002>;q=0.9"
    answer = register(phone, contacts)
    assert sorted(value.split(";")[1] for value in answer.get_all("contact")) == ["q=0.2", "q=0.9"]
    location = world.edge.locations.get(REALM, "bob")
    assert location is not None
    assert _decode(_encode(location)) == location
    world.invite(world.registered("alice", "192.0.2.1"), "bob")
    high.respond(high.got("INVITE"), 486)
    low.got("INVITE")


@pytest.mark.parametrize("option", ["x-unknown", "path", "outbound, gruu"])
def test_what_a_phone_insists_on_and_we_do_not_support_is_420(option: str) -> None:
    _, phone = bob()
    answer = register(phone, phone.contact, headers=[("Require", option), ("Path", "<sip:edge.example;lr>")])
    assert (answer.status, answer.get("unsupported")) == (420, option)


@pytest.mark.parametrize(
    ("expires", "kept_s"),
    [
        ("Tue, 01 Dec 2026 16:00:00 GMT", 3_600),
        ("4294967296", 7_200),
        ("99999999999999999999", 7_200),
        ("120", 120),
        ("x", 3_600),
        ("-1", 3_600),
    ],
)
@pytest.mark.parametrize("where", ["header", "parameter", "quoted"])
def test_an_odd_expiry_is_bounded_and_no_fault(expires: str, kept_s: int, where: str) -> None:
    _, phone = bob()
    if where == "header":
        answer = register(phone, phone.contact, headers=[("Expires", expires)])
    elif " " in expires and where == "parameter":
        pytest.skip("no parameter has blanks without quotes")
    else:
        text = expires if where == "parameter" else f'"{expires}"'
        answer = register(phone, f"{phone.contact};expires={text}")
    assert answer.status == 200
    assert f"expires={kept_s}" in (answer.get("contact") or "")


def test_a_phone_without_nat_gets_its_calls_where_its_contact_says() -> None:
    world, phone = bob()
    listening = world.agent("192.0.2.2", 6060, "bob")
    register(phone, "<sip:bob@192.0.2.2:6060>")
    world.invite(world.registered("alice", "192.0.2.1"), "bob")
    listening.got("INVITE")
    assert not phone.inbox


@pytest.mark.parametrize(
    "contact", ["<sip:bob@10.0.0.9:6060>", "<sip:bob@phone.local:6060>", "<sip:bob@192.0.2.3>", "<sip:bob@0x7f.1>"]
)
def test_a_phone_behind_a_nat_gets_them_where_it_sent_from(contact: str) -> None:
    world, phone = bob()
    register(phone, contact)
    world.invite(world.registered("alice", "192.0.2.1"), "bob")
    phone.got("INVITE")


@pytest.mark.parametrize(
    ("flows", "left"), [(("", ""), 1), ((";reg-id=1", ";reg-id=1"), 1), ((";reg-id=1", ";reg-id=2"), 2)]
)
def test_a_restarted_phone_replaces_its_old_binding(flows: tuple[str, str], left: int) -> None:
    _, phone = bob()
    for number, flow in enumerate(flows):
        answer = register(phone, f"<sip:bob@192.0.2.2:{7000 + number}>;{INSTANCE}{flow}", call_id=f"r{number}")
    assert len(answer.get_all("contact")) == left


@pytest.mark.parametrize(
    ("uri", "number"),
    [
        ("tel:1701234567;phone-context=+49", "491701234567"),
        ("tel:170-123-4567;phone-context=%2B49", "491701234567"),
        (f"sip:1701234567;phone-context=+49@{REALM};user=phone", "491701234567"),
        (f"sip:1701234567@{REALM};user=phone;phone-context=+49", "491701234567"),
        ("tel:+4930123456;phone-context=+1", "4930123456"),
        (f"tel:4930123456;phone-context={REALM}", "4930123456"),
        ("tel:4930123456;phone-context=other.example", ""),
        ("tel:0301234567;phone-context=+49", ""),
    ],
)
def test_phone_context_is_part_of_the_number(uri: str, number: str) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.carrier()
    first = alice.request("INVITE", uri, to="<sip:x@y>")
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407)))
    asked = [question.destination for question in world.asked if isinstance(question, AdmitCall)]
    assert asked == ([number] if number else [])
