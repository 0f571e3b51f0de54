"""Several targets of one service: the same key goes to the same target, and to the next one while that is away.

Affinity is for speed only (an account's rows are hot in one process, DESIGN.md D2); any target answers correctly.

A target whose host is a name means every address of that name. Names are looked up repeatedly, so a process that was
added gets its share and one that was removed is released, without any notification.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, TypeAlias

import grpc.aio

from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metrics
from callwarden.common.rpc import names
from callwarden.common.rpc.client import Credentials, channel
from callwarden.common.rpc.stream.bounds import IN_FLIGHT_MAX
from callwarden.common.rpc.stream.client import Message, MessageType, NotSent, ReplyT_co, StreamClient
from callwarden.kernel.errors import Unavailable

log = get_logger(__name__)

LOOK_UP_EVERY_S: Final = 5.0  # A cluster's DNS caches an answer for five seconds: asking sooner gives the same.
LOOK_UP_SOON_S: Final = 1.0  # while there is no target
FIRST_LOOK_UP_S: Final = 2.0  # What a start waits for names at most; then it goes on, and looks again.
FINISH_TIMEOUT_S: Final = 10.0  # Twice the longest that a caller waits for an answer.

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
        credentials: Credentials | None = None,
        peer: str = "",
        in_flight_max: int = IN_FLIGHT_MAX,
        metrics: Metrics | None = None,
        resolve: names.Resolve | None = names.addresses,
        look_up_every_s: float = LOOK_UP_EVERY_S,
    ) -> None:
        """`service` by its full name, `targets` as host:port, `ranking` for example callwarden.limits.rendezvous,
        `credentials` and `peer` as of rpc.channel. `resolve` None: names are targets as they are, and gRPC finds one
        address of each.
        """
        self._service = service
        self._initial = tuple(targets)
        self._ranking = ranking
        self._credentials = credentials
        self._peer = peer
        self._in_flight_max = in_flight_max
        self._metrics = metrics
        self._resolve = resolve
        self._look_up_every_s = look_up_every_s
        self._known: dict[str, tuple[str, ...]] = {}  # what each name stood for when it was last known
        self._follower: asyncio.Task[None] | None = None
        self._any_known = asyncio.Event()
        self._finishing: set[asyncio.Task[None]] = set()
        self._clients: dict[str, tuple[StreamClient, AsyncExitStack]] = {}

    async def __aenter__(self) -> "StreamPool":
        if self._resolve is None or not any(map(names.is_name, self._initial)):
            await self.update(self._initial)
            return self
        look_up = asyncio.ensure_future(self._look_up(self._resolve))
        await asyncio.wait({look_up}, timeout=FIRST_LOOK_UP_S)
        if look_up.done():
            await look_up  # its error, as of targets that are no names
        self._follower = asyncio.create_task(self._follow(self._resolve, look_up), name=f"names {self._service}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait({self._follower})
        await self.update(())
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets, whether they are up or not."""
        return tuple(self._clients)

    async def update(self, targets: Sequence[str]) -> None:
        """Use exactly these targets from now on. Connections to those that stay are kept; those to others are closed
        when what was asked there is answered.
        """
        for target in set(targets) - set(self._clients):
            stack = AsyncExitStack()
            opened: grpc.aio.Channel = await stack.enter_async_context(
                channel(target, self._credentials, peer=self._peer)
            )
            client = StreamClient(
                opened, self._service, target=target, in_flight_max=self._in_flight_max, metrics=self._metrics
            )
            await stack.enter_async_context(client)
            self._clients[target] = client, stack
        for target in set(self._clients) - set(targets):
            task = asyncio.create_task(_finish(*self._clients.pop(target)), name=f"finish {target}")
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)
        self._any_known.set()

    async def _follow(self, resolve: names.Resolve, look_up: Awaitable[None]) -> None:
        """Look up the names for ever."""
        while True:
            try:
                await look_up
            except OSError as error:  # certificates that can't be read at this moment: those who came wait for them
                log.warning("pool.not_followed", service=self._service, error=error)
            any_up = any(client.up for client, _ in self._clients.values())
            await asyncio.sleep(self._look_up_every_s if any_up else min(LOOK_UP_SOON_S, self._look_up_every_s))
            look_up = self._look_up(resolve)

    async def _look_up(self, resolve: names.Resolve) -> None:
        for target in self._initial:
            try:
                found = await names.targets(target, resolve) if names.is_name(target) else (target,)
            except OSError as error:
                # DNS is away, or no address is ready. The last known ones may still be there: trying costs little.
                log.debug("pool.name_unknown", service=self._service, name=target, error=str(error))
                continue
            if self._known.get(target) != found:
                self._known[target] = found
                log.info("pool.targets", service=self._service, name=target, targets=found)
        if self._known:
            await self.update([address for found in self._known.values() for address in found])

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait until every target is connected, at most `timeout_s`; whether all are.

        For a start: processes that are started together would refuse their first calls for a second otherwise. Targets
        that are still away then are retried in the background.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._any_known.wait()
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
            found = self._clients.get(target)  # None: taken away while the one before was asked
            if found is None or not found[0].up:
                continue
            try:
                return await found[0].call(method, request, reply_type, timeout_s=timeout_s)
            except NotSent as not_sent:
                error = not_sent
            except Unavailable as unavailable:
                if not idempotent:
                    raise
                error = unavailable
        raise error or NotSent(f"no {self._service} is available")


async def _finish(client: StreamClient, stack: AsyncExitStack) -> None:
    try:
        await client.finish(FINISH_TIMEOUT_S)
    finally:
        await stack.aclose()
