"""Accounts as lines of CSV: read a line at a time, each wrong one reported with its column and the reason; and written.

Columns are those of callwarden.kernel.account, by the names in the first line, in any order; `name` is required.
Several values are separated by blanks; amounts are decimal numbers in the account's currency, durations such as 3600,
90m or 100h. What is empty isn't set. UTF-8; separated by comma, semicolon or tab. Empty lines and those that begin with
"#" are skipped. No passwords: they go to auth, and a file is no place for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from callwarden.call_admission.accounts.core.accounts import check_account
from callwarden.call_admission.model import csv_text
from callwarden.kernel import csv_rows
from callwarden.kernel.account import FIELDS, NewAccount
from callwarden.kernel.csv_rows import BadCell, LineError, Row
from callwarden.kernel.errors import Invalid
from callwarden.kernel.fields import DataField, FieldKind
from callwarden.kernel.money import BadAmount, format_amount, parse_amount
from callwarden.kernel.printable import csv_cell, csv_value
from callwarden.policy.values import parse_duration

BYTES_MAX: Final = 64 * 1024 * 1024  # kept whole while it is read; 100,000 accounts take 10 MiB
ROWS_MAX: Final = 1_000_000
LINE_CHARS_MAX: Final = 65_536  # an account may own thousands of numbers

COLUMNS: Final = tuple(field.header for field in FIELDS)
_OF_WIRE: Final = {field.wire: field.header for field in FIELDS}


@dataclass(frozen=True, slots=True)
class Line:
    """An account and the line that it is on (the first is 1)."""

    number: int
    account: NewAccount


def read(text: str, *, realm: str, currency: str) -> Iterator[Line | LineError]:
    """Each account, or what is wrong with its line. `realm` and `currency` apply where a line has none. A wrong first
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
    return [_cell(field, getattr(account, field.name)) for field in FIELDS]


def _cell(field: DataField, value: Any) -> object:
    """What `read` takes for the value; empty: it isn't set."""
    match field.kind:
        case FieldKind.WORD:
            return value.value
        case FieldKind.STATUS:
            return "active" if value else "disabled"
        case FieldKind.FLAG:
            # What isn't yes by default says so only where it is.
            return "yes" if value else "no" if field.preset else ""
        case FieldKind.AMOUNT:
            return "" if value is None else format_amount(value)
        case FieldKind.COUNT:
            return "" if value is None or (value == 0 and not field.is_optional) else value
        case FieldKind.DURATION:
            return "" if value is None else value
        case FieldKind.PHONE:
            return value
        case FieldKind.PHONES:
            return " ".join(value)
        case FieldKind.NAMES:
            return csv_cell(" ".join(value))
        case FieldKind.TEXT:
            return csv_cell(value)


def _once(line: Line, names: dict[tuple[str, str], int], numbers: dict[str, int]) -> Line | LineError:
    account = line.account
    earlier = names.setdefault((account.realm, account.name), line.number)
    if earlier != line.number:
        return LineError(line.number, "name", f"{account.name} is on line {earlier} already")
    for number in account.numbers:
        earlier = numbers.setdefault(number, line.number)
        if earlier != line.number:
            return LineError(line.number, "numbers", f"+{number} is on line {earlier} already")
    return line


def _account(row: Row, realm: str, currency: str) -> Line | LineError:
    given: dict[str, Any] = _PRESETS | {"realm": realm, "currency": currency}
    try:
        for header, cell in row.cells.items():
            if text := csv_value(cell.strip()):
                wire, read = _READ[header]
                given[wire] = text if read is None else read(header, text)
        account = check_account(given)
    except BadCell as bad:
        return bad.at(row.line)
    except Invalid as error:
        return LineError(row.line, _OF_WIRE.get(error.field, error.field), error.message)
    return Line(row.line, account)


# Most lines have the same few numbers: reading one again costs 2 µs, ten times what remembering it does.
@lru_cache(4_096)
def _amount(column: str, cell: str) -> int:
    try:
        return parse_amount(cell)
    except BadAmount as error:
        raise BadCell(column, str(error)) from error


@lru_cache(4_096)
def _count(column: str, cell: str) -> int:
    digits = cell.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise BadCell(column, f"{cell[:32]!r} is not a whole number")
    return int(cell)


@lru_cache(4_096)
def _seconds(column: str, cell: str) -> int:
    if cell.removeprefix("-").isdigit():
        return _count(column, cell)
    try:
        return int(parse_duration(cell))
    except ValueError as error:
        raise BadCell(column, str(error)) from error


_FLAGS: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def _flag(column: str, cell: str) -> bool:
    flag = _FLAGS.get(cell.lower())
    if flag is None:
        raise BadCell(column, f"{cell[:32]!r} is neither yes nor no")
    return flag


def _several(column: str, cell: str) -> tuple[str, ...]:
    return tuple(cell.split())


_READ_AS: Final[Mapping[FieldKind, Callable[[str, str], Any]]] = {
    FieldKind.COUNT: _count,
    FieldKind.AMOUNT: _amount,
    FieldKind.DURATION: _seconds,
    FieldKind.FLAG: _flag,
    FieldKind.PHONES: _several,
    FieldKind.NAMES: _several,
}
_READ: Final = {field.header: (field.wire, _READ_AS.get(field.kind)) for field in FIELDS}
_PRESETS: Final = {field.wire: field.preset for field in FIELDS if field.is_required and field.preset is not None}
