"""Writes the manual page: `python cli/man.py FILE`. Called by `make man`."""

import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import typer

from callwarden.cli import manual
from callwarden.cli.main import app


def main(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.now(UTC).date().isoformat()
    file.write_text(manual.page(typer.main.get_command(app), version("callwarden"), today), encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
