"""A limit that several counters share, exact in sum: each may use what it was granted, and asks the others for more.

In: what each shard may use, how room is shared out and lent. Out: what is counted, how shards are kept, who reads which
(callwarden.call_admission.admission.core.sharing).

For one quantity (lines, credit, the spend of a day) every shard holds a grant: the limit it was made for, and the part
that this shard may use. The invariant: the parts of one limit add up to it, and a shard without a grant for exactly
this limit and number of shards must use nothing until all shards have been read. So a change of the limit or of the
number of shards needs no message: earlier grants are void, and the first process to need one shares out again. While
more is used than the limit allows (it was lowered), no shard has a grant, and each request reads all shards.

A process that changes grants writes all rows whose grants differ in one transaction, or none. What a shard has used may
fall at any time; it may rise within its grant without reading the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

SHARDS_MAX: Final = 64  # More processes than that on one owner meet in its shards, and take turns.
KEYS_MAX: Final = 3  # of one quantity (days, months): yesterday's calls may still run today, with a zone's change

Grant: TypeAlias = tuple[int, int, int]
"""The limit and the number of shards that it was made for, and what may be used here."""

Grants: TypeAlias = Mapping[str, Grant]
"""By quantity: "calls", "day_spend.739576" (the number after the point grows; older ones are dropped)."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shards. A value: other grants are another shard."""

    count: int
    index: int
    grants: Grants

    def is_granted(self, quantity: str, limit: int) -> bool:
        """Whether a part of just this limit was given to this shard."""
        grant = self.grants.get(quantity)
        return grant is not None and grant[0] == limit and grant[1] == self.count

    def allowance(self, quantity: str, limit: int) -> int:
        """How much may be used here without reading the other shards."""
        grant = self.grants.get(quantity)
        return grant[2] if grant is not None and grant[0] == limit and grant[1] == self.count else 0


def shared(
    shards: Sequence[Shard], quantity: str, limit: int, used: Sequence[int], at: int, needed: int
) -> list[Shard]:
    """All shards after one of them (`at`) has asked for `needed` more than it has left. Equal ones need no writing.

    Room is shared out evenly where the limit is a new one, and else lent by those who have the most: half of what they
    have left, or what is needed if that is more, so that the next ask is far. There is no room anywhere: nothing moves.
    """
    count = len(shards)
    if all(shard.is_granted(quantity, limit) for shard in shards):
        parts = _lent([shard.allowance(quantity, limit) for shard in shards], used, at, needed)
        return [
            shard if part == shard.allowance(quantity, limit) else _with(shard, quantity, (limit, count, part))
            for shard, part in zip(shards, parts, strict=True)
        ]
    room = limit - sum(used)
    if room < 0:
        return [_without(shard, quantity) for shard in shards]
    # What can't be divided goes to the one that asks, and its neighbours.
    return [
        _with(shard, quantity, (limit, count, used[index] + room // count + ((index - at) % count < room % count)))
        for index, shard in enumerate(shards)
    ]


def _lent(parts: list[int], used: Sequence[int], at: int, needed: int) -> list[int]:
    for index in sorted(range(len(parts)), key=lambda index: used[index] - parts[index]):
        spare = parts[index] - used[index]
        if needed <= 0 or spare <= 0:
            break
        if index != at:
            moved = min(max(spare - spare // 2, needed), spare)
            parts[index] -= moved
            parts[at] += moved
            needed -= moved
    return parts


def _with(shard: Shard, quantity: str, grant: Grant) -> Shard:
    grants = {**shard.grants, quantity: grant}
    name, point, _ = quantity.partition(".")
    if point:
        same = sorted((other for other in grants if other.startswith(f"{name}.")), key=_key)
        for old in same[:-KEYS_MAX]:
            del grants[old]
    return Shard(shard.count, shard.index, grants)


def _without(shard: Shard, quantity: str) -> Shard:
    if quantity not in shard.grants:
        return shard
    return Shard(shard.count, shard.index, {name: grant for name, grant in shard.grants.items() if name != quantity})


def _key(quantity: str) -> int:
    return int(quantity.partition(".")[2])
