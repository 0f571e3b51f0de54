"""A clock that stands still until a test turns it. Implements `callwarden.kernel.clock.Clock`."""

from callwarden.kernel.clock import Clock

# 2026-01-05T12:00:00Z: a Monday at noon, in no zone near a change of day, month or summer time.
NOON_S = 1_767_614_400.0


class FakeClock:
    """Wall and monotonic time, moved only by `advance` and `step_wall`."""

    def __init__(self, now_s: float = NOON_S) -> None:
        self._now_s = now_s
        self._monotonic_s = 1_000.0  # Not 0, so that code which takes 0 for "never" is found out.

    def now_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks. ValueError when negative: time does not run backwards, see `step_wall`."""
        if seconds < 0:
            raise ValueError(f"{seconds} s is not in the future")
        self._now_s += seconds
        self._monotonic_s += seconds

    def step_wall(self, seconds: float) -> None:
        """What NTP or an operator does: the wall clock jumps, either way; the monotonic clock does not notice."""
        self._now_s += seconds


_: type[Clock] = FakeClock
