"""Tables and paragraphs that never break an id, an amount or a moment, however narrow the terminal is.

In: how columns share a line, where a paragraph may break. Out: what is in the cells (commands), where it is
printed and in which format (output).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from callwarden.kernel.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

DIM: Final = "bright_black"
UNBOUNDED: Final = 1_000_000
"""Columns of what isn't a terminal: a pipe or a file takes lines of any length."""

_GAP: Final = 2  # between columns
_PROSE_MIN: Final = 20  # A reason with less than this says nothing.
_PARAGRAPH_MIN: Final = 24  # Narrower than this, a paragraph goes below its label and not next to it.
_HANG: Final = 4  # how far lines after the first are indented there
# A space between a number and its unit or currency, or between date and time, is no place to break a line.
_GLUE: Final = re.compile(
    r"(?<=\d) (?=(?:[A-Z]{3}|s|min|h|d|%|MB)(?!\w))|(?<=\d{4}-\d\d-\d\d) (?=\d\d:\d\d)|(?<=SIP) (?=\d)"
)
_SPACES: Final = re.compile(r" +")


def cell(text: "str | Text", style: str = "") -> "Text":
    """Text that is printed as it is: never read as markup, never obeyed by the terminal, always on one line."""
    from rich.text import Text

    return text if isinstance(text, Text) else Text(printable(text), style=style)


def wrapped(text: "Text", width: int) -> "list[Text]":
    """The lines of a paragraph. A word that is longer than the width stays whole."""
    plain = text.plain
    glued = {found.start() for found in _GLUE.finditer(plain)}
    lines: list[Text] = []
    start = end = resume = 0
    breaks = [found.span() for found in _SPACES.finditer(plain) if found.start() and found.start() not in glued]
    for left, right in [*breaks, (len(plain), len(plain))]:
        if text[start:left].cell_len > width and end > start:
            lines.append(text[start:end])
            start = resume
        end, resume = left, right
    lines.append(text[start:end])
    return lines


