"""Reading CSV that people send, a row at a time: what is wrong is named with its line and field, nothing is unbounded.

In: text to rows by the names in its first line. Out: the columns and their values (the readers),
writing CSV (callwarden.call_admission.model.csv_text), lists of numbers, whose files have no first line to go by
(callwarden.call_admission.lists.core.list_file).

Separated by comma, semicolon or tab, columns in any order; empty lines and those that begin with "#" are skipped.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_LOOKED_AT: Final = 16  # times the longest line, for what separates the cells: comments come first


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong in line `line` (the first is 1); `field` is the column's name, or empty for the whole line."""

    line: int
    field: str
    reason: str


class BadCell(ValueError):
    """What is wrong with a cell, raised by who reads one: `at` makes it the line's."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(reason)

    def at(self, line: int) -> LineError:
        return LineError(line, self.field, self.reason)


@dataclass(slots=True)
class Row:
    """The cells of a line, as they stand there, by column. Made for each of a million lines, so not frozen."""

    line: int
    cells: dict[str, str]


def decode(content: bytes) -> str | LineError:
    """The text of a file; UTF-8, with or without the mark at its beginning."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return LineError(content.count(b"\n", 0, error.start) + 1, "", "is not UTF-8")


def read(
    text: str, *, columns: Sequence[str], required: Sequence[str], of: str, rows_max: int, line_chars_max: int
) -> Iterator[Row | LineError]:
    """Each row, or what is wrong with it. A wrong first line, and one after which nothing can be told from anything, is
    the last result. `of`: what the rows are, in the plural."""
    lines = _Lines(text, line_chars_max)
    reader = csv.reader(lines, delimiter=_delimiter(text, line_chars_max), strict=True)
    names: list[str] | None = None
    rows = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield LineError(lines.number, "", f"is not CSV: {error}")
            return
        if lines.too_long:
            yield LineError(lines.too_long, "", f"is longer than {line_chars_max:,} characters")
            return
        if cells is None:
            break
        if not any(cells) or cells[0].startswith("#"):
            continue
        if names is None:
            names = [cell.strip().lower() for cell in cells]
            if wrong := _header_error(names, columns, required, lines.number):
                yield wrong
                return
            continue
        rows += 1
        if rows > rows_max:
            yield LineError(lines.number, "", f"a file has at most {rows_max:,} {of}")
            return
        if len(cells) != len(names):
            yield LineError(lines.number, "", f"has {len(cells)} fields, the first line {len(names)}")
        else:
            yield Row(lines.number, dict(zip(names, cells, strict=True)))
    if names is None:
        yield LineError(1, "", f"the file is empty; its first line names the columns: {','.join(columns)}")
    elif not rows:
        yield LineError(lines.number, "", f"there are no {of}")


class _Lines:
    """The lines of a text one at a time, without a second copy of it all, counted. csv's own bound is on a field,
    not on how many there are."""

    def __init__(self, text: str, chars_max: int) -> None:
        self._text = text
        self._chars_max = chars_max
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
        if len(line) > self._chars_max:
            self.too_long = self.too_long or self.number
            return "\n"  # not given to csv at all
        return line


def _delimiter(text: str, line_chars_max: int) -> str:
    """By the first line that is not blank; a comma wins, because column names contain none of the three."""
    for line in _Lines(text[: _LOOKED_AT * line_chars_max], line_chars_max):
        if line.strip() and not line.startswith("#"):
            return next((mark for mark in ",;\t" if mark in line), ",")
    return ","


def _header_error(names: list[str], columns: Sequence[str], required: Sequence[str], line: int) -> LineError | None:
    for name in names:
        if name not in columns:
            return LineError(line, name[:40], f"there is no such column; there are {', '.join(columns)}")
        if names.count(name) > 1:
            return LineError(line, name, "is in the first line twice")
    for name in required:
        if name not in names:
            return LineError(line, name, "the column is missing in the first line")
    return None
