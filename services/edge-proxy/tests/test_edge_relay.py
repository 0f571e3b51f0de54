"""Requests inside a call: both ways, with what the edge knows and with nothing but the cookie (RFC 3261 16, 12.2)."""

from base64 import urlsafe_b64decode
from ipaddress import ip_address

import pytest
from edge_world import REALM, SDP, Agent, AnsweredCall, EdgeWorld, account_id

from callwarden.sip import build
from callwarden.sip.message import Request


def running(world: EdgeWorld) -> tuple[Agent, Agent, AnsweredCall]:
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    return alice, bob, world.talk(alice, bob, "bob")


@pytest.mark.parametrize(
    "method", ["INFO", "UPDATE", "INVITE", "PRACK", "REFER", "NOTIFY", "MESSAGE", "OPTIONS", "X-NEW"]
)
def test_requests_pass_both_ways_with_their_answers(method: str) -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    for sender, receiver, request in (
        (alice, bob, talk.from_caller(method, cseq=20)),
        (bob, alice, talk.from_callee(method, cseq=20)),
    ):
        if method == "REFER":
            request.add("Refer-To", f"<sip:+49301234567@{REALM}>")
        sender.send(request)
        if method == "INVITE":
            sender.response(100)
        passed = receiver.got(method)
        assert "route" not in passed
        assert passed.uri_text == request.uri_text
        assert passed.max_forwards == 69
        assert len(passed.vias) == 2
        receiver.respond(passed, 200)
        assert [via.branch for via in sender.response(200).vias] == [request.via.branch]
    assert not world.ended


def test_a_re_invite_is_passed_with_its_provisional_answers_and_its_ack() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    invite = talk.from_caller("INVITE", cseq=20)
    alice.send(invite)
    alice.response(100)
    passed = bob.got("INVITE")
    bob.respond(passed, 183)
    alice.response(183)
    bob.respond(passed, 200, body=SDP)
    assert alice.response(200).body == SDP
    alice.send(talk.from_caller("ACK", cseq=20))
    assert bob.got("ACK").cseq.number == 20
    assert len(world.started) == 1


def test_a_refused_re_invite_leaves_the_call_as_it_is() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    invite = talk.from_caller("INVITE", cseq=20)
    alice.send(invite)
    alice.response(100)
    bob.respond(bob.got("INVITE"), 488)
    bob.got("ACK")
    alice.send(build.ack(invite, alice.response(488)))
    assert len(world.edge.calls) == 1
    assert not bob.inbox


def test_a_re_invite_can_be_cancelled() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    invite = talk.from_caller("INVITE", cseq=20)
    alice.send(invite)
    alice.response(100)
    passed = bob.got("INVITE")
    bob.respond(passed, 180)
    alice.response(180)
    alice.send(build.cancel(invite))
    alice.response(200)
    bob.respond(bob.got("CANCEL"), 200)
    bob.respond(passed, 487)
    alice.response(487)
    assert len(world.edge.calls) == 1


def test_a_re_invite_that_nobody_answers_times_out() -> None:
    world = EdgeWorld()
    alice, _, talk = running(world)
    alice.send(talk.from_caller("INVITE", cseq=20))
    alice.response(100)
    world.advance(33)
    alice.response(408)
    assert [ended.reason for ended in world.ended] == ["cut-dialog-unknown"]


def test_a_request_that_nobody_answers_gets_no_late_408() -> None:
    """RFC 4320 4.2."""
    world = EdgeWorld()
    alice, _, talk = running(world)
    alice.send(talk.from_caller("INFO", cseq=20))
    world.advance(33)
    assert not alice.inbox
    assert len(world.edge.layer) == 0


def test_an_ack_is_passed_without_state_and_the_same_each_time() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    kept = len(world.edge.layer)
    ack = talk.from_caller("ACK", cseq=talk.invite.cseq.number)
    alice.send(ack)
    alice.send(ack)
    assert bob.got("ACK").to_bytes() == bob.got("ACK").to_bytes()
    assert len(world.edge.layer) == kept


def test_after_a_restart_a_call_ends_by_its_cookie_alone() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    hold_id = talk.hold_id
    world.restart()
    world.events.clear()
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.respond(bob.got("BYE"), 200)
    alice.response(200)
    (ended,) = world.ended
    assert ended.hold_id == hold_id
    assert (ended.reason, ended.answered_at_s, ended.ended_at_s) == ("caller-bye", 0.0, world.unix_s)
    assert ended.account_id == account_id("alice")


def test_after_a_restart_the_callee_behind_a_nat_is_still_reached() -> None:
    """Its Contact is a private address; the cookie knows where it really is."""
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    nat = world.user("bob", "203.0.113.7", 40_000)
    register = nat.request("REGISTER", f"sip:{REALM}", to=f"<sip:bob@{REALM}>")
    register.set("Contact", "<sip:bob@10.0.0.2:5060>")
    nat.send(register)
    nat.send(nat.with_credentials(register, nat.response(401)))
    nat.response(200)
    invite = world.invite(alice, "bob")
    incoming = nat.got("INVITE")
    assert incoming.uri_text == "sip:bob@10.0.0.2:5060"
    answer = build.response(incoming, 200, to_tag="callee", headers=[("Contact", "<sip:bob@10.0.0.2:5060>")])
    nat.send(answer)
    talk = AnsweredCall(world, alice, nat, invite, alice.response(200), incoming)
    world.restart()
    for method in ("ACK", "BYE"):
        alice.send(talk.from_caller(method, cseq=9 if method == "BYE" else invite.cseq.number))
        assert nat.got(method).uri_text == "sip:bob@10.0.0.2:5060"
    # And the other way.
    nat.send(talk.from_callee("BYE"))
    alice.got("BYE")


