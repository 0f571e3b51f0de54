"""A ban on one endpoint leaves its neighbours behind the same address alone."""

import pytest

from callwarden.edge_proxy.core.rules import Rules
from callwarden.edge_proxy.core.source_filter import Drop, SourceFilter
from callwarden.policy.bundle import default_set

NOW_S = 1_000.0


def source_filter() -> SourceFilter:
    return SourceFilter(Rules.compile(default_set().for_realm(""), 1))


@pytest.mark.setting("maxfailedauthenabledipport")
@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_only_the_banned_endpoint_is_dropped_until_its_end(host: str) -> None:
    some = source_filter()
    some.ban(host, 5060, NOW_S + 60)
    assert some.judge_address(host, 5060, NOW_S) is Drop.BANNED
    assert some.judge_address(host, 5061, NOW_S) is None
    assert some.judge_address(host, 5060, NOW_S + 60) is None
    assert some.bans == 1
    some.unban(host, 5060)
    assert some.judge_address(host, 5060, NOW_S) is None
    assert some.bans == 0


def test_an_addresss_ban_and_those_of_its_endpoints_end_apart() -> None:
    some = source_filter()
    some.ban("192.0.2.7", 5060, 0)
    some.ban("192.0.2.7", None, NOW_S + 60)
    assert some.judge_address("192.0.2.7", 5061, NOW_S) is Drop.BANNED
    some.unban("192.0.2.7", None)
    assert some.judge_address("192.0.2.7", 5061, NOW_S) is None
    assert some.judge_address("192.0.2.7", 5060, NOW_S) is Drop.BANNED
    some.unban("192.0.2.7", 5061)
    assert some.judge_address("192.0.2.7", 5060, NOW_S) is Drop.BANNED
