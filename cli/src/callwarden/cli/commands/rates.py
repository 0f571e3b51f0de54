"""`callwarden rates`: price lists."""

import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callwarden.cli import output, remote, uploads, values
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.api.rating.v1.rating_pb2 import Price, Simulation, Window

app = typer.Typer(no_args_is_help=True, help="Price lists (decks): import and list them, price a call.")


class RoundOption(StrEnum):
    UP = "up"
    MIDDLE = "middle"
    DOWN = "down"


@app.command("import")
def import_(
    deck: Annotated[str, typer.Argument(help="Name of the deck; one of that name is replaced.")],
    file: Annotated[Path, typer.Argument(help="CSV file such as deploy/examples/rates.csv; - reads standard input.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "EUR",
    peak_hours: Annotated[str, typer.Option(help='Such as "Mon-Fri 08:00-20:00".')] = "",
    window: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=HOURS",
            help='Hours with prices of their own, such as "saturday=Sat 09:00-13:00", in the columns rate.saturday and '
            "so on; several times, the first of overlapping ones applies, and all before the peak hours.",
        ),
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Time zone of windows and peak hours.")] = "UTC",
    round_: Annotated[
        RoundOption,
        typer.Option("--round", help="How the total of a call (connect fee, talk and minimum) is rounded, once."),
    ] = RoundOption.UP,
    decimals: Annotated[
        int, typer.Option(min=0, max=6, help="Decimals of the currency that the total is rounded to.")
    ] = 6,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Import a deck: all of it, or nothing and an error for each bad line.

    Example: [bold]callwarden rates import retail deploy/examples/rates.csv --currency EUR[/bold]
    """
    from callwarden.api.rating.v1 import rating_pb2 as pb

    method = {
        RoundOption.UP: pb.Rounding.UP,
        RoundOption.MIDDLE: pb.Rounding.MIDDLE,
        RoundOption.DOWN: pb.Rounding.DOWN,
    }[round_]

    windows = [_window(text) for text in window or ()]

    def first(part: bytes) -> pb.ImportDeckRequest:
        return pb.ImportDeckRequest(
            name=deck,
            currency=currency,
            csv=part,
            peak_hours=peak_hours,
            time_zone=time_zone,
            rounding=pb.Rounding(method=method, decimals=decimals),
            windows=[pb.DeckWindow(name=name, hours=hours) for name, hours in windows],
        )

    parts = uploads.parts(uploads.read(file), first, lambda part: pb.ImportDeckRequest(csv=part))
    reply = remote.speak(lambda system: remote.ask(system.rating.ImportDeckParts, parts, timeout_s=uploads.TIMEOUT_S))
    uploads.emit_import(
        as_, reply, "" if reply.errors else f"deck {deck}: {reply.rows:,} rates imported, version {reply.version}"
    )
    if reply.errors:
        told = uploads.bad_lines(str(file), reply.errors, len(reply.errors))
        raise Failure(f"{told}: nothing was imported; correct them and import again")


def _window(text: str) -> tuple[str, str]:
    name, mark, hours = text.partition("=")
    if not (name.strip() and mark and hours.strip()):
        raise CliMisuse(f'--window: {text[:60]!r} is not like "saturday=Sat 09:00-13:00"')
    return name.strip(), hours.strip()


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """List all decks.

    Example: [bold]callwarden rates list[/bold]
    """
    from callwarden.api.rating.v1 import rating_pb2 as pb

    decks = remote.speak(lambda system: remote.ask(system.rating.ListDecks, pb.ListDecksRequest())).decks

    def view() -> None:
        table = output.Rows("deck", "currency", "rates", "version", right=("rates", "version"))
        for deck in decks:
            table.add(deck.name, deck.currency, f"{deck.rows:,}", str(deck.version))
        output.show(table)

    output.emit_messages(as_, pb.Deck, decks, view, none="no decks; import one with `callwarden rates import`")


@app.command()
def simulate(
    deck: Annotated[str, typer.Argument(help="Name of the deck.")],
    number: Annotated[str, typer.Argument(help="Called number.")],
    duration: Annotated[str, typer.Argument(help="Talk time, such as 90s or 3m.")],
    at: Annotated[
        str | None, typer.Option(help="Start of the call, such as 2026-12-24T20:00+01:00. Default: now.")
    ] = None,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Show what a call would cost, and why.

    Example: [bold]callwarden rates simulate retail +493023125042 90s[/bold]
    """
    from callwarden.api.rating.v1 import rating_pb2 as pb

    digits = values.number(number)
    duration_s = values.seconds(duration)
    request = pb.SimulateRequest(deck=deck, destination=digits, at_s=_moment(at), duration_s=duration_s)
    reply = remote.speak(lambda system: remote.ask(system.rating.Simulate, request))
    is_refused = reply.WhichOneof("result") == "refused"
    output.emit_message(as_, reply, lambda: None if is_refused else output.show(_priced(reply.simulation, duration_s)))
    if is_refused:
        why = f"{reply.refused}; `callwarden rates list` shows which decks there are"
        raise Failure(f"a call to +{digits} would be refused: {why}")


def _priced(simulation: "Simulation", duration_s: int) -> output.Aligned:
    quote = simulation.quote
    currency = quote.price.currency
    rows = {"matched": f"+{quote.prefix} {quote.description}"}
    price = quote.price
    for window in (*price.windows, *_later(price)):
        fee = f"{output.money(window.connect_fee_micros)} to connect, " if window.connect_fee_micros else ""
        for group in window.groups:
            label = window.name or "price"
            rate = output.money(group.rate_micros, currency)
            rows[label + (f" from second {group.start_s}" if group.start_s else "")] = (
                f"{fee}{rate} for {group.unit_s} s, in steps of {group.increment_s} s"
            )
    if price.HasField("maximum_micros"):
        beyond = "the call is cut" if price.cuts_at_maximum else "free beyond it"
        rows["at most"] = f"{output.money(price.maximum_micros, currency)}, {beyond}"
    return output.facts(
        rows
        | {
            "charged": f"{simulation.billed_s} s of {duration_s} s",
            "cost": output.cell(output.money(simulation.cost_micros, currency), "bold"),
            "deck": f"{quote.deck}, version {quote.deck_version}",
            "routes": ", ".join(route.trunk for route in quote.routes) or "none",
        }
    )


def _later(price: "Price") -> list["Window"]:
    """What may apply after the windows of a day."""
    if not price.HasField("weekly"):
        return []
    weekly = price.weekly
    named = [period.window for period in weekly.periods] or [weekly.peak]
    return [*named, weekly.off_peak]


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise CliMisuse(f"--at: {text[:40]!r} is not a time (write 2026-12-24T20:00+01:00)") from error
