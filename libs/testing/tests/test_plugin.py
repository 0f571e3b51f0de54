"""The plugin in whole pytest runs: servers are shared, started only when asked for, and gone however the run ends."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration

SHARING = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("i", range(4))
def test_share(nats_url, postgres_url, database_url, i):
    Path(os.environ["OUT"], f"{i}.{os.getpid()}").write_text(f"{nats_url} {postgres_url} {database_url}")
"""

HANGING = """
import os, time
from pathlib import Path

def test_hang(nats_url, postgres_url):
    Path(os.environ["OUT"], "hangs").touch()
    time.sleep(300)
"""

CRASHING = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("i", range(4))
def test_crash(nats_url, postgres_url, i):
    Path(os.environ["OUT"], f"{i}.{os.getpid()}").write_text(nats_url)
    if i == 0:
        os._exit(1)
"""

IDLE = """
def test_nothing():
    pass
"""


INTERRUPTED = """
import signal, subprocess, sys

def test_interrupt():
    child = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    assert subprocess.check_output([sys.executable, "-c", child], text=True) == "False\\n"
"""


class Run:
    """A pytest run of its own, with its servers."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder

    def servers(self) -> list[int]:
        """Process ids of the servers that this run has started and that are alive."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) == self.process.pid:
                continue
            try:
                command = Path("/proc", pid, "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if bytes(self.folder) in command:
                found.append(int(pid))
        return found

    def left_behind(self) -> list[str]:
        return [str(path) for path in self.folder.glob("callwarden-*")]

    def written(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in (self.folder / "out").iterdir()}


async def run(folder: Path, source: str, *arguments: str) -> Run:
    (folder / "out").mkdir()
    (folder / "test_inner.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(folder / "pytest.ini"), *arguments, str(folder)),
        # So that the servers' folders, which stand in their command lines, tell whose they are.
        env=os.environ | {"OUT": str(folder / "out"), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Run(process, folder)


async def finish(started: Run) -> str:
    output, _ = await started.process.communicate()
    return output.decode()


@pytest.mark.parametrize("workers", ["0", "2"])
async def test_all_workers_share_one_server_and_none_is_left(state_dir: Path, workers: str) -> None:
    started = await run(state_dir, SHARING, "-n", workers)
    output = await finish(started)
    assert "4 passed" in output, output
    urls = [text.split() for text in started.written().values()]
    assert len({nats for nats, _, _ in urls}) == 1
    assert len({postgres for _, postgres, _ in urls}) == 1
    assert len({database for _, _, database in urls}) == 4
    assert len({name.partition(".")[2] for name in started.written()}) == max(1, int(workers))
    assert started.servers() == []
    assert started.left_behind() == []


@pytest.mark.parametrize(
    ("end", "workers"), [(signal.SIGINT, "0"), (signal.SIGINT, "1"), (signal.SIGTERM, "0"), (signal.SIGKILL, "1")]
)
async def test_none_is_left_when_the_run_is_ended(state_dir: Path, workers: str, end: signal.Signals) -> None:
    started = await run(state_dir, HANGING, "-n", workers)
    try:
        await eventually(lambda: (state_dir / "out" / "hangs").exists(), timeout_s=60)
        assert len(started.servers()) == 2
        if end == signal.SIGINT:
            os.killpg(started.process.pid, end)  # A terminal's Ctrl-C reaches the workers, too.
        else:
            started.process.send_signal(end)
        await finish(started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.process.pid, signal.SIGKILL)
    await eventually(lambda: not started.servers(), what="the end of both servers")
    if end == signal.SIGINT:
        assert started.left_behind() == []


async def test_a_worker_that_crashes_takes_no_server_along(state_dir: Path) -> None:
    started = await run(state_dir, CRASHING, "-n", "1")
    output = await finish(started)
    assert "1 failed, 3 passed" in output, output
    assert len(set(started.written().values())) == 1
    assert len({name.partition(".")[2] for name in started.written()}) == 2
    assert started.servers() == []
    assert started.left_behind() == []


async def test_a_run_that_needs_no_server_starts_none_and_loads_nothing(state_dir: Path) -> None:
    heavy = ["asyncpg", "nats", "sqlalchemy", "alembic", "grpc", "uvloop", "callwarden.local", "callwarden.common"]
    conftest = f"""
import sys
def pytest_unconfigure():
    print("LOADED", [name for name in {heavy} if name in sys.modules])
"""
    (state_dir / "conftest.py").write_text(conftest)
    output = await finish(await run(state_dir, IDLE))
    assert "1 passed" in output
    assert "LOADED []" in output


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_in_the_background_of_a_shell_tests_can_still_interrupt_processes(state_dir: Path, workers: str) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a shell does; processes inherit it
    try:
        started = await run(state_dir, INTERRUPTED, "-n", workers)
    finally:
        signal.signal(signal.SIGINT, before)
    output = await finish(started)
    assert "1 passed" in output, output


async def test_what_the_servers_say_is_shown_in_the_test_that_asked(state_dir: Path) -> None:
    failing = IDLE + "\ndef test_ask(callwarden_servers):\n    callwarden_servers.ask('moon')\n"
    for workers in ("0", "1"):
        folder = state_dir / workers
        folder.mkdir()
        output = await finish(await run(folder, failing, "-n", workers))
        assert "1 failed, 1 passed" in output, output
        assert "nobody knows 'moon'" in output
