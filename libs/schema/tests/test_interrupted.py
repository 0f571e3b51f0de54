"""Migrations and rights on a database where each DDL statement commits by itself, and connections end amid them.

CockroachDB 25.1 and newer (`autocommit_before_ddl`), by its stand-in: what was done before the end stays, and the job
that Kubernetes starts again meets it.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError

from callwarden.common.sql import connecting
from callwarden.schema import job, migrate, roles
from callwarden.schema.tables import metadata
from callwarden.testing import databases
from callwarden.testing.cockroachdb import CockroachDBFace
from callwarden.testing.databases import needs_postgres
from callwarden.testing.servers import as_owner

pytestmark = pytest.mark.integration

WRITES = re.compile(r"\s*(CREATE|ALTER|DROP|INSERT|UPDATE|DELETE)\b", re.IGNORECASE)


class Cuts:
    """Ends the connection before each statement that writes and hasn't been asked before: each run gets one further."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __call__(self, statement: str) -> bool:
        if WRITES.match(statement) is None or statement in self.asked:
            return False
        self.asked.add(statement)
        return True


@pytest_asyncio.fixture
async def empty(database_url: str) -> AsyncIterator[str]:
    """An empty database, as its owner."""
    url = as_owner(database_url)
    await execute(url, *EMPTY)
    yield url


EMPTY = "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", "GRANT USAGE ON SCHEMA public TO PUBLIC"


async def execute(url: str, *statements: str) -> None:
    connection = await databases.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest_asyncio.fixture
async def face(empty: str) -> AsyncIterator[CockroachDBFace]:
    port = make_url(empty).port
    assert port is not None
    async with CockroachDBFace(port, ddl_commits=True) as face:
        yield face


def differences(sync: Connection) -> list[str]:
    context = MigrationContext.configure(sync, opts={"compare_type": False})  # INTEGER is BIGINT there
    return [str(each) for each in compare_metadata(context, metadata)]


async def made(url: str) -> list[str]:
    """What differs from the models."""
    engine = connecting.make_engine(connecting.database_url(url))
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(differences)
    finally:
        await engine.dispose()


async def until_it_gets_through(work: Callable[[], None]) -> None:
    for _ in range(200):
        try:
            return await asyncio.to_thread(work)
        except DBAPIError as error:
            last = error
    raise last


@needs_postgres
async def test_a_migration_that_is_cut_at_every_statement_can_be_run_again(face: CockroachDBFace, empty: str) -> None:
    """There, and the way back."""
    url = face.url(empty)
    cuts = face.cut_before = Cuts()
    await until_it_gets_through(lambda: migrate.upgrade(url))
    assert len(cuts.asked) > len(metadata.tables)
    assert await made(empty) == []
    cuts = face.cut_before = Cuts()
    await until_it_gets_through(lambda: migrate.downgrade(url, "base"))
    assert len(cuts.asked) > len(metadata.tables)
    face.cut_before = lambda _: False
    await asyncio.to_thread(migrate.upgrade, url)
    assert await made(empty) == []


async def test_a_service_that_runs_keeps_its_rights_while_they_are_given_again(
    face: CockroachDBFace, empty: str
) -> None:
    """Each statement of the job takes a while, and the service asks all the time."""
    url = face.url(empty)
    await asyncio.to_thread(migrate.upgrade, url)
    stem = uuid.uuid4().hex[:12]
    logins = {service: (f"{service}-{stem}", stem) for service in roles.RIGHTS}
    try:
        await job.make_roles(url, logins)
        admission, _ = logins["call-admission"]
        # As a release before left it: one right too many, one too few.
        await execute(empty, f'GRANT DELETE ON account TO "{admission}"', f'REVOKE INSERT ON hold FROM "{admission}"')
        face.ddl_takes_s = 0.05
        service = await asyncpg.connect(
            make_url(empty)
            .set(drivername="postgresql", username=admission, password=stem)
            .render_as_string(hide_password=False)
        )
        given_again = asyncio.create_task(job.make_roles(url, logins))
        asked = 0
        while not given_again.done():
            await service.fetchval("SELECT count(*) FROM account")  # InsufficientPrivilegeError if it has no right
            asked += 1
        await given_again
        assert asked > 1
        rights = await service.fetchrow(
            "SELECT has_table_privilege('account', 'DELETE'), has_table_privilege('hold', 'INSERT')"
        )
        assert tuple(rights) == (False, True)
        await service.close()
    finally:
        await execute(empty, *(f'DROP OWNED BY "{role}"' for role, _ in logins.values()))
        await execute(empty, *(f'DROP ROLE "{role}"' for role, _ in logins.values()))
