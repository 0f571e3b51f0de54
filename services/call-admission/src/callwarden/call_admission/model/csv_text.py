"""CSV that is safe to open: what a spreadsheet would take for a formula is shown as text, control characters are named.

In: cells out and back in. Out: which columns there are (account_csv, adapters.call_export).
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

# OWASP "CSV Injection": a cell that begins with one of these is run as a formula; an apostrophe before it stops that.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def text(value: str) -> str:
    """A cell of text from wherever it came. Numbers that we made are written as they are, their minus included."""
    if _CONTROL.search(value):
        value = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return f"'{value}" if value.startswith(_FORMULA) else value


def untext(cell: str) -> str:
    """The other way: the apostrophe that `text` put before a formula goes."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows as lines of CSV (RFC 4180)."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()
