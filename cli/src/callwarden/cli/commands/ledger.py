"""`callwarden topup` and `callwarden ledger`: money in, what was booked, and whether the books are right."""

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from callwarden.cli import output, remote, retrying, values
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption
from callwarden.cli.records import csv_columns, moment
from callwarden.kernel.clock import UnixS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.admission_pb2 import (
        AuditLedgerReply,
        ChargeFinding,
        ChargeSummary,
        Correction,
        LedgerEntry,
    )

CHECK_TIMEOUT_S: Final = 3_600.0  # A million records take minutes, and the database has other things to do.

app = typer.Typer(no_args_is_help=True, help="The ledger: what was booked, and whether the books are right.")


def topup(
    account: Annotated[str, typer.Argument(help="Name or id.")],
    amount: Annotated[str, typer.Argument(help="Such as 10 or 12.50.")],
    currency: Annotated[str | None, typer.Option(help="Must be the account's. Default: the account's.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Key of this payment: used twice, credited once. Default: a new one.")
    ] = None,
    note: Annotated[str, typer.Option(help="Stored with the entry.")] = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """Credit an account, exactly once for each key.

    Without --key the command makes one and prints it. Repeating the command with that key is always safe.


    Example: [bold]callwarden topup alice 10 --key invoice-2026-117[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2
    from callwarden.api.payment.v1 import payment_pb2 as pb

    micros = values.amount(amount)
    if micros <= 0:
        raise CliMisuse("the amount must be above zero")

    used = key or retrying.new_key()

    async def work(system: remote.Remote) -> pb.TopUpReply:
        wanted = currency
        if wanted is None:
            request = admission_pb2.GetAccountRequest(account=account)
            wanted = (await remote.ask(system.accounts.GetAccount, request)).currency
        with retrying.repeatable(used):
            return await remote.ask(
                system.payment.TopUp,
                pb.TopUpRequest(account=account, amount_micros=micros, currency=wanted, key=used, note=note),
            )

    reply = remote.speak(work)

    def view() -> None:
        balance = output.money(reply.balance_micros, reply.currency)
        if reply.duplicate:
            output.echo(f"this payment was credited before; nothing added. Credit: {balance}")
        else:
            output.echo(f"{account}: {output.money(micros, reply.currency)} added. Credit: {balance}")
        _show_key(key, used)

    output.emit(as_, output.plain(reply) | {"key": used}, view)


@app.command()
def check(
    account: Annotated[str, typer.Argument(help="Name or id. Default: all accounts.", show_default=False)] = "",
    since: Annotated[str, typer.Option(help="Charges since 2026-11-01, or of the last 24h, 30d, …")] = "24h",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many findings to show at most.")] = 100,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Check the books: sums of the ledger against balances and holds, and every charge.

    Each call since then is priced again by what its record has kept, and compared with the record, the ledger, its hold
    and the calls that edges know. Exit code 0: nothing is wrong; 1: something is, or it could not be checked.


    Example: [bold]callwarden ledger check --since 2026-11-01[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    since_s = max(values.since(since, UnixS(time.time())), 0.0)

    async def work(system: remote.Remote) -> "tuple[pb.AuditLedgerReply, list[pb.CheckChargesPart]]":
        books = await remote.ask(system.accounts.AuditLedger, pb.AuditLedgerRequest(account=account), timeout_s=60.0)
        request = pb.CheckChargesRequest(account=account, since_s=since_s)
        return books, await remote.ask_parts(system.accounts.CheckCharges, request, timeout_s=CHECK_TIMEOUT_S)

    books, parts = remote.speak(work)
    summary = next((part.summary for part in parts if part.HasField("summary")), None)
    if summary is None:
        raise Failure("the check of charges ended early: try again")
    found = [finding for part in parts for finding in part.findings]
    shown, total = found[:limit], sum(of.count for of in summary.found)
    right = is_right(books)

    def view() -> None:
        output.show(output.facts(_facts(books, summary, since_s)))
        if shown:
            output.echo("")
            output.show(_findings(shown))
        if total > len(shown):
            output.echo(f"\nthe first {len(shown):,} of {total:,}; more with --limit")
        if right and not total:
            output.echo("Every charge is what its price and its talk say.")
            output.echo("The books are right: every balance is the sum of its entries.")

    document = output.plain(books) | {
        "right": right and not total,
        "since": moment(since_s),
        "charges": output.plain(summary),
        "findings": [output.plain(finding) for finding in shown],
    }
    rows = [output.plain(finding) for finding in shown]
    output.emit(as_, document, view, rows=rows, columns=csv_columns(pb.ChargeFinding))
    if not right:
        named = ", ".join(books.mismatched_accounts[:20])
        raise Failure("the books are wrong" + (f": ledger and balance differ for {named}" if named else ""))
    if total:
        raise Failure("the books are wrong: " + ", ".join(f"{of.count:,} {of.kind}" for of in summary.found))


def _facts(books: "AuditLedgerReply", charges: "ChargeSummary", since_s: float) -> dict[str, str]:
    money = output.money
    rows = {
        "accounts": f"{books.accounts:,}",
        "ledger": f"{money(books.ledger_sum_micros)} in {books.entries:,} entries",
        "balances": money(books.balance_sum_micros),
        "held": f"{money(books.held_sum_micros)} by {books.open_holds:,} running calls",
        "checked": f"{charges.records:,} calls and {charges.entries:,} charges since "
        f"{output.clock(since_s, date=True) or 'the first'}, {charges.holds:,} holds",
    }
    if charges.unpriced:
        rows["not checked"] = f"{charges.unpriced:,} calls whose records are of a release that kept no price"
    if charges.uncharged:
        rows["not paid"] = f"{charges.uncharged:,} calls in full, because their ends came late"
    if not charges.edges_asked:
        rows["edges"] = "could not be asked which calls they know"
    return rows


def _findings(found: "Sequence[ChargeFinding]") -> output.Rows:
    table = output.Rows(
        "what",
        "account",
        "expected",
        "found",
        "call",
        "hold",
        "note",
        right=("expected", "found"),
        prose=("note",),
        below=("call", "hold"),
        optional=("note",),
    )
    for finding in found:
        table.add(
            finding.kind,
            finding.account,
            output.money(finding.expected_micros, finding.currency),
            output.money(finding.found_micros, finding.currency),
            finding.call_id,
            finding.hold_id,
            finding.note,
        )
    return table


@app.command("list")
def list_(
    account: Annotated[str, typer.Argument(help="Name or id.")],
    since: Annotated[str | None, typer.Option(help="Only entries of the last 1h, 30d, …")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_: OutputOption = Output.TABLE,
) -> None:
    """List what was booked on an account, the newest first.

    Example: [bold]callwarden ledger list alice --since 30d[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    since_s = 0.0 if since is None else time.time() - values.seconds(since, name="--since")
    request = pb.ListLedgerRequest(account=account, since_s=since_s)
    found, more = remote.speak(
        lambda system: remote.ask_pages(system.accounts.ListLedger, request, lambda reply: reply.entries, limit)
    )

    def view() -> None:
        output.show(_table(found))
        if more:
            output.echo(f"\nthe newest {len(found)}; more with --limit")

    none = "nothing was booked" + (f" in the last {since}" if since else "")
    output.emit_messages(as_, pb.LedgerEntry, found, view, none=none)


def _table(entries: "Sequence[LedgerEntry]") -> output.Rows:
    table = output.Rows(
        "booked",
        "kind",
        "amount",
        "reference",
        "note",
        "entry",
        right=("amount",),
        prose=("note",),
        below=("entry", "reference"),
        optional=("note",),
    )
    for entry in entries:
        table.add(
            output.clock(entry.at_s),
            entry.kind,
            output.money(entry.amount_micros, entry.currency),
            entry.reference,
            entry.note,
            entry.id if entry.id != entry.reference else "",
        )
    return table


ReasonOption = Annotated[str, typer.Option(help="Why; stored with the entry.")]
KeyOption = Annotated[
    str | None, typer.Option(help="Key of this correction: used twice, done once. Default: a new one.")
]


@app.command()
def correct(
    hold_id: Annotated[
        str, typer.Argument(metavar="hold-id", help="Hold id of the call, as `call list -o json` shows it.")
    ],
    price: Annotated[str, typer.Argument(help="New price of the whole call, such as 0 or 0.25.")],
    reason: ReasonOption,
    key: KeyOption = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Correct the price of a settled call by a new entry; existing entries never change.

    Example: [bold]callwarden ledger correct 5f0c6a3e-... 0 --reason "bad line" --key ticket-77[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    used = key or retrying.new_key()
    request = pb.CorrectCallRequest(
        hold_id=hold_id, price_micros=values.amount(price, name="PRICE"), reason=reason, key=used
    )

    async def work(system: remote.Remote) -> pb.Correction:
        with retrying.repeatable(used):
            return await remote.ask(system.accounts.CorrectCall, request)

    _corrected(remote.speak(work), as_, key, used)


@app.command()
def reverse(
    entry_id: Annotated[str, typer.Argument(metavar="entry-id", help="Id of the ledger entry.")],
    reason: ReasonOption,
    key: KeyOption = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Reverse what is left of a ledger entry by a new entry.

    Example: [bold]callwarden ledger reverse 5f0c6a3e-... --reason "paid twice" --key ticket-78[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    used = key or retrying.new_key()
    request = pb.ReverseEntryRequest(entry_id=entry_id, reason=reason, key=used)

    async def work(system: remote.Remote) -> pb.Correction:
        with retrying.repeatable(used):
            return await remote.ask(system.accounts.ReverseEntry, request)

    _corrected(remote.speak(work), as_, key, used)


def _corrected(done: "Correction", as_: Output, key: str | None, used: str) -> None:
    balance = output.money(done.balance_micros, done.currency)
    if done.duplicate:
        said = "this correction was made before; nothing changed"
    elif not done.amount_micros:
        said = "nothing had to change"
    else:
        said = f"{done.account}: {output.money(done.amount_micros, done.currency)} booked"

    def view() -> None:
        output.echo(f"{said}. Credit: {balance}")
        _show_key(key, used)

    output.emit(as_, output.plain(done) | {"key": used}, view)


def _show_key(key: str | None, used: str) -> None:
    """A key that the command made is shown, so that the command can be repeated with it."""
    if key is None:
        output.echo(f"key: {used} (the same command with this --key books nothing more)")


def is_right(books: object) -> bool:
    """Whether an AuditLedgerReply shows no difference anywhere."""
    from callwarden.api.admission.v1.admission_pb2 import AuditLedgerReply

    assert isinstance(books, AuditLedgerReply)
    return (
        not books.mismatched_accounts
        and books.ledger_sum_micros == books.balance_sum_micros
        and books.held_sum_micros == books.hold_rows_sum_micros
    )
