"""What stands before several edges on a cluster: one address, and flows that stay where they are until they are moved.

As kube-proxy does with a Service of UDP: the first packet of a client's address chooses a backend, and the flow is kept
while that backend may still serve. Backends see an address of the balancer's own for each flow.
"""

import asyncio
from types import TracebackType
from typing import Any, Self

from callwarden.local.ports import reserve

_Address = tuple[str, int]


class FlowBalancer:
    """Listens on `address` inside `async with`; `use` says which backend the flows go to from now on."""

    def __init__(self) -> None:
        self._port = reserve()
        self._backend: _Address | None = None
        self._flows: dict[_Address, _Flow] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port.number}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._forward), local_addr=("127.0.0.1", self._port.number)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for flow in self._flows.values():
            flow.close()
        self._port.release()

    def use(self, backend: str) -> None:
        """New flows and those that are there go to this `host:port`."""
        host, _, port = backend.rpartition(":")
        self._backend = host, int(port)

    def _forward(self, data: bytes, client: _Address) -> None:
        flow = self._flows.get(client)
        if flow is None:
            flow = self._flows[client] = _Flow(lambda answer: self._listener.sendto(answer, client))
        if self._backend is not None:
            flow.send(data, self._backend)


class _Flow:
    """A client's packets, by a socket of their own."""

    def __init__(self, answered: Any) -> None:
        self._answered = answered
        self._waiting: list[tuple[bytes, _Address]] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(lambda data, _: self._answered(data)), local_addr=("127.0.0.1", 0)
        )
        for data, backend in self._waiting:
            self._transport.sendto(data, backend)

    def send(self, data: bytes, backend: _Address) -> None:
        if self._transport is None:
            self._waiting.append((data, backend))
        else:
            self._transport.sendto(data, backend)

    def close(self) -> None:
        self._opening.cancel()
        if self._transport is not None:
            self._transport.close()


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, receive: Any) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._receive(data, addr)


def edges_behind(balancer: FlowBalancer) -> dict[str, dict[str, str]]:
    """The environment by which edges name the balancer in Via and Record-Route: an address that outlives them."""
    return {"edge-proxy": {"CALLWARDEN_SIP_ADVERTISED": balancer.address}}
