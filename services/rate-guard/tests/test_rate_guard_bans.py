"""The contract of ports.BanStore, over NATS and in memory; events; members."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bucket, Bus
from callwarden.common.clock import SystemClock
from callwarden.kernel.clock import Clock
from callwarden.policy.bundle import default_set
from callwarden.rate_guard.adapters import members_nats
from callwarden.rate_guard.adapters.bans_memory import MemoryBanStore
from callwarden.rate_guard.adapters.bans_nats import NatsBanEventPublisher, NatsBanStore, follow_bans, follow_unbans
from callwarden.rate_guard.adapters.snapshots_memory import MemorySnapshotStore
from callwarden.rate_guard.adapters.snapshots_nats import NatsSnapshotStore
from callwarden.rate_guard.app import RateGuard
from callwarden.rate_guard.core.bans import PERMANENT, Ban
from callwarden.rate_guard.core.counters import AddressCounters, AddressReport
from callwarden.rate_guard.core.limits import compile_limits
from callwarden.rate_guard.core.snapshot import BYTES_MAX
from callwarden.rate_guard.ports import BanStore, SnapshotStore
from callwarden.testing.waiting import eventually

if TYPE_CHECKING:
    from callwarden.local.nats import NatsServer

CLOCK: Clock = SystemClock()
HERE = "192.0.2.7"


def ban(target: str = HERE, for_s: float = 600.0, reason: str = "rate") -> Ban:
    unix_s = CLOCK.unix_s()
    until_s = unix_s + for_s if for_s else PERMANENT
    return Ban(target, reason, "39001 messages in 3m, limit 39000", unix_s, until_s, "counter")


@pytest_asyncio.fixture
async def bus(nats_server: "NatsServer") -> AsyncIterator[Bus]:
    async with Bus(nats_server.url, name="test") as connected:
        yield connected


@pytest_asyncio.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.integration)])
async def bans(request: pytest.FixtureRequest) -> AsyncIterator[BanStore]:
    if request.param == "memory":
        yield MemoryBanStore(CLOCK)
        return
    from callwarden.local.nats import NatsServer

    async with (
        NatsServer(request.getfixturevalue("state_dir") / "nats") as server,
        Bus(server.url, name="test") as connected,
    ):
        yield NatsBanStore(connected.kv(Bucket.BANS), CLOCK)


@pytest.mark.parametrize("target", [HERE, f"{HERE}:5060", "2001:db8::1", "[2001:db8::1]:5060"])
async def test_what_is_put_is_there_until_it_is_deleted(bans: BanStore, target: str) -> None:
    assert await bans.get(target) is None
    await bans.delete(target)
    one = ban(target)
    await bans.put(one)
    assert await bans.get(target) == one
    assert await bans.get("192.0.2.70") is None
    await bans.delete(target)
    assert await bans.get(target) is None


async def test_a_ban_replaces_another_on_its_target(bans: BanStore) -> None:
    await bans.put(ban(reason="rate"))
    permanent = ban(reason="by court order", for_s=0)
    await bans.put(permanent)
    assert await bans.get(HERE) == permanent


async def test_a_ban_goes_by_itself_at_its_end(bans: BanStore) -> None:
    await bans.put(ban(for_s=1.0))
    await bans.put(ban("192.0.2.70", for_s=0))

    async def is_gone() -> bool:
        return await bans.get(HERE) is None

    await eventually(is_gone)
    assert await bans.get("192.0.2.70") is not None


@pytest_asyncio.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.integration)])
async def snapshots(request: pytest.FixtureRequest) -> AsyncIterator[SnapshotStore]:
    if request.param == "memory":
        yield MemorySnapshotStore()
        return
    from callwarden.local.nats import NatsServer

    async with (
        NatsServer(request.getfixturevalue("state_dir") / "nats") as server,
        Bus(server.url, name="test") as connected,
    ):
        yield NatsSnapshotStore(connected.kv(Bucket.COUNTERS))


async def test_the_snapshot_of_a_shard_is_the_last_that_was_put(snapshots: SnapshotStore) -> None:
    assert await snapshots.get(0) is None
    for data in (b"\0first", b"x" * BYTES_MAX):
        await snapshots.put(0, data)
        await snapshots.put(255, b"another")
        assert await snapshots.get(0) == data
    assert await snapshots.get(255) == b"another"


def member(bus: Bus) -> RateGuard:
    counters = AddressCounters(compile_limits(default_set().for_realm("")))
    return RateGuard("one", NatsBanStore(bus.kv(Bucket.BANS), CLOCK), Silent(), MemorySnapshotStore(), CLOCK, counters)


class Silent:
    """ports.BanEventPublisher that nobody listens to."""

    def banned(self, ban: Ban) -> None: ...

    def unbanned(self, ban: Ban) -> None: ...


@asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work) for work in works]
    yield
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def listed(guard: RateGuard, *targets: str) -> Callable[[], bool]:
    return lambda: [ban.target for ban in guard.bans] == list(targets)


@pytest.mark.integration
async def test_every_member_follows_the_bans_that_are_put_ended_and_deleted(bus: Bus) -> None:
    guard = member(bus)
    kept = NatsBanStore(bus.kv(Bucket.BANS), CLOCK)
    await kept.put(ban("192.0.2.1", for_s=0))
    async with running(follow_bans(bus.kv(Bucket.BANS), guard)):
        await eventually(listed(guard, "192.0.2.1"))
        await kept.put(ban("192.0.2.2", for_s=1.0))
        await eventually(lambda: guard.ban_count == 2)
        await eventually(lambda: guard.ban_count == 1)  # Told by the store, not found out by our clock.
        await kept.put(ban(f"{HERE}:5060"))
        await eventually(listed(guard, "192.0.2.1", f"{HERE}:5060"))
        await kept.delete("192.0.2.1")
        await eventually(listed(guard, f"{HERE}:5060"))


@pytest.mark.integration
async def test_rubbish_in_the_bucket_is_passed_over(bus: Bus) -> None:
    guard = member(bus)
    kv = bus.kv(Bucket.BANS)
    await kv.put("not-a-key-of-ours", b"\xff\xff")
    await NatsBanStore(kv, CLOCK).put(ban())
    async with running(follow_bans(kv, guard)):
        await eventually(listed(guard, HERE))
        await kv.delete("not-a-key-of-ours")
        await NatsBanStore(kv, CLOCK).put(ban("192.0.2.70"))
        await eventually(lambda: guard.ban_count == 2)


@pytest.mark.integration
async def test_bans_are_published_and_lifting_one_resets_the_owners_counters(bus: Bus) -> None:
    async with AsyncExitStack() as stack:
        events = NatsBanEventPublisher(await stack.enter_async_context(bus.publisher()))
        guard = member(bus)
        await follow_unbans(bus, guard)
        heard: asyncio.Queue[tuple[str, events_pb2.Ban]] = asyncio.Queue()

        async def hear(message: Any) -> None:
            heard.put_nowait((message.subject, events_pb2.Ban.FromString(message.data)))

        await bus.subscribe("security.>", hear)
        await bus.client.flush()
        guard.count("edge", 1, [AddressReport(HERE, 38_000, 0, [])])
        events.banned(ban())
        events.unbanned(ban())
        async with asyncio.timeout(10):
            told = [await heard.get(), await heard.get()]
        assert [(subject, message.address) for subject, message in told] == [
            ("security.banned", HERE),
            ("security.unbanned", HERE),
        ]
        assert told[0][1].evidence == "39001 messages in 3m, limit 39000"
        entry = guard.counters.addresses.peek(HERE)
        assert entry is not None
        await eventually(lambda: entry.messages.total == 0)


def named(name: str) -> events_pb2.Member:
    return events_pb2.Member(service="rate-guard", instance=name, grpc_address="127.0.0.1:1")


@pytest.mark.integration
async def test_members_come_and_go_and_one_that_dies_is_missed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_nats, "TTL_S", 1.0)
    monkeypatch.setattr(members_nats, "EVERY_S", 0.3)
    guard = member(bus)
    kv = bus.kv(Bucket.MEMBERS)
    await kv.put("other-service.x", b"")
    async with running(members_nats.follow_members(kv, guard)), members_nats.membership(kv, named("one")):
        await eventually(lambda: guard.members == ("one",))
        async with members_nats.membership(kv, named("two")):
            await eventually(lambda: guard.members == ("one", "two"))
        await eventually(lambda: guard.members == ("one",))
        async with running(members_nats.beat(kv, named("two"))):
            await eventually(lambda: guard.members == ("one", "two"))
        # It said no goodbye.
        await eventually(lambda: guard.members == ("one",))
