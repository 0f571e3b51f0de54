"""Events to JetStream: handed over at once, sent without waiting for each other, acknowledged, never lost quietly.

`publish` never blocks and never fails for the network: while NATS is away, or slow to acknowledge, events go to the
spool on disk and are sent in order when it is back. Without a spool they wait in memory, bounded. Message ids make a
second sending harmless (Nats-Msg-Id; the stream remembers them for its duplicate window).
"""

import asyncio
import json
import time
from collections import deque
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
from callwarden.common.bus.streams import MESSAGE_BYTES_MAX, STREAMS
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.kernel.errors import Exhausted, Invalid, Unavailable

log = get_logger(__name__)

UNACKED_MAX: Final = 4_096  # sent and not acknowledged; JetStream acknowledges in 0.1 to 10 ms
WAITING_MAX: Final = 50_000  # in memory, when there is no spool: 15 MB
ACK_TIMEOUT_S: Final = 5.0
CLOSE_WAIT_S: Final = 2.0
SPOOL_BATCH: Final = 256
CHECK_EVERY_S: Final = 0.5
# Events go together: at 500 calls/s this halves the CPU of the server (250 to 130 µs a call) and
# takes off some of its consumer's, for a line that is free 10 ms later.
GATHER_S: Final = 0.01

_PREFIXES: Final = tuple(subject.removesuffix(">") for spec in STREAMS.values() for subject in spec.subjects)

PUBLISHED = Metric(
    "callwarden_bus_published_total", "counter", "{messages}", "Events by what became of them.", labels=("result",)
)
WAITING = Metric("callwarden_bus_publish_waiting", "gauge", "{messages}", "Events not acknowledged yet.", ("where",))


@dataclass(slots=True, eq=False)
class _Event:
    """Mutable: `sent_s` (monotonic) is set on each sending. With `done`, the sender of the spool waits for it."""

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
        self._waiting: deque[_Event] = deque()
        self._unacked: dict[int, _Event] = {}
        self._last_token = 0
        self._wake = asyncio.Event()
        self._acked = asyncio.Event()
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
        """Send an event, once NATS takes it. Raises Exhausted only when neither disk nor memory have room for it.

        Raises Invalid for what could never be sent and would hold up all that come after it.
        """
        event = self._event(subject, payload, message_id)
        behind_others = self._spool is not None and (len(self._spool) > 0 or not self._client.is_connected)
        if not (behind_others and self._spooled_one(event)):
            self._keep(event)
        self._wake.set()

    def _event(self, subject: str, payload: bytes, message_id: str) -> _Event:
        if not subject.startswith(_PREFIXES):
            raise Invalid(f"no stream takes {subject}", field="subject")
        if len(payload) > MESSAGE_BYTES_MAX:
            raise Invalid(f"an event of {len(payload)} bytes is larger than {MESSAGE_BYTES_MAX}", field="payload")
        if not message_id or not message_id.isascii() or not message_id.isprintable():
            raise Invalid("a message id is printable ASCII", field="message_id")  # it is sent in a header
        return _Event(subject, message_id, payload, trace.headers())

    def _keep(self, event: _Event) -> None:
        """In memory, or on disk when there is no room."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(event)
        elif self._spool is None or not self._spooled_one(event):
            raise Exhausted("too many events wait for NATS")

    def _spooled_one(self, event: _Event) -> bool:
        """Whether the disk took it."""
        assert self._spool is not None
        try:
            self._spool.append(event.subject, event.message_id, event.payload)
        except (Exhausted, OSError) as error:
            log.error("publisher.spool_failed", error=error, with_traceback=False, waiting=len(self._waiting))
            return False
        self._spooled.value += 1
        return True

    async def flush(self) -> None:
        """Return when everything published so far is acknowledged or on disk because NATS is away."""
        while self._waiting or self._unacked or (self._spool is not None and len(self._spool)):
            if self._spool is not None and not self._client.is_connected:
                self._set_aside()
                return
            self._acked.clear()
            await self._acked.wait()

    async def _run(self) -> None:
        """Send what waits, for ever; look after what is not acknowledged."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY_S):
                    await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            try:
                self._check()
                await self._send_waiting()
                await self._send_spooled()
            except nats.errors.Error as error:
                log.debug("publisher.send_failed", error=repr(error))
            except OSError as error:  # the disk of the spool, read or cut
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
        self._waiting.clear()
        for event in events:
            if event.done is not None:
                if not event.done.done():
                    event.done.set_exception(Unavailable("NATS is not available"))
            elif self._spool is None or not self._spooled_one(event):
                self._waiting.append(event)  # bounded: it was in memory before
        self._acked.set()

    async def _send_waiting(self) -> None:
        while self._waiting and self._client.is_connected and len(self._unacked) < UNACKED_MAX:
            await self._send(self._waiting.popleft())

    async def _send(self, event: _Event) -> None:
        # Known as sent before it is, so that whatever happens in between it is sent again.
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
            answers: list[asyncio.Future[None]] = []
            try:
                for record in records:
                    answers.append(asyncio.get_running_loop().create_future())
                    await self._send(_Event(record.subject, record.message_id, record.payload, (), done=answers[-1]))
                await asyncio.wait(answers, timeout=ACK_TIMEOUT_S)
            finally:
                # What is not acknowledged stays on disk, and is read from there again.
                for token in [token for token, event in self._unacked.items() if event.done in answers]:
                    del self._unacked[token]
                refused = [one for one in answers if not one.done() or one.exception() is not None]
            if refused:
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
            if self._spool is None or not self._spooled_one(event):
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
