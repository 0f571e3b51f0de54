"""Goes through records, ledger entries and holds and says what is wrong with them: when an operator asks, and by itself
every hour.

In: what is read, in which order, what was found last. Out: what is wrong (core.charges), reading (ports.Charges), what
edges know (ports.CallsOfEdges).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

from callwarden.call_admission.records.core.charges import (
    ChargeCount,
    ChargedCall,
    ChargeFinding,
    FindingKind,
    OpenHold,
    check_call,
    check_entry,
    check_hold,
    is_to_be_known,
    unknown_call,
)
from callwarden.call_admission.records.ports import CallsOfEdges, Charges
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Unavailable

log = get_logger(__name__)

DAY_S: Final = 86_400
NAMED_MAX: Final = 20  # findings of a check by itself that the log names; `callwarden ledger check` shows all


class ChargeCheck:
    """`run` checks every `every_s`, what was charged in the `span_s` before. `kept_days`: of records; 0: for ever."""

    def __init__(
        self, charges: Charges, edges: CallsOfEdges, clock: Clock, rng: Callable[[], float], *, kept_days: int,
        every_s: float, span_s: float,
    ) -> None:  # fmt: skip
        self._charges = charges
        self._edges = edges
        self._clock = clock
        self._rng = rng
        self._kept_days = kept_days
        self._every_s, self._span_s = every_s, span_s
        self.found: dict[FindingKind, int] = {}
        """By the last check of `run`; empty before the first."""
        self.checked_at_s = 0.0
        """When the last one was done; 0: none was."""

    async def check(
        self, account_id: UUID | None, since_s: float, count: ChargeCount
    ) -> AsyncIterator[Sequence[ChargeFinding]]:
        """What is wrong, page by page, of calls that began or were charged since then, and of all holds; `count`
        grows as it goes. Raises Unavailable."""
        until_s = self._clock.unix_s()
        async for calls in self._charges.calls(account_id, since_s, until_s):
            yield _counted(count, (finding for call in calls for finding in _checked(call, count)))
        # Of what was charged so long ago the record may have been deleted. A day more: calls last, and end late.
        kept_since_s = until_s - (self._kept_days - 1) * DAY_S if self._kept_days else 0.0
        async for entries in self._charges.entries(account_id, max(since_s, kept_since_s)):
            count.entries += len(entries)
            calls_of = {call.hold_id: call for call in await self._charges.calls_of([one.hold_id for one in entries])}
            # Calls that began earlier and were charged since; the others have been looked at.
            earlier = [call for call in calls_of.values() if call.started_at_s < since_s]
            found = [finding for call in earlier for finding in _checked(call, count)]
            for entry in entries:
                found += check_entry(entry, has_record=entry.hold_id in calls_of)
            yield _counted(count, found)
        async for holds in self._charges.holds(account_id):
            count.holds += len(holds)
            unix_s = self._clock.unix_s()
            found = [finding for hold in holds for finding in check_hold(hold, unix_s, kept_since_s)]
            found += await self._unknown([hold for hold in holds if is_to_be_known(hold, unix_s)], count)
            yield _counted(count, found)

    async def _unknown(self, holds: Sequence[OpenHold], count: ChargeCount) -> list[ChargeFinding]:
        if not holds:
            return []
        try:
            missing = await self._edges.unknown(holds)
            # A call may have ended between: then its hold is gone.
            ended = {call.hold_id for call in await self._charges.calls_of(list(missing))} if missing else set()
        except Unavailable as error:
            count.edges_asked = False
            log.warning("charges.edges_not_asked", error=error)
            return []
        return [unknown_call(hold) for hold in holds if hold.hold_id in missing - ended]

    # ------------------------------------------------------------------ by itself

    async def run(self) -> None:
        """For ever."""
        while True:
            # Not all processes at the same moment.
            await asyncio.sleep(self._every_s * (0.5 + self._rng()))
            try:
                await self.run_once()
            except CallwardenError as error:
                log.warning("charges.not_checked", error=error)

    async def run_once(self) -> None:
        """Raises Unavailable."""
        count = ChargeCount()
        named = 0
        async for findings in self.check(None, self._clock.unix_s() - self._span_s, count):
            for finding in findings[: NAMED_MAX - named]:
                named += 1
                log.error(
                    "charge.wrong", kind=finding.kind.value, hold_id=str(finding.hold_id), account=finding.account,
                    expected_micros=finding.expected_micros, found_micros=finding.found_micros, note=finding.note,
                )  # fmt: skip
        self.found = {kind: count.found[kind] for kind in FindingKind}
        self.checked_at_s = self._clock.unix_s()
        log.info("charges.checked", records=count.records, entries=count.entries, found=count.found.total())


def _checked(call: ChargedCall, count: ChargeCount) -> Iterable[ChargeFinding]:
    count.records += 1
    count.unpriced += call.price is None
    count.uncharged += call.uncharged_micros > 0
    return check_call(call)


def _counted(count: ChargeCount, findings: Iterable[ChargeFinding]) -> Sequence[ChargeFinding]:
    found = list(findings)
    count.found.update(finding.kind for finding in found)
    return found
