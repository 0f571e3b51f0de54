"""Children end when they are told to, and always with their parent."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from callwarden.local.process import Child, ChildFailed, ProcessUser, file_appears
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration

SLEEP = ["/bin/sleep", "300"]


def is_alive(pid: int) -> bool:
    """Running, and not a zombie that only waits to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_child_that_ends_gives_its_code_and_its_last_words(tmp_path: Path) -> None:
    child = await Child.start("teller", ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"], log=tmp_path / "log")
    assert await child.wait() == 7
    assert child.returncode == 7
    assert child.log_tail() == "out\nerr"


async def test_an_error_names_the_child_and_shows_only_this_start_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("yesterday's\n")
    child = await Child.start("teller", ["/bin/sh", "-c", "echo no such number; exit 1"], log=log)
    with pytest.raises(ChildFailed) as caught:
        await child.until(asyncio.ensure_future(file_appears(tmp_path / "never")), 30.0)
    message = str(caught.value)
    assert "teller ended while starting (exit code 1)" in message
    assert "no such number" in message
    assert "yesterday" not in message


async def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    child = await Child.start("sleeper", SLEEP, log=tmp_path / "log")
    with pytest.raises(ChildFailed, match=r"was not ready within 0\.05 s"):
        await child.until(asyncio.ensure_future(file_appears(tmp_path / "never")), 0.05)
    assert await child.kill() == -signal.SIGKILL


async def test_one_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM; : > {ready}; while :; do sleep 0.05; done"
    child = await Child.start("stubborn", ["/bin/sh", "-c", script], log=tmp_path / "log")
    await child.until(asyncio.ensure_future(file_appears(ready)), 30.0)
    assert await child.stop((signal.SIGTERM, 0.2)) == -signal.SIGKILL


async def test_a_start_that_is_cancelled_leaves_no_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    # Whenever the cancellation comes, before the fork or after: nothing may go on running.
    for steps in range(4):
        script = f"echo $$ >> {pid_file}; exec sleep 300"
        start = asyncio.ensure_future(Child.start("unwanted", ["/bin/sh", "-c", script], log=tmp_path / "log"))
        for _ in range(steps):
            await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
    last = await Child.start("wanted", SLEEP, log=tmp_path / "log")  # Forked after the others were dealt with.
    await last.kill()
    pids = [int(pid) for pid in pid_file.read_text().split()] if pid_file.exists() else []
    assert not [pid for pid in pids if is_alive(pid)]


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """PR_SET_PDEATHSIG is tied to the forking thread: a loop that ran in a thread must not take its children along."""
    pids: list[int] = []

    async def start() -> None:
        pids.append((await Child.start("sleeper", SLEEP, log=tmp_path / "log")).pid)

    thread = threading.Thread(target=lambda: asyncio.run(start()))
    thread.start()
    thread.join()
    try:
        assert is_alive(pids[0])
    finally:
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)


ORPHANER = """
import asyncio, sys
from pathlib import Path
from callwarden.local.nats import NatsServer
from callwarden.local.postgres import PostgresServer
from callwarden.local.process import Child

async def main():
    folder = Path(sys.argv[1])
    nats = NatsServer(folder / "nats")
    postgres = PostgresServer(folder / "postgres", password="p", fsync=False)
    await asyncio.gather(nats.start(), postgres.start())
    sleeper = await Child.start("sleeper", ["/bin/sleep", "300"], log=folder / "log")
    print(nats.child.pid, postgres.child.pid, sleeper.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_is_left_when_the_parent_is_killed(state_dir: Path) -> None:
    """Also PostgreSQL, which as root is started with another user's identity, and its own children."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHANER, str(state_dir), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 3
    # PostgreSQL's own: checkpointer, writers.
    family = pids + [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent_of(pid) in pids]
    assert len(family) > 3
    assert all(is_alive(pid) for pid in family)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not any(is_alive(pid) for pid in family), what="the end of all children")


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


async def test_a_child_whose_parent_died_before_it_could_watch_does_not_start(tmp_path: Path) -> None:
    import callwarden.local.child_exec as shim

    somebody_else = "1"
    mark = tmp_path / "started"
    command = [sys.executable, "-I", "-S", shim.__file__, somebody_else, "9", "-", "/usr/bin/touch", str(mark)]
    finished = await asyncio.create_subprocess_exec(*command)
    assert await finished.wait() == shim.EXIT_ORPHANED
    assert not mark.exists()


async def test_a_child_is_out_of_reach_of_the_terminals_ctrl_c(tmp_path: Path) -> None:
    child = await Child.start("sleeper", SLEEP, log=tmp_path / "log")
    assert os.getpgid(child.pid) != os.getpgid(0)
    await child.kill()


async def test_what_a_child_writes_is_private(tmp_path: Path) -> None:
    child = await Child.start("writer", ["/usr/bin/touch", tmp_path / "made"], log=tmp_path / "log")
    assert await child.wait() == 0
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root may choose another user")
async def test_another_identity_has_no_way_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    nobody = ProcessUser("nobody", 65_534, 65_534)
    child = await Child.start("who", ["/bin/cat", "/proc/self/status"], log=log, identity=nobody)
    assert await child.wait() == 0
    status = dict(line.split(":", 1) for line in child.log_tail().splitlines() if ":" in line)
    assert set(status["Uid"].split()) == {"65534"}
    assert set(status["Gid"].split()) == {"65534"}
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == 0
