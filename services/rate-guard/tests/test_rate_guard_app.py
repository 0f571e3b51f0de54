"""Counting what edges report and banning, over bans in memory, which keep the same contract as those in NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from callwarden.kernel.errors import Exhausted, Invalid, Unavailable
from callwarden.limits.rendezvous import ShardMap
from callwarden.policy.bundle import Document, PolicySet
from callwarden.rate_guard import app as app_module
from callwarden.rate_guard.adapters.bans_memory import MemoryBanStore
from callwarden.rate_guard.adapters.snapshots_memory import MemorySnapshotStore
from callwarden.rate_guard.app import RateGuard
from callwarden.rate_guard.core.bans import Ban
from callwarden.rate_guard.core.counters import AddressCounters, AddressReport, EndpointReport
from callwarden.rate_guard.core.limits import AddressLimits, compile_limits
from callwarden.testing.clock import FakeClock

HERE, THERE = "192.0.2.7", "192.0.2.8"


def limits(allow: tuple[str, ...] = ()) -> AddressLimits:
    spec: dict[str, Any] = {
        "messages": {"perAddress": {"max": 10, "period": "3m"}},
        "authFailures": {"perKnownEndpoint": {"max": 2}},
        "firewall": {"allow": list(allow)},
    }
    return compile_limits(PolicySet.build(1, [Document("test", spec)]).for_realm(""))


class RecordedBanEvents:
    """ports.BanEventPublisher that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def banned(self, ban: Ban) -> None:
        self.said.append(("banned", ban.target))

    def unbanned(self, ban: Ban) -> None:
        self.said.append(("unbanned", ban.target))


class RateGuardUnderTest:
    """A member with all around it."""

    def __init__(
        self,
        me: str = "me",
        kept: MemoryBanStore | None = None,
        snapshots: MemorySnapshotStore | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.kept = kept or MemoryBanStore(self.clock)
        self.told = RecordedBanEvents()
        self.snapshots = snapshots or MemorySnapshotStore()
        self.guard = RateGuard(me, self.kept, self.told, self.snapshots, self.clock, AddressCounters(limits()))
        self.sequence = 0

    def count(self, *reports: AddressReport) -> list[str]:
        self.sequence += 1
        return self.guard.count("edge", self.sequence, list(reports))

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.guard.write_bans())
        await turn()
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    @property
    def banned(self) -> list[str]:
        return [ban.target for ban in self.guard.bans]


async def turn() -> None:
    """Lets everything that is ready run; nothing here waits for anything else."""
    for _ in range(20):
        await asyncio.sleep(0)


def messages(count: int, address: str = HERE) -> AddressReport:
    return AddressReport(address, count, 0, [])


def endpoint_of(address: str, failures: int, successes: int = 0) -> AddressReport:
    return AddressReport(address, 0, 0, [EndpointReport(5060, "alice", failures, successes)])


async def test_who_passes_a_limit_is_banned_kept_and_told() -> None:
    rig = RateGuardUnderTest()
    async with rig.writing():
        rig.count(messages(10), messages(10, THERE))
        await turn()
        assert rig.kept.kept == {}
        rig.count(messages(1))
        await turn()
    ban = rig.kept.kept[HERE]
    assert (ban.reason, ban.evidence, ban.by) == ("rate", "11 messages in 3m, limit 10", "counter")
    assert (ban.since_s, ban.until_s) == (rig.clock.unix_s(), rig.clock.unix_s() + 21_600)
    assert rig.told.said == [("banned", HERE)]
    assert rig.banned == [HERE]
    assert rig.guard.stats.banned == {"rate": 1}


async def test_a_report_that_is_delivered_twice_counts_once() -> None:
    rig = RateGuardUnderTest()
    for _ in range(5):
        rig.guard.count("edge", 1, [messages(6)])
    rig.guard.count("other edge", 1, [messages(4)])
    assert rig.banned == []
    rig.guard.count("edge", 2, [messages(1)])
    assert rig.banned == [HERE]
    assert rig.guard.stats.duplicates == 4


async def test_what_another_member_owns_is_handed_back_and_not_counted() -> None:
    rig = RateGuardUnderTest()
    rig.guard.set_members(["me", "other"])
    mine, others = list[str](), list[str]()
    for number in range(100):
        address = f"192.0.2.{number}"
        (mine if ShardMap(["me", "other"]).owner_of(address) == "me" else others).append(address)
    assert mine
    assert others
    reports = [messages(11, address) for address in (*mine, *others)]
    assert rig.count(*reports) == others
    assert rig.banned == mine
    # Also when it comes twice: the first answer may have been lost.
    rig.sequence -= 1
    assert rig.count(*reports) == others


