"""What operators ask of calls, decisions and the ledger, and how they correct them.

Out: how records are kept (records), what is decided about calls (admission).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final
from uuid import UUID

from callwarden.call_admission.accounts.core.accounts import AccountRef
from callwarden.call_admission.accounts.core.views import CallView, Explanation, LedgerAudit
from callwarden.call_admission.accounts.ports import Accounts, CallHistory
from callwarden.call_admission.records.app.charge_check import ChargeCheck
from callwarden.call_admission.records.core import records
from callwarden.call_admission.records.core.charges import ChargeCount, ChargeFinding
from callwarden.call_admission.records.core.corrections import Corrected
from callwarden.call_admission.records.core.records import Decisions, LedgerEntries, RecordedDecision, RecordPlace
from callwarden.call_admission.records.ports import Records
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock

log = get_logger(__name__)

REPORTED_SCAN_MAX: Final = 5_000  # decisions looked through for one page of those that only report


class RecordService:
    """Calls, decisions and ledger entries, by account."""

    def __init__(
        self, accounts: Accounts, history: CallHistory, records: Records, clock: Clock, check: ChargeCheck
    ) -> None:
        self._accounts = accounts
        self._history = history
        self._records = records
        self._clock = clock
        self._check = check

    async def export_calls(
        self, ref: AccountRef | None, since_s: float, until_s: float, format_: str
    ) -> AsyncIterator[str]:
        """Records of calls that began from then until before then (0: now), in pieces. Raises as get."""
        account_id = None if ref is None else await self._accounts.find(ref)
        yield records.header(format_)
        async for page in self._records.export(account_id, since_s, until_s or self._clock.unix_s()):
            yield records.write(page, format_)

    async def decisions(
        self, ref: AccountRef, since_s: float, outcome: str, after: RecordPlace | None, limit: int,
        is_wanted: Callable[[bytes], bool] | None = None,
    ) -> Decisions:  # fmt: skip
        """The newest first. `is_wanted` looks into each; at most REPORTED_SCAN_MAX are looked at for one answer, which
        may then have fewer than `limit`, and say where to go on."""
        account_id = await self._accounts.find(ref)
        found: list[RecordedDecision] = []
        scanned = 0
        while True:
            page = await self._records.decisions(account_id, since_s, outcome, after, limit - len(found))
            found += [made for made in page.decisions if is_wanted is None or is_wanted(made.body)]
            scanned += len(page.decisions)
            after = page.next
            if after is None or len(found) >= limit or scanned >= REPORTED_SCAN_MAX:
                return Decisions(tuple(found), after)

    async def ledger(self, ref: AccountRef, since_s: float, after: RecordPlace | None, limit: int) -> LedgerEntries:
        """What was booked on the account, the newest first. Raises NotFound, Unavailable."""
        return await self._records.ledger(await self._accounts.find(ref), since_s, after, limit)

    async def correct_call(self, hold_id: UUID, price_micros: int, reason: str, key: str) -> Corrected:
        """Makes a settled call cost so much. Raises NotFound, Conflict, Unavailable."""
        done = await self._records.correct_call(hold_id, price_micros, reason, key)
        self._log_correction(done, str(hold_id))
        return done

    async def reverse_entry(self, entry_id: UUID, reason: str, key: str) -> Corrected:
        """Takes back what is left of a ledger entry. Raises NotFound, Conflict, Invalid, Unavailable."""
        done = await self._records.reverse_entry(entry_id, reason, key)
        self._log_correction(done, str(entry_id))
        return done

    def _log_correction(self, done: Corrected, reference: str) -> None:
        if not done.duplicate:
            log.info(
                "ledger.reversed", account=done.account, entry=str(done.entry_id), reference=reference,
                amount_micros=done.amount_micros,
            )  # fmt: skip

    async def calls(self, ref: AccountRef | None, since_s: float, limit: int, *, running: bool) -> Sequence[CallView]:
        account_id = None if ref is None else await self._accounts.find(ref)
        return await self._history.list(account_id, since_s, limit, running=running)

    async def explain(self, call_id: str) -> Explanation:
        return await self._history.explain(call_id)

    async def audit(self, ref: AccountRef | None) -> LedgerAudit:
        return await self._history.audit(None if ref is None else await self._accounts.find(ref))

    async def check_charges(
        self, ref: AccountRef | None, since_s: float, count: ChargeCount
    ) -> AsyncIterator[Sequence[ChargeFinding]]:
        """What is wrong with calls that began or were charged since then, and with holds; `count` grows as it goes."""
        account_id = None if ref is None else await self._accounts.find(ref)
        async for findings in self._check.check(account_id, since_s, count):
            yield findings
