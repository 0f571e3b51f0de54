"""Accounts from a file, all of them or none: checked page by page, then created.

Out: what a line says (core.account_csv), what an account may be (core.accounts), how it is kept (ports).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.accounts.core import account_csv
from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.call_admission.accounts.ports import AccountCeilings, Accounts, Reseller, Resellers
from callwarden.common.pace import Pace
from callwarden.kernel import csv_rows
from callwarden.kernel.account import AccountType
from callwarden.kernel.csv_rows import LineError

IMPORT_PAGE: Final = 16  # accounts read, checked and written together
ERRORS_MAX: Final = 1_000  # nobody corrects more at a time


@dataclass(frozen=True, slots=True)
class ImportRequest:
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


class AccountImporter:
    """Reads files of accounts, and creates what is in them."""

    def __init__(self, accounts: Accounts, ceilings: AccountCeilings, new_id: Callable[[], UUID], pace: Pace) -> None:
        self._accounts = accounts
        self._pace = pace
        self._ceilings = ceilings
        self._new_id = new_id

    async def run(self, request: ImportRequest) -> Imported:
        """All accounts of the file or none; with `keep_going` those that are right.

        Raises Conflict, Exhausted, Unavailable.
        """
        text = csv_rows.decode(request.content)
        if isinstance(text, LineError):
            return Imported(0, (text,), 1)
        errors = ImportErrors()
        resellers: Resellers = {}
        good = 0
        async for page in self._pace.over(_pages(text, request)):
            lines = [found for found in page if isinstance(found, Line)]
            errors.add(found for found in page if isinstance(found, LineError))
            if not errors.total or request.keep_going or request.dry_run:
                # Those that come later in the file, in this page too, may belong to them.
                self._add_resellers(resellers, lines)
                wrong = await self._accounts.check(lines, resellers)
                errors.add(wrong)
                good += len(lines) - len(wrong)
                self._forget_resellers(resellers, lines, {error.line for error in wrong})
        if request.dry_run or not good or (errors.total and not request.keep_going):
            return Imported(good if request.dry_run else 0, tuple(errors.first), errors.total)
        created = await self._accounts.create_all(
            lambda: self._pace.over(_written(text, request, errors.lines)), self._new_id, resellers, self._ceilings
        )
        return Imported(created, tuple(errors.first), errors.total)

    def _add_resellers(self, resellers: Resellers, lines: Sequence[Line]) -> None:
        for line in lines:
            account = line.account
            if account.type is AccountType.RESELLER:
                resellers[account.realm, account.name] = Reseller(self._new_id(), account.currency, line.number)

    def _forget_resellers(self, resellers: Resellers, lines: Sequence[Line], wrong: set[int]) -> None:
        for line in lines:
            if line.number in wrong:
                resellers.pop((line.account.realm, line.account.name), None)


class ImportErrors:
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


def _pages(text: str, request: ImportRequest) -> Iterator[Sequence[Line | LineError]]:
    """A page ends before accounts that may belong to a reseller in it: what it makes is known when it was checked."""
    page: list[Line | LineError] = []
    makes_resellers = False
    for found in account_csv.read(text, realm=request.realm, currency=request.currency):
        account = found.account if isinstance(found, Line) else None
        if len(page) == IMPORT_PAGE or (makes_resellers and account is not None and account.parent):
            yield page
            page, makes_resellers = [], False
        page.append(found)
        makes_resellers |= account is not None and account.type is AccountType.RESELLER
    if page:
        yield page


def _written(text: str, request: ImportRequest, wrong: set[int]) -> Iterator[Sequence[Line]]:
    """The good lines once more: reading them again takes less than keeping them all."""
    for page in _pages(text, request):
        yield [found for found in page if isinstance(found, Line) and found.number not in wrong]
