"""`callwarden route`: which carrier gets the calls to a prefix."""

from typing import Annotated

import typer

from callwarden.cli import output, remote
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption

app = typer.Typer(no_args_is_help=True, help="Routes: which carrier gets the calls to a prefix.")


@app.command("set")
def set_(
    prefix: Annotated[str, typer.Argument(help="First digits of the number, such as 49; `all` for every number.")],
    trunk: Annotated[str, typer.Argument(help="Name of a carrier trunk.")],
    priority: Annotated[int, typer.Option(min=0, max=1000, help="Lower is tried first.")] = 0,
    cost_deck: Annotated[str, typer.Option(help="Deck with the carrier's prices.")] = "",
) -> None:
    """Send calls to a prefix by a trunk.

    Example: [bold]callwarden route set 49 berlin[/bold]
    """
    from callwarden.api.rating.v1 import rating_pb2 as pb
    from callwarden.kernel.errors import NotFound

    digits = _digits(prefix)
    request = pb.SetRouteRequest(prefix=digits, trunk=trunk, priority=priority, cost_deck=cost_deck)
    try:
        remote.speak(lambda system: remote.ask(system.rating.SetRoute, request))
    except NotFound as error:
        shown_by = "rates list" if error.field == "cost_deck" else "trunk list"
        raise Failure(f"{error.message}: `callwarden {shown_by}` shows what there is") from error
    output.echo(f"calls to {_numbers(digits)} go to {trunk}")


@app.command()
def remove(
    prefix: Annotated[str, typer.Argument(help="As `route list` shows it.")],
    trunk: Annotated[str, typer.Argument(help="Name of the trunk.")],
) -> None:
    """Stop sending calls to a prefix by a trunk. Running calls continue.

    Example: [bold]callwarden route remove 49 berlin[/bold]
    """
    from callwarden.api.rating.v1 import rating_pb2 as pb

    digits = _digits(prefix)
    request = pb.DeleteRouteRequest(prefix=digits, trunk=trunk)
    if not remote.speak(lambda system: remote.ask(system.rating.DeleteRoute, request)).deleted:
        raise Failure(f"no route leads calls to {_numbers(digits)} to {trunk}: `callwarden route list` shows them")
    output.echo(f"calls to {_numbers(digits)} no longer go to {trunk}")


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """List all routes in the order in which they are tried.

    Example: [bold]callwarden route list[/bold]
    """
    from callwarden.api.rating.v1 import rating_pb2 as pb

    routes = remote.speak(lambda system: remote.ask(system.rating.ListRoutes, pb.ListRoutesRequest())).routes
    in_order = sorted(routes, key=lambda route: (route.prefix, route.priority, route.trunk))

    def view() -> None:
        table = output.Rows("prefix", "trunk", "priority", "cost deck", right=("priority",), optional=("cost deck",))
        for route in in_order:
            table.add(f"+{route.prefix}" if route.prefix else "all", route.trunk, str(route.priority), route.cost_deck)
        output.show(table)

    output.emit_messages(as_, pb.SetRouteRequest, in_order, view, none="no routes; set one with `callwarden route set`")


def _digits(prefix: str) -> str:
    """Of a prefix as it is typed; none for all numbers, which an empty argument doesn't mean."""
    digits = "" if prefix == "all" else prefix.removeprefix("+")
    if prefix != "all" and not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise CliMisuse("the prefix is 1 to 15 digits, or `all`")
    return digits


def _numbers(digits: str) -> str:
    return f"+{digits}" if digits else "all numbers"
