"""`callwarden trunk`: peers that calls go out to, or come in from."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from callwarden.cli import output, remote
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.field_options import fill, fill_change, to_change, to_create
from callwarden.cli.output import Output, OutputOption
from callwarden.kernel.trunk import TRUNK_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callwarden.api.admission.v1.admission_pb2 import Trunk

app = typer.Typer(no_args_is_help=True, help="Trunks: carriers that calls go out to, customers they come in from.")


@app.command()
@to_create(TRUNK_FIELDS, without=("name", "address", "account", "enabled", "realm"))
def add(
    name: Annotated[str, typer.Argument(help="1 to 64 of A-Z a-z 0-9 . _ -")],
    address: Annotated[str, typer.Option(help="host:port of the SIP peer.")],
    account: Annotated[
        str | None, typer.Option(help="Account it belongs to; without it one of the same name is made.")
    ] = None,
    realm: Annotated[str, typer.Option(help="Realm of the account made for it.")] = "callwarden.local",
    currency: Annotated[str, typer.Option(help="Currency of the account made for it.")] = "EUR",
    deck: Annotated[str, typer.Option(help="Price list of the account made for it.")] = "",
    as_: OutputOption = Output.TABLE,
    **fields: Any,
) -> None:
    """Add a trunk.

    Example: [bold]callwarden trunk add berlin --address 192.0.2.10:5060[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.cli import operations

    wanted = pb.Trunk(name=name, address=address, account=account or "", enabled=True)
    fill(wanted, TRUNK_FIELDS, fields)
    owner = pb.Account(name=name, realm=realm, type=wanted.direction, currency=currency, deck=deck, time_zone="UTC")
    made = remote.speak(lambda system: operations.create_trunk(system, wanted, owner if account is None else None))
    output.emit_message(as_, made, lambda: _show([made]))


@app.command("set")
@to_change(TRUNK_FIELDS)
def set_(
    name: Annotated[str, typer.Argument(help="Name of the trunk.")],
    as_: OutputOption = Output.TABLE,
    **fields: Any,
) -> None:
    """Change a trunk; what isn't named stays.

    Example: [bold]callwarden trunk set office --only-local --block-prefix 4990[/bold]
    """
    from callwarden.api.admission.v1 import admission_pb2 as pb

    request = pb.UpdateTrunkRequest(name=name)
    fill_change(request, TRUNK_FIELDS, fields)
    if request == pb.UpdateTrunkRequest(name=name):
        raise CliMisuse("nothing to change: name at least one option, such as --only-local")
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
    output.echo(f"trunk {name} removed")


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
