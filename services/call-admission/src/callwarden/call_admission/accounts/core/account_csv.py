"""Accounts as lines of CSV: read a line at a time, every wrong one named with its column and the reason; and written.

Columns, by the names in the first line, in any order; `name` is required. `numbers` and `lists` hold several, separated
by blanks; `prepaid` and `…_verified` are yes or no; amounts are decimal numbers in the account's currency, talk times
such as 3600, 90m or 100h. What is empty isn't set. UTF-8; separated by comma, semicolon or tab. Empty lines and those
that begin with "#" are skipped. No passwords: they go to auth, and a file is no place for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from callwarden.call_admission.accounts.core.accounts import NewAccount, check_account
from callwarden.call_admission.model import csv_text
from callwarden.call_admission.model.account import AccountType
from callwarden.kernel import csv_rows
from callwarden.kernel.csv_rows import BadCell, LineError, Row
from callwarden.kernel.errors import Invalid
from callwarden.kernel.money import BadAmount, format_amount, parse_amount
from callwarden.kernel.printable import csv_cell, csv_value
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


def read(text: str, *, realm: str, currency: str) -> Iterator[Line | LineError]:
    """Each account, or what is wrong with its line. `realm` and `currency` hold where a line has none. A wrong first
    line, and one after which nothing can be told from anything, is the last result."""
    names: dict[tuple[str, str], int] = {}
    numbers: dict[str, int] = {}
    rows = csv_rows.read(
        text, columns=COLUMNS, required=("name",), of="accounts", rows_max=ROWS_MAX, line_chars_max=LINE_CHARS_MAX
    )
    for row in rows:
        found = row if isinstance(row, LineError) else _account(row, realm, currency)
        yield found if isinstance(found, LineError) else _once(found, names, numbers)


def write(accounts: Sequence[NewAccount]) -> str:
    """Lines that `read` takes back, without the first."""
    return csv_text.lines(_cells(account) for account in accounts)


def header() -> str:
    return csv_text.lines([COLUMNS])


def _cells(account: NewAccount) -> list[object]:
    limits = account.limits
    amounts: Callable[[str], object] = lambda name: "" if (v := limits[name]) is None else format_amount(v)  # noqa: E731
    counts: Callable[[str], object] = lambda name: "" if (v := limits[name]) is None else v  # noqa: E731
    text = csv_cell
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


def _account(row: Row, realm: str, currency: str) -> Line | LineError:
    values = {column: csv_value(cell.strip()) for column, cell in row.cells.items()}
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
    except BadCell as bad:
        return bad.at(row.line)
    except Invalid as error:
        return LineError(row.line, _COLUMN_OF.get(error.field, error.field), error.message)
    return Line(row.line, account)


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
        raise BadCell(column, str(error)) from error


@lru_cache(4_096)
def _count(column: str, cell: str) -> int:
    if not cell:
        return 0
    digits = cell.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise BadCell(column, f"{cell[:32]!r} is no whole number")
    return int(cell)


@lru_cache(4_096)
def _seconds(column: str, cell: str) -> int:
    if cell.removeprefix("-").isdigit():
        return _count(column, cell)
    try:
        return int(parse_duration(cell))
    except ValueError as error:
        raise BadCell(column, str(error)) from error


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
        raise BadCell(column, f"{cell[:32]!r} is neither yes nor no")
    return flag


def _yes_or_no(flag: bool) -> str:
    return "yes" if flag else "no"
