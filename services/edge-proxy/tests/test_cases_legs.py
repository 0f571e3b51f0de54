"""Cases: a leg that changes its address goes on after a digest, and an edge that doesn't watch a call knows it by its
record (DESIGN D6, D14)."""

import pytest
from edge_world import SDP, Agent, AnsweredCall, EdgeWorld

from callwarden.edge_proxy.core.active_call import ACK_TIMEOUT_S, RECORD_AFTER_S
from callwarden.edge_proxy.core.edge import Edge
from callwarden.edge_proxy.core.effects import CallNews, CarrierRoute, NewsKind, Unanswered
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request

pytestmark = pytest.mark.cases

NUMBER = "+49301234567"
WATCHED = pytest.mark.parametrize("elsewhere", [False, True], ids=["the edge that watches", "another edge"])


def talk_of_phones(world: EdgeWorld) -> tuple[Agent, Agent, AnsweredCall]:
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    world.advance(RECORD_AFTER_S + 0.1)
    assert world.records
    return alice, bob, talk


def go_elsewhere(world: EdgeWorld) -> Edge:
    """Requests reach another edge from now on; returns the one that watches the calls."""
    owner = world.edge
    world.restart()
    return owner


def come_back(world: EdgeWorld, owner: Edge) -> CallNews:
    """To the edge that watches, which hears what the other one told; returns the first of that."""
    first, *more = world.events_of(CallNews)
    assert {news.kind for news in more} <= {NewsKind.REFRESHED}
    world.edge = owner
    for news in (first, *more):
        owner.heard(news, world.mono_s, world.unix_s)
    world.settle()
    return first


def moved_to(world: EdgeWorld, agent: Agent, host: str) -> Agent:
    return world.agent(host, 40_000, agent.user)


def request_of(talk: AnsweredCall, of_caller: bool, method: str, cseq: int) -> Request:
    return talk.from_caller(method, cseq=cseq) if of_caller else talk.from_callee(method, cseq=cseq)


@WATCHED
@pytest.mark.parametrize("of_caller", [True, False])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO", "BYE"])
def test_a_phone_that_changes_its_address_goes_on_after_a_digest(method: str, of_caller: bool, elsewhere: bool) -> None:
    world = EdgeWorld()
    alice, bob, talk = talk_of_phones(world)
    phone, other = (alice, bob) if of_caller else (bob, alice)
    if elsewhere:
        go_elsewhere(world)
    mobile = moved_to(world, phone, "203.0.113.9")
    first = request_of(talk, of_caller, method, 20)
    mobile.send(first)
    challenged = mobile.response(407)
    assert not other.inbox
    mobile.send(mobile.with_credentials(first, challenged))
    if method == "INVITE":
        mobile.response(100)
    passed = other.got(method)
    assert "proxy-authorization" not in passed
    other.respond(passed, 200)
    mobile.response(200)
    if method == "BYE":
        assert len(world.ended) == 1
        return
    assert not world.ended
    # The leg is there, for requests of the other side as well, and no longer where it was.
    other.send(request_of(talk, not of_caller, "INFO", 30))
    mobile.got("INFO")
    assert not phone.inbox
    mobile.send(request_of(talk, of_caller, "INFO", 40))
    other.got("INFO")
    if of_caller:
        mobile.send(talk.from_caller("ACK", cseq=20))
        other.got("ACK")


def test_the_edge_that_watches_hears_where_a_leg_is_now() -> None:
    world = EdgeWorld()
    alice, bob, talk = talk_of_phones(world)
    owner = go_elsewhere(world)
    mobile = moved_to(world, alice, "203.0.113.9")
    first = talk.from_caller("UPDATE", cseq=20)
    mobile.send(first)
    mobile.send(mobile.with_credentials(first, mobile.response(407)))
    bob.respond(bob.got("UPDATE"), 200)
    mobile.response(200)
    news = come_back(world, owner)
    assert (news.kind, news.from_caller, news.address) == (NewsKind.MOVED, True, SocketAddress("203.0.113.9", 40_000))
    record = world.records[news.hold_id]  # for the next one
    assert (record.caller.address, record.caller.hosts) == (news.address, ("203.0.113.9",))
    owner.cut_all("cut-test", world.mono_s, world.unix_s)
    world.settle()
    mobile.got("BYE")
    bob.got("BYE")
    assert not alice.inbox


