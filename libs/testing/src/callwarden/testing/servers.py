"""One NATS and one PostgreSQL for a whole test run, over all xdist workers, started when the first test asks.

The process that leads the run (the xdist controller, or the only one) owns them, because workers come, crash and go:
it stops them at its end, and the kernel ends them should it be killed. Workers ask it over a Unix socket, one JSON
line each way.
"""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from callwarden.local.files import TemporaryFolder

if TYPE_CHECKING:  # Imported when the first server starts: every pytest run loads this plugin, few need a server.
    from callwarden.local.nats import NatsServer
    from callwarden.testing.databases import Databases

T = TypeVar("T")

_ANSWER_TIMEOUT_S = 100.0  # Below pytest's own time-out, so that the test reports what the servers said.


class ServersFailed(Exception):
    """A shared server could not be started, or could not do what was asked."""


def as_roles(database_url: str) -> dict[str, str]:
    """By service, the URL of a database of the shared server for that service's role. All have the owner's password."""
    from callwarden.schema.roles import RIGHTS
    from callwarden.testing.databases import ROLE

    return {service: _as_user(database_url, ROLE.format(service)) for service in RIGHTS}


def as_owner(database_url: str) -> str:
    """The URL of a database of the shared server for the tables' owner."""
    from callwarden.testing.databases import owner

    return _as_user(database_url, owner(os.environ))


def _as_user(database_url: str, user: str) -> str:
    from sqlalchemy import make_url

    return make_url(database_url).set(username=user).render_as_string(hide_password=False)


class Servers(Protocol):
    """What a test process can ask for."""

    def ask(self, what: str, argument: str = "") -> str:
        """`nats`, `postgres`: a URL. `database`: the URL of a new one, all tables made. `drop`: removes that one.

        Blocks. ServersFailed.
        """
        ...


class Workshop:
    """The servers themselves, in the event loop that owns them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = asyncio.Lock()
        self._nats: NatsServer | None = None
        self._databases: Databases | None = None

    async def answer(self, what: str, argument: str) -> str:
        match what:
            case "nats":
                return (await self._nats_server()).url
            case "postgres":
                return (await self._databases_of_the_run()).url()
            case "database":
                return await (await self._databases_of_the_run()).new()
            case "drop":
                await (await self._databases_of_the_run()).drop(argument)
                return ""
        raise ServersFailed(f"nobody knows {what!r}")

    async def stop(self) -> None:
        async with self._lock:
            if self._nats is not None:
                await self._nats.stop()
            if self._databases is not None:
                await self._databases.stop()

    async def _nats_server(self) -> "NatsServer":
        from callwarden.local.nats import NatsServer

        async with self._lock:
            if self._nats is None:
                server = NatsServer(self._folder / "nats")
                await server.start()
                self._nats = server
            return self._nats

    async def _databases_of_the_run(self) -> "Databases":
        from callwarden.testing.databases import databases

        async with self._lock:
            if self._databases is None:
                found = databases(os.environ, self._folder)
                await found.start()
                self._databases = found
            return self._databases


class LocalServers:
    """Owns the servers. Its own thread and event loop, since fixtures are asked from none or from another one."""

    def __init__(self) -> None:
        self._temporary = TemporaryFolder("test")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="callwarden-servers", daemon=True)
        self._thread.start()
        self._workshop = self._run(_make_workshop(self._temporary.path))
        self._listener: asyncio.AbstractServer | None = None

    def ask(self, what: str, argument: str = "") -> str:
        try:
            return self._run(self._workshop.answer(what, argument))
        except Exception as error:
            raise ServersFailed(f"{type(error).__name__}: {error}") from error

    def listen(self) -> Path:
        """Open the Unix socket for workers, once; its path."""
        path = self._temporary.path / "ask.sock"
        if self._listener is None:
            self._listener = self._run(asyncio.start_unix_server(self._serve, path))
            path.chmod(0o600)
        return path

    def stop(self) -> None:
        """Stop all servers and remove their data."""
        try:
            if self._listener is not None:
                self._listener.close()
            self._run(self._workshop.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._temporary.remove()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            try:
                answer = {"answer": await self._workshop.answer(request["what"], request["argument"])}
            except Exception as error:  # Whatever it was, the worker that asked shows it in its test.
                answer = {"error": f"{type(error).__name__}: {error}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError, KeyError):
            pass  # The worker died while asking.
        finally:
            writer.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_TIMEOUT_S)


class RemoteServers:
    """The same, asked by an xdist worker."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, what: str, argument: str = "") -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_TIMEOUT_S)
            connection.connect(self._path)
            connection.sendall(json.dumps({"what": what, "argument": argument}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline() or b'{"error": "the servers are gone"}')
        if "error" in answer:
            raise ServersFailed(answer["error"])
        return str(answer["answer"])


async def _make_workshop(folder: Path) -> Workshop:
    return Workshop(folder)
