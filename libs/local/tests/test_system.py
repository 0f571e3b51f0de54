"""A system is wired, watched, killed and restarted as a whole.

Its services are stand-ins; the real ones are put together in tests/integration.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from callwarden.local import ports
from callwarden.local.files import AlreadyRunning
from callwarden.local.keys import KeysUnusable
from callwarden.local.ports import LOOPBACK, Port
from callwarden.local.process import ChildFailed
from callwarden.local.run_file import NotRunning, RunFile
from callwarden.local.services import SERVICES, Service
from callwarden.local.supervisor import Restart, supervise
from callwarden.local.system import LocalSystem
from callwarden.testing import databases

pytestmark = pytest.mark.integration

CATALOGUE = (
    Service("rating", "CALLWARDEN_RATING_TARGETS", module="standin_service"),
    Service("auth", "CALLWARDEN_AUTH_TARGETS", secrets=("credential_key",), module="standin_service"),
    Service("edge-proxy", secrets=("nonce_key",), speaks_sip=True, module="standin_service"),
)

Make = Callable[..., LocalSystem]


@pytest.fixture
def make(state_dir: Path) -> Make:
    """A system of stand-ins without servers of its own, unless they are asked for."""

    def make(folder: str = "system", *, behaviour: dict[str, str] | None = None, **options: object) -> LocalSystem:
        common = {"PYTHONPATH": str(Path(__file__).parent), "STANDIN_FOLDER": str(state_dir)}
        env = {"*": common} | {name: {"STANDIN": how} for name, how in (behaviour or {}).items()}
        defaults: dict[str, object] = {
            "nats_url": "nats://elsewhere",
            "database_url": "postgresql+asyncpg://elsewhere/db",
            "migrate": False,
            "drain_timeout_s": 0.5,
            "catalogue": CATALOGUE,
            "env": env,
        }
        return LocalSystem(state_dir / folder, **(defaults | options))  # type: ignore[arg-type]

    return make


def settings(state_dir: Path, instance: str) -> dict[str, str]:
    """What a stand-in found in its environment."""
    found: dict[str, str] = json.loads((state_dir / f"{instance}.settings").read_text())
    return found


def is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def exists(path: str) -> bool:
    return Path(path).exists()


async def test_each_process_is_told_where_all_others_are(make: Make, state_dir: Path) -> None:
    async with make(processes={"rating": 2, "edge-proxy": 2}, log_level="debug") as system:
        assert len(system.targets("rating")) == 2
        assert all(is_listening(address) for service in CATALOGUE for address in system.targets(service.name))
        edge = settings(state_dir, "edge-proxy-0")
        assert edge["CALLWARDEN_RATING_TARGETS"] == ",".join(system.targets("rating"))
        assert edge["CALLWARDEN_AUTH_TARGETS"] == system.targets("auth")[0]
        assert edge["CALLWARDEN_NATS_URL"] == "nats://elsewhere"
        assert edge["CALLWARDEN_DATABASE_URL"] == "postgresql+asyncpg://elsewhere/db"
        assert edge["CALLWARDEN_LOG_LEVEL"] == "debug"
        assert edge["CALLWARDEN_SIP_LISTEN"] == system.sip_address
        assert exists(edge["CALLWARDEN_SPOOL_DIR"])
        other = settings(state_dir, "edge-proxy-1")
        assert [system.sip_address, other["CALLWARDEN_SIP_LISTEN"]] == system.sip_addresses
        assert edge["CALLWARDEN_SPOOL_DIR"] != other["CALLWARDEN_SPOOL_DIR"]


async def test_one_process_may_have_variables_of_its_own(make: Make, state_dir: Path) -> None:
    env = {
        "*": {"PYTHONPATH": str(Path(__file__).parent), "STANDIN_FOLDER": str(state_dir)},
        "edge-proxy": {"CALLWARDEN_LOG_LEVEL": "error"},
        "edge-proxy-1": {"CALLWARDEN_LOG_LEVEL": "debug"},
    }
    async with make(processes={"edge-proxy": 2}, env=env):
        levels = [settings(state_dir, f"edge-proxy-{index}")["CALLWARDEN_LOG_LEVEL"] for index in (0, 1)]
    assert levels == ["error", "debug"]
    with pytest.raises(ValueError, match="no service is called edge-proxy-2"):
        make(processes={"edge-proxy": 2}, env={"edge-proxy-2": {}})


async def test_a_secret_goes_only_to_who_needs_it(make: Make, state_dir: Path) -> None:
    async with make() as system:
        auth, edge = settings(state_dir, "auth-0"), settings(state_dir, "edge-proxy-0")
        assert auth["CALLWARDEN_CREDENTIAL_KEY"] == system.keys.credential_key
        assert edge["CALLWARDEN_NONCE_KEY"] == system.keys.nonce_key
        assert "CALLWARDEN_CREDENTIAL_KEY" not in edge
        assert not {"CALLWARDEN_CREDENTIAL_KEY", "CALLWARDEN_NONCE_KEY"} & settings(state_dir, "rating-0").keys()
        assert len(bytes.fromhex(system.keys.credential_key)) == 32
        secrets = (auth["CALLWARDEN_CREDENTIAL_KEY"], edge["CALLWARDEN_NONCE_KEY"])
        assert not [secret for secret in secrets if secret in repr(system.keys)]


async def test_the_shells_own_settings_do_not_leak_in(
    make: Make, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLWARDEN_NATS_URL", "nats://production")
    monkeypatch.setenv("CALLWARDEN_INSTANCE", "mine")
    async with make():
        assert settings(state_dir, "rating-0")["CALLWARDEN_NATS_URL"] == "nats://elsewhere"


@pytest.mark.cases
async def test_the_callers_credentials_reach_no_process(
    make: Make, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "GITHUB_TOKEN", "CALLWARDEN_TLS_KEY", "http_proxy"):
        monkeypatch.setenv(name, "s3cret-of-the-caller")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    async with make("servers", nats_url=None, database_url=None) as system:
        children = system.children()
        assert {"nats", "postgres", "rating-0", "auth-0", "edge-proxy-0"} == children.keys()
        for name, child in children.items():
            environment = await asyncio.to_thread(Path(f"/proc/{child.pid}/environ").read_bytes)
            assert b"s3cret-of-the-caller" not in environment, name
            assert b"PATH=" in environment, name
        environment = await asyncio.to_thread(Path(f"/proc/{children['rating-0'].pid}/environ").read_bytes)
        assert b"TZ=Europe/Berlin" in environment


async def test_a_killed_process_comes_back_on_its_port(make: Make) -> None:
    async with make(processes={"rating": 2}) as system:
        address = system.targets("rating")[1]
        pid = system.process("rating", 1).child.pid
        await system.kill("rating", 1)
        assert not is_listening(address)
        assert is_listening(system.targets("rating")[0])
        await system.restart("rating", 1)
        assert is_listening(address)
        assert system.targets("rating")[1] == address
        assert system.process("rating", 1).child.pid != pid
        assert RunFile.read(system.state_dir).services["rating"][1].pid == system.process("rating", 1).child.pid


async def test_a_service_that_fails_to_start_is_named_with_its_last_words(make: Make) -> None:
    system = make(behaviour={"auth": "fails to start"})
    with pytest.raises(ChildFailed, match=r"auth-0 ended while starting \(exit code 1\)") as caught:
        async with system:
            pytest.fail("it started")
    assert "the dictionary of destinations is empty" in str(caught.value)
    assert not [process.name for process in system.all_processes() if process.is_running]
    with pytest.raises(NotRunning):
        RunFile.read(system.state_dir)


async def test_a_service_that_ends_by_itself_is_an_error_at_the_end(make: Make) -> None:
    system = await make().__aenter__()
    child = system.process("rating").child
    child.send(signal.SIGSEGV)
    await child.wait()
    with pytest.raises(ChildFailed, match=r"rating-0 ended by itself \(SIGSEGV\)"):
        await system.__aexit__(None, None, None)
    assert not system.process("auth").is_running


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("fails to stop", r"rating-0 ended with an error when told to stop \(exit code 3\)"),
        ("ignores SIGTERM", r"rating-0 did not stop within 0\.3 s and was killed"),
    ],
)
async def test_a_service_that_does_not_stop_well_is_an_error_at_the_end(
    make: Make, monkeypatch: pytest.MonkeyPatch, behaviour: str, message: str
) -> None:
    monkeypatch.setattr("callwarden.local.services.STOP_MARGIN_S", 0.1)
    with pytest.raises(ChildFailed, match=message):
        async with make(services=["rating"], behaviour={"rating": behaviour}, drain_timeout_s=0.1):
            pass


async def test_the_tests_own_error_is_not_hidden(make: Make) -> None:
    with pytest.raises(ZeroDivisionError):
        async with make(behaviour={"rating": "fails to stop"}):
            raise ZeroDivisionError


async def test_a_port_taken_meanwhile_means_new_ones_for_all(make: Make, state_dir: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as squatter:
        taken = Port(squatter.getsockname()[1], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        offers = [taken]
        async with make(reserve=lambda: offers.pop() if offers else ports.reserve()) as system:
            addresses = [address for service in CATALOGUE for address in system.targets(service.name)]
            assert f"{LOOPBACK}:{taken.number}" not in addresses
            assert settings(state_dir, "auth-0")["CALLWARDEN_RATING_TARGETS"] == system.targets("rating")[0]


async def test_only_what_is_asked_for_is_started(make: Make) -> None:
    async with make(services=["rating"]) as system:
        assert [process.name for process in system.all_processes()] == ["rating-0"]
        with pytest.raises(LookupError, match="auth was not started"):
            system.targets("auth")
        with pytest.raises(LookupError, match="speaks SIP"):
            _ = system.sip_address


@pytest.mark.parametrize(
    "options", [{"services": ["raiting"]}, {"processes": {"raiting": 2}}, {"env": {"raiting": {}}}]
)
def test_a_name_that_no_service_has_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no service is called raiting"):
        LocalSystem(**options)  # type: ignore[arg-type]


def test_every_service_of_the_product_is_known() -> None:
    names = {service.name for service in SERVICES}
    assert names == {"rating", "auth", "rate-guard", "call-admission", "administration", "payment", "edge-proxy"}


async def test_a_folder_holds_one_system_at_a_time(make: Make) -> None:
    async with make() as system:
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
            async with make():
                pytest.fail("a second one started")
        # The one that was refused has not touched the one that runs.
        assert RunFile.read(system.state_dir).targets("rating") == system.targets("rating")


async def test_the_run_file_is_private_says_all_and_goes_with_the_system(make: Make) -> None:
    async with make(processes={"edge-proxy": 2}) as system:
        path = system.state_dir / "run.json"
        assert path.stat().st_mode & 0o077 == 0
        run = RunFile.read(system.state_dir)
        assert run.pid == os.getpid()
        assert run.database_url == system.database_url
        assert run.nats_url == system.nats_url
        assert run.sip == system.sip_addresses
        assert run.services["edge-proxy"][1].sip == system.sip_addresses[1]
        assert run.services["rating"][0].metrics == f"{LOOPBACK}:9"
        assert "elsewhere" not in repr(run)
    assert not path.exists()
    with pytest.raises(NotRunning, match="callwarden up"):
        RunFile.read(system.state_dir)


async def test_use_is_counted_per_process(make: Make) -> None:
    async with make() as system:
        assert set(system.rss_bytes()) == {"rating-0", "auth-0", "edge-proxy-0"}
        assert all(rss > 1_000_000 for rss in system.rss_bytes().values())
        assert all(cpu_s > 0 for cpu_s in system.cpu_seconds().values())
        await system.kill("auth")
        assert set(system.usage()) == {"rating-0", "edge-proxy-0"}


async def test_a_process_of_the_real_runtime_keeps_the_same_contract(make: Make) -> None:
    """What the stand-ins pretend, `run_service` does: the settings' names, the ready file, the exit codes."""
    catalogue = (Service("rating", "CALLWARDEN_RATING_TARGETS", module="runtime_service"),)
    async with make(catalogue=catalogue) as system:
        address = system.targets("rating")[0]
        assert is_listening(address)
        assert is_listening(system.process("rating").endpoint.metrics)
        await system.kill("rating")
        await system.restart("rating")
        assert system.targets("rating")[0] == address
        assert is_listening(address)
        await system.restart("rating")  # Ended with 0 on SIGTERM, or this raised.
    log = (system.state_dir / "log" / "rating-0.log").read_text()
    assert log.count("service.stopped") == 2
    assert '"instance": "rating-0"' in log or '"instance":"rating-0"' in log


