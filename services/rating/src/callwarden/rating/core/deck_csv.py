"""Reading a deck from CSV, a row at a time; every line that is wrong is named with its field and the reason.

Columns, by the names in the first line, in any order: `prefix` and `rate` (both required), `description`,
`connect_fee`, `unit_s` (60), `first_increment_s` (1), `next_increment_s` (1), `free_s` (0), `minimum` (0),
`off_peak_rate` and `off_peak_connect_fee` (empty: as in peak). Amounts are decimal numbers in the deck's currency,
`rate` for `unit_s` seconds. UTF-8; separated by comma, semicolon or tab. Empty lines and those that begin with "#" are
skipped.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from callwarden.kernel.money import BadAmount, parse_amount
from callwarden.kernel.tariff import RATE_MICROS_MAX, SECONDS_MAX
from callwarden.rating.core.deck import DeckRow, Tariff, is_prefix

BYTES_MAX: Final = 128 * 1024 * 1024  # 128 bytes a row
ROWS_MAX: Final = 1_000_000  # The largest wholesale lists have about 300,000; each takes 90 bytes of every process.
DESCRIPTION_CHARS_MAX: Final = 128
LINE_CHARS_MAX: Final = 4_096  # A line of ours has 200; csv's own bound is on a field and not on their number.

_REQUIRED: Final = ("prefix", "rate")
_AMOUNTS: Final = ("rate", "connect_fee", "minimum", "off_peak_rate", "off_peak_connect_fee")
_SECONDS_MIN: Final = {"unit_s": 1, "first_increment_s": 1, "next_increment_s": 1, "free_s": 0}
COLUMNS: Final = (
    "prefix",
    "description",
    "rate",
    "connect_fee",
    "unit_s",
    "first_increment_s",
    "next_increment_s",
    "free_s",
    "minimum",
    "off_peak_rate",
    "off_peak_connect_fee",
)
_OFF_PEAK: Final = ("off_peak_rate", "off_peak_connect_fee")


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong in line `line` (the first is 1); `field` is the column's name, or empty for the whole line."""

    line: int
    field: str
    reason: str


class _BadCell(ValueError):
    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(reason)


def decode(content: bytes) -> str | LineError:
    """The text of a file; UTF-8, with or without the mark at its beginning."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return LineError(content.count(b"\n", 0, error.start) + 1, "", "is not UTF-8")


def read(text: str, *, has_peak: bool) -> Iterator[DeckRow | LineError]:
    """Each row, or what is wrong with it. A wrong first line is the only result then.

    `has_peak`: the deck has peak hours; without them off-peak prices are an error, since they would never be charged.
    """
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=_delimiter(text), strict=True)
    columns: list[str] | None = None
    first_line_of: dict[int, int] = {}
    rows = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield LineError(lines.number, "", f"is not CSV: {error}")
            return  # After a broken quote nothing can be told from anything.
        if cells is None:
            break
        if lines.too_long:
            yield LineError(lines.too_long, "", f"is longer than {LINE_CHARS_MAX} characters")
            return
        if not any(cells) or cells[0].startswith("#"):
            continue
        if columns is None:
            columns = [cell.strip().lower() for cell in cells]
            if error_in_header := _header_error(columns, lines.number):
                yield error_in_header
                return
            continue
        rows += 1
        if rows > ROWS_MAX:
            yield LineError(lines.number, "", f"a deck has at most {ROWS_MAX} rows")
            return
        found = _row(columns, cells, lines.number, has_peak)
        if isinstance(found, DeckRow):
            earlier = first_line_of.setdefault(int(found.prefix), lines.number)
            if earlier != lines.number:
                found = LineError(lines.number, "prefix", f"stands on line {earlier} already")
        yield found
    if columns is None:
        yield LineError(1, "", f"the file is empty; its first line names the columns: {','.join(COLUMNS)}")
    elif not rows:
        yield LineError(lines.number, "", "there are no rows")


class _Lines:
    """The lines of a text one at a time, without a second copy of it all, counted."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.number = 0
        self.too_long = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self._position >= len(self._text):
            raise StopIteration
        end = self._text.find("\n", self._position) + 1 or len(self._text)
        line = self._text[self._position : end]
        self._position = end
        self.number += 1
        if len(line) > LINE_CHARS_MAX:
            self.too_long = self.too_long or self.number
            return "\n"  # not given to csv at all
        return line


