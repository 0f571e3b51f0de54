"""The desk where operators change accounts and trunks and ask about calls: found, changed, then told.

Out: deciding calls (app), what an account may be (core.accounts), how it is kept (ports).
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from callwarden.call_admission.accounts.core import account_csv
from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.call_admission.accounts.core.accounts import (
    AccountChange,
    AccountFilter,
    AccountRef,
    AccountView,
    Audit,
    CallView,
    Explanation,
    NewAccount,
    Trunk,
    TrunkChange,
)
from callwarden.call_admission.accounts.ports import Accounts, News, Reseller, Resellers
from callwarden.call_admission.model.account import AccountType
from callwarden.call_admission.model.sources import PolicySource
from callwarden.call_admission.records.core import records
from callwarden.call_admission.records.core.corrections import Corrected
from callwarden.call_admission.records.core.records import Decisions, LedgerEntries, RecordedDecision, RecordPlace
from callwarden.call_admission.records.ports import Records
from callwarden.common.logs import get_logger
from callwarden.kernel import csv_rows
from callwarden.kernel.clock import Clock
from callwarden.kernel.csv_rows import LineError

log = get_logger(__name__)

# Accounts read, checked and written together: 2 ms of work, then the database is waited for.
IMPORT_PAGE: Final = 64
ERRORS_MAX: Final = 1_000  # nobody corrects more at a time
_NOBODY: Final = UUID(int=0)
REPORTED_SCAN_MAX: Final = 5_000  # decisions looked through for one page of those that only report


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Implements ports.Ceilings by the policies."""

    policies: PolicySource

    @property
    def system(self) -> int | None:
        return self.policies.for_realm("").accounts_max

    def realm(self, name: str) -> int | None:
        return self.policies.for_realm(name).realm_accounts_max


@dataclass(frozen=True, slots=True)
class ImportWish:
    """A file of accounts, and what is to be done with it."""

    content: bytes
    realm: str
    currency: str
    dry_run: bool
    keep_going: bool


@dataclass(frozen=True, slots=True)
class Imported:
    """How many accounts were created (would be, in a dry run), and what is wrong with the other lines."""

    created: int
    errors: tuple[LineError, ...]
    """The first ERRORS_MAX."""
    errors_total: int


