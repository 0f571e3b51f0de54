"""Cases: nobody alone can have a number listed for a whole realm, whatever he does to it; what he does lists him."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest
from test_admission_watch import DYNAMIC_POLICY, REALM, SMART_POLICY, TARGET

from callwarden.call_admission.lists.core.call_stats import (
    GENERATION_S,
    SPREAD_MAX,
    CallCount,
    CallStats,
    NumberStats,
    StatsKey,
)
from callwarden.call_admission.model.lists import DYNAMIC, SMART, Listed, Listings, Lists, ListSide
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.limits.networks import source_of
from callwarden.policy.model import DynamicList, SmartList

pytestmark = pytest.mark.cases

MALLORY = UUID(int=666)
HANG_UP = NumberStats(calls=1, answered=1, short=1, talk_ms=100)
GOOD = NumberStats(calls=1, answered=1, talk_ms=90_000)
FAILURE = NumberStats(calls=1, failures=1)
ATTACK = NumberStats(attacks=1)


@dataclass
class Target:
    """A number, and what became of it."""

    dynamic: DynamicList = DYNAMIC_POLICY
    smart: SmartList = SMART_POLICY

    def __post_init__(self) -> None:
        self.stats = CallStats()
        self.listed: dict[tuple[str, ...], Listed] = {}

    def calls(
        self, count: int, tally: NumberStats, account: UUID, source: str = "192.0.2.1", at_s: float = 0.0
    ) -> None:
        key = StatsKey(account, TARGET, False, source)
        for _ in range(count):
            found = self.stats.add(
                CallCount(REALM, key, tally.copy()), self.dynamic, self.smart, MonoS(at_s), UnixS(0.0)
            )
            self.listed.update({one.key: one for one in found})

    @property
    def owners(self) -> set[tuple[str, UUID | None]]:
        """By list, for whose calls: None is the realm."""
        return {(one.list, one.account_id) for one in self.listed.values()}


def others(count: int, first: int = 1) -> Sequence[UUID]:
    return [UUID(int=number) for number in range(first, first + count)]


@pytest.mark.parametrize("tally", [HANG_UP, NumberStats(calls=1)])
def test_hang_ups_of_one_account_list_the_number_for_that_account_only(tally: NumberStats) -> None:
    target = Target(smart=SmartList())
    target.calls(217, tally, MALLORY)
    assert target.owners == {(SMART, MALLORY)}
    # Good calls of others don't lend him their accounts and addresses.
    for number, account in enumerate(others(5)):
        target.calls(2, GOOD, account, f"198.51.100.{number}")
    target.calls(1_000, tally, MALLORY)
    assert target.owners == {(SMART, MALLORY)}


@pytest.mark.parametrize("tally", [FAILURE, ATTACK])
def test_failures_and_refused_attacks_of_one_account_do_likewise(tally: NumberStats) -> None:
    target = Target()
    target.calls(1_000, tally, MALLORY)
    for number, account in enumerate(others(2)):
        target.calls(1, FAILURE, account, f"198.51.100.{number}")
    target.calls(1_000, tally, MALLORY, "203.0.113.1")
    assert {owner for owner in target.owners if owner[0] == DYNAMIC} == {(DYNAMIC, MALLORY)}


@pytest.mark.parametrize(
    ("accounts", "addresses", "owner_is_realm"),
    [(3, 2, True), (3, 1, False), (2, 2, False), (2, 9, False), (5, 5, True)],
)
@pytest.mark.parametrize(("tally", "name"), [(HANG_UP, SMART), (FAILURE, DYNAMIC)])
def test_a_realm_needs_several_accounts_and_several_addresses(
    accounts: int, addresses: int, owner_is_realm: bool, tally: NumberStats, name: str
) -> None:
    target = Target()
    for _ in range(60):
        for number, account in enumerate(others(accounts)):
            target.calls(1, tally, account, f"198.51.100.{number % addresses}")
    assert ((name, None) in target.owners) == owner_is_realm


def test_many_accounts_behind_one_address_and_a_stranger_are_not_enough() -> None:
    target = Target()
    for account in others(10):
        target.calls(50, HANG_UP, account)
    target.calls(1, HANG_UP, MALLORY, "203.0.113.1")
    assert (SMART, None) not in target.owners


def test_a_policy_may_ask_for_fewer_or_more() -> None:
    alone = Target(smart=SMART_POLICY.model_copy(update={"min_accounts": 1, "min_addresses": 1}))
    alone.calls(20, HANG_UP, MALLORY)
    assert alone.owners == {(SMART, None)}
    strict = Target(smart=SMART_POLICY.model_copy(update={"min_accounts": 5}))
    for number, account in enumerate(others(4)):
        strict.calls(50, HANG_UP, account, f"198.51.100.{number}")
    assert (SMART, None) not in strict.owners
    strict.calls(50, HANG_UP, MALLORY, "203.0.113.1")
    assert (SMART, None) in strict.owners


def test_nobody_gets_a_second_share_when_the_hour_turns() -> None:
    target = Target()
    target.calls(20, HANG_UP, MALLORY)
    target.calls(20, HANG_UP, MALLORY, at_s=GENERATION_S)
    for number, account in enumerate(others(2)):
        target.calls(3, HANG_UP, account, f"198.51.100.{number}", at_s=GENERATION_S)
    assert (SMART, None) not in target.owners  # 7 of his, not 40, and 6 of the others


def test_who_is_told_apart_is_bounded() -> None:
    target = Target()
    for number, account in enumerate(others(1_000)):
        target.calls(1, GOOD, account, f"198.51.{number // 250}.{number % 250}")
    ((_, entry),) = target.stats.targets
    assert entry.of is not None
    assert entry.of.sizes() == (SPREAD_MAX, SPREAD_MAX)


def test_a_number_that_is_listed_for_one_account_is_refused_to_that_account_only() -> None:
    listed = Listed(SMART, REALM, ListSide.CALLED, TARGET, MALLORY, "statistics", "of 217 calls", 0.0, 100.0)
    listings = Listings()
    assert listings.put(listed)
    lists = Lists(listings=listings)

    def refused(account: UUID, at_s: float = 50.0) -> bool:
        return lists.verdict((), (DYNAMIC, SMART), REALM, account, TARGET, "", UnixS(at_s)) is not None

    assert refused(MALLORY)
    assert not refused(MALLORY, 100.0)
    assert not refused(UUID(int=1))
    assert listings.all(UnixS(50.0)) == [listed]
    listings.remove(listed)
    assert not refused(MALLORY)
    assert len(listings) == 0


@pytest.mark.parametrize(
    ("host", "network"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("", ""), ("a:b", "a:b")],
)
def test_one_holder_of_a_network_is_one_address(host: str, network: str) -> None:
    assert source_of(host) == network
