"""`callwarden account`: who may call, with what limits."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from callwarden.cli import output, remote, uploads, values
from callwarden.cli.failure import Failure, Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.admission_pb2 import Account, Limits, Profile

app = typer.Typer(no_args_is_help=True, help="Accounts: who calls and pays, and their limits.")

_EXPORT_TIMEOUT_S: Final = 300.0  # 100,000 accounts are read and written in less.

# Option: its field in Limits, and how its value is read.
_LIMIT_OPTIONS: Final = {
    "lines": ("max_lines", values.limit),
    "lines_off_peak": ("max_lines_off_peak", values.limit),
    "per_second": ("max_per_second", values.limit),
    "daily": ("daily_micros", values.amount),
    "monthly": ("monthly_micros", values.amount),
    "monthly_increment": ("monthly_increment_micros", values.amount),
    "monthly_ceiling": ("monthly_ceiling_micros", values.amount),
    "talk_day": ("talk_day_s", values.seconds),
    "talk_month": ("talk_month_s", values.seconds),
}

NameArgument = Annotated[str, typer.Argument(help="Name or id.")]
# What both `create` and `set` take.
LinesOffPeakOption = Annotated[str | None, typer.Option(help="Calls at the same time outside peak hours.")]
PerSecondOption = Annotated[str | None, typer.Option(help="New calls within a second.")]
MonthlyOption = Annotated[str | None, typer.Option(help="Spend a calendar month.")]
MonthlyIncrementOption = Annotated[
    str | None, typer.Option(help="Added to the monthly limit after each month with calls.")
]
MonthlyCeilingOption = Annotated[str | None, typer.Option(help="How far the monthly limit grows.")]
TalkDayOption = Annotated[str | None, typer.Option(help="Talk time a day, such as 90m; a carrier's: terminated.")]
TalkMonthOption = Annotated[str | None, typer.Option(help="Talk time a month, such as 100h.")]
CountryOption = Annotated[str | None, typer.Option(help="Where the subscriber lives, such as DE.")]
EmailOption = Annotated[str | None, typer.Option(help="Address to write to.")]
EmailVerifiedOption = Annotated[
    bool | None, typer.Option("--email-verified/--email-unverified", help="Whether somebody checked it.")
]
PhoneOption = Annotated[str | None, typer.Option(help="Number to reach the subscriber at.")]
PhoneVerifiedOption = Annotated[
    bool | None, typer.Option("--phone-verified/--phone-unverified", help="Whether somebody checked it.")
]
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
    kind: Annotated[str, typer.Option("--type", help="enduser, traffic-sender, carrier or reseller.")] = "enduser",
    postpaid: Annotated[bool, typer.Option("--postpaid", help="Bill later; without it credit goes before.")] = False,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "EUR",
    deck: Annotated[str, typer.Option(help="Price list its calls are charged by; without it its reseller's.")] = "",
    parent: Annotated[str, typer.Option(help="Reseller it belongs to; of the same realm and currency.")] = "",
    credit: Annotated[str, typer.Option(help="Top up with so much at once.")] = "0",
    number: Annotated[list[str] | None, typer.Option(help="Number it owns; may be repeated.")] = None,
    lines: Annotated[str | None, typer.Option(help="Calls at the same time; without it the policy says.")] = None,
    daily: Annotated[str | None, typer.Option(help="Spend a day; without it the policy says.")] = None,
    lines_off_peak: LinesOffPeakOption = None,
    per_second: PerSecondOption = None,
    monthly: MonthlyOption = None,
    monthly_increment: MonthlyIncrementOption = None,
    monthly_ceiling: MonthlyCeilingOption = None,
    talk_day: TalkDayOption = None,
    talk_month: TalkMonthOption = None,
    time_zone: Annotated[str, typer.Option(help="Where its day and month begin.")] = "UTC",
    country: CountryOption = None,
    email: EmailOption = None,
    email_verified: EmailVerifiedOption = None,
    phone: PhoneOption = None,
    phone_verified: PhoneVerifiedOption = None,
    shards: Annotated[int, typer.Option(min=0, help="Rows its counters are split over, where one can't carry it.")] = 0,
    list_: Annotated[
        list[str] | None, typer.Option("--list", help="Number list for its calls; may be repeated.")
    ] = None,
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
    limits, _ = _limits(
        lines=lines,
        daily=daily,
        lines_off_peak=lines_off_peak,
        per_second=per_second,
        monthly=monthly,
        monthly_increment=monthly_increment,
        monthly_ceiling=monthly_ceiling,
        talk_day=talk_day,
        talk_month=talk_month,
    )
    wanted = pb.Account(
        name=name,
        realm=realm,
        type=kind,
        currency=currency,
        prepaid=not postpaid,
        deck=deck,
        time_zone=time_zone,
        numbers=[values.number(text) for text in number or []],
        limits=limits,
        parent=parent,
        profile=_profile(country, email, email_verified, phone, phone_verified),
        shards=shards,
        lists=list_ or (),
    )
    first_micros = values.amount(credit, name="--credit")

    account = remote.speak(
        lambda system: operations.create_account(system, wanted, password=secret, credit_micros=first_micros)
    )
    made = {"password": secret} if generate else {}

    def view() -> None:
        output.show(details(account))
        if generate:
            output.say(f"\nPassword, shown only this once: {secret}")

    output.emit(as_, output.plain(account) | made, view)


@app.command()
def show(account: NameArgument, as_: OutputOption = Output.TABLE) -> None:
    """One account: credit, limits, lines in use.

    Example: [bold]callwarden account show alice[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    found = remote.speak(lambda system: remote.ask(system.accounts.GetAccount, pb.GetAccountRequest(account=account)))
    output.emit_message(as_, found, lambda: output.show(details(found)))


@app.command("list")
def list_(
    after: Annotated[str, typer.Option(help="Go on after this name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    kind: Annotated[str, typer.Option("--type", help="Only of this type.")] = "",
    realm: Annotated[str, typer.Option(help="Only of this realm.")] = "",
    parent: Annotated[str, typer.Option(help="Only of this reseller.")] = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """All accounts by name.

    Example: [bold]callwarden account list --output json[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.ListAccountsRequest(page_size=limit, after=after, type=kind, realm=realm, parent=parent)
    reply = remote.speak(lambda system: remote.ask(system.accounts.ListAccounts, request))
    none = "no accounts" + (f" after {after}" if after else "; create one with `callwarden account create`")

    def view() -> None:
        output.show(_table(reply.accounts))
        if len(reply.accounts) == limit:
            output.say(f"\nmore with --after {reply.accounts[-1].name}")

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
def set_(
    account: NameArgument,
    status: Annotated[str | None, typer.Option(help="active or disabled.")] = None,
    deck: Annotated[str | None, typer.Option(help="Price list.")] = None,
    lines: Annotated[str | None, typer.Option(help="Calls at the same time; `none`: the policy says.")] = None,
    daily: Annotated[str | None, typer.Option(help="Spend a day; `none`: the policy says.")] = None,
    lines_off_peak: LinesOffPeakOption = None,
    per_second: PerSecondOption = None,
    monthly: MonthlyOption = None,
    monthly_increment: MonthlyIncrementOption = None,
    monthly_ceiling: MonthlyCeilingOption = None,
    talk_day: TalkDayOption = None,
    talk_month: TalkMonthOption = None,
    prepaid: Annotated[bool | None, typer.Option("--prepaid/--postpaid", help="Credit before, or bill later.")] = None,
    currency: Annotated[str | None, typer.Option(help="Only before its first payment or call.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Where its day and month begin.")] = None,
    parent: Annotated[str | None, typer.Option(help="Reseller it belongs to; `none`: no more to any.")] = None,
    country: CountryOption = None,
    email: EmailOption = None,
    email_verified: EmailVerifiedOption = None,
    phone: PhoneOption = None,
    phone_verified: PhoneVerifiedOption = None,
    shards: Annotated[int | None, typer.Option(min=1, help="Rows its counters are split over.")] = None,
    clear: Annotated[
        list[str] | None, typer.Option(help="Take away: country, email or phone; may be repeated.")
    ] = None,
    add_list: Annotated[list[str] | None, typer.Option(help="Number list for its calls from now on.")] = None,
    remove_list: Annotated[list[str] | None, typer.Option(help="Number list for its calls no more.")] = None,
    add_number: Annotated[list[str] | None, typer.Option(help="Number it owns from now on.")] = None,
    remove_number: Annotated[list[str] | None, typer.Option(help="Number it owns no more.")] = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Change an account; what isn't named stays.

    Example: [bold]callwarden account set office --lines 5 --daily 100[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    limits, cleared = _limits(
        lines=lines,
        daily=daily,
        lines_off_peak=lines_off_peak,
        per_second=per_second,
        monthly=monthly,
        monthly_increment=monthly_increment,
        monthly_ceiling=monthly_ceiling,
        talk_day=talk_day,
        talk_month=talk_month,
    )
    profile = _profile(country, email, email_verified, phone, phone_verified)
    request = pb.UpdateAccountRequest(
        account=account,
        status=status,
        deck=deck,
        limits=limits if limits.ListFields() else None,
        prepaid=prepaid,
        currency=currency,
        time_zone=time_zone,
        parent=None if parent == "none" else parent,
        profile=profile if profile.ListFields() else None,
        shards=shards,
        clear=[*cleared, *(clear or ()), *(("parent",) if parent == "none" else ())],
        add_numbers=[values.number(text) for text in add_number or ()],
        remove_numbers=[values.number(text) for text in remove_number or ()],
        add_lists=add_list or (),
        remove_lists=remove_list or (),
    )
    if request == pb.UpdateAccountRequest(account=account):
        raise Misuse("nothing to change: name at least one option, such as --lines 5")
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


def _limits(**given: str | None) -> "tuple[Limits, list[str]]":
    """Limits by option as typed; what is `none` is named in the second part. None: not given."""
    from callwarden.api.admission.v1 import admission_pb2 as pb

    limits, cleared = pb.Limits(), []
    for option, text in given.items():
        if text is None:
            continue
        field, read = _LIMIT_OPTIONS[option]
        value = None if text == "none" else read(text, name=f"--{option.replace('_', '-')}")
        if value is None:
            cleared.append(field)
        else:
            setattr(limits, field, value)
    return limits, cleared


def _profile(
    country: str | None, email: str | None, email_verified: bool | None, phone: str | None, phone_verified: bool | None
) -> "Profile":
    from callwarden.api.admission.v1 import admission_pb2 as pb

    return pb.Profile(
        country=country,
        email=email,
        email_verified=email_verified,
        phone=None if phone is None else values.number(phone, name="--phone"),
        phone_verified=phone_verified,
    )


def _lines(account: "Account") -> str:
    limit = f" of {account.limits.max_lines}" if account.limits.HasField("max_lines") else ""
    return f"{account.lines_in_use}{limit}"


def details(account: "Account") -> Any:
    """An account as label and value, for people: what is set, and what everybody asks for."""
    limits = account.limits
    is_set = {field.name: value for field, value in limits.ListFields()}
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
            **{
                label: show(is_set[field], account.currency)
                for field, (label, show) in _LIMITS_SHOWN.items()
                if field in is_set
            },
            **_profile_shown(account.profile),
            **({"number lists": " ".join(account.lists)} if account.lists else {}),
            **({"shards": str(account.shards)} if account.shards > 1 else {}),
            "time zone": account.time_zone,
        }
    )


_NO_DECK: Final = "none: it can't call out"


def _span(seconds: int, _currency: str) -> str:
    return output.duration(seconds)


# Beside lines and a day's spend, which are shown with what is used of them.
_LIMITS_SHOWN: "Final[dict[str, tuple[str, Callable[[int, str], str]]]]" = {
    "max_lines_off_peak": ("lines off-peak", lambda count, _: str(count)),
    "max_per_second": ("calls per second", lambda count, _: str(count)),
    "monthly_micros": ("spend a month", output.money),
    "monthly_increment_micros": ("grows a month by", output.money),
    "monthly_ceiling_micros": ("grows no further than", output.money),
    "talk_day_s": ("talk time a day", _span),
    "talk_month_s": ("talk time a month", _span),
}


def _profile_shown(profile: "Profile") -> dict[str, str]:
    shown = {"country": profile.country} if profile.country else {}
    for label, text, is_verified in (
        ("email", profile.email, profile.email_verified),
        ("phone", f"+{profile.phone}" if profile.phone else "", profile.phone_verified),
    ):
        if text:
            shown[label] = f"{text} ({'verified' if is_verified else 'not verified'})"
    return shown
