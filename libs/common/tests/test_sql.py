"""The database as it is: conflicts are retried, what is wrong is not, and nothing costs a hidden round trip."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.common.metrics import Metrics
from callwarden.common.sql import Database, HotPool, OutcomeUnknown, RetriesExhausted
from callwarden.common.sql.retry import ATTEMPTS_MAX, RETRIES, Retry
from callwarden.kernel.errors import Conflict, Invalid, Unavailable

SECRET = "hunter2"


class Refused(Exception):
    """As a driver tells a conflict."""

    sqlstate = "40001"


def test_a_url_that_is_not_ours_is_refused_without_its_password() -> None:
    for url in (f"mysql://u:{SECRET}@db/c", f"u:{SECRET}@db", f"postgresql://u:{SECRET}@db/c"):
        with pytest.raises(Invalid) as caught:
            Database(url)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.field == "database_url"


@pytest.mark.parametrize("dialect", ["postgresql", "cockroachdb"])
async def test_the_url_chooses_the_dialect_and_is_never_shown(dialect: str) -> None:
    database = Database(f"{dialect}+asyncpg://u:{SECRET}@db:26257/c")
    assert database.dialect == dialect
    assert SECRET not in repr(database) + repr(database.engine) + str(database.engine.url)


async def test_a_conflict_is_tried_again_until_it_gets_through() -> None:
    metrics, attempts = Metrics(), 0

    async def attempt() -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise Refused
        return "done"

    assert await Retry(metrics, rng=lambda: 0.0).run("settle", attempt) == "done"
    assert metrics.counter(RETRIES, "settle").value == 3


async def test_it_is_not_tried_for_ever() -> None:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise Refused

    with pytest.raises(RetriesExhausted) as caught:
        await Retry(rng=lambda: 0.0).run("settle", attempt)
    assert isinstance(caught.value, Conflict)
    assert attempts == ATTEMPTS_MAX


async def test_what_is_wrong_is_not_tried_again() -> None:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await Retry().run("settle", attempt)
    assert attempts == 1


async def test_what_may_have_been_committed_is_not_tried_again_and_is_said_to_be_unknown() -> None:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise asyncpg.StatementCompletionUnknownError("result is ambiguous: node died")

    with pytest.raises(OutcomeUnknown) as caught:
        await Retry().run("settle", attempt)
    assert attempts == 1
    assert isinstance(caught.value, Unavailable)
    assert "node" not in str(caught.value)


async def test_a_database_that_is_not_there_is_unavailable_and_not_named() -> None:
    url = f"postgresql+asyncpg://u:{SECRET}@127.0.0.1:1/c"
    async with Database(url) as database:
        with pytest.raises(Unavailable) as caught:
            await database.transaction("ask", lambda connection: connection.execute(text("SELECT 1")))
        assert caught.value.message == "the database is not available"
        with pytest.raises(Unavailable):
            await database.hot()


@pytest_asyncio.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """The shared server's maintenance database; each test makes a table of its own name."""
    async with Database(postgres_url.replace("postgresql://", "postgresql+asyncpg://"), connections_max=12) as opened:
        yield opened


@pytest_asyncio.fixture
async def hot(database: Database) -> AsyncIterator[HotPool]:
    async with await database.hot(connections=12) as pool:
        yield pool


@pytest_asyncio.fixture
async def table(database: Database) -> AsyncIterator[str]:
    """A table `name(id int primary key, value int)` with one row (1, 0)."""
    name = f"t_{uuid.uuid4().hex}"

    async def create(connection: AsyncConnection) -> None:
        await connection.execute(text(f"CREATE TABLE {name} (id int PRIMARY KEY, value int NOT NULL)"))
        await connection.execute(text(f"INSERT INTO {name} VALUES (1, 0)"))

    await database.transaction("create", create)
    yield name
    await database.transaction("drop", lambda connection: connection.execute(text(f"DROP TABLE {name}")))


async def value_of(database: Database, table: str) -> int:
    async def read(connection: AsyncConnection) -> int:
        return int((await connection.execute(text(f"SELECT value FROM {table} WHERE id = 1"))).scalar_one())

    return await database.transaction("read", read)


