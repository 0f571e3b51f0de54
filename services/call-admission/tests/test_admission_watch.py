"""Numbers that keep failing or are out of line are listed, those that our own limits refused are not."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.call_admission.lists.adapters.lists_memory import MemoryListed, MemoryLists
from callwarden.call_admission.lists.app.call_watch import CallWatch
from callwarden.call_admission.lists.app.number_lists import NumberLists
from callwarden.call_admission.lists.core.call_stats import (
    GENERATION_S,
    LEARNT_CALLS,
    PENDING_MAX,
    CallCount,
    CallStats,
    NumberStats,
    Pending,
    StatsKey,
    is_failure,
    judge,
)
from callwarden.call_admission.model.lists import DYNAMIC, SMART, Listed, ListHead, ListKind, ListSide
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.errors import Unavailable
from callwarden.kernel.verdict import Reason
from callwarden.policy.model import DynamicList, PolicySpec, SmartList
from callwarden.testing.clock import FakeClock

ALICE = UUID(int=1)
OTHERS = [UUID(int=number) for number in range(2, 12)]
REALM = "example.org"
TARGET, CALLER = "37128000000", "4930123456"
DYNAMIC_POLICY = DynamicList(failures=5, period=600, listed=3_600)
SMART_POLICY = SmartList(min_calls=20)


class Policies:
    """Implements ports.PolicySource."""

    def __init__(self, **changes: object) -> None:
        policy = replace(AdmissionPolicy.of(PolicySpec(), 1), dynamic_list=DYNAMIC_POLICY, smart_list=SMART_POLICY)
        self._policy = replace(policy, **changes)  # type: ignore[arg-type]
        self.revision = 1

    def for_realm(self, realm: str) -> AdmissionPolicy:
        return self._policy


class Silence:
    """lists.ports.ListNews that nobody hears."""

    async def changed(self, name: str, version: int) -> None:
        pass


class Wire:
    """lists.ports.CountNews: hands counts to the other watches."""

    def __init__(self) -> None:
        self.others: list[CallWatch] = []

    async def counted(self, counts: Sequence[CallCount]) -> None:
        for other in self.others:
            await other.add(counts)


class Process:
    """One process's watch."""

    def __init__(self, clock: FakeClock, listed: MemoryListed, policies: Policies | None = None) -> None:
        store = MemoryLists(dict.fromkeys([ALICE, *OTHERS], REALM))
        self.wire = Wire()
        self.lists = NumberLists(store, Silence(), listed, clock)
        self.watch = CallWatch(store, self.wire, listed, self.lists, policies or Policies(), clock)

    def calls(
        self, count: int, *, talk_s: float | None = None, status: int = 404, reason: str = "rejected",
        called: str = TARGET, calling: str = "", local: bool = False, account: UUID = ALICE, source: str = "192.0.2.1",
    ) -> None:  # fmt: skip
        for _ in range(count):
            self.watch.ended(account, called, calling, talk_s, status, reason, local=local, source=source)


def kept(listed: MemoryListed) -> list[tuple[str, ListSide, str]]:
    return [(one.list, one.side, one.number) for one in listed.kept.values()]


