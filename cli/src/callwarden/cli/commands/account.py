"""`callwarden account`: who may call, with what limits."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from callwarden.cli import output, remote, values
from callwarden.cli.failure import Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2 import Account

app = typer.Typer(no_args_is_help=True, help="Accounts: who calls and pays, and their limits.")

NameArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Name or id.")]
PasswordOption = Annotated[
    str | None,
    typer.Option(
        "--password",
        help="SIP password; [bold]-[/bold] reads it from standard input, which other users of this machine can't see.",
        show_default=False,
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 64 of A-Z a-z 0-9 . _ -; also the SIP user name.")],
    password: PasswordOption = None,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and print it once.")] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="No phone registers with it (trunks, carriers).")
    ] = False,
    realm: Annotated[str, typer.Option(help="SIP domain.")] = "callwarden.local",
    kind: Annotated[str, typer.Option("--type", help="enduser, traffic-sender or carrier.")] = "enduser",
    postpaid: Annotated[bool, typer.Option("--postpaid", help="Bill later; without it credit goes before.")] = False,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "EUR",
    deck: Annotated[str, typer.Option(help="Price list its calls are charged by.")] = "",
    credit: Annotated[str, typer.Option(help="Top up with so much at once.")] = "0",
    number: Annotated[list[str] | None, typer.Option(help="Number it owns; may be repeated.")] = None,
    lines: Annotated[str, typer.Option(help="Calls at the same time; `none`: the policy says.")] = "none",
    daily: Annotated[str, typer.Option(help="Spend a day; `none`: the policy says.")] = "none",
    time_zone: Annotated[str, typer.Option(help="Where its day begins.")] = "UTC",
    as_: OutputOption = Output.TABLE,
) -> None:
    """Create an account, its password and its first credit.

    Example: [bold]callwarden account create alice --generate --number +442079460101 --deck retail --credit 10[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.cli import operations

    if no_password and (generate or password is not None):
        raise Misuse("--no-password goes with neither --password nor --generate")
    if no_password:
        secret = ""
    else:
        secret = values.new_password() if generate else values.secret(password, what=f"SIP password of {name}")
    wanted = pb.Account(
        name=name,
        realm=realm,
        type=kind,
        currency=currency,
        prepaid=not postpaid,
        deck=deck,
        time_zone=time_zone,
        numbers=[values.number(text) for text in number or []],
        limits=_limits(lines, daily),
    )
    first_micros = values.amount(credit, name="--credit")

    account = remote.speak(
        lambda system: operations.create_account(system, wanted, password=secret, credit_micros=first_micros)
    )
    if as_ is Output.JSON:
        output.as_json(output.plain(account) | ({"password": secret} if generate else {}))
        return
    output.show(details(account))
    if generate:
        output.say(f"\nPassword, shown this once: {secret}")


@app.command()
def show(account: NameArgument, as_: OutputOption = Output.TABLE) -> None:
    """One account: credit, limits, lines in use.

    Example: [bold]callwarden account show alice[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    found = remote.speak(lambda system: remote.ask(system.accounts.GetAccount, pb.GetAccountRequest(account=account)))
    if as_ is Output.JSON:
        output.as_json(output.plain(found))
    else:
        output.show(details(found))


@app.command("list")
def list_(
    after: Annotated[str, typer.Option(help="Go on after this name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    as_: OutputOption = Output.TABLE,
) -> None:
    """All accounts by name.

    Example: [bold]callwarden account list --output json[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    reply = remote.speak(
        lambda system: remote.ask(system.accounts.ListAccounts, pb.ListAccountsRequest(page_size=limit, after=after))
    )
    if as_ is Output.JSON:
        output.as_json([output.plain(account) for account in reply.accounts])
        return
    if not reply.accounts:
        output.say("no accounts" + (f" after {after}" if after else "; make one with `callwarden account create`"))
        return
    table = output.Rows(
        "name", "type", "credit", "held", "spent today", "lines", "numbers", right=("credit", "held", "spent today")
    )
    for found in reply.accounts:
        table.add(
            found.name if found.status == "active" else f"{found.name} ({found.status})",
            found.type,
            output.money(found.balance_micros, found.currency),
            output.money(found.held_micros) if found.held_micros else "",
            output.money(found.spent_today_micros) if found.spent_today_micros else "",
            _lines(found),
            " ".join(f"+{digits}" for digits in found.numbers),
        )
    output.show(table)
    if len(reply.accounts) == limit:
        output.say(f"\nmore with --after {reply.accounts[-1].name}")


@app.command("set")
def set_(
    account: NameArgument,
    status: Annotated[str | None, typer.Option(help="active or disabled.")] = None,
    deck: Annotated[str | None, typer.Option(help="Price list.")] = None,
    lines: Annotated[str | None, typer.Option(help="Calls at the same time; `none`: the policy says.")] = None,
    daily: Annotated[str | None, typer.Option(help="Spend a day; `none`: the policy says.")] = None,
    add_number: Annotated[list[str] | None, typer.Option(help="Number it owns from now on.")] = None,
    remove_number: Annotated[list[str] | None, typer.Option(help="Number it owns no more.")] = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Change an account; what isn't named stays.

    Example: [bold]callwarden account set office --lines 5 --daily 100[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.UpdateAccountRequest(
        account=account,
        add_numbers=[values.number(text) for text in add_number or []],
        remove_numbers=[values.number(text) for text in remove_number or []],
    )
    if status is not None:
        request.status = status
    if deck is not None:
        request.deck = deck
    if lines is not None:
        count = values.limit(lines, name="--lines")
        if count is None:
            request.clear.append("max_lines")
        else:
            request.limits.max_lines = count
    if daily == "none":
        request.clear.append("daily_micros")
    elif daily is not None:
        request.limits.daily_micros = values.amount(daily, name="--daily")
    if request == pb.UpdateAccountRequest(account=account):
        raise Misuse("nothing to change: name at least one option, such as --lines 5")
    changed = remote.speak(lambda system: remote.ask(system.accounts.UpdateAccount, request))
    if as_ is Output.JSON:
        output.as_json(output.plain(changed))
    else:
        output.show(details(changed))


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
        raise Misuse("either --password or --generate")
    secret = values.new_password() if generate else values.secret(password, what=f"SIP password of {account}")
    if not secret:
        raise Misuse("the password is empty")

    async def work(system: remote.Remote) -> str:
        found = await remote.ask(system.accounts.GetAccount, pb.GetAccountRequest(account=account))
        user = username or found.name
        await remote.ask(
            system.auth.SetPassword,
            auth_pb2.SetPasswordRequest(account_id=found.id, username=user, realm=found.realm, password=secret),
        )
        return f"{user}@{found.realm}"

    output.say(f"password of {remote.speak(work)} set")
    if generate:
        output.say(f"shown this once: {secret}")


def _limits(lines: str, daily: str) -> Any:
    from callwarden.api.admission.v1 import admission_pb2 as pb

    limits = pb.Limits()
    if (count := values.limit(lines, name="--lines")) is not None:
        limits.max_lines = count
    if daily != "none":
        limits.daily_micros = values.amount(daily, name="--daily")
    return limits


def _lines(account: "Account") -> str:
    limit = f" of {account.limits.max_lines}" if account.limits.HasField("max_lines") else ""
    return f"{account.lines_in_use}{limit}"


def details(account: "Account") -> Any:
    """An account as label and value, for people."""
    limits = account.limits
    daily = output.money(limits.daily_micros, account.currency) if limits.HasField("daily_micros") else "policy"
    return output.facts(
        {
            "account": f"{account.name}@{account.realm}",
            "id": account.id,
            "type": f"{account.type}, {'prepaid' if account.prepaid else 'postpaid'}, {account.status}",
            "numbers": " ".join(f"+{digits}" for digits in account.numbers) or "none",
            "deck": account.deck or "none: it can't call out",
            "credit": output.money(account.balance_micros, account.currency)
            + (f", of which {output.money(account.held_micros)} held by running calls" if account.held_micros else ""),
            "spent today": f"{output.money(account.spent_today_micros, account.currency)} (limit: {daily})",
            "lines": f"{_lines(account)} in use" + ("" if limits.HasField("max_lines") else " (limit: policy)"),
            "time zone": account.time_zone,
        }
    )
