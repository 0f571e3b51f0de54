"""Reading a number list from a file, a line at a time; every line that is wrong is named with the reason.

Plain text: a number, prefix or wildcard a line, with a note after "#" if wanted. CSV (comma, semicolon, tab or bar):
the column is found by its name in the first line (number, phone, test number, MSISDN, prefix, … or a pair such as range
start and range end), or named; without a first line of names it is the first column that has numbers. Other columns of
known names (country, operator, range name, …) become the entry's note. UTF-8. Empty lines and those that begin with "#"
are skipped.
"""

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from callwarden.call_admission.model.lists import (
    ENTRIES_MAX,
    NOTE_CHARS_MAX,
    SHAPES_MAX,
    WILDCARDS_MAX,
    BadPattern,
    ListEntry,
    parse_pattern,
    shape_of,
)

BYTES_MAX: Final = 64 * 1024 * 1024  # 64 bytes a line
LINE_CHARS_MAX: Final = 4_096
RANGE_ENTRIES_MAX: Final = 300  # the worst range of two 15-digit numbers needs 259 prefixes

# Names of columns, without what isn't a letter or digit. The first that a file has is taken.
NUMBERS: Final = (
    "number", "phonenumber", "telephonenumber", "testnumber", "irsfnumber", "iprnnumber", "fullnumber", "phone",
    "telephone", "msisdn", "e164", "e164number", "pattern", "callednumber", "called", "callee", "bnumber", "cld",
    "dialednumber", "dialled", "dialednum", "destinationnumber", "callingnumber", "calling", "caller", "callerid",
    "anumber", "cli", "ani", "did", "ddi", "tn", "subscriber", "test", "tel", "num", "destination",
)  # fmt: skip
PREFIXES: Final = ("prefix", "prefixes", "numberprefix", "dialcode", "dialprefix", "code", "range", "numberrange")
RANGES: Final = (
    ("rangestart", "rangeend"), ("startrange", "endrange"), ("rangefrom", "rangeto"), ("start", "end"), ("from", "to"),
    ("firstnumber", "lastnumber"), ("startnumber", "endnumber"), ("numberfrom", "numberto"),
    ("rangelow", "rangehigh"), ("first", "last"),
)  # fmt: skip
NOTES: Final = (
    "note", "notes", "comment", "description", "country", "countryname", "destinationname", "operator", "carrier",
    "network", "rangename", "provider", "type", "name", "reason",
)  # fmt: skip
_DELIMITERS: Final = "\t;|,"
_NOT_A_NAME = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class ListLineError:
    """What is wrong in line `line` (the first is 1)."""

    line: int
    reason: str


@dataclass(slots=True)
class _Columns:
    """Where a file has what."""

    number: int
    until: int | None = None
    """Of a range, where its last number is."""
    notes: tuple[int, ...] = ()
    prefixes: bool = False


class _Wrong(Exception):
    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def read(parts: Iterable[bytes], *, column: str = "", prefixes: bool = False) -> Iterator[ListEntry | ListLineError]:
    """Each entry of a file that comes in parts, or what is wrong with a line. A file whose first line isn't understood
    gives one error, an empty one nothing. The same entry may come several times."""
    limits = _Limits()
    delimiter = ""
    columns: _Columns | None = None
    number = 0
    try:
        for number, line in _lines(parts):
            text = line.strip()
            if not text or text[0] == "#":
                continue
            if columns is None:
                delimiter = next((mark for mark in _DELIMITERS if mark in line), "")
                if not delimiter and not column:
                    columns = _Columns(0, prefixes=prefixes)
                    if _is_heading(text):
                        columns.prefixes = prefixes or _name(text) in PREFIXES
                        continue
                else:
                    columns, is_heading = _find(_cells(line, delimiter), column, prefixes)
                    if is_heading:
                        continue
            try:
                if delimiter:
                    cells = _cells(line, delimiter)
                    if not any(cells):
                        continue
                    entries = _entries(cells, columns)
                else:
                    body, _, note = text.partition("#")
                    number_text = body.strip().removeprefix("=").strip('"')
                    entries = (ListEntry(parse_pattern(number_text, prefixes=columns.prefixes), _note([note])),)
                for entry in entries:
                    limits.count(entry.pattern)
                    yield entry
            except BadPattern as error:
                yield ListLineError(number, error.reason)
    except _Wrong as error:
        yield ListLineError(max(number, 1), error.reason)
    except _Unreadable as error:
        yield ListLineError(error.line, error.reason)


class _Limits:
    """What one list may have."""

    def __init__(self) -> None:
        self.entries = 0
        self._wildcards = 0
        self._shapes: set[str] = set()

    def count(self, pattern: str) -> None:
        self.entries += 1
        if self.entries > ENTRIES_MAX:
            raise _Wrong(f"a list has at most {ENTRIES_MAX:,} entries")
        if "?" in pattern:
            self._wildcards += 1
            self._shapes.add(shape_of(pattern))
            if self._wildcards > WILDCARDS_MAX:
                raise _Wrong(f'a list has at most {WILDCARDS_MAX:,} entries with "?"')
            if len(self._shapes) > SHAPES_MAX:
                raise _Wrong(f'a list has at most {SHAPES_MAX} kinds of wildcards (places of "?", digits, end)')


# ------------------------------------------------------------------ lines


class _Unreadable(Exception):
    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(reason)


