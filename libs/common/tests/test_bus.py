"""The bus on a real NATS server: events arrive, buckets are watched, and a server that dies loses nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.errors import OutboundBufferLimitError
from nats.js.errors import NotFoundError

from callwarden.common import trace
from callwarden.common.bus import Bucket, Bus, Deleted, Delivery, KeyValue, Poison, Put, Spool, Stream, Synced, ordered
from callwarden.common.bus import publisher as publisher_module
from callwarden.common.bus.consumer import CONSUMED
from callwarden.common.bus.ordered import OrderedConsumer
from callwarden.common.bus.publisher import PUBLISHED, Publisher
from callwarden.common.bus.streams import BUCKETS, MESSAGE_BYTES_MAX, STREAMS, declare
from callwarden.common.metrics import Metrics
from callwarden.kernel.errors import Conflict, Exhausted, Invalid, TimedOut, Unavailable
from callwarden.local.nats import NatsServer
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus(nats_server.url, name="test") as connected:
        yield connected
        connected.stopping.set()


async def messages_in(bus: Bus, stream: Stream) -> int:
    return int((await bus.jetstream.stream_info(stream.value)).state.messages)


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


async def nothing_left(bus: Bus) -> bool:
    info = await bus.jetstream.consumer_info("CALLS", "settle")
    return (info.num_ack_pending, info.num_pending) == (0, 0)


# Events


class Received:
    """What a consumer handled, and when there was enough of it."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._more = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._more.set()

    async def ids(self, count: int) -> list[str]:
        while len(self.deliveries) < count:
            self._more.clear()
            await self._more.wait()
        return [delivery.message_id for delivery in self.deliveries]


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


# While NATS is away


async def disconnected(bus: Bus) -> None:
    await eventually(lambda: not bus.connected, what="the connection ends")


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


# Buckets


class Watch:
    """The changes of a bucket, one by one."""

    def __init__(self, bucket: KeyValue, pattern: str = ">") -> None:
        self._changes = bucket.watch(pattern)

    async def next(self) -> Any:
        return await anext(self._changes)

    async def close(self) -> None:
        await self._changes.aclose()  # type: ignore[attr-defined]  # an async generator, as the port does not say


@pytest_asyncio.fixture
async def bans(bus: Bus) -> KeyValue:
    return bus.kv(Bucket.BANS)


async def test_a_key_is_put_got_and_deleted(bans: KeyValue) -> None:
    assert await bans.get("a") is None
    first = await bans.put("a", b"1")
    second = await bans.put("a", b"2")
    assert second > first
    assert await bans.get("a") == Put("a", b"2", second)
    await bans.put("b.c", b"")
    assert set(await bans.items()) == {"a", "b.c"}
    assert set(await bans.items("b.*")) == {"b.c"}
    await bans.delete("a")
    assert await bans.get("a") is None
    assert set(await bans.items()) == {"b.c"}


async def test_a_revision_makes_a_put_conditional(bans: KeyValue) -> None:
    first = await bans.put("a", b"1", revision=0)
    with pytest.raises(Conflict):
        await bans.put("a", b"2", revision=0)
    second = await bans.put("a", b"2", revision=first)
    with pytest.raises(Conflict):
        await bans.put("a", b"3", revision=first)
    with pytest.raises(Conflict):
        await bans.delete("a", revision=first)
    await bans.delete("a", revision=second)
    assert await bans.get("a") is None


async def test_a_key_that_was_deleted_or_has_expired_may_be_created_anew(bans: KeyValue) -> None:
    await bans.put("deleted", b"1", revision=0)
    await bans.delete("deleted")
    await bans.put("deleted", b"2", revision=0)
    watch = Watch(bans, "brief")
    assert await watch.next() == Synced()
    await bans.put("brief", b"1", ttl_s=1)
    assert isinstance(await watch.next(), Put)
    assert isinstance(await watch.next(), Deleted)
    await bans.put("brief", b"2", revision=0)
    for key in ("deleted", "brief"):
        with pytest.raises(Conflict):
            await bans.put(key, b"3", revision=0)
    await watch.close()


async def test_of_many_who_create_a_key_one_does(bans: KeyValue) -> None:
    ends = await asyncio.gather(*(bans.put("a", b"", revision=0) for _ in range(20)), return_exceptions=True)
    assert [type(end) for end in ends].count(Conflict) == 19


@pytest.mark.parametrize("key", ["", "a b", "a..b", "*", ">"])
async def test_a_key_that_nats_would_misread_is_refused(bans: KeyValue, key: str) -> None:
    with pytest.raises(Invalid):
        await bans.put(key, b"")


async def test_a_value_beyond_the_bound_is_refused(bans: KeyValue) -> None:
    with pytest.raises(Unavailable, match="refuses"):
        await bans.put("a", b"x" * (BUCKETS[Bucket.BANS].value_bytes_max + 1))


async def test_a_watcher_hears_what_is_there_then_what_happens(bans: KeyValue) -> None:
    one = await bans.put("one", b"1")
    watch = Watch(bans)
    assert await watch.next() == Put("one", b"1", one)
    assert await watch.next() == Synced()
    two = await bans.put("two", b"2")
    assert await watch.next() == Put("two", b"2", two)
    await bans.delete("one")
    gone = await watch.next()
    assert isinstance(gone, Deleted)
    assert gone.key == "one"
    await watch.close()


