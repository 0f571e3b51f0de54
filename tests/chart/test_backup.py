"""The CronJob's own script on a real PostgreSQL, and the restore that docs/howto/backup.md describes."""

import asyncio
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import make_url

from callwarden.common.sql import connecting
from callwarden.local.account import ordinary_user
from callwarden.local.postgres import program_folder
from callwarden.schema.tables import metadata
from callwarden.testing import databases
from callwarden.testing.kube_tools import needs_kube_tools
from tests.chart.rendering import containers, rendered

pytestmark = [pytest.mark.integration, pytest.mark.setting("db-backup"), needs_kube_tools()]


def dsn(url: str) -> str:
    """As PostgreSQL's own programs take it."""
    return connecting.dsn(make_url(url))


def backup(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the rendered CronJob runs, with the environment that it is given."""
    ((_, container),) = (each for each in containers(rendered("everything")) if each[0].endswith("/backup"))
    environment = {each["name"]: each.get("value", url) for each in container["env"]} | {"FOLDER": str(folder)}
    path = f"{program_folder(ordinary_user())}:{os.defpath}"
    command = [*container["command"], *container["args"]]
    return subprocess.run(command, env=environment | {"PATH": path}, capture_output=True, text=True, check=False)


async def contents(url: str) -> dict[str, list[str]]:
    connection = await databases.connect(url)
    try:
        names = [*metadata.tables, "alembic_version"]
        rows = {name: await connection.fetch(f'SELECT t::text FROM "{name}" t ORDER BY 1') for name in names}
    finally:
        await connection.close()
    return {name: [row[0] for row in found] for name, found in rows.items()}


async def test_a_dump_restored_into_an_empty_database_is_the_same(
    database_url: str, postgres_url: str, tmp_path: Path
) -> None:
    account = uuid.uuid4()
    connection = await databases.connect(database_url)
    await connection.execute(
        "INSERT INTO account (id, realm, name, type, currency, prepaid, balance_micros) "
        "VALUES ($1, 'r', 'alice', 'enduser', 'EUR', true, 5)",
        account,
    )
    await connection.execute(
        "INSERT INTO ledger_entry (id, account_id, kind, reference, amount_micros) VALUES ($1, $1, 'top-up', 'k', 5)",
        account,
    )
    await connection.close()
    result = backup(dsn(database_url), tmp_path)
    assert result.returncode == 0, result.stderr
    (dump,) = os.listdir(tmp_path)

    name = f"restored_{uuid.uuid4().hex}"
    server = await databases.connect(postgres_url)
    await server.execute(f"CREATE DATABASE {name}")
    try:
        restored = make_url(database_url).set(database=name).render_as_string(hide_password=False)
        program = program_folder(ordinary_user()) / "pg_restore"
        arguments = ["--exit-on-error", "--no-owner", "--no-privileges", "--dbname", dsn(restored)]
        restoring = await asyncio.create_subprocess_exec(program, *arguments, tmp_path / dump)
        assert await restoring.wait() == 0
        found = await contents(restored)
        assert found == await contents(database_url)
        assert len(found["account"]) == len(found["ledger_entry"]) == len(found["alembic_version"]) == 1
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


def test_a_dump_that_fails_leaves_nothing_behind_and_forgets_nothing(tmp_path: Path) -> None:
    old = tmp_path / "callwarden-20010203T040506Z.dump"
    old.touch()
    os.utime(old, (0, 0))
    assert backup("postgresql://nobody@127.0.0.1:1/none", tmp_path).returncode != 0
    assert list(tmp_path.iterdir()) == [old]


def test_old_dumps_go_when_a_new_one_is_there(database_url: str, tmp_path: Path) -> None:
    for name, days in (("callwarden-old.dump", 30), ("callwarden-new.dump", 1), ("other.dump", 30)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - days * 86_400,) * 2)
    assert backup(dsn(database_url), tmp_path).returncode == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"callwarden-new.dump", "other.dump"} < names
    assert "callwarden-old.dump" not in names
    assert len(names) == 3
