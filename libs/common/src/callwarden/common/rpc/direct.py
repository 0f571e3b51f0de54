"""The same frames over a bare TCP connection instead of the gRPC stream.

In: framing, the server's listener, the link on both sides. Out: the content of frames (rpc.stream), and the gRPC stream
that is the fallback.

Why: a message on an idle gRPC stream of grpc.aio costs each side 200 to 300 µs of CPU (threads, completion queues,
HTTP/2), a write and a read of a socket of uvloop about 20. Coalescing hides that only under load: at 500 calls/s a
frame holds one request, and the two requests of a call cost more than all else that is done for it (measured by
`python -m benchmarks stream`; docs/decisions/0003).

Rules:
- The gRPC stream is opened first and stays open: it shows when the other side is gone, and carries the goodbye.
- A server offers a direct port in its initial metadata: `callwarden-direct: <port> <token>`. The token is random
  and valid once and for this stream only, so a client that was not admitted by gRPC can't connect here.
- A client that can reach it sends the token and then length-prefixed frames; the answers come back the same way. One
  that can't (a network policy, an old release) uses the gRPC stream.
- When the direct connection is lost the whole stream counts as broken: no request is sent twice by two ways.
- With mutual TLS it isn't offered: everything between services is encrypted then, which this is not.
"""

import asyncio
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from callwarden.common.logs import get_logger

log = get_logger(__name__)

METADATA_KEY: Final = "callwarden-direct"
CONNECT_TIMEOUT_S: Final = 1.0
TOKEN_BYTES: Final = 16
TOKEN_TIMEOUT_S: Final = 5.0
STRANGERS_MAX: Final = 64  # connections that haven't shown their token yet
WIRE_BYTES_MAX: Final = 2 * 1024 * 1024  # A frame is closed at 256 KiB, and its last item may have 1 MiB.

_LENGTH: Final = struct.Struct(">I")


class Link(asyncio.Protocol):
    """One direct connection: whole frames in and out. `paused` while the other side doesn't read."""

    def __init__(self) -> None:
        self.paused = False
        self.lost = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._on_frame: Callable[[bytes], None] = _ignore
        self._on_resume: Callable[[], None] = _nothing

    def attach(self, on_frame: Callable[[bytes], None], on_resume: Callable[[], None]) -> None:
        """From now on hand every frame to `on_frame`, and say by `on_resume` that writing makes sense again."""
        self._on_frame, self._on_resume = on_frame, on_resume

    def send(self, frame: bytes) -> None:
        """Writes one frame. Never blocks; look at `paused` before making the next."""
        if self._transport is not None:
            self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def hold_reading(self, hold: bool) -> None:
        """Read nothing for now, or go on: the back pressure of who is asked too much."""
        if self._transport is None or self._transport.is_closing():
            return
        if hold:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """Sends what is written and closes."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's isn't derived from it

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        start, size = 0, len(data)
        while size - start >= 4:
            (length,) = _LENGTH.unpack_from(data, start)
            if length > WIRE_BYTES_MAX:
                log.warning("stream.direct_oversized", bytes=length)
                self._buffer = b""
                self.abort()
                return
            end = start + 4 + length
            if end > size:
                break
            self._on_frame(data[start + 4 : end])
            start = end
        self._buffer = data[start:] if start else data

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._on_resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)


class _Stranger(Link):
    """A connection from outside until it has shown its token."""

    def __init__(self, listener: "DirectListener") -> None:
        super().__init__()
        self._listener = listener
        self._known = False
        self._expiry = asyncio.get_running_loop().call_later(TOKEN_TIMEOUT_S, self.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._listener.meets(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._known:
            super().data_received(data)
            return
        data = self._buffer + data
        if len(data) < TOKEN_BYTES:
            self._buffer = data
            return
        self._buffer = b""
        self._expiry.cancel()
        if not self._listener.admit(self, data[:TOKEN_BYTES]):
            self.abort()
            return
        self._known = True
        if len(data) > TOKEN_BYTES:
            super().data_received(data[TOKEN_BYTES:])

    def connection_lost(self, exc: Exception | None) -> None:
        self._expiry.cancel()
        self._listener.forget(self)
        super().connection_lost(exc)


class DirectListener:
    """The server's side: a port, and who is expected on it."""

    def __init__(self) -> None:
        self.port = 0  # while it doesn't listen
        self._server: asyncio.Server | None = None
        self._expected: dict[bytes, Callable[[Link], None]] = {}
        self._strangers: set[_Stranger] = set()

    async def start(self, host: str, port: int = 0) -> None:
        """Binds; port 0 takes any. Nothing is offered before. OSError if that isn't to be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Stranger(self), host or None, port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Takes no new connections; those that stand end with their streams."""
        if self._server is not None:
            self._server.close()

    def offer(self, adopt: Callable[[Link], None]) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        """A token, and the metadata that offers it; `adopt` gets the link of the client that shows it."""
        token = secrets.token_bytes(TOKEN_BYTES)
        self._expected[token] = adopt
        return token, ((METADATA_KEY, f"{self.port} {token.hex()}"),)

    def withdraw(self, token: bytes) -> None:
        """The stream has ended: no client is expected any more."""
        self._expected.pop(token, None)

    def meets(self, stranger: _Stranger) -> bool:
        """Whether there is room for one more that hasn't shown its token."""
        if len(self._strangers) >= STRANGERS_MAX:
            return False
        self._strangers.add(stranger)
        return True

    def admit(self, stranger: _Stranger, token: bytes) -> bool:
        """Whether the token is one that is expected; it is used up."""
        self._strangers.discard(stranger)
        adopt = self._expected.pop(token, None)
        if adopt is None:
            return False
        adopt(stranger)
        return True

    def forget(self, stranger: _Stranger) -> None:
        self._strangers.discard(stranger)


async def connect(target: str, metadata: Sequence[tuple[str, Any]]) -> Link | None:
    """The client's side: a link to the host of `target` (host:port) at the port that `metadata` offers.

    None where nothing is offered, or it can't be reached within CONNECT_TIMEOUT_S.
    """
    offered = next((str(value) for key, value in metadata if key == METADATA_KEY), "")
    port, _, token = offered.partition(" ")
    host = target.rpartition(":")[0].strip("[]")
    if not port.isdigit() or not host:
        return None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            transport, link = await asyncio.get_running_loop().create_connection(Link, host, int(port))
    except (OSError, TimeoutError) as error:
        log.info("stream.direct_unreachable", target=target, port=int(port), error=str(error))
        return None
    transport.write(bytes.fromhex(token))
    return link


def _ignore(_: bytes) -> None:
    """Before anybody listens."""


def _nothing() -> None:
    """Before anybody listens."""
