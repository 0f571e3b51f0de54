"""How many within the last `period_s` seconds: a sliding-window counter in a handful of buckets.

In: one counter of one key. Out: many keys (`table`), and what a count means (the services' cores).

The period is cut into `buckets` parts of `width_s = period_s / buckets`. A count is kept until its whole part is out of
the period, so that the error has one side only and a bound:

    events in the last period_s  ≤  count  ≤  events in the last period_s + width_s

It never counts less than a true sliding window, so no more than the limit passes in any period, wherever the period
begins (a fixed window passes twice the limit around its edge; an interpolated pair of windows has no bound against
bursts). It may count events that are up to one part too old: with 16 buckets, 6.25 % of the period.

Memory: one pair of integers for each part in which anything was counted, at most buckets + 1 of them, so that the many
addresses with a few messages cost little.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

BUCKETS: Final = 16  # An error of 6.25 % of the period's length, for at most 34 integers.


@dataclass(frozen=True, slots=True)
class WindowShape:
    """The shape of a sliding window: what all counters of one kind have in common."""

    period_s: float
    buckets: int = BUCKETS

    def __post_init__(self) -> None:
        if self.period_s <= 0 or self.buckets < 1:
            raise ValueError("a window needs a period above 0 and at least one bucket")

    @property
    def width_s(self) -> float:
        """The error bound: what is counted may be this much older than period_s."""
        return self.period_s / self.buckets


class SlidingCounter:
    """Counts of one key. `window` is handed in with each call, so that a policy change needs no new counters: after
    one, what was counted before may be kept for up to one part of the old width longer, never shorter.
    """

    # Mutable, plain lists: one update is on the way of every counted message (0.2 µs; 0.4 where a part begins).
    __slots__ = ("_counts", "_parts", "_width_s", "total")

    def __init__(self) -> None:
        self._parts: list[int] = []  # ascending; number of the part since time 0
        self._counts: list[int] = []
        self._width_s = 0.0
        self.total = 0
        """What the last add() or count() found. Not aged."""

    def add(self, window: WindowShape, mono_s: float, amount: int = 1) -> int:
        """Counts `amount` at `mono_s` and returns the count of the window that ends now.

        A clock that stepped back counts into the newest part there is: nothing is forgotten early.
        """
        width_s = window.period_s / window.buckets
        if width_s != self._width_s:
            self._rescale(width_s)
        part = int(mono_s // width_s)
        parts = self._parts
        if parts and parts[0] < part - window.buckets:
            self._forget(part - window.buckets)
        if parts and part <= parts[-1]:
            self._counts[-1] += amount
        elif amount:
            parts.append(part)
            self._counts.append(amount)
        self.total += amount
        return self.total

    def count(self, window: WindowShape, mono_s: float) -> int:
        """The count of the window that ends now."""
        return self.add(window, mono_s, 0)

    def forgive(self, amount: int) -> None:
        """Removes up to `amount`, the oldest first: a success earns back what was counted as failures."""
        while amount > 0 and self._counts:
            taken = min(amount, self._counts[0])
            self._counts[0] -= taken
            self.total -= taken
            amount -= taken
            if self._counts[0] == 0:
                del self._counts[0], self._parts[0]

    def clear(self) -> None:
        """Forgets everything."""
        self._parts.clear()
        self._counts.clear()
        self.total = 0

    def dump(self, mono_s: float) -> list[tuple[float, int]]:
        """What is counted, as (least age in seconds, count), for a snapshot; `load` reads it back."""
        return [
            (max(0.0, mono_s - (part + 1) * self._width_s), count)
            for part, count in zip(self._parts, self._counts, strict=True)
        ]

    def load(self, window: WindowShape, mono_s: float, dumped: Iterable[tuple[float, int]]) -> None:
        """Adds the counts of a `dump`, as young as they can have been: restoring never lowers a count. Counts that are
        older than the newest count here become as young as that one."""
        for age_s, count in sorted(dumped, reverse=True):
            self.add(window, mono_s - max(0.0, age_s), count)

    def _forget(self, oldest: int) -> None:
        kept = 0
        while kept < len(self._parts) and self._parts[kept] < oldest:
            self.total -= self._counts[kept]
            kept += 1
        del self._parts[:kept], self._counts[:kept]

    def _rescale(self, width_s: float) -> None:
        """The policy changed the period: what was counted moves, as young as it can have been."""
        old_width_s, self._width_s = self._width_s, width_s
        parts, counts = self._parts, self._counts
        self._parts, self._counts = [], []
        for part, count in zip(parts, counts, strict=True):
            moved = math.ceil((part + 1) * old_width_s / width_s) - 1
            if self._parts and self._parts[-1] == moved:
                self._counts[-1] += count
            else:
                self._parts.append(moved)
                self._counts.append(count)
