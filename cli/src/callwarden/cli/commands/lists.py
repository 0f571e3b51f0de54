"""`callwarden list`: lists of numbers that may not, or always may, call or be called."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callwarden.cli import output, remote, uploads, values
from callwarden.cli.failure import Failure, Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.lists_pb2 import ListedNumber

app = typer.Typer(no_args_is_help=True, help="Number lists: who may not call or be called; import, look up, lift.")

_SOURCE_CHARS = 1_024


class Kind(StrEnum):
    BLOCK = "block"
    ALLOW = "allow"


class Side(StrEnum):
    CALLED = "called"
    CALLING = "calling"
    BOTH = "both"


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name of the list; one of that name is replaced.")],
    file: Annotated[
        Path | None, typer.Argument(help="Plain text or CSV; - reads standard input.", show_default=False)
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where to download it from, instead of a file.")] = None,
    column: Annotated[
        str, typer.Option(help="CSV column with the numbers: its name, or its number from 1. Without it found out.")
    ] = "",
    kind: Annotated[Kind, typer.Option(help="Numbers on it are refused, or never.")] = Kind.BLOCK,
    side: Annotated[Side, typer.Option(help="Which number of a call it is about.")] = Side.CALLED,
    prefixes: Annotated[bool, typer.Option("--prefixes", help="Entries without * are prefixes, too.")] = False,
    trunk: Annotated[
        list[str] | None, typer.Option(help="It holds for calls by this trunk, whatever policies name; several times.")
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Take plain HTTP for --url.")] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Import a list: all of it, or nothing and an error for each bad line. Calls are decided by it at once.

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
    if as_ is Output.JSON:
        output.as_json(output.plain(reply))
    if reply.errors:
        told = uploads.bad_lines(source, reply.errors, len(reply.errors))
        raise Failure(f"{told}: nothing was imported; correct them and import again")
    if as_ is Output.TABLE:
        twice = f" ({reply.duplicates:,} stood there more than once)" if reply.duplicates else ""
        output.say(f"list {name}: {reply.entries:,} entries imported{twice}, version {reply.version}")


def _content(file: Path | None, url: str | None, *, insecure: bool) -> tuple[bytes, str]:
    """What is to be imported, and where it is from."""
    if (file is None) is (url is None):
        raise Misuse("name a file, or give --url")
    if url is not None:
        from callwarden.cli.download import fetch

        return fetch(url, insecure=insecure), url.partition("?")[0][:_SOURCE_CHARS]
    assert file is not None
    return uploads.read(file), "standard input" if str(file) == "-" else str(file)[-_SOURCE_CHARS:]


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """All lists.

    Example: [bold]callwarden list list[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    lists = remote.speak(lambda system: remote.ask(system.lists.ListLists, pb.ListListsRequest())).lists
    if output.all_said(lists, as_, none="no lists; import one with `callwarden list import`"):
        return
    table = output.Rows(
        "list", "kind", "side", "entries", "version", "updated", "trunks", "source", right=("entries", "version")
    )
    for one in lists:
        version = f"{one.version}" if one.loaded else f"{one.version} (being loaded)"
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
    output.show(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the list.")],
    after: Annotated[str, typer.Option(help="Entry after which to go on.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many entries.")] = 100,
    as_: OutputOption = Output.TABLE,
) -> None:
    """A list's entries, a page at a time.

    Example: [bold]callwarden list show irsf[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    request = pb.ShowListRequest(name=name, after=after, page_size=limit)
    reply = remote.speak(lambda system: remote.ask(system.lists.ShowList, request))
    if as_ is Output.JSON:
        output.as_json(output.plain(reply))
        return
    head = reply.list
    output.show(
        output.facts(
            {
                "list": head.name,
                "kind": f"{head.kind}, {head.side} numbers",
                "description": head.description,
                "entries": f"{head.entries:,}, version {head.version} of {output.clock(head.updated_at_s, date=True)}",
                "source": head.source,
                "trunks": ", ".join(head.trunks) or "none",
            }
        )
    )
    table = output.Rows("entry", "note")
    for entry in reply.entries:
        table.add(entry.pattern, entry.note)
    output.show(table)
    if len(reply.entries) == limit:
        output.say(f"more with --after {reply.entries[-1].pattern}")


@app.command()
def delete(name: Annotated[str, typer.Argument(help="Name of the list.")]) -> None:
    """Take a list away. A policy or account that names it goes on without it.

    Example: [bold]callwarden list delete irsf[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    reply = remote.speak(lambda system: remote.ask(system.lists.DeleteList, pb.DeleteListRequest(name=name)))
    if not reply.deleted:
        raise Failure(f"there is no list {name}: `callwarden list list` shows them")
    output.say(f"list {name} is gone")


@app.command()
def check(
    number: Annotated[str, typer.Argument(help="A number, such as +442079460101.")],
    as_: OutputOption = Output.TABLE,
) -> None:
    """Which lists have a number, and by which entry.

    Example: [bold]callwarden list check +442079460101[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    request = pb.CheckNumberRequest(number=values.number(number))
    reply = remote.speak(lambda system: remote.ask(system.lists.CheckNumber, request))
    if as_ is Output.JSON:
        output.as_json(output.plain(reply))
        return
    if not reply.hits and not reply.listed:
        output.say(f"+{request.number} is on no list")
        return
    if reply.hits:
        table = output.Rows("list", "kind", "side", "entry", "note")
        for hit in reply.hits:
            table.add(hit.list, hit.kind, hit.side, hit.pattern, hit.note)
        output.show(table)
    if reply.listed:
        _show_listed(list(reply.listed))


@app.command()
def listed(as_: OutputOption = Output.TABLE) -> None:
    """Numbers that are listed for a time because they keep failing, were part of an attack, or are out of line.

    Example: [bold]callwarden list listed[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    numbers = remote.speak(lambda system: remote.ask(system.lists.ListListed, pb.ListListedRequest())).numbers
    if not output.all_said(numbers, as_, none="no number is listed for a time"):
        _show_listed(list(numbers))


@app.command()
def lift(
    number: Annotated[str | None, typer.Argument(help="The listed number.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Lift every listing.")] = False,
) -> None:
    """Lift a listing: the number is served again at once, its statistics begin anew.

    Example: [bold]callwarden list lift +442079460101[/bold]
    """
    from callwarden.api.admission.v1 import lists_pb2 as pb

    if (number is None) is not all_:
        raise Misuse("name one number, or --all")
    wanted = values.number(number) if number is not None else ""
    request = pb.RemoveListedRequest(number=wanted, all=all_)
    removed = remote.speak(lambda system: remote.ask(system.lists.RemoveListed, request)).removed
    if not removed:
        if all_:
            output.say("no number was listed")
            return
        raise Failure(f"+{wanted} isn't listed for a time: `callwarden list listed` shows what is")
    for lifted in removed:
        output.say(f"+{lifted.number} is on list {lifted.list} no more")


def _show_listed(numbers: "Sequence[ListedNumber]") -> None:
    table = output.Rows("number", "side", "of", "list", "reason", "evidence", "since", "for another")
    now_s = time.time()
    for one in numbers:
        table.add(
            f"+{one.number}",
            one.side,
            one.account_id or one.realm,
            one.list,
            one.reason,
            one.evidence,
            output.clock(one.since_s),
            output.duration(max(0.0, one.until_s - now_s)),
        )
    output.show(table)
