"""The edge's adapters against the real thing: sockets, NATS, disk."""

import asyncio
import os
import socket
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
from callwarden.edge_proxy.adapters.admission_grpc import _address
from callwarden.edge_proxy.adapters.bans_nats import BansNats
from callwarden.edge_proxy.adapters.events_nats import EventsNats
from callwarden.edge_proxy.adapters.locations_nats import LocationsNats
from callwarden.edge_proxy.adapters.udp import UdpSocket
from callwarden.edge_proxy.core.counters import EdgeCounters
from callwarden.edge_proxy.core.effects import CallEnded, CallStarted, EdgeDecision, StoreLocation
from callwarden.edge_proxy.core.locations import Binding, Location, Locations
from callwarden.edge_proxy.core.rules import Rules
from callwarden.edge_proxy.core.source_filter import SourceFilter
from callwarden.edge_proxy.settings import EdgeSettings
from callwarden.kernel.errors import Invalid
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult
from callwarden.local.nats import NatsServer
from callwarden.testing.waiting import eventually

HOLD = UUID("9a06b950-af52-4b41-b13f-f3222176d61e")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


# The socket.


class ReceivedDatagrams:
    """What came in, awaited in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[bytes, str, int]] = asyncio.Queue()

    def __call__(self, data: bytes, host: str, port: int) -> None:
        if data == b"explode":
            raise RuntimeError("of our own making")
        self.queue.put_nowait((data, host, port))

    async def next(self) -> tuple[bytes, str, int]:
        async with asyncio.timeout(10):
            return await self.queue.get()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_come_and_go(host: str) -> None:
    first, second = ReceivedDatagrams(), ReceivedDatagrams()
    async with (
        UdpSocket(host, 0, first, receive_buffer_bytes=65_536, metrics=Metrics()) as one,
        UdpSocket(host, 0, second, receive_buffer_bytes=65_536, metrics=Metrics()) as two,
    ):
        one.start()
        two.start()
        one.send(b"ping", (host, two.port))
        data, source, port = await second.next()
        assert (data, source, port) == (b"ping", host, one.port)
        two.send(b"pong", (source, port))
        assert (await first.next())[0] == b"pong"


async def test_what_came_before_the_start_is_not_lost() -> None:
    received = ReceivedDatagrams()
    async with UdpSocket("127.0.0.1", 0, received, receive_buffer_bytes=65_536, metrics=Metrics()) as udp:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"early", ("127.0.0.1", udp.port))
            udp.start()
            assert (await received.next())[0] == b"early"


async def test_a_datagram_that_breaks_us_spoils_neither_the_next_nor_the_process() -> None:
    received = ReceivedDatagrams()
    async with UdpSocket("127.0.0.1", 0, received, receive_buffer_bytes=65_536, metrics=Metrics()) as udp:
        udp.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            for data in (b"explode", b"fine"):
                peer.sendto(data, ("127.0.0.1", udp.port))
            assert (await received.next())[0] == b"fine"


async def test_names_are_looked_up_beside_and_what_waits_is_sent_in_order() -> None:
    received = ReceivedDatagrams()
    async with UdpSocket("127.0.0.1", 0, received, receive_buffer_bytes=65_536, metrics=Metrics()) as udp:
        udp.start()
        for data in (b"one", b"two"):
            udp.send(data, ("localhost", udp.port))
        assert [(await received.next())[0] for _ in range(2)] == [b"one", b"two"]
        udp.send(b"three", ("localhost", udp.port))
        assert (await received.next())[0] == b"three"


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 0), ("127.0.0.1", 99_999), ("2001:db8::1", 5060), ("nowhere.invalid", 5060)]
)
async def test_what_can_not_be_sent_is_counted_and_never_raised(address: tuple[str, int]) -> None:
    metrics = Metrics()
    async with UdpSocket("127.0.0.1", 0, ReceivedDatagrams(), receive_buffer_bytes=65_536, metrics=metrics) as udp:
        udp.send(b"x", address)

        def counted() -> bool:
            (lost,) = [
                samples for metric, samples in metrics.collect() if metric.name == "callwarden_edge_send_lost_total"
            ]
            return sum(sample.value for sample in lost) == 1

        await eventually(counted)


async def test_a_port_that_is_taken_is_said_clearly() -> None:
    async with UdpSocket("127.0.0.1", 0, ReceivedDatagrams(), receive_buffer_bytes=65_536, metrics=Metrics()) as udp:
        with pytest.raises(Invalid, match="can't listen"):
            async with UdpSocket(
                "127.0.0.1", udp.port, ReceivedDatagrams(), receive_buffer_bytes=65_536, metrics=Metrics()
            ):
                pass


# Settings.


def test_a_wildcard_needs_an_advertised_address() -> None:
    with pytest.raises(ValueError, match="sip_advertised is needed"):
        EdgeSettings(sip_listen="0.0.0.0:5060", nonce_key=SecretStr("00" * 32))
    made = EdgeSettings(
        sip_listen="0.0.0.0:5060", sip_advertised="sip.example.org:5060", nonce_key=SecretStr("00" * 32)
    )
    assert made.realm_names == ("callwarden.local",)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("198.51.100.1:5080", ("198.51.100.1", 5080)),
        ("sip.example.org", ("sip.example.org", 5060)),
        ("[2001:db8::1]:5080", ("2001:db8::1", 5080)),
        ("[2001:db8::1]", ("2001:db8::1", 5060)),
    ],
)
def test_addresses_of_routes(text: str, address: tuple[str, int]) -> None:
    assert _address(text) == address


# NATS.


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus(nats_server.url, name="test") as opened:
        yield opened


def location(*uris: str, numbers: tuple[str, ...] = ()) -> Location:
    bindings = tuple(
        Binding(uri, ("192.0.2.1", 5060), START_S, "call", 3, "account", "<urn:uuid:1>", "phone") for uri in uris
    )
    return Location("callwarden.local", "alice", bindings, numbers)


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
    stored = location("sip:a@10.0.0.1", "sip:b@10.0.0.2", numbers=("+4930111",))
    one.directory.store(StoreLocation(stored, 60))
    await eventually(lambda: two.table.get("callwarden.local", "alice") == stored)
    assert two.table.find_number("+4930111", START_S - 1) == stored
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
async def test_bans_hold_and_are_lifted_as_the_bucket_says(bus: Bus) -> None:
    rules = Rules.compile(policy().for_realm(""), 1)
    source_filter = SourceFilter(rules)
    bans = BansNats(bus.kv(Bucket.BANS), source_filter, EdgeCounters(rules))
    task = asyncio.create_task(bans.follow())
    kv = bus.kv(Bucket.BANS)
    await kv.put("not-ours", b"\xff\xff")
    key = key_of("192.0.2.66")
    await kv.put(key, events_pb2.Ban(address="192.0.2.66", until_s=START_S + 60).SerializeToString())
    await eventually(lambda: source_filter.judge_address("192.0.2.66", 5060, START_S) is not None)
    assert source_filter.judge_address("192.0.2.66", 5060, START_S + 61) is None
    await kv.put(key, events_pb2.Ban(address="192.0.2.66", until_s=0).SerializeToString())
    await eventually(lambda: source_filter.judge_address("192.0.2.66", 5060, START_S + 61) is not None)
    await kv.delete(key)
    await eventually(lambda: source_filter.judge_address("192.0.2.66", 5060, START_S) is None)
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