async def test_a_member_alone_or_not_yet_one_counts_what_it_gets() -> None:
    for members in ([], ["me"], ["other"]):
        rig = RateGuardUnderTest()
        rig.guard.set_members(members)
        assert rig.count(messages(11)) == []
        assert rig.banned == [HERE]


async def test_an_address_that_is_banned_is_not_counted_again() -> None:
    rig = RateGuardUnderTest()
    async with rig.writing():
        for _ in range(10):
            rig.count(messages(11))
            await turn()
    assert rig.told.said == [("banned", HERE)]


async def test_the_failures_of_a_banned_endpoint_do_not_count_for_its_neighbours() -> None:
    rig = RateGuardUnderTest()
    rig.count(endpoint_of(HERE, 0, 1))
    rig.count(endpoint_of(HERE, 3))
    assert rig.banned == [f"{HERE}:5060"]
    before = rig.guard.counters.addresses.peek(HERE)
    assert before is not None
    assert before.failures is not None
    counted = before.failures.total
    for _ in range(1_000):
        rig.count(endpoint_of(HERE, 3))
    assert before.failures.total == counted
    assert rig.banned == [f"{HERE}:5060"]


@pytest.mark.setting("reenabledosblocked")
async def test_a_ban_expires_and_all_counters_are_reset() -> None:
    rig = RateGuardUnderTest()
    rig.count(messages(11))
    rig.clock.advance(21_599)
    assert rig.banned == [HERE]
    rig.clock.advance(1)
    assert rig.banned == []
    rig.guard.expire_now()  # Nobody told that it is gone.
    rig.count(messages(10))
    assert rig.banned == []
    rig.count(messages(1))
    assert rig.banned == [HERE]


@pytest.mark.setting("firewall-static")
async def test_an_allowed_address_is_never_banned_by_a_counter_and_one_that_becomes_allowed_is_let_in() -> None:
    rig = RateGuardUnderTest()
    async with rig.writing():
        rig.count(messages(11), messages(11, THERE))
        await turn()
        assert rig.banned == [HERE, THERE]
        rig.guard.apply(limits(allow=(HERE,)))
        await turn()
        assert rig.banned == [THERE]
        assert set(rig.kept.kept) == {THERE}
        for _ in range(100):
            rig.count(messages(100))
        await turn()
    assert rig.banned == [THERE]
    assert rig.guard.stats.spared == 100


@pytest.mark.setting("delbanned")
async def test_one_ban_is_lifted_with_those_on_its_endpoints_and_its_counters() -> None:
    rig = RateGuardUnderTest()
    async with rig.writing():
        rig.count(endpoint_of(HERE, 0, 1))
        rig.count(endpoint_of(HERE, 3))
        await rig.guard.add_ban(HERE, "", 0)
        rig.count(messages(11, THERE))
        rig.count(messages(10, "192.0.2.9"))
        await turn()
        assert rig.banned == [f"{HERE}:5060", HERE, THERE]
        assert await rig.guard.remove_bans(HERE) == [HERE, f"{HERE}:5060"]
        assert rig.banned == [THERE]
        assert set(rig.kept.kept) == {THERE}
        assert rig.told.said[-2:] == [("unbanned", HERE), ("unbanned", f"{HERE}:5060")]
        rig.count(messages(10))
        assert rig.banned == [THERE]
        assert await rig.guard.remove_bans(HERE) == []


@pytest.mark.setting("delbanned")
async def test_all_bans_are_lifted() -> None:
    rig = RateGuardUnderTest()
    async with rig.writing():
        for number in range(200):
            rig.count(messages(11, f"192.0.2.{number}"))
        await turn()
        await rig.guard.add_ban("203.0.113.1", "", 0)
        assert len(await rig.guard.remove_all_bans()) == 201
    assert rig.banned == []
    assert rig.kept.kept == {}


async def test_a_ban_of_another_member_is_listed_honoured_and_lifted_here() -> None:
    one = RateGuardUnderTest("one")
    other = RateGuardUnderTest("other", one.kept)
    async with one.writing():
        one.count(messages(11))
        await turn()
    ban = one.kept.kept[HERE]
    # Its watch has not told it yet.
    assert await other.guard.remove_bans(HERE) == [HERE]
    await one.kept.put(ban)
    other.guard.ban_stored(ban)
    assert other.banned == [HERE]
    assert other.count(messages(100)) == []
    assert other.told.said == [("unbanned", HERE)]
    # And its owner resets the counters of the address.
    one.guard.ban_removed(HERE)
    one.count(messages(9))
    one.guard.unban_reported(HERE)
    one.count(messages(10))
    assert one.banned == []