async def test_a_watcher_of_an_empty_bucket_is_synced_at_once(bans: KeyValue) -> None:
    watch = Watch(bans)
    assert await watch.next() == Synced()
    await watch.close()


async def test_a_key_whose_time_has_come_is_gone_and_watchers_hear_it(bans: KeyValue) -> None:
    watch = Watch(bans)
    assert await watch.next() == Synced()
    await bans.put("brief", b"", ttl_s=1)
    assert isinstance(await watch.next(), Put)
    gone = await watch.next()
    assert (type(gone), gone.key) == (Deleted, "brief")
    assert await bans.get("brief") is None
    await watch.close()


async def test_a_watcher_hears_after_a_restart_what_it_missed(
    bus: Bus, bans: KeyValue, nats_server: NatsServer
) -> None:
    kept = await bans.put("kept", b"1")
    await bans.put("deleted", b"1")
    watch = Watch(bans)
    assert {(await watch.next()).key for _ in range(2)} == {"kept", "deleted"}
    assert await watch.next() == Synced()
    await nats_server.kill()
    await disconnected(bus)
    await nats_server.restart()
    async with Bus(nats_server.url, name="other") as other:  # changes while (or just before) our watch is back
        await other.kv(Bucket.BANS).delete("deleted")
        new = await other.kv(Bucket.BANS).put("new", b"2")
        heard: list[Any] = []
        while not {"deleted", "new"} <= {change.key for change in heard if not isinstance(change, Synced)}:
            heard.append(await watch.next())
    assert Put("new", b"2", new) in heard
    assert any(isinstance(change, Deleted) and change.key == "deleted" for change in heard)
    assert Put("kept", b"1", kept) not in heard, "what was told is not told again"
    await watch.close()


async def test_a_watcher_hears_that_the_server_lost_everything(
    bus: Bus, bans: KeyValue, nats_server: NatsServer
) -> None:
    await bans.put("a", b"1")
    watch = Watch(bans)
    assert (await watch.next()).key == "a"
    assert await watch.next() == Synced()
    await bus.jetstream.delete_stream("KV_bans")
    await nats_server.kill()
    await disconnected(bus)
    await nats_server.restart()
    assert await watch.next() == Deleted("a", 0)
    await watch.close()


async def fill(bus: Bus, count: int) -> None:
    for number in range(count):
        await bus.client.publish(f"$KV.bans.{number:05}", b"x" * 200)
    await eventually(lambda: has_keys(bus, count), what="the server has them")


async def has_keys(bus: Bus, count: int) -> bool:
    return (await bus.jetstream.stream_info("KV_bans")).state.messages == count


async def test_a_large_bucket_is_read_whole(bus: Bus, bans: KeyValue) -> None:
    await fill(bus, 20_000)
    assert sorted(await bans.items()) == [f"{number:05}" for number in range(20_000)]


async def test_a_reading_is_whole_each_time(bus: Bus, bans: KeyValue) -> None:
    """nats.py's own watcher now and then says "that is all" too early."""
    await fill(bus, 3)
    for _ in range(200):
        assert sorted(await bans.items()) == ["00000", "00001", "00002"]


async def test_a_reading_with_a_gap_ends_instead_of_being_wrong(bus: Bus) -> None:
    class Lossy(OrderedConsumer):
        received = 0

        async def _receive(self, message: Any) -> None:
            self.received += 1
            if self.received != 5:
                await super()._receive(message)

    await fill(bus, 10)
    async with Lossy(bus.client, bus.jetstream, "bans", ">") as consumer:
        heard = [change async for change in consumer.changes()]
    assert [change.key for change in heard if isinstance(change, Put)] == ["00000", "00001", "00002", "00003"]
    assert Synced() not in heard


async def test_a_watch_whose_last_message_was_lost_notices_by_the_heartbeat(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "HEARTBEAT_S", 0.1)

    class Lossy(OrderedConsumer):
        async def _receive(self, message: Any) -> None:
            if b"lost" not in message.data:
                await super()._receive(message)

    await fill(bus, 1)
    async with Lossy(bus.client, bus.jetstream, "bans", ">") as consumer:
        changes = consumer.changes()
        assert isinstance(await anext(changes), Put)
        assert await anext(changes) == Synced()
        await bus.kv(Bucket.BANS).put("b", b"lost")
        with pytest.raises(StopAsyncIteration):
            await anext(changes)


async def test_a_watcher_whose_consumer_is_gone_makes_another(
    bus: Bus, bans: KeyValue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(ordered, "SILENCE_MAX_S", 0.3)
    watch = Watch(bans)
    assert await watch.next() == Synced()
    (info,) = await bus.jetstream.consumers_info("KV_bans")
    await bus.jetstream.delete_consumer("KV_bans", info.name)
    revision = await bans.put("a", b"1")
    assert await watch.next() == Put("a", b"1", revision)
    await watch.close()


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
