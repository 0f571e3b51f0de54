"""Files that commands send to a service in parts, and what the service reports about their lines."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import typer

from callwarden.cli import output, records
from callwarden.cli.failure import Failure
from callwarden.cli.output import Output

if TYPE_CHECKING:
    from google.protobuf.message import Message

Request = TypeVar("Request")

PART_BYTES: Final = 1024 * 1024  # A message between services has at most 4 MiB.
TIMEOUT_S: Final = 300.0  # A million rates, or 100,000 accounts, are read, checked and written in two minutes.
_ERRORS_SHOWN: Final = 20


class BadLine(Protocol):
    """A line that a service rejects."""

    line: int
    reason: str


def read(file: Path) -> bytes:
    """The content; `-` is standard input. Failure where it can't be read."""
    try:
        return typer.get_binary_stream("stdin").read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from error


def parts(content: bytes, first: Callable[[bytes], Request], further: Callable[[bytes], Request]) -> Iterator[Request]:
    """The requests that carry it; the first one says what it is, and is there for an empty file, too."""
    yield first(content[:PART_BYTES])
    for start in range(PART_BYTES, len(content), PART_BYTES):
        yield further(content[start : start + PART_BYTES])


def emit_import(as_: Output, reply: "Message", done: str) -> None:
    """What an import did. `done` is the sentence for people; empty where `bad_lines` is going to say what went wrong.
    CSV has the bad lines, one a row, since a good import has nothing else to list."""
    document = output.plain(reply)
    output.emit(
        as_,
        document,
        lambda: output.echo(done) if done else None,
        rows=document["errors"],
        columns=[
            name.removeprefix("errors.")
            for name in records.csv_columns(reply, each="errors")
            if name.startswith("errors.")
        ],
    )


def bad_lines(source: str, errors: Sequence[BadLine], total: int) -> str:
    """Prints each on standard error, up to a bound, as editors read it. Returns their number for the last line."""
    for bad in errors[:_ERRORS_SHOWN]:
        field = getattr(bad, "field", "")
        named = f"{field}: " if field else ""
        typer.echo(output.printable(f"{source}:{bad.line}: {named}{bad.reason}"), err=True)
    more = f" (the first {_ERRORS_SHOWN} are shown)" if total > _ERRORS_SHOWN else ""
    return f"{total:,} bad line{'' if total == 1 else 's'}{more}"
