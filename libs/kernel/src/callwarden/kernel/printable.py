"""Text from strangers, made safe to print: what a terminal, a viewer or a spreadsheet would obey becomes visible text.

In: control and format characters, formulas in cells of CSV. Out: markup of terminals (rich), quoting of CSV and JSON.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

# Controls (C0, DEL, C1), format characters (bidi overrides and isolates, zero-width characters, tags), lone surrogates,
# and the line breaks that only Unicode knows. A Call-ID, a User-Agent or a reason can hold any of them.
_OBEYED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# OWASP "CSV Injection": a spreadsheet runs a cell that begins with one of these, full-width forms included.
_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
# Signed numbers, and phone numbers one after the other: a spreadsheet reads these as numbers or as text.
_NUMBERS: Final = re.compile(r"[+-]?\d+(\.\d+)?( [+-]?\d+(\.\d+)?)*", re.ASCII)


def printable(text: str, *, keep_line_breaks: bool = False) -> str:
    """The text with every character that a terminal obeys shown as an escape: `\\x1b`, `\\u202e`, `\\U000e0041`."""
    return _escaped(text, "\n" if keep_line_breaks else "", escape)


def printable_json(text: str) -> str:
    """A JSON text with these characters as JSON escapes; its value is unchanged."""
    return _escaped(text, "\n", _json_escape)


def csv_cell(text: str) -> str:
    """A cell of CSV that is safe to open: formulas begin with an apostrophe, numbers (`-5.00`, `+4930123`) don't."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBERS.fullmatch(text) else text


def csv_value(cell: str) -> str:
    """The other way: the text without the apostrophe that `csv_cell` put before a formula."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _escaped(text: str, kept: str, how: Callable[[str], str]) -> str:
    if text.isprintable():  # Nearly always, and in C.
        return text
    return "".join(
        how(character) if unicodedata.category(character) in _OBEYED and character not in kept else character
        for character in text
    )
