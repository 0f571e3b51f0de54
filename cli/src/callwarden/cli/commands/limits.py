"""`callwarden limits`: what an account may still use, and what a call would get now."""

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from callwarden.cli import output, records, remote, values
from callwarden.cli.output import Output, OutputOption
from callwarden.kernel.clock import UnixS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from callwarden.api.admission.v1.admission_pb2 import LimitUse, ShowLimitsReply, SimulateCallReply
    from callwarden.api.rating.v1.rating_pb2 import Price

app = typer.Typer(no_args_is_help=True, help="Limits: how much of each is used, and what a call would get.")

AccountArgument = Annotated[str, typer.Argument(help="Name, name@realm or id.")]

NEAR_PERCENT: Final = 80  # from here a limit is shown as one to look at; also the second of the usual notices
_BAR_CELLS: Final = 5


@app.command()
def show(account: AccountArgument, as_: OutputOption = Output.TABLE) -> None:
    """Show each limit of an account: how much is used and left, when it resets, and who set it.

    Example: [bold]callwarden limits show alice[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.ShowLimitsRequest(account=account)
    reply = remote.speak(lambda system: remote.ask(system.accounts.ShowLimits, request))
    output.emit(
        as_,
        output.plain(reply),
        lambda: output.show(render(reply, UnixS(time.time()))),
        rows=output.plain(reply)["limits"],
        columns=records.csv_columns(pb.LimitUse),
    )


@app.command()
def simulate(
    account: AccountArgument,
    number: Annotated[str, typer.Argument(help="Called number, or with --local a local user.")],
    at: Annotated[
        str, typer.Option(help="When: 2026-11-25 08:00, or 08:00 for today, in the account's time zone.")
    ] = "",
    from_address: Annotated[str, typer.Option(help="Source address of the call.")] = "",
    caller: Annotated[str, typer.Option(help="Number that the caller shows.")] = "",
    trunk: Annotated[str, typer.Option(help="Trunk that the call comes in by.")] = "",
    local: Annotated[bool, typer.Option("--local", help="The called party is a local user.")] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Simulate a call with the code that decides real calls, without placing it. Exit code 1 if it would be refused.

    Example: [bold]callwarden limits simulate alice +493023125042 --from-address 192.0.2.7[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.SimulateCallRequest(
        account=account,
        destination=number if local else values.number(number),
        local=local,
        source_address=values.address(from_address) if from_address else "",
        caller_number=caller,
        trunk=trunk,
    )

    async def work(system: remote.Remote) -> pb.SimulateCallReply:
        if at:
            found = await remote.ask(system.accounts.GetAccount, pb.GetAccountRequest(account=account))
            request.at_s = values.moment(at, found.time_zone, UnixS(time.time()), name="--at")
        reply: pb.SimulateCallReply = await remote.ask(system.accounts.Simulate, request)
        return reply

    reply = remote.speak(work)
    to = number if local else f"+{request.destination}"
    output.emit_message(as_, reply, lambda: output.show(render_simulation(account, to, reply)))
    if reply.HasField("refused"):
        raise typer.Exit(1)


# ------------------------------------------------------------------ limits


def render(reply: "ShowLimitsReply", unix_s: UnixS) -> "RenderableType":
    """One line a limit; what is near its limit, or over it, is coloured."""
    from rich.console import Group
    from rich.text import Text

    account = reply.account
    who = f"{account.name}@{account.realm}"
    kind = f"{account.type}, {'prepaid' if account.prepaid else 'postpaid'}, {account.status}"
    revision = f"policy revision {reply.policy_revision}" if reply.policy_revision else "policy revision 0 (defaults)"
    head = Text.assemble(("Limits of ", "bold"), output.printable(who))
    facts = f"{kind} · {account.currency} · {account.time_zone} · {revision}"
    table = output.Rows(
        "limit", "used", "left", "", "window", "set by", right=("left",), optional=("", "set by", "window")
    )
    for use in reply.limits:
        table.add(*_row(use, account.time_zone, unix_s))
    none = Text("No limit applies to it.")
    return Group(output.Aligned([[head], [output.cell(facts, output.DIM)]]), Text(), table if len(table) else none)


def _row(use: "LimitUse", zone: str, unix_s: UnixS) -> "tuple[str | Text, ...]":
    """Amounts are in the account's currency, which is shown above for all, as its time zone is."""
    style = _style(use)
    mode = "" if use.mode in ("", "enforce") else f" ({use.mode} only)" if use.mode == "report" else f" ({use.mode})"
    # A rule may have several limits, of which the counter then tells what each is of.
    of = f" of {_amount(use.limit, use.unit)}" if use.HasField("limit") else ", no limit"
    return (
        output.cell(use.rule + mode, output.DIM if use.mode == "off" else ""),
        output.cell(f"{_amount(use.used, use.unit)}{of} {use.counter}", style),
        output.cell(_amount(use.remaining, use.unit) if use.HasField("remaining") else "", style),
        _bar(use, style),
        _window(use, zone, unix_s),
        output.cell(use.source, output.DIM),
    )