@pytest.mark.integration
async def test_writers_who_collide_all_get_through(database: Database, hot: HotPool, table: str) -> None:
    """Read, then write what was read plus one: without SERIALIZABLE updates are lost, without retry they fail."""

    async def add_cold(connection: AsyncConnection) -> None:
        value = (await connection.execute(text(f"SELECT value FROM {table} WHERE id = 1"))).scalar_one()
        await connection.execute(text(f"UPDATE {table} SET value = :value WHERE id = 1"), {"value": value + 1})

    async def add_hot(connection: Any) -> None:
        value = await connection.fetchval(f"SELECT value FROM {table} WHERE id = 1")
        await connection.execute(f"UPDATE {table} SET value = $1 WHERE id = 1", value + 1)

    async def insist(transaction: Any) -> None:
        while True:  # RetriesExhausted is an answer; here everybody wants to get through
            try:
                await transaction()
            except RetriesExhausted:
                continue
            return

    await asyncio.gather(
        *(insist(lambda: database.transaction("cold", add_cold)) for _ in range(10)),
        *(insist(lambda: hot.transaction("hot", add_hot)) for _ in range(10)),
    )
    assert await value_of(database, table) == 20


@pytest.mark.integration
async def test_what_fails_leaves_nothing(database: Database, hot: HotPool, table: str) -> None:
    async def cold(connection: AsyncConnection) -> None:
        await connection.execute(text(f"UPDATE {table} SET value = 7"))
        raise ValueError

    async def warm(connection: Any) -> None:
        await connection.execute(f"UPDATE {table} SET value = 7")
        raise ValueError

    with pytest.raises(ValueError):
        await database.transaction("cold", cold)
    with pytest.raises(ValueError):
        await hot.transaction("hot", warm)
    assert await value_of(database, table) == 0


@pytest.mark.integration
async def test_both_ways_are_serializable(database: Database, hot: HotPool) -> None:
    async def cold(connection: AsyncConnection) -> str:
        return str((await connection.execute(text("SHOW transaction_isolation"))).scalar_one())

    async def warm(connection: Any) -> str:
        return str(await connection.fetchval("SHOW transaction_isolation"))

    assert await database.transaction("cold", cold) == "serializable"
    assert await hot.transaction("hot", warm) == "serializable"
    assert await hot.run("hot", warm) == "serializable"


@pytest.mark.integration
async def test_giving_back_a_connection_costs_no_round_trip(hot: HotPool) -> None:
    async def work(connection: Any) -> int:
        return int(await connection.fetchval("SELECT pg_backend_pid()"))

    pid = await hot.run("one", work)

    async def last_query(connection: Any) -> tuple[int, str]:
        row = await connection.fetchrow("SELECT pid, query FROM pg_stat_activity WHERE pid = $1", pid)
        return int(await connection.fetchval("SELECT pg_backend_pid()")), str(row["query"])

    # Asked from another connection: the first is held meanwhile so that the pool gives a second one.
    async def hold(connection: Any) -> str:
        while True:
            other, query = await hot.run("two", last_query)
            if other != pid:
                return query

    await hot.run("one", work)
    assert await hot.run("hold", hold) == "SELECT pg_backend_pid()", "asyncpg's pool would have sent its reset"


@pytest.mark.integration
async def test_a_transaction_that_is_left_open_is_undone(hot: HotPool, table: str) -> None:
    async def forgetful(connection: Any) -> None:
        await connection.execute("BEGIN")
        await connection.execute(f"UPDATE {table} SET value = 9")

    await hot.run("forgetful", forgetful)
    assert await hot.run("read", lambda connection: connection.fetchval(f"SELECT value FROM {table}")) == 0


@pytest.mark.integration
async def test_a_mistake_is_not_called_a_database_that_is_away(hot: HotPool) -> None:
    with pytest.raises(asyncpg.InterfaceError):
        await hot.run("wrong", lambda connection: connection.fetchval("SELECT $1::int", 1, 2))
    with pytest.raises(asyncpg.UndefinedTableError):
        await hot.run("wrong", lambda connection: connection.fetchval("SELECT 1 FROM no_such_table"))


@pytest.mark.integration
async def test_a_connection_that_dies_is_replaced(database: Database, hot: HotPool) -> None:
    async def kill(connection: Any) -> None:
        await connection.fetchval("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Unavailable):
        await hot.run("kill", kill)
    assert await hot.run("after", lambda connection: connection.fetchval("SELECT 1")) == 1

    async def kill_cold(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable):
        await database.transaction("kill", kill_cold)

    async def one(connection: AsyncConnection) -> int:
        return int((await connection.execute(text("SELECT 1"))).scalar_one())

    assert await database.transaction("after", one) == 1


@pytest.mark.integration
async def test_parameters_stand_in_no_error(database: Database) -> None:
    with pytest.raises(Exception) as caught:
        await database.transaction(
            "wrong",
            lambda connection: connection.execute(text("SELECT :secret FROM no_such_table"), {"secret": SECRET}),
        )
    assert SECRET not in str(caught.value)
