"""The real `callwarden` command, run in a process of its own as a person would."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_COLOURS: Final = ("NO_COLOR", "FORCE_COLOR")
TIMEOUT_S: Final = 20.0


async def run(state_dir: Path, *arguments: str, columns: int = 110, has_colour: bool = False) -> tuple[int, str]:
    """Exit code and all that was printed, in tables of that width."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CALLWARDEN_") and name not in _COLOURS
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "callwarden.cli.main", "--state-dir", str(state_dir), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environment, "COLUMNS": str(columns), **({"FORCE_COLOR": "1"} if has_colour else {"NO_COLOR": "1"})},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, printed.decode(errors="replace")
