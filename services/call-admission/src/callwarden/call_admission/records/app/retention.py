"""Forgets what is older than the settings say: call records, decisions, counters, days of spend.

In: what is next, and when. Out: how it is deleted (ports.Records). Never ledger entries: they are the books.

Every process does its part without asking the others. The space of account ids is cut into slices; each process begins
with one of its own chance and goes around, and in a slice deletes a few hundred rows at a time by their keys. Two that
meet in one slice find that the other's rows are gone, or the database makes one of them try again.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from callwarden.call_admission.records.ports import KEPT, Records, Slice
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError

log = get_logger(__name__)

SLICES: Final = 256  # of 100 million records one has 400,000, whose index is read in about half a second
EVERY_S: Final = 60.0  # for one slice: once around in about four hours
BATCH: Final = 500  # rows in one transaction: some milliseconds, and no calls' transaction waits for it
DAY_S: Final = 86_400
_BITS: Final = 128


class Retention:
    """`run` has to run. `days`: by KEPT; 0 or left out keeps for ever."""

    def __init__(self, records: Records, days: Mapping[str, int], clock: Clock, rng: Callable[[], float]) -> None:
        self._records = records
        self._days = {kind: days[kind] for kind in KEPT if days.get(kind)}
        self._clock = clock
        self._rng = rng
        self._next = int(rng() * SLICES)
        self.forgotten: dict[str, int] = dict.fromkeys(KEPT, 0)

    @property
    def forgets(self) -> bool:
        """Whether anything goes at all."""
        return bool(self._days)

    async def run(self) -> None:
        """For ever, a slice at a time."""
        while True:
            # Not all processes at the same moment.
            await asyncio.sleep(EVERY_S * (0.5 + self._rng()))
            try:
                await self.forget_slice(self._next)
            except CallwardenError as error:
                log.warning("retention.failed", error=error)
            else:
                self._next = (self._next + 1) % SLICES

    async def forget_slice(self, number: int) -> int:
        """Deletes what is too old of the accounts of one slice; how many rows. Raises Unavailable, Conflict."""
        unix_s = self._clock.unix_s()
        total = 0
        for kind, days in self._days.items():
            found = BATCH
            while found == BATCH:
                found = await self._records.forget(kind, slice_of(number), unix_s - days * DAY_S, BATCH)
                self.forgotten[kind] += found
                total += found
        if total:
            log.info("retention.forgotten", count=total, slice=number)
        return total


def slice_of(number: int) -> Slice:
    """The first id of a slice, and that of the next one; None after the last."""
    width = (1 << _BITS) // SLICES
    return UUID(int=number * width), UUID(int=(number + 1) * width) if number + 1 < SLICES else None
