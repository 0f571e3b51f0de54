"""What the command line says when it can't: one line that names the cause and what to do about it."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callwarden.local.process import ChildFailed

_LAST_LINE_CHARS = 300


class Failure(Exception):
    """Ends the command with this message on standard error and this exit code; never with a traceback."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class CliMisuse(Failure):
    """What was typed can't be meant: exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=2)


def of_child(error: "ChildFailed") -> str:
    """What became of a process in one line: the last thing that it said, instead of all."""
    lines = [line.strip() for line in error.log_tail.splitlines() if line.strip()]
    if not lines:
        return f"{error.name} {error.what}"
    try:
        said = json.loads(lines[-1])
        last = ": ".join(str(said[key]) for key in ("event", "error", "message") if said.get(key))
    except (ValueError, AttributeError, TypeError):
        last = lines[-1]
    return f"{error.name} {error.what}: {last[:_LAST_LINE_CHARS]}"
