"""Wall clocks that are wrong, for processes that the test starts: ahead, behind, and stepped while they run.

By libfaketime, a tool of the tests alone. Monotonic clocks and file times stay right, as when somebody sets a machine's
clock; so do NATS and PostgreSQL, which aren't started with it.
"""

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from callwarden.testing.programs import needs_program

PROGRAM: Final = "faketime"
needs_wall_clocks = needs_program(PROGRAM)


@cache
def _library() -> str:
    """The library for programs with threads, as the tool itself finds it."""
    command = [PROGRAM, "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


class WallClock:
    """The wall clock of every process that gets its `environment`; `set` steps it in all of them."""

    def __init__(self, file: Path, skew_s: float = 0.0) -> None:
        """`file` will say what time it is; the processes read it."""
        self._file = file
        self.set(skew_s)

    def set(self, skew_s: float) -> None:
        """From now on it is so many seconds ahead of the machine's, or behind if negative."""
        self.skew_s = skew_s
        written = self._file.with_suffix(".new")
        written.write_text(f"{skew_s:+.3f}\n")
        written.rename(self._file)  # in one step: it is read all the time

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # a step is seen within it; reading the file each time costs much
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",  # no shared state between processes
            "NO_FAKE_STAT": "1",
        }
