"""A ban on one endpoint leaves its neighbours behind the same address alone."""

import pytest
from edge_world import REALM, Agent, EdgeWorld

from callwarden.edge_proxy.core import source_filter as module
from callwarden.edge_proxy.core.effects import (
    ScannerSeen,
)
from callwarden.edge_proxy.core.rules import Rules
from callwarden.edge_proxy.core.source_filter import Drop, SourceFilter
from callwarden.kernel.clock import MonoS
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import default_set
from callwarden.sip import build

NOW_S = 1_000.0


def source_filter() -> SourceFilter:
    return SourceFilter(Rules.compile(default_set().for_realm(""), 1))


@pytest.mark.setting("maxfailedauthenabledipport")
@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_only_the_banned_endpoint_is_dropped_until_its_end(host: str) -> None:
    some = source_filter()
    some.ban(host, 5060, NOW_S + 60)
    assert some.judge_address(host, 5060, MonoS(NOW_S)) is Drop.BANNED
    assert some.judge_address(host, 5061, MonoS(NOW_S)) is None
    assert some.judge_address(host, 5060, MonoS(NOW_S + 60)) is None
    assert some.bans == 1
    some.unban(host, 5060)
    assert some.judge_address(host, 5060, MonoS(NOW_S)) is None
    assert some.bans == 0


def test_an_addresss_ban_and_those_of_its_endpoints_end_apart() -> None:
    some = source_filter()
    some.ban("192.0.2.7", 5060, 0)
    some.ban("192.0.2.7", None, NOW_S + 60)
    assert some.judge_address("192.0.2.7", 5061, MonoS(NOW_S)) is Drop.BANNED
    some.unban("192.0.2.7", None)
    assert some.judge_address("192.0.2.7", 5061, MonoS(NOW_S)) is None
    assert some.judge_address("192.0.2.7", 5060, MonoS(NOW_S)) is Drop.BANNED
    some.unban("192.0.2.7", 5061)
    assert some.judge_address("192.0.2.7", 5060, MonoS(NOW_S)) is Drop.BANNED


NUMBER = "+49301234567"


def silent(agent: Agent) -> bool:
    return not agent.inbox


@pytest.mark.setting("firewall-static")
def test_a_denied_address_gets_no_answer_and_an_allowed_one_in_it_does() -> None:
    world = EdgeWorld({"firewall": {"deny": ["192.0.2.0/24"], "allow": ["192.0.2.7"]}})
    denied, allowed = world.agent("192.0.2.1", user="a"), world.agent("192.0.2.7", user="b")
    for agent in (denied, allowed):
        agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
    assert silent(denied)
    allowed.response(200)
    assert world.edge.stats.denied_dropped == 1


@pytest.mark.setting("firewall-static")
def test_an_allowed_address_is_neither_banned_nor_limited() -> None:
    world = EdgeWorld({"firewall": {"allow": ["192.0.2.7"]}, "messages": {"perAddress": {"max": 3, "period": "60s"}}})
    agent = world.agent("192.0.2.7", user="b")
    world.edge.source_filter.ban("192.0.2.7", None, 0)
    for _ in range(10):
        agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
        agent.response(200)


def test_the_answers_of_a_carrier_do_not_count_against_it_but_answers_that_nobody_asked_for_do() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    # Only now, so that alice's own messages don't matter.
    world.apply({"messages": {"perAddress": {"max": 3, "period": "60s"}}, "firewall": {"allow": ["192.0.2.1"]}})
    for number in range(5):
        talk = world.talk(alice, carrier, NUMBER, call_id=f"call-{number}")
        alice.send(talk.from_caller("BYE", cseq=9))
        carrier.respond(carrier.got("BYE"), 200)
        alice.response(200)
        carrier.inbox.clear()
    assert (len(world.ended), world.edge.stats.rate_dropped) == (5, 0)

    stray = build.response(carrier.request("OPTIONS", f"sip:{REALM}"), 200)
    for _ in range(5):
        carrier.send(stray)
    assert world.edge.stats.strays == 5
    assert world.edge.stats.rate_dropped == 2
    (report,) = [report for report in world.edge.counters.take_report(world.mono_s) if report.host == "198.51.100.1"]
    assert report.messages == 5


