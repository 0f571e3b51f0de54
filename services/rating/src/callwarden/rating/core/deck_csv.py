"""Reads a deck from CSV, a row at a time; reports every wrong line with its field and the reason.

Columns, by the names in the first line, in any order: `prefix` and `rate` (both required), `description`,
`connect_fee`, `unit_s` (60), `first_increment_s` (1), `next_increment_s` (1), `steps` (other rates after some seconds,
see callwarden.rating.core.steps), `free_s` (0), `minimum` (0), `maximum` (empty: none), `at_maximum` ("free": the call
goes on for free; "cut": it ends), `off_peak_rate`, `off_peak_connect_fee` and `off_peak_steps` (empty: as in peak). For
each window of the deck `rate.NAME`, `connect_fee.NAME`, `unit_s.NAME`, `first_increment_s.NAME`,
`next_increment_s.NAME` and `steps.NAME` (empty: as the row). Amounts are decimal numbers in the deck's currency; `rate`
is for `unit_s` seconds. UTF-8; separated by comma, semicolon or tab. Empty lines and those that begin with "#"
are skipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from callwarden.kernel import csv_rows
from callwarden.kernel.csv_rows import BadCell, LineError, Row
from callwarden.kernel.money import BadAmount, parse_amount
from callwarden.kernel.tariff import RATE_MICROS_MAX, SECONDS_MAX, RateGroup
from callwarden.rating.core.deck import AS_THE_ROW, DeckRow, Tariff, WindowCharges, is_prefix
from callwarden.rating.core.steps import NONE, BadSteps, parse_steps

BYTES_MAX: Final = 128 * 1024 * 1024  # 128 bytes a row
ROWS_MAX: Final = 1_000_000  # The largest wholesale lists have about 300,000; a row takes 12 bytes in every process.
DESCRIPTION_CHARS_MAX: Final = 128
LINE_CHARS_MAX: Final = 4_096  # A line with all columns has 300, and 100 more for each window.

_REQUIRED: Final = ("prefix", "rate")
_AMOUNTS: Final = ("rate", "connect_fee", "minimum", "maximum", "off_peak_rate", "off_peak_connect_fee")
_SECONDS_MIN: Final = {"unit_s": 1, "first_increment_s": 1, "next_increment_s": 1, "free_s": 0}
COLUMNS: Final = (
    "prefix",
    "description",
    "rate",
    "connect_fee",
    "unit_s",
    "first_increment_s",
    "next_increment_s",
    "steps",
    "free_s",
    "minimum",
    "maximum",
    "at_maximum",
    "off_peak_rate",
    "off_peak_connect_fee",
    "off_peak_steps",
)
_OFF_PEAK: Final = ("off_peak_rate", "off_peak_connect_fee", "off_peak_steps")
IN_WINDOWS: Final = ("rate", "connect_fee", "unit_s", "first_increment_s", "next_increment_s", "steps")
"""The columns that each window of the deck may have again, with its name after a point."""
_CUT: Final = {"": False, "free": False, "cut": True}


def read(text: str, *, has_peak: bool, windows: Sequence[str] = ()) -> Iterator[DeckRow | LineError]:
    """Each row, or its error. If the first line is wrong, its error is the only result.

    `has_peak`: the deck has peak hours. Without them off-peak prices are an error, since they would never apply.
    `windows`: names of the deck's windows.
    """
    first_line_of: dict[int, int] = {}
    rows = csv_rows.read(
        text,
        columns=(*COLUMNS, *(f"{field}.{name}" for name in windows for field in IN_WINDOWS)),
        required=_REQUIRED,
        of="rows",
        rows_max=ROWS_MAX,
        line_chars_max=LINE_CHARS_MAX,
    )
    for row in rows:
        found = row if isinstance(row, LineError) else _row(row, has_peak, windows)
        if isinstance(found, DeckRow):
            earlier = first_line_of.setdefault(int(found.prefix), row.line)
            if earlier != row.line:
                found = LineError(row.line, "prefix", f"is already on line {earlier}")
        yield found


def _row(row: Row, has_peak: bool, windows: Sequence[str]) -> DeckRow | LineError:
    values = row.cells
    try:
        amounts = {field: _amount(field, values[field].strip()) for field in _AMOUNTS if field in values}
        seconds = {field: _seconds(field, values[field].strip()) for field in _SECONDS_MIN if field in values}
        rate = amounts["rate"]
        if rate is None:
            raise BadCell("rate", "is missing")
        if not has_peak:
            for field in _OFF_PEAK:
                if values.get(field, "").strip():
                    raise BadCell(field, "the deck has no peak hours: set them, or leave this empty")
        unit_s, next_s = seconds.get("unit_s") or 60, seconds.get("next_increment_s") or 1
        steps = _steps(values, "steps", unit_s, next_s) or ()
        off_peak_rate = amounts.get("off_peak_rate")
        off_peak_steps = _steps(values, "off_peak_steps", unit_s, next_s)
        if steps and off_peak_rate is not None and off_peak_steps is None:
            raise _unclear("off_peak_steps")
        minimum, maximum = amounts.get("minimum") or 0, amounts.get("maximum")
        cuts = _maximum(values, minimum, maximum)
        in_windows = tuple(_in_window(values, name, unit_s, next_s, steps) for name in windows)
        return DeckRow(
            _prefix(values["prefix"].strip()),
            _description(values.get("description", "").strip()),
            Tariff(
                rate,
                unit_s,
                amounts.get("connect_fee") or 0,
                seconds.get("first_increment_s") or 1,
                next_s,
                seconds.get("free_s") or 0,
                minimum,
                off_peak_rate,
                amounts.get("off_peak_connect_fee"),
                steps,
                off_peak_steps,
                in_windows if any(charges is not AS_THE_ROW for charges in in_windows) else (),
                maximum,
                cuts,
            ),
        )
    except BadCell as bad:
        return bad.at(row.line)


def _in_window(
    values: Mapping[str, str], name: str, unit_s: int, next_s: int, steps: tuple[RateGroup, ...]
) -> WindowCharges:
    """What the row says of one window. `steps`: the row's own, which a window with another rate must not inherit."""
    cells = {field: text for field in IN_WINDOWS if (text := values.get(f"{field}.{name}", "").strip())}
    if not cells:
        return AS_THE_ROW
    rate = _amount(f"rate.{name}", cells.get("rate", ""))
    unit, first, following = (
        _seconds(f"{field}.{name}", cells.get(field, ""))
        for field in ("unit_s", "first_increment_s", "next_increment_s")
    )
    own = _steps(values, f"steps.{name}", unit or unit_s, following or next_s)
    if steps and rate is not None and own is None:
        raise _unclear(f"steps.{name}")
    fee = _amount(f"connect_fee.{name}", cells.get("connect_fee", ""))
    return WindowCharges(rate, fee, unit, first, following, own)


