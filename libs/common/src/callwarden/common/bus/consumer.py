"""Events from JetStream to a handler: at least once, over all processes that share a durable name.

The handler's outcome decides. It returns: acknowledged. It raises Poison or Invalid: never delivered again (counted,
logged). It raises Unavailable, TimedOut, Exhausted or Conflict: delivered again for as long as the stream retains it,
because an hour without a database is no fault of the event. It raises anything else: delivered again after a growing
pause, and dropped as poison after FAILURES_MAX such failures. The stream retains dropped events until they expire.

nats.py's own `fetch(n)` waits for all n until its time-out once the first has come, so we pull ourselves: one request
for as many as we have room for, and each message is handled as it arrives.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from callwarden.common import trace
from callwarden.common.bus.streams import Stream
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.kernel.errors import Conflict, Exhausted, Invalid, TimedOut, Unavailable

log = get_logger(__name__)

CONCURRENCY_DEFAULT: Final = 64  # one group commit's worth
ACK_WAIT_S: Final = 30.0  # A handler that takes longer is dead, and its message goes to another process.
FAILURES_MAX: Final = 20  # of one event in one process; with the pauses below about ten minutes of trying
FAILURES_KEPT: Final = 10_000  # events whose failures are remembered; more at once means that nothing works at all
PAUSES_S: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0)  # before the next delivery, the last one repeated
UNAVAILABLE_PAUSE_MAX_S: Final = 5.0  # what was away is back soon, and then lines wait to be freed
PULL_EXPIRES_S: Final = 10.0
REFUSED_PAUSE_S: Final = 0.5
PULL_GRACE_S: Final = 5.0  # the server's answer to an expired pull takes this long at most, or it is lost

CONSUMED = Metric(
    "callwarden_bus_consumed_total",
    "counter",
    "{messages}",
    "Events handled: done, retried or given up (poison).",
    labels=("consumer", "result"),
)


class Poison(Exception):
    """Raised by a handler for an event that it will never be able to handle."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event. `message_id` is what its publisher called it; `deliveries` counts from 1."""

    subject: str
    payload: bytes
    message_id: str
    deliveries: int
    sequence: int


