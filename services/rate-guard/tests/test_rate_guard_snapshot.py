"""Snapshots: what is saved comes back, rubbish is refused, size is bounded, nothing is minted."""

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.kernel.clock import MonoS, UnixS
from callwarden.limits.rendezvous import SHARDS, shard_of
from callwarden.policy.bundle import default_set
from callwarden.rate_guard.core import snapshot
from callwarden.rate_guard.core.counters import AddressCounters, AddressReport, EndpointReport
from callwarden.rate_guard.core.limits import compile_limits

HERE = "192.0.2.7"
NOW_S, WALL_S = MonoS(10_000.0), UnixS(1_767_614_400.0)


def counters() -> AddressCounters:
    return AddressCounters(compile_limits(default_set().for_realm("")))


def totals(some: AddressCounters, mono_s: float) -> dict[str, Any]:
    """Everything that decides about anybody."""
    limits = some.limits
    found: dict[str, Any] = {}
    for name, address in some.addresses.hot_items():
        found[name] = (
            address.known,
            address.messages.count(limits.messages, mono_s),
            address.wrong.count(limits.wrong, mono_s) if address.wrong else 0,
            address.failures.count(limits.failures, mono_s) if address.failures else 0,
        )
    for name, endpoint in some.endpoints.hot_items():
        by_name = {user: c.count(limits.failures, mono_s) for user, c in (endpoint.by_name or {}).items()}
        failures = endpoint.failures.count(limits.failures, mono_s) if endpoint.failures else 0
        found[name] = endpoint.known, failures, {user: count for user, count in by_name.items() if count}
    return found


steps = st.lists(
    st.tuples(
        st.sampled_from(["192.0.2.7", "192.0.2.8", "2001:db8::/64"]),
        st.integers(0, 9_000),
        st.integers(0, 3),
        st.integers(5_060, 5_062),
        st.sampled_from(["alice", "bob", "日本"]),
        st.integers(0, 3),
        st.integers(0, 1),
        st.integers(0, 4),  # In all less than any window: what ages out when is shown in libs/limits.
    ),
    max_size=40,
)


@given(steps, st.integers(0, 100_000))
def test_who_matters_is_restored_with_all_counts_on_another_clock(steps: list[Any], other_clock_s: int) -> None:
    some, mono_s = counters(), NOW_S
    for address, messages, wrong, port, user, failures, successes, gap_s in steps:
        mono_s += gap_s
        host = "2001:db8::7" if ":" in address else ""
        some.count(
            AddressReport(address, messages, wrong, [EndpointReport(port, user, failures, successes, host)]), mono_s
        )
    other = counters()
    for data in snapshot.save(some, {shard_of(step[0]) for step in steps}, MonoS(mono_s), WALL_S).values():
        snapshot.load(other, data, MonoS(float(other_clock_s)), WALL_S)
    was, restored = totals(some, mono_s), totals(other, float(other_clock_s))
    assert set(restored) == set(was)
    assert restored == was


def test_time_that_passed_between_counts() -> None:
    some, other = counters(), counters()
    some.count(AddressReport(HERE, 39_000, 0, []), NOW_S)
    (data,) = snapshot.save(some, [shard_of(HERE)], NOW_S, WALL_S).values()
    assert snapshot.load(other, data, MonoS(5.0), UnixS(WALL_S + 100)) == 1
    assert other.count(AddressReport(HERE, 1, 0, []), MonoS(5.0)) != []
    late = counters()
    snapshot.load(late, data, MonoS(5.0), UnixS(WALL_S + 400))
    assert late.count(AddressReport(HERE, 1, 0, []), MonoS(5.0)) == []
    behind = counters()
    # A clock that is behind lowers no count, and keeps none for ever.
    snapshot.load(behind, data, MonoS(5.0), UnixS(WALL_S - 1_000))
    assert behind.count(AddressReport(HERE, 1, 0, []), MonoS(5.0)) != []
    assert behind.count(AddressReport(HERE, 1, 0, []), MonoS(5.0 + 180 + 2 * 11.25)) == []


def test_only_the_shards_asked_for_and_only_hot_addresses_are_saved() -> None:
    some, other = counters(), counters()
    some.count(AddressReport(HERE, 10_000, 0, []), NOW_S)
    some.count(AddressReport("192.0.2.8", 10_000, 0, []), NOW_S)
    some.count(AddressReport("192.0.2.9", 10, 0, []), NOW_S)
    saved = snapshot.save(some, [shard_of(HERE), shard_of("192.0.2.9")], NOW_S, WALL_S)
    assert set(saved) == {shard_of(HERE), shard_of("192.0.2.9")}
    for data in saved.values():
        snapshot.load(other, data, NOW_S, WALL_S)
    assert [name for name, _ in other.addresses] == [HERE]


