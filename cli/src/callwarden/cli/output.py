"""How every command shows its result: a table for people, JSON and CSV for programs.

In: the choice of format (`--output`), printing, words for money and time. Out: how a table is laid out (layout), what
JSON and CSV consist of (records).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from callwarden.cli import records
from callwarden.cli.layout import DIM, UNBOUNDED, Aligned, Rows, cell
from callwarden.cli.records import json_text, plain
from callwarden.kernel.clock import UnixS
from callwarden.kernel.printable import printable

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console, RenderableType
    from rich.text import Text

PROSE_COLUMNS: Final = 80  # What prose is wrapped to where there is no terminal.


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", help="Table for people, JSON or CSV for programs.", show_default=True),
]

# Records as a program takes them; a view prints the same for people.
Document = Mapping[str, Any] | Sequence[Any]
View = Callable[[], None]


def emit(
    as_: Output,
    document: Document,
    view: View,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    columns: Sequence[str] | None = None,
    err: bool = False,
) -> None:
    """The one way to print a result. `document` is the JSON; `rows` and `columns` are the CSV where it isn't simply the
    document's records; `view` prints for people. `err`: to standard error, where `view` prints there, too."""
    match as_:
        case Output.TABLE:
            view()
        case Output.JSON:
            typer.echo(json_text(document), err=err)
        case Output.CSV:
            if rows is None:
                rows = [document] if isinstance(document, Mapping) else document
            typer.echo(records.csv_text(rows, columns), nl=False, err=err)


def emit_message(as_: Output, message: "Message", view: View) -> None:
    """One answer of a service."""
    emit(as_, plain(message), view, columns=records.csv_columns(message))


def emit_messages(as_: Output, kind: "type[Message]", messages: "Sequence[Message]", view: View, *, none: str) -> None:
    """A list of a service; `none` is what people read where it is empty. CSV of an empty list is its header."""
    emit(
        as_,
        [plain(message) for message in messages],
        view if messages else lambda: echo(none),
        columns=records.csv_columns(kind),
    )


def clean(text: str) -> str:
    """Text of several lines with what a terminal would obey shown instead: a Call-ID or a reason comes from a stranger.
    The text of one line is `cell` or `printable`."""
    return printable(text, keep_line_breaks=True)


def console(*, stderr: bool = False) -> "Console":
    """A console on the standard output (or error) of this moment; colours only on a terminal, NO_COLOR is honoured.
    Where there is no terminal, lines have any length."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal and not _columns_are_set():
        found.width = UNBOUNDED
    return found


def _columns_are_set() -> bool:
    import os

    return os.environ.get("COLUMNS", "").isdigit()


def show(renderable: "RenderableType") -> None:
    console().print(renderable, crop=False)


def show_lines(text: "Text") -> None:
    """Text that has its line breaks, and gets no others."""
    console().print(text, soft_wrap=True)


def width() -> int:
    """Columns that prose may take."""
    found = console().width
    return PROSE_COLUMNS if found == UNBOUNDED else found


def echo(text: str) -> None:
    """A sentence of result, or several lines of it."""
    typer.echo(clean(text))


def facts(rows: "Mapping[str, str | Text]", *, indent: int = 0) -> Aligned:
    """Label and value, one a line."""
    return Aligned(((cell(label, DIM), value) for label, value in rows.items()), indent=indent)


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


def clock_in(at_s: float, zone: str, unix_s: UnixS) -> str:
    """A moment ahead as clocks and calendars of that time zone show it: the hour within a day, else the date; UTC where
    this machine doesn't know the zone."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        place: tzinfo = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        place = UTC
    return datetime.fromtimestamp(at_s, place).strftime("%H:%M" if at_s - unix_s <= 86_400 else "%Y-%m-%d")


__all__ = [
    "DIM",
    "Aligned",
    "Output",
    "OutputOption",
    "Rows",
    "cell",
    "clean",
    "clock",
    "clock_in",
    "console",
    "duration",
    "echo",
    "emit",
    "emit_message",
    "emit_messages",
    "facts",
    "json_text",
    "money",
    "plain",
    "printable",
    "show",
    "show_lines",
    "span",
    "width",
]
