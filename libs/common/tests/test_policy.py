"""The policy in force: swapped whole, acknowledged, and never made worse by a bad bundle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from callwarden.api.policy.v1 import policy_pb2
from callwarden.common import policy as module
from callwarden.common.bus import Bucket, Bus, Deleted, Put
from callwarden.common.clock import SystemClock
from callwarden.common.metrics import Metrics
from callwarden.common.policy import BUNDLE_KEY, REFUSED, Policies, ack_key, encode_bundle, parse_bundle
from callwarden.kernel.clock import Clock, MonoS
from callwarden.kernel.errors import Invalid, Unavailable
from callwarden.local.nats import NatsServer
from callwarden.policy.bundle import Document, PolicySet, default_set, parse_yaml
from callwarden.testing.clock import NOON_S, FakeClock
from callwarden.testing.waiting import eventually

POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: lines}
spec: {lines: {max: %d}}
"""


def bundle(revision: int, lines: int = 5) -> bytes:
    policies = PolicySet.build(revision, parse_yaml(POLICY % lines))
    return policy_pb2.Bundle(
        revision=revision,
        documents=[policy_pb2.Document(name=document.name, json=document.to_json()) for document in policies.documents],
    ).SerializeToString()


def test_a_bundle_becomes_the_policies_it_holds() -> None:
    policies = parse_bundle(bundle(7, lines=9))
    assert policies.revision == 7
    assert policies.for_realm("any").lines.max == 9


def test_an_empty_bundle_is_the_default() -> None:
    assert parse_bundle(b"").for_realm("any") == default_set().for_realm("any")


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xff\xff",
        policy_pb2.Bundle(revision=1, documents=[policy_pb2.Document(json="{")]).SerializeToString(),
        policy_pb2.Bundle(revision=1, documents=[policy_pb2.Document(json="[]")]).SerializeToString(),
        policy_pb2.Bundle(revision=1, documents=[policy_pb2.Document(json='{"kind": "x"}')]).SerializeToString(),
    ],
)
def test_something_other_than_a_bundle_is_an_error(value: bytes) -> None:
    with pytest.raises((ValueError, Invalid)):
        parse_bundle(value)


class Process:
    """A process that follows the policy."""

    def __init__(self, bus: Bus, instance: str, clock: Clock | None = None) -> None:
        self.metrics = Metrics()
        self.policies = Policies(bus, "auth", instance, clock or SystemClock(), self.metrics)
        self.swapped: asyncio.Queue[int] = asyncio.Queue()
        self.policies.on_change(lambda policies: self.swapped.put_nowait(policies.revision))

    async def __aenter__(self) -> "Process":
        self._tasks = [
            asyncio.create_task(self.policies.follow()),
            asyncio.create_task(self.policies.acknowledge()),
        ]
        await self.policies.wait_synced()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus(nats_server.url, name="test") as connected:
        yield connected


async def acknowledged(bus: Bus, instance: str) -> int:
    found = await bus.kv(Bucket.POLICY_ACKS).get(ack_key("auth", instance))
    return -1 if found is None else policy_pb2.Ack.FromString(found.value).revision


@pytest.mark.integration
async def test_the_stored_bundle_is_in_force_from_the_start(bus: Bus) -> None:
    await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle(3, lines=4))
    async with Process(bus, "auth-0") as process:
        assert process.policies.current.revision == 3
        assert process.policies.for_realm("x").lines.max == 4


@pytest.mark.integration
async def test_a_process_that_knows_no_policy_does_not_start_with_the_defaults(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_TIMEOUT_S", 0.01)
    unread = Policies(bus, "auth", "auth-0", SystemClock(), Metrics())
    with pytest.raises(Unavailable, match="policy"):
        await unread.wait_synced()


@pytest.mark.integration
async def test_without_a_bundle_the_defaults_apply_and_are_acknowledged(bus: Bus) -> None:
    async with Process(bus, "auth-0") as process:
        assert process.policies.current == default_set()

        async def acknowledged_default() -> bool:
            return await acknowledged(bus, "auth-0") == 0

        await eventually(acknowledged_default)


@pytest.mark.integration
async def test_every_process_swaps_and_acknowledges_a_new_revision(bus: Bus) -> None:
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(Process(bus, f"auth-{number}")) for number in range(3)]
        for revision in (1, 2):
            await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle(revision, lines=revision))
            for number, process in enumerate(processes):
                assert await process.swapped.get() == revision
                assert process.policies.for_realm("x").lines.max == revision

                async def acknowledged_revision(instance: str = f"auth-{number}", wanted: int = revision) -> bool:
                    return await acknowledged(bus, instance) == wanted

                await eventually(acknowledged_revision)


class SlowMachine(FakeClock):
    """A clock by which every step takes longer than the loop is to be kept waiting."""

    def mono_s(self) -> MonoS:
        self.advance(2 * module.SLICE_S)
        return super().mono_s()


def many_realms(revision: int, realms: int) -> bytes:
    spec = {"session": {"ringTimeout": 10 + revision}}
    documents = [Document(f"p{number}", {"realm": f"r{number}.example", **spec}) for number in range(realms)]
    return encode_bundle(PolicySet.build(revision, documents), 0.0)


