"""Where a test run's databases are: a PostgreSQL of its own, or what the environment names.

`CALLWARDEN_TEST_DATABASE` unset: a PostgreSQL of the run's own. `stand-in`: that PostgreSQL with the face which
CockroachDB shows to a client (callwarden.testing.cockroachdb): its dialect, types that take 7 s to look up, DDL that
commits what is open. A URL, `cockroachdb+asyncpg://root:…@host:26257/defaultdb?sslmode=verify-full&sslrootcert=ca.crt`:
a server that is there, as a user with a password who may make databases and roles.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
import pytest
from sqlalchemy import URL, make_url

from callwarden.common.sql import connecting
from callwarden.kernel.errors import Invalid
from callwarden.local.postgres import SUPERUSER, PostgresServer, new_password
from callwarden.schema import job, migrate, roles
from callwarden.testing.cockroachdb import CockroachDBFace

VARIABLE: Final = "CALLWARDEN_TEST_DATABASE"
STAND_IN: Final = "stand-in"
TYPES_TAKE_S: Final = 7.0  # CockroachDB before 25.1: 7 to 10 s and more, at each new connection that asks
ROLE: Final = "test_{}"  # A service's, on the shared server; other tests make roles of the plain names there.
_TEMPLATE: Final = "callwarden_template"

needs_postgres: Final = pytest.mark.skipif(
    bool(os.environ.get(VARIABLE)), reason=f"shows something of the run's own PostgreSQL, and {VARIABLE} names another"
)


class Databases(Protocol):
    """Where databases are made. Opened by `start`, once; all from one event loop."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def url(self) -> str:
        """Of the maintenance database, as a user who may make databases."""
        ...

    async def new(self) -> str:
        """The URL of a new database: all tables, no rows, a role for each service (`as_roles`)."""
        ...

    async def drop(self, url: str) -> None: ...


def databases(environment: Mapping[str, str], folder: Path) -> Databases:
    """As the environment says. Raises Invalid for a URL that isn't one of a database."""
    match environment.get(VARIABLE, ""):
        case "":
            return OwnDatabases(folder, None)
        case str(value) if value == STAND_IN:
            return OwnDatabases(folder, {"types_take_s": TYPES_TAKE_S, "ddl_commits": True})
        case value:
            return GivenDatabases(connecting.database_url(value))


def owner(environment: Mapping[str, str]) -> str:
    """The user who owns the tables of those databases."""
    given = environment.get(VARIABLE, "")
    return SUPERUSER if given in ("", STAND_IN) else str(connecting.database_url(given).username)


async def _prepare(url: str) -> None:
    await asyncio.to_thread(migrate.upgrade, url)
    password = make_url(url).password or ""
    await job.make_roles(url, {service: (ROLE.format(service), password) for service in roles.RIGHTS})


class OwnDatabases:
    """Databases of a PostgreSQL that starts now; through a face with `face`, its arguments."""

    def __init__(self, folder: Path, face: Mapping[str, Any] | None) -> None:
        self._server = PostgresServer(folder / "postgres", password=new_password(), fsync=False)
        self._face: CockroachDBFace | None = None
        self._face_arguments = face
        self._stack = contextlib.AsyncExitStack()
        self._template_lock = asyncio.Lock()
        self._has_template = False

    async def start(self) -> None:
        await self._server.start()
        if self._face_arguments is not None:
            face = CockroachDBFace(int(make_url(self._server.url()).port or 0), **self._face_arguments)
            self._face = await self._stack.enter_async_context(face)

    async def stop(self) -> None:
        await self._stack.aclose()
        await self._server.stop(discard=True)

    def url(self) -> str:
        return self._shown("postgres")

    def _shown(self, database: str) -> str:
        url = self._server.url(database)
        return url if self._face is None else self._face.url(url)

    async def new(self) -> str:
        async with self._template_lock:  # Copied one at a time: a database being copied can't be copied.
            if not self._has_template:
                await self._execute(f"DROP DATABASE IF EXISTS {_TEMPLATE} WITH (FORCE)")
                await self._execute(f"CREATE DATABASE {_TEMPLATE}")
                await _prepare(self._shown(_TEMPLATE))
                self._has_template = True
            name = _new_name()
            # Copying files is three times as fast as writing them through the log, on a server that does not sync.
            await self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        return self._shown(name)

    async def drop(self, url: str) -> None:
        await self._execute(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        await _execute(make_url(self._server.url("postgres")), statement)


class GivenDatabases:
    """Databases of a server that is there, which needs no way to copy one: each is migrated by itself."""

    def __init__(self, url: URL) -> None:
        """Raises Invalid for a URL without user and password: the services' roles get that password."""
        if not url.username or not url.password:
            raise Invalid(f"{VARIABLE} names no user with a password")
        self._url = url
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Asks whether it is there."""
        await _execute(self._url, "SELECT 1")

    async def stop(self) -> None:
        """Nothing of ours is left but roles, which the next run takes again."""

    def url(self) -> str:
        return self._url.render_as_string(hide_password=False)

    async def new(self) -> str:
        name = _new_name()
        await _execute(self._url, f"CREATE DATABASE {name}")
        url = self._url.set(database=name).render_as_string(hide_password=False)
        async with self._lock:  # Roles are the server's, and changed at one place at a time.
            await _prepare(url)
        return url

    async def drop(self, url: str) -> None:
        name = make_url(url).database
        is_cockroachdb = self._url.get_backend_name() == "cockroachdb"
        await _execute(self._url, f"DROP DATABASE IF EXISTS {name} {'CASCADE' if is_cockroachdb else 'WITH (FORCE)'}")


async def connect(url: str) -> asyncpg.Connection:
    """A bare connection to a database that `new` or a fixture named. To be closed."""
    return await asyncpg.connect(connecting.dsn(connecting.database_url(url)))


def _new_name() -> str:
    return f"test_{uuid.uuid4().hex}"


async def _execute(url: URL, statement: str) -> None:
    connection = await asyncpg.connect(connecting.dsn(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
