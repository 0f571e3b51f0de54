"""Small parts of the core at their borders: full tables, alarms, names of the edge, statuses."""

from dataclasses import dataclass

import pytest

from callwarden.edge_proxy.core import challenge, source_filter, sources
from callwarden.edge_proxy.core.challenge import Uses
from callwarden.edge_proxy.core.context import ProxyIdentity, unavailable
from callwarden.edge_proxy.core.rules import Rules
from callwarden.edge_proxy.core.source_filter import Drop, SourceFilter
from callwarden.edge_proxy.core.sources import Sources
from callwarden.edge_proxy.core.statuses import ANSWERS, answer_for
from callwarden.edge_proxy.core.wheel import Wheel
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import default_set
from callwarden.sip.address import SocketAddress
from callwarden.sip.uri import parse_uri

NOW_S = UnixS(1_767_614_400.0)


@dataclass(eq=False)
class Sleeper:
    tick: int = 0


def test_a_cancelled_alarm_is_none_and_setting_it_anew_leaves_others_alone() -> None:
    wheel: Wheel[Sleeper] = Wheel()
    one, other = Sleeper(), Sleeper()
    wheel.set(one, 5.0)
    wheel.set(other, 5.0)
    wheel.cancel(one)
    assert (one.tick, len(wheel)) == (0, 1)
    wheel.cancel(one)
    assert wheel.take_due(MonoS(9.0)) == [other]


def test_uses_are_remembered_until_the_table_is_full_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenge, "USES_MAX", 3)
    uses = Uses()
    assert uses.is_first("first", "1", NOW_S, 1e12)
    assert [uses.is_first(f"nonce-{number}", "1", NOW_S, 1e12) for number in range(2)] == [True] * 2
    for number in range(2, 5):
        assert not uses.is_first("first", "1", NOW_S, 1e12), "of the generation before, at the latest"
        assert uses.is_first(f"nonce-{number}", "1", NOW_S, 1e12)
    uses.is_first("nonce-5", "1", NOW_S, 1e12)
    assert uses.is_first("first", "1", NOW_S, 1e12)


def test_who_has_no_answer_is_out_of_service_and_only_overloaded_where_that_is_said() -> None:
    plain, full = unavailable("rating"), unavailable("rating", overloaded=True)
    assert (plain.reason, plain.rule, plain.text) == (Reason.UNAVAILABLE, "rating", "rating can't be asked")
    assert full.reason is Reason.OVERLOAD


@pytest.mark.parametrize(
    ("uri", "is_us"),
    [
        ("sip:alice@example.org", True),
        ("sip:alice@Example.ORG:5070", True),
        ("sip:192.0.2.1", True),
        ("sip:192.0.2.1:5060", True),
        ("sip:192.0.2.1:5070", False),
        ("sip:alice@elsewhere.example", False),
    ],
)
def test_the_edge_is_named_by_its_domains_and_its_address(uri: str, is_us: bool) -> None:
    proxy = ProxyIdentity(SocketAddress("192.0.2.1", 5060), ("example.org", "example.net"))
    assert proxy.is_us(parse_uri(uri)) is is_us


def test_a_ban_of_a_port_finds_room_where_its_address_has_one_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_filter, "BANS_MAX", 1)
    bans = SourceFilter(Rules.compile(default_set().for_realm(""), 1))
    bans.ban("198.51.100.1", 5060, 0)
    bans.ban("198.51.100.1", 5061, 0)
    bans.ban("198.51.100.2", 5060, 0)
    assert bans.bans == 2
    assert bans.judge_address("198.51.100.1", 5061, MonoS(1.0)) is Drop.BANNED
    assert bans.judge_address("198.51.100.2", 5060, MonoS(1.0)) is None


def test_a_trunk_that_is_known_takes_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "KNOWN_MAX", 2)
    known = Sources()
    for host, trunk in (("a", "one"), ("b", "two"), ("a", "three")):
        known.learn(host, trunk, MonoS(1.0))
    assert known.is_trunk("a")
    assert known.is_trunk("b")
    known.learn("c", "four", MonoS(1.0))
    assert [known.is_trunk(host) for host in "abc"] == [False, True, True], "the oldest goes"


@pytest.mark.parametrize(
    "reason",
    [
        Reason.ACCOUNT_DISABLED, Reason.ACCOUNT_UNKNOWN, Reason.CALLER_ID, Reason.CALLER_LISTED, Reason.BANNED,
        Reason.SCANNER, Reason.CREDIT, Reason.DAILY_SPEND, Reason.MONTHLY_SPEND, Reason.TALK_TIME, Reason.DURATION,
        Reason.ADDRESS_QUOTA, Reason.RESELLER_QUOTA, Reason.VELOCITY, Reason.BASELINE, Reason.DESTINATION,
        Reason.PREMIUM, Reason.SATELLITE, Reason.NEW_DESTINATION, Reason.ONLY_LOCAL, Reason.NOT_BILLED, Reason.NO_RATE,
        Reason.FOREIGN_DOMAIN, Reason.TRANSFER,
    ],
)  # fmt: skip
def test_what_a_caller_may_not_do_is_forbidden(reason: Reason) -> None:
    assert (ANSWERS[reason].status, ANSWERS[reason].retry_after_s) == (403, 0)
    assert answer_for(reason, is_trunk=False, quota_status=403).status == 403
