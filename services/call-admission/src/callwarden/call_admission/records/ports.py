"""What records need of the world. Each docstring is the contract; every method may raise Unavailable."""

from collections.abc import AsyncIterator, Sequence, Set
from typing import Final, Protocol, TypeAlias
from uuid import UUID

from callwarden.call_admission.records.core.charges import BookedCharge, ChargedCall, OpenHold
from callwarden.call_admission.records.core.corrections import Corrected
from callwarden.call_admission.records.core.records import CallRecord, Decisions, LedgerEntries, RecordPlace

KEPT: Final = ("cdr", "decision", "counter", "spend_day")
"""What doesn't stay for ever."""


Slice: TypeAlias = tuple[UUID, UUID | None]
"""Account ids from the first up to the second; None: to the last."""


class Records(Protocol):
    """Calls that are over, and what was decided about calls. All methods raise Unavailable."""

    def export(self, account_id: UUID | None, since_s: float, until_s: float) -> AsyncIterator[Sequence[CallRecord]]:
        """Records of calls that began in that time, by account and start, page by page. What is settled meanwhile may
        be among them."""
        ...

    async def decisions(
        self, account_id: UUID, since_s: float, outcome: str, after: RecordPlace | None, limit: int
    ) -> Decisions:
        """The newest first, beginning after that place."""
        ...

    async def ledger(self, account_id: UUID, since_s: float, after: RecordPlace | None, limit: int) -> LedgerEntries:
        """What was booked on the account, the newest first, beginning after that place."""
        ...

    async def correct_call(self, hold_id: UUID, price_micros: int, note: str, key: str) -> Corrected:
        """Makes a settled call cost so much, by a reversing entry: balance and spend of its day follow in the same
        transaction. Once for each key. Raises NotFound; Conflict when the call still runs, the account can't bear it,
        or the key has done something else."""
        ...

    async def reverse_entry(self, entry_id: UUID, note: str, key: str) -> Corrected:
        """Takes back what is left of an entry, likewise. Raises as correct_call; Invalid for a reversal."""
        ...

    async def forget(self, kind: str, slice_: Slice, before_s: float, limit: int) -> int:
        """Deletes at most `limit` rows of one of KEPT that are older, of accounts of the slice; how many it found.
        Several processes may do so at once."""
        ...


class Charges(Protocol):
    """What was booked about calls, to be checked. All methods raise Unavailable. Pages are never empty."""

    def calls(self, account_id: UUID | None, since_s: float, until_s: float) -> AsyncIterator[Sequence[ChargedCall]]:
        """Records of calls that began in that time; each with what the ledger has of it at the same moment."""
        ...

    async def calls_of(self, hold_ids: Sequence[UUID]) -> Sequence[ChargedCall]:
        """The records of these calls, as far as there are any, likewise."""
        ...

    def entries(self, account_id: UUID | None, since_s: float) -> AsyncIterator[Sequence[BookedCharge]]:
        """Charges of calls, and corrections by late ends, that were booked since then."""
        ...

    def holds(self, account_id: UUID | None) -> AsyncIterator[Sequence[OpenHold]]:
        """All holds, each with what its call was recorded as at the same moment."""
        ...


class CallsOfEdges(Protocol):
    """What edges know of running calls."""

    async def unknown(self, holds: Sequence[OpenHold]) -> Set[UUID]:
        """Those of the holds whose calls no edge knows: answered calls that no edge has written down, and calls being
        set up whose edge is gone. Raises Unavailable."""
        ...
