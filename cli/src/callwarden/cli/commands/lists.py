"""`callwarden list`: lists of numbers that must not, or always may, call or be called."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callwarden.cli import output, records, remote, uploads, values
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.lists_pb2 import ListedNumber, NumberList

app = typer.Typer(no_args_is_help=True, help="Number lists: numbers that must not call or be called.")

_SOURCE_CHARS = 1_024


class ListKindOption(StrEnum):
    BLOCK = "block"
    ALLOW = "allow"


class ListSideOption(StrEnum):
    CALLED = "called"
    CALLING = "calling"
    BOTH = "both"


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name of the list; one of that name is replaced.")],
    file: Annotated[
        Path | None, typer.Argument(help="Plain text or CSV; - reads standard input.", show_default=False)
    ] = None,
    url: Annotated[str | None, typer.Option(help="Download it from this URL instead of a file.")] = None,
    column: Annotated[
        str, typer.Option(help="CSV column with the numbers: its name, or its number from 1. Default: detected.")
    ] = "",
    kind: Annotated[
        ListKindOption, typer.Option(help="Whether its numbers are always refused or never.")
    ] = ListKindOption.BLOCK,
    side: Annotated[
        ListSideOption, typer.Option(help="Which number of a call it is compared with.")
    ] = ListSideOption.CALLED,
    prefixes: Annotated[bool, typer.Option("--prefixes", help="Entries without * are prefixes, too.")] = False,
    trunk: Annotated[
        list[str] | None,
        typer.Option(help="Apply it to calls by this trunk, whatever the policies say; may be repeated."),
    ] = None,
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept plain HTTP for --url.")] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Import a list: all of it, or nothing and an error for each bad line. It applies to new calls at once.

    A line is a number (+49 30 1234), a prefix (4990*) or has ? for any one digit (4990?555*).

    Example: [bold]callwarden list import irsf test-numbers.csv --column "Test Number"[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    content, source = _content(file, url, insecure=insecure)

    def first(part: bytes) -> pb.ImportListRequest:
        return pb.ImportListRequest(
            name=name,
            kind=kind.value,
            side=side.value,
            description=description,
            source=source,
            column=column,
            prefixes=prefixes,
            trunks=trunk or (),
            content=part,
        )

    parts = uploads.parts(content, first, lambda part: pb.ImportListRequest(content=part))
    reply = remote.speak(lambda system: remote.ask(system.lists.ImportList, parts, timeout_s=uploads.TIMEOUT_S))
    twice = f" ({reply.duplicates:,} duplicates skipped)" if reply.duplicates else ""
    done = f"list {name}: {reply.entries:,} entries imported{twice}, version {reply.version}"
    uploads.emit_import(as_, reply, "" if reply.errors else done)
    if reply.errors:
        told = uploads.bad_lines(source, reply.errors, len(reply.errors))
        raise Failure(f"{told}: nothing was imported; correct them and import again")


def _content(file: Path | None, url: str | None, *, insecure: bool) -> tuple[bytes, str]:
    """What is to be imported, and where it is from."""
    if (file is None) is (url is None):
        raise CliMisuse("name a file, or give --url")
    if url is not None:
        from callwarden.cli.download import fetch

        return fetch(url, insecure=insecure), url.partition("?")[0][:_SOURCE_CHARS]
    assert file is not None
    return uploads.read(file), "standard input" if str(file) == "-" else str(file)[-_SOURCE_CHARS:]


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """List all number lists.

    Example: [bold]callwarden list list[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    lists = remote.speak(lambda system: remote.ask(system.lists.ListLists, pb.ListListsRequest())).lists
    none = "no lists; import one with `callwarden list import`"
    output.emit_messages(as_, pb.NumberList, lists, lambda: output.show(_table(lists)), none=none)


def _table(lists: "Sequence[NumberList]") -> output.Rows:
    table = output.Rows(
        "list",
        "kind",
        "side",
        "entries",
        "version",
        "updated",
        "trunks",
        "source",
        right=("entries", "version"),
        prose=("source",),
        optional=("source", "version", "side", "trunks", "kind"),
    )
    for one in lists:
        version = f"{one.version}" if one.loaded else f"{one.version} (loading)"
        table.add(
            one.name,
            one.kind,
            one.side,
            f"{one.entries:,}",
            version,
            output.clock(one.updated_at_s),
            ", ".join(one.trunks),
            one.source,
        )
    return table


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the list.")],
    after: Annotated[str, typer.Option(help="Continue after this entry.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many entries.")] = 100,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Show the entries of a list, a page at a time.

    Example: [bold]callwarden list show irsf[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    request = pb.ShowListRequest(name=name, after=after, page_size=limit)
    reply = remote.speak(lambda system: remote.ask(system.lists.ShowList, request))

    def view() -> None:
        head = reply.list
        version = f"version {head.version} of {output.clock(head.updated_at_s, date=True)}"
        output.show(
            output.facts(
                {
                    "list": head.name,
                    "kind": f"{head.kind}, {head.side} numbers",
                    "description": head.description,
                    "entries": f"{head.entries:,}, {version}",
                    "source": head.source,
                    "trunks": ", ".join(head.trunks) or "none",
                }
            )
        )
        table = output.Rows("entry", "note", prose=("note",))
        for entry in reply.entries:
            table.add(entry.pattern, entry.note)
        output.show(table)
        if len(reply.entries) == limit:
            output.echo(f"more with --after {reply.entries[-1].pattern}")

    entries = output.plain(reply)["entries"]
    output.emit(as_, output.plain(reply), view, rows=entries, columns=records.csv_columns(pb.ListEntry))


@app.command()
def delete(name: Annotated[str, typer.Argument(help="Name of the list.")]) -> None:
    """Delete a list. A policy or account that names it continues without it.

    Example: [bold]callwarden list delete irsf[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    reply = remote.speak(lambda system: remote.ask(system.lists.DeleteList, pb.DeleteListRequest(name=name)))
    if not reply.deleted:
        raise Failure(f"there is no list {name}: `callwarden list list` shows them")
    output.echo(f"list {name} deleted")


@app.command()
def check(
    number: Annotated[str, typer.Argument(help="A number, such as +442079460101.")],
    as_: OutputOption = Output.TABLE,
) -> None:
    """Show which lists contain a number, and by which entry.

    Example: [bold]callwarden list check +442079460101[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    request = pb.CheckNumberRequest(number=values.number(number))
    reply = remote.speak(lambda system: remote.ask(system.lists.CheckNumber, request))

    def view() -> None:
        if not reply.hits and not reply.listed:
            output.echo(f"+{request.number} is on no list")
        if reply.hits:
            table = output.Rows("list", "kind", "side", "entry", "note", prose=("note",), optional=("note", "side"))
            for hit in reply.hits:
                table.add(hit.list, hit.kind, hit.side, hit.pattern, hit.note)
            output.show(table)
        if reply.listed:
            _show_listed(reply.listed)

    document = output.plain(reply)
    output.emit(
        as_,
        document,
        view,
        rows=[*document["hits"], *document["listed"]],
        columns=[
            *records.csv_columns(pb.ListHit),
            *(
                column
                for column in records.csv_columns(pb.ListedNumber)
                if column not in records.csv_columns(pb.ListHit)
            ),
        ],
    )


@app.command()
def listed(as_: OutputOption = Output.TABLE) -> None:
    """List numbers that are listed temporarily: they keep failing, took part in an attack, or behave unusually.

    Example: [bold]callwarden list listed[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    numbers = remote.speak(lambda system: remote.ask(system.lists.ListListed, pb.ListListedRequest())).numbers
    none = "no number is listed temporarily"
    output.emit_messages(as_, pb.ListedNumber, numbers, lambda: _show_listed(numbers), none=none)


@app.command()
def lift(
    number: Annotated[str | None, typer.Argument(help="The listed number.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Lift every listing.")] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Lift a temporary listing: calls to the number are served again at once, and its statistics restart.

    Example: [bold]callwarden list lift +442079460101[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    if (number is None) is not all_:
        raise CliMisuse("name one number, or --all")
    wanted = values.number(number) if number is not None else ""
    request = pb.RemoveListedRequest(number=wanted, all=all_)
    removed = remote.speak(lambda system: remote.ask(system.lists.RemoveListed, request)).removed
    if not removed and not all_:
        raise Failure(f"+{wanted} isn't listed temporarily: `callwarden list listed` shows what is")

    def view() -> None:
        for lifted in removed:
            output.echo(f"+{lifted.number} is no longer on list {lifted.list}")

    output.emit_messages(as_, pb.ListedNumber, removed, view, none="no number was listed")


def _show_listed(numbers: "Sequence[ListedNumber]") -> None:
    table = output.Rows(
        "number",
        "side",
        "of",
        "list",
        "reason",
        "evidence",
        "since",
        "expires in",
        prose=("reason", "evidence"),
        optional=("evidence", "side", "list", "reason"),
    )
    unix_s = time.time()
    for one in numbers:
        table.add(
            f"+{one.number}",
            one.side,
            one.account_id or one.realm,
            one.list,
            one.reason,
            one.evidence,
            output.clock(one.since_s),
            output.duration(max(0.0, one.until_s - unix_s)),
        )
    output.show(table)