async def test_a_ban_by_hand_goes_before_a_counters_and_stays() -> None:
    rig = RateGuardUnderTest()
    async with rig.writing():
        rig.count(messages(11))
        ban = await rig.guard.add_ban(HERE, "by court order", 0)
        await turn()
    assert rig.kept.kept[HERE] == ban
    assert (ban.by, ban.until_s) == ("operator", 0.0)
    rig.clock.advance(1e8)
    assert rig.banned == [HERE]


async def test_what_cannot_be_banned_by_hand_is_said_why() -> None:
    rig = RateGuardUnderTest()
    rig.guard.apply(limits(allow=("192.0.2.0/28",)))
    for target in (HERE, "nonsense", "192.0.2.0/24"):
        with pytest.raises(Invalid):
            await rig.guard.add_ban(target, "", 0)
    with pytest.raises(Invalid):
        await rig.guard.remove_bans("nonsense")
    assert rig.banned == []


async def test_bans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "BANS_MAX", 3)
    rig = RateGuardUnderTest()
    for number in range(5):
        rig.count(messages(11, f"192.0.2.{number}"))
    assert len(rig.banned) == 3
    assert rig.guard.stats.spared == 2
    with pytest.raises(Exhausted):
        await rig.guard.add_ban("203.0.113.1", "", 0)
    await rig.guard.add_ban("192.0.2.0", "in place of another", 0)


async def test_while_the_store_is_away_bans_hold_here_and_are_written_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_module, "RETRY_S", 0.0)
    rig = RateGuardUnderTest()
    rig.kept.down = True
    async with rig.writing():
        rig.count(messages(11))
        await turn()
        assert rig.banned == [HERE]
        assert rig.told.said == []
        with pytest.raises(Unavailable):
            await rig.guard.add_ban(THERE, "", 0)
        assert rig.banned == [HERE]
        rig.kept.down = False
        await turn()
    assert set(rig.kept.kept) == {HERE}
    assert rig.told.said == [("banned", HERE)]


async def test_a_ban_that_was_not_written_yet_does_not_outlive_its_lifting() -> None:
    rig = RateGuardUnderTest()
    rig.count(messages(11))
    assert await rig.guard.remove_bans(HERE) == [HERE]
    async with rig.writing():
        await turn()
    assert rig.kept.kept == {}
    assert rig.banned == []


@asynccontextmanager
async def loading(rig: RateGuardUnderTest) -> AsyncIterator[None]:
    task = asyncio.ensure_future(rig.guard.load_snapshots())
    await turn()
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_member_that_starts_anew_goes_on_counting_where_it_was_saved() -> None:
    first = RateGuardUnderTest()
    first.guard.set_members(["me"])
    async with loading(first):
        first.count(messages(9), endpoint_of(THERE, 0, 1))
        first.count(endpoint_of(THERE, 2))
        assert await first.guard.save_now() == 2
        assert await first.guard.save_now() == 0  # Nothing has happened since.
        first.count(messages(1))  # Lost with the process.
    first.clock.advance(60)
    second = RateGuardUnderTest(snapshots=first.snapshots, clock=first.clock)
    async with loading(second):
        second.guard.set_members(["me"])
        await turn()
        second.count(messages(1))
        assert second.banned == []
        second.count(messages(1), endpoint_of(THERE, 1))
        assert second.banned == [HERE, f"{THERE}:5060"]


async def test_shards_that_move_are_forgotten_here_and_loaded_there_and_nothing_counts_twice() -> None:
    one = RateGuardUnderTest("one")
    two = RateGuardUnderTest("two", snapshots=one.snapshots, clock=one.clock)
    addresses = [f"192.0.2.{number}" for number in range(60)]
    async with loading(one), loading(two):
        one.guard.set_members(["one"])
        await turn()
        one.count(*(messages(6, address) for address in addresses))
        await one.guard.save_now()
        for members in (["one", "two"], ["one"], ["one", "two"], ["two"], ["one", "two"]):
            for each in (one, two):
                each.guard.set_members(members)
            await turn()
        moved = set(two.count(*(messages(4, address) for address in addresses)))
        kept = set(one.count(*(messages(4, address) for address in addresses)))
        assert moved | kept == set(addresses)
        assert not moved & kept
        assert one.banned == two.banned == []  # 6 + 4, and not 6 + 6 + 4.
        two.count(*(messages(1, address) for address in addresses))
        one.count(*(messages(1, address) for address in addresses))
        assert sorted(one.banned + two.banned) == sorted(addresses)