async def test_a_crashed_process_is_started_again_and_said_so(make: Make) -> None:
    reports: asyncio.Queue[Restart] = asyncio.Queue()
    async with make() as system:
        watch = asyncio.create_task(supervise(system, reports.put_nowait, backoff_first_s=0.01))
        for backoff_s in (0.01, 0.02):  # The second crash follows at once: the wait grows.
            address, child = system.targets("rating")[0], system.process("rating").child
            child.send(signal.SIGKILL)
            ended = await asyncio.wait_for(reports.get(), 30)
            assert (ended.name, ended.what, ended.next_attempt_s) == ("rating-0", "ended (SIGKILL)", backoff_s)
            assert await asyncio.wait_for(reports.get(), 30) == Restart("rating-0", "runs again")
            assert system.process("rating").child.pid != child.pid
            assert is_listening(address)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_servers_of_its_own_have_tables_and_keep_data_and_secrets(state_dir: Path) -> None:
    folder = state_dir / "whole"
    async with LocalSystem(folder, services=[]) as system:
        keys = system.keys
        assert system.postgres is not None
        await system.kill("postgres")
        await system.restart("postgres")
        await system.kill("nats")
        await system.restart("nats")
        assert set(system.cpu_seconds()) == {"nats", "postgres"}
        assert system.usage()["postgres"].processes > 1
        assert await rows(system.database_url, "CREATE TABLE kept (i INT)") == []
        assert await rows(system.database_url, "SELECT version_num FROM alembic_version") != []
    async with LocalSystem(folder, services=[]) as system:
        assert system.keys == keys
        assert await rows(system.database_url, "SELECT * FROM kept") == []
    (folder / "keys.json").unlink()
    with pytest.raises(KeysUnusable, match="is missing"):
        async with LocalSystem(folder, services=[]):
            pytest.fail("it made new keys for old data")


