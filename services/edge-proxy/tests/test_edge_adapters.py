"""The edge's adapters against the real thing: NATS and disk; and its settings."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from edge_world import START_S, policy
from pydantic import SecretStr

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bucket, Bus, Delivery, Spool, Stream, key_of
from callwarden.common.metrics import Metrics
from callwarden.edge_proxy.adapters import accounts_nats
from callwarden.edge_proxy.adapters.bans_nats import BansNats
from callwarden.edge_proxy.adapters.events_nats import EventsNats
from callwarden.edge_proxy.adapters.locations_nats import LocationsNats
from callwarden.edge_proxy.core.counters import EdgeCounters
from callwarden.edge_proxy.core.effects import CallEnded, CallStarted, EdgeDecision, StoreLocation
from callwarden.edge_proxy.core.locations import Binding, Location, Locations
from callwarden.edge_proxy.core.rules import Rules
from callwarden.edge_proxy.core.source_filter import SourceFilter
from callwarden.edge_proxy.settings import EdgeSettings
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult
from callwarden.local.nats import NatsServer
from callwarden.sip.address import SocketAddress
from callwarden.testing.clock import NOON_S, FakeClock
from callwarden.testing.waiting import eventually

HOLD = UUID("9a06b950-af52-4b41-b13f-f3222176d61e")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


# Settings.


def test_a_wildcard_needs_an_advertised_address() -> None:
    with pytest.raises(ValueError, match="sip_advertised is needed"):
        EdgeSettings(sip_listen="0.0.0.0:5060", nonce_key=SecretStr("00" * 32))
    made = EdgeSettings(
        sip_listen="0.0.0.0:5060", sip_advertised="sip.example.org:5060", nonce_key=SecretStr("00" * 32)
    )
    assert made.realm_names == ("callwarden.local",)


# NATS.


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus(nats_server.url, name="test") as opened:
        yield opened


def location(*uris: str) -> Location:
    phone = SocketAddress("192.0.2.1", 5060)
    bindings = tuple(Binding(uri, phone, START_S, "call", 3, "account", "<urn:uuid:1>", "phone") for uri in uris)
    return Location("callwarden.local", "alice", bindings)


class DirectoryEdge:
    """One edge's directory with its table."""

    def __init__(self, bus: Bus) -> None:
        self.table = Locations()
        self.directory = LocationsNats(bus.kv(Bucket.LOCATIONS), self.table.put, self.table.remove)
        self._tasks = [asyncio.create_task(self.directory.follow()), asyncio.create_task(self.directory.write())]

    def register(self, *uris: str) -> None:
        found = location(*uris)
        self.table.put(found)
        self.directory.store(StoreLocation(found, 60))

    @property
    def uris(self) -> list[str]:
        found = self.table.get("callwarden.local", "alice")
        return [binding.uri for binding in found.bindings] if found else []

    async def stop(self) -> None:
        # More than once: a cancellation that meets nats-py while it flushes is swallowed there.
        left = set(self._tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)


@pytest.mark.integration
async def test_every_edge_knows_what_one_registers_whole(bus: Bus) -> None:
    one, two = DirectoryEdge(bus), DirectoryEdge(bus)
    stored = location("sip:a@10.0.0.1", "sip:b@10.0.0.2")
    one.directory.store(StoreLocation(stored, 60))
    await eventually(lambda: two.table.get("callwarden.local", "alice") == stored)
    assert two.table.find_account("account", UnixS(START_S - 1)) == [stored]
    one.register()
    await eventually(lambda: two.table.get("callwarden.local", "alice") is None)
    await one.stop()
    await two.stop()


@pytest.mark.integration
async def test_many_changes_of_one_user_end_in_the_last_one_everywhere(bus: Bus) -> None:
    one, two = DirectoryEdge(bus), DirectoryEdge(bus)
    for number in range(50):
        one.register(f"sip:alice@192.0.2.1:{number + 1}")
        assert one.uris == [f"sip:alice@192.0.2.1:{number + 1}"]
    await eventually(lambda: two.uris == ["sip:alice@192.0.2.1:50"])
    two.register("sip:alice@192.0.2.9")
    await eventually(lambda: one.uris == ["sip:alice@192.0.2.9"])
    await one.stop()
    await two.stop()


