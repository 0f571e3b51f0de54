"""The time by which holds expire: the wall clock, but that it doesn't jump ahead when somebody sets that. In: what both
clocks show. Out: what is done with a hold that has expired (transaction, movement)."""

from collections import deque
from typing import Final

from callwarden.kernel.clock import MonoS, UnixS

STEP_S: Final = 1.0  # Less is a clock being slewed, or a pause between two readings.
# Longer than any hold lasts without being extended, which is an hour and what the set-up takes (leases.LEASES_MAX).
REMEMBERED_S: Final = 2 * 3_600.0


class ExpiryClock:
    """Mutable: it is the state.

    Holds that were written before a step ahead would all have expired after it, and their calls be cut. So a step ahead
    is followed when no such hold can be left; until then a hold whose end is never told lasts longer by the step. A
    step back is followed at once: that can only lengthen a hold.
    """

    def __init__(self) -> None:
        self._levels: deque[tuple[float, float]] = deque()
        """Wall less monotonic time, and when that was last seen; each is ahead of the one before it."""

    def at(self, mono_s: MonoS, unix_s: UnixS) -> UnixS:
        """Never later than `unix_s`, and as far behind it as it was set ahead within REMEMBERED_S."""
        offset_s, levels = unix_s - mono_s, self._levels
        while levels and levels[-1][0] >= offset_s:
            levels.pop()
        if levels and offset_s - levels[-1][0] <= STEP_S:
            levels[-1] = levels[-1][0], mono_s
        else:
            levels.append((offset_s, mono_s))
        while levels[0][1] < mono_s - REMEMBERED_S:
            levels.popleft()
        return UnixS(mono_s + levels[0][0])
