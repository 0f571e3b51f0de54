"""What the command line says when it can't: one line that names the cause and what to do about it."""


class Failure(Exception):
    """Ends the command with this message on standard error and this exit code; never with a traceback."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Misuse(Failure):
    """What was typed can't be meant: exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=2)