def _lines(parts: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, decoded part by part. Raises _Unreadable."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    number = 0
    for part in _with_end(parts):
        try:
            text = rest + decoder.decode(part or b"", final=part is None)
        except UnicodeDecodeError as error:
            before = (part or b"").count(b"\n", 0, error.start)
            raise _Unreadable(number + before + 1, "is not UTF-8") from error
        begin = 0
        while (end := text.find("\n", begin)) >= 0:
            number += 1
            if end - begin > LINE_CHARS_MAX:
                raise _Unreadable(number, f"is longer than {LINE_CHARS_MAX} characters")
            yield number, text[begin:end]
            begin = end + 1
        rest = text[begin:]
        if len(rest) > LINE_CHARS_MAX:
            raise _Unreadable(number + 1, f"is longer than {LINE_CHARS_MAX} characters")
    if rest:
        yield number + 1, rest


def _with_end(parts: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from parts
    yield None


def _cells(line: str, delimiter: str) -> list[str]:
    """The fields of a line. Raises _Wrong where quotes are broken: then nothing after it can be told apart either."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)] if delimiter else [line.strip()]
    try:
        (cells,) = csv.reader([line], delimiter=delimiter or ",", strict=True)
    except (csv.Error, ValueError) as error:
        raise _Wrong(f"is not CSV: {error}") from error
    # Excel's way to keep digits from being read as a number: ="00123".
    return [cell.strip().removeprefix("=").strip('"') for cell in cells]


# ------------------------------------------------------------------ columns


def _name(cell: str) -> str:
    return _NOT_A_NAME.sub("", cell.lower())


def _is_heading(text: str) -> bool:
    return _name(text) in NUMBERS or _name(text) in PREFIXES


def _find(cells: Sequence[str], column: str, prefixes: bool) -> tuple[_Columns, bool]:
    """Where the numbers are, and whether this line is one of names. Raises _Wrong."""
    names = [_name(cell) for cell in cells]
    notes = tuple(names.index(name) for name in NOTES if name in names)
    if column.isascii() and column.isdigit():
        index = int(column) - 1
        if not 0 <= index < len(cells):
            raise _Wrong(f"there is no column {column}: the first line has {len(cells)}")
        # A bad number is to be said, not taken for a name.
        is_heading = not _is_pattern(cells[index]) and _digits(cells[index]) < _DIGITS_LIKELY
        notes = tuple(at for at in notes if at != index) if is_heading else ()
        return _Columns(index, None, notes, prefixes), is_heading
    if column:
        if _name(column) not in names:
            raise _Wrong(f"the first line has no column {column[:40]!r}; it has: {', '.join(cells)[:200]}")
        index = names.index(_name(column))
        return _Columns(index, None, tuple(at for at in notes if at != index), prefixes), True
    for name in NUMBERS:
        if name in names:
            return _Columns(names.index(name), None, notes, prefixes), True
    for first, last in RANGES:
        if first in names and last in names:
            return _Columns(names.index(first), names.index(last), notes), True
    for name in PREFIXES:
        if name in names:
            return _Columns(names.index(name), None, notes, True), True
    for index, cell in enumerate(cells):
        if _is_pattern(cell) and _digits(cell) >= _DIGITS_LIKELY:
            return _Columns(index, None, (), prefixes), False
    raise _Wrong(f"no column of numbers is known by its name; name one of: {', '.join(cells)[:200]}")


_DIGITS_LIKELY: Final = 5  # a shorter one might be a country code or a year


def _digits(text: str) -> int:
    return sum(char.isdigit() for char in text)


def _is_pattern(text: str) -> bool:
    try:
        parse_pattern(text)
    except BadPattern:
        return False
    return True


def _entries(cells: Sequence[str], columns: _Columns) -> Sequence[ListEntry]:
    """What a line stands for. Raises BadPattern."""
    if columns.number >= len(cells) or (columns.until is not None and columns.until >= len(cells)):
        raise BadPattern(f"has only {len(cells)} fields")
    note = _note([cells[index] for index in columns.notes if index < len(cells)])
    if columns.until is None:
        return (ListEntry(parse_pattern(cells[columns.number], prefixes=columns.prefixes), note),)
    return [ListEntry(pattern, note) for pattern in patterns_of_range(cells[columns.number], cells[columns.until])]


def _note(texts: Iterable[str]) -> str:
    note = ", ".join(text.strip() for text in texts if text.strip())[:NOTE_CHARS_MAX]
    return note if note.isprintable() else "".join(char if char.isprintable() else " " for char in note)


def patterns_of_range(first: str, last: str) -> list[str]:
    """The fewest entries that have exactly the numbers from `first` to `last`, and (like any prefix) longer ones that
    begin like them. Raises BadPattern.

    "49301000", "49301999" → "49301*"; "49301998", "49302001" → "49301998", "49301999", "49302000", "49302001".
    """
    low, high = parse_pattern(first), parse_pattern(last)
    if not (low.isdigit() and high.isdigit()):
        raise BadPattern("a range goes from a number to a number")
    if len(low) != len(high) or low > high:
        raise BadPattern(f"{first[:24]!r} to {last[:24]!r} is no range: both need as many digits, the lower first")
    found: list[str] = []
    _cover("", low, high, found)
    assert len(found) <= RANGE_ENTRIES_MAX
    return found


def _cover(head: str, low: str, high: str, found: list[str]) -> None:
    if not low:
        found.append(head)
    elif low == "0" * len(low) and high == "9" * len(high):
        found.append(f"{head}*")
    elif low[0] == high[0]:
        _cover(head + low[0], low[1:], high[1:], found)
    else:
        rest = len(low) - 1
        _cover(head + low[0], low[1:], "9" * rest, found)
        end = "*" if rest else ""
        found += [f"{head}{digit}{end}" for digit in range(int(low[0]) + 1, int(high[0]))]
        _cover(head + high[0], "0" * rest, high[1:], found)
