"""Databases are made where the environment says."""

from pathlib import Path

import asyncpg
import pytest

from callwarden.common.sql import Database
from callwarden.kernel.errors import Invalid
from callwarden.schema.roles import RIGHTS
from callwarden.testing.databases import ROLE, STAND_IN, VARIABLE, connect, databases, needs_postgres, owner
from callwarden.testing.servers import as_roles


@needs_postgres
@pytest.mark.integration
async def test_a_server_that_is_named_gets_databases_with_tables_and_roles(postgres_url: str, tmp_path: Path) -> None:
    named = databases({VARIABLE: postgres_url}, tmp_path)
    await named.start()
    url = await named.new()
    try:
        connection = await connect(url)
        assert await connection.fetchval("SELECT count(*) FROM account") == 0
        await connection.close()
        of_service = await connect(as_roles(url)["auth"])
        assert await of_service.fetchval("SELECT session_user") == ROLE.format("auth")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await of_service.execute("DELETE FROM ledger_entry")
        await of_service.close()
    finally:
        await named.drop(url)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await connect(url)
    assert set(as_roles(url)) == set(RIGHTS)


@needs_postgres
@pytest.mark.integration
async def test_the_stand_in_is_a_cockroachdb_to_whoever_connects(state_dir: Path) -> None:
    own = databases({VARIABLE: STAND_IN}, state_dir)
    await own.start()
    try:
        url = await own.new()
        async with Database(url) as database:
            assert database.dialect == "cockroachdb"
        connection = await connect(url)
        assert str(await connection.fetchval("SELECT version()")).startswith("CockroachDB")
        await connection.close()
        await own.drop(url)
    finally:
        await own.stop()


def test_a_url_without_a_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="password"):
        databases({VARIABLE: "cockroachdb+asyncpg://root@h:26257/defaultdb"}, tmp_path)


def test_the_owner_is_whom_the_url_names() -> None:
    assert owner({VARIABLE: "cockroachdb+asyncpg://maker:secret@h/d"}) == "maker"
    assert owner({}) == owner({VARIABLE: STAND_IN}) != "maker"
