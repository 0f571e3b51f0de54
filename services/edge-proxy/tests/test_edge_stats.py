"""What the edge counts of calls, and what it says of those that failed or were cut."""

from edge_world import REALM, SDP, EdgeWorld

from callwarden.edge_proxy.core.effects import CallRefused, Rejected
from callwarden.kernel.verdict import Reason, Refuse


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
    world.edge.drain()
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
    assert sum(sums.failures for _, _, sums in report.endpoints) == 1
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
