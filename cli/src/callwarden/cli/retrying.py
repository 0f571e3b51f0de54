"""Bookings that can be repeated: each has a key, and a service that was asked twice with one key books once.

In: the key, and the advice to repeat with it where it is unknown whether the booking was made. Out: asking (remote).
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from callwarden.cli.failure import Failure
from callwarden.kernel.errors import CallwardenError, ErrorKind

# With these answers nothing was booked. After any other error the booking may or may not have been made.
_NOT_BOOKED: Final = frozenset(
    {
        ErrorKind.INVALID,
        ErrorKind.UNAUTHENTICATED,
        ErrorKind.DENIED,
        ErrorKind.NOT_FOUND,
        ErrorKind.CONFLICT,
        ErrorKind.EXHAUSTED,
    }
)


def new_key() -> str:
    return str(uuid.uuid4())


@contextmanager
def repeatable(key: str) -> Iterator[None]:
    """Around the one request that books with this key: an error that leaves the outcome open says how to repeat it.
    Raises Failure for such an error, every other error as it is."""
    advice = f"it is unknown whether this was booked: repeat the command with --key {key}, which never books twice"
    try:
        yield
    except asyncio.CancelledError:  # Ctrl-C
        typer.echo(f"callwarden: interrupted; {advice}", err=True)
        raise
    except Failure as error:
        raise Failure(f"{error.message}; {advice}") from error
    except CallwardenError as error:
        if error.kind in _NOT_BOOKED:
            raise
        raise Failure(f"{error.message}; {advice}") from error
