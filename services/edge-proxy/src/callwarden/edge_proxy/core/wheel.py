"""One alarm for each of many calls: set, moved and cancelled all the time, rung on time to a twentieth of a second.

In: owners and when. Out: clocks. A heap would keep every cancelled alarm's call alive until it would have been due, at
500 calls/s and slices of a minute 30,000 dead calls; here a cancelled alarm is gone at once.
"""

from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

from callwarden.kernel.clock import MonoS

TICK_S = 0.05


class AlarmOwner(Protocol):
    """Who can be rung. `tick` is the wheel's; 0 means no alarm."""

    tick: int


T = TypeVar("T", bound=AlarmOwner)


class Wheel(Generic[T]):
    """Mutable: it is state."""

    __slots__ = ("_due", "_ticks")

    def __init__(self) -> None:
        self._due: dict[int, set[T]] = {}
        self._ticks: list[int] = []  # a heap of the keys of _due

    def __len__(self) -> int:
        """Alarms that are set."""
        return sum(map(len, self._due.values()))

    def set(self, owner: T, at_s: float) -> None:
        """Ring `owner` at `at_s` or up to TICK_S later, and not at any time set before."""
        if owner.tick:
            self.cancel(owner)
        tick = max(1, int(at_s / TICK_S) + 1)
        owner.tick = tick
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = set()
            heappush(self._ticks, tick)
        due.add(owner)

    def cancel(self, owner: T) -> None:
        """Don't ring it."""
        due = self._due.get(owner.tick)
        if due is not None:
            due.discard(owner)
        owner.tick = 0

    def next_s(self) -> float | None:
        """When something may be due next; None: nothing is waited for. Early where all of a tick were cancelled."""
        return self._ticks[0] * TICK_S if self._ticks else None

    def take_due(self, mono_s: MonoS) -> list[T]:
        """Who is to be rung now; their alarms are off."""
        found: list[T] = []
        while self._ticks and self._ticks[0] * TICK_S <= mono_s:
            for owner in self._due.pop(heappop(self._ticks)):
                owner.tick = 0
                found.append(owner)
        return found
