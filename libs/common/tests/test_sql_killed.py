"""A database that goes away amid statements: each of them ends as done or as Unavailable, whatever the driver says.

Not in here: what a service does then (its outage tests).
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy.exc
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.common.sql import Database, HotPool
from callwarden.common.sql.retry import translated
from callwarden.kernel.errors import CallwardenError, Unavailable
from callwarden.local.postgres import PostgresServer
from callwarden.testing.waiting import eventually

_GONE_CLASSES = ("08", "53", "57", "58")
_GONE_STATES = ("25P03", "25P04")  # the server has closed the connection for its time
# As asyncpg 0.30 has them; the second and third are what a statement meets between the server's last word and its end.
_GONE_TEXTS = (
    (asyncpg.InterfaceError, "connection is closed"),
    (asyncpg.InterfaceError, "cannot perform operation: another operation is in progress"),
    (asyncpg.InternalClientError, "cannot switch to state 12; another operation (2) is in progress"),
    (asyncpg.InternalClientError, "waiter is not done while handling critical protocol error"),
    (asyncpg.InternalClientError, "got result for unknown protocol state 3"),
    (asyncpg.InterfaceError, "pool is closing"),
    (asyncpg.InterfaceError, "cannot call Transaction.commit(): the underlying connection is closed"),
    (
        asyncpg.InterfaceError,
        "cannot call Connection.fetch(): connection has been released back to the pool",
    ),
)


def gone() -> Iterator[BaseException]:
    """Every error of the driver that says that the database isn't there, or not now."""
    for kind in vars(asyncpg.exceptions).values():
        state = getattr(kind, "sqlstate", None)
        if isinstance(kind, type) and state and (state.startswith(_GONE_CLASSES) or state in _GONE_STATES):
            yield kind("the server said so")
    for internal, said in _GONE_TEXTS:
        yield internal(said)
    yield asyncpg.FatalPostgresError("terminating connection")
    yield ConnectionResetError("reset by peer")
    yield ConnectionError("unexpected connection_lost() call")
    yield TimeoutError()
    yield OSError("Connect call failed")
    yield asyncio.IncompleteReadError(b"", 1)
    yield asyncio.InvalidStateError("invalid state")


def around(error: BaseException) -> sqlalchemy.exc.DBAPIError:
    """As SQLAlchemy raises an error of the driver."""
    driver = AsyncAdapt_asyncpg_dbapi.Error(f"{type(error)}: {error}")  # type: ignore[no-untyped-call]
    driver.__cause__ = error
    return sqlalchemy.exc.DBAPIError("SELECT 1", {}, driver)


@pytest.mark.parametrize("error", list(gone()), ids=lambda error: f"{type(error).__name__} {str(error)[:40]}")
def test_a_database_that_is_gone_is_unavailable_in_all_its_words(error: BaseException) -> None:
    assert type(translated(error)) is Unavailable
    assert type(translated(around(error))) is Unavailable


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.PendingRollbackError("Can't reconnect until invalid transaction is rolled back."),
        sqlalchemy.exc.ResourceClosedError("This Connection is closed"),
        sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 0 reached"),
    ],
)
def test_sqlalchemys_own_words_for_it_are_known_too(error: BaseException) -> None:
    assert type(translated(error)) is Unavailable


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InterfaceError("the server expects 1 argument for this query, 2 were passed"),
        asyncpg.ProtocolError("array length overflow"),
        asyncpg.OutdatedSchemaCacheError("cached statement plan is invalid"),
        asyncpg.UndefinedTableError('relation "t" does not exist'),
        asyncpg.UniqueViolationError("duplicate key value"),
        asyncpg.InternalClientError("no binary format encoder for type x (OID 1)"),
        ValueError("a mistake of ours"),
    ],
)
def test_a_mistake_is_not_taken_for_it(error: BaseException) -> None:
    assert translated(error) is None
    assert translated(around(error)) is None


class StatementLoad:
    """Many at once use both ways to the database until `stop`, and count how each use ended."""

    def __init__(self, database: Database, hot: HotPool) -> None:
        self.ends: Counter[str] = Counter()
        self._uses = (self._single, self._transaction, self._cold)
        self._database, self._hot = database, hot
        self._stopped = False
        self._tasks = [asyncio.ensure_future(self._work(number)) for number in range(24)]

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def after(self, more: int) -> None:
        """Returns when so many more uses have succeeded."""
        wanted = self.ends["done"] + more
        await eventually(lambda: self.ends["done"] >= wanted, timeout_s=60.0, interval_s=0.002, what="more uses")

    async def _work(self, number: int) -> None:
        row = number % 10
        while not self._stopped:
            try:
                await self._uses[number % 3](row)
            except CallwardenError as error:
                self.ends[type(error).__name__] += 1
            except Exception as error:  # whatever it is would be INTERNAL to a caller
                self.ends[repr(error)] += 1
            else:
                self.ends["done"] += 1
            await asyncio.sleep(0)

    async def _single(self, row: int) -> None:
        await self._hot.run("one", lambda one: one.fetch("UPDATE uses SET n = n + 1 WHERE id = $1 RETURNING n", row))

    async def _transaction(self, row: int) -> None:
        async def work(connection: Any) -> None:
            await connection.fetchval("SELECT n FROM uses WHERE id = $1", row)
            await connection.execute("UPDATE uses SET n = n + 1 WHERE id = $1", row)

        await self._hot.transaction("two", work)

    async def _cold(self, row: int) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(text("SELECT n FROM uses WHERE id = :row"), {"row": row})
            await connection.execute(text("UPDATE uses SET n = n + 1 WHERE id = :row"), {"row": row})

        await self._database.transaction("three", work)


_TERMINATE = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


@pytest.mark.cases
@pytest.mark.integration
@pytest.mark.timeout(180)
async def test_killed_amid_statements_the_database_is_unavailable_and_nothing_else(state_dir: Path) -> None:
    async with (
        PostgresServer(state_dir / "postgres", password="of a test", fsync=False) as server,
        Database(server.url(), connections_max=8) as database,
        await database.hot(connections=8) as hot,
    ):
        await hot.run("make", lambda one: one.execute("CREATE TABLE uses (id int PRIMARY KEY, n int)"))
        await hot.run("fill", lambda one: one.execute("INSERT INTO uses SELECT g, 0 FROM generate_series(0, 9) g"))
        load = StatementLoad(database, hot)
        # Each session ends between two words of its own: the statements that come then met INTERNAL.
        for _ in range(40):
            await load.after(30)
            admin = await asyncpg.connect(server.url(driver="postgresql"))
            try:
                assert await admin.fetchval(_TERMINATE) > 0
            finally:
                await admin.close()
        await load.after(100)
        await server.kill()
        await server.start()
        await load.after(100)
        await server.restart()
        await load.after(100)
        await load.stop()
    assert set(load.ends) - {"Conflict", "RetriesExhausted"} == {"done", "Unavailable"}, load.ends
