"""The whole of Callwarden on this machine: NATS, PostgreSQL, the schema, every service, wired by addresses.

Used by `callwarden up` and `demo`, by integration tests and by benchmarks. How a process is started and watched is in
`services`, `nats`, `postgres`, `process`; restarting what crashes is in `supervisor`.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from callwarden.common.bus.rights import RIGHTS
from callwarden.common.rpc.tokens import TokenFile
from callwarden.local import account, ports, tokens
from callwarden.local.files import TemporaryFolder, claim
from callwarden.local.keys import LocalKeys
from callwarden.local.nats import NatsServer
from callwarden.local.ports import LOOPBACK, Port
from callwarden.local.postgres import PostgresServer
from callwarden.local.process import Child, ChildFailed
from callwarden.local.run_file import LOCK, NAME, RunFile, token_path
from callwarden.local.services import SERVICES, Service, ServiceProcess, base_environment
from callwarden.local.usage import ProcessUsage, usage

NATS = "nats"
POSTGRES = "postgres"
_PORT_ATTEMPTS = 3


class LocalSystem:
    """A running system inside `async with`; everything is stopped after it, and dies with this process whatever
    happens.

    `state_dir` keeps data, secrets and logs for the next start; None takes a temporary folder and removes it.
    `services` names those to start (default: all), `processes` how many of each (default: one). `sip_listen` is where
    the first edge-proxy listens, port 0 choosing one; a second edge gets a port of its own. `env` adds variables for a
    service by its name, for one of its processes (`edge-proxy-1`), or for all under "*". `database_url` and `nats_url`
    use a server that runs already instead of starting one. A database of the system's own has a role for each service
    with the rights that it needs; `role_urls` are by service the URLs for those of another (empty: all have
    `database_url`). With `fsync` off the data survive any killed process, not a power cut. `strict` raises at the end
    what a service did wrong while nobody looked: ended by itself, or had to be killed.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        *,
        services: Collection[str] | None = None,
        processes: Mapping[str, int] | None = None,
        fsync: bool = False,
        sip_listen: str = f"{LOOPBACK}:0",
        log_level: str = "info",
        env: Mapping[str, Mapping[str, str]] | None = None,
        database_url: str | None = None,
        role_urls: Mapping[str, str] | None = None,
        nats_url: str | None = None,
        migrate: bool = True,
        drain_timeout_s: float = 10.0,
        strict: bool = True,
        catalogue: Sequence[Service] = SERVICES,
        reserve: Callable[[], Port] = ports.reserve,
    ) -> None:
        known = {service.name for service in catalogue}
        wanted = known if services is None else set(services)
        self._services = [service for service in catalogue if service.name in wanted]
        self._roles = {*known, "admin", "monitor"}
        self._counts = {service.name: (processes or {}).get(service.name, 1) for service in self._services}
        each = {f"{name}-{index}" for name, count in self._counts.items() for index in range(count)}
        for name in [*wanted, *(processes or {}), *(name for name in env or {} if name not in {"*", *each})]:
            if name not in known:
                raise ValueError(f"no service is called {name}: there are {', '.join(sorted(known))}")
        self._state_dir_given = state_dir
        self._state_dir: Path | None = None
        self._fsync = fsync
        self._sip_listen = sip_listen
        self._log_level = log_level
        self._env = env or {}
        self._database_url_given = database_url
        self._role_urls = dict(role_urls or {})
        self._nats_url_given = nats_url
        self._migrate = migrate
        self._drain_timeout_s = drain_timeout_s
        self._strict = strict
        self._reserve_port = reserve
        self._temporary: TemporaryFolder | None = None
        self._lock: int | None = None
        self._ports: list[Port] = []
        self._processes: dict[str, list[ServiceProcess]] = {}
        self.nats: NatsServer | None = None
        self.postgres: PostgresServer | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            with contextlib.suppress(ChildFailed):  # The first error says what happened.
                await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        crashes = [crash for process in self.all_processes() if (crash := process.crash())]
        problems = [*crashes, *await self._close()]
        if problems and self._strict and error is None:
            raise problems[0] if len(problems) == 1 else ExceptionGroup("services misbehaved", problems)

    # What runs, and where.

    @property
    def state_dir(self) -> Path:
        if self._state_dir is None:
            raise LookupError("the system was not started")
        return self._state_dir

    @property
    def nats_url(self) -> str:
        """Of the user that may do everything. Holds a password: never to be logged."""
        if self._nats_url_given is not None:
            return self._nats_url_given
        if self.nats is None:
            raise LookupError("the system was not started")
        return self.nats.url

    def nats_url_of(self, role: str) -> str:
        """As the role has it: what it may do is in callwarden.common.bus.rights. Holds a password."""
        return self.nats.url_of(role) if self.nats is not None and role in RIGHTS else self.nats_url

    @property
    def database_url(self) -> str:
        """`postgresql+asyncpg://…`; holds a password: never to be logged."""
        if self._database_url_given is not None:
            return self._database_url_given
        if self.postgres is None:
            raise LookupError("the system was not started")
        return self.postgres.url()

    @property
    def keys(self) -> LocalKeys:
        """The secrets the services were given."""
        return LocalKeys.load_or_make(self.state_dir / "keys.json", must_exist=True)

    @property
    def sip_address(self) -> str:
        """Where the first edge-proxy listens, `host:port` (UDP); LookupError if none was started."""
        return self.sip_addresses[0]

    @property
    def sip_addresses(self) -> list[str]:
        """Where each edge-proxy listens."""
        addresses = [process.sip_address for process in self.all_processes() if process.sip_address]
        if not addresses:
            raise LookupError("no service that speaks SIP was started")
        return addresses

    def targets(self, service: str) -> list[str]:
        """The gRPC addresses of a service's processes, in order, running or not."""
        return [process.address for process in self._of(service)]

    def credentials(self, role: str) -> TokenFile:
        """What proves a role to the services: that of one of them, `admin` or `monitor`."""
        return TokenFile(token_path(self.state_dir, role))

    def all_processes(self) -> list[ServiceProcess]:
        return [process for group in self._processes.values() for process in group]

    def process(self, service: str, index: int = 0) -> ServiceProcess:
        """One process; LookupError if there is none."""
        group = self._of(service)
        if not 0 <= index < len(group):
            raise LookupError(f"{service} has {len(group)} processes, not one with index {index}")
        return group[index]

    def children(self) -> dict[str, Child]:
        """Every process by name: `nats`, `postgres`, `rating-0` …; ended ones, too."""
        servers: dict[str, Child] = {}
        if self.nats is not None:
            servers[NATS] = self.nats.child
        if self.postgres is not None:
            servers[POSTGRES] = self.postgres.child
        return servers | {process.name: process.child for process in self.all_processes()}

    def usage(self) -> dict[str, ProcessUsage]:
        """CPU and memory of each running process with its descendants, since its (last) start."""
        pids = {name: child.pid for name, child in self.children().items() if child.returncode is None}
        found = usage(*pids.values())
        return {name: found[pid] for name, pid in pids.items() if pid in found}

    def cpu_seconds(self) -> dict[str, float]:
        return {name: used.cpu_s for name, used in self.usage().items()}

    def rss_bytes(self) -> dict[str, int]:
        return {name: used.rss_bytes for name, used in self.usage().items()}

    # What tests do to it. `service` may be "nats" or "postgres", too.

    async def kill(self, service: str, index: int = 0) -> None:
        """SIGKILL, and wait for the end."""
        await (server.kill() if (server := self._server(service)) else self.process(service, index).kill())

    async def stop(self, service: str, index: int = 0) -> None:
        """Let one process of a service drain and end, as a rolling update does; `restart` brings it back."""
        await self.process(service, index).stop()

    async def restart(self, service: str, index: int = 0) -> None:
        """Start it again on the same port and data and wait until it is ready; first let it drain if it runs."""
        if server := self._server(service):
            await server.restart()
            return
        process = self.process(service, index)
        await process.stop()
        await process.start()
        self._write_run_file()

    # Opening and closing.

    async def _open(self) -> None:
        identity = await asyncio.to_thread(account.ordinary_user)
        if self._state_dir_given is None:
            self._temporary = TemporaryFolder("system")
            self._state_dir = self._temporary.path
        else:
            self._state_dir = Path(os.path.abspath(self._state_dir_given))  # noqa: ASYNC240
            self._state_dir.mkdir(parents=True, exist_ok=True)
        # Passed through, not read, by the user PostgreSQL runs as; everything in it is closed itself.
        self._state_dir.chmod(0o711 if identity else 0o700)
        self._lock = claim(self._state_dir / LOCK)
        home = self._state_dir / POSTGRES
        keys = LocalKeys.load_or_make(self._state_dir / "keys.json", must_exist=home.exists())
        await asyncio.to_thread(tokens.write, self._state_dir, self._roles)
        await _together([self._open_nats(keys), self._open_database(home, keys)])
        await self._open_services(keys)
        self._write_run_file()

    async def _open_nats(self, keys: LocalKeys) -> None:
        if self._nats_url_given is None:
            users = {role: keys.bus_password(role) for role in RIGHTS}
            self.nats = NatsServer(self.state_dir / NATS, password=keys.nats_password, users=users, fsync=self._fsync)
            await self.nats.start()

    async def _open_database(self, home: Path, keys: LocalKeys) -> None:
        if self._database_url_given is None:
            log = self.state_dir / "log" / "postgres.log"
            log.parent.mkdir(mode=0o700, exist_ok=True)
            self.postgres = PostgresServer(home, password=keys.database_password, fsync=self._fsync, log=log)
            await self.postgres.start()
        if self._migrate:
            from callwarden.schema import migrate  # Alembic takes a third of a second to import.

            await asyncio.to_thread(migrate.upgrade, self.database_url)
            if self.postgres is not None:
                await self._make_roles(self.postgres, keys)

    async def _make_roles(self, postgres: PostgresServer, keys: LocalKeys) -> None:
        from callwarden.schema import job, roles

        logins = {service: (service, keys.role_password(service)) for service in roles.RIGHTS}
        await job.make_roles(self.database_url, logins)
        self._role_urls = {service: postgres.url(login=login) for service, login in logins.items()}

    async def _open_services(self, keys: LocalKeys) -> None:
        """Start all at once. Each must know the others' ports, so one taken meanwhile means all new ones."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._release_ports()
            self._processes = self._plan(keys)
            try:
                await _together([process.start() for process in self.all_processes()])
                return
            except ChildFailed as failed:
                with contextlib.suppress(ChildFailed):
                    await self._stop_services()
                taken = any(not ports.is_free(port.number) for port in self._ports)
                if not taken or attempt == _PORT_ATTEMPTS:
                    raise failed from None

    def _plan(self, keys: LocalKeys) -> dict[str, list[ServiceProcess]]:
        listen = {
            service.name: [self._reserve() for _ in range(self._counts[service.name])] for service in self._services
        }
        common = base_environment() | {
            "CALLWARDEN_LOG_LEVEL": self._log_level,
        }
        for service in self._services:
            if service.targets_variable:
                common[service.targets_variable] = ",".join(
                    f"{LOOPBACK}:{port.number}" for port in listen[service.name]
                )
        return {
            service.name: [
                ServiceProcess(
                    service,
                    index,
                    port=port,
                    folder=self.state_dir,
                    env=common | self._own_environment(service, index, keys),
                    drain_timeout_s=self._drain_timeout_s,
                )
                for index, port in enumerate(listen[service.name])
            ]
            for service in self._services
        }

    def _own_environment(self, service: Service, index: int, keys: LocalKeys) -> dict[str, str]:
        env = {f"CALLWARDEN_{name.upper()}": str(getattr(keys, name)) for name in service.secrets}
        if service.speaks_sip:
            host, _, port = self._sip_listen.rpartition(":")
            number = int(port) if index == 0 and int(port) else self._reserve().number
            spool = self.state_dir / "spool" / f"{service.name}-{index}"
            spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            env |= {"CALLWARDEN_SIP_LISTEN": f"{host}:{number}", "CALLWARDEN_SPOOL_DIR": str(spool)}
        if not self._role_urls:
            env["CALLWARDEN_DATABASE_URL"] = self.database_url
        elif service.role in self._role_urls:  # The others have no business there.
            env["CALLWARDEN_DATABASE_URL"] = self._role_urls[service.role]
        env["CALLWARDEN_NATS_URL"] = self.nats_url_of(service.name)
        env["CALLWARDEN_TOKEN_FILE"] = str(token_path(self.state_dir, service.name))
        env["CALLWARDEN_CALLERS_FILE"] = str(tokens.callers_path(self.state_dir))
        for name in ("*", service.name, f"{service.name}-{index}"):
            env |= self._env.get(name, {})
        return env

    async def _close(self) -> list[ChildFailed]:
        try:
            return await self._stop_services()
        finally:
            servers = [server for server in (self.nats, self.postgres) if server is not None]
            await asyncio.gather(*(server.stop() for server in servers))
            self._release_ports()
            self._leave_state_dir()

    async def _stop_services(self) -> list[ChildFailed]:
        """What speaks SIP first, while those it asks still answer; then the others at once. What went wrong."""
        problems: list[ChildFailed] = []
        for is_edge in (True, False):
            group = [process for process in self.all_processes() if process.service.speaks_sip is is_edge]
            for outcome in await asyncio.gather(*(process.stop() for process in group), return_exceptions=True):
                if isinstance(outcome, ChildFailed):
                    problems.append(outcome)
                elif outcome is not None:
                    raise outcome
        return problems

    def _leave_state_dir(self) -> None:
        if self._lock is None or self._state_dir is None:
            return  # Another system's folder.
        (self._state_dir / NAME).unlink(missing_ok=True)
        tokens.remove(self._state_dir)
        os.close(self._lock)
        self._lock = None
        if self._temporary is not None:
            # Elsewhere if the temporary folder could not be reached by the user PostgreSQL runs as.
            shutil.rmtree((self._state_dir / POSTGRES).resolve(), ignore_errors=True)
            self._temporary.remove()
            self._temporary = None

    def _write_run_file(self) -> None:
        RunFile(
            pid=os.getpid(),
            state_dir=str(self.state_dir),
            nats_url=self.nats_url_of("admin"),
            database_url=self.database_url,
            role_urls=self._role_urls,
            sip=[process.sip_address for process in self.all_processes() if process.sip_address],
            services={name: [process.endpoint for process in group] for name, group in self._processes.items()},
        ).write()

    def _server(self, name: str) -> NatsServer | PostgresServer | None:
        if name not in (NATS, POSTGRES):
            return None
        server = self.nats if name == NATS else self.postgres
        if server is None:
            raise LookupError(f"{name} was not started by this system")
        return server

    def _of(self, service: str) -> list[ServiceProcess]:
        try:
            return self._processes[service]
        except KeyError:
            raise LookupError(f"{service} was not started: {', '.join(self._processes) or 'nothing'} was") from None

    def _reserve(self) -> Port:
        self._ports.append(self._reserve_port())
        return self._ports[-1]

    def _release_ports(self) -> None:
        while self._ports:
            self._ports.pop().release()


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; the first error cancels the others, waits for their end and is raised as it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
