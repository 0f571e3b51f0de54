"""`callwarden account`: who may call, with what limits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from callwarden.cli import output, remote, uploads, values
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.field_options import fill, fill_change, to_change, to_create
from callwarden.cli.output import Output, OutputOption
from callwarden.kernel.account import BY_NAME, CLEARABLE, FIELDS, LIMITS
from callwarden.kernel.fields import DataField, FieldKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.admission_pb2 import Account

app = typer.Typer(no_args_is_help=True, help="Accounts: who calls and pays, and their limits.")

_EXPORT_TIMEOUT_S: Final = 300.0  # 100,000 accounts are read and written in less.
_CLEAR: Final = f"Take away: a limit, {' or '.join(sorted(CLEARABLE - LIMITS.keys()))}; may be repeated."

NameArgument = Annotated[str, typer.Argument(help="Name or id.")]
PasswordOption = Annotated[
    str | None,
    typer.Option(
        "--password",
        help="SIP password; [bold]-[/bold] reads it from standard input, which other users of this machine can't see.",
        show_default=False,
    ),
]


@app.command()
@to_create(FIELDS, without=("name", "active"))
def create(
    name: Annotated[str, typer.Argument(help=BY_NAME["name"].about)],
    password: PasswordOption = None,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and print it once.")] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="No phone registers with it (trunks, carriers).")
    ] = False,
    credit: Annotated[str, typer.Option(help="Top up with this amount at once.")] = "0",
    as_: OutputOption = Output.TABLE,
    **fields: Any,
) -> None:
    """Create an account, its password and its first credit.

    Example: [bold]callwarden account create alice --generate --number +442079460101 --deck retail --credit 10[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.cli import operations

    if no_password and (generate or password is not None):
        raise CliMisuse("--no-password goes with neither --password nor --generate")
    if no_password:
        secret = ""
    else:
        secret = values.new_password() if generate else values.secret(password, what=f"SIP password of {name}")
    wanted = pb.Account(name=name)
    fill(wanted, FIELDS, fields)
    first_micros = values.amount(credit, name="--credit")

    account = remote.speak(
        lambda system: operations.create_account(system, wanted, password=secret, credit_micros=first_micros)
    )
    made = {"password": secret} if generate else {}

    def view() -> None:
        output.show(details(account))
        if generate:
            output.echo(f"\nPassword, shown only this once: {secret}")

    output.emit(as_, output.plain(account) | made, view)


@app.command()
def show(account: NameArgument, as_: OutputOption = Output.TABLE) -> None:
    """Show an account: credit, limits, lines in use.

    Example: [bold]callwarden account show alice[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    found = remote.speak(lambda system: remote.ask(system.accounts.GetAccount, pb.GetAccountRequest(account=account)))
    output.emit_message(as_, found, lambda: output.show(details(found)))


@app.command("list")
def list_(
    after: Annotated[str, typer.Option(help="Continue after this name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    kind: Annotated[str, typer.Option("--type", help="Only of this type.")] = "",
    realm: Annotated[str, typer.Option(help="Only of this realm.")] = "",
    parent: Annotated[str, typer.Option(help="Only of this reseller.")] = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """List all accounts by name.

    Example: [bold]callwarden account list --output json[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.ListAccountsRequest(page_size=limit, after=after, type=kind, realm=realm, parent=parent)
    reply = remote.speak(lambda system: remote.ask(system.accounts.ListAccounts, request))
    none = "no accounts" + (f" after {after}" if after else "; create one with `callwarden account create`")

    def view() -> None:
        output.show(_table(reply.accounts))
        if len(reply.accounts) == limit:
            output.echo(f"\nmore with --after {reply.accounts[-1].name}")

    output.emit_messages(as_, pb.Account, reply.accounts, view, none=none)


def _table(accounts: "Sequence[Account]") -> output.Rows:
    table = output.Rows(
        "name",
        "type",
        "credit",
        "held",
        "spent today",
        "lines",
        "numbers",
        right=("credit", "held", "spent today"),
        below=("numbers",),
        optional=("type", "lines"),
    )
    for found in accounts:
        table.add(
            found.name if found.status == "active" else f"{found.name} ({found.status})",
            found.type,
            output.money(found.balance_micros, found.currency),
            output.money(found.held_micros) if found.held_micros else "",
            output.money(found.spent_today_micros) if found.spent_today_micros else "",
            _lines(found),
            " ".join(f"+{digits}" for digits in found.numbers),
        )
    return table


@app.command("set")
@to_change(FIELDS)
def set_(
    account: NameArgument,
    clear: Annotated[list[str] | None, typer.Option(help=_CLEAR)] = None,
    as_: OutputOption = Output.TABLE,
    **fields: Any,
) -> None:
    """Change an account; what isn't named stays.

    Example: [bold]callwarden account set office --lines 5 --daily 100[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.UpdateAccountRequest(account=account, clear=clear or ())
    fill_change(request, FIELDS, fields)
    if request == pb.UpdateAccountRequest(account=account):
        raise CliMisuse("nothing to change: name at least one option, such as --lines 5")
    changed = remote.speak(lambda system: remote.ask(system.accounts.UpdateAccount, request))
    output.emit_message(as_, changed, lambda: output.show(details(changed)))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV file; - reads standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it, write nothing.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Take the good lines although others are bad.")] = (
        False
    ),
    realm: Annotated[str, typer.Option(help="SIP domain of lines without one.")] = "callwarden.local",
    currency: Annotated[str, typer.Option(help="Currency of lines without one.")] = "EUR",
    as_: OutputOption = Output.TABLE,
) -> None:
    """Create accounts from a CSV file: all of them, or none and an error for each bad line.

    The first line names the columns; `callwarden account export` shows all there are. Passwords aren't among them.

    Example: [bold]callwarden account import customers.csv --dry-run[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    def first(part: bytes) -> pb.ImportAccountsRequest:
        return pb.ImportAccountsRequest(
            csv=part, dry_run=dry_run, keep_going=keep_going, realm=realm, currency=currency
        )

    parts = uploads.parts(uploads.read(file), first, lambda part: pb.ImportAccountsRequest(csv=part))
    reply = remote.speak(lambda system: remote.ask(system.accounts.ImportAccounts, parts, timeout_s=uploads.TIMEOUT_S))
    created = f"{reply.created:,} accounts {'would be ' if dry_run else ''}created"
    uploads.emit_import(as_, reply, "" if reply.errors_total else created)
    if reply.errors_total:
        raise Failure(f"{uploads.bad_lines(str(file), reply.errors, reply.errors_total)}; {created}")


@app.command()
def export(
    kind: Annotated[str, typer.Option("--type", help="Only of this type.")] = "",
    realm: Annotated[str, typer.Option(help="Only of this realm.")] = "",
    parent: Annotated[str, typer.Option(help="Only of this reseller.")] = "",
    file: Annotated[Path | None, typer.Option("--to", help="File to write. Default: standard output.")] = None,
) -> None:
    """All accounts as CSV that `account import` takes back.

    Example: [bold]callwarden account export --parent north --to north.csv[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.ExportAccountsRequest(type=kind, realm=realm, parent=parent)
    remote.speak(lambda system: remote.save(system.accounts.ExportAccounts, request, file, timeout_s=_EXPORT_TIMEOUT_S))


@app.command()
def passwd(
    account: NameArgument,
    password: PasswordOption = None,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and print it once.")] = False,
    username: Annotated[str | None, typer.Option(help="SIP user name, where it isn't the account's name.")] = None,
) -> None:
    """Set the SIP password of an account.

    Example: [bold]callwarden account passwd alice --generate[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.api.auth.v1 import auth_pb2

    if generate and password is not None:
        raise CliMisuse("either --password or --generate")
    secret = values.new_password() if generate else values.secret(password, what=f"SIP password of {account}")
    if not secret:
        raise CliMisuse("the password is empty")

    async def work(system: remote.Remote) -> str:
        found = await remote.ask(system.accounts.GetAccount, pb.GetAccountRequest(account=account))
        user = username or found.name
        await remote.ask(
            system.auth.SetPassword,
            auth_pb2.SetPasswordRequest(account_id=found.id, username=user, realm=found.realm, password=secret),
        )
        return f"{user}@{found.realm}"

    output.echo(f"password of {remote.speak(work)} set")
    if generate:
        output.echo(f"shown this once: {secret}")


def _lines(account: "Account") -> str:
    limit = f" of {account.limits.max_lines}" if account.limits.HasField("max_lines") else ""
    return f"{account.lines_in_use}{limit}"


def details(account: "Account") -> Any:
    """An account as label and value, for people: what is set, and what everybody asks for."""
    limits = account.limits
    daily = output.money(limits.daily_micros, account.currency) if limits.HasField("daily_micros") else "policy"
    return output.facts(
        {
            "account": f"{account.name}@{account.realm}",
            "id": account.id,
            "type": f"{account.type}, {'prepaid' if account.prepaid else 'postpaid'}, {account.status}",
            **({"reseller": account.parent} if account.parent else {}),
            "numbers": " ".join(f"+{digits}" for digits in account.numbers) or "none",
            "deck": account.deck or (f"its reseller's ({account.parent})" if account.parent else _NO_DECK),
            "credit": output.money(account.balance_micros, account.currency)
            + (f", of which {output.money(account.held_micros)} held by running calls" if account.held_micros else ""),
            "spent today": f"{output.money(account.spent_today_micros, account.currency)} (limit: {daily})",
            "lines": f"{_lines(account)} in use" + ("" if limits.HasField("max_lines") else " (limit: policy)"),
            **{field.label: text for field in FIELDS if field.name not in _SHOWN and (text := _shown(account, field))},
            "time zone": account.time_zone,
        }
    )


_NO_DECK: Final = "none: it can't call out"


# What `details` shows with more than its value, and what qualifies the line before.
_SHOWN: Final = frozenset({
    "name", "realm", "type", "active", "currency", "time_zone", "prepaid", "deck", "parent", "numbers", "max_lines",
    "daily_micros", "email_verified", "phone_verified",
})  # fmt: skip


def _shown(account: "Account", field: DataField) -> str:
    """A field's value for people; empty where it isn't set, or says no."""
    holder: Any = getattr(account, field.group) if field.group else account
    value = getattr(holder, field.wire)
    if holder.DESCRIPTOR.fields_by_name[field.wire].has_presence and not holder.HasField(field.wire):
        return ""
    match field.kind:
        case FieldKind.AMOUNT:
            return output.money(value, account.currency)
        case FieldKind.DURATION:
            return output.duration(value)
        case FieldKind.COUNT:
            return str(value) if field.is_limit or value > 1 else ""
        case FieldKind.FLAG:
            return "yes" if value else ""
        case FieldKind.NAMES:
            return " ".join(value)
    text = f"+{value}" if value and field.kind is FieldKind.PHONE else value
    if text and f"{field.name}_verified" in BY_NAME:
        is_verified = getattr(holder, f"{field.wire}_verified")
        return f"{text} ({'verified' if is_verified else 'not verified'})"
    return text
