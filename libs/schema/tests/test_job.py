"""The job as a process: what it makes of a database that isn't there yet, and of one that a later release has had."""

import asyncio
import os
import sys
from collections.abc import Mapping

import pytest
from alembic.script import ScriptDirectory

from callwarden.common.sql import schema
from callwarden.schema import migrate
from callwarden.testing import databases

JOB = (sys.executable, "-m", "callwarden.schema.job")


def test_services_need_the_newest_migration_and_tell_later_ones_by_their_number() -> None:
    scripts = ScriptDirectory.from_config(migrate.config(""))
    assert scripts.get_current_head() == schema.REVISION
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)
    assert {len(revision) for revision in revisions} == {len(schema.REVISION)}


async def run(database_url: str, **more: str) -> tuple[int | None, str]:
    environment: Mapping[str, str] = {**os.environ, "CALLWARDEN_DATABASE_URL": database_url, **more}
    process = await asyncio.create_subprocess_exec(
        *JOB, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.integration
async def test_going_back_to_this_release_leaves_a_later_schema_as_it_is(database_url: str) -> None:
    """`helm rollback` runs the Job of the release that it goes back to, which doesn't know the later migrations."""
    owner = await databases.connect(database_url)
    await owner.execute("UPDATE alembic_version SET version_num = '9000'")
    code, output = await run(database_url)
    assert (code, "left as it is: 9000" in output) == (0, True), output
    assert await owner.fetchval("SELECT version_num FROM alembic_version") == "9000"
    await owner.close()


@pytest.mark.integration
async def test_a_database_that_does_not_answer_is_waited_for_and_then_named_without_its_password() -> None:
    code, output = await run("postgresql+asyncpg://o:hunter2@127.0.0.1:1/d", CALLWARDEN_START_TIMEOUT_S="1.5")
    assert code == 1
    assert output.splitlines() == [
        "callwarden-schema: waiting: the database is not available",
        "callwarden-schema: the database is not available",
    ]


@pytest.mark.parametrize("given", ["soon", ""])
async def test_a_patience_that_is_no_number_is_refused(given: str) -> None:
    code, output = await run("postgresql+asyncpg://o@127.0.0.1:1/d", CALLWARDEN_START_TIMEOUT_S=given)
    assert (code, "CALLWARDEN_START_TIMEOUT_S is a number" in output) == (2, True)
