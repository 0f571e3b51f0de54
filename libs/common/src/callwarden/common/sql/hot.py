"""A bare asyncpg pool for the two or three statements that every call runs (DESIGN.md D2).

SQLAlchemy costs four times the statement there, and asyncpg's own pool a round trip per use: it resets each
connection that comes back. Ours does not, because nothing here leaves anything behind: no session settings, no
LISTEN, no temporary tables, no advisory locks; a transaction that was left open is
rolled back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg

from callwarden.common.sql.connecting import know_arrays
from callwarden.common.sql.retry import Retry, translated

T = TypeVar("T")

STATEMENT_TIMEOUT_S: Final = 5.0  # longer than any hot statement by a factor of 100; the call has been given up by then
CONNECT_TIMEOUT_S: Final = 5.0
STATEMENTS_CACHED: Final = 100  # prepared statements per connection; we have a dozen
LIFETIME_IDLE_S: Final = 300.0


class HotPool:
    """Connections with prepared statements; SERIALIZABLE transactions with retry."""

    def __init__(self, pool: Any, retry: Retry) -> None:
        self._pool = pool
        self._retry = retry

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        size_min: int,
        size_max: int,
        application: str,
        retry: Retry,
        session: Mapping[str, str] | None = None,
    ) -> "HotPool":
        """Connect. `dsn` is postgresql://…, `session` more settings of each connection; raises Unavailable if the
        database can't be reached.
        """
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=size_min,
                max_size=size_max,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=STATEMENT_TIMEOUT_S,
                statement_cache_size=STATEMENTS_CACHED,
                max_inactive_connection_lifetime=LIFETIME_IDLE_S,
                init=_know_arrays,
                reset=_leave_as_it_is,
                server_settings={
                    "application_name": application,
                    "default_transaction_isolation": "serializable",
                    # A client that dies between BEGIN and COMMIT must not hold its rows for ever.
                    "idle_in_transaction_session_timeout": "10000",
                    **(session or {}),
                },
            )
        except Exception as error:
            raise translated(error) or error from error
        return cls(pool, retry)

    async def aclose(self) -> None:
        """Close; waits for those in use."""
        await self._pool.close()

    async def __aenter__(self) -> "HotPool":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def run(self, name: str, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run `work(connection)` outside an explicit transaction, for single statements (each is its own transaction).

        Tried again on a conflict. Raises RetriesExhausted or Unavailable; what else `work` raises passes through.
        """

        async def attempt() -> T:
            async with self._acquire() as connection:
                return await work(connection)

        return await self._retry.run(name, attempt)

    async def transaction(self, name: str, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run `work(connection)` in one SERIALIZABLE transaction, all of it again on a conflict.

        So `work` must have no effect but on the database. Raises like `run`.
        """

        async def attempt() -> T:
            # The session's default is SERIALIZABLE already; naming it here would lengthen BEGIN for nothing.
            async with self._acquire() as connection, connection.transaction():
                return await work(connection)

        return await self._retry.run(name, attempt)

    @asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Any]:
        # Not acquire(timeout=…): that makes a Task each time (wait_for), 20 µs of a transaction's 200.
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection = await self._pool.acquire()
        try:
            yield connection
        finally:
            await self._pool.release(connection)


async def _know_arrays(connection: Any) -> None:
    know_arrays(connection)


async def _leave_as_it_is(connection: Any) -> None:
    """Instead of asyncpg's reset query. A transaction that was left open it has rolled back before it asks here."""
