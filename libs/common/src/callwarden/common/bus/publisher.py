"""Events to JetStream: handed over at once, sent without waiting for each other, acknowledged, never lost quietly.

`publish` never blocks and never fails for the network: while NATS is away, or slow to acknowledge, events go to the
spool on disk and are sent in order when it is back. Without a spool they wait in memory, bounded. Message ids make a
second sending harmless (Nats-Msg-Id; the stream remembers them for its duplicate window).
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api

from callwarden.common import trace
from callwarden.common.bus.spool import Spool
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.kernel.errors import Exhausted, Unavailable

log = get_logger(__name__)

UNACKED_MAX: Final = 4_096  # sent and not acknowledged; JetStream acknowledges in 0.1 to 10 ms
WAITING_MAX: Final = 50_000  # in memory, when there is no spool: 15 MB
ACK_TIMEOUT_S: Final = 5.0
CLOSE_WAIT_S: Final = 2.0
SPOOL_BATCH: Final = 256
CHECK_EVERY_S: Final = 0.5

PUBLISHED = Metric(
    "callwarden_bus_published_total", "counter", "{messages}", "Events by what became of them.", labels=("result",)
)
WAITING = Metric("callwarden_bus_publish_waiting", "gauge", "{messages}", "Events not acknowledged yet.", ("where",))


@dataclass(slots=True)
class _Event:
    """Mutable: `sent_s` (monotonic) is set on each sending."""

    subject: str
    message_id: str
    payload: bytes
    headers: tuple[tuple[str, str], ...]
    sent_s: float = 0.0
    done: asyncio.Future[None] | None = None


class Publisher:
    """`events = await runtime.open(bus.publisher(Spool(directory)))`."""

    def __init__(
        self,
        client: Client,
        on_reconnect: Callable[[Callable[[], Awaitable[None]]], Callable[[], None]],
        spool: Spool | None,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._on_reconnect = on_reconnect
        self._spool = spool
        self._waiting: list[_Event] = []
        self._unacked: dict[int, _Event] = {}
        self._last_token = 0
        self._wake = asyncio.Event()
        self._acked = asyncio.Event()
        self._closing = False
        self._sent = metrics.counter(PUBLISHED, "acknowledged")
        self._spooled = metrics.counter(PUBLISHED, "spooled")
        self._lost = metrics.counter(PUBLISHED, "lost")
        metrics.observe(
            WAITING,
            lambda: {
                ("memory",): len(self._waiting) + len(self._unacked),
                ("disk",): len(self._spool) if self._spool is not None else 0,
            },
        )

    async def __aenter__(self) -> "Publisher":
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)
        self._forget = self._on_reconnect(self._reconnected)
        self._task = asyncio.create_task(self._run(), name="publisher")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Wait a moment for acknowledgements; what is left goes to the spool."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT_S if self._client.is_connected else 0):
                await self.flush()
        self._forget()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._set_aside()
        if self._spool is not None:
            self._spool.close()
        if self._waiting:
            log.error("publisher.lost", count=len(self._waiting))
            self._lost.value += len(self._waiting)
        with suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    def publish(self, subject: str, payload: bytes, *, message_id: str) -> None:
        """Send an event, once NATS takes it. Raises Exhausted only when spool (or, without one, memory) is full."""
        event = _Event(subject, message_id, payload, trace.headers())
        if self._spool is not None and (len(self._spool) or not self._client.is_connected):
            self._spool_one(event)  # behind the others, or the order is lost
        elif len(self._waiting) >= WAITING_MAX:
            if self._spool is None:
                raise Exhausted("too many events wait for NATS")
            self._spool_one(event)
        else:
            self._waiting.append(event)
        self._wake.set()

    async def publish_acknowledged(
        self, subject: str, payload: bytes, *, message_id: str, timeout_s: float = ACK_TIMEOUT_S
    ) -> None:
        """Send an event now and return when JetStream has it. Raises Unavailable; then it may have it nevertheless."""
        if not self._client.is_connected:
            raise Unavailable("NATS is not available")
        event = _Event(subject, message_id, payload, trace.headers())
        event.done = asyncio.get_running_loop().create_future()
        self._waiting.append(event)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                await event.done
        except TimeoutError:
            raise Unavailable("NATS has not acknowledged in time") from None

    async def flush(self) -> None:
        """Return when everything published so far is acknowledged or on disk because NATS is away."""
        while (self._waiting or self._unacked or (self._spool is not None and len(self._spool))) and (
            self._client.is_connected or self._spool is None
        ):
            self._acked.clear()
            await self._acked.wait()

    async def _run(self) -> None:
        """Send what waits, for ever; look after what is not acknowledged."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                self._check()
                await self._send_waiting()
                await self._send_spooled()
            except nats.errors.Error as error:
                log.debug("publisher.send_failed", error=repr(error))
            except OSError as error:  # the disk of the spool
                log.error("publisher.spool_failed", error=error)

    def _check(self) -> None:
        """Not connected, or not acknowledged in time: set aside and send again later."""
        oldest_s = next((event.sent_s for event in self._unacked.values()), None)
        late = oldest_s is not None and time.monotonic() - oldest_s > ACK_TIMEOUT_S
        if late:
            log.warning("publisher.ack_late", unacknowledged=len(self._unacked))
        if late or not self._client.is_connected:
            self._set_aside()

    def _set_aside(self) -> None:
        """What was sent or waits goes to the spool, oldest first, or waits (again) in memory."""
        events = [*self._unacked.values(), *self._waiting]
        self._unacked.clear()
        self._waiting = []
        for event in events:
            if event.done is not None:
                if not event.done.done():
                    event.done.set_exception(Unavailable("NATS is not available"))
            elif self._spool is None:
                self._waiting.append(event)
            else:
                try:
                    self._spool_one(event)
                except (Exhausted, OSError) as error:
                    self._lost.value += 1
                    log.error("publisher.lost", error=error, message_id=event.message_id)
        self._acked.set()

    def _spool_one(self, event: _Event) -> None:
        assert self._spool is not None
        self._spool.append(event.subject, event.message_id, event.payload)
        self._spooled.value += 1

    async def _send_waiting(self) -> None:
        while self._waiting and self._client.is_connected and len(self._unacked) < UNACKED_MAX:
            room = UNACKED_MAX - len(self._unacked)
            batch, self._waiting = self._waiting[:room], self._waiting[room:]
            for event in batch:
                await self._send(event)

    async def _send(self, event: _Event) -> None:
        self._last_token = token = self._last_token + 1
        event.sent_s = time.monotonic()
        self._unacked[token] = event
        headers = {api.Header.MSG_ID.value: event.message_id, **dict(event.headers)}
        await self._client.publish(event.subject, event.payload, reply=f"{self._inbox}.{token}", headers=headers)

    async def _send_spooled(self) -> None:
        """Drain the spool in order, batch by batch; each is forgotten when all of it is acknowledged."""
        spool = self._spool
        while spool is not None and len(spool) and self._client.is_connected and not self._unacked:
            records = spool.read(SPOOL_BATCH)
            loop = asyncio.get_running_loop()
            events = [_Event(record.subject, record.message_id, record.payload, ()) for record in records]
            for event in events:
                event.done = loop.create_future()
                await self._send(event)
            done, _ = await asyncio.wait(
                [event.done for event in events if event.done is not None], timeout=ACK_TIMEOUT_S
            )
            failed = [one for one in done if one.exception() is not None]
            if failed or len(done) < len(events):
                for token in [token for token, event in self._unacked.items() if event in events]:
                    del self._unacked[token]
                await asyncio.sleep(CHECK_EVERY_S)
                return
            spool.acknowledge(records[-1].end)
            self._acked.set()

    async def _acknowledged(self, message: Msg) -> None:
        event = self._unacked.pop(int(message.subject.rpartition(".")[2]), None)
        if event is None:
            return
        error = _error_of(message)
        if error is None:
            self._sent.value += 1
            if event.done is not None and not event.done.done():
                event.done.set_result(None)
        elif event.done is not None:
            if not event.done.done():
                event.done.set_exception(Unavailable(f"JetStream refuses: {error}"))
        else:
            # No stream (yet), or one that is full: it stays ours.
            log.warning("publisher.refused", reason=error, message_id=event.message_id)
            if self._spool is not None:
                self._spool_one(event)
            else:
                self._waiting.append(event)
        self._acked.set()
        if self._waiting or (self._spool is not None and len(self._spool)):
            self._wake.set()

    async def _reconnected(self) -> None:
        self._wake.set()


def _error_of(message: Msg) -> str | None:
    if message.headers and message.headers.get("Status") == "503":
        return "no stream takes this subject"
    try:
        answer = json.loads(message.data)
    except ValueError:
        return "unreadable acknowledgement"
    error = answer.get("error")
    return None if error is None else str(error.get("description", "error"))
