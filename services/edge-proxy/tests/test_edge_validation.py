"""What is no SIP, what a proxy refuses before anything else (RFC 3261 16.3), and where answers go."""

import pytest
from edge_world import REALM, Agent, EdgeWorld

from callwarden.edge_proxy.core.validation import CSEQ_MAX
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request, Response

NUMBER = "+49301234567"


def silent(agent: Agent) -> bool:
    return not agent.inbox


def check(world: EdgeWorld, agent: Agent, request: Request) -> Response:
    agent.send(request)
    answer = agent.next()
    assert isinstance(answer, Response)
    return answer


@pytest.mark.setting("malformed")
@pytest.mark.parametrize(
    "data",
    [b"hello", b"\xff" * 100, b"INVITE sip:a@b SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n", b"A" * 60_000, b" "],
)
def test_what_is_not_sip_is_dropped_and_counted(data: bytes) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1")
    agent.send(data)
    assert silent(agent)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert report.wrong == 1


@pytest.mark.setting("malformed")
def test_a_bad_request_that_says_where_it_came_from_is_answered_once() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    data = agent.request("OPTIONS", f"sip:{REALM}").to_bytes().replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE")
    agent.send(data)
    agent.response(400)
    assert silent(agent)


@pytest.mark.setting("malformed")
def test_a_scanner_that_can_not_write_sip_gets_no_answer() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    request = agent.request("OPTIONS", f"sip:{REALM}", headers=[("User-Agent", "friendly-scanner")])
    agent.send(request.to_bytes().replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE"))
    assert silent(agent)


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"\r\n", b"\0\0\0\0"])
def test_what_keeps_a_nat_open_is_no_fault(data: bytes) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1")
    agent.send(data)
    assert silent(agent)
    assert world.edge.counters.take_report(world.mono_s) == []
    assert world.edge.stats.keepalives == 1


def test_answers_go_to_the_address_that_was_really_used_and_nowhere_else() -> None:
    """The Via of an attacker names his victim."""
    world = EdgeWorld()
    victim, attacker = world.agent("203.0.113.9", user="v"), world.agent("192.0.2.66", user="m")
    request = attacker.request("OPTIONS", f"sip:{REALM}")
    request.set("Via", "SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKx")
    attacker.send(request)
    assert silent(victim)
    attacker.response(200)


def test_a_stranger_gets_one_answer_a_datagram_and_costs_no_memory() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.9", user="v")
    for number in range(50):
        for method in ("INVITE", "REGISTER", "OPTIONS", "CANCEL", "MESSAGE", "ACK", "BYE"):
            stranger.send(stranger.request(method, f"sip:{REALM}", call_id=f"{method}{number}"))
    assert len(stranger.inbox) == 50 * 6  # ACK has none
    assert len(world.edge.layer) == 0
    assert len(world.edge.calls) == 0


def test_requests_that_may_not_go_on() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    uri = f"sip:bob@{REALM}"
    assert check(world, agent, agent.request("INVITE", uri, max_forwards=0)).status == 483
    answer = check(world, agent, agent.request("INVITE", uri, headers=[("Proxy-Require", "foo, bar")]))
    assert (answer.status, answer.get("unsupported")) == (420, "foo, bar")
    assert check(world, agent, agent.request("INVITE", "mailto:a@b")).status == 416
    assert check(world, agent, agent.request("SUBSCRIBE", uri)).status == 501
    answer = check(world, agent, agent.request("MESSAGE", uri))
    assert (answer.status, "INVITE" in (answer.get("allow") or "")) == (405, True)
    assert check(world, agent, agent.request("CANCEL", uri)).status == 481


def test_a_ping_is_answered_and_nobody_learns_who_is_registered() -> None:
    world = EdgeWorld()
    world.registered("bob", "192.0.2.2")
    agent = world.agent("192.0.2.1", user="a")
    answer = check(world, agent, agent.request("OPTIONS", f"sip:{REALM}"))
    assert answer.status == 200
    assert "INVITE" in (answer.get("allow") or "")
    assert check(world, agent, agent.request("OPTIONS", "sip:192.0.2.10:5060", max_forwards=0)).status == 200
    for user in ("bob", "nobody"):
        assert check(world, agent, agent.request("OPTIONS", f"sip:{user}@{REALM}")).status == 404


def test_a_request_that_comes_back_unchanged_is_a_loop_and_a_changed_one_is_not() -> None:
    """RFC 5393: by what decides where it goes, not by our name in Via alone."""
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    carrier = world.carrier()
    world.invite(alice, NUMBER)
    forwarded = carrier.got("INVITE")
    looped = forwarded.copy()
    looped.set_uri(f"sip:{NUMBER}@{REALM}")
    looped.push_via(carrier.via())
    carrier.send(looped)
    carrier.response(482)
    spiral = forwarded.copy()
    spiral.set_uri(f"sip:+4930999@{REALM}")
    spiral.push_via(carrier.via())
    carrier.send(spiral)
    carrier.response(407)


