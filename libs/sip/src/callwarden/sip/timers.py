"""Timers for many owners, nearly all of which are cancelled.

Transaction timers have few distinct lengths (T1, 2 T1, 4 T1 … T2, T4, 64 T1), so each length has a queue of its
own that is in order by itself: starting is an append, cancelling is forgetting (the owner no longer names that
deadline), expiring is taking from the left.  A cancelled timer costs its place in a queue until it would have been due.

In: deadlines and whose they are.  Out: clocks; ``now_s`` should come from one that does not step back (if it does,
timers fire late, never twice).
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """The owner of two timers; a deadline of 0.0 means that the timer is not running."""

    retransmit_at_s: float
    expire_at_s: float


Owner = TypeVar("Owner", bound=Timed)


class Timers(Generic[Owner]):
    """The two timers (retransmit, expire) of each of many owners."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[float, deque[tuple[float, bool, Owner]]] = {}

    def start_retransmit(self, owner: Owner, mono_s: float, after_s: float) -> None:
        owner.retransmit_at_s = at_s = mono_s + after_s
        self._queue(after_s).append((at_s, False, owner))

    def start_expire(self, owner: Owner, mono_s: float, after_s: float) -> None:
        owner.expire_at_s = at_s = mono_s + after_s
        self._queue(after_s).append((at_s, True, owner))

    def _queue(self, after_s: float) -> deque[tuple[float, bool, Owner]]:
        queue = self._queues.get(after_s)
        if queue is None:
            queue = self._queues[after_s] = deque()
        return queue

    def next_s(self) -> float | None:
        """The earliest deadline, None if no timer runs."""
        earliest: float | None = None
        for queue in self._queues.values():
            while queue:
                at_s, expires, owner = queue[0]
                if at_s == (owner.expire_at_s if expires else owner.retransmit_at_s):
                    if earliest is None or at_s < earliest:
                        earliest = at_s
                    break
                queue.popleft()
        return earliest

    def due(self, mono_s: float) -> list[tuple[float, bool, Owner]]:
        """Take what is due, earliest first: (deadline, expires, owner).  Ask ``runs`` before each is acted on."""
        found: list[tuple[float, bool, Owner]] = []
        for queue in self._queues.values():
            while queue and queue[0][0] <= mono_s:
                entry = queue.popleft()
                if self.runs(entry):
                    found.append(entry)
        if len(found) > 1:
            found.sort(key=itemgetter(0))
        return found

    @staticmethod
    def runs(entry: tuple[float, bool, Owner]) -> bool:
        """Not cancelled since it was taken."""
        at_s, expires, owner = entry
        return at_s == (owner.expire_at_s if expires else owner.retransmit_at_s)

    def __len__(self) -> int:
        """Places taken in the queues, cancelled timers included."""
        return sum(map(len, self._queues.values()))
