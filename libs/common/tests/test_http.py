"""The status pages: nothing a stranger sends does harm."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from callwarden.common import http
from callwarden.common.http import REQUEST_BYTES_MAX, StatusServer
from callwarden.testing.waiting import eventually


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StatusServer]:
    async with StatusServer("127.0.0.1:0", {"/page": lambda: (200, "text/plain", b"content")}) as started:
        yield started


async def exchange(server: StatusServer, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:  # it was closed with something unread
        return b""
    finally:
        writer.close()


async def test_a_page_is_answered_and_the_connection_closed(server: StatusServer) -> None:
    answer = await exchange(server, b"GET /page?x=1 HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 7\r\n" in answer
    assert answer.endswith(b"\r\n\r\ncontent")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [(b"GET /other HTTP/1.1", b"404"), (b"POST /page HTTP/1.1", b"405"), (b"\x00\xff", b"404"), (b"", b"404")],
)
async def test_anything_else_is_refused(server: StatusServer, request_head: bytes, status: bytes) -> None:
    assert (await exchange(server, request_head + b"\r\n\r\n")).split()[1] == status


async def test_a_head_beyond_the_bound_is_cut_off(server: StatusServer) -> None:
    assert await exchange(server, b"GET /page HTTP/1.1\r\nx: " + b"y" * (2 * REQUEST_BYTES_MAX)) == b""


async def test_who_sends_nothing_is_sent_away(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", 0.05)
    assert await exchange(server, b"GET /pa") == b""


async def test_closing_ends_what_is_open() -> None:
    async with StatusServer("127.0.0.1:0", {}) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await eventually(lambda: server._connections, what="the connection is taken")
    assert await reader.read() == b""
    writer.close()


async def test_connections_are_bounded(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 2)
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    for _, writer in held:
        writer.write(b"GET /page")  # not whole
    assert await exchange(server, b"GET /page HTTP/1.1\r\n\r\n") == b""
    for reader, writer in held:
        writer.write(b" HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"content")
        writer.close()
