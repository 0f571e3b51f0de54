"""`callwarden demo` and `callwarden up` as a person starts them: whole processes, and nothing left of them."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from callwarden.cli.demo.story import STEPS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MARK = "LC_CALLWARDEN_TEST"  # Services inherit few variables; those of the locale are among them.


def left_running(mark: str) -> list[str]:
    """Command lines of processes that have the mark in their environment; children inherit it."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # It has ended, or is somebody else's.
    return found


@dataclass
class Command:
    """A running command line of ours."""

    process: asyncio.subprocess.Process
    mark: str
    printed: list[str]

    async def until(self, text: str) -> None:
        """Read on until a line holds the text."""
        assert self.process.stdout is not None
        async with asyncio.timeout(90):
            while line := (await self.process.stdout.readline()).decode():
                self.printed.append(line)
                if text in line:
                    return
        raise AssertionError(f"{text!r} was never printed:\n{''.join(self.printed)}")

    async def end(self) -> tuple[int, str]:
        """Wait for its end: exit code and all that it printed."""
        async with asyncio.timeout(100):
            rest, _ = await self.process.communicate()
        self.printed.append(rest.decode())
        assert self.process.returncode is not None
        return self.process.returncode, "".join(self.printed)


@asynccontextmanager
async def command(folder: Path, *arguments: str, before: tuple[str, ...] = ()) -> AsyncIterator[Command]:
    """A command line in that folder, which is also where its temporary files go; killed at the end if it still runs."""
    mark = str(uuid.uuid4())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLWARDEN_")}
    process = await asyncio.create_subprocess_exec(
        *before,
        *(sys.executable, "-P", "-m", "callwarden.cli.main", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**environment, MARK: mark, "TMPDIR": str(folder), "HOME": str(folder), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        yield Command(process, mark, [])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that every user can pass through."""
    made = Path(tempfile.mkdtemp(prefix="callwarden-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def test_the_demo_holds_in_every_step_and_leaves_nothing(folder: Path) -> None:
    async with command(folder, "demo", "--plain") as demo:
        code, printed = await demo.end()
        assert code == 0, printed
        for title, _ in STEPS:
            assert f"✓ {title}" in printed
        assert "✗" not in printed.replace("✗  destinations", "")  # The one that explain shows.
        assert left_running(demo.mark) == []
    assert names(folder) == []


async def test_an_interrupted_demo_leaves_nothing(folder: Path) -> None:
    async with command(folder, "demo", "--plain") as demo:
        await demo.until("… Two phones register")
        demo.process.send_signal(signal.SIGINT)
        code, printed = await demo.end()
        assert code == 130, printed
        assert "Traceback" not in printed
        assert left_running(demo.mark) == []
    assert names(folder) == []


async def test_a_step_that_does_not_hold_ends_with_1_and_the_logs_are_there(folder: Path) -> None:
    """Somebody kills a service of the running demo: it must notice, say so, and still leave nothing."""
    async with command(folder, "demo", "--plain", "--keep", "logs") as demo:
        await demo.until("… Two phones register")
        for line in left_running_pids(demo.mark, "callwarden.edge_proxy.main"):
            os.kill(line, signal.SIGKILL)
        code, printed = await demo.end()
        assert code == 1, printed
        assert "✗" in printed
        assert "Traceback" not in printed
        assert left_running(demo.mark) == []
    assert names(folder) == ["logs"]
    assert (folder / "logs" / "edge-proxy-0.log").exists()


def left_running_pids(mark: str, module: str) -> list[int]:
    """Process ids of that module's processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"{MARK}={mark}".encode() in environment and module.encode() in words:
                found.append(int(entry.name))
    return found


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def ordinary_user() -> tuple[str, ...]:
    """What runs a command as an ordinary user; skips where that can't be."""
    if os.geteuid() != 0:
        pytest.skip("this run is an ordinary user's: the other tests have shown it")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not there: apt-get install util-linux")
    nobody = pwd.getpwnam("nobody")
    plain = (setpriv, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    # Where Python stands in root's home: an ordinary user who may read everything, and nothing else.
    reading = (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for before in (plain, reading):
        # A child as well: setpriv itself still had root's rights when it looked for the interpreter.
        probe = "import subprocess, sys, callwarden.cli.main; subprocess.run([sys.executable, '-c', ''], check=True)"
        tried = [*before, sys.executable, "-c", probe]
        if subprocess.run(tried, capture_output=True, check=False, timeout=60).returncode == 0:
            return before
    pytest.skip("an ordinary user can't enter this checkout or its Python: put both where all users may read")


@pytest.mark.long
async def test_the_demo_runs_as_an_ordinary_user(folder: Path) -> None:
    before = ordinary_user()
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    async with command(folder, "demo", "--plain", before=before) as demo:
        code, printed = await demo.end()
        assert code == 0, printed
        assert left_running(demo.mark) == []
    assert names(folder) == []


async def test_up_runs_until_told_to_stop_and_keeps_what_it_knows(folder: Path) -> None:
    async def quick(*arguments: str) -> tuple[int, str]:
        async with command(folder, *arguments) as done:
            return await done.end()

    async with command(folder, "up", "--sip", "127.0.0.1:0") as up:
        await up.until("Callwarden runs")
        code, printed = await quick("account", "create", "alice", "--generate", "--credit", "10", "--lines", "3")
        assert code == 0, printed
        assert "10.00 EUR" in printed
        assert "Password, shown only this once: " in printed
        code, printed = await quick("up", "--sip", "127.0.0.1:0")
        assert code == 1
        assert "runs" in printed
        assert "--state-dir" in printed
        up.process.send_signal(signal.SIGTERM)
        code, printed = await up.end()
        assert code == 0, printed
        assert "Traceback" not in printed
        assert left_running(up.mark) == []
    code, printed = await quick("account", "list")
    assert code == 1
    assert "`callwarden up`" in printed
    async with command(folder, "up", "--sip", "127.0.0.1:0") as up:
        await up.until("Callwarden runs")
        code, printed = await quick("account", "show", "alice", "--output", "json")
        assert code == 0, printed
        assert '"balance_micros": 10000000' in printed
        code, printed = await quick("topup", "alice", "2.50", "--key", "k1")
        assert (code, "12.50 EUR" in printed) == (0, True), printed
        code, printed = await quick("topup", "alice", "2.50", "--key", "k1")
        assert (code, "credited before" in printed) == (0, True), printed
        code, printed = await quick("ledger", "check")
        assert (code, "The books are right" in printed) == (0, True), printed
        up.process.send_signal(signal.SIGINT)
        code, printed = await up.end()
        assert code == 0, printed
        assert left_running(up.mark) == []


async def test_up_says_at_once_that_its_port_is_taken(folder: Path) -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        async with command(folder, "up", "--sip", f"127.0.0.1:{taken.getsockname()[1]}") as up:
            code, printed = await up.end()
    assert code == 1
    assert "choose with --sip host:port" in printed
    assert printed.count("\n") == 1
