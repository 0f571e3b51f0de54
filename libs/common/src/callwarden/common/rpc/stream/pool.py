"""Several targets of one service: the same key goes to the same target, and to the next one while that is away.

Affinity is for speed only (an account's rows are hot in one process, DESIGN.md D2); any target answers rightly.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

import grpc.aio

from callwarden.common.metrics import Metrics
from callwarden.common.rpc.client import channel
from callwarden.common.rpc.server import TlsFiles
from callwarden.common.rpc.stream.bounds import IN_FLIGHT_MAX
from callwarden.common.rpc.stream.client import Message, MessageType, NotSent, ReplyT_co, StreamClient
from callwarden.kernel.errors import Unavailable

# A key and all targets, to the targets in order of preference; pure and the same in every process.
Ranking: TypeAlias = Callable[[str, Sequence[str]], Sequence[str]]


class StreamPool:
    """Calls by key. `async with StreamPool(…) as pool`; targets may change while it runs (`update`)."""

    def __init__(
        self,
        service: str,
        targets: Sequence[str],
        ranking: Ranking,
        *,
        tls: TlsFiles | None = None,
        peer: str = "",
        in_flight_max: int = IN_FLIGHT_MAX,
        metrics: Metrics | None = None,
    ) -> None:
        """`service` by its full name, `targets` as host:port, `ranking` for example callwarden.limits.rendezvous,
        `peer` as of rpc.channel.
        """
        self._service = service
        self._initial = tuple(targets)
        self._ranking = ranking
        self._tls = tls
        self._peer = peer
        self._in_flight_max = in_flight_max
        self._metrics = metrics
        self._clients: dict[str, tuple[StreamClient, AsyncExitStack]] = {}

    async def __aenter__(self) -> "StreamPool":
        await self.update(self._initial)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.update(())

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets, whether they are up or not."""
        return tuple(self._clients)

    async def update(self, targets: Sequence[str]) -> None:
        """Use exactly these targets from now on; connections to those that stay are kept."""
        for target in set(targets) - set(self._clients):
            stack = AsyncExitStack()
            opened: grpc.aio.Channel = await stack.enter_async_context(channel(target, self._tls, peer=self._peer))
            client = StreamClient(
                opened, self._service, target=target, in_flight_max=self._in_flight_max, metrics=self._metrics
            )
            await stack.enter_async_context(client)
            self._clients[target] = client, stack
        gone = [self._clients.pop(target) for target in set(self._clients) - set(targets)]
        for _, stack in gone:
            await stack.aclose()

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait until every target is connected, at most `timeout_s`; whether all are.

        For a start: processes that are started together would refuse their first calls for a second otherwise. Whoever
        is still away then is tried again and again, and nobody waits for it any more.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(client.connected() for client, _ in self._clients.values()))
        except TimeoutError:
            return False
        return True

    async def call(
        self,
        key: str,
        method: str,
        request: Message,
        reply_type: MessageType[ReplyT_co],
        *,
        timeout_s: float,
        idempotent: bool = False,
    ) -> ReplyT_co:
        """Ask the target that `key` belongs to, or the next one that is up. Errors as StreamClient.call.

        Another target is asked only when the first can't have seen the request, or, for an `idempotent` method,
        whenever it is unavailable. Exhausted is passed on: a neighbour's load is no reason to overload the next.
        """
        error: Unavailable | None = None
        for target in self._ranking(key, tuple(self._clients)):
            client = self._clients[target][0]
            if not client.up:
                continue
            try:
                return await client.call(method, request, reply_type, timeout_s=timeout_s)
            except NotSent as not_sent:
                error = not_sent
            except Unavailable as unavailable:
                if not idempotent:
                    raise
                error = unavailable
        raise error or NotSent(f"no {self._service} is available")