@WATCHED
@pytest.mark.parametrize("of_caller", [True, False])
def test_credentials_of_another_account_or_wrong_ones_move_nothing(of_caller: bool, elsewhere: bool) -> None:
    world = EdgeWorld()
    alice, bob, talk = talk_of_phones(world)
    world.user("eve", "203.0.113.66")
    if elsewhere:
        go_elsewhere(world)
    phone, other = (alice, bob) if of_caller else (bob, alice)
    stranger = moved_to(world, phone, "203.0.113.66")
    first = request_of(talk, of_caller, "UPDATE", 20)
    stranger.send(first)
    challenged = stranger.response(407)
    stranger.send(stranger.with_credentials(first, challenged, password="guess"))
    challenged = stranger.response(407)
    again = request_of(talk, of_caller, "UPDATE", 22)
    stranger.send(stranger.with_credentials(again, challenged, username="eve"))
    stranger.response(403)
    assert not other.inbox
    other.send(request_of(talk, not of_caller, "INFO", 30))
    phone.got("INFO")
    assert not world.ended


def test_a_carriers_leg_does_not_move_by_a_digest() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    elsewhere = moved_to(world, carrier, "203.0.113.9")
    elsewhere.send(talk.from_callee("INFO"))
    elsewhere.response(403)
    assert not alice.inbox


def test_another_carrier_does_not_speak_for_this_one() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    other = world.agent("198.51.100.2", user="other")
    world.routes = (*world.routes, CarrierRoute("other", SocketAddress("198.51.100.2", 5060), "", 0))
    talk = world.talk(alice, carrier, NUMBER)
    other.send(talk.from_callee("BYE"))
    other.response(403)
    assert not world.ended


# What the record tells an edge without memory.


@pytest.mark.parametrize("method", ["BYE", "INFO", "INVITE"])
def test_the_callees_own_tag_is_checked_by_an_edge_that_does_not_watch_the_call(method: str) -> None:
    world = EdgeWorld()
    alice, bob, talk = talk_of_phones(world)
    go_elsewhere(world)
    forged = talk.from_callee(method, cseq=5)
    forged.set("From", (forged.get("from") or "").replace("tag=callee", "tag=bogus"))
    bob.send(forged)
    bob.response(481)
    assert not alice.inbox
    assert not world.ended


@pytest.mark.parametrize("status", [481, 408, 500, None])
@pytest.mark.parametrize("from_caller", [True, False])
def test_a_doubtful_end_at_an_edge_that_does_not_watch_the_call_ends_it_at_both_sides(
    status: int | None, from_caller: bool
) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    world.advance(10)
    owner = go_elsewhere(world)
    side, other = (alice, carrier) if from_caller else (carrier, alice)
    side.send(request_of(talk, from_caller, "BYE", 20))
    bye = other.got("BYE")
    if status is None:
        world.advance(33)
    else:
        other.respond(bye, status)
    for agent in (alice, carrier):
        assert any(
            isinstance(message, Request) and message.method == "BYE" and message.via.host == "192.0.2.10"
            for message in agent.inbox
        )
    (ended,) = world.ended
    assert ended.reason == ("cut-bye-unanswered" if status is None else "cut-bye-refused")
    assert ended.ended_at_s - ended.answered_at_s == pytest.approx(10 if status else 42, abs=1)
    alice.inbox.clear()
    carrier.inbox.clear()
    # Who watched it hears of it, and neither asks nor tells anybody again.
    assert come_back(world, owner).kind is NewsKind.ENDED
    assert len(owner.calls) == 0
    assert not alice.inbox
    assert not carrier.inbox


def test_a_clean_end_at_an_edge_that_does_not_watch_the_call_frees_the_one_that_does() -> None:
    world = EdgeWorld()
    alice, bob, talk = talk_of_phones(world)
    owner = go_elsewhere(world)
    alice.send(talk.from_caller("BYE", cseq=20))
    bob.respond(bob.got("BYE"), 200)
    alice.response(200)
    assert not world.records
    assert come_back(world, owner).kind is NewsKind.ENDED
    assert len(owner.calls) == 0
    assert {ended.reason for ended in world.ended} == {"caller-bye"}


@WATCHED
def test_a_bye_from_before_the_answer_that_is_accepted_after_it_is_told_to_both_sides(elsewhere: bool) -> None:
    """Who accepts it and answers the INVITE all the same would talk on, at nobody's charge."""
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    carrier.respond(incoming, 180, tag="gw")
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(180), incoming)
    owner = world.edge
    if elsewhere:
        go_elsewhere(world)
    other = world.edge
    alice.send(talk.from_caller("BYE", cseq=20))
    bye = carrier.got("BYE")
    world.advance(0.1)
    world.edge = owner
    carrier.respond(incoming, 200, tag="gw", body=SDP)
    alice.response(200)
    world.advance(20)
    alice.inbox.clear()
    carrier.inbox.clear()
    world.edge = other
    carrier.respond(bye, 200)
    alice.response(200)
    if elsewhere:
        assert come_back(world, owner).kind is NewsKind.ENDED
    alice.got("BYE")
    carrier.got("BYE")
    ended = next(ended for ended in world.ended if ended.answered_at_s)
    assert ended.reason == "caller-bye"
    assert ended.ended_at_s - ended.answered_at_s == pytest.approx(20)


