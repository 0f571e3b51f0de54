"""`callwarden trunk`: peers that calls go out to, or come in from."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from callwarden.cli import output, remote
from callwarden.cli.failure import Failure, Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.admission_pb2 import Trunk

app = typer.Typer(no_args_is_help=True, help="Trunks: carriers that calls go out to, customers they come in from.")


class Direction(StrEnum):
    CARRIER = "carrier"
    TRAFFIC_SENDER = "traffic-sender"


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="1 to 64 of A-Z a-z 0-9 . _ -")],
    address: Annotated[str, typer.Option(help="host:port of the SIP peer.")],
    direction: Annotated[Direction, typer.Option(help="Calls go out to a carrier, come in from a traffic sender.")] = (
        Direction.CARRIER
    ),
    account: Annotated[
        str | None, typer.Option(help="Account it belongs to; without it one of the same name is made.")
    ] = None,
    realm: Annotated[str, typer.Option(help="Realm of the account made for it.")] = "callwarden.local",
    currency: Annotated[str, typer.Option(help="Currency of the account made for it.")] = "EUR",
    deck: Annotated[str, typer.Option(help="Price list of the account made for it.")] = "",
    tech_prefix: Annotated[str, typer.Option(help="Digits before the number that name this peer.")] = "",
    strip_digits: Annotated[int, typer.Option(min=0, max=15, help="Digits taken off the number's front.")] = 0,
    add_prefix: Annotated[str, typer.Option(help="Digits then put before it.")] = "",
    only_local: Annotated[
        bool, typer.Option("--only-local", help="A traffic sender's calls reach local users only, never a carrier.")
    ] = False,
    allow_prefix: Annotated[list[str] | None, typer.Option(help="Its calls go to these only; may be repeated.")] = None,
    block_prefix: Annotated[
        list[str] | None, typer.Option(help="Its calls never go to these; may be repeated.")
    ] = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Add a trunk.

    Example: [bold]callwarden trunk add berlin --address 192.0.2.10:5060[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.cli import operations

    wanted = pb.Trunk(
        name=name,
        address=address,
        direction=direction.value,
        account=account or "",
        tech_prefix=tech_prefix,
        strip_digits=strip_digits,
        add_prefix=add_prefix,
        enabled=True,
        only_local=only_local,
        allow_prefixes=allow_prefix or (),
        block_prefixes=block_prefix or (),
    )
    owner = pb.Account(name=name, realm=realm, type=direction.value, currency=currency, deck=deck, time_zone="UTC")
    made = remote.speak(lambda system: operations.create_trunk(system, wanted, owner if account is None else None))
    output.emit_message(as_, made, lambda: _show([made]))


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(help="Name of the trunk.")],
    address: Annotated[str | None, typer.Option(help="host:port of the SIP peer.")] = None,
    tech_prefix: Annotated[str | None, typer.Option(help="Digits before the number that name this peer.")] = None,
    strip_digits: Annotated[int | None, typer.Option(min=0, max=15, help="Digits taken off its front.")] = None,
    add_prefix: Annotated[str | None, typer.Option(help="Digits then put before it.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether calls pass.")] = None,
    only_local: Annotated[bool | None, typer.Option("--only-local/--all-numbers", help="Never to a carrier.")] = None,
    allow_prefix: Annotated[list[str] | None, typer.Option(help="Its calls may go there; several times.")] = None,
    remove_allow_prefix: Annotated[list[str] | None, typer.Option(help="Takes that back.")] = None,
    block_prefix: Annotated[list[str] | None, typer.Option(help="Its calls may not go there; several times.")] = None,
    remove_block_prefix: Annotated[list[str] | None, typer.Option(help="Takes that back.")] = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Change a trunk; what isn't named stays.

    Example: [bold]callwarden trunk set office --only-local --block-prefix 4990[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.UpdateTrunkRequest(
        name=name,
        address=address,
        tech_prefix=tech_prefix,
        strip_digits=strip_digits,
        add_prefix=add_prefix,
        enabled=enabled,
        only_local=only_local,
        add_allow_prefixes=allow_prefix or (),
        remove_allow_prefixes=remove_allow_prefix or (),
        add_block_prefixes=block_prefix or (),
        remove_block_prefixes=remove_block_prefix or (),
    )
    if request == pb.UpdateTrunkRequest(name=name):
        raise Misuse("nothing to change: name at least one option, such as --only-local")
    changed = remote.speak(lambda system: remote.ask(system.accounts.UpdateTrunk, request))
    output.emit_message(as_, changed, lambda: _show([changed]))


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """All trunks.

    Example: [bold]callwarden trunk list[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    trunks = remote.speak(lambda system: remote.ask(system.accounts.ListTrunks, pb.ListTrunksRequest())).trunks
    none = "no trunks; add one with `callwarden trunk add`"
    output.emit_messages(as_, pb.Trunk, trunks, lambda: _show(trunks), none=none)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of the trunk.")]) -> None:
    """Remove a trunk; its account stays.

    Example: [bold]callwarden trunk remove berlin[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.kernel.errors import Conflict

    try:
        reply = remote.speak(lambda system: remote.ask(system.accounts.DeleteTrunk, pb.DeleteTrunkRequest(name=name)))
    except Conflict as error:
        raise Failure(f"{error.message}: take that away first, with `callwarden route remove`") from error
    if not reply.deleted:
        raise Failure(f"no trunk is called {name}: `callwarden trunk list` shows them")
    output.say(f"trunk {name} removed")


def _show(trunks: "Sequence[Trunk]") -> None:
    table = output.Rows(
        "name",
        "direction",
        "address",
        "account",
        "number",
        "state",
        prose=("number",),
        optional=("direction", "state", "number"),
    )
    for trunk in trunks:
        changes = [
            f"tech prefix {trunk.tech_prefix}" if trunk.tech_prefix else "",
            f"strip {trunk.strip_digits}" if trunk.strip_digits else "",
            f"add {trunk.add_prefix}" if trunk.add_prefix else "",
            "local only" if trunk.only_local else "",
            f"to {' '.join(trunk.allow_prefixes)} only" if trunk.allow_prefixes else "",
            f"never to {' '.join(trunk.block_prefixes)}" if trunk.block_prefixes else "",
        ]
        table.add(
            trunk.name,
            trunk.direction,
            trunk.address,
            trunk.account,
            ", ".join(filter(None, changes)) or "unchanged",
            "enabled" if trunk.enabled else "disabled",
        )
    output.show(table)
