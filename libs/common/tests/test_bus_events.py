"""Events over a real NATS server arrive, come again where they fail, and are given up where they never work."""

import asyncio
from pathlib import Path

import pytest

from callwarden.common import trace
from callwarden.common.bus import Bus, Delivery, Poison, Spool, Stream
from callwarden.common.bus.consumer import CONSUMED
from callwarden.common.bus.publisher import PUBLISHED
from callwarden.common.bus.streams import MESSAGE_BYTES_MAX
from callwarden.kernel.errors import Conflict, Exhausted, Invalid, TimedOut, Unavailable
from callwarden.local.nats import NatsServer
from callwarden.testing.waiting import eventually

from .bus_helpers import Received, disconnected, messages_in, nothing_left

pytestmark = pytest.mark.integration


async def test_every_event_arrives_once_over_all_processes_of_a_name(bus: Bus, nats_server: NatsServer) -> None:
    received = Received()
    async with Bus(nats_server.url, name="other") as other, bus.publisher() as events:
        consumers = [
            asyncio.create_task(one.consume(Stream.CALLS, "settle", "calls.ended", received, concurrency=16))
            for one in (bus, other)
        ]
        for number in range(500):
            events.publish("calls.ended", b"x" * 100, message_id=str(number))
            events.publish("calls.started", b"not asked for", message_id=f"started-{number}")
        assert sorted(await received.ids(500), key=int) == [str(number) for number in range(500)]
        await events.flush()
        assert await messages_in(bus, Stream.CALLS) == 1000
        for one in (bus, other):
            one.stopping.set()
        await asyncio.gather(*consumers)


async def test_the_same_message_id_is_the_same_event(bus: Bus) -> None:
    async with bus.publisher() as events:
        for _ in range(3):
            events.publish("calls.ended", b"x", message_id="hold.ended")
        await events.flush()
    assert await messages_in(bus, Stream.CALLS) == 1


async def test_trace_and_call_id_go_along_with_an_event(bus: Bus) -> None:
    seen: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def note(delivery: Delivery) -> None:
        seen.set_result((trace.traceparent(), trace.call_id()))

    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with bus.publisher() as events:
        with trace.scope(traceparent=traceparent, call_id="call@host"):
            events.publish("calls.ended", b"x", message_id="1")
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", note))
        assert await seen == (traceparent, "call@host")
        bus.stopping.set()
        await consumer


async def test_what_fails_comes_again_and_holds_up_nothing(bus: Bus) -> None:
    received, attempts = Received(), []

    async def sometimes(delivery: Delivery) -> None:
        attempts.append((delivery.message_id, delivery.deliveries))
        if delivery.message_id == "bad" and delivery.deliveries < 3:
            raise RuntimeError("not yet")
        await received(delivery)

    async with bus.publisher() as events:
        events.publish("calls.ended", b"", message_id="bad")
        events.publish("calls.ended", b"", message_id="good")
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", sometimes))
        assert await received.ids(2) == ["good", "bad"]
        assert [count for message_id, count in attempts if message_id == "bad"] == [1, 2, 3]
        bus.stopping.set()
        await consumer
    assert bus.metrics.counter(CONSUMED, "settle", "retried").value == 2


@pytest.mark.parametrize("error", [Poison("never"), Invalid("wrong")])
async def test_poison_is_given_up_and_counted(bus: Bus, error: Exception) -> None:
    received = Received()

    async def handle(delivery: Delivery) -> None:
        if delivery.message_id == "poison":
            raise error
        await received(delivery)

    async with bus.publisher() as events:
        events.publish("calls.ended", b"", message_id="poison")
        events.publish("calls.ended", b"", message_id="good")
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", handle, concurrency=1))
        await received.ids(1)
        bus.stopping.set()
        await consumer
    assert bus.metrics.counter(CONSUMED, "settle", "poison").value == 1
    await eventually(lambda: nothing_left(bus), what="the server has the answers")