def test_a_bye_that_was_accepted_while_it_rang_leaves_the_end_to_the_answer() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    carrier.respond(incoming, 180, tag="gw")
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(180), incoming)
    alice.send(talk.from_caller("BYE", cseq=20))
    carrier.respond(carrier.got("BYE"), 200)
    alice.response(200)
    carrier.respond(incoming, 200, tag="gw", body=SDP)
    alice.response(200)
    world.advance(5)
    assert not world.ended
    alice.send(talk.from_caller("BYE", cseq=21))
    carrier.respond(carrier.got("BYE"), 200)
    (ended,) = world.ended
    assert ended.ended_at_s - ended.answered_at_s == pytest.approx(5)


@pytest.mark.parametrize("told", [True, False])
def test_an_ack_that_came_by_another_edge_keeps_the_call(told: bool) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    carrier.respond(incoming, 200, body=SDP)
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    owner = go_elsewhere(world)
    alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
    carrier.got("ACK")
    if told:
        assert come_back(world, owner).kind is NewsKind.ACKNOWLEDGED
    world.edge = owner
    world.advance(ACK_TIMEOUT_S + 1)
    assert [ended.reason for ended in world.ended] == ([] if told else ["cut-no-ack"])


@pytest.mark.parametrize("has_ack", [True, False])
def test_an_ack_that_may_have_come_by_another_edge_while_none_could_be_heard_is_missed_only_if_the_callee_misses_it(
    has_ack: bool,
) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    carrier.respond(incoming, 200, body=SDP)
    owner = world.edge
    if has_ack:
        talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
        go_elsewhere(world)
        alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
        carrier.got("ACK")
        world.edge = owner
    owner.apart(world.mono_s)
    for _ in range(8):
        world.advance(4)
        if not has_ack:
            carrier.respond(incoming, 200, body=SDP)  # RFC 3261 13.3.1.4
    world.advance(1)
    assert [ended.reason for ended in world.ended] == ([] if has_ack else ["cut-no-ack"])
    world.advance(30)
    assert len(world.ended) == (not has_ack)


@pytest.mark.parametrize("case", ["told", "apart", "not refreshed"])
def test_a_session_that_was_refreshed_by_another_edge_lives(case: str) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    expires = [("Contact", carrier.contact), ("Session-Expires", "90;refresher=uac")]
    carrier.send(build.response(incoming, 200, to_tag="callee", headers=expires))
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
    carrier.got("ACK")
    world.advance(45)
    owner = world.edge
    if case != "not refreshed":
        go_elsewhere(world)
        alice.send(talk.from_caller("UPDATE", cseq=20))
        more = [("Session-Expires", "120;refresher=uac")]
        carrier.send(build.response(carrier.got("UPDATE"), 200, headers=more))
        if case == "told":
            news = come_back(world, owner)
            assert (news.kind, news.session_s) == (NewsKind.REFRESHED, 120)
        world.edge = owner
    if case == "apart":
        owner.apart(world.mono_s)
    world.advance(46)
    assert [ended.reason for ended in world.ended] == (["cut-session-expired"] if case == "not refreshed" else [])
    world.advance(75)
    assert len(world.ended) == (case != "apart"), "refreshed once, and not again"


def test_who_speaks_from_elsewhere_while_records_cannot_be_read_is_asked_to_try_again_and_not_blamed() -> None:
    world = EdgeWorld()
    alice, bob, talk = talk_of_phones(world)
    go_elsewhere(world)
    mobile = moved_to(world, alice, "203.0.113.9")
    world.hold_answers = True
    for agent, method, status in ((mobile, "INVITE", 503), (alice, "INFO", 200)):
        agent.send(talk.from_caller(method, cseq=20))
        world.release(Unanswered())
        if status == 200:
            bob.respond(bob.got(method), 200)
        assert agent.next().status == status  # type: ignore[union-attr]
    assert not bob.inbox
    assert world.edge.stats.cookies_forged == 0
    assert not world.ended


def test_a_request_of_an_unknown_call_is_asked_about_once_however_often_it_comes() -> None:
    world = EdgeWorld()
    alice, bob, talk = talk_of_phones(world)
    go_elsewhere(world)
    world.hold_answers = True
    info = talk.from_caller("INFO", cseq=20)
    for _ in range(5):
        alice.send(info)
    world.hold_answers = False
    assert len(world.held) == 1
    world.release()
    bob.got("INFO")
    assert not bob.inbox