def _unclear(field: str) -> BadCell:
    return BadCell(field, f"is empty, but the rate is another and the row has steps: give its own, or write {NONE}")


def _steps(values: Mapping[str, str], field: str, unit_s: int, increment_s: int) -> tuple[RateGroup, ...] | None:
    """None for an empty cell."""
    text = values.get(field, "").strip()
    if not text:
        return None
    try:
        return parse_steps(text, unit_s, increment_s)
    except BadSteps as error:
        raise BadCell(field, error.reason) from error


def _maximum(values: Mapping[str, str], minimum: int, maximum: int | None) -> bool:
    """Whether the call is cut there."""
    text = values.get("at_maximum", "").strip().lower()
    cuts = _CUT.get(text)
    if cuts is None:
        raise BadCell("at_maximum", f"{text[:20]!r} is neither free nor cut")
    if maximum is not None and maximum < minimum:
        raise BadCell("maximum", "is below the minimum")
    if cuts and not maximum:
        raise BadCell("at_maximum", "cuts calls at a maximum, but there is none")
    return cuts


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
    least = _SECONDS_MIN[field.partition(".")[0]]
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and least <= int(text) <= SECONDS_MAX):
        raise BadCell(field, f"{text[:20]!r} is not a number of seconds from {least} to {SECONDS_MAX}")
    return int(text)
