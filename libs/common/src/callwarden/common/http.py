"""/metrics, /healthz and /readyz over plain HTTP/1.1, for Prometheus and the kubelet. Nothing else is served.

Written on asyncio streams instead of prometheus_client's thread, because the answer has to come from the loop that
does the work: a process whose loop is stuck fails its liveness probe, where a thread would go on saying that all is
well. The answers are small, GET only, one request a connection.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from callwarden.common.settings import split_listen

REQUEST_BYTES_MAX: Final = 8_192  # A scraper sends 300 bytes.
REQUEST_TIMEOUT_S: Final = 5.0  # A prober that has not sent its request by then only occupies a socket.
CONNECTIONS_MAX: Final = 64

PROMETHEUS_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

Page = Callable[[], tuple[int, str, bytes]]  # status, content type, body

_REASONS: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class StatusServer:
    """Serves a fixed set of pages. `pages` maps a path to a function called on each request."""

    def __init__(self, listen: str, pages: dict[str, Page]) -> None:
        self._host, self._port = split_listen(listen)
        self._pages = pages
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> "StatusServer":
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=REQUEST_BYTES_MAX)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        for writer in self._connections.values():
            writer.close()
        await asyncio.gather(*self._connections)  # each ends with its connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            if len(self._connections) <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is gone or does not speak HTTP
        finally:
            del self._connections[task]
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        page = self._pages.get(rest.partition(" ")[0].partition("?")[0])
        if page is None:
            status, content_type, body = 404, "text/plain", b"not found\n"
        elif method != "GET":
            status, content_type, body = 405, "text/plain", b"GET only\n"
        else:
            status, content_type, body = page()
        return (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        ).encode() + body
