"""Serialization failures are normal answers of a SERIALIZABLE database, and are answered by trying again.

CockroachDB always runs SERIALIZABLE and PostgreSQL when asked; both tell the losers of a conflict 40001 (PostgreSQL
also 40P01 for a deadlock). What is tried again is the whole transaction, reads included, so it must have no effects
outside the database.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
import sqlalchemy.exc

from callwarden.common.metrics import Counter, Metric, Metrics
from callwarden.kernel.errors import CallwardenError, Conflict, Unavailable

T = TypeVar("T")

SERIALIZATION_FAILURE: Final = "40001"
DEADLOCK_DETECTED: Final = "40P01"
RETRIED: Final = frozenset({SERIALIZATION_FAILURE, DEADLOCK_DETECTED})
COMPLETION_UNKNOWN: Final = "40003"  # CockroachDB, when a node dies under a COMMIT

ATTEMPTS_MAX: Final = 8  # With jittered pauses, ten writers on one row all got through in five (tests/test_sql.py).
PAUSE_FIRST_S: Final = 0.002  # about one transaction
PAUSE_MAX_S: Final = 0.1

# SQLSTATEs, or their classes, that mean "not now" rather than "wrong": connection exceptions, insufficient resources,
# operator intervention (shutdown, starting up), system errors (its disk), and the time-outs by which the server closes
# a connection amid a transaction. PostgreSQL appendix A.
_UNAVAILABLE_STATES: Final = ("08", "53", "57", "58", "25P03", "25P04")
# asyncpg's InterfaceError and InternalClientError are a connection or pool that is gone, or a mistake of ours such as a
# wrong number of arguments: only their text distinguishes them. "Another operation" is what a statement meets between
# the server's last word and the end of the connection.
_GONE: Final = re.compile(r"clos(ed|ing)|released back|another operation|waiter is |unknown protocol state")
_GONE_TYPES: Final = (
    OSError,  # connection refused or reset, name not resolved, no answer in time (TimeoutError)
    EOFError,  # amid a message
    asyncio.InvalidStateError,  # an answer and the end of the connection at once
    asyncpg.FatalPostgresError,
    sqlalchemy.exc.TimeoutError,
    sqlalchemy.exc.ResourceClosedError,
    sqlalchemy.exc.PendingRollbackError,  # after a connection that was lost inside a transaction
)

RETRIES = Metric(
    "callwarden_sql_retries_total",
    "counter",
    "{retries}",
    "Transactions tried again after a conflict.",
    labels=("name",),
)


class RetriesExhausted(Conflict):
    """Every attempt met a conflict: too many writers want the same rows."""


class OutcomeUnknown(Unavailable):
    """The transaction was committed, or it wasn't. Only who can tell by what it reads next may try it again."""


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE of an error of asyncpg or of SQLAlchemy around it, or ''."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return str(getattr(error.orig, "sqlstate", None) or "")
    return str(getattr(error, "sqlstate", None) or "")


def _driver_error(error: BaseException) -> BaseException:
    """The error of asyncpg that SQLAlchemy has put two of its own around, or the error itself."""
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def translated(error: BaseException) -> CallwardenError | None:
    """Unavailable if the database could not be reached, OutcomeUnknown if it does not know the outcome of
    it, None if the error is about what was asked."""
    if sqlstate_of(error) == COMPLETION_UNKNOWN:
        return OutcomeUnknown("the database doesn't know whether it was written")
    driver = _driver_error(error)
    away = (
        isinstance(driver, _GONE_TYPES)
        or (isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated)
        or sqlstate_of(driver).startswith(_UNAVAILABLE_STATES)
        or (isinstance(driver, asyncpg.InterfaceError | asyncpg.InternalClientError) and _GONE.search(str(driver)))
    )
    return Unavailable("the database is not available") if away else None


class Retry:
    """Runs attempts until one is not refused for a conflict."""

    def __init__(self, metrics: Metrics | None = None, rng: Callable[[], float] = random.random) -> None:
        self._metrics = metrics or Metrics()
        self._rng = rng

    def counter(self, name: str) -> Counter:
        """How often `name` was tried again."""
        return self._metrics.counter(RETRIES, name)

    async def run(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that gets through.

        Raises RetriesExhausted after ATTEMPTS_MAX conflicts, Unavailable if the database can't be asked (OutcomeUnknown
        if it may have been committed: not every attempt may be made twice); what else the attempt raises passes
        through. `name` names the transaction in metrics.
        """
        for number in range(ATTEMPTS_MAX):
            try:
                return await attempt()
            except Exception as error:
                if sqlstate_of(error) in RETRIED:
                    self.counter(name).value += 1
                    if number == ATTEMPTS_MAX - 1:
                        raise RetriesExhausted(f"{name} met too many conflicts") from error
                elif (unavailable := translated(error)) is not None:
                    raise unavailable from error
                else:
                    raise
            # Full jitter: those who collided must not meet again.
            await asyncio.sleep(min(PAUSE_FIRST_S * 2**number, PAUSE_MAX_S) * self._rng())
        raise AssertionError("the last attempt returns or raises")
