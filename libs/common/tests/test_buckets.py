"""Key-value buckets on a real NATS server: revisions, watches, and readings that are whole."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from callwarden.common.bus import Bucket, Bus, Deleted, KeyValue, Put, Synced, ordered
from callwarden.common.bus.ordered import OrderedConsumer
from callwarden.common.bus.streams import BUCKETS
from callwarden.kernel.errors import Conflict, Invalid, Unavailable
from callwarden.local.nats import NatsServer
from callwarden.testing.waiting import eventually

from .bus_helpers import disconnected

pytestmark = pytest.mark.integration


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
