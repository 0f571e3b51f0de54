"""What the edge knows of each address: who was there lately, and what is served beyond a limit (DESIGN D16)."""

import pytest
from edge_world import REALM, policy

from callwarden.edge_proxy.core.counters import (
    KNOWN_RATE,
    STRANGERS_RATE,
    VERIFIED_S,
    EdgeCounters,
    EdgeExcess,
    EndpointSum,
)
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.kernel.clock import MonoS

HOST, OTHER = "192.0.2.1", "192.0.2.2"
NOW = MonoS(100.0)


def counters(spec: dict[str, object] | None = None) -> EdgeCounters:
    return EdgeCounters(RuleBook(policy(spec), (REALM,)).default)


def test_an_account_is_known_at_its_address_for_an_hour() -> None:
    counted = counters()
    assert not counted.is_known(HOST, NOW)
    counted.succeeded(HOST, 5060, "alice", NOW)
    assert counted.is_known(HOST, MonoS(NOW + VERIFIED_S - 1))
    assert not counted.is_known(HOST, MonoS(NOW + VERIFIED_S))
    assert not counted.is_known(OTHER, NOW)


@pytest.mark.parametrize(("act", "verified"), [("failed", True), ("succeeded", True), ("challenged", False)])
def test_an_address_is_verified_by_a_nonce_that_came_back_for_an_hour(act: str, verified: bool) -> None:
    counted = counters()
    getattr(counted, act)(HOST, 5060, "alice", NOW)
    assert [report.verified for report in counted.take_report(NOW)] == [verified]
    counted.message(HOST, MonoS(NOW + VERIFIED_S))
    assert [report.verified for report in counted.take_report(MonoS(NOW + VERIFIED_S))] == [False]
    assert counted.is_known(HOST, NOW) is (act == "succeeded")


def test_a_report_sums_up_each_port_and_name_and_starts_again() -> None:
    counted = counters()
    for _ in range(2):
        counted.message(HOST, NOW)
        counted.challenged(HOST, 5060, "", NOW)
    counted.failed(HOST, 5060, "alice", NOW)
    counted.succeeded(HOST, 5061, "alice", NOW)
    counted.wrong(HOST, NOW)
    (report,) = counted.take_report(NOW)
    assert (report.messages, report.wrong) == (2, 1)
    assert {(port, name): sums for _, port, name, sums in report.endpoints} == {
        (5060, ""): EndpointSum(challenges=2),
        (5060, "alice"): EndpointSum(failures=1),
        (5061, "alice"): EndpointSum(successes=1),
    }
    counted.message(HOST, NOW)
    (again,) = counted.take_report(NOW)
    assert (again.messages, again.wrong, again.endpoints) == (1, 0, ())


def served(counted: EdgeCounters, excess: EdgeExcess, mono_s: float, *, known: bool = False, host: str = HOST) -> int:
    """How many of 10,000 messages over a limit are served at that moment."""
    return sum(counted.may_exceed(host, excess, MonoS(mono_s), known=known) for _ in range(10_000))


def test_strangers_share_a_budget_for_nonsense_and_have_none_for_floods() -> None:
    counted = counters()
    assert served(counted, EdgeExcess.RATE, 100.0) == 0
    assert served(counted, EdgeExcess.WRONG, 100.0) == STRANGERS_RATE.burst
    assert served(counted, EdgeExcess.WRONG, 100.0, host=OTHER) == 0
    assert served(counted, EdgeExcess.WRONG, 101.0, host=OTHER) == STRANGERS_RATE.per_second


@pytest.mark.parametrize("excess", EdgeExcess)
def test_each_known_address_has_a_budget_of_its_own(excess: EdgeExcess) -> None:
    counted = counters()
    counted.succeeded(HOST, 5060, "alice", NOW)
    assert served(counted, excess, 100.0) == KNOWN_RATE.burst
    assert served(counted, excess, 101.0) == KNOWN_RATE.per_second
    assert served(counted, excess, 101.0, known=True, host=OTHER) == KNOWN_RATE.burst
    if excess is EdgeExcess.RATE:
        assert served(counted, excess, 100.0 + VERIFIED_S) == 0


def test_an_address_that_is_forgotten_starts_from_zero() -> None:
    counted = counters({"messages": {"perAddress": {"max": 2, "period": "60s"}}})
    for _ in range(4):
        counted.message(HOST, NOW)
    counted.forget(HOST)
    assert counted.take_report(NOW) == []
    assert counted.message(HOST, NOW) is None
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("act", "excess"), [("message", EdgeExcess.RATE), ("failed", EdgeExcess.RATE), ("wrong", EdgeExcess.WRONG)]
)
def test_which_limit_an_address_is_over_is_told(act: str, excess: EdgeExcess) -> None:
    limits = {"max": 1, "period": "60s"}
    counted = counters(
        {
            "messages": {
                "perAddress": {"max": 3 if act == "message" else 100, "period": "60s"},
                "wrongPerAddress": limits,
            },
            "authFailures": {"period": "60s", "perAddress": {"max": 1}},
        }
    )
    for _ in range(2):
        assert counted.message(HOST, NOW) is None
        if act == "failed":
            counted.failed(HOST, 5060, "alice", NOW)
        elif act == "wrong":
            counted.wrong(HOST, NOW)
    if act == "message":
        assert counted.message(HOST, NOW) is None
    assert counted.message(HOST, NOW) is excess
