"""Reads a deck from CSV, a row at a time; reports every wrong line with its field and the reason.

Columns, by the names in the first line, in any order: `prefix` and `rate` (both required), `description`,
`connect_fee`, `unit_s` (60), `first_increment_s` (1), `next_increment_s` (1), `free_s` (0), `minimum` (0),
`off_peak_rate` and `off_peak_connect_fee` (empty: as in peak). Amounts are decimal numbers in the deck's currency,
`rate` for `unit_s` seconds. UTF-8; separated by comma, semicolon or tab. Empty lines and those that begin with "#" are
skipped.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from callwarden.kernel import csv_rows
from callwarden.kernel.csv_rows import BadCell, LineError, Row
from callwarden.kernel.money import BadAmount, parse_amount
from callwarden.kernel.tariff import RATE_MICROS_MAX, SECONDS_MAX
from callwarden.rating.core.deck import DeckRow, Tariff, is_prefix

BYTES_MAX: Final = 128 * 1024 * 1024  # 128 bytes a row
ROWS_MAX: Final = 1_000_000  # The largest wholesale lists have about 300,000; a row takes 12 bytes in every process.
DESCRIPTION_CHARS_MAX: Final = 128
LINE_CHARS_MAX: Final = 4_096  # A line with all columns has 200.

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


def read(text: str, *, has_peak: bool) -> Iterator[DeckRow | LineError]:
    """Each row, or its error. If the first line is wrong, its error is the only result.

    `has_peak`: the deck has peak hours. Without them off-peak prices are an error, since they would never apply.
    """
    first_line_of: dict[int, int] = {}
    rows = csv_rows.read(
        text, columns=COLUMNS, required=_REQUIRED, of="rows", rows_max=ROWS_MAX, line_chars_max=LINE_CHARS_MAX
    )
    for row in rows:
        found = row if isinstance(row, LineError) else _row(row, has_peak)
        if isinstance(found, DeckRow):
            earlier = first_line_of.setdefault(int(found.prefix), row.line)
            if earlier != row.line:
                found = LineError(row.line, "prefix", f"is already on line {earlier}")
        yield found


def _row(row: Row, has_peak: bool) -> DeckRow | LineError:
    values = row.cells
    try:
        amounts = {field: _amount(field, values[field].strip()) for field in _AMOUNTS if field in values}
        seconds = {field: _seconds(field, values[field].strip()) for field in _SECONDS_MIN if field in values}
        rate = amounts["rate"]
        if rate is None:
            raise BadCell("rate", "is missing")
        if not has_peak:
            for field in _OFF_PEAK:
                if amounts.get(field) is not None:
                    raise BadCell(field, "the deck has no peak hours: set them, or leave this empty")
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
    except BadCell as bad:
        return bad.at(row.line)


def _prefix(text: str) -> str:
    digits = text.removeprefix("+")
    if not is_prefix(digits):
        raise BadCell(
            "prefix", f"{text[:20]!r} is not a prefix of an international number (digits without a leading 0)"
        )
    return digits


def _description(text: str) -> str:
    if len(text) > DESCRIPTION_CHARS_MAX:
        raise BadCell("description", f"is longer than {DESCRIPTION_CHARS_MAX} characters")
    if not text.isprintable():  # It is printed in terminals and logs.
        raise BadCell("description", "has control characters")
    return text


# Most rows of a list contain the same few numbers; parsing one costs 2 µs, ten times a cache hit.
@lru_cache(4_096)
def _amount(field: str, text: str) -> int | None:
    """None for an empty cell."""
    if not text:
        return None
    try:
        micros = parse_amount(text)
    except BadAmount as error:
        raise BadCell(field, str(error)) from error
    if not 0 <= micros <= RATE_MICROS_MAX:
        raise BadCell(field, f"must be 0 to {RATE_MICROS_MAX // 1_000_000}")
    return micros


@lru_cache(4_096)
def _seconds(field: str, text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and _SECONDS_MIN[field] <= int(text) <= SECONDS_MAX):
        raise BadCell(field, f"{text[:20]!r} is not a number of seconds from {_SECONDS_MIN[field]} to {SECONDS_MAX}")
    return int(text)
