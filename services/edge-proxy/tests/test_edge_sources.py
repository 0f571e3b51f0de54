"""Which addresses may be trunks': what auth said is kept for a while, and strangers cause few questions."""

import pytest
from edge_world import REALM, EdgeWorld

from callwarden.edge_proxy.core import sources as module
from callwarden.edge_proxy.core.sources import QUESTIONS, STRANGERS_MAX, UNKNOWN_S, WAITING_MAX, Sources, SourceStep
from callwarden.kernel.clock import MonoS
from callwarden.sip.address import SocketAddress

NOW = MonoS(100.0)
HOST = "203.0.113.5"
WORLD = EdgeWorld()
REQUEST = WORLD.agent(HOST, user="x").request("INVITE", f"sip:1@{REALM}")
WAITING = (REQUEST, SocketAddress(HOST, 5060))


def test_a_stranger_is_asked_about_again_after_some_seconds_and_a_trunk_each_time() -> None:
    sources = Sources()
    assert sources.may_ask(HOST, NOW)
    assert sources.begin(HOST, WAITING, NOW) is SourceStep.ASK
    assert sources.end(HOST, "", NOW) == []
    assert not sources.may_ask(HOST, MonoS(NOW + UNKNOWN_S - 0.1))
    assert sources.may_ask(HOST, MonoS(NOW + UNKNOWN_S))
    assert not sources.is_trunk(HOST)
    sources.end(HOST, "trunk", NOW)
    assert sources.is_trunk(HOST)
    assert sources.may_ask(HOST, NOW)
    assert [sources.begin(HOST, WAITING, NOW) for _ in range(2)] == [SourceStep.ASK] * 2
    sources.end(HOST, None, NOW)  # auth is away: what it said before holds
    assert sources.is_trunk(HOST)
    sources.end(HOST, "", NOW)
    assert not sources.is_trunk(HOST)
    assert not sources.may_ask(HOST, NOW)
    sources.forget()
    assert sources.may_ask(HOST, NOW)


def test_those_who_wait_for_one_answer_are_handed_back_once_and_bounded() -> None:
    sources = Sources()
    assert sources.begin(HOST, WAITING, NOW) is SourceStep.ASK
    for _ in range(WAITING_MAX):
        assert sources.begin(HOST, WAITING, NOW) is SourceStep.WAIT
    assert sources.begin(HOST, WAITING, NOW) is SourceStep.REFUSE
    assert sources.end(HOST, None, NOW) == [WAITING] * WAITING_MAX
    assert sources.end(HOST, None, NOW) == []
    assert sources.begin(HOST, WAITING, NOW) is SourceStep.ASK
    assert sources.begin(HOST, WAITING, NOW) is SourceStep.WAIT  # there is room again


def test_the_addresses_of_one_ipv6_network_cause_few_questions_and_a_trunk_among_them_calls() -> None:
    sources = Sources()
    hosts = [f"2001:db8:1:2::{number}" for number in range(1, 2 * STRANGERS_MAX)]
    asked = 0
    for host in hosts:
        if sources.may_ask(host, NOW):
            asked += 1
            sources.learn(host, "", NOW)
    assert asked == STRANGERS_MAX
    assert sources.may_ask("2001:db8:1:3::1", NOW)
    assert sources.may_ask(hosts[-1], MonoS(NOW + UNKNOWN_S))
    sources.learn("2001:db8:1:2::77", "trunk", NOW)
    assert sources.may_ask("2001:db8:1:2::77", NOW)
    sources.forget()
    assert sources.may_ask(hosts[-1], NOW)


def test_questions_about_strangers_have_a_budget() -> None:
    sources = Sources()
    burst = int(QUESTIONS.burst)
    steps = [sources.begin(f"h{number}", WAITING, NOW) for number in range(burst + 5)]
    assert steps == [SourceStep.ASK] * burst + [SourceStep.REFUSE] * 5
    assert sources.begin("later", WAITING, MonoS(NOW + 1)) is SourceStep.ASK


@pytest.mark.parametrize("is_trunk", [True, False])
def test_of_too_many_addresses_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch, is_trunk: bool) -> None:
    monkeypatch.setattr(module, "KNOWN_MAX", 3)
    sources = Sources()
    hosts = ["h1", "h2", "h3", "h4", "h5"]

    def known() -> list[bool]:
        return [sources.is_trunk(host) or not sources.may_ask(host, NOW) for host in hosts]

    for host in ("h1", "h2", "h3", "h3"):
        sources.end(host, "trunk" if is_trunk else "", NOW)
    assert known() == [True, True, True, False, False]
    for host in ("h4", "h5"):
        sources.end(host, "trunk" if is_trunk else "", NOW)
    assert known() == [False, False, True, True, True]
