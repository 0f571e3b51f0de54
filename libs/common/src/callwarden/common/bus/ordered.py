"""One reading of a bucket: everything that is in it, then each change, in order and without a gap, or an end.

The watcher of nats.py can't guarantee this. It asks for the number of messages after they may have been sent, so the
end marker sometimes arrives before the first key, and a reader that acts on missing keys would lift every ban. Here the
reply to the consumer's creation gives the number (as in the Go client), each message must be the next in sequence, and
the server's heartbeats name the last one. Anything else ends the reading, and KeyValue.watch starts a new one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.kv import KV_DEL, KV_MARKER_REASON, KV_OP, KV_PURGE

HEARTBEAT_S: Final = 2.0
SILENCE_MAX_S: Final = 2.5 * HEARTBEAT_S  # two heartbeats missed: the consumer is gone
FORGOTTEN_AFTER_S: Final = 30.0  # the server drops a consumer without a listener


@dataclass(frozen=True, slots=True)
class Put:
    """`key` has `value` now. `revision` grows with each change in the bucket."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """`key` is no more: deleted, or its time has come. `revision` 0 if it went while we were not connected."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything that was in the bucket has been said; what follows is news. Said again after each reconnect."""


Change: TypeAlias = Put | Deleted | Synced


class OrderedConsumer:
    """`async with` makes the consumer; raises nats errors when it can't be had."""

    def __init__(self, client: Client, jetstream: JetStreamContext, bucket: str, pattern: str) -> None:
        self._client = client
        self._jetstream = jetstream
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._pattern = pattern
        self._messages: deque[Msg] = deque()  # bounded by the server's flow control
        self._wake = asyncio.Event()
        self._ended = False

    async def __aenter__(self) -> "OrderedConsumer":
        inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(inbox, cb=self._receive)
        try:
            info = await self._jetstream.add_consumer(
                self._stream,
                api.ConsumerConfig(
                    deliver_subject=inbox,
                    deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
                    filter_subject=self._prefix + self._pattern,
                    ack_policy=api.AckPolicy.NONE,
                    max_deliver=1,
                    idle_heartbeat=HEARTBEAT_S,
                    flow_control=True,
                    inactive_threshold=FORGOTTEN_AFTER_S,
                    mem_storage=True,
                    num_replicas=1,
                ),
            )
        except BaseException:
            await self._unsubscribe()
            raise
        delivered = info.delivered.consumer_seq if info.delivered is not None else 0
        self._initial = (info.num_pending or 0) + delivered  # some may be on their way already
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        with suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    async def end(self) -> None:
        """Have `changes` end."""
        self._ended = True
        self._wake.set()

    async def _receive(self, message: Msg) -> None:
        self._messages.append(message)
        self._wake.set()

    async def changes(self) -> AsyncIterator[Change]:
        """What is there, one Synced, what happens; ends when the order can't be promised any more."""
        received = 0
        if not self._initial:
            yield Synced()
        while True:
            message = await self._next()
            if message is None:
                return
            headers = message.headers or {}
            status = headers.get("Status")
            if status is not None:
                if status != "100" or not await self._heartbeat(message, received):
                    return
                continue
            metadata = message.metadata
            received += 1
            if metadata.sequence.consumer != received:
                return
            key = message.subject[len(self._prefix) :]
            revision = metadata.sequence.stream
            # The second header marks what the server itself removed: expired, or purged (ADR-43).
            if headers.get(KV_OP) in (KV_DEL, KV_PURGE) or KV_MARKER_REASON in headers:
                yield Deleted(key, revision)
            else:
                yield Put(key, message.data, revision)
            if received == self._initial:
                yield Synced()

    async def _next(self) -> Msg | None:
        while not self._messages:
            if self._ended:
                return None
            self._wake.clear()
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    await self._wake.wait()
            except TimeoutError:
                return None
        return self._messages.popleft()

    async def _heartbeat(self, message: Msg, received: int) -> bool:
        """Answer flow control; False when the server has sent more than came."""
        headers = message.headers or {}
        if answer_to := message.reply or headers.get("Nats-Consumer-Stalled", ""):
            with suppress(nats.errors.Error):
                await self._client.publish(answer_to)
        last = headers.get("Nats-Last-Consumer")
        return last is None or int(last) == received
