"""`callwarden ban`: addresses that are dropped."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from callwarden.cli import output, remote, values
from callwarden.cli.failure import Failure, Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.api.rateguard.v1.rateguard_pb2 import BanEntry

app = typer.Typer(no_args_is_help=True, help="Bans: which addresses are dropped, why, until when.")


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """All bans with reason, evidence and end.

    Example: [bold]callwarden ban list[/bold]
    """
    from callwarden.api.rateguard.v1 import rateguard_pb2 as pb

    bans = remote.speak(lambda system: remote.ask(system.rate_guard.ListBans, pb.ListBansRequest())).bans
    if not output.all_said(bans, as_, none="nobody is banned"):
        _show(list(bans))


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="IPv4 or IPv6 address.")],
    reason: Annotated[str, typer.Option(help="Why; shown in the list.")] = "operator",
    for_: Annotated[str | None, typer.Option("--for", help="How long, such as 1h or 2d; without it for good.")] = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Ban an address on every edge, at once.

    Example: [bold]callwarden ban add 192.0.2.66 --for 1h --reason "guessing passwords"[/bold]
    """
    from callwarden.api.rateguard.v1 import rateguard_pb2 as pb

    duration_s = 0
    if for_ is not None and (duration_s := values.seconds(for_, name="--for")) < 1:
        raise Misuse("--for: at least one second")
    request = pb.AddBanRequest(address=values.address(address), reason=reason, duration_s=duration_s)
    reply = remote.speak(lambda system: remote.ask(system.rate_guard.AddBan, request))
    if as_ is Output.JSON:
        output.as_json(output.plain(reply.ban))
    else:
        _show([reply.ban])


@app.command()
def remove(
    address: Annotated[str | None, typer.Argument(help="The banned address.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Lift every ban.")] = False,
) -> None:
    """Lift a ban: the address is heard again at once, its counters start from zero.

    Example: [bold]callwarden ban remove 192.0.2.66[/bold]
    """
    from callwarden.api.rateguard.v1 import rateguard_pb2 as pb

    if (address is None) is not all_:
        raise Misuse("name one address, or --all")
    wanted = values.address(address) if address is not None else ""
    request = pb.RemoveBansRequest(address=wanted, all=all_)
    removed = remote.speak(lambda system: remote.ask(system.rate_guard.RemoveBans, request)).removed
    if not removed:
        if all_:
            output.say("nobody was banned")
            return
        raise Failure(f"{wanted} is not banned: `callwarden ban list` shows who is")
    for lifted in removed:
        output.say(f"{lifted} is heard again")


def _show(bans: "list[BanEntry]") -> None:
    table = output.Rows("address", "reason", "evidence", "by", "since", "for another")
    now_s = time.time()
    for ban in sorted(bans, key=lambda ban: ban.since_s):
        left = output.duration(max(0.0, ban.until_s - now_s)) if ban.until_s else "good"
        table.add(ban.address, ban.reason, ban.evidence, ban.by, output.clock(ban.since_s), left)
    output.show(table)
