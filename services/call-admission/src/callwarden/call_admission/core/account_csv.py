"""Accounts as lines of CSV: read a line at a time, every wrong one named with its column and the reason; and written.

Columns, by the names in the first line, in any order; `name` is required. `numbers` and `lists` hold several, separated
by blanks; `prepaid` and `…_verified` are yes or no; amounts are decimal numbers in the account's currency, talk times
such as 3600, 90m or 100h. What is empty isn't set. UTF-8; separated by comma, semicolon or tab. Empty lines and those
that begin with "#" are skipped. No passwords: they go to auth, and a file is no place for them.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from callwarden.call_admission.core import csv_text
from callwarden.call_admission.core.accounts import NewAccount, check_account
from callwarden.call_admission.core.snapshot import AccountType
from callwarden.kernel.errors import Invalid
from callwarden.kernel.money import BadAmount, format_amount, parse_amount
from callwarden.policy.values import parse_duration

BYTES_MAX: Final = 64 * 1024 * 1024  # kept whole while it is read; 100,000 accounts take 10 MiB
ROWS_MAX: Final = 1_000_000
LINE_CHARS_MAX: Final = 65_536  # an account may own thousands of numbers

_COUNTS: Final = {"lines": "max_lines", "lines_off_peak": "max_lines_off_peak", "per_second": "max_per_second"}
_AMOUNTS: Final = {
    "daily": "daily_micros",
    "monthly": "monthly_micros",
    "monthly_increment": "monthly_increment_micros",
    "monthly_ceiling": "monthly_ceiling_micros",
}
_TIMES: Final = {"talk_day": "talk_day_s", "talk_month": "talk_month_s"}
_LIMITS: Final = _COUNTS | _AMOUNTS | _TIMES
_COLUMN_OF: Final = {name: column for column, name in _LIMITS.items()}

COLUMNS: Final = (
    "name", "realm", "type", "status", "currency", "time_zone", "prepaid", "deck", "parent", "numbers", *_LIMITS,
    "country", "email", "email_verified", "phone", "phone_verified", "shards", "lists",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """An account and the line that it stands on (the first is 1)."""

    number: int
    account: NewAccount


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong in a line; `field` is the column's name, or empty for the whole line."""

    line: int
    field: str
    reason: str


class _BadCell(ValueError):
    def __init__(self, column: str, reason: str) -> None:
        self.column = column
        self.reason = reason
        super().__init__(reason)


