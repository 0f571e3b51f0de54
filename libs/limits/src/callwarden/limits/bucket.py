"""So many a second with a burst: the token bucket, as GCRA (ITU-T I.371 annex A), which keeps one number for each key.

In: one bucket, and many under keys. Out: what is taken from them and what a refusal means (the services' cores).

The number is the *theoretical arrival time*: when the bucket will be full again. One take moves it on by 1 / rate; a
take is refused when it would lie more than burst / rate ahead. A clock that steps back puts it further ahead: that
mints nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

NEVER_S: Final = float("inf")
_ROUNDING_S: Final = 1e-6  # What sums of seconds since 1970 are exact to; it mints a millionth of a second of the rate.


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` in the long run, `burst` at once. Both above 0."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst <= 0:
            raise ValueError("a rate needs per_second and burst above 0")

    @property
    def fills_in_s(self) -> float:
        """How long an empty bucket takes to be full."""
        return self.burst / self.per_second


class Bucket:
    """One bucket, full at first."""

    __slots__ = ("_full_at_s",)  # Mutable: on the way of every message (0.1 µs).

    def __init__(self) -> None:
        self._full_at_s = float("-inf")

    def take(self, rate: Rate, now_s: float, amount: float = 1.0) -> float:
        """0.0 if `amount` could be taken, else in how many seconds it could be; then nothing is taken. More than the
        burst never can be: infinity."""
        full_at_s = self._full_at_s
        after_s = (full_at_s if full_at_s > now_s else now_s) + amount / rate.per_second
        wait_s = after_s - now_s - rate.burst / rate.per_second
        if wait_s <= _ROUNDING_S:
            self._full_at_s = after_s
            return 0.0
        return wait_s if amount <= rate.burst else NEVER_S


class Buckets:
    """A bucket for each key, at most `capacity` of them.

    A full bucket needs no memory: forgetting it changes nothing. Where room is needed, full ones go; only if there are
    none among the first looked at, the fullest of those goes, which `evicted` counts: its key finds a full one next.
    """

    __slots__ = (
        "_capacity",
        "_full_at_s",
        "evicted",
    )  # Mutable: on the way of every message (0.2 µs; 1.8 where a new key needs room).

    _LOOKED_AT: Final = 8  # Bounds the work of one take; they are among the longest kept, mostly full again.

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("no room for a bucket")
        self._capacity = capacity
        # An OrderedDict, because the first keys of a plain dict are slow to find after many were deleted there.
        self._full_at_s: OrderedDict[str, float] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, key: str, rate: Rate, now_s: float, amount: float = 1.0) -> float:
        """As Bucket.take, from the key's bucket."""
        full_at_s = self._full_at_s.get(key)
        known = full_at_s is not None
        after_s = (full_at_s if full_at_s is not None and full_at_s > now_s else now_s) + amount / rate.per_second
        wait_s = after_s - now_s - rate.burst / rate.per_second
        if wait_s > _ROUNDING_S:
            return wait_s if amount <= rate.burst else NEVER_S
        if not known and len(self._full_at_s) >= self._capacity:
            self._make_room(now_s)
        self._full_at_s[key] = after_s
        return 0.0

    def expire(self, now_s: float, limit: int = 1_000) -> int:
        """Forgets full buckets among the `limit` first; returns how many. The rest are looked at next time."""
        looked_at = [key for key, _ in zip(self._full_at_s, range(limit), strict=False)]
        forgotten = 0
        for key in looked_at:
            full_at_s = self._full_at_s.pop(key)
            if full_at_s > now_s:
                self._full_at_s[key] = full_at_s  # To the end: the next call looks at others.
            else:
                forgotten += 1
        return forgotten

    def _make_room(self, now_s: float) -> None:
        candidates = [key for key, _ in zip(self._full_at_s, range(self._LOOKED_AT), strict=False)]
        fullest = min(candidates, key=self._full_at_s.__getitem__)
        if self._full_at_s[fullest] > now_s:
            self.evicted += 1
        del self._full_at_s[fullest]