async def test_what_never_works_is_given_up_in_the_end(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callwarden.common.bus.consumer.FAILURES_MAX", 3)
    attempts: list[int] = []
    last = asyncio.Event()

    async def fail(delivery: Delivery) -> None:
        attempts.append(delivery.deliveries)
        if delivery.deliveries == 3:
            last.set()
        raise RuntimeError("never")

    async with bus.publisher() as events:
        events.publish("calls.ended", b"", message_id="1")
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", fail))
        await last.wait()
        bus.stopping.set()
        await consumer
    assert attempts == [1, 2, 3]
    assert bus.metrics.counter(CONSUMED, "settle", "poison").value == 1


async def test_an_outage_makes_no_event_poison(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many deliveries while the database is away, then a failure of another kind: still tried again."""
    monkeypatch.setattr("callwarden.common.bus.consumer.FAILURES_MAX", 2)
    monkeypatch.setattr("callwarden.common.bus.consumer.PAUSES_S", (0.01,))
    received = Received()
    outcomes = iter([Unavailable("away"), Conflict("busy"), TimedOut("slow"), Exhausted("full"), RuntimeError("once")])

    async def handle(delivery: Delivery) -> None:
        if (outcome := next(outcomes, None)) is not None:
            raise outcome
        await received(delivery)

    async with bus.publisher() as events:
        events.publish("calls.ended", b"", message_id="1")
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", handle))
        assert await received.ids(1) == ["1"]
        assert received.deliveries[0].deliveries == 6
        bus.stopping.set()
        await consumer
    assert bus.metrics.counter(CONSUMED, "settle", "poison").value == 0


async def test_a_consumer_that_stops_finishes_what_it_has(bus: Bus) -> None:
    begun, release, done = asyncio.Event(), asyncio.Event(), []

    async def slow(delivery: Delivery) -> None:
        begun.set()
        await release.wait()
        done.append(delivery.message_id)

    async with bus.publisher() as events:
        events.publish("calls.ended", b"", message_id="1")
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", slow))
        await begun.wait()
        bus.stopping.set()
        release.set()
        await consumer
    assert done == ["1"]
    await eventually(lambda: nothing_left(bus), what="the server has the answers")


async def test_concurrency_is_bounded(bus: Bus) -> None:
    running = most = handled = 0
    all_done = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        handled += 1
        if handled == 200:
            all_done.set()

    async with bus.publisher() as events:
        for number in range(200):
            events.publish("calls.ended", b"", message_id=str(number))
        await events.flush()
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", handle, concurrency=4))
        await all_done.wait()
        bus.stopping.set()
        await consumer
    assert 1 <= most <= 4


async def test_a_consumer_that_somebody_deleted_is_made_again(bus: Bus) -> None:
    received = Received()
    async with bus.publisher() as events:
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", received))
        events.publish("calls.ended", b"", message_id="1")
        await received.ids(1)
        await bus.jetstream.delete_consumer("CALLS", "settle")
        events.publish("calls.ended", b"", message_id="2")
        assert "2" in await received.ids(2)
        bus.stopping.set()
        await consumer


async def test_a_consumer_survives_the_death_of_the_server(bus: Bus, nats_server: NatsServer) -> None:
    received = Received()
    async with bus.publisher() as events:
        consumer = asyncio.create_task(bus.consume(Stream.CALLS, "settle", "calls.ended", received))
        events.publish("calls.ended", b"", message_id="before")
        await received.ids(1)
        await nats_server.kill()
        await nats_server.restart()
        events.publish("calls.ended", b"", message_id="after")
        while "after" not in await received.ids(len(received.deliveries) + 1):
            pass
        bus.stopping.set()
        await consumer


@pytest.mark.parametrize(
    ("subject", "payload", "message_id"),
    [
        ("nobody.takes.this", b"", "1"),
        ("calls", b"", "1"),
        ("calls.ended", b"x" * (MESSAGE_BYTES_MAX + 1), "1"),
        ("calls.ended", b"", ""),
        ("calls.ended", b"", "1\r\nNats-Rollup: all"),
        ("calls.ended", b"", "\u00e4"),
    ],
)
async def test_what_could_never_be_sent_is_refused_at_once(
    bus: Bus, tmp_path: Path, subject: str, payload: bytes, message_id: str
) -> None:
    spool = Spool(tmp_path)
    async with bus.publisher(spool) as events:
        with pytest.raises(Invalid):
            events.publish(subject, payload, message_id=message_id)
        assert len(spool) == 0


async def test_a_full_disk_leaves_events_in_memory_and_they_arrive(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with bus.publisher(Spool(tmp_path, bytes_max=600)) as events:
        await nats_server.kill()
        await disconnected(bus)
        for number in range(30):
            events.publish("calls.ended", b"x" * 100, message_id=str(number))
        await nats_server.restart()
        await eventually(lambda: bus.connected)
        await events.flush()
        assert await messages_in(bus, Stream.CALLS) == 30
    assert bus.metrics.counter(PUBLISHED, "lost").value == 0