def decode(content: bytes) -> str | LineError:
    """The text of a file; UTF-8, with or without the mark at its beginning."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return LineError(content.count(b"\n", 0, error.start) + 1, "", "is not UTF-8")


def read(text: str, *, realm: str, currency: str) -> Iterator[Line | LineError]:
    """Each account, or what is wrong with its line. `realm` and `currency` hold where a line has none. A wrong first
    line, and one after which nothing can be told from anything, is the last result."""
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=_delimiter(text), strict=True)
    columns: list[str] | None = None
    names: dict[tuple[str, str], int] = {}
    numbers: dict[str, int] = {}
    rows = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield LineError(lines.number, "", f"is not CSV: {error}")
            return
        if lines.too_long:
            yield LineError(lines.too_long, "", f"is longer than {LINE_CHARS_MAX:,} characters")
            return
        if cells is None:
            break
        if not any(cells) or cells[0].startswith("#"):
            continue
        if columns is None:
            columns = [cell.strip().lower() for cell in cells]
            if wrong := _header_error(columns, lines.number):
                yield wrong
                return
            continue
        rows += 1
        if rows > ROWS_MAX:
            yield LineError(lines.number, "", f"a file has at most {ROWS_MAX:,} accounts")
            return
        found = _account(columns, cells, lines.number, realm, currency)
        yield found if isinstance(found, LineError) else _once(found, names, numbers)
    if columns is None:
        yield LineError(1, "", f"the file is empty; its first line names the columns: {','.join(COLUMNS)}")
    elif not rows:
        yield LineError(lines.number, "", "there are no accounts")


def write(accounts: Sequence[NewAccount]) -> str:
    """Lines that `read` takes back, without the first."""
    return csv_text.lines(_cells(account) for account in accounts)


def header() -> str:
    return csv_text.lines([COLUMNS])


def _cells(account: NewAccount) -> list[object]:
    limits = account.limits
    amounts: Callable[[str], object] = lambda name: "" if (v := limits[name]) is None else format_amount(v)  # noqa: E731
    counts: Callable[[str], object] = lambda name: "" if (v := limits[name]) is None else v  # noqa: E731
    text = csv_text.text
    return [
        text(account.name), text(account.realm), account.type.value, "active" if account.active else "disabled",
        account.currency, account.time_zone, _yes_or_no(account.prepaid), text(account.deck), text(account.parent),
        " ".join(account.numbers),
        *(amounts(name) if column in _AMOUNTS else counts(name) for column, name in _LIMITS.items()),
        account.country, text(account.email), "yes" if account.email_verified else "",
        account.phone, "yes" if account.phone_verified else "", account.shards or "", text(" ".join(account.lists)),
    ]  # fmt: skip


def _once(line: Line, names: dict[tuple[str, str], int], numbers: dict[str, int]) -> Line | LineError:
    account = line.account
    earlier = names.setdefault((account.realm, account.name), line.number)
    if earlier != line.number:
        return LineError(line.number, "name", f"{account.name} stands on line {earlier} already")
    for number in account.numbers:
        earlier = numbers.setdefault(number, line.number)
        if earlier != line.number:
            return LineError(line.number, "numbers", f"+{number} stands on line {earlier} already")
    return line


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
    for line in _Lines(text[:LINE_CHARS_MAX]):
        if line.strip() and not line.startswith("#"):
            return next((mark for mark in ",;\t" if mark in line), ",")
    return ","


def _header_error(columns: list[str], line: int) -> LineError | None:
    for column in columns:
        if column not in COLUMNS:
            return LineError(line, column[:40], f"there is no such column; there are {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            return LineError(line, column, "stands in the first line twice")
    return None if "name" in columns else LineError(line, "name", "the column is missing in the first line")


def _account(columns: list[str], cells: list[str], line: int, realm: str, currency: str) -> Line | LineError:
    if len(cells) != len(columns):
        return LineError(line, "", f"has {len(cells)} fields, the first line {len(columns)}")
    values = {column: csv_text.untext(cell.strip()) for column, cell in zip(columns, cells, strict=True)}
    try:
        account = check_account(
            realm=values.get("realm") or realm,
            name=values["name"],
            type_=values.get("type") or AccountType.ENDUSER.value,
            status=values.get("status", ""),
            currency=values.get("currency") or currency,
            time_zone=values.get("time_zone", ""),
            prepaid=_flag("prepaid", values, default=True),
            deck=values.get("deck", ""),
            limits=_limits(values),
            numbers=values.get("numbers", "").split(),
            parent=values.get("parent", ""),
            country=values.get("country", ""),
            email=values.get("email", ""),
            phone=values.get("phone", ""),
            email_verified=_flag("email_verified", values, default=False),
            phone_verified=_flag("phone_verified", values, default=False),
            shards=_count("shards", values.get("shards", "")) or 0,
            lists=values.get("lists", "").split(),
        )
    except _BadCell as bad:
        return LineError(line, bad.column, bad.reason)
    except Invalid as error:
        return LineError(line, _COLUMN_OF.get(error.field, error.field), error.message)
    return Line(line, account)


def _limits(values: Mapping[str, str]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for column, name in _LIMITS.items():
        cell = values.get(column)
        if cell:
            limits[name] = _READ[column](column, cell)
    return limits


# The same few numbers stand in most lines: reading one anew costs 2 µs, ten times what remembering it does.
@lru_cache(4_096)
def _amount(column: str, cell: str) -> int:
    try:
        return parse_amount(cell)
    except BadAmount as error:
        raise _BadCell(column, str(error)) from error


@lru_cache(4_096)
def _count(column: str, cell: str) -> int:
    if not cell:
        return 0
    digits = cell.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise _BadCell(column, f"{cell[:32]!r} is no whole number")
    return int(cell)


@lru_cache(4_096)
def _seconds(column: str, cell: str) -> int:
    if cell.removeprefix("-").isdigit():
        return _count(column, cell)
    try:
        return int(parse_duration(cell))
    except ValueError as error:
        raise _BadCell(column, str(error)) from error


_READ: Final[dict[str, Any]] = (
    dict.fromkeys(_COUNTS, _count) | dict.fromkeys(_AMOUNTS, _amount) | dict.fromkeys(_TIMES, _seconds)
)
_FLAGS: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def _flag(column: str, values: Mapping[str, str], *, default: bool) -> bool:
    cell = values.get(column, "")
    if not cell:
        return default
    flag = _FLAGS.get(cell.lower())
    if flag is None:
        raise _BadCell(column, f"{cell[:32]!r} is neither yes nor no")
    return flag


def _yes_or_no(flag: bool) -> str:
    return "yes" if flag else "no"
