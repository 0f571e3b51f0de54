"""What takes seconds of processor time for a large price list: reading and writing a file of it, and packing its rows.

In: the work itself, on a store (`StoreDeckWork`). Out: in which process it is done (adapters.deck_process).
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from callwarden.common.pace import Pace
from callwarden.kernel import csv_rows
from callwarden.kernel.clock import Clock
from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.errors import Invalid
from callwarden.kernel.hours import BadPeakHours, HoursPlan, parse_plan
from callwarden.kernel.money import BadCurrency, parse_currency
from callwarden.rating.core import deck_csv
from callwarden.rating.core.deck import (
    WINDOWS_MAX,
    DeckHead,
    DeckRow,
    ImportedDeck,
    PackedRows,
    RowPacker,
    is_name,
    is_window_name,
)
from callwarden.rating.ports import DeckStore

ERRORS_MAX: Final = 100  # A hundred wrong lines are one mistake; the reply stays small.
PAGE_ROWS: Final = 1_000  # Read or written together: 5 ms of the database.
IMPORT_SHARE: Final = 0.5  # Of the time, so that calls find processors and database free in between.


def check(head: DeckHead) -> HoursPlan | None:
    """Check the head of a deck; returns the plan of its periods. Invalid."""
    if not is_name(head.name):
        raise Invalid("a deck's name has 1 to 64 characters of A-Z a-z 0-9 . _ -", field="name")
    try:
        parse_currency(head.currency)
    except BadCurrency as error:
        raise Invalid(str(error), field="currency") from error
    try:
        zone = ZoneInfo(head.time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(f"unknown time zone {head.time_zone[:64]!r}", field="time_zone") from error
    names = [window.name for window in head.windows]
    if len(names) > WINDOWS_MAX:
        raise Invalid(f"a deck has at most {WINDOWS_MAX} windows", field="windows")
    for name in names:
        if not is_window_name(name):
            reason = f"{name[:40]!r} is no name of a window (1 to 32 of a-z 0-9 -; not peak, off-peak or other)"
            raise Invalid(reason, field="windows")
        if names.count(name) > 1:
            raise Invalid(f"{name} is there twice", field="windows")
    field = "peak_hours"
    try:
        if head.peak_hours:
            parse_plan([head.peak_hours], zone)
        field = "windows"
        return parse_plan([period.hours for period in head.periods], zone) if head.periods else None
    except BadPeakHours as error:
        raise Invalid(error.reason, field=field) from error


class StoreDeckWork:
    """ports.DeckWork, done in this process."""

    def __init__(self, store: DeckStore, clock: Clock) -> None:
        self._store = store
        self._pace = Pace(clock, IMPORT_SHARE)

    async def replace(self, head: DeckHead, content: AsyncIterable[bytes]) -> ImportedDeck | list[LineError]:
        text = csv_rows.decode(b"".join([part async for part in content]))
        if isinstance(text, LineError):
            return [text]
        check(head)
        errors: list[LineError] = []
        rows = 0
        async for page in self._pace.over(_pages(text, head)):
            errors += [item for item in page if isinstance(item, LineError)]
            rows += len(page)
            if len(errors) >= ERRORS_MAX:
                break
        if errors:
            return errors[:ERRORS_MAX]
        return ImportedDeck(rows, await self._store.replace(head, self._good_pages(text, head)))

    async def _good_pages(self, text: str, head: DeckHead) -> AsyncIterator[Sequence[DeckRow]]:
        """The rows of a checked file, read a second time: a million of them at once would take 500 MB."""
        async for page in self._pace.over(_pages(text, head)):
            yield [item for item in page if isinstance(item, DeckRow)]

    async def pack(self, head: DeckHead) -> PackedRows:
        packer = RowPacker()
        async for rows in self._store.rows(head.name, head.version):
            packer.add(rows)
        return packer.pack()


def _pages(text: str, head: DeckHead) -> Iterator[list[DeckRow | LineError]]:
    page: list[DeckRow | LineError] = []
    windows = [window.name for window in head.windows]
    for item in deck_csv.read(text, has_peak=bool(head.peak_hours), windows=windows):
        page.append(item)
        if len(page) == PAGE_ROWS:
            yield page
            page = []
    if page:
        yield page
