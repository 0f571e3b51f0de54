"""A service of these tests as a real process: what it says, logs and serves, and how it is told to stop."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


class Process:
    """A child, what it says and what it logs."""

    def __init__(self, child: asyncio.subprocess.Process, ready_file: Path) -> None:
        self.child = child
        self.ready_file = ready_file
        self.output: list[str] = []
        self.logged: list[dict[str, Any]] = []
        self.errors = ""
        self._more = asyncio.Event()
        self._readers = [asyncio.create_task(self._read_output()), asyncio.create_task(self._read_errors())]

    async def _read_output(self) -> None:
        assert self.child.stdout is not None
        async for line in self.child.stdout:
            self.output.append(line.decode().strip())
            self._more.set()

    async def _read_errors(self) -> None:
        assert self.child.stderr is not None
        async for line in self.child.stderr:
            self.errors += line.decode()
            if line.startswith(b"{"):
                self.logged.append(json.loads(line))
            self._more.set()

    async def says(self, words: str) -> None:
        await self._until(lambda: words in self.output)

    async def logs(self, event: str) -> dict[str, Any]:
        await self._until(lambda: any(line["event"] == event for line in self.logged))
        return next(line for line in self.logged if line["event"] == event)

    async def _until(self, seen: Callable[[], bool]) -> None:
        while not seen():
            assert not all(reader.done() for reader in self._readers), f"it ended: {self.output} {self.errors}"
            self._more.clear()
            more = asyncio.create_task(self._more.wait())
            await asyncio.wait([more, *self._readers], return_when=asyncio.FIRST_COMPLETED)
            more.cancel()

    async def ready(self) -> dict[str, Any]:
        await self.logs("service.ready")
        content: dict[str, Any] = json.loads(self.ready_file.read_text())
        return content

    async def ends(self) -> int:
        await asyncio.gather(*self._readers)
        return await self.child.wait()

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)


Start = Callable[..., Awaitable[Process]]


async def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body
