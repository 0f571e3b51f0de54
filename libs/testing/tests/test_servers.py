"""The fixtures give what they promise."""

from pathlib import Path

import nats
import pytest

from callwarden.local.nats import NatsServer
from callwarden.testing import databases


@pytest.mark.integration
async def test_the_shared_nats_has_jetstream(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    account = await client.jetstream().account_info()
    assert account.limits is not None
    await client.close()


@pytest.mark.integration
async def test_a_private_nats_is_empty_and_survives_a_kill(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    stream = client.jetstream()
    assert await stream.streams_info() == []
    await stream.add_stream(name="CALLS", subjects=["call.>"])
    await stream.publish("call.started", b"1")
    await client.close()
    url = nats_server.url
    await nats_server.kill()
    await nats_server.restart()
    assert nats_server.url == url
    client = await nats.connect(url)
    assert (await client.jetstream().stream_info("CALLS")).state.messages == 1
    await client.close()


@pytest.mark.integration
async def test_a_database_has_tables_and_no_rows(database_url: str) -> None:
    connection = await databases.connect(database_url)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert tables
    await connection.close()


@pytest.mark.integration
@pytest.mark.parametrize("run", [1, 2])
async def test_what_one_test_writes_another_does_not_see(database_url: str, run: int) -> None:
    connection = await databases.connect(database_url)
    await connection.execute("CREATE TABLE left_behind (run INT)")
    await connection.execute("INSERT INTO left_behind VALUES ($1)", run)
    assert await connection.fetchval("SELECT count(*) FROM left_behind") == 1
    await connection.close()


def test_a_state_folder_can_be_passed_through_by_another_user(state_dir: Path) -> None:
    assert state_dir.stat().st_mode & 0o001
    assert not state_dir.stat().st_mode & 0o006