def test_a_ban_holds_until_its_end_and_can_be_lifted() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")

    def answered() -> bool:
        agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
        return not silent(agent) and bool(agent.inbox.pop())

    assert answered()
    world.edge.source_filter.ban("192.0.2.1", None, world.mono_s + 60)
    assert not answered()
    world.advance(61)
    assert answered()
    world.edge.source_filter.ban("192.0.2.1", None, 0)  # for ever
    world.advance(1_000_000)
    assert not answered()
    world.edge.source_filter.unban("192.0.2.1", None)
    assert answered()


@pytest.mark.setting("maxsubsmsgcount")
def test_an_address_over_the_edges_own_limit_is_dropped_and_others_are_not() -> None:
    world = EdgeWorld({"messages": {"perAddress": {"max": 5, "period": "60s"}}})
    loud, calm = world.agent("192.0.2.1", user="a"), world.agent("192.0.2.2", user="b")
    for _ in range(20):
        loud.send(loud.request("OPTIONS", f"sip:{REALM}"))
    calm.send(calm.request("OPTIONS", f"sip:{REALM}"))
    assert len(loud.inbox) == 5
    calm.response(200)
    assert world.edge.stats.rate_dropped == 15


@pytest.mark.setting("scanner-agents")
@pytest.mark.parametrize("agent_name", ["friendly-scanner", "SIPVicious 0.3", "x sipcli/v1.8"])
@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE"])
def test_a_scanner_gets_no_answer_and_is_banned_with_its_first_guess(agent_name: str, method: str) -> None:
    world = EdgeWorld()
    scanner = world.agent("203.0.113.66", user="100")
    # In its name anybody could have sent this one: it bans nobody.
    scanner.send(scanner.request(method, f"sip:100@{REALM}", headers=[("User-Agent", agent_name)]))
    assert silent(scanner)
    assert not world.events_of(ScannerSeen)
    # It disguises itself to get a nonce, which only the one who is there can send back.
    register = scanner.request("REGISTER", f"sip:{REALM}", call_id="guess")
    scanner.send(register)
    guess = scanner.with_credentials(register, scanner.response(401))
    world.events.clear()
    guess.add("User-Agent", agent_name)
    scanner.send(guess)
    scanner.send(scanner.request("OPTIONS", f"sip:{REALM}"))
    assert silent(scanner)
    assert [seen.source for seen in world.events_of(ScannerSeen)] == ["203.0.113.66"]
    assert [decided.refuse.reason for decided in world.decided] == [Reason.SCANNER]


@pytest.mark.setting("scanner-agents")
def test_a_forged_scanner_does_not_lock_out_a_phone_that_is_registered_there() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    alice.send(alice.request("OPTIONS", f"sip:{REALM}", headers=[("User-Agent", "sipvicious")]))
    assert silent(alice)
    assert not world.events_of(ScannerSeen)
    alice.send(alice.request("OPTIONS", f"sip:{REALM}"))
    alice.response(200)


@pytest.mark.setting("blockua")
def test_a_blocked_agent_gets_no_answer_and_is_counted_and_not_banned() -> None:
    world = EdgeWorld({"sip": {"blockedUserAgents": ["BadPhone"]}})
    agent = world.agent("192.0.2.1", user="a")
    agent.send(agent.request("OPTIONS", f"sip:{REALM}", headers=[("User-Agent", "the badphone 3")]))
    assert silent(agent)
    agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
    agent.response(200)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert (report.messages, report.wrong) == (2, 1)


def test_bans_are_bounded_and_those_there_are_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BANS_MAX", 1)
    world = EdgeWorld()
    found = world.edge.source_filter
    for port in (5060, 5061):
        found.ban("192.0.2.1", port, NOW_S + 60)
        found.ban("192.0.2.2", port, NOW_S + 60)
    found.ban("192.0.2.3", None, NOW_S + 10)
    found.ban("192.0.2.3", None, NOW_S + 60)
    found.ban("192.0.2.4", None, NOW_S + 60)
    later = MonoS(NOW_S + 30)
    hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
    assert [found.judge_address(host, 5061, later) for host in hosts] == [Drop.BANNED, None, Drop.BANNED, None]
    assert found.bans == 3
