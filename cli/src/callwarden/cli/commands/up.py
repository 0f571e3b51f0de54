"""`callwarden up`: the whole system in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from callwarden.cli import state
from callwarden.cli.failure import CliMisuse


def up(
    sip: Annotated[str, typer.Option(help="Where phones and trunks connect, host:port (UDP).")] = "127.0.0.1:5060",
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir",
            help="Folder with data, secrets and logs, kept for the next start.",
            show_default=".callwarden",
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the whole system in the foreground: NATS, PostgreSQL, every service. Ctrl-C stops all of it.

    Example: [bold]callwarden up --sip 0.0.0.0:5060[/bold]
    """
    from callwarden.cli import foreground

    host, _, port = sip.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 <= int(port) <= 65_535):
        raise CliMisuse(f"--sip: {sip[:64]!r} is not host:port, such as 127.0.0.1:5060")
    if log_level not in ("debug", "info", "warning", "error"):
        raise CliMisuse("--log-level: write debug, info, warning or error")
    if state_dir is not None:
        state.choose(state_dir)
    foreground.run(state.directory(), sip, log_level)
