"""What the edge counts of calls, and what it says of those that failed or were cut."""

from collections.abc import Callable
from uuid import UUID

import pytest
from edge_world import REALM, SDP, START_S, EdgeWorld, parse_request

from callwarden.edge_proxy.core.context import Intake
from callwarden.edge_proxy.core.cookie import for_caller, issue
from callwarden.edge_proxy.core.effects import CallRefused, Rejected, StoreRecord
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip import build
from callwarden.sip.address import SocketAddress

OPTIONS = build.request(
    "OPTIONS", f"sip:{REALM}", via="SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-1", from_="<sip:a@x>;tag=1",
    to=f"<sip:{REALM}>", call_id="ping", cseq=1,
).to_bytes()  # fmt: skip


def test_an_answered_call_that_is_cut_counts_as_both() -> None:
    world = EdgeWorld({"session": {"callTimeout": "90s"}})
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.talk(alice, bob, "bob")
    world.advance(91)
    stats = world.edge.stats
    assert (stats.calls_started, stats.calls_answered, stats.calls_cut, stats.calls_failed) == (1, 1, 1, 0)
    (ended,) = world.ended
    assert (ended.reason, ended.sip_status) == ("cut-duration", 0)


def test_a_call_that_the_callee_declines_counts_as_failed_with_its_status() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    bob.respond(bob.got("INVITE"), 486)
    alice.response(486)
    stats = world.edge.stats
    assert (stats.calls_started, stats.calls_answered, stats.calls_cut, stats.calls_failed) == (1, 0, 0, 1)
    (ended,) = world.ended
    assert (ended.sip_status, ended.answered_at_s) == (486, 0.0)


def test_a_call_that_is_refused_is_a_failed_one_and_its_refusal_names_the_method() -> None:
    world = EdgeWorld()
    alice, _ = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.admit = lambda question: CallRefused(Refuse(Reason.LINES, "lines"))
    world.invite(alice, "bob")
    alice.response(486)
    assert world.edge.stats.calls_failed == 1


def test_a_draining_edge_counts_what_it_turns_away() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.edge.take_calls(Intake.REFUSED)
    alice.send(alice.request("INVITE", "sip:bob@callwarden.local", body=SDP))
    refused = alice.response(503)
    assert refused.get("retry-after")
    assert world.edge.stats.unavailable == 1


def test_an_ended_call_is_found_by_none_of_its_cookies() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    call = world.edge.calls.find_dialog(talk.invite.call_id)
    assert call is not None
    cookies = {call.cookie, call.caller_cookie}
    assert all(world.edge.calls.find_cookie(text) is call for text in cookies)
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.respond(bob.got("BYE"), 200)
    alice.response(200)
    assert [world.edge.calls.find_cookie(text) for text in cookies] == [None] * len(cookies)
    assert (call.invite_bytes, call.answer_bytes) == (b"", b"")  # 2 KB each


def test_a_wrong_password_in_an_invite_is_counted_for_rate_guard_and_challenged_again() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:+49301234567@{REALM}", body=SDP)
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407), password="a guess"))
    alice.response(100)
    assert alice.response(407).get_all("proxy-authenticate")
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert sum(sums.failures for *_, sums in report.endpoints) == 1
    (decided,) = world.decided
    assert (decided.method, decided.refuse.reason, decided.refuse.rule) == ("INVITE", Reason.CREDENTIALS, "credentials")


def test_an_account_that_is_disabled_is_refused_and_not_challenged_again() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:+49301234567@{REALM}", body=SDP)
    alice.send(first)
    world.hold_answers = True
    alice.send(alice.with_credentials(first, alice.response(407)))
    alice.response(100)
    world.release(Rejected(Reason.ACCOUNT_DISABLED))
    assert not alice.response(403).get_all("proxy-authenticate")
    assert [decided.refuse.reason for decided in world.decided] == [Reason.ACCOUNT_DISABLED]


SCANNERS: dict[str, object] = {"sip": {"scanners": ["sipvicious"], "blockedUserAgents": ["oldphone"]}}


def message(world: EdgeWorld, method: str, *headers: tuple[str, str], uri: str = f"sip:{REALM}", to: str = "") -> None:
    stranger = world.agent("203.0.113.66", user="x")
    stranger.send(stranger.request(method, uri, to=to, headers=headers))


