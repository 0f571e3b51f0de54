"""`callwarden sip`: how Callwarden's parser reads a message. Test calls are in `sip_calls`."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from callwarden.cli import output, records
from callwarden.cli.failure import Failure
from callwarden.cli.output import Output, OutputOption

app = typer.Typer(no_args_is_help=True, help="SIP: place a test call; read a message as the edge does.")

_BYTES_MAX: Final = 1_000_000  # No SIP message is larger; the parser itself takes 64 KiB.


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="File with one message; [bold]-[/bold] reads standard input.")],
    as_: OutputOption = Output.JSON,
) -> None:
    """Parse a SIP message and print what the edge reads in it, or why it is refused (exit code 1).

    Example: [bold]callwarden sip check invite.txt[/bold]
    """
    from callwarden.sip.check import describe
    from callwarden.sip.malformed import Malformed
    from callwarden.sip.message import parse

    try:
        if file == "-":
            data = sys.stdin.buffer.read(_BYTES_MAX)
        else:
            with Path(file).open("rb") as source:
                data = source.read(_BYTES_MAX)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from error
    try:
        described = describe(parse(data))
    except Malformed as error:
        # What an editor saves by itself, and RFC 3261 section 7 doesn't allow.
        is_unix = b"\n" in data and b"\r\n" not in data
        hint = " (its lines end with LF, SIP's with CR LF: `sed -i 's/$/\\r/'` changes them)" if is_unix else ""
        raise Failure(f"refused: {error.reason}{hint}") from error
    output.emit(as_, described, lambda: output.show(output.facts(dict(records.flat(described)))))
