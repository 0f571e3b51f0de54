"""The process's one connection to NATS: made at start, reconnected for ever, closed after what is written has left."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from callwarden.common.bus import consumer, rights, streams
from callwarden.common.bus.kv import KeyValue
from callwarden.common.bus.publisher import Publisher
from callwarden.common.bus.spool import Spool
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.settings import redact_url
from callwarden.kernel.errors import Unavailable

log = get_logger(__name__)

RECONNECT_EVERY_S: Final = 0.2  # A NATS that restarts is back in 1 s; bans must reach the edge within a second of that.
PING_INTERVAL_S: Final = 5  # with 2 outstanding: a dead server is noticed in 10 to 15 s
REQUEST_TIMEOUT_S: Final = 5.0
# What may wait in memory while away. Beyond it publishing fails at once; events go to the spool before that.
PENDING_BYTES_MAX: Final = 8 * 1024 * 1024

CONNECTED = Metric("callwarden_bus_connected", "gauge", "1", "1 while connected to NATS.")
RECONNECTS = Metric("callwarden_bus_reconnects_total", "counter", "{reconnects}", "Times the connection came back.")


class Bus:
    """`bus = await runtime.bus()`. Everything over NATS goes through it."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        replicas: int = 1,
        metrics: Metrics | None = None,
        stopping: asyncio.Event | None = None,
        declare: bool = True,
        start_timeout_s: float = 15.0,
    ) -> None:
        """`url` may be several with commas; its user says what we may do, see `rights`. `stopping` ends consumers.
        `declare`: make streams and buckets as they are said to be; False only for tools that look at a system without
        touching it.
        """
        self._urls = [part.strip() for part in url.split(",")]
        self._user = urlsplit(self._urls[0]).username or ""
        self._name = name
        self._replicas = replicas
        self._declare = declare
        self._start_timeout_s = start_timeout_s
        self.metrics = metrics or Metrics()
        self.stopping = stopping or asyncio.Event()
        self.client = Client()
        self.jetstream: JetStreamContext = self.client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._on_reconnect: set[Callable[[], Awaitable[None]]] = set()
        self._reconnects = self.metrics.counter(RECONNECTS)
        self.losses = 0
        """How often the connection was lost; raised before it is made again."""
        self.metrics.observe(CONNECTED, lambda: float(self.connected))

    @property
    def connected(self) -> bool:
        """Whether the server is there now, as far as we know."""
        return self.client.is_connected

    async def __aenter__(self) -> "Bus":
        """Connect and declare. Raises Unavailable after `start_timeout_s`."""
        where = ", ".join(map(redact_url, self._urls))
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self.client.connect(
                    self._urls,
                    name=self._name,
                    connect_timeout=2,
                    reconnect_time_wait=RECONNECT_EVERY_S,  # type: ignore[arg-type]  # it sleeps for it: a float is fine
                    max_reconnect_attempts=-1,
                    ping_interval=PING_INTERVAL_S,
                    pending_size=PENDING_BYTES_MAX,
                    inbox_prefix=rights.inbox_of(self._user),
                    error_cb=self._failed,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                )
                if self._declare:
                    await self._declare_all()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            await self._close()
            raise Unavailable(f"NATS at {where} is not available") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def _close(self) -> None:
        if self.client.is_connected:
            with suppress(nats.errors.Error, OSError):
                await self.client.flush(timeout=2)
        await self.client.close()

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Have `callback` awaited each time the connection is back; returns what ends that."""
        self._on_reconnect.add(callback)
        return lambda: self._on_reconnect.discard(callback)

    async def _failed(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():  # no outage: it lasts until somebody sets the rights right
            log.error("bus.denied", error=error, with_traceback=False, user=self._user)
            return
        # Each failed attempt to reconnect comes here, too: what matters is said once, in _disconnected.
        log.debug("bus.error", error=repr(error))

    async def _disconnected(self) -> None:
        self.losses += 1
        if not self.client.is_closed:
            log.warning("bus.disconnected", servers=[redact_url(url) for url in self._urls])

    async def _reconnected(self) -> None:
        self._reconnects.value += 1
        log.info("bus.reconnected")
        for callback in list(self._on_reconnect):
            await callback()
        if self._declare:
            # A server that came back without its disk has none of them.
            with suppress(nats.errors.Error, TimeoutError):
                await self._declare_all()

    async def _declare_all(self) -> None:
        await streams.declare(self.jetstream, self._replicas, update=rights.may_update(self._user))

    def kv(self, bucket: streams.Bucket) -> KeyValue:
        """The bucket."""
        return KeyValue(self.client, self.jetstream, bucket, self.on_reconnect)

    def publisher(self, spool: Spool | None = None) -> Publisher:
        """Sends events to JetStream, through `spool` while NATS is away: `await runtime.open(bus.publisher(spool))`."""
        return Publisher(self.client, self.on_reconnect, spool, self.metrics)

    async def consume(
        self,
        stream: streams.Stream,
        durable: str,
        subject: str,
        handler: Callable[[consumer.Delivery], Awaitable[None]],
        *,
        concurrency: int = consumer.CONCURRENCY_DEFAULT,
    ) -> None:
        """Handle each event of `subject` at least once, over all processes that name the same `durable`.

        Returns when the process stops, after what was taken is done: `runtime.spawn(name, bus.consume(…),
        drains=True)`. See `consumer` for what happens when `handler` raises.
        """
        await consumer.Consumer(
            self.client, self.jetstream, self.metrics, stream, durable, subject, handler, concurrency, self.on_reconnect
        ).run(self.stopping)

    async def waiting(self, stream: streams.Stream, durable: str) -> int:
        """How many events a consumer hasn't done yet: not delivered, or not acknowledged. Raises Unavailable."""
        try:
            info = await self.jetstream.consumer_info(stream.value, durable)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("NATS doesn't say how far a consumer is") from error
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def publish(self, subject: str, payload: bytes) -> None:
        """A plain message to all current subscribers (cache invalidation): may be lost. Raises Unavailable when buffers
        are full.
        """
        try:
            await self.client.publish(subject, payload)
        except nats.errors.Error as error:
            raise Unavailable("NATS is not available") from error

    async def subscribe(self, subject: str, handler: Callable[[Msg], Awaitable[None]]) -> Any:
        """Plain messages as they come; survives reconnects, misses what is said while away. `.unsubscribe()` ends
        it.
        """

        async def guarded(message: Msg) -> None:
            try:
                await handler(message)
            except Exception as error:  # the boundary: one bad message must not end the subscription
                log.error("bus.handler_failed", error=error, subject=message.subject)

        return await self.client.subscribe(subject, cb=guarded)
