"""A clock that moves only when a test moves it. Implements `callwarden.kernel.clock.Clock`."""

from callwarden.kernel.clock import Clock, MonoS, UnixS

# 2026-01-05T12:00:00Z: a Monday at noon, in no zone near a change of day, month or summer time.
NOON_S = UnixS(1_767_614_400.0)


class FakeClock:
    """Wall and monotonic time, moved only by `advance` and `step_wall`."""

    def __init__(self, unix_s: UnixS = NOON_S) -> None:
        self._unix_s = unix_s
        self._mono_s = MonoS(1_000.0)  # Not 0, so that code which takes 0 for "never" is found out.

    def unix_s(self) -> UnixS:
        return self._unix_s

    def mono_s(self) -> MonoS:
        return self._mono_s

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks. ValueError when negative: time does not run backwards, see `step_wall`."""
        if seconds < 0:
            raise ValueError(f"{seconds} s is not in the future")
        self._unix_s = UnixS(self._unix_s + seconds)
        self._mono_s = MonoS(self._mono_s + seconds)

    def step_wall(self, seconds: float) -> None:
        """What NTP or an operator does: the wall clock jumps, either way; the monotonic clock does not notice."""
        self._unix_s = UnixS(self._unix_s + seconds)


_: type[Clock] = FakeClock