async def test_a_late_heartbeat_costs_no_counts() -> None:
    rig = RateGuardUnderTest()
    async with loading(rig):
        rig.guard.set_members(["me", "other"])
        mine = next(a for a in (f"192.0.2.{n}" for n in range(99)) if ShardMap(["me", "other"]).owner_of(a) == "me")
        rig.count(messages(9, mine))
        await rig.guard.save_now()
        rig.guard.set_members(["other"])
        rig.guard.set_members(["me", "other"])
        await turn()
        rig.count(messages(1, mine))
        assert rig.banned == []
        rig.count(messages(1, mine))
        assert rig.banned == [mine]


async def test_what_is_not_loaded_yet_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "RETRY_S", 0.0)
    first = RateGuardUnderTest()
    first.guard.set_members(["me"])
    async with loading(first):
        first.count(messages(9))
        await first.guard.save_now()
    second = RateGuardUnderTest(snapshots=first.snapshots, clock=first.clock)
    second.snapshots.down = True
    async with loading(second):
        second.guard.set_members(["me"])
        await turn()
        second.count(messages(2, HERE))
        assert await second.guard.save_now() == 0
        second.snapshots.down = False
        await turn()
        assert await second.guard.save_now() == 1
        second.count(messages(1))
        assert second.banned == [HERE]


async def test_a_lifted_ban_stays_lifted_over_a_restart() -> None:
    first = RateGuardUnderTest()
    first.guard.set_members(["me"])
    async with first.writing(), loading(first):
        first.count(messages(9))
        await first.guard.save_now()
        first.guard.unban_reported(HERE)
        assert await first.guard.save_now() == 1
    second = RateGuardUnderTest(snapshots=first.snapshots, clock=first.clock)
    async with loading(second):
        second.guard.set_members(["me"])
        await turn()
        second.count(messages(10))
        assert second.banned == []


async def test_saving_goes_on_until_the_process_stops_and_then_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, stopping = RateGuardUnderTest(), asyncio.Event()
    rig.guard.set_members(["me"])
    async with loading(rig):
        task = asyncio.ensure_future(rig.guard.save_snapshots(stopping))
        await turn()
        rig.count(messages(9))
        stopping.set()
        await task
    assert len(rig.snapshots.kept) == 1
    rig.snapshots.down = True
    rig.count(messages(1))
    await rig.guard.save_snapshots(stopping)  # Stopping already: returns, whatever fails.


async def test_reports_are_counted_while_many_bans_are_held_against_a_new_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_module, "CHECKS_AT_ONCE", 1)
    rig = RateGuardUnderTest()
    async with rig.writing():
        for number in range(20):
            rig.count(messages(11, f"192.0.2.{number}"))
        await turn()
        rig.guard.apply(limits(allow=("192.0.2.0/24",)))
        reports = 0
        while rig.banned:
            rig.count(messages(1, f"198.51.100.{reports}"))
            reports += 1
            await asyncio.sleep(0)
        assert reports >= 20


@pytest.mark.cases
@pytest.mark.parametrize("reported", ["by address", "by /64"])
async def test_of_ipv6_a_64_is_counted_banned_and_lifted(reported: str) -> None:
    rig = RateGuardUnderTest()
    async with rig.writing():
        for number in range(1, 12):  # each address once: 10 are allowed
            address = f"2001:db8:0:7::{number:x}"
            rig.count(messages(1, address if reported == "by address" else "2001:db8:0:7::/64"))
            rig.count(messages(1, f"2001:db8:{number:x}::1"))  # each another customer
        await turn()
        assert rig.banned == ["2001:db8:0:7::/64"]
        assert list(rig.kept.kept) == rig.banned
        assert await rig.guard.remove_bans("2001:db8:0:7::99") == ["2001:db8:0:7::/64"]
        assert rig.banned == []
        ban = await rig.guard.add_ban("2001:db8:0:7::99", "", 60)
        assert ban.target == "2001:db8:0:7::/64"


@pytest.mark.cases
async def test_of_a_known_64_the_phone_that_fails_is_banned_and_not_its_neighbours() -> None:
    rig = RateGuardUnderTest()
    place = "2001:db8:0:7::/64"

    def report(host: str, failures: int, successes: int) -> AddressReport:
        return AddressReport(place, 0, 0, [EndpointReport(5060, "alice", failures, successes, f"2001:db8:0:7::{host}")])

    rig.count(report("1", 0, 1), report("2", 0, 1))
    for _ in range(5):
        rig.count(report("2", 1, 0))
    assert rig.banned == ["[2001:db8:0:7::2]:5060"]
