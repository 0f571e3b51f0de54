"""`callwarden demo`: the main job on real SIP, live in the terminal."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", help="Keep the services' logs in this folder. Default: nothing is kept.", show_default=False
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines only, no live table.")] = False,
    record: Annotated[
        Path | None, typer.Option("--record", help="Write the run to this file, as an SVG.", show_default=False)
    ] = None,
) -> None:
    """Start everything, run a story on real SIP over UDP, check every step, stop everything.

    Two phones call each other and a carrier, credit runs out, lines run out, fraud and a password guesser are stopped,
    a policy changes live, the books are checked. It takes about 40 seconds on two idle cores.

    Example: [bold]callwarden demo[/bold]
    """
    from callwarden.cli.demo import director

    raise typer.Exit(director.run(keep=keep, plain=plain, record=record))
