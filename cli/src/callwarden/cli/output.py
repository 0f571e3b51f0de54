"""How results are shown: tables for people, JSON for programs."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

DIM: Final = "bright_black"
# C0 but for the line break, DEL, C1.
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="Table for people, JSON for programs.", show_default=True)
]


def clean(text: str) -> str:
    """The text with every control character shown instead of obeyed: a Call-ID or a reason comes from a stranger, and
    this terminal must not be told by it what to do. Line breaks stay.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def console(*, stderr: bool = False) -> "Console":
    """A console on the standard output (or error) of this moment; colours only on a terminal, NO_COLOR is honoured."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def show(renderable: "RenderableType") -> None:
    console().print(renderable)


def show_lines(text: "Text") -> None:
    """Text that has its line breaks, and gets no others."""
    console().print(text, soft_wrap=True)


def width() -> int:
    """Columns of the terminal, or what is usual where there is none."""
    return console().width


def say(text: str) -> None:
    """One line of result."""
    typer.echo(clean(text))


def cell(text: "str | Text", style: str = "") -> "Text":
    """Text that is printed as it is, never read as markup."""
    from rich.text import Text

    return text if isinstance(text, Text) else Text(clean(text), style=style)


class Rows:
    """A quiet table: no frames; columns named in `right` hold numbers. Strings are printed as they are."""

    def __init__(self, *columns: str, right: Sequence[str] = ()) -> None:
        from rich import box
        from rich.table import Table

        self._table = Table(
            box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for column in columns:
            self._table.add_column(column, justify="right" if column in right else "left", overflow="fold")

    def add(self, *cells: "str | Text") -> None:
        self._table.add_row(*map(cell, cells))

    def __len__(self) -> int:
        return self._table.row_count

    def __rich__(self) -> "Table":
        return self._table


def facts(rows: "Mapping[str, str | Text]") -> "Table":
    """Label and value, one a line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for label, value in rows.items():
        grid.add_row(cell(label, DIM), cell(value))
    return grid


def all_said(messages: "Sequence[Message]", as_: Output, *, none: str) -> bool:
    """Whether a list needs no table: it was written as JSON, or is empty, which `none` says."""
    if as_ is Output.JSON:
        as_json([plain(message) for message in messages])
    elif not messages:
        say(none)
    return as_ is Output.JSON or not messages


def as_json(value: object) -> None:
    typer.echo(json_text(value))


def json_text(value: object) -> str:
    # JSON escapes only the controls of ASCII.
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, indent=2, ensure_ascii=False))


def plain(message: "Message") -> dict[str, Any]:
    """A protobuf message as JSON-able values: its own field names, every field, 64-bit numbers as numbers.

    A `oneof` shows the member that is set; an unset message or optional field is null.
    """
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            result[field.name] = [_plain_value(item) for item in value]
        elif field.has_presence and not message.HasField(field.name):
            if field.containing_oneof is None or field.containing_oneof.name.startswith("_"):
                result[field.name] = None
        else:
            result[field.name] = _plain_value(value)
    return result


def _plain_value(value: Any) -> Any:
    return plain(value) if hasattr(value, "DESCRIPTOR") else value


def money(micros: int, currency: str = "") -> str:
    from callwarden.kernel.money import format_amount

    return format_amount(micros, currency)


def clock(at_s: float, *, date: bool = False) -> str:
    """A moment in local time, with the date where it isn't today's; empty for 0."""
    if not at_s:
        return ""
    at = datetime.fromtimestamp(at_s, UTC).astimezone()
    today = datetime.fromtimestamp(time.time(), UTC).astimezone().date()
    return at.strftime("%Y-%m-%d %H:%M:%S" if date or at.date() != today else "%H:%M:%S")


def duration(seconds: float) -> str:
    """ "0:07", "1:02:03" """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(seconds: float) -> str:
    """How long, to the unit that matters: "40 s", "12 min", "3 h", "5 d"."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit or (unit == 60 and seconds >= unit):
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0, round(seconds))} s"


def clock_in(at_s: float, zone: str, now_s: float) -> str:
    """A moment ahead as clocks and calendars of that time zone show it: the hour within a day, else the date; UTC where
    this machine doesn't know the zone."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        place: tzinfo = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        place = UTC
    return datetime.fromtimestamp(at_s, place).strftime("%H:%M" if at_s - now_s <= 86_400 else "%Y-%m-%d")
