"""PostgreSQL starts, stops, dies and comes back with its data, and lets in only who knows the password."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from callwarden.local import ports
from callwarden.local.ports import LOOPBACK, Port
from callwarden.local.postgres import DatabaseOfOtherVersion, PostgresServer
from callwarden.local.process import ChildFailed

pytestmark = pytest.mark.integration

PASSWORD = "a/b c@:?#%"  # Everything a URL could trip over.


def server(home: Path, **options: object) -> PostgresServer:
    return PostgresServer(home, password=PASSWORD, fsync=False, **options)  # type: ignore[arg-type]


async def run(postgres: PostgresServer, statement: str) -> object:
    connection = await asyncpg.connect(postgres.url(driver="postgresql"))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def owner_of(pid: int) -> int:
    return Path("/proc", str(pid)).stat().st_uid


async def test_data_survive_a_stop_a_kill_and_a_new_object(state_dir: Path) -> None:
    home = state_dir / "postgres"
    async with server(home) as postgres:
        await run(postgres, "CREATE TABLE kept (i INT)")
        await run(postgres, "INSERT INTO kept VALUES (1)")
        url = postgres.url()
        await postgres.kill()
        await postgres.restart()
        assert postgres.url() == url
        await run(postgres, "INSERT INTO kept VALUES (2)")
        await postgres.restart()
        assert await run(postgres, "SELECT count(*) FROM kept") == 2
    assert postgres.child.returncode == 0
    async with server(home) as postgres:
        assert await run(postgres, "SELECT count(*) FROM kept") == 2
        await postgres.stop(discard=True)
        await postgres.start()
        assert await run(postgres, "SELECT count(*) FROM kept") == 2


async def test_a_wrong_password_and_a_local_user_without_one_are_refused(state_dir: Path) -> None:
    async with server(state_dir / "postgres") as postgres:
        stranger = PostgresServer(state_dir, password="guess", port=postgres.port)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(stranger.url(driver="postgresql"))
        assert list((state_dir / "postgres" / "data").glob(".s.PGSQL*")) == []
        assert await run(postgres, "SHOW unix_socket_directories") == ""
        assert await run(postgres, "SHOW listen_addresses") == LOOPBACK


async def test_text_sorts_by_code_point_on_every_machine(state_dir: Path) -> None:
    async with server(state_dir / "postgres") as postgres:
        ordered = "SELECT string_agg(t, '' ORDER BY t) FROM unnest(ARRAY['b','ä','B','a']) t"
        assert await run(postgres, ordered) == "Babä"


async def test_a_port_that_somebody_took_meanwhile_is_replaced(state_dir: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as squatter:
        taken = Port(squatter.getsockname()[1], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        offers = iter([taken, ports.reserve()])
        async with server(state_dir / "postgres", reserve=lambda: next(offers)) as postgres:
            assert postgres.port != taken.number
            assert await run(postgres, "SELECT 1") == 1


async def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_says_so(state_dir: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as squatter, pytest.raises(ChildFailed, match="Address already in use"):
        await server(state_dir / "postgres", port=squatter.getsockname()[1]).start()


async def test_the_data_of_a_killed_launcher_can_be_taken_over_at_once(state_dir: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from callwarden.local.postgres import PostgresServer
async def main():
    async with PostgresServer(Path(sys.argv[1]), password=sys.argv[2], fsync=False):
        print("up", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    home = state_dir / "postgres"
    launcher = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(home), PASSWORD, stdout=subprocess.PIPE
    )
    assert launcher.stdout is not None
    assert await launcher.stdout.readline() == b"up\n"
    launcher.kill()
    async with server(home) as postgres:  # Its server may still be on its way out.
        assert await run(postgres, "SELECT 1") == 1
    await launcher.wait()


async def test_data_of_another_version_are_not_touched(state_dir: Path) -> None:
    home = state_dir / "postgres"
    async with server(home):
        pass
    (home / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(DatabaseOfOtherVersion, match="PostgreSQL 12"):
        async with server(home):
            pytest.fail("it started on data of another version")


async def test_the_password_is_in_no_log_and_no_process_list(state_dir: Path) -> None:
    async with server(state_dir / "postgres") as postgres:
        process = Path("/proc", str(postgres.child.pid))
        for place in (process / "cmdline", process / "environ", postgres.log):
            assert PASSWORD not in place.read_text()
    assert [path.name for path in (state_dir / "postgres").iterdir()] == ["data"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an ordinary user's PostgreSQL runs as that user")
async def test_as_root_it_runs_as_an_ordinary_user_even_where_that_user_cannot_go(tmp_path: Path) -> None:
    closed = tmp_path / "root-only"
    closed.mkdir(mode=0o700)
    home = closed / "postgres"
    try:
        async with server(home) as postgres:
            assert owner_of(postgres.child.pid) != 0
            await run(postgres, "CREATE TABLE kept (i INT)")
            assert home.is_symlink()
        async with server(home) as postgres:
            assert await run(postgres, "SELECT count(*) FROM kept") == 0
    finally:
        shutil.rmtree(home.resolve(), ignore_errors=True)
