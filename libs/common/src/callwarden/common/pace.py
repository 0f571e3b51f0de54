"""Long work in small pieces, each followed by a rest, so that what is urgent finds the processors free.

A lower priority alone doesn't do it: a nice value is worth nothing against processes of another session (autogroups,
sched(7)) or another container, nor does it reach the database, which does half of the work at its own priority.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from callwarden.kernel.clock import Clock

T = TypeVar("T")

# Where the two share processors, calls have three times the weight (sched(7)). More would starve administration on a
# machine that is busy with other things.
NICENESS: Final = 5
_AUTOGROUP: Final = Path("/proc/self/autogroup")


def let_others_first() -> None:
    """Give this process a lower priority. Linux weighs whole sessions first (sched(7), autogroups), so the session is
    given it too where it is this process's own."""
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # no Linux, or one without autogroups
            _AUTOGROUP.write_text(str(NICENESS))


class Pace:
    """Rests so long after each piece of work that all work takes at most a share of the time."""

    def __init__(self, clock: Clock, share: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """`share`: of the time, above 0 and up to 1."""
        self._clock = clock
        self._rest_of_work = 1.0 / share - 1.0
        self._sleep = sleep

    async def over(self, pieces: Iterable[T]) -> AsyncIterator[T]:
        """Each piece; what makes it, and what is done with it until the next is asked for, is the work."""
        began_s = self._clock.mono_s()
        for piece in pieces:
            yield piece
            await self._sleep((self._clock.mono_s() - began_s) * self._rest_of_work)
            began_s = self._clock.mono_s()


def pieces(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in their order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
