"""The pytest plugin: fixtures for real servers and fakes. Loaded by every run, so what costs is imported when asked
for.

Fixtures: `nats_url`, `nats_server`, `postgres_url`, `database_url`, `local_system`, `fake_clock`, `state_dir`,
`free_udp_port`.
"""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from callwarden.local.nats import NatsServer
    from callwarden.local.ports import Port
    from callwarden.local.system import LocalSystem
    from callwarden.testing.clock import FakeClock
    from callwarden.testing.servers import LocalServers, Servers

    StartSystem = Callable[..., Awaitable[LocalSystem]]

_local_key: "pytest.StashKey[LocalServers]" = pytest.StashKey()
_WORKER_INPUT = "callwarden_servers"
_DATABASE_FIXTURES = frozenset({"database_url", "postgres_url", "local_system"})


def _local_servers(config: pytest.Config) -> "LocalServers":
    from callwarden.testing.servers import LocalServers

    if _local_key not in config.stash:
        config.stash[_local_key] = LocalServers()
    return config.stash[_local_key]


def pytest_configure(config: pytest.Config) -> None:
    """No deadline for hypothesis: how long an example takes says more of the machine than of the code.

    A shell's background job ignores SIGINT, and so would every process that the run's tests start and interrupt.
    """
    hypothesis.settings.register_profile("callwarden", deadline=None)
    hypothesis.settings.load_profile("callwarden")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--with-database", action="store_true", help="only tests that use a database")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--with-database`, those that take a database from the fixtures below, themselves or by another fixture."""
    if not config.getoption("--with-database"):
        return
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        uses = item.get_closest_marker("database") or not _DATABASE_FIXTURES.isdisjoint(
            getattr(item, "fixturenames", ())
        )
        (chosen if uses else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the xdist controller, before each worker starts: tell it whom to ask."""
    node.workerinput[_WORKER_INPUT] = str(_local_servers(node.config).listen())


def pytest_unconfigure(config: pytest.Config) -> None:
    """At the end of the run, after Ctrl-C too. A run that is killed ends its servers through the kernel."""
    if _local_key in config.stash:
        config.stash[_local_key].stop()
        del config.stash[_local_key]


@pytest.fixture(scope="session")
def callwarden_servers(pytestconfig: pytest.Config) -> "Servers":
    """The servers this run shares. Tests use the fixtures below."""
    worker_input: dict[str, Any] | None = getattr(pytestconfig, "workerinput", None)
    if worker_input is not None:
        from callwarden.testing.servers import RemoteServers

        return RemoteServers(worker_input[_WORKER_INPUT])
    return _local_servers(pytestconfig)


@pytest.fixture(scope="session")
def nats_url(callwarden_servers: "Servers") -> str:
    """A NATS server with JetStream that all tests of the run share: use names of your own in it.

    The names of the product's streams and buckets are fixed: a test that uses those takes `nats_server`.
    """
    return callwarden_servers.ask("nats")


@pytest_asyncio.fixture
async def nats_server(state_dir: Path) -> "AsyncIterator[NatsServer]":
    """A NATS server of the test's own, empty (about 50 ms); `url`, `kill()`, `restart()`."""
    from callwarden.local.nats import NatsServer

    async with NatsServer(state_dir / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(callwarden_servers: "Servers") -> str:
    """A PostgreSQL server that all tests of the run share, as its superuser, in its maintenance database."""
    return callwarden_servers.ask("postgres")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, callwarden_servers: "Servers") -> Iterator[str]:
    """A database of the test's own with all tables and no rows: `postgresql+asyncpg://…`.

    In a service's tests (`services/<name>/tests`) as that service's role, so that a right which it lacks is found;
    `callwarden.testing.servers.as_owner` is for rows that others write. Elsewhere as the tables' owner.
    """
    from callwarden.testing.servers import as_roles

    url = callwarden_servers.ask("database")
    yield as_roles(url).get(request.path.parent.parent.name, url)
    callwarden_servers.ask("drop", url)


@pytest_asyncio.fixture
async def local_system(callwarden_servers: "Servers", state_dir: Path) -> "AsyncIterator[StartSystem]":
    """`system = await local_system(processes={"call-admission": 2})`: a whole system, stopped after the test.

    Takes what `LocalSystem` takes. It has a NATS server of its own and a database of its own on the shared PostgreSQL;
    `own_postgres=True` gives it a server that the test may kill. May be called more than once.
    """
    from callwarden.local.system import LocalSystem
    from callwarden.testing.servers import as_roles

    databases: list[str] = []

    async def start(*, own_postgres: bool = False, **options: Any) -> LocalSystem:
        if not own_postgres and "database_url" not in options:
            databases.append(await asyncio.to_thread(callwarden_servers.ask, "database"))
            options |= {"database_url": databases[-1], "role_urls": as_roles(databases[-1]), "migrate": False}
        folder = options.pop("state_dir", state_dir / f"system-{count()}")
        return await stack.enter_async_context(LocalSystem(folder, **options))

    count = itertools.count(1).__next__
    try:
        async with contextlib.AsyncExitStack() as stack:
            yield start
    finally:
        for url in databases:
            await asyncio.to_thread(callwarden_servers.ask, "drop", url)


@pytest.fixture
def fake_clock() -> "FakeClock":
    """A clock that the test turns."""
    from callwarden.testing.clock import FakeClock

    return FakeClock()


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A folder for a server's or a system's state. Unlike tmp_path, the user that PostgreSQL runs as can pass through
    it.
    """
    from callwarden.local.files import TemporaryFolder

    folder = TemporaryFolder("state")
    yield folder.path
    folder.remove()


@pytest.fixture
def free_udp_port() -> Iterator[Callable[[], int]]:
    """`free_udp_port()`: a port of the loopback, free for UDP and TCP and reserved for this test."""
    from callwarden.local.ports import reserve

    ports: list[Port] = []

    def take() -> int:
        ports.append(reserve())
        return ports[-1].number

    yield take
    for port in ports:
        port.release()