class AccountDesk:
    """What operators do with accounts and trunks, and ask about calls: found, changed, then told."""

    def __init__(
        self,
        accounts: Accounts,
        records: Records,
        news: News,
        policies: PolicySource,
        clock: Clock,
        new_id: Callable[[], UUID],
    ) -> None:
        self._accounts = accounts
        self._records = records
        self._ceilings = Ceilings(policies)
        self._news = news
        self._clock = clock
        self._new_id = new_id

    async def create(self, account: NewAccount) -> AccountView:
        """Raises Conflict, Invalid, Exhausted, Unavailable."""
        account_id = self._new_id()
        await self._accounts.create(account_id, account, self._ceilings)
        if account.numbers:
            self._news.account_changed(account_id, "numbers", account.realm)
        return await self._accounts.get(account_id, self._clock.unix_s())

    async def get(self, ref: AccountRef) -> AccountView:
        """Raises NotFound, Conflict for a name that several realms have, Unavailable."""
        return await self._accounts.get(await self._accounts.find(ref), self._clock.unix_s())

    async def list(
        self,
        after: str,
        limit: int,
        wanted: AccountFilter = AccountFilter(),  # noqa: B008
    ) -> Sequence[AccountView]:
        return await self._accounts.list(after, limit, self._clock.unix_s(), wanted)

    async def update(self, ref: AccountRef, change: AccountChange) -> AccountView:
        """All of the change or nothing. Raises as get, and Conflict or Invalid for numbers."""
        account_id = await self._accounts.find(ref)
        await self._accounts.update(account_id, change)
        view = await self._accounts.get(account_id, self._clock.unix_s())
        for what in _told(change):
            self._news.account_changed(account_id, what, view.account.realm)
        return view

    # ------------------------------------------------------------------ many accounts

    async def import_(self, wish: ImportWish) -> Imported:
        """All accounts of the file or none; with `keep_going` those that are right. Raises as create."""
        text = csv_rows.decode(wish.content)
        if isinstance(text, LineError):
            return Imported(0, (text,), 1)
        errors = _Errors()
        resellers: Resellers = {}
        good = 0
        for page in _pages(text, wish):
            lines = [found for found in page if isinstance(found, Line)]
            errors.add(found for found in page if isinstance(found, LineError))
            if not errors.total or wish.keep_going or wish.dry_run:
                # Those that come later in the file, in this page too, may belong to them.
                self._note_resellers(resellers, lines)
                wrong = await self._accounts.check(lines, resellers)
                errors.add(wrong)
                good += len(lines) - len(wrong)
                self._forget_resellers(resellers, lines, {error.line for error in wrong})
        if wish.dry_run or not good or (errors.total and not wish.keep_going):
            return Imported(good if wish.dry_run else 0, tuple(errors.first), errors.total)
        created = await self._accounts.create_all(
            lambda: _written(text, wish, errors.lines), self._new_id, resellers, self._ceilings
        )
        # Whoever knows numbers reads all of them anew, whichever account is named.
        self._news.account_changed(_NOBODY, "numbers", "")
        log.info("accounts.imported", count=created, errors=errors.total)
        return Imported(created, tuple(errors.first), errors.total)

    def _note_resellers(self, resellers: Resellers, lines: Sequence[Line]) -> None:
        for line in lines:
            account = line.account
            if account.type is AccountType.RESELLER:
                resellers[account.realm, account.name] = Reseller(self._new_id(), account.currency, line.number)

    def _forget_resellers(self, resellers: Resellers, lines: Sequence[Line], wrong: set[int]) -> None:
        for line in lines:
            if line.number in wrong:
                resellers.pop((line.account.realm, line.account.name), None)

    async def export(self, wanted: AccountFilter) -> AsyncIterator[str]:
        """A file that `import_` takes, in pieces."""
        yield account_csv.header()
        async for page in self._accounts.pages(wanted):
            yield account_csv.write(page)

    # ------------------------------------------------------------------ trunks

    async def create_trunk(self, trunk: Trunk) -> Trunk:
        account_id = await self._accounts.find(AccountRef.parse(trunk.account))
        await self._accounts.create_trunk(trunk, account_id)
        view = await self._accounts.get(account_id, self._clock.unix_s())
        self._news.account_changed(account_id, "trunk", view.account.realm)
        return replace(trunk, account=view.account.name, realm=view.account.realm)

    async def update_trunk(self, name: str, change: TrunkChange) -> Trunk:
        """All of the change or nothing. Raises NotFound, Invalid, Unavailable."""
        trunk, account_id = await self._accounts.update_trunk(name, change)
        view = await self._accounts.get(account_id, self._clock.unix_s())
        self._news.account_changed(account_id, "trunk", view.account.realm)
        return trunk

    async def trunks(self) -> Sequence[Trunk]:
        return await self._accounts.trunks()

    async def delete_trunk(self, name: str) -> bool:
        """Whether there was one. Raises Conflict while routes lead to it."""
        account_id = await self._accounts.delete_trunk(name)
        if account_id is not None:
            view = await self._accounts.get(account_id, self._clock.unix_s())
            self._news.account_changed(account_id, "trunk", view.account.realm)
        return account_id is not None

    # ------------------------------------------------------------------ calls

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
        return await self._accounts.calls(account_id, since_s, limit, running=running)

    async def explain(self, call_id: str) -> Explanation:
        return await self._accounts.explain(call_id)

    async def audit(self, ref: AccountRef | None) -> Audit:
        return await self._accounts.audit(None if ref is None else await self._accounts.find(ref))


class _Errors:
    """What is wrong, in the order of lines as they were looked at."""

    def __init__(self) -> None:
        self.first: list[LineError] = []
        self.lines: set[int] = set()
        self.total = 0

    def add(self, errors: Iterable[LineError]) -> None:
        for error in errors:
            self.total += 1
            self.lines.add(error.line)
            if len(self.first) < ERRORS_MAX:
                self.first.append(error)


def _pages(text: str, wish: ImportWish) -> Iterator[Sequence[Line | LineError]]:
    """A page ends before accounts that may belong to a reseller in it: what it makes is known when it was checked."""
    page: list[Line | LineError] = []
    makes_resellers = False
    for found in account_csv.read(text, realm=wish.realm, currency=wish.currency):
        account = found.account if isinstance(found, Line) else None
        if len(page) == IMPORT_PAGE or (makes_resellers and account is not None and account.parent):
            yield page
            page, makes_resellers = [], False
        page.append(found)
        makes_resellers |= account is not None and account.type is AccountType.RESELLER
    if page:
        yield page


def _written(text: str, wish: ImportWish, wrong: set[int]) -> Iterator[Sequence[Line]]:
    """The good lines once more: reading them again takes less than keeping them all."""
    for page in _pages(text, wish):
        yield [found for found in page if isinstance(found, Line) and found.number not in wrong]


def _told(change: AccountChange) -> Iterator[str]:
    if change.active is not None:
        yield "status"
    if change.add_numbers or change.remove_numbers:
        yield "numbers"
    plain = (
        change.deck,
        change.currency,
        change.time_zone,
        change.prepaid,
        change.parent,
        change.shards,
        change.country,
    )
    if any(value is not None for value in plain) or change.limits or change.clear or change.add_lists or (
        change.remove_lists
    ):  # fmt: skip
        yield "limits"
