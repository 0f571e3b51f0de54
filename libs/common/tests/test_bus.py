"""The bus on a real NATS server: what is declared, plain messages, metrics, clear errors."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from callwarden.common.bus import Bucket, Bus
from callwarden.common.bus.publisher import PUBLISHED, Publisher
from callwarden.common.bus.streams import BUCKETS, STREAMS, declare
from callwarden.common.metrics import Metrics
from callwarden.kernel.errors import Unavailable
from callwarden.local.nats import NatsServer

pytestmark = pytest.mark.integration


async def test_all_streams_and_buckets_are_declared_by_whoever_comes_first(nats_server: NatsServer) -> None:
    async with AsyncExitStack() as stack:
        buses = await asyncio.gather(
            *(stack.enter_async_context(Bus(nats_server.url, name=str(number))) for number in range(4))
        )
        jetstream = buses[0].jetstream
        for stream, spec in STREAMS.items():
            config = (await jetstream.stream_info(stream.value)).config
            assert (config.subjects, config.max_bytes) == (list(spec.subjects), spec.bytes_max)
        for bucket in BUCKETS:
            config = (await jetstream.stream_info(f"KV_{bucket.value}")).config
            assert config.allow_msg_ttl
            assert config.max_msgs_per_subject == BUCKETS[bucket].history


async def test_declaring_again_keeps_what_is_in_and_brings_changes(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    await bus.kv(Bucket.BANS).put("a", b"1")
    import dataclasses

    larger = dataclasses.replace(BUCKETS[Bucket.BANS], bytes_max=BUCKETS[Bucket.BANS].bytes_max * 2)
    monkeypatch.setitem(BUCKETS, Bucket.BANS, larger)
    await declare(bus.jetstream, 1)
    assert (await bus.jetstream.stream_info("KV_bans")).config.max_bytes == larger.bytes_max
    assert await bus.kv(Bucket.BANS).get("a") is not None


async def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(Unavailable, match=r"^NATS at nats://…@127\.0\.0\.1:1 is not available$"):
        async with Bus("nats://user:hunter2@127.0.0.1:1", name="test", start_timeout_s=0.3):
            pytest.fail("connected to nobody")


async def test_plain_messages_reach_who_listens_and_a_bad_one_ends_nothing(bus: Bus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(message: Any) -> None:
        if message.data == b"bad":
            raise RuntimeError("wrong")
        heard.put_nowait(message.data)

    subscription = await bus.subscribe("rating.changed", handle)
    await bus.client.flush()
    await bus.publish("rating.changed", b"bad")
    await bus.publish("rating.changed", b"good")
    assert await heard.get() == b"good"
    await subscription.unsubscribe()


async def test_metrics_say_what_became_of_events(nats_server: NatsServer) -> None:
    metrics = Metrics()
    async with Bus(nats_server.url, name="test", metrics=metrics) as bus:
        events: Publisher
        async with bus.publisher() as events:
            for number in range(5):
                events.publish("calls.ended", b"", message_id=str(number))
            await events.flush()
        assert metrics.counter(PUBLISHED, "acknowledged").value == 5


async def test_a_tool_that_only_looks_declares_nothing(nats_server: NatsServer) -> None:
    async with Bus(nats_server.url, name="tool", declare=False) as bus:
        with pytest.raises(NotFoundError):
            await bus.jetstream.stream_info("CALLS")
