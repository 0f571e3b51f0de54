"""Rendezvous hashing: everybody computes the same owner, and a change of members moves only what it must."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.limits.rendezvous import MEMBERS_MAX, SHARDS, ShardMap, TooManyMembers, _weights, ranking, shard_of

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
members = st.sets(names, min_size=1, max_size=12)


@given(members, st.data())
def test_only_the_shards_of_a_member_that_leaves_move(before: set[str], data: st.DataObject) -> None:
    leaving = data.draw(st.sampled_from(sorted(before)))
    old, new = ShardMap(before), ShardMap(before - {leaving})
    for shard in range(SHARDS):
        if old.owner(shard) != leaving:
            assert new.owner(shard) == old.owner(shard)
        else:
            assert new.owner(shard) != leaving


@given(members, names)
def test_a_member_that_joins_takes_shards_only_for_itself(before: set[str], joining: str) -> None:
    old, new = ShardMap(before), ShardMap(before | {joining})
    assert all(new.owner(shard) in (old.owner(shard), joining) for shard in range(SHARDS))


@given(st.lists(names, min_size=1, max_size=8).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_order_and_repetition_of_the_members_do_not_matter(lists: tuple[list[str], list[str]]) -> None:
    one, other = ShardMap(lists[0]), ShardMap(lists[1] * 2)
    assert one == other
    assert [one.owner(shard) for shard in range(SHARDS)] == [other.owner(shard) for shard in range(SHARDS)]


def owner(shard: int, members: set[str]) -> str | None:
    """The definition: the member of the highest weight, the first by name where two are equal."""
    return max(sorted(members), key=lambda member: _weights(member, SHARDS)[shard], default=None)


@given(members, st.text(max_size=50))
def test_the_table_says_what_the_definition_says(some: set[str], key: str) -> None:
    shards = ShardMap(some)
    assert shards.owner_of(key) == owner(shard_of(key), some) == shards.preference_of(key)[0]
    assert sorted(shards.preference_of(key)) == sorted(some)
    assert ranking(key, list(some)) == shards.preference_of(key)


@given(members, st.text(max_size=50))
def test_who_stands_in_is_who_would_own_it_without_the_owner(some: set[str], key: str) -> None:
    first, *rest = ShardMap(some).preference_of(key)
    assert list(ShardMap(some - {first}).preference_of(key)) == rest if rest else True


@pytest.mark.parametrize("count", [2, 4, 8])
def test_shards_are_spread_evenly(count: int) -> None:
    shards = ShardMap(f"rate-guard-{number}" for number in range(count))
    sizes = Counter(shards.owner(shard) for shard in range(SHARDS))
    fair = SHARDS / count
    # Binomial; four standard deviations, and the names are fixed, so this can't flicker.
    assert all(abs(size - fair) < 4 * (fair * (1 - 1 / count)) ** 0.5 for size in sizes.values())
    assert sum(len(shards.shards_of(member)) for member in shards.members) == SHARDS


def test_neighbouring_addresses_fall_on_all_shards() -> None:
    sizes = Counter(shard_of(f"203.0.{high}.{low}") for high in range(16) for low in range(256))
    assert len(sizes) == SHARDS
    assert max(sizes.values()) < 2.5 * 16  # 16 keys a shard on average; Poisson gives 34 at most here.


def test_every_process_computes_the_same_shard() -> None:
    program = (
        "from callwarden.limits.rendezvous import ShardMap, shard_of;"
        "print(shard_of('192.0.2.7'), ShardMap('abc').owner_of('192.0.2.7'))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(shard_of("192.0.2.7")), ShardMap("abc").owner_of("192.0.2.7")]
    # And every version: processes of two releases share the members while one replaces the other.
    assert (shard_of("192.0.2.7"), shard_of("2001:db8::1"), shard_of("")) == (SHARD_V4, SHARD_V6, SHARD_EMPTY)


def test_without_members_nobody_owns_anything() -> None:
    nobody = ShardMap([])
    assert nobody.owner_of("192.0.2.7") is None
    assert nobody.owner(0) is None
    assert list(nobody.preference_of("192.0.2.7")) == []


def test_too_many_members_are_refused() -> None:
    with pytest.raises(TooManyMembers):
        ShardMap(map(str, range(MEMBERS_MAX + 1)))


@given(st.text(max_size=100), st.integers(1, 1_000))
def test_a_shard_is_always_one_of_the_shards(key: str, shards: int) -> None:
    assert 0 <= shard_of(key, shards) < shards


# Computed once; they must never change.
SHARD_V4, SHARD_V6, SHARD_EMPTY = 220, 255, 48
