"""What the servers of a local system share: their process, their port, and how `async with` starts and stops them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from callwarden.local.ports import Port
from callwarden.local.process import Child


class LocalServer(ABC):
    """One server of our own. `port` 0 chooses one, and keeps it over restarts of this object."""

    def __init__(self, name: str, port: int, reserve: Callable[[], Port]) -> None:
        self._name = name
        self._port_fixed = port
        self._port: Port | None = None
        self._reserve = reserve
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def child(self) -> Child:
        """The running server's process; LookupError when it was never started."""
        if self._child is None:
            raise LookupError(f"{self._name} was not started")
        return self._child

    @property
    def port(self) -> int:
        if self._port_fixed:
            return self._port_fixed
        if self._port is None:
            raise LookupError(f"{self._name} was not started")
        return self._port.number

    @abstractmethod
    async def start(self) -> None:
        """Start it, return when it can be used. ChildFailed, with the log's tail."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop it and give its port back."""

    async def kill(self) -> None:
        """End it as the machine's out-of-memory killer would: SIGKILL. `restart` brings it back."""
        await self.child.kill()

    def _take_port(self) -> None:
        """Reserve one where there is none yet."""
        if not self._port_fixed and self._port is None:
            self._port = self._reserve()

    def _give_port_back(self) -> None:
        if self._port is not None:
            self._port.release()
            self._port = None