async def rows(url: str, statement: str) -> list[object]:
    connection = await databases.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def test_a_temporary_system_leaves_nothing_behind() -> None:
    async with LocalSystem(services=[]) as system:
        folder, home = system.state_dir, (system.state_dir / "postgres").resolve()
        pids = [child.pid for child in system.children().values()]
        assert folder.is_dir()
    assert not folder.exists()
    assert not home.exists()
    assert not [pid for pid in pids if exists(f"/proc/{pid}")]


async def test_ctrl_c_stops_everything_in_order(state_dir: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from callwarden.local.system import LocalSystem
async def main():
    async with LocalSystem(Path(sys.argv[1]), services=[]) as system:
        print(*(child.pid for child in system.children().values()), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    launcher = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(state_dir / "s"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert launcher.stdout is not None
    pids = [int(pid) for pid in (await launcher.stdout.readline()).split()]
    assert len(pids) == 2
    launcher.send_signal(signal.SIGINT)
    await launcher.wait()
    # Already gone when the launcher has ended, so it waited for them.
    assert not [pid for pid in pids if exists(f"/proc/{pid}")]
    assert "database system is shut down" in (state_dir / "s" / "log" / "postgres.log").read_text()
    assert not (state_dir / "s" / "run.json").exists()


@pytest.mark.setting("db-roles")
async def test_each_service_is_given_its_own_role_and_the_others_no_database(make: Make, state_dir: Path) -> None:
    async with make(database_url=None, migrate=True) as system:
        urls = RunFile.read(system.state_dir).role_urls
        for service in ("rating", "edge-proxy"):
            assert settings(state_dir, f"{service}-0").get("CALLWARDEN_DATABASE_URL") == urls.get(service)
        assert "edge-proxy" not in urls
        assert await rows(urls["rating"], "SELECT current_user") == [("rating",)]
    async with make(database_url=None, migrate=True) as system:  # Its data are there now, with the roles.
        assert await rows(RunFile.read(system.state_dir).role_urls["auth"], "SELECT count(*) FROM credential") == [(0,)]
