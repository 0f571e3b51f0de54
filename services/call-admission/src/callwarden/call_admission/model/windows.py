"""Sliding windows of calls, counted in buckets by the moment at which they began.

A window includes the bucket in which it begins: it never counts fewer calls than there were within the span, and may
count one of them for a bucket's width longer.
"""

from bisect import bisect_left
from math import ceil
from typing import Final

import msgspec

from callwarden.kernel.clock import UnixS

WINDOW_BUCKETS: Final = 100  # A second in steps of 10 ms, a minute of 0.6 s, a day of about a quarter of an hour.


SECOND_MS: Final = 1_000


MINUTE_MS: Final = 60_000


class WindowBucket(msgspec.Struct, array_like=True, gc=False):
    """The calls that began in one step of a window; `micros` and `talk_s` are held or granted while they run."""

    index: int
    calls: int = 0
    micros: int = 0
    talk_s: int = 0


class SlidingWindow(msgspec.Struct, array_like=True):
    """A sliding window of calls by the moment at which they began."""

    width_ms: int
    buckets: list[WindowBucket] = msgspec.field(default_factory=list)
    dropped: int = -1
    """Every bucket up to this index is gone for good."""

    @staticmethod
    def width(span_ms: int) -> int:
        return max(ceil(span_ms / WINDOW_BUCKETS), 1)

    def begin(self, at_s: float, micros: int, talk_s: int) -> None:
        index = int(at_s * 1_000) // self.width_ms
        if self.buckets and self.buckets[-1].index > index + WINDOW_BUCKETS:
            self._step_back(index)
        self._drop(index - WINDOW_BUCKETS - 1)
        bucket = self._bucket(index, make=True)
        assert bucket is not None
        bucket.calls += 1
        bucket.micros += micros
        bucket.talk_s += talk_s

    def move(self, began_s: float, micros: int, talk_s: int) -> None:
        """A call that began then has cost or talked so much more (or less) than was known; nothing, if it counts no
        more."""
        bucket = self.at(began_s)
        if bucket is not None:
            bucket.micros += micros
            bucket.talk_s += talk_s

    def at(self, began_s: float) -> WindowBucket | None:
        """What a call that began then is counted in; None: it counts no more."""
        return self._bucket(int(began_s * 1_000) // self.width_ms, make=False)

    def sums(self, unix_s: UnixS) -> WindowBucket:
        """All that began within the span before now; its index says nothing."""
        now = int(unix_s * 1_000) // self.width_ms
        total = WindowBucket(0)
        for bucket in reversed(self.buckets):
            if bucket.index < now - WINDOW_BUCKETS:
                break
            if bucket.index > now + WINDOW_BUCKETS:  # from before the clock stepped back
                continue
            total.calls += bucket.calls
            total.micros += bucket.micros
            total.talk_s += bucket.talk_s
        return total

    def calls(self, unix_s: UnixS) -> int:
        now = int(unix_s * 1_000) // self.width_ms
        calls = 0
        for bucket in reversed(self.buckets):
            if bucket.index < now - WINDOW_BUCKETS:
                break
            if bucket.index <= now + WINDOW_BUCKETS:
                calls += bucket.calls
        return calls

    def _step_back(self, index: int) -> None:
        """The clock has stepped back by more than the window: what lies in its future would count until then."""
        del self.buckets[bisect_left(self.buckets, index + WINDOW_BUCKETS + 1, key=_index) :]
        self.dropped = min(self.dropped, index - WINDOW_BUCKETS - 1)

    def _drop(self, until: int) -> None:
        buckets = self.buckets
        if buckets and buckets[0].index <= until:
            del buckets[: bisect_left(buckets, until + 1, key=_index)]
        if until > self.dropped:
            self.dropped = until

    def _bucket(self, index: int, *, make: bool) -> WindowBucket | None:
        if index <= self.dropped:
            return None
        buckets = self.buckets
        if buckets and buckets[-1].index == index:
            return buckets[-1]
        position = bisect_left(buckets, index, key=_index)
        if position < len(buckets) and buckets[position].index == index:
            return buckets[position]
        if not make:
            return None
        bucket = WindowBucket(index)
        buckets.insert(position, bucket)
        return bucket


def _index(bucket: WindowBucket) -> int:
    return bucket.index


def fitted(window: SlidingWindow | None, span_ms: int) -> SlidingWindow:
    """The window in buckets for this span; what it holds is taken along when policy changes the span."""
    width_ms = SlidingWindow.width(span_ms)
    if window is None:
        return SlidingWindow(width_ms)
    if window.width_ms == width_ms:
        return window
    # To the bucket in which the old one begins. A running call's share may then lie in the bucket beside the one that
    # its end is counted in; the sum over both is right.
    fresh = SlidingWindow(width_ms)
    if window.dropped >= 0:
        fresh.dropped = (window.dropped + 1) * window.width_ms // width_ms - 1
    for old in window.buckets:
        bucket = fresh._bucket(old.index * window.width_ms // width_ms, make=True)
        if bucket is not None:
            bucket.calls += old.calls
            bucket.micros += old.micros
            bucket.talk_s += old.talk_s
    fresh._drop((fresh.buckets[-1].index if fresh.buckets else -1) - WINDOW_BUCKETS - 1)
    return fresh


def merged_windows(one: SlidingWindow | None, other: SlidingWindow | None) -> SlidingWindow | None:
    if one is None or other is None:
        found = one or other
        return None if found is None else msgspec.convert(msgspec.to_builtins(found), SlidingWindow)
    other = fitted(other, one.width_ms * WINDOW_BUCKETS)
    total = SlidingWindow(one.width_ms, dropped=max(one.dropped, other.dropped))
    for old in (*one.buckets, *other.buckets):
        bucket = total._bucket(old.index, make=True)
        if bucket is not None:
            bucket.calls += old.calls
            bucket.micros += old.micros
            bucket.talk_s += old.talk_s
    return total
