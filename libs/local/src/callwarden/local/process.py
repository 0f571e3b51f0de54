"""A child process that never outlives this one: started, waited for, signalled, its log kept in a file.

What the child is (a database, a service) and when it is ready are its owner's business: `postgres`, `nats`, `services`.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_SHIM = Path(__file__).with_name("child_exec.py")
LOG_TAIL_BYTES = 8_192  # Enough for a traceback; an error message with more is not read.

# PR_SET_PDEATHSIG fires when the *thread* that forked ends (prctl(2)), not when its process does. Callers run event
# loops in short-lived threads, so every fork is made by this one, which lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="callwarden-spawn")


@dataclass(frozen=True, slots=True)
class ProcessUser:
    """The user a child runs as; only root can choose one."""

    name: str
    uid: int
    gid: int


class ChildFailed(Exception):
    """A child ended or did not get ready. The message names it and ends with the tail of its log."""

    def __init__(self, name: str, what: str, log_tail: str) -> None:
        self.name = name
        self.what = what
        self.log_tail = log_tail
        tail = f"; the last of its log:\n{log_tail}" if log_tail else "; its log is empty"
        super().__init__(f"{name} {what}{tail}")


class Child:
    """One running process. Made by `start`; `stop` or `kill` ends it; the death of this process ends it, too.

    Belongs to the event loop that started it.
    """

    def __init__(self, name: str, popen: subprocess.Popen[bytes], pidfd: int, log: Path, log_start: int) -> None:
        self.name = name
        self.log = log
        self._popen = popen
        self._log_start = log_start
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # Becomes readable when the process ends: no signal handler, no thread, no polling (Linux 5.3).
        self._pidfd = pidfd
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @classmethod
    async def start(
        cls,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        identity: ProcessUser | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> "Child":
        """Start `argv` (an absolute path first) in a session of its own, output appended to `log`.

        `death_signal` is what the kernel sends it when this process dies. OSError if it can't be forked.
        """
        who = f"{identity.uid}:{identity.gid}" if identity else "-"
        command = [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), str(int(death_signal)), who]
        command += [str(part) for part in argv]

        def fork() -> tuple[subprocess.Popen[bytes], int, int]:
            log.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "ab") as output:
                start = os.fstat(descriptor).st_size
                # A session of its own: Ctrl-C in a terminal reaches us alone, and we stop the children in order.
                popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(env) if env is not None else None,
                    cwd=cwd or "/",
                    start_new_session=True,
                )
            try:
                return popen, os.pidfd_open(popen.pid), start
            except OSError:
                popen.kill()
                popen.wait()
                raise

        forking = _spawner.submit(fork)
        try:
            popen, pidfd, log_start = await asyncio.wrap_future(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(_discard)
            raise
        return cls(name, popen, pidfd, log, log_start)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; the exit code, or minus the number of the signal that ended it."""
        return self._exited.result() if self._exited.done() else None

    async def wait(self) -> int:
        """Wait for its end, whatever causes it; the return code."""
        return await asyncio.shield(self._exited)

    def send(self, number: signal.Signals) -> None:
        """Signal it; nothing happens when it has ended."""
        if self.returncode is None:
            self._popen.send_signal(number)

    async def kill(self) -> int:
        """End it at once (SIGKILL)."""
        self.send(signal.SIGKILL)
        return await self.wait()

    async def stop(self, *steps: tuple[signal.Signals, float]) -> int:
        """Send each signal in turn and give it so many seconds; SIGKILL when all are used up."""
        for number, grace_s in steps:
            self.send(number)
            try:
                async with asyncio.timeout(grace_s):
                    return await self.wait()
            except TimeoutError:
                continue
        return await self.kill()

    def log_tail(self) -> str:
        """The last of what it wrote since this start, at most LOG_TAIL_BYTES."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - LOG_TAIL_BYTES))
                return file.read(LOG_TAIL_BYTES).decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def failed(self, what: str) -> ChildFailed:
        """The error that says what went wrong with it."""
        return ChildFailed(self.name, what, self.log_tail())

    async def until(self, ready: asyncio.Future[None], timeout_s: float) -> None:
        """Wait until `ready` is done; ChildFailed if the process ends first or the time is up. Cancels `ready` then."""
        try:
            waited: set[asyncio.Future[None] | asyncio.Future[int]] = {ready, self._exited}
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
            elif self.returncode is not None:
                raise self.failed(f"ended while starting ({describe_exit(self.returncode)})")
            else:
                raise self.failed(f"was not ready within {timeout_s:g} s")
        finally:
            ready.cancel()

    def _reap(self) -> None:
        code = self._popen.wait()  # Returns at once: the pidfd said that it has ended.
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._exited.set_result(code)


def _discard(forking: "Future[tuple[subprocess.Popen[bytes], int, int]]") -> None:
    """End a child that nobody waits for any more: its start was cancelled while it was forked."""
    if forking.cancelled() or forking.exception() is not None:
        return
    popen, pidfd, _ = forking.result()
    popen.kill()
    popen.wait()
    os.close(pidfd)


def describe_exit(code: int) -> str:
    """`exit code 1` or `SIGKILL`, for a message."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


async def file_appears(path: Path, interval_s: float = 0.005) -> None:
    """Wait for a file that another program makes when it is ready. Polls: no event crosses from a foreign process."""
    while not path.exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(interval_s)