def _percent(use: "LimitUse") -> int | None:
    """How much of the limit is used; None where there is none."""
    if not use.HasField("limit"):
        return None
    return use.used * 100 // use.limit if use.limit > 0 else 100


def _style(use: "LimitUse") -> str:
    percent = _percent(use)
    if use.mode == "off":
        return output.DIM
    if percent is None or percent < NEAR_PERCENT:
        return ""
    return "yellow" if percent < 100 else "bold red"


def _bar(use: "LimitUse", style: str) -> "Text | str":
    percent = _percent(use)
    if percent is None:
        return ""
    full = min(_BAR_CELLS, max(0, percent) * _BAR_CELLS // 100)
    return output.cell("━" * full + "┈" * (_BAR_CELLS - full) + f" {percent} %", style or output.DIM)


def _amount(number: int, unit: str) -> str:
    if unit == "micros":
        return output.money(number)
    return output.duration(number) if unit == "s" else f"{number:,}"


def _window(use: "LimitUse", zone: str, unix_s: UnixS) -> str:
    """ "day to 00:00 (3 h)"; a sliding window and a count of now have no end."""
    if not use.resets_at_s:
        return use.window
    kind = use.window.partition(" ")[0]
    ends = output.clock_in(use.resets_at_s, zone, unix_s)
    return f"{kind} to {ends} ({output.span(use.resets_at_s - unix_s)})"


# ------------------------------------------------------------------ simulations


def render_simulation(account: str, to: str, reply: "SimulateCallReply") -> "RenderableType":
    """The verdict first, then what it would cost and take, then every rule."""
    from rich.console import Group
    from rich.text import Text

    from callwarden.cli import explanation

    is_admitted = reply.HasField("admitted")
    verdict = ("admitted", "bold green") if is_admitted else ("refused", "bold red")
    head = Text.assemble(output.printable(f"A call from {account} to {to} would be "), verdict, ".")
    parts: list[RenderableType] = [output.Aligned([[head]])]
    facts: dict[str, str | Text] = {}
    if reply.number_owner:
        facts["number"] = f"of {reply.number_owner}: local, and 480 while it has no phone registered and no trunk"
    if is_admitted:
        admitted = reply.admitted
        first = output.duration(admitted.granted_s)
        facts["first"] = f"{first} of talk" + (", and no more" if admitted.final else "")
        facts["at most"] = f"{output.duration(admitted.max_duration_s)} of talk"
        facts["holds"] = output.money(reply.held_micros, reply.currency) if reply.held_micros else "nothing (free)"
        if admitted.routes:
            facts["routes"] = ", ".join(route.trunk for route in admitted.routes)
    if reply.prefix:
        facts["price"] = f"{_rate(reply.price)} by prefix {reply.prefix}"
    facts["policy"] = f"revision {reply.decision.policy_revision}"
    parts += [output.facts(facts, indent=2), Text(), explanation.rules(reply.decision, reply.currency)]
    if not is_admitted:
        parts.append(explanation.verdict(reply.decision))
    return Group(*parts)


def _rate(price: "Price") -> str:
    """The first rate of the call's first window, as people say it."""
    if not price.windows or not price.windows[0].groups:
        return "no rate"
    window = price.windows[0]
    group = window.groups[0]
    unit = "minute" if group.unit_s == 60 else f"{group.unit_s} s"
    fee = (
        f" and {output.money(window.connect_fee_micros, price.currency)} at the answer"
        if window.connect_fee_micros
        else ""
    )
    return f"{output.money(group.rate_micros, price.currency)} a {unit}{fee}"
