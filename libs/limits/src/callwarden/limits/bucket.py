"""So many a second with a burst: the token bucket, as GCRA (ITU-T I.371 annex A), which keeps one number for each key.

In: one bucket. Out: what is taken from it and what a refusal means (the services' cores).

The number is the *theoretical arrival time*: when the bucket will be full again. One take moves it on by 1 / rate; a
take is refused when it would lie more than burst / rate ahead. A clock that steps back puts it further ahead,
which grants nothing extra.
"""

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


class TokenBucket:
    """One bucket, full at first."""

    __slots__ = ("_full_at_s",)  # Mutable: on the way of every message (0.1 µs).

    def __init__(self) -> None:
        self._full_at_s = float("-inf")

    def take(self, rate: Rate, mono_s: float, amount: float = 1.0) -> float:
        """0.0 if `amount` could be taken, else in how many seconds it could be; then nothing is taken. More than the
        burst never can be: infinity."""
        full_at_s = self._full_at_s
        after_s = (full_at_s if full_at_s > mono_s else mono_s) + amount / rate.per_second
        wait_s = after_s - mono_s - rate.burst / rate.per_second
        if wait_s <= _ROUNDING_S:
            self._full_at_s = after_s
            return 0.0
        return wait_s if amount <= rate.burst else NEVER_S