def _delimiter(text: str) -> str:
    """By the first line that says something; a comma wins, because column names hold none of the three."""
    for line in _Lines(text[: 16 * LINE_CHARS_MAX]):
        if line.strip() and not line.startswith("#"):
            return next((mark for mark in ",;\t" if mark in line), ",")
    return ","


def _header_error(columns: list[str], line: int) -> LineError | None:
    for column in columns:
        if column not in COLUMNS:
            return LineError(line, column[:40], f"there is no such column; there are {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            return LineError(line, column, "stands in the first line twice")
    for column in _REQUIRED:
        if column not in columns:
            return LineError(line, column, "the column is missing in the first line")
    return None


def _row(columns: list[str], cells: list[str], line: int, has_peak: bool) -> DeckRow | LineError:
    if len(cells) != len(columns):
        return LineError(line, "", f"has {len(cells)} fields, the first line {len(columns)}")
    values = dict(zip(columns, cells, strict=True))
    try:
        amounts = {field: _amount(field, values[field].strip()) for field in _AMOUNTS if field in values}
        seconds = {field: _seconds(field, values[field].strip()) for field in _SECONDS_MIN if field in values}
        rate = amounts["rate"]
        if rate is None:
            raise _BadCell("rate", "is missing")
        if not has_peak:
            for field in _OFF_PEAK:
                if amounts.get(field) is not None:
                    raise _BadCell(field, "the deck has no peak hours: name them, or leave this empty")
        return DeckRow(
            _prefix(values["prefix"].strip()),
            _description(values.get("description", "").strip()),
            Tariff(
                rate,
                seconds.get("unit_s") or 60,
                amounts.get("connect_fee") or 0,
                seconds.get("first_increment_s") or 1,
                seconds.get("next_increment_s") or 1,
                seconds.get("free_s") or 0,
                amounts.get("minimum") or 0,
                amounts.get("off_peak_rate"),
                amounts.get("off_peak_connect_fee"),
            ),
        )
    except _BadCell as bad:
        return LineError(line, bad.field, bad.reason)


def _prefix(text: str) -> str:
    digits = text.removeprefix("+")
    if not is_prefix(digits):
        raise _BadCell("prefix", f"{text[:20]!r} is not the beginning of an international number (digits, no 0 first)")
    return digits


def _description(text: str) -> str:
    if len(text) > DESCRIPTION_CHARS_MAX:
        raise _BadCell("description", f"is longer than {DESCRIPTION_CHARS_MAX} characters")
    if not text.isprintable():  # It is shown in terminals and logs.
        raise _BadCell("description", "has control characters")
    return text


# The same few numbers stand in most rows of a list; reading one anew costs 2 µs, ten times what remembering it does.
@lru_cache(4_096)
def _amount(field: str, text: str) -> int | None:
    """None where nothing is written."""
    if not text:
        return None
    try:
        micros = parse_amount(text)
    except BadAmount as error:
        raise _BadCell(field, str(error)) from error
    if not 0 <= micros <= RATE_MICROS_MAX:
        raise _BadCell(field, f"must be 0 to {RATE_MICROS_MAX // 1_000_000}")
    return micros


@lru_cache(4_096)
def _seconds(field: str, text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and _SECONDS_MIN[field] <= int(text) <= SECONDS_MAX):
        raise _BadCell(field, f"{text[:20]!r} is not a number of seconds from {_SECONDS_MIN[field]} to {SECONDS_MAX}")
    return int(text)
