"""`callwarden call` and `callwarden explain`: which calls there are, and why one was refused."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from callwarden.cli import output, records, remote, values
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.admission_pb2 import Call

app = typer.Typer(no_args_is_help=True, help="Calls: running and past ones, and what they cost.")


_EXPORT_TIMEOUT_S: Final = 3_600.0  # Millions of records, at the speed of what takes them.


class CallExportFormat(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


@app.command("list")
def list_(
    account: Annotated[str, typer.Option(help="Only this account's.")] = "",
    running: Annotated[bool, typer.Option("--running", help="Only running ones.")] = False,
    since: Annotated[str | None, typer.Option(help="Only those of the last 1h, 2d, …")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_: OutputOption = Output.TABLE,
) -> None:
    """List calls, the newest first.

    Example: [bold]callwarden call list --account alice --since 1h[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    since_s = time.time() - values.seconds(since, name="--since") if since is not None else 0.0
    request = pb.ListCallsRequest(account=account, running=running, since_s=since_s, page_size=limit)
    found = remote.speak(lambda system: remote.ask(system.accounts.ListCalls, request)).calls
    none = "no calls" + (" are running" if running else "")
    output.emit_messages(as_, pb.Call, found, lambda: show(found), none=none)


@app.command()
def export(
    as_: Annotated[
        CallExportFormat, typer.Option("--output", "-o", help="CSV, or JSON Lines.", show_default=True)
    ] = CallExportFormat.CSV,
    account: Annotated[str, typer.Option(help="Only this account's.")] = "",
    since: Annotated[str | None, typer.Option(help="Only those that started in the last 30d, …")] = None,
    until: Annotated[str | None, typer.Option(help="Only those that started 1d ago or earlier, …")] = None,
    file: Annotated[Path | None, typer.Option("--to", help="File to write. Default: standard output.")] = None,
) -> None:
    """Export the records of settled calls.

    Example: [bold]callwarden call export --since 30d --output jsonl --to calls.jsonl[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    unix_s = time.time()
    request = pb.ExportCallsRequest(
        account=account,
        since_s=0.0 if since is None else unix_s - values.seconds(since, name="--since"),
        until_s=0.0 if until is None else unix_s - values.seconds(until, name="--until"),
        format=as_.value,
    )
    remote.speak(lambda system: remote.save(system.accounts.ExportCalls, request, file, timeout_s=_EXPORT_TIMEOUT_S))


def show(calls: "Sequence[Call]") -> None:
    table = output.Rows(
        "started",
        "account",
        "to",
        "state",
        "talked",
        "price",
        "why",
        "call id",
        right=("talked", "price"),
        prose=("why",),
        below=("call id",),
        optional=("why", "state", "talked"),
    )
    for call in calls:
        talked_s = time.time() - call.answered_at_s if call.state == "running" else call.duration_s
        colour = {"running": "green", "refused": "red"}.get(call.state, "")
        table.add(
            output.clock(call.started_at_s),
            call.account,
            destination(call.destination),
            output.cell(call.state, colour),
            output.duration(talked_s) if call.answered_at_s else "",
            output.money(call.price_micros, call.currency) if call.price_micros else "",
            call.reason,
            call.call_id,
        )
    output.show(table)


def destination(text: str) -> str:
    """A number with its plus, a name as it is."""
    return f"+{text}" if text.isdigit() else text


def explain(
    call_id: Annotated[str | None, typer.Argument(metavar="call-id", help="The SIP Call-ID.")] = None,
    account: Annotated[str, typer.Option(help="All decisions about this account's calls, instead of one call.")] = "",
    since: Annotated[str, typer.Option(help="With --account: decisions of the last 1h, 2d, …")] = "1h",
    refused: Annotated[bool, typer.Option("--refused", help="With --account: only refusals.")] = False,
    reported: Annotated[
        bool,
        typer.Option("--reported", help="With --account: only calls that a rule in mode Report would have refused."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="With --account: how many at most.")] = 100,
    every: Annotated[
        bool, typer.Option("--all", help="With a Call-ID: a line for each rule, including those that don't apply.")
    ] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Explain why a call was admitted, refused or cut: every rule that checked it, with its numbers.

    Example: [bold]callwarden explain 3c26a7b0e1d94f6a@192.0.2.7[/bold]

    Example: [bold]callwarden explain --account alice --since 1h --refused[/bold]
    """
    if (call_id is None) == (not account):
        raise CliMisuse("name a call by its Call-ID, or an account with --account")
    if call_id is None:
        if refused and reported:
            raise CliMisuse("--refused and --reported exclude each other: a refused call wasn't only reported")
        if every:
            raise CliMisuse("--all needs a Call-ID: it shows rules, not calls")
        _explain_account(account, since, limit, as_, refused=refused, reported=reported)
        return
    if refused or reported:
        raise CliMisuse("--refused and --reported need --account, not a Call-ID")
    _explain_call(call_id, as_, every=every)


def _explain_call(call_id: str, as_: Output, *, every: bool) -> None:
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.cli import explanation

    reply = remote.speak(lambda system: remote.ask(system.accounts.Explain, pb.ExplainRequest(call_id=call_id)))
    if not reply.decisions and not reply.HasField("call"):
        raise Failure(
            f"nothing is known about call {call_id}: `callwarden call list` shows the ids; a phone that gives up when "
            "it is asked for its password leaves none (one that knows MD5 only does, where the policy wants SHA-256)"
        )
    decisions = output.plain(reply)["decisions"]
    output.emit(
        as_,
        output.plain(reply),
        lambda: output.show(explanation.render(call_id, reply, every=every)),
        rows=[row for decision in decisions for row in records.exploded(decision, "rules")],
        columns=explanation.csv_columns(),
    )


def _explain_account(account: str, since: str, limit: int, as_: Output, *, refused: bool, reported: bool) -> None:
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.cli import explanation

    request = pb.ListDecisionsRequest(
        account=account,
        since_s=time.time() - values.seconds(since, name="--since"),
        outcome="refuse" if refused else "",
        reported=reported,
    )
    found, more = remote.speak(
        lambda system: remote.ask_pages(system.accounts.ListDecisions, request, lambda reply: reply.decisions, limit)
    )
    kind = "refusals" if refused else "reports" if reported else "decisions"

    def view() -> None:
        output.show(explanation.render_list(found))
        if more:
            output.echo(f"\nthe newest {len(found)}; more with --limit, fewer with a shorter --since")
        else:
            output.echo("\n`callwarden explain CALL-ID` shows every rule of one call")

    none = f"no {kind} about {account} in the last {since}"
    output.emit_messages(as_, pb.DecisionLine, found, view, none=none)
