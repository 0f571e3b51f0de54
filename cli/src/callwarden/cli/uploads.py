"""Files that commands send to a service in parts, and what the service says of their lines."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

import typer

from callwarden.cli import output
from callwarden.cli.failure import Failure

Request = TypeVar("Request")

PART_BYTES: Final = 1024 * 1024  # A message between services has at most 4 MiB.
TIMEOUT_S: Final = 300.0  # A million rates, or 100,000 accounts, are read, checked and written in two minutes.
_ERRORS_SHOWN: Final = 20


class BadLine(Protocol):
    """What a service says of a line that it doesn't take."""

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


def bad_lines(source: str, errors: Sequence[BadLine], total: int) -> str:
    """Tells of each on standard error, up to a bound, as editors read it; how many there are, for the last line."""
    for bad in errors[:_ERRORS_SHOWN]:
        field = getattr(bad, "field", "")
        named = f"{field}: " if field else ""
        typer.echo(output.clean(f"{source}:{bad.line}: {named}{bad.reason}"), err=True)
    more = f" (the first {_ERRORS_SHOWN} are shown)" if total > _ERRORS_SHOWN else ""
    return f"{total:,} bad line{'' if total == 1 else 's'}{more}"