@pytest.mark.integration
async def test_the_loop_runs_while_many_realms_are_read_and_all_of_them_change_at_once(bus: Bus) -> None:
    realms = 50
    await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, many_realms(1, realms))
    async with Process(bus, "auth-0", SlowMachine()) as process:
        assert await process.swapped.get() == 1
        reading = asyncio.Event()
        seen: list[tuple[int, ...]] = []

        def look() -> None:
            """In every turn of the loop."""
            timeouts = {
                process.policies.for_realm(f"r{number}.example").session.ring_timeout for number in range(realms)
            }
            seen.append((process.policies.current.revision, *timeouts))
            if not reading.is_set():
                asyncio.get_running_loop().call_soon(look)

        look()
        turns_before = len(seen)
        await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, many_realms(2, realms))
        assert await process.swapped.get() == 2
        reading.set()
        assert len(seen) - turns_before >= 2 * realms  # a turn after each document and each realm
        assert set(seen) <= {(1, 11), (2, 12)}


@pytest.mark.integration
async def test_a_bad_bundle_is_counted_and_the_last_good_one_stays(bus: Bus) -> None:
    bucket = bus.kv(Bucket.POLICY)
    async with Process(bus, "auth-0") as process:
        await bucket.put(BUNDLE_KEY, bundle(1, lines=1))
        assert await process.swapped.get() == 1
        await bucket.put(BUNDLE_KEY, b"\xff\xff\xff")
        await bucket.put(BUNDLE_KEY, bundle(2, lines=2))
        assert await process.swapped.get() == 2
        assert process.metrics.counter(REFUSED).value == 1
        await bucket.delete(BUNDLE_KEY)  # nobody's policy is to have none
        await bucket.put(BUNDLE_KEY, bundle(3, lines=3))
        assert await process.swapped.get() == 3
        assert process.swapped.empty()


@pytest.mark.integration
async def test_a_bundle_that_a_listener_rejects_is_not_acknowledged_and_the_next_one_is(bus: Bus) -> None:
    async with Process(bus, "auth-0") as process:

        def fail(policies: PolicySet) -> None:
            if policies.revision == 2:
                raise RuntimeError("compiles nothing")

        process.policies.on_change(fail)
        process.policies.on_change(lambda policies: process.swapped.put_nowait(-policies.revision))
        heard: list[int] = []

        async def listen() -> None:
            async for change in bus.kv(Bucket.POLICY_ACKS).watch():
                heard.extend([policy_pb2.Ack.FromString(change.value).revision] if isinstance(change, Put) else [])

        listening = asyncio.create_task(listen())
        for revision in (1, 2, 3):
            await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle(revision))
            assert [await process.swapped.get() for _ in range(2)] == [revision, -revision]
            told = {1: [1], 2: [1, 1], 3: [1, 1, 3]}[revision]
            await eventually(lambda told=told: [one for one in heard if one] == told)  # type: ignore[misc]
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


@pytest.mark.integration
async def test_the_last_policy_stays_while_nats_is_away_and_a_new_one_follows(
    bus: Bus, nats_server: NatsServer
) -> None:
    await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle(1, lines=1))
    async with Process(bus, "auth-0") as process:
        await nats_server.kill()
        await eventually(lambda: not bus.connected)
        assert process.policies.for_realm("x").lines.max == 1
        await nats_server.restart()
        await eventually(lambda: bus.connected)
        await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle(2, lines=2))
        assert await process.swapped.get() in (1, 2)
        await eventually(lambda: process.policies.current.revision == 2)


@pytest.mark.integration
async def test_an_acknowledgement_is_repeated_and_retracted_when_the_process_ends(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACK_EVERY_S", 0.1)
    acks = bus.kv(Bucket.POLICY_ACKS)
    async with Process(bus, "auth-0"):
        changes = acks.watch()
        revisions: list[int] = []
        while len(revisions) < 3:
            change = await anext(changes)
            if isinstance(change, Put):
                revisions.append(change.revision)
        assert revisions == sorted(set(revisions))
    assert await acks.items() == {}


@pytest.mark.integration
async def test_the_acknowledgement_of_a_killed_process_expires(
    bus: Bus, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACK_TTL_S", 1)
    changes = bus.kv(Bucket.POLICY_ACKS).watch()
    async with Bus(nats_server.url, name="killed") as own:
        killed = Process(own, "auth-0")
        await killed.__aenter__()
        while not isinstance(await anext(changes), Put):
            pass
    await killed.__aexit__(None, None, None)  # its connection is gone: it can't say anything more
    while not isinstance(await anext(changes), Deleted):
        pass


@pytest.mark.integration
@pytest.mark.setting("stress-test")
async def test_a_stress_test_begins_and_ends_without_a_new_bundle(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACK_EVERY_S", 0.01)
    clock = FakeClock()
    starts = (datetime.fromtimestamp(NOON_S, UTC) + timedelta(minutes=1)).isoformat()
    text = f"""
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {{name: test}}
spec: {{profile: StressTest, stressTest: {{startsAt: "{starts}", duration: 10m}}, firewall: {{level: 5}}}}
"""
    (document,) = parse_yaml(text)
    value = policy_pb2.Bundle(revision=1, documents=[policy_pb2.Document(name="test", json=document.to_json())])
    await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, value.SerializeToString())
    async with Process(bus, "auth-0", clock) as process:
        levels = []
        for _ in range(3):
            await process.swapped.get()
            levels.append(process.policies.for_realm("x").firewall.level)
            clock.advance(60 if levels == [5] else 600)
    assert levels == [5, 0, 5]
