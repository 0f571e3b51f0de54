"""Events are not lost while NATS is away: they wait on disk or in memory, and arrive in order."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from nats.errors import OutboundBufferLimitError

from callwarden.common.bus import Bus, Spool, Stream
from callwarden.common.bus import publisher as publisher_module
from callwarden.common.bus.publisher import PUBLISHED
from callwarden.common.bus.streams import declare
from callwarden.kernel.errors import Exhausted
from callwarden.local.nats import NatsServer

from .bus_helpers import Received, disconnected, messages_in

pytestmark = pytest.mark.integration


async def test_events_wait_on_disk_while_nats_is_away_and_arrive_in_order(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with bus.publisher(Spool(tmp_path)) as events:
        events.publish("calls.ended", b"", message_id="before")
        await events.flush()
        await nats_server.kill()
        for number in range(300):
            events.publish("calls.ended", b"", message_id=f"{number:04}")
            await asyncio.sleep(0)
        await disconnected(bus)
        events.publish("calls.ended", b"", message_id="last")
        await nats_server.restart()
        received = Received()
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", received, concurrency=1))
        ids = await received.ids(302)
        assert ids == ["before", *(f"{number:04}" for number in range(300)), "last"]
        bus.stopping.set()
        await consumer
    assert bus.metrics.counter(PUBLISHED, "lost").value == 0
    assert await messages_in(bus, Stream.CALLS) == 302, "the message ids make a second sending harmless"


async def test_what_is_not_sent_when_the_process_ends_is_sent_by_the_next(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with bus.publisher(Spool(tmp_path)) as events:
        await nats_server.kill()
        await disconnected(bus)
        for number in range(20):
            events.publish("calls.ended", b"", message_id=str(number))
    await nats_server.restart()
    async with Bus(nats_server.url, name="next") as next_bus, next_bus.publisher(Spool(tmp_path)) as events:
        await events.flush()
        assert await messages_in(next_bus, Stream.CALLS) == 20


async def test_a_send_that_fails_in_the_middle_loses_nothing(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, sent = bus.client.publish, 0

    async def failing_once(*args: Any, **options: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 5:
            raise OutboundBufferLimitError
        await publish(*args, **options)

    monkeypatch.setattr(bus.client, "publish", failing_once)
    monkeypatch.setattr(publisher_module, "ACK_TIMEOUT_S", 0.2)
    async with bus.publisher(Spool(tmp_path)) as events:
        for number in range(20):
            events.publish("calls.ended", b"", message_id=str(number))
        await events.flush()
        assert await messages_in(bus, Stream.CALLS) == 20


async def test_an_end_in_the_middle_of_sending_loses_nothing(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, sent = bus.client.publish, 0

    async def hanging(*args: Any, **options: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 5:
            await asyncio.Event().wait()
        await publish(*args, **options)

    monkeypatch.setattr(publisher_module, "CLOSE_WAIT_S", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(bus.client, "publish", hanging)
        async with bus.publisher(Spool(tmp_path)) as events:
            for number in range(20):
                events.publish("calls.ended", b"", message_id=str(number))
    async with bus.publisher(Spool(tmp_path)) as events:
        await events.flush()
    assert await messages_in(bus, Stream.CALLS) == 20


async def test_a_spool_that_cannot_be_sent_stays_and_is_sent_later(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes messages and acknowledges none, then one that does."""
    monkeypatch.setattr(publisher_module, "ACK_TIMEOUT_S", 0.2)
    spool = Spool(tmp_path)
    for number in range(20):
        spool.append("calls.ended", str(number), b"")
    publish, tried = bus.client.publish, asyncio.Event()

    async def nowhere(*args: Any, **options: Any) -> None:
        tried.set()

    async with AsyncExitStack() as stack:
        with monkeypatch.context() as patched:
            patched.setattr(bus.client, "publish", nowhere)
            events = await stack.enter_async_context(bus.publisher(spool))
            events.publish("calls.ended", b"", message_id="20")
            await tried.wait()
            assert len(spool) == 21
        assert bus.client.publish == publish
        await events.flush()
    assert await messages_in(bus, Stream.CALLS) == 21


async def test_without_a_spool_events_wait_in_memory_within_bounds(
    bus: Bus, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "WAITING_MAX", 10)
    async with bus.publisher() as events:
        await nats_server.kill()
        await disconnected(bus)
        for number in range(10):
            events.publish("calls.ended", b"", message_id=str(number))
        with pytest.raises(Exhausted):
            events.publish("calls.ended", b"", message_id="one too many")
        await nats_server.restart()
        await events.flush()
        assert await messages_in(bus, Stream.CALLS) == 10


async def test_what_jetstream_refuses_stays_ours_until_it_takes_it(bus: Bus, tmp_path: Path) -> None:
    await bus.jetstream.delete_stream("CALLS")
    spool = Spool(tmp_path)
    refused = asyncio.Event()
    append = spool.append

    def noting(subject: str, message_id: str, payload: bytes) -> None:
        append(subject, message_id, payload)
        refused.set()

    spool.append = noting  # type: ignore[method-assign]  # to know when; what it does stays
    async with bus.publisher(spool) as events:
        events.publish("calls.ended", b"", message_id="1")
        await refused.wait()
        await declare(bus.jetstream, 1)
        await events.flush()
    assert await messages_in(bus, Stream.CALLS) == 1
