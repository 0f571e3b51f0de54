"""`callwarden ban`: addresses whose packets are dropped."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from callwarden.cli import output, remote, values
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.rateguard.v1.rateguard_pb2 import BanEntry

app = typer.Typer(no_args_is_help=True, help="Bans: which addresses are dropped, why, and until when.")


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """List all bans with their reason, evidence and expiry.

    Example: [bold]callwarden ban list[/bold]
    """
    from callwarden.api.rateguard.v1 import rateguard_pb2 as pb

    bans = remote.speak(lambda system: remote.ask(system.rate_guard.ListBans, pb.ListBansRequest())).bans
    output.emit_messages(as_, pb.BanEntry, bans, lambda: _show(bans), none="no address is banned")


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="IPv4 or IPv6 address.")],
    reason: Annotated[str, typer.Option(help="Why, shown by `ban list`.")] = "operator",
    for_: Annotated[
        str | None, typer.Option("--for", help="How long, such as 1h or 2d. Default: until removed.")
    ] = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Ban an address on every edge, at once.

    Example: [bold]callwarden ban add 192.0.2.66 --for 1h --reason "guessing passwords"[/bold]
    """
    from callwarden.api.rateguard.v1 import rateguard_pb2 as pb

    duration_s = 0
    if for_ is not None and (duration_s := values.seconds(for_, name="--for")) < 1:
        raise CliMisuse("--for: at least one second")
    request = pb.AddBanRequest(address=values.address(address), reason=reason, duration_s=duration_s)
    reply = remote.speak(lambda system: remote.ask(system.rate_guard.AddBan, request))
    output.emit_message(as_, reply.ban, lambda: _show([reply.ban]))


@app.command()
def remove(
    address: Annotated[str | None, typer.Argument(help="The banned address.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Unban every address.")] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Unban an address: its packets are accepted again at once, and its counters restart from zero.

    Example: [bold]callwarden ban remove 192.0.2.66[/bold]
    """
    from callwarden.api.rateguard.v1 import rateguard_pb2 as pb

    if (address is None) is not all_:
        raise CliMisuse("name one address, or --all")
    wanted = values.address(address) if address is not None else ""
    request = pb.RemoveBansRequest(address=wanted, all=all_)
    removed = remote.speak(lambda system: remote.ask(system.rate_guard.RemoveBans, request)).removed
    if not removed and not all_:
        raise Failure(f"{wanted} is not banned: `callwarden ban list` shows which addresses are")

    def view() -> None:
        for address in removed:
            output.echo(f"{address} is no longer banned")
        if not removed:
            output.echo("no address was banned")

    output.emit(as_, {"removed": list(removed)}, view, rows=[{"removed": one} for one in removed], columns=["removed"])


def _show(bans: "Sequence[BanEntry]") -> None:
    table = output.Rows(
        "address",
        "reason",
        "evidence",
        "by",
        "since",
        "expires in",
        prose=("reason", "evidence"),
        optional=("by", "evidence", "reason"),
    )
    unix_s = time.time()
    for ban in sorted(bans, key=lambda ban: ban.since_s):
        left = output.duration(max(0.0, ban.until_s - unix_s)) if ban.until_s else "never"
        table.add(ban.address, ban.reason, ban.evidence, ban.by, output.clock(ban.since_s), left)
    output.show(table)