def test_a_phone_whose_nat_gave_it_another_port_is_followed() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    moved = world.agent("192.0.2.2", 6_000, "bob")
    info = talk.from_callee("INFO", cseq=2)
    moved.send(info)
    alice.respond(alice.got("INFO"), 200)
    alice.send(talk.from_caller("INFO", cseq=20))
    moved.response(200)
    moved.got("INFO")
    assert not bob.inbox


# What isn't passed.


def bad(talk: AnsweredCall, kind: str) -> Request:
    request = talk.from_caller("BYE", cseq=9)
    match kind:
        case "no dialog":
            request.remove("route")
            request.set("To", f"<sip:bob@{REALM}>;tag=other")
        case "forged cookie":
            request.set("Route", (request.get("route") or "").replace("cw=", "cw=AAAA"))
        case "another call":
            request.set("Call-ID", "another")
        case "another From tag":
            request.set("From", f"<sip:alice@{REALM}>;tag=other")
        case "another To tag":
            request.set("To", f"<sip:bob@{REALM}>;tag=other")
    return request


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("no dialog", 0), ("forged cookie", 1), ("another call", 1), ("another From tag", 1), ("another To tag", 1)],
)
def test_a_request_that_is_of_no_dialog_of_ours_goes_nowhere(kind: str, wrong: int) -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    request = bad(talk, kind)
    alice.send(request)
    alice.response(481)
    assert not bob.inbox
    assert not world.ended
    assert sum(report.wrong for report in world.edge.counters.take_report(world.mono_s)) == wrong


def test_an_ack_without_a_good_cookie_is_dropped_without_a_word() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    ack = talk.from_caller("ACK", cseq=2)
    ack.set("Route", (ack.get("route") or "").replace("cw=", "cw=AAAA"))
    alice.send(ack)
    assert not bob.inbox
    assert not alice.inbox


def test_an_old_cookie_opens_nothing() -> None:
    world = EdgeWorld({"session": {"absoluteTimeout": "1h"}})
    alice, bob, talk = running(world)
    world.restart()
    world.pass_by(2 * 3_600 + 10)
    alice.send(talk.from_caller("BYE", cseq=9))
    alice.response(481)
    assert not bob.inbox


def test_the_cookie_of_an_ended_call_opens_nothing() -> None:
    """Two who agree could talk on under a call that is charged no more."""
    world = EdgeWorld()
    alice, bob, talk = running(world)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    alice.inbox.clear()
    bob.inbox.clear()
    alice.send(talk.from_caller("INVITE", cseq=20))
    alice.response(481)
    assert not bob.inbox


def test_a_request_goes_to_the_other_side_and_not_where_the_sender_points_it() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    victim = world.agent("203.0.113.99")
    request = talk.from_caller("INFO", cseq=20)
    request.set_uri("sip:victim@203.0.113.99")
    alice.send(request)
    assert not victim.inbox
    bob.got("INFO")


def test_neither_side_can_read_the_others_address_from_the_cookie() -> None:
    world = EdgeWorld()
    _, _, talk = running(world)
    text = talk.answer.record_routes[0].uri.params["cw"] or ""
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for host in ("192.0.2.1", "192.0.2.2"):
        assert ip_address(host).packed not in data
    assert len(text) < 90


# Routing by the book (RFC 3261 16.4, 16.6).


def test_a_strict_router_before_us_is_understood() -> None:
    """It puts our route into the Request-URI and the target last into Route."""
    world = EdgeWorld()
    alice, bob, talk = running(world)
    request = talk.from_caller("INFO", cseq=20)
    ours = request.routes[0].uri
    target = request.uri_text
    request.remove("route")
    request.set_uri(str(ours))
    request.add("Route", f"<{target}>")
    alice.send(request)
    passed = bob.got("INFO")
    assert passed.uri_text == target
    assert "route" not in passed


def test_proxies_behind_the_callee_keep_their_routes() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    front = world.carrier("198.51.100.1")
    invite = world.invite(alice, "+49301234")
    incoming = front.got("INVITE")
    incoming.push_record_route("sip:198.51.100.1;lr")
    front.respond(incoming, 200)
    talk = AnsweredCall(world, alice, front, invite, alice.response(200), incoming)
    assert len(talk.routes) == 2
    alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
    ack = front.got("ACK")
    assert [str(route.uri) for route in ack.routes] == ["sip:198.51.100.1;lr"]