class Rows:
    """A quiet table: no frames, one line a row.

    Where a table is wider than its terminal, in this order: columns in `prose` are cut with "…"; columns in `below` go
    to a line of their own beneath the row, whole; columns in `optional` are left out, the first named first, and a last
    line says which. If that isn't enough the lines are longer than the terminal. Every other column is always whole.
    Columns in `right` hold numbers.
    """

    def __init__(
        self,
        *columns: str,
        right: Sequence[str] = (),
        optional: Sequence[str] = (),
        prose: Sequence[str] = (),
        below: Sequence[str] = (),
    ) -> None:
        assert {*right, *optional, *prose, *below} <= set(columns)
        self._columns = columns
        self._right = frozenset(right)
        self._optional = optional
        self._prose = prose
        self._below = below
        self._rows: list[tuple[Text, ...]] = []

    def add(self, *cells: "str | Text") -> None:
        self._rows.append(tuple(map(cell, cells)))
        assert len(cells) == len(self._columns)

    def __len__(self) -> int:
        return len(self._rows)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        yield from map(_unbroken, self.lines(options.max_width))

    def lines(self, width: int) -> "Iterator[Text]":
        from rich.text import Text

        inline, below, dropped = self._fit(width)
        widths = self._widths(inline, width)
        yield self._line({name: Text(name, style="bold") for name in inline}, widths)
        yield Text("─" * min(width, sum(widths.values()) + _GAP * (len(widths) - 1)), style=DIM)
        for row in self._rows:
            cells = dict(zip(self._columns, row, strict=True))
            yield self._line(cells, widths)
            for name in below:
                if cells[name].plain:
                    yield Text.assemble(" " * _GAP, (f"{name} ", DIM), cells[name])
        if dropped:
            left_out = ", ".join(name or "bar" for name in dropped)
            notice = f"left out for want of width: {left_out} (all with `| less -S` or --output json)"
            yield from wrapped(Text(notice, style=DIM), width)

    def _fit(self, width: int) -> tuple[list[str], list[str], list[str]]:
        """Which columns are in the line, beneath it, and left out."""
        inline = list(self._columns)
        below: list[str] = []
        dropped: list[str] = []
        for name in self._columns:
            if self._fits(inline, width):
                return inline, below, dropped
            if not self._natural(name, header=False):  # Nothing is lost with an empty column.
                inline.remove(name)
        for name in self._below:
            if self._fits(inline, width):
                return inline, below, dropped
            if name in inline:
                inline.remove(name)
                below.append(name)
        for name in self._optional:
            if self._fits(inline, width):
                break
            if name in inline:
                inline.remove(name)
                dropped.append(name)
        return inline, below, [name for name in self._columns if name in dropped]

    def _fits(self, names: Sequence[str], width: int) -> bool:
        return sum(map(self._least, names)) + _GAP * (len(names) - 1) <= width

    def _widths(self, names: Sequence[str], width: int) -> dict[str, int]:
        """Of each column in the line: what prose leaves unused goes to the first of it."""
        widths = {name: self._least(name) for name in names}
        spare = max(0, width - sum(widths.values()) - _GAP * (len(names) - 1))
        for name in names:
            more = min(spare, self._natural(name) - widths[name])
            widths[name] += more
            spare -= more
        return widths

    def _natural(self, name: str, *, header: bool = True) -> int:
        from rich.cells import cell_len

        at = self._columns.index(name)
        longest = max((row[at].cell_len for row in self._rows), default=0)
        return max(longest, cell_len(name)) if header else longest

    def _least(self, name: str) -> int:
        natural = self._natural(name)
        return min(natural, max(_PROSE_MIN, len(name))) if name in self._prose else natural

    def _line(self, cells: "dict[str, Text]", widths: dict[str, int]) -> "Text":
        from rich.text import Text

        line = Text()
        for number, (name, width) in enumerate(widths.items()):
            text = cells[name].copy()
            if text.cell_len > width:
                text.truncate(width, overflow="ellipsis")
            space = " " * (width - text.cell_len)
            line.append(" " * _GAP if number else "")
            line.append_text(Text(space) + text if name in self._right else text)
            line.append("" if name in self._right else space)
        line.rstrip()
        return line


class Aligned:
    """Lines of cells under each other without a heading: labels and values, rules and what they say.

    Only the last cell of a line is a paragraph, which continues below itself. Where it has too little room, the whole
    line is one paragraph.
    """

    def __init__(self, rows: "Iterable[Sequence[str | Text]]", *, indent: int = 0) -> None:
        self._rows = [tuple(map(cell, row)) for row in rows]
        self._indent = indent

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        yield from map(_unbroken, self.lines(options.max_width))

    def lines(self, width: int) -> "Iterator[Text]":
        from rich.text import Text

        count = max(map(len, self._rows), default=1) - 1
        widths = [max((row[at].cell_len for row in self._rows if at < len(row) - 1), default=0) for at in range(count)]
        begin = self._indent + sum(one + _GAP for one in widths if one)
        for row in self._rows:
            head = Text(" " * self._indent)
            if width - begin < _PARAGRAPH_MIN and len(row) > 1:
                text = Text(" " * _GAP).join([part for part in row if part.plain])
                space, hang = width - self._indent - _HANG, self._indent + _HANG
            else:
                for text, room in zip(row[:-1], widths, strict=False):
                    if room:
                        head += text + Text(" " * (room - text.cell_len + _GAP))
                text = row[-1]
                hang = begin if len(row) > 1 else self._indent
                space = width - hang
            first, *further = wrapped(text, max(1, space))
            line = head + first
            line.rstrip()
            yield line
            for one in further:
                yield Text(" " * hang) + one


def _unbroken(line: "Text") -> "Text":
    line.no_wrap, line.overflow = True, "ignore"
    return line