@pytest.mark.integration
async def test_what_is_registered_while_nats_is_away_is_known_when_it_is_back(
    nats_server: NatsServer, bus: Bus
) -> None:
    one, two = DirectoryEdge(bus), DirectoryEdge(bus)
    await two.directory.synced.wait()
    await nats_server.kill()
    one.register("sip:alice@192.0.2.1")
    assert one.uris
    await nats_server.restart()
    await eventually(lambda: two.uris == ["sip:alice@192.0.2.1"], timeout_s=30)
    await one.stop()
    await two.stop()


@pytest.mark.integration
@pytest.mark.parametrize("ahead_s", [0.0, 3_600.0, -3_600.0])
async def test_bans_hold_and_are_lifted_as_the_bucket_says_whatever_our_clock_says(bus: Bus, ahead_s: float) -> None:
    rules, clock = Rules.compile(policy().for_realm(""), 1), FakeClock()
    source_filter = SourceFilter(rules)
    clock.step_wall(ahead_s)
    task = asyncio.create_task(BansNats(bus.kv(Bucket.BANS), source_filter, EdgeCounters(rules), clock).follow())
    kv = bus.kv(Bucket.BANS)

    def is_banned(in_s: float = 0.0) -> bool:
        return source_filter.judge_address("192.0.2.66", 5060, MonoS(clock.mono_s() + in_s)) is not None

    await kv.put("not-ours", b"\xff\xff")
    key = key_of("192.0.2.66")
    ban = events_pb2.Ban(address="192.0.2.66", since_s=NOON_S, until_s=NOON_S + 60)
    await kv.put(key, ban.SerializeToString())
    await eventually(is_banned)
    assert is_banned(59)
    assert not is_banned(61)
    await kv.put(key, events_pb2.Ban(address="192.0.2.66", since_s=NOON_S, until_s=0).SerializeToString())
    await eventually(lambda: is_banned(61))
    await kv.delete(key)
    await eventually(lambda: not is_banned())
    task.cancel()


@pytest.mark.integration
async def test_events_say_what_happened_with_ids_that_make_them_count_once(bus: Bus, tmp_path: Path) -> None:
    got: asyncio.Queue[Delivery] = asyncio.Queue()

    async def take(delivery: Delivery) -> None:
        got.put_nowait(delivery)

    consumers = [
        asyncio.create_task(bus.consume(stream, f"test-{stream.value}", subject, take))
        for stream, subject in ((Stream.CALLS, "calls.>"), (Stream.SECURITY, "security.>"))
    ]
    async with (
        bus.publisher(Spool(tmp_path)) as publisher,
        EventsNats(publisher, "edge-1", Metrics(), os.urandom) as events,
    ):
        events.started(CallStarted(HOLD, "call", "account", START_S, "carrier", TRACE))
        events.ended(CallEnded(HOLD, "call", "account", START_S, START_S + 5, "caller-bye", 0, "carrier", TRACE))
        for _ in range(2):
            refuse = Refuse(Reason.CALLER_ID, "caller-id", text="no")
            chain = (RuleResult("banned", Mode.ENFORCE), RuleResult("caller-id", Mode.ENFORCE, refused=refuse))
            events.decided(
                EdgeDecision(HOLD, START_S, "call", TRACE, "INVITE", refuse, chain, 7, "account", "192.0.2.1")
            )
        async with asyncio.timeout(20):
            found = {delivery.subject: delivery for delivery in [await got.get() for _ in range(2)]}
        await publisher.flush()
    assert got.empty()
    start, end = events_pb2.CallEvents.FromString(found["calls.batch"].payload).events
    assert (start.started.hold_id, start.started.trunk) == (str(HOLD), "carrier")
    ended = end.ended
    assert (ended.hold_id, ended.reason, ended.ended_at_s, ended.edge) == (
        str(HOLD),
        "caller-bye",
        START_S + 5,
        "edge-1",
    )
    decision = events_pb2.DecisionMade.FromString(found["security.decision"].payload).decision
    assert [(rule.rule, rule.verdict) for rule in decision.rules] == [("banned", "pass"), ("caller-id", "refuse")]
    assert (decision.service, decision.refused.reason) == ("edge-proxy", "caller-id")
    assert decision.trace_id == TRACE[3:35]
    for task in consumers:
        task.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)


async def test_sources_are_forgotten_when_a_trunk_or_a_status_changes(bus: Bus) -> None:
    forgotten: list[str] = []
    await accounts_nats.follow(bus, lambda: forgotten.append("sources"))
    for what in ("limits", "trunk", "status"):
        message = events_pb2.AccountChanged(account_id="alice", what=what)
        await bus.client.publish(accounts_nats.SUBJECT, message.SerializeToString())
    await eventually(lambda: forgotten == ["sources"] * 2)
