"""The job that brings schema and roles to a release, and what a role can't do."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from callwarden.schema import job, roles
from callwarden.schema.tables import metadata
from callwarden.testing import databases

Logins = dict[str, tuple[str, str]]


def test_rights_are_of_tables_that_exist() -> None:
    assert {table for rights in roles.RIGHTS.values() for table in rights} <= set(metadata.tables)


@pytest.mark.setting("db-roles")
def test_nobody_changes_or_deletes_a_ledger_entry_or_deletes_an_account() -> None:
    for rights in roles.RIGHTS.values():
        assert set(rights.get("ledger_entry", ())) <= {"SELECT", "INSERT"}
        assert "DELETE" not in rights.get("account", ())


def test_a_password_can_not_end_its_literal() -> None:
    assert roles.make_role('a"b', "x'; DROP", exists=False) == "CREATE ROLE \"a\"\"b\" WITH LOGIN PASSWORD 'x''; DROP'"


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "CALLWARDEN_DATABASE_URL is not set"),
        (
            {"CALLWARDEN_DATABASE_URL": "postgresql+asyncpg://o@h/d", "CALLWARDEN_ROLE_CHEF": "x"},
            "CALLWARDEN_ROLE_CHEF",
        ),
        (
            {"CALLWARDEN_DATABASE_URL": "postgresql+asyncpg://h/d", "CALLWARDEN_ROLE_AUTH": "no url"},
            "AUTH: the database URL",
        ),
        (
            {
                "CALLWARDEN_DATABASE_URL": "postgresql+asyncpg://o@h/d",
                "CALLWARDEN_ROLE_AUTH": "postgresql+asyncpg://a:p@h/d",
                "CALLWARDEN_ROLE_RATING": "postgresql+asyncpg://a:p@h/d",
            },
            "same user",
        ),
    ],
    ids=["nothing", "service", "url", "shared"],
)
def test_the_job_says_what_it_was_not_told(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(job.BadSettings, match=complaint):
        job.wanted(environment)


def test_the_owners_own_user_is_left_alone() -> None:
    owner = "postgresql+asyncpg://o:p@h/d"
    assert job.wanted({"CALLWARDEN_DATABASE_URL": owner, "CALLWARDEN_ROLE_AUTH": owner}) == (owner, {})


@pytest_asyncio.fixture
async def logins(database_url: str) -> AsyncIterator[Logins]:
    """Roles belong to the server, not to the database: names of this test's own."""
    stem = uuid.uuid4().hex[:12]
    made = {service: (f"{service}-{stem}", f"it's {stem}") for service in roles.RIGHTS}
    yield made
    owner = await databases.connect(database_url)
    for role, _ in made.values():
        await owner.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    await owner.close()


async def apply(database_url: str, logins: Logins) -> None:
    engine = create_async_engine(database_url)
    try:
        await job.apply_roles(engine, logins)
    finally:
        await engine.dispose()


async def allowed(database_url: str, login: tuple[str, str]) -> set[tuple[str, str]]:
    """(table, right) of all that the role can do, asked of the server under that role."""
    url = make_url(database_url).set(username=login[0], password=login[1])
    connection = await databases.connect(url.render_as_string(hide_password=False))
    try:
        rows = await connection.fetch(
            "SELECT t, r FROM unnest($1::text[]) t, unnest($2::text[]) r WHERE has_table_privilege(t, r)",
            [*metadata.tables, "alembic_version"],
            ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"],
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE mine (x int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM ledger_entry")
    finally:
        await connection.close()
    return {(row[0], row[1]) for row in rows}


@pytest.mark.integration
@pytest.mark.setting("db-roles")
async def test_each_role_can_do_what_its_service_does_and_no_more(database_url: str, logins: Logins) -> None:
    await apply(database_url, logins)
    await apply(database_url, logins)  # The next release: roles are there.
    for service, login in logins.items():
        expected = {(table, right) for table, rights in roles.RIGHTS[service].items() for right in rights}
        expected.add(("alembic_version", "SELECT"))
        assert await allowed(database_url, login) == expected, service


@pytest.mark.integration
async def test_a_right_that_a_release_no_longer_gives_is_taken_back(database_url: str, logins: Logins) -> None:
    await apply(database_url, logins)
    role, _ = logins["auth"]
    owner = await databases.connect(database_url)
    await owner.execute(f'GRANT ALL ON TABLE account TO "{role}"')
    await owner.close()
    await apply(database_url, {"auth": logins["auth"]})
    assert ("account", "DELETE") not in await allowed(database_url, logins["auth"])
