"""NATS starts, dies and comes back with its streams, and lets in only who knows the password."""

import asyncio
import json
import socket
from pathlib import Path

import nats
import pytest

from callwarden.local import ports
from callwarden.local.nats import NatsServer
from callwarden.local.ports import LOOPBACK, Port
from callwarden.local.process import ChildFailed

pytestmark = pytest.mark.integration


async def messages(server: NatsServer) -> int:
    client = await nats.connect(server.url)
    try:
        return (await client.jetstream().stream_info("KEPT")).state.messages
    finally:
        await client.close()


@pytest.mark.parametrize("fsync", [False, True])
async def test_streams_survive_a_stop_a_kill_and_a_new_object(state_dir: Path, fsync: bool) -> None:
    async with NatsServer(state_dir / "nats", password="p", fsync=fsync) as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"1")
        await client.close()
        url = server.url
        await server.kill()
        await server.restart()
        assert server.url == url
        assert await messages(server) == 1
    assert server.child.returncode == 0
    async with NatsServer(state_dir / "nats", password="other", fsync=fsync) as server:
        assert await messages(server) == 1


def enter(server: NatsServer, **credentials: str) -> bytes:
    """What the server says to a client with these credentials (the client library would try for ever)."""
    with (
        socket.create_connection((LOOPBACK, server.port), timeout=10) as connection,
        connection.makefile("rb") as lines,
    ):
        assert lines.readline().startswith(b"INFO ")
        connection.sendall(f"CONNECT {json.dumps({'verbose': False, **credentials})}\r\nPING\r\n".encode())
        return lines.readline()


async def test_nobody_enters_without_the_password(state_dir: Path) -> None:
    async with NatsServer(state_dir / "nats", password="right") as server:
        assert await asyncio.to_thread(enter, server, **{"user": "callwarden", "pass": "right"}) == b"PONG\r\n"
        for credentials in ({}, {"user": "callwarden", "pass": "wrong"}):
            answer = await asyncio.to_thread(enter, server, **credentials)
            assert answer == b"-ERR 'Authorization Violation'\r\n"
        assert (state_dir / "nats" / "nats.conf").stat().st_mode & 0o077 == 0


def test_a_password_that_clients_would_not_understand_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="URL-safe"):
        NatsServer(tmp_path, password="a/b@c")


async def test_a_port_that_somebody_took_meanwhile_is_replaced(state_dir: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as squatter:
        taken = Port(squatter.getsockname()[1], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        offers = iter([taken, ports.reserve()])
        async with NatsServer(state_dir / "nats", reserve=lambda: next(offers)) as server:
            assert server.port != taken.number


async def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_says_so(state_dir: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as squatter, pytest.raises(ChildFailed, match="address already in use"):
        await NatsServer(state_dir / "nats", port=squatter.getsockname()[1]).start()