def test_peers_without_rport_are_answered_at_the_port_they_name() -> None:
    """RFC 3261 18.2.2."""
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", 5060, user="a")
    request = agent.request("OPTIONS", f"sip:{REALM}")
    request.set("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx")
    world.edge.receive(request.to_bytes(), SocketAddress("192.0.2.1", 40_000), world.mono_s, world.unix_s)
    world.settle()
    agent.response(200)


METHODS = "INVITE, ACK, CANCEL, BYE, REGISTER, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY, MESSAGE"


def test_what_is_allowed_is_told_whole() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    answer = check(world, agent, agent.request("OPTIONS", f"sip:{REALM}"))
    assert [answer.get(name) for name in ("allow", "accept", "server")] == [METHODS, "application/sdp", "Callwarden"]
    for method in METHODS.split(", "):
        if method in ("ACK", "CANCEL", "INVITE", "REGISTER", "OPTIONS"):
            continue
        answer = check(world, agent, agent.request(method, f"sip:bob@{REALM}"))
        assert (answer.status, answer.get("allow")) == (405, METHODS)


@pytest.mark.parametrize(
    ("header", "values", "reason"),
    [
        ("Contact", (), "Missing Contact"),
        ("Contact", ("<sip:a@192.0.2.1>", "<sip:b@192.0.2.1>"), "Bad Contact"),
        ("Contact", ("*",), "Bad Contact"),
        ("Contact", ("<sip:a@@x>",), "Bad Contact"),
        ("Contact", ("<tel:+4930>",), "Bad Contact"),
        ("Record-Route", ("<tel:+4930>",), "Bad Record-Route"),
        ("Record-Route", ("<sip:a@@x;lr>",), "Bad Record-Route"),
        ("CSeq", (f"{CSEQ_MAX + 1} INVITE",), "CSeq Too High"),
        ("Call-ID", ("A" * 257,), "Call-ID Too Long"),
    ],
)
def test_what_is_wrong_with_an_invite_is_said(header: str, values: tuple[str, ...], reason: str) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    request = agent.request("INVITE", f"sip:bob@{REALM}")
    request.remove(header.lower())
    for value in values:
        request.add(header, value)
    answer = check(world, agent, request)
    assert (answer.status, answer.reason) == (400, reason)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert report.wrong == 1


def test_the_highest_number_that_leaves_room_for_ours_is_good() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    assert check(world, agent, agent.request("INVITE", f"sip:bob@{REALM}", cseq=CSEQ_MAX)).status == 407


def test_a_request_that_was_given_another_route_is_no_loop() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    carrier = world.carrier()
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    again.add("Route", "<sip:192.0.2.10:5060;lr>")
    alice.send(again)
    forwarded = carrier.got("INVITE")
    for route, status in ((None, 407), ("<sip:192.0.2.10:5060;lr>", 482), ("<sip:198.51.100.1;lr>", 407)):
        back = forwarded.copy()
        back.set_uri(f"sip:{NUMBER}@{REALM}")
        if route is not None:
            back.add("Route", route)
        back.push_via(carrier.via())
        carrier.send(back)
        carrier.response(status)


def test_our_name_in_a_list_of_vias_is_seen() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    carrier = world.carrier()
    world.invite(alice, NUMBER)
    back = carrier.got("INVITE")
    back.set_uri(f"sip:{NUMBER}@{REALM}")
    vias = back.get_all("via")
    back.set("Via", ", ".join([carrier.via(), *vias]))
    carrier.send(back)
    carrier.response(482)


def test_a_phone_without_rport_is_answered_at_the_port_it_names_in_a_transaction_too() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1", 5070)
    first = alice.request("REGISTER", f"sip:{REALM}", to=f"<sip:alice@{REALM}>")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(401))
    again.set("Via", "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKy")
    world.receive(again.to_bytes(), "192.0.2.1", 40_000)
    alice.response(200)


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER"])
def test_a_fault_is_answered_and_counted_whatever_is_asked(method: str) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    answer = check(world, agent, agent.request(method, f"sip:{REALM}", headers=[("Proxy-Require", "foo")]))
    assert (answer.status, answer.get("unsupported")) == (420, "foo")
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert report.wrong == 1


def test_our_name_in_a_via_without_a_branch_is_no_loop() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    request = agent.request("OPTIONS", f"sip:{REALM}")
    request.add("Via", "SIP/2.0/UDP 192.0.2.10:5060")
    assert check(world, agent, request).status == 200
