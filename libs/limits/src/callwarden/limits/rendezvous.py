"""Which member owns a key: highest random weight (rendezvous) hashing over virtual shards.

In: the map key → shard → members in order of preference. Out: who the members are (NATS KV `members`, or a list of
targets in the settings).

A key falls into one of a few hundred shards; for each shard every member has a pseudo-random weight, and the members in
order of weight are its owner, its first stand-in, and so on. A member that leaves gives up only its own shards, spread
over all others; a member that joins takes only what is now its own (Thaler and Ravishankar, 1998). All processes that
know the members compute the same map, so they need not agree on one.

The weights use no secret, so an attacker can compute them. That gains nothing: each address has exactly one owner.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b, blake2s
from typing import Final

SHARDS: Final = 256  # 5 % imbalance at 8 members; a table of all preferences of 64 members takes 130 kB.
MEMBERS_MAX: Final = 1_024  # No deployment has so many; a table costs members × shards.

_WEIGHT_BYTES: Final = 8
_WEIGHTS_A_DIGEST: Final = blake2b.MAX_DIGEST_SIZE // _WEIGHT_BYTES


class TooManyMembers(ValueError):
    """More than MEMBERS_MAX members."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(f"{count} members, at most {MEMBERS_MAX} can share shards")


def shard_of(key: str, shards: int = SHARDS) -> int:
    """The virtual shard of a key, the same in every process and on every machine. 0.45 µs."""
    # blake2s is the quickest hash of the standard library whose output has no structure; Python's own hash() differs
    # from process to process.
    digest = blake2s(key.encode("utf-8", "surrogatepass")).digest()
    return (digest[0] << 24 | digest[1] << 16 | digest[2] << 8 | digest[3]) % shards


class ShardMap:
    """Immutable: the members of one moment, and for every shard all of them in order of preference."""

    # Not a dataclass: `_preferences` is derived, and owner_of() is on the way of every report.
    __slots__ = ("_preferences", "members", "shards")

    def __init__(self, members: Iterable[str], shards: int = SHARDS) -> None:
        """0.4 ms for 8 members, twice that for names seen for the first time. Raises TooManyMembers."""
        self.members: tuple[str, ...] = tuple(sorted(set(members)))
        self.shards = shards
        if len(self.members) > MEMBERS_MAX:
            raise TooManyMembers(len(self.members))
        weights = [_weights(member, shards) for member in self.members]
        order = range(len(self.members))
        # Sorting is stable and the members are sorted, so equal weights go to the first name in every process.
        self._preferences: tuple[tuple[str, ...], ...] = tuple(
            tuple(self.members[index] for index in sorted(order, key=lambda index: -weights[index][shard]))
            for shard in range(shards)
        )

    def owner_of(self, key: str) -> str | None:
        """The member that owns the key, or None where there is no member. 0.5 µs."""
        if not self.members:
            return None
        return self._preferences[shard_of(key, self.shards)][0]

    def preference_of(self, key: str) -> Sequence[str]:
        """All members in order of preference: the owner, then those that replace it when it does not answer."""
        return self._preferences[shard_of(key, self.shards)]

    def owner(self, shard: int) -> str | None:
        """The member that owns a shard, or None where there is no member."""
        return self._preferences[shard][0] if self.members else None

    def shards_of(self, member: str) -> frozenset[int]:
        """The shards that a member owns."""
        return frozenset(shard for shard in range(self.shards) if self.owner(shard) == member)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardMap) and (self.members, self.shards) == (other.members, other.shards)

    def __hash__(self) -> int:
        return hash((self.members, self.shards))

    def __repr__(self) -> str:
        return f"ShardMap({list(self.members)}, shards={self.shards})"


def ranking(key: str, members: Sequence[str]) -> Sequence[str]:
    """The members in order of preference for the key: what callwarden.common.rpc.stream.StreamPool asks for. 1 µs."""
    return _map_of(tuple(members)).preference_of(key)


@lru_cache(maxsize=16)  # One for each pool of the process, and those that have just changed.
def _map_of(members: tuple[str, ...]) -> ShardMap:
    return ShardMap(members)


@lru_cache(maxsize=MEMBERS_MAX)  # Pods come and go one at a time: a new map needs only the new member's weights.
def _weights(member: str, shards: int) -> tuple[int, ...]:
    name = member.encode("utf-8", "surrogatepass")
    weights: list[int] = []
    for block in range(-(-shards // _WEIGHTS_A_DIGEST)):
        digest = blake2b(name, salt=block.to_bytes(16, "big")).digest()
        weights.extend(
            int.from_bytes(digest[start : start + _WEIGHT_BYTES], "big")
            for start in range(0, len(digest), _WEIGHT_BYTES)
        )
    return tuple(weights[:shards])