class Consumer:
    """A durable pull consumer and the tasks that handle what it brings."""

    def __init__(
        self,
        client: Client,
        jetstream: JetStreamContext,
        metrics: Metrics,
        stream: Stream,
        durable: str,
        subject: str,
        handler: Callable[[Delivery], Awaitable[None]],
        concurrency: int,
        on_reconnect: Callable[[Callable[[], Awaitable[None]]], Callable[[], None]],
    ) -> None:
        self._client = client
        self._jetstream = jetstream
        self._stream, self._durable, self._subject = stream.value, durable, subject
        self._handler = handler
        self._concurrency = concurrency
        self._on_reconnect = on_reconnect
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0  # of the current pull request, not delivered yet
        self._wake = asyncio.Event()
        self._stopping = False
        self._failures: dict[int, int] = {}  # by stream sequence, the longest unseen first
        self._trouble = ""  # what the server said against the current pull
        self._done = metrics.counter(CONSUMED, durable, "done")
        self._retried = metrics.counter(CONSUMED, durable, "retried")
        self._poison = metrics.counter(CONSUMED, durable, "poison")

    async def run(self, stopping: asyncio.Event) -> None:
        """Handle events until `stopping`, then finish those in hand."""
        await self._declare(stopping)
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox, cb=self._receive)
        forget = self._on_reconnect(self._reconnected)
        watcher = asyncio.create_task(self._watch(stopping))
        try:
            while not self._stopping:
                self._trouble = ""
                await self._pull(inbox)
                if self._trouble and not self._stopping:
                    log.warning("consumer.pull_refused", consumer=self._durable, reason=self._trouble)
                    await asyncio.sleep(REFUSED_PAUSE_S)
                    await self._declare(stopping)
        finally:
            watcher.cancel()
            forget()
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _watch(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._stopping = True
        self._wake.set()

    async def _declare(self, stopping: asyncio.Event) -> None:
        config = api.ConsumerConfig(
            durable_name=self._durable,
            filter_subject=self._subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_deliver=-1,  # we give up by ourselves, and say so
            max_ack_pending=20_000,
        )
        while not stopping.is_set():
            try:
                await self._jetstream.add_consumer(self._stream, config)
                return
            except (nats.errors.Error, TimeoutError) as error:
                log.warning("consumer.declare_failed", error=error, consumer=self._durable)
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await stopping.wait()

    async def _pull(self, inbox: str) -> None:
        """Ask for as many as there is room for, and wait until they have come or the server says that there are no
        more.
        """
        while len(self._tasks) >= self._concurrency and not self._stopping:
            self._wake.clear()
            await self._wake.wait()
        if self._stopping:
            return
        self._asked = self._concurrency - len(self._tasks)
        request = {"batch": self._asked, "expires": int(PULL_EXPIRES_S * 1e9)}
        try:
            await self._client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}", json.dumps(request).encode(), reply=inbox
            )
        except nats.errors.Error:  # the buffer is full: NATS is away
            self._asked = 0
            await asyncio.sleep(0.5)
            return
        with suppress(TimeoutError):  # an answer that was lost: ask again
            async with asyncio.timeout(PULL_EXPIRES_S + PULL_GRACE_S):
                while self._asked > 0 and not self._stopping:
                    self._wake.clear()
                    await self._wake.wait()

    async def _reconnected(self) -> None:
        """What was asked is forgotten by a server that restarted."""
        self._asked = 0
        self._wake.set()

    async def _receive(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status") if not message.reply else None
        if status is not None:
            if status != "100":  # a heartbeat; anything else: this pull is over
                self._asked = 0
                self._wake.set()
            if status not in ("100", "404", "408"):  # those: no messages, expired
                # 503: there is no consumer by this name: it was deleted, or a server came back without its disk.
                # 409: it has just been deleted, or the server refuses for a reason of its own.
                self._trouble = f"{status} {(message.headers or {}).get('Description', '')}".strip()
            return
        self._asked -= 1
        if self._stopping:
            await message.nak()  # for another process, at once
            return
        task = asyncio.create_task(self._handle(message), name=f"consume {self._durable}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        if self._asked <= 0:
            self._wake.set()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def _handle(self, message: Msg) -> None:
        metadata = message.metadata
        delivery = Delivery(
            message.subject,
            message.data,
            (message.headers or {}).get(api.Header.MSG_ID, ""),
            metadata.num_delivered or 1,
            metadata.sequence.stream,
        )
        # The connection may be away when we answer: the server sends again after ACK_WAIT_S, which is what it's for.
        with suppress(nats.errors.Error):
            try:
                headers = message.headers or {}
                with trace.scope(
                    traceparent=headers.get(trace.TRACEPARENT_KEY, ""), call_id=headers.get(trace.CALL_ID_KEY, "")
                ):
                    await self._handler(delivery)
            except (Poison, Invalid) as error:
                await self._give_up(message, delivery, error)
            except (Unavailable, TimedOut, Exhausted, Conflict) as error:
                await self._retry(message, delivery, error, UNAVAILABLE_PAUSE_MAX_S)
            except Exception as error:  # the boundary: whatever it was, it is tried again
                if self._failed(delivery.sequence) >= FAILURES_MAX:
                    await self._give_up(message, delivery, error)
                else:
                    await self._retry(message, delivery, error, PAUSES_S[-1])
            else:
                await message.ack()
                self._failures.pop(delivery.sequence, None)
                self._done.value += 1

    def _failed(self, sequence: int) -> int:
        """How often this event has failed here by itself. Not its deliveries: an outage makes many of those."""
        failures = self._failures.pop(sequence, 0) + 1
        if len(self._failures) >= FAILURES_KEPT:
            del self._failures[next(iter(self._failures))]
        self._failures[sequence] = failures
        return failures

    async def _retry(self, message: Msg, delivery: Delivery, error: Exception, pause_max_s: float) -> None:
        pause_s = min(PAUSES_S[min(delivery.deliveries, len(PAUSES_S)) - 1], pause_max_s)
        self._retried.value += 1
        log.warning("consumer.retry", error=error, consumer=self._durable, sequence=delivery.sequence, pause_s=pause_s)
        await message.nak(delay=pause_s)

    async def _give_up(self, message: Msg, delivery: Delivery, error: Exception) -> None:
        self._poison.value += 1
        self._failures.pop(delivery.sequence, None)
        log.error(
            "consumer.poison",
            error=error,
            consumer=self._durable,
            subject=delivery.subject,
            message_id=delivery.message_id,
            sequence=delivery.sequence,
        )
        await message.term()