async def test_a_number_that_keeps_failing_is_listed_with_its_evidence(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    process = Process(fake_clock, listed)
    process.calls(5)
    await process.watch.publish()
    assert kept(listed) == []
    process.calls(1)
    await process.watch.publish()
    (one,) = listed.kept.values()
    # Of one account's calls: for that account only.
    assert (one.list, one.side, one.number, one.account_id) == (DYNAMIC, ListSide.CALLED, TARGET, ALICE)
    assert one.evidence == "6 failed calls within 600 s (limit 5)"
    assert one.until_s == fake_clock.unix_s() + 3_600
    assert process.lists.listed() == [one]


async def test_failures_of_all_processes_count_together_and_the_number_is_listed_once(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    one, two = Process(fake_clock, listed), Process(fake_clock, listed)
    one.wire.others, two.wire.others = [two.watch], [one.watch]
    one.calls(3)
    two.calls(3)
    await one.watch.publish()
    await two.watch.publish()
    assert kept(listed) == [(DYNAMIC, ListSide.CALLED, TARGET)]


async def test_failures_that_are_older_than_the_period_do_not_count(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    process = Process(fake_clock, listed)
    process.calls(5)
    await process.watch.publish()
    fake_clock.advance(700)
    process.calls(5)
    await process.watch.publish()
    assert kept(listed) == []


@pytest.mark.parametrize("status", [401, 407, 408, 486, 487, 500, 502, 503, 600, 0, 200])
def test_what_is_not_the_numbers_fault_is_no_failure(status: int) -> None:
    assert not is_failure(status)


@pytest.mark.parametrize("status", [403, 404, 410, 480, 484, 603, 604])
def test_what_speaks_against_the_number_is_a_failure(status: int) -> None:
    assert is_failure(status)


async def test_calls_that_we_cut_and_local_ones_do_not_count_against_a_number(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    process = Process(fake_clock, listed)
    process.calls(50, talk_s=1.0, reason="cut-credit", calling=CALLER)
    process.calls(50, reason="edge-drain", calling=CALLER)
    process.calls(50, local=True)
    await process.watch.publish()
    assert kept(listed) == []
    assert len(process.watch.stats.targets) == len(process.watch.stats.callers) == 0


async def test_numbers_that_an_attack_is_after_are_listed_and_the_refused_caller_is_not(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    process = Process(fake_clock, listed)
    for _ in range(6):
        process.watch.refused(ALICE, TARGET, Reason.VELOCITY, local=False)
    for _ in range(100):
        process.watch.refused(ALICE, "4930999", Reason.CREDIT, local=False)
    await process.watch.publish()
    assert kept(listed) == [(DYNAMIC, ListSide.CALLED, TARGET)]


async def test_an_allowed_number_is_never_listed(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    process = Process(fake_clock, listed, Policies(lists=("friends",)))
    await process.lists.import_list(ListHead("friends", kind=ListKind.ALLOW), [TARGET.encode()])
    process.calls(50)
    await process.watch.publish()
    assert kept(listed) == []


async def test_a_lifted_number_begins_anew(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    process = Process(fake_clock, listed)
    process.calls(6)
    await process.watch.publish()
    for one in await process.lists.lift(TARGET):
        process.watch.gone(one)
    process.calls(5)
    await process.watch.publish()
    assert kept(listed) == []
    process.calls(1)
    await process.watch.publish()
    assert kept(listed) == [(DYNAMIC, ListSide.CALLED, TARGET)]


async def test_a_caller_of_short_calls_is_listed_and_an_ordinary_one_is_not(fake_clock: FakeClock) -> None:
    listed = MemoryListed()
    process = Process(fake_clock, listed)
    for number in range(30):
        process.calls(1, talk_s=1.5, status=0, reason="caller-bye", called=f"37128{number:06}", calling=CALLER)
        process.calls(1, talk_s=90, status=0, reason="caller-bye", called=f"37129{number:06}", calling="4930999")
    await process.watch.publish()
    (one,) = listed.kept.values()
    assert (one.list, one.side, one.number, one.account_id) == (SMART, ListSide.CALLING, CALLER, ALICE)
    assert one.evidence == ("of 30 calls 1.5 s on average (at least 5 s), 100 % shorter than 6 s (at most 80 %)")


async def test_while_the_store_is_away_counts_go_on_and_the_number_is_listed_later(fake_clock: FakeClock) -> None:
    class Away(MemoryListed):
        is_away = True

        async def put(self, listed: Listed) -> bool:
            if self.is_away:
                raise Unavailable("NATS is not available")
            return await super().put(listed)

    listed = Away()
    process = Process(fake_clock, listed)
    process.calls(10)
    await process.watch.publish()
    assert process.watch.counts.not_listed == 1
    listed.is_away = False
    process.calls(1)
    await process.watch.publish()
    assert kept(listed) == [(DYNAMIC, ListSide.CALLED, TARGET)]


@pytest.mark.parametrize(
    ("tally", "said"),
    [
        (NumberStats(calls=19), ""),
        (NumberStats(calls=100), "0 % answered"),
        (NumberStats(calls=100, answered=4, talk_ms=400_000), ""),  # one point: just out of line
        (NumberStats(calls=100, answered=4, talk_ms=400_000, fresh=90), "90 % to countries new"),
        (NumberStats(calls=100, answered=60, talk_ms=6_000_000), ""),
        (NumberStats(calls=100, answered=60, talk_ms=60_000, short=60), "1.0 s on average"),
        (NumberStats(calls=100, answered=60, talk_ms=6_000_000, fresh=100), ""),  # new countries alone list nobody
        (NumberStats(calls=100, answered=60, talk_ms=240_000, short=50), "4.0 s on average"),
        (NumberStats(calls=100, answered=60, talk_ms=240_000, short=40), ""),
    ],
)
def test_the_score_needs_more_than_one_statistic_that_is_just_out_of_line(tally: NumberStats, said: str) -> None:
    evidence = judge(tally, SMART_POLICY)
    assert said in evidence if said else not evidence


def test_what_was_long_ago_is_forgiven() -> None:
    stats, key = CallStats(), StatsKey(ALICE, CALLER, True)
    silent = CallCount(REALM, key, NumberStats(calls=19))
    assert stats.add(silent, DYNAMIC_POLICY, SMART_POLICY, MonoS(0.0), UnixS(0.0)) == []
    later = stats.add(silent, DYNAMIC_POLICY, SMART_POLICY, MonoS(2 * GENERATION_S), UnixS(0.0))
    assert later == []
    soon = stats.add(silent, DYNAMIC_POLICY, SMART_POLICY, MonoS(2.5 * GENERATION_S), UnixS(0.0))
    assert [one.number for one in soon] == [CALLER]


def test_a_country_is_new_to_an_account_whose_calls_are_known_for_a_day() -> None:
    stats = CallStats()
    assert not stats.is_fresh(ALICE, TARGET, MonoS(0.0))
    home = CallCount(REALM, StatsKey(ALICE, "4930123", False), NumberStats(calls=LEARNT_CALLS))
    stats.add(home, DYNAMIC_POLICY, SMART_POLICY, MonoS(0.0), UnixS(0.0))
    assert stats.is_fresh(ALICE, TARGET, MonoS(1.0))
    assert not stats.is_fresh(ALICE, "4989123", MonoS(1.0))
    stats.add(
        CallCount(REALM, StatsKey(ALICE, TARGET, False), NumberStats(calls=1)),
        DYNAMIC_POLICY,
        SMART_POLICY,
        MonoS(1.0),
        UnixS(0.0),
    )
    assert stats.is_fresh(ALICE, TARGET, MonoS(3_600.0))
    assert not stats.is_fresh(ALICE, TARGET, MonoS(90_000.0))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), max_size=60), st.integers(1, 4))
def test_the_sum_is_the_same_however_calls_are_shared_out_to_processes(
    calls: list[tuple[int, int, bool]], processes: int
) -> None:
    """(number, process, answered): what the tables have in the end doesn't depend on who counted what."""
    alone, together = CallStats(), CallStats()
    for stats, share in ((alone, 1), (together, processes)):
        pending = [Pending() for _ in range(share)]
        for number, process, answered in calls:
            talk_s = 60.0 if answered else None
            pending[process % share].ended(ALICE, f"4930{number}", CALLER, talk_s, 404, fresh=False)
        for one in pending:
            for count in one.take({ALICE: REALM}):
                stats.add(count, DYNAMIC_POLICY, SMART_POLICY, MonoS(10.0), UnixS(0.0))
    of_one = [{key: entry.now for key, entry in stats.targets_of_one} for stats in (alone, together)]
    assert of_one[0] == of_one[1]
    # Which calls of an account count against a number for all is left open, how many of them isn't.
    counted = [{key: entry.now.calls for key, entry in stats.targets if entry.now} for stats in (alone, together)]
    assert counted[0] == counted[1]
    assert {key: entry.now for key, entry in alone.callers} == {key: entry.now for key, entry in together.callers}


def test_memory_is_bounded_and_what_goes_is_counted() -> None:
    pending, stats = Pending(), CallStats(table_max=100)
    for number in range(PENDING_MAX + 10):
        pending.ended(ALICE, f"49{number:09}", "", None, 404, fresh=False)
    assert (len(pending), pending.dropped) == (PENDING_MAX, 10)
    for count in pending.take({ALICE: REALM}):
        stats.add(count, DYNAMIC_POLICY, SMART_POLICY, MonoS(0.0), UnixS(0.0))
    assert (len(stats.targets), stats.evicted) == (100, 2 * (PENDING_MAX - 100))
    stats.expire(MonoS(100_000.0))
    assert len(stats.targets) == 0