def test_a_strict_router_behind_us_gets_the_request_as_it_wants_it() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    front = world.carrier("198.51.100.1")
    invite = world.invite(alice, "+49301234")
    incoming = front.got("INVITE")
    incoming.push_record_route("sip:198.51.100.1")
    front.respond(incoming, 200)
    talk = AnsweredCall(world, alice, front, invite, alice.response(200), incoming)
    alice.send(talk.from_caller("BYE", cseq=9))
    bye = front.got("BYE")
    assert bye.uri_text == "sip:198.51.100.1"
    assert [str(route.uri) for route in bye.routes] == ["sip:carrier@198.51.100.1:5060"]


def test_hops_are_counted() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    request = talk.from_caller("INFO", cseq=20)
    request.set("Max-Forwards", "0")
    alice.send(request)
    alice.response(483)
    assert not bob.inbox


def test_an_answer_to_nothing_is_dropped() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    alice.send(talk.from_caller("INFO", cseq=20))
    passed = bob.got("INFO")
    answer = build.response(passed, 200)
    answer.pop_via()
    bob.send(answer)
    assert not alice.inbox
    assert world.edge.stats.strays == 1


def test_routes_before_and_behind_us_are_taken_apart_as_a_strict_router_needs_it() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    ours, target = str(talk.routes[0]), talk.from_caller("INFO", cseq=1).uri_text
    # A strict router before us: our route is the Request-URI, the target is the last Route.
    request = talk.from_caller("INFO", cseq=20)
    request.remove("route")
    request.set_uri(ours.strip("<>"))
    for route in ("<sip:one.example;lr>", "<sip:two.example;lr>", f"<{target}>"):
        request.add("Route", route)
    alice.send(request)
    passed = bob.got("INFO")
    assert passed.uri_text == target
    assert passed.get_all("route") == ["<sip:one.example;lr>", "<sip:two.example;lr>"]
    # One behind us gets its own route as the Request-URI, and the target last.
    request = talk.from_caller("INFO", cseq=21)
    for route in ("<sip:strict.example>", "<sip:two.example;lr>"):
        request.add("Route", route)
    alice.send(request)
    passed = bob.got("INFO")
    assert passed.uri_text == "sip:strict.example"
    assert passed.get_all("route") == ["<sip:two.example;lr>", f"<{target}>"]


@pytest.mark.parametrize(("hops", "wrong", "source"), [(0, 0, "192.0.2.1"), (1, 1, "203.0.113.66")])
def test_an_ack_that_has_no_hop_left_or_comes_from_elsewhere_goes_nowhere(hops: int, wrong: int, source: str) -> None:
    world = EdgeWorld()
    _, bob, talk = running(world)
    world.edge.counters.take_report(world.mono_s)
    dropped = world.edge.stats.acks_dropped  # the one to the challenge
    ack = talk.from_caller("ACK", cseq=talk.invite.cseq.number)
    ack.set("Max-Forwards", str(hops))
    world.receive(ack.to_bytes(), source, 5060)
    assert not bob.inbox
    assert world.edge.stats.acks_dropped == dropped + 1
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert (report.host, report.wrong) == (source, wrong)


def test_a_call_of_another_edge_ends_once() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    world.restart()
    world.events.clear()
    byes = [talk.from_caller("BYE", cseq=cseq) for cseq in (9, 10)]
    for bye in byes:
        alice.send(bye)
    for passed in (bob.got("BYE"), bob.got("BYE")):
        bob.respond(passed, 200)
    assert [ended.reason for ended in world.ended] == ["caller-bye"]
    alice.inbox.clear()
    alice.send(talk.from_caller("INFO", cseq=11))
    alice.response(481)
    assert not bob.inbox


def test_a_100_of_the_other_side_stays_here() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    alice.send(talk.from_caller("INFO", cseq=20))
    passed = bob.got("INFO")
    bob.respond(passed, 100)
    assert not alice.inbox
    bob.respond(passed, 183)
    alice.response(183)


@pytest.mark.parametrize("header", ["From", "To"])
def test_a_tag_is_found_wherever_it_stands(header: str) -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    bye = talk.from_caller("BYE", cseq=9)
    name, _, tag = (bye.get(header.lower()) or "").rpartition(";")
    bye.set(header, f"{name};x=1;{tag};y=2")
    alice.send(bye)
    bob.respond(bob.got("BYE"), 200)
    alice.response(200)
    assert [ended.reason for ended in world.ended] == ["caller-bye"]


def test_our_route_may_be_written_with_our_domain() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    bye = talk.from_caller("BYE", cseq=9)
    bye.set("Route", (bye.get("route") or "").replace("192.0.2.10:5060", REALM))
    alice.send(bye)
    bob.respond(bob.got("BYE"), 200)
    alice.response(200)
    assert len(world.ended) == 1


def test_a_fault_inside_a_call_is_answered_and_counted() -> None:
    world = EdgeWorld()
    alice, bob, talk = running(world)
    world.edge.counters.take_report(world.mono_s)
    alice.send(talk.from_caller("BYE", cseq=9, headers=[("Proxy-Require", "foo")]))
    assert alice.response(420).get("unsupported") == "foo"
    assert not bob.inbox
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert report.wrong == 1
