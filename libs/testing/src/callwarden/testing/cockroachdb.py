"""The face that CockroachDB shows to a client, in front of a PostgreSQL.

It is not CockroachDB: no server of it runs in these tests. It shows what a client does with one: the dialect and driver
that the URL chooses, types that take long to look up, DDL that commits what is open, connections that end amid a
migration. Statements themselves PostgreSQL runs; what CockroachDB doesn't understand is tests/architecture's business.
"""

import asyncio
import contextlib
import re
import ssl
import struct
from collections.abc import Callable
from typing import Final

from sqlalchemy import make_url

VERSION: Final = "CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu, built 2025/06/04 00:00:00, go1.23.7)"
# Codes of the first message, which has no type byte (PostgreSQL, 54.7).
_SSL_REQUEST, _GSS_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102
_VERSION_ASKED: Final = re.compile(r"\s*select\s+(pg_catalog\.)?version\(\)\s*;?\s*", re.IGNORECASE)
_LOOKS_UP_TYPES: Final = re.compile(r"\btypeinfo_tree\b")
_DDL: Final = re.compile(r"\s*(CREATE|ALTER|DROP|GRANT|REVOKE|TRUNCATE)\b", re.IGNORECASE)
_COMMIT: Final = b"Q" + struct.pack("!I", 11) + b"COMMIT\0"


class CockroachDBFace:
    """A proxy on the loopback. An async context manager: it listens inside.

    `types_take_s`: how long asyncpg looks types up (7 to 10 s on CockroachDB before 25.1). `ddl_commits`: each
    DDL statement commits what is open before it (`autocommit_before_ddl`, on since 25.1), and takes `ddl_takes_s`.
    `cut_before` ends the connection instead of passing on a statement for which it returns True. With `tls` it speaks
    that to who asks for it; `encrypted` counts them.
    """

    def __init__(
        self,
        target_port: int,
        *,
        types_take_s: float = 0.0,
        ddl_commits: bool = False,
        ddl_takes_s: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target_port = target_port
        self.version: str | None = VERSION  # None: the PostgreSQL that it is
        self.tls = tls
        self.encrypted = 0
        self.types_take_s = types_take_s
        self.ddl_commits = ddl_commits
        self.ddl_takes_s = ddl_takes_s
        self.cut_before: Callable[[str], bool] = lambda _: False
        self.type_lookups = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "CockroachDBFace":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def url(self, postgres_url: str) -> str:
        """A URL of the PostgreSQL behind it, as one of a CockroachDB."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        url = make_url(postgres_url).set(drivername="cockroachdb+asyncpg", port=port)
        return url.render_as_string(hide_password=False)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # A connection that ends, at either side, ends the other; cancelled when the face closes.
            with contextlib.suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size, code = struct.unpack("!II", await reader.readexactly(8))
            body = await reader.readexactly(size - 8)
            if code not in (_SSL_REQUEST, _GSS_REQUEST):
                break
            encrypts = code == _SSL_REQUEST and self.tls is not None
            writer.write(b"S" if encrypts else b"N")
            await writer.drain()
            if encrypts and self.tls is not None:
                await writer.start_tls(self.tls)
                self.encrypted += 1
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            server_writer.write(struct.pack("!II", size, code) + body)
            await server_writer.drain()
            if code != _CANCEL_REQUEST:
                await _Session(self, reader, writer, server_reader, server_writer).run()
        finally:
            server_writer.close()


class _Session:
    """One client's connection, after the first message."""

    def __init__(
        self,
        face: CockroachDBFace,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._face = face
        self._client_reader, self._client_writer = client_reader, client_writer
        self._server_reader, self._server_writer = server_reader, server_writer
        self._committed: asyncio.Future[None] | None = None  # set while our own COMMIT is under way

    async def run(self) -> None:
        ways = [asyncio.ensure_future(self._up()), asyncio.ensure_future(self._down())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _up(self) -> None:
        while True:
            head = await self._client_reader.readexactly(5)
            body = await self._client_reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            kind = head[:1]
            if kind == b"P":  # Parse: name, statement, types
                name, statement, rest = body.split(b"\0", 2)
                body = b"\0".join((name, await self._asked(statement), rest))
            elif kind == b"Q":
                body = await self._asked(body[:-1]) + b"\0"
            self._server_writer.write(kind + struct.pack("!I", len(body) + 4) + body)
            await self._server_writer.drain()

    async def _asked(self, statement: bytes) -> bytes:
        """What the server is asked instead. Raises ConnectionResetError where the connection is to end."""
        face, text = self._face, statement.decode("utf-8", "replace")
        if face.cut_before(text):
            raise ConnectionResetError
        if face.ddl_commits and _DDL.match(text):
            self._committed = asyncio.get_running_loop().create_future()
            self._server_writer.write(_COMMIT)
            await self._committed
            self._committed = None
            await asyncio.sleep(face.ddl_takes_s)
        if face.version and _VERSION_ASKED.fullmatch(text):
            return f"SELECT '{face.version}'::text AS version".encode()
        if _LOOKS_UP_TYPES.search(text):
            face.type_lookups += 1
            await asyncio.sleep(face.types_take_s)
        if "CREATE TABLE" in text:  # default_int_size is 8
            return re.sub(r"\bINTEGER\b", "BIGINT", text).encode()
        return statement

    async def _down(self) -> None:
        is_first = True
        while True:
            head = await self._server_reader.readexactly(5)
            body = await self._server_reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            is_ready = head[:1] == b"Z"  # ReadyForQuery ends each answer
            if self._committed is not None:
                if is_ready:
                    self._committed.set_result(None)
                continue
            if is_first and is_ready and self._face.version:
                is_first = False
                extra = f"crdb_version\0{self._face.version}\0".encode()  # by this asyncpg knows a CockroachDB
                self._client_writer.write(b"S" + struct.pack("!I", len(extra) + 4) + extra)
            self._client_writer.write(head + body)
            await self._client_writer.drain()
