"""`callwarden call` and `callwarden explain`: what calls there are, and why one was refused."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from callwarden.cli import output, remote, values
from callwarden.cli.failure import Failure, Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2 import Call

app = typer.Typer(no_args_is_help=True, help="Calls: which run, which ran, what they cost.")


_EXPORT_TIMEOUT_S: Final = 3_600.0  # Millions of records, at the speed of what takes them.


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


class State(StrEnum):
    """How a call's state is coloured."""

    RUNNING = "running"
    REFUSED = "refused"


@app.command("list")
def list_(
    account: Annotated[str, typer.Option(help="Only this account's.")] = "",
    running: Annotated[bool, typer.Option("--running", help="Only those that run now.")] = False,
    since: Annotated[str | None, typer.Option(help="Only of the last so long, such as 1h or 2d.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Calls, the newest first.

    Example: [bold]callwarden call list --account alice --since 1h[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    since_s = time.time() - values.seconds(since, name="--since") if since is not None else 0.0
    request = pb.ListCallsRequest(account=account, running=running, since_s=since_s, page_size=limit)
    found = remote.speak(lambda system: remote.ask(system.accounts.ListCalls, request)).calls
    if not output.all_said(found, as_, none="no calls" + (" run now" if running else "")):
        show(list(found))


@app.command()
def export(
    format_: Annotated[Format, typer.Option("--format", help="How the records are written.")] = Format.CSV,
    account: Annotated[str, typer.Option(help="Only this account's.")] = "",
    since: Annotated[str | None, typer.Option(help="Only of the last so long, such as 30d.")] = None,
    until: Annotated[str | None, typer.Option(help="Only those that began so long ago or before, such as 1d.")] = None,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; without it standard output.")
    ] = None,
) -> None:
    """Records of settled calls, as they come from the database.

    Example: [bold]callwarden call export --since 30d --format jsonl -o calls.jsonl[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    now_s = time.time()
    request = pb.ExportCallsRequest(
        account=account,
        since_s=0.0 if since is None else now_s - values.seconds(since, name="--since"),
        until_s=0.0 if until is None else now_s - values.seconds(until, name="--until"),
        format=format_.value,
    )
    remote.speak(lambda system: remote.save(system.accounts.ExportCalls, request, file, timeout_s=_EXPORT_TIMEOUT_S))


def show(calls: "list[Call]") -> None:
    table = output.Rows(
        "started", "account", "to", "state", "talked", "price", "why", "call id", right=("talked", "price")
    )
    for call in calls:
        talked_s = time.time() - call.answered_at_s if call.state == State.RUNNING else call.duration_s
        colour = {State.RUNNING.value: "green", State.REFUSED.value: "red"}.get(call.state, "")
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
    account: Annotated[str, typer.Option(help="Instead of one call: all decisions about this account's.")] = "",
    since: Annotated[str, typer.Option(help="With --account: of the last so long, such as 1h or 2d.")] = "1h",
    refused: Annotated[bool, typer.Option("--refused", help="With --account: only refusals.")] = False,
    reported: Annotated[
        bool,
        typer.Option("--reported", help="With --account: only calls that a rule in mode Report would have refused."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="With --account: at most so many.")] = 100,
    every: Annotated[
        bool, typer.Option("--all", help="With a Call-ID: a line for each rule, those that don't apply, too.")
    ] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Why a call was admitted, refused or cut: every rule that was asked, with its numbers.

    Example: [bold]callwarden explain 3c26a7b0e1d94f6a@192.0.2.7[/bold]

    Example: [bold]callwarden explain --account alice --since 1h --refused[/bold]
    """
    if (call_id is None) == (not account):
        raise Misuse("name a call by its Call-ID, or an account with --account")
    if call_id is None:
        if refused and reported:
            raise Misuse("either --refused or --reported: what was refused wasn't only reported")
        if every:
            raise Misuse("--all goes with a Call-ID: it shows rules, not calls")
        _explain_account(account, since, limit, as_, refused=refused, reported=reported)
        return
    if refused or reported:
        raise Misuse("--refused and --reported go with --account, not with a Call-ID")
    _explain_call(call_id, as_, every=every)


def _explain_call(call_id: str, as_: Output, *, every: bool) -> None:
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.cli import explanation

    reply = remote.speak(lambda system: remote.ask(system.accounts.Explain, pb.ExplainRequest(call_id=call_id)))
    if not reply.decisions and not reply.HasField("call"):
        raise Failure(f"nothing is known of call {call_id}: `callwarden call list` shows the ids")
    if as_ is Output.JSON:
        output.as_json(output.plain(reply))
    else:
        output.show(explanation.render(call_id, reply, every=every))


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
    if output.all_said(found, as_, none=f"no {kind} about {account} in the last {since}"):
        return
    output.show(explanation.render_list(found))
    if more:
        output.say(f"\nthe newest {len(found)}; more with --limit, less with a shorter --since")
    else:
        output.say("\n`callwarden explain CALL-ID` shows every rule of one call")