def test_the_counters_of_other_shards_are_dropped() -> None:
    some = counters()
    report = EndpointReport(5060, "alice", 0, 1)
    for number in range(100):
        some.count(AddressReport(f"192.0.2.{number}", 1, 0, [report]), NOW_S)
    owned = frozenset(range(0, SHARDS, 2))
    kept = [f"192.0.2.{number}" for number in range(100) if shard_of(f"192.0.2.{number}") in owned]
    assert snapshot.drop(some, owned) == 2 * (100 - len(kept))
    assert sorted(name for name, _ in some.addresses) == sorted(kept)
    assert sorted(name for name, _ in some.endpoints) == sorted(f"{name}:5060" for name in kept)


def test_a_snapshot_that_would_be_too_large_leaves_out_the_longest_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "BYTES_MAX", 500)
    some, other = counters(), counters()
    in_one_shard = [name for name in (f"10.0.{n >> 8}.{n & 255}" for n in range(65_536)) if shard_of(name) == 7]
    for number, name in enumerate(in_one_shard):
        some.count(AddressReport(name, 10_000 + number, 0, []), NOW_S)
    data = snapshot.save(some, [7], NOW_S, WALL_S)[7]
    assert len(data) <= 500
    loaded = snapshot.load(other, data, NOW_S, WALL_S)
    assert 0 < loaded < len(in_one_shard)
    assert in_one_shard[-1] in other.addresses
    assert in_one_shard[0] not in other.addresses


def pack(value: object) -> bytes:
    return zlib.compress(json.dumps(value).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        pack({}),
        pack([]),
        pack([1, 2, 3]),
        pack([2, 0.0, [], []]),
        pack([1, "x", [], []]),
        pack([1, 0.0, [["192.0.2.7", True, []]], []]),
        pack([1, 0.0, [["192.0.2.7", True, [], [], [], []]], []]),
        pack([1, 0.0, [], [["192.0.2.7:1", True, [], []]]]),
        pack([1, 0.0, [["192.0.2.7", True, [["x", 1]], [], []]], []]),
        pack([1, 0.0, 5, []]),
        pack([1, 0.0, [], []])[:-3],
        zlib.compress(b"[" * 100_000),
        zlib.compress(b" " * (snapshot.PLAIN_BYTES_MAX + 1)),
    ],
)
def test_rubbish_is_refused_and_adds_nothing(data: bytes) -> None:
    some = counters()
    with pytest.raises(snapshot.BadSnapshot):
        snapshot.load(some, data, NOW_S, WALL_S)
    assert len(some.addresses) == len(some.endpoints) == 0


@given(st.binary(max_size=300))
def test_any_bytes_are_loaded_or_refused(data: bytes) -> None:
    for each in (data, zlib.compress(data)):
        with pytest.raises(snapshot.BadSnapshot):
            snapshot.load(counters(), each, NOW_S, WALL_S)


def test_a_snapshot_adds_to_what_its_next_owner_has_counted_and_takes_nothing_away() -> None:
    before, after = counters(), counters()
    before.count(AddressReport(HERE, 0, 3, [EndpointReport(5060, "alice", 2, 0)]), NOW_S)
    (data,) = snapshot.save(before, [shard_of(HERE)], NOW_S, WALL_S).values()
    after.count(AddressReport(HERE, 0, 4, [EndpointReport(5060, "alice", 5, 0)]), NOW_S)
    snapshot.load(after, data, NOW_S, WALL_S)
    kept = totals(after, NOW_S)
    snapshot.load(after, snapshot.save(counters(), [shard_of(HERE)], NOW_S, WALL_S)[shard_of(HERE)], NOW_S, WALL_S)
    assert totals(after, NOW_S) == kept
    address = after.addresses.peek(HERE)
    assert address is not None
    assert address.wrong is not None
    assert address.failures is not None
    assert (address.wrong.total, address.failures.total) == (7, 7)


def test_an_empty_counter_in_a_snapshot_leaves_the_owners_alone() -> None:
    before, after = counters(), counters()
    before.count(AddressReport(HERE, 0, 0, [EndpointReport(5060, "alice", 1, 0)]), NOW_S)  # nothing wrong
    (data,) = snapshot.save(before, [shard_of(HERE)], NOW_S, WALL_S).values()
    after.count(AddressReport(HERE, 0, 4, []), NOW_S)
    snapshot.load(after, data, NOW_S, WALL_S)
    address = after.addresses.peek(HERE)
    assert address is not None
    assert address.wrong is not None
    assert address.wrong.total == 4
