"""`callwarden topup` and `callwarden ledger`: money in, what was booked, and whether the books are right."""

import time
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from callwarden.cli import output, remote, values
from callwarden.cli.failure import Failure, Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2 import Correction

app = typer.Typer(no_args_is_help=True, help="The ledger: what was booked, and do the books add up?")


def topup(
    account: Annotated[str, typer.Argument(help="Name or id.")],
    amount: Annotated[str, typer.Argument(help="Such as 10 or 12.50.")],
    currency: Annotated[str | None, typer.Option(help="Must be the account's; without it taken from there.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Unique key of this payment: asked twice, credited once. Without it a new one.")
    ] = None,
    note: Annotated[str, typer.Option(help="Kept with the entry.")] = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """Put money into an account, exactly once for each key.

    Example: [bold]callwarden topup alice 10 --key invoice-2026-117[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2
    from callwarden.api.payment.v1 import payment_pb2 as pb

    micros = values.amount(amount)
    if micros <= 0:
        raise Misuse("the amount must be above zero")

    async def work(system: remote.Remote) -> pb.TopUpReply:
        wanted = currency
        if wanted is None:
            request = admission_pb2.GetAccountRequest(account=account)
            wanted = (await remote.ask(system.accounts.GetAccount, request)).currency
        return await remote.ask(
            system.payment.TopUp,
            pb.TopUpRequest(
                account=account, amount_micros=micros, currency=wanted, key=key or str(uuid.uuid4()), note=note
            ),
        )

    reply = remote.speak(work)
    if as_ is Output.JSON:
        output.as_json(output.plain(reply))
        return
    balance = output.money(reply.balance_micros, reply.currency)
    if reply.duplicate:
        output.say(f"this payment was credited before; nothing added. Credit: {balance}")
    else:
        output.say(f"{account}: {output.money(micros, reply.currency)} added. Credit: {balance}")


@app.command()
def check(
    account: Annotated[str, typer.Argument(help="Name or id; without it all accounts.", show_default=False)] = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """Add up the ledger and compare with balances and holds; exit code 1 when they differ.

    Example: [bold]callwarden ledger check[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    books = remote.speak(
        lambda system: remote.ask(system.accounts.AuditLedger, pb.AuditLedgerRequest(account=account), timeout_s=60.0)
    )
    right = is_right(books)
    if as_ is Output.JSON:
        output.as_json(output.plain(books) | {"right": right})
    else:
        output.show(
            output.facts(
                {
                    "accounts": f"{books.accounts:,}",
                    "ledger": f"{output.money(books.ledger_sum_micros)} in {books.entries:,} entries",
                    "balances": output.money(books.balance_sum_micros),
                    "held": f"{output.money(books.held_sum_micros)} by {books.open_holds:,} running calls",
                }
            )
        )
    if not right:
        named = ", ".join(books.mismatched_accounts[:20])
        raise Failure("the books are wrong" + (f": ledger and balance differ for {named}" if named else ""))
    if as_ is Output.TABLE:
        output.say("The books are right: every balance is the sum of its entries.")


@app.command("list")
def list_(
    account: Annotated[str, typer.Argument(help="Name or id.")],
    since: Annotated[str | None, typer.Option(help="Only of the last so long, such as 1h or 30d.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_: OutputOption = Output.TABLE,
) -> None:
    """What was booked on an account, the newest first.

    Example: [bold]callwarden ledger list alice --since 30d[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    since_s = 0.0 if since is None else time.time() - values.seconds(since, name="--since")
    request = pb.ListLedgerRequest(account=account, since_s=since_s)
    found, more = remote.speak(
        lambda system: remote.ask_pages(system.accounts.ListLedger, request, lambda reply: reply.entries, limit)
    )
    if output.all_said(found, as_, none="nothing was booked" + (f" in the last {since}" if since else "")):
        return
    table = output.Rows("booked", "kind", "amount", "reference", "note", "entry", right=("amount",))
    for entry in found:
        table.add(
            output.clock(entry.at_s),
            entry.kind,
            output.money(entry.amount_micros, entry.currency),
            entry.reference,
            entry.note,
            entry.id if entry.id != entry.reference else "",
        )
    output.show(table)
    if more:
        output.say(f"\nthe newest {len(found)}; more with --limit")


ReasonOption = Annotated[str, typer.Option(help="Why; kept with the entry.")]
KeyOption = Annotated[
    str | None, typer.Option(help="Unique key of this correction: asked twice, done once. Without it a new one.")
]


@app.command()
def correct(
    hold_id: Annotated[str, typer.Argument(metavar="hold-id", help="Of the call, as `call list -o json` shows it.")],
    price: Annotated[str, typer.Argument(help="What the call is to have cost in all, such as 0 or 0.25.")],
    reason: ReasonOption,
    key: KeyOption = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Correct the price of a settled call by an entry of its own; what was booked stays.

    Example: [bold]callwarden ledger correct 5f0c6a3e-... 0 --reason "bad line" --key ticket-77[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.CorrectCallRequest(
        hold_id=hold_id, price_micros=values.amount(price, name="PRICE"), reason=reason, key=key or str(uuid.uuid4())
    )
    _corrected(remote.speak(lambda system: remote.ask(system.accounts.CorrectCall, request)), as_)


@app.command()
def reverse(
    entry_id: Annotated[str, typer.Argument(metavar="entry-id", help="Of the ledger entry.")],
    reason: ReasonOption,
    key: KeyOption = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Take back what is left of a ledger entry by another one.

    Example: [bold]callwarden ledger reverse 5f0c6a3e-... --reason "paid twice" --key ticket-78[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.ReverseEntryRequest(entry_id=entry_id, reason=reason, key=key or str(uuid.uuid4()))
    _corrected(remote.speak(lambda system: remote.ask(system.accounts.ReverseEntry, request)), as_)


def _corrected(done: "Correction", as_: Output) -> None:
    if as_ is Output.JSON:
        output.as_json(output.plain(done))
        return
    balance = output.money(done.balance_micros, done.currency)
    if done.duplicate:
        output.say(f"this correction was made before; nothing changed. Credit: {balance}")
    elif not done.amount_micros:
        output.say(f"nothing had to change. Credit: {balance}")
    else:
        output.say(f"{done.account}: {output.money(done.amount_micros, done.currency)} booked. Credit: {balance}")


def is_right(books: object) -> bool:
    """Whether an AuditLedgerReply shows no difference anywhere."""
    from callwarden.api.admission.v1.admission_pb2 import AuditLedgerReply

    assert isinstance(books, AuditLedgerReply)
    return (
        not books.mismatched_accounts
        and books.ledger_sum_micros == books.balance_sum_micros
        and books.held_sum_micros == books.hold_rows_sum_micros
    )