def in_dialog(world: EdgeWorld, cookie: str, tag: str = "callee") -> None:
    """A BYE whose Route has this cookie, of nobody that this edge knows."""
    stranger = world.agent("203.0.113.66", user="x")
    to, routes = f"<sip:y@{REALM}>;tag={tag}", (f"<sip:192.0.2.10:5060;lr;cw={cookie}>",)
    stranger.send(stranger.request("BYE", "sip:y@192.0.2.2", to=to, call_id="call-9", routes=routes))


def issued(world: EdgeWorld, expires_s: float) -> str:
    text = issue(
        world.keys,
        UUID(int=7, version=4),
        expires_s,
        "call-9",
        "caller",
        caller=None,
        callee=SocketAddress("192.0.2.2", 1),
    )
    return for_caller(world.keys, text, "call-9", "caller", "callee")


HAPPENINGS: dict[str, tuple[Callable[[EdgeWorld], None], dict[str, int]]] = {
    "a keepalive": (lambda world: world.receive(b"\r\n\r\n", "192.0.2.1", 5060), {"keepalives": 1}),
    "no SIP": (lambda world: world.receive(b"hello", "192.0.2.1", 5060), {"malformed": 1}),
    "an answer to nothing": (
        lambda world: world.receive(build.response(parse_request(OPTIONS), 200).to_bytes(), "192.0.2.1", 5060),
        {"strays": 1},
    ),
    "a scanner": (lambda world: message(world, "OPTIONS", ("User-Agent", "sipvicious")), {"scanners": 1, "refused": 1}),
    "a blocked agent": (lambda world: message(world, "OPTIONS", ("User-Agent", "OldPhone 1")), {"agents_dropped": 1}),
    "a denied address": (lambda world: world.receive(OPTIONS, "198.18.0.1", 5060), {"denied_dropped": 1}),
    "an INVITE without credentials": (lambda world: message(world, "INVITE"), {"challenges": 1}),
    "a REGISTER without credentials": (lambda world: message(world, "REGISTER"), {"challenges": 1}),
    "an ACK to nothing": (lambda world: message(world, "ACK", to="<sip:y@z>;tag=1"), {"acks_dropped": 1}),
    "a forged cookie": (lambda world: in_dialog(world, "x" * 40), {"cookies_forged": 1}),
    "another callee's cookie": (lambda world: in_dialog(world, issued(world, START_S + 9), "t"), {"cookies_forged": 1}),
    "an old cookie": (lambda world: in_dialog(world, issued(world, START_S - 9)), {"cookies_expired": 1}),
}


@pytest.mark.parametrize("what", HAPPENINGS)
def test_what_comes_is_counted_once_and_as_nothing_else(what: str) -> None:
    world = EdgeWorld({**SCANNERS, "firewall": {"deny": ["198.18.0.0/15"]}})
    happen, counted = HAPPENINGS[what]
    happen(world)
    assert {name: count for name, count in world.edge.stats.items().items() if count} == {"datagrams": 1, **counted}


def test_a_banned_address_and_one_over_its_limit_are_counted_apart() -> None:
    world = EdgeWorld({"messages": {"perAddress": {"max": 2, "period": "60s"}}})
    world.edge.source_filter.ban("192.0.2.9", None, world.mono_s + 60)
    world.receive(OPTIONS, "192.0.2.9", 5060)
    assert (world.edge.stats.bans_dropped, world.edge.stats.rate_dropped) == (1, 0)
    for _ in range(5):
        world.receive(OPTIONS, "192.0.2.8", 5060)
    assert (world.edge.stats.bans_dropped, world.edge.stats.rate_dropped, world.edge.stats.datagrams) == (1, 3, 6)


def test_registrations_and_calls_that_are_taken_over_are_counted() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    assert world.edge.stats.registered == 2
    world.talk(alice, bob, "bob")
    world.advance(5)
    (stored,) = world.events_of(StoreRecord)
    world.restart()
    for _ in range(2):
        world.edge.adopt(stored.record, world.mono_s, world.unix_s)
    assert world.edge.stats.calls_adopted == 1
