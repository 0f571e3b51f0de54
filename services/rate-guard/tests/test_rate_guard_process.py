"""Three processes of rate-guard on a real NATS: shards, bans that all know, death, policy, NATS away."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from callwarden.api.events.v1 import events_pb2
from callwarden.api.policy.v1 import policy_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.bus import Bucket, Bus, KeyValue
from callwarden.common.bus.keys import key_of
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.stream import StreamClient
from callwarden.kernel.errors import CallwardenError, Invalid, Unavailable
from callwarden.limits.rendezvous import ShardMap
from callwarden.local.system import LocalSystem
from callwarden.policy.bundle import Document
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"
NO_DATABASE = "postgresql+asyncpg://nobody@127.0.0.1:1/none"  # rate-guard needs none.
LIMIT = 39_000


class RateGuardProcesses:
    """The processes, and a test that plays the edges."""

    def __init__(self, system: LocalSystem, bus: Bus, streams: list[StreamClient], stubs: list[Any]) -> None:
        self.system = system
        self.bus = bus
        self.streams = streams
        self.stubs = stubs
        self.sequence = 0

    @property
    def bans(self) -> KeyValue:
        return self.bus.kv(Bucket.BANS)

    async def count(self, member: int, *counts: tuple[str, int], sequence: int = 0) -> list[str]:
        """Reports messages of addresses to one member; those it does not own."""
        self.sequence += 1
        request = pb.CountRequest(
            edge="edge",
            sequence=sequence or self.sequence,
            counts=[pb.AddressCount(address=address, messages=messages, verified=True) for address, messages in counts],
        )
        reply = await self.streams[member].call("Count", request, pb.CountReply, timeout_s=5.0)
        return list(reply.not_owned)

    async def owner(self, address: str, members: int) -> int:
        """Which member counts the address, found out by asking as an edge would."""
        owners = [member for member in range(members) if not await self.count(member, (address, 0))]
        assert len(owners) == 1
        return owners[0]

    async def listed(self, member: int) -> list[str]:
        reply = await unary(self.stubs[member].ListBans, pb.ListBansRequest())
        return sorted(ban.address for ban in reply.bans)

    def lists(self, member: int, *addresses: str) -> Callable[[], Coroutine[Any, Any, bool]]:
        async def probe() -> bool:
            return await self.listed(member) == sorted(addresses)

        return probe

    def shared_by(self, *members: int) -> Callable[[], Coroutine[Any, Any, bool]]:
        """Whether these members own all shards between them, and know it."""
        names = {member: f"rate-guard-{member}" for member in members}
        addresses = [f"198.51.100.{number}" for number in range(100)]
        owner_of = {address: ShardMap(names.values()).owner_of(address) for address in addresses}

        async def probe() -> bool:
            for member, name in names.items():
                try:
                    not_owned = await self.count(member, *((address, 0) for address in addresses))
                except Unavailable:  # The stream reconnects.
                    return False
                if not_owned != [address for address in addresses if owner_of[address] != name]:
                    return False
            return True

        return probe


@asynccontextmanager
async def rig(state_dir: Path, processes: int = 3) -> AsyncIterator[RateGuardProcesses]:
    async with (
        LocalSystem(
            state_dir,
            services={"rate-guard"},
            processes={"rate-guard": processes},
            database_url=NO_DATABASE,
            migrate=False,
        ) as system,
        Bus(system.nats_url, name="test") as bus,
        AsyncExitStack() as stack,
    ):
        streams, stubs = [], []
        for target in system.targets("rate-guard"):
            edge = await stack.enter_async_context(channel(target, system.credentials("edge-proxy")))
            streams.append(await stack.enter_async_context(StreamClient(edge, SERVICE, target=target)))
            admin = await stack.enter_async_context(channel(target, system.credentials("admin")))
            stubs.append(rateguard_pb2_grpc.RateGuardServiceStub(admin))
        found = RateGuardProcesses(system, bus, streams, stubs)
        await eventually(found.shared_by(*range(processes)))
        yield found


@pytest.mark.setting("maxsubsmsgcount", "delbanned")
async def test_a_ban_of_one_is_known_to_all_kept_told_and_lifted_by_any(state_dir: Path) -> None:
    async with rig(state_dir) as h:
        events = await nats.connect(h.system.nats_url)
        heard = await events.subscribe("security.>")
        await events.flush()
        owner = await h.owner("192.0.2.7", 3)
        others = [member for member in range(3) if member != owner]

        assert await h.count(others[0], ("192.0.2.7", 10 * LIMIT)) == ["192.0.2.7"]
        assert await h.count(owner, ("192.0.2.7", LIMIT), ("192.0.2.7", 0)) == []
        last = h.sequence
        await h.count(owner, ("192.0.2.7", LIMIT), sequence=last)  # Delivered twice.
        assert await h.listed(owner) == []

        await h.count(owner, ("192.0.2.7", 1))
        for member in range(3):
            await eventually(h.lists(member, "192.0.2.7"))
        told = await heard.next_msg(timeout=5)
        ban = events_pb2.Ban.FromString(told.data)
        assert (told.subject, ban.address, ban.reason, ban.by) == ("security.banned", "192.0.2.7", "rate", "counter")
        assert ban.evidence == f"{LIMIT + 1} messages in 3m, limit {LIMIT}"
        kept = await h.bans.get(key_of("192.0.2.7"))
        assert kept is not None
        assert events_pb2.Ban.FromString(kept.value) == ban
        assert ban.until_s == ban.since_s + 21_600

        # It can't count against itself before it is lifted, by a member that does not own it.
        removed = await unary(h.stubs[others[1]].RemoveBans, pb.RemoveBansRequest(address="192.0.2.7"))
        assert list(removed.removed) == ["192.0.2.7"]
        assert await h.bans.get(key_of("192.0.2.7")) is None
        assert (await heard.next_msg(timeout=5)).subject == "security.unbanned"
        for member in range(3):
            await eventually(h.lists(member))
        await h.count(owner, ("192.0.2.7", LIMIT))
        assert await h.listed(owner) == []
        await events.close()


@pytest.mark.setting("delbanned")
async def test_bans_by_hand_are_made_at_one_member_and_all_lifted_at_another(state_dir: Path) -> None:
    async with rig(state_dir, processes=2) as h:
        for address, duration_s in (("192.0.2.7", 0), ("2001:DB8::1", 600), ("192.0.2.8:5060", 600)):
            request = pb.AddBanRequest(address=address, reason="guessing passwords", duration_s=duration_s)
            ban = (await unary(h.stubs[0].AddBan, request)).ban
            assert (ban.reason, ban.by, bool(ban.until_s)) == ("guessing passwords", "operator", bool(duration_s))
        await eventually(h.lists(1, "192.0.2.7", "2001:db8::/64", "192.0.2.8:5060"))
        with pytest.raises(Invalid) as caught:
            await unary(h.stubs[0].AddBan, pb.AddBanRequest(address="192.0.2.0/24"))
        assert caught.value.field == "address"
        for neither in (pb.RemoveBansRequest(), pb.RemoveBansRequest(address="192.0.2.7", all=True)):
            with pytest.raises(Invalid):
                await unary(h.stubs[0].RemoveBans, neither)
        removed = await unary(h.stubs[1].RemoveBans, pb.RemoveBansRequest(all=True))
        assert sorted(removed.removed) == ["192.0.2.7", "192.0.2.8:5060", "2001:db8::/64"]
        await eventually(h.lists(0))
        assert await h.bans.items() == {}


async def test_when_a_member_dies_the_others_take_its_shards_and_no_ban_is_lost(state_dir: Path) -> None:
    async with rig(state_dir) as h:
        addresses = [f"192.0.2.{number}" for number in range(30)]
        owners = {address: await h.owner(address, 3) for address in addresses}
        assert set(owners.values()) == {0, 1, 2}
        for address, owner in owners.items():
            await h.count(owner, (address, LIMIT + 1))
        await eventually(h.lists(0, *addresses))
        await h.system.kill("rate-guard", 2)
        await eventually(h.shared_by(0, 1), timeout_s=20.0)
        assert await h.listed(0) == await h.listed(1) == sorted(addresses)
        # One that drains says so, and its shards move without a gap.
        await h.system.stop("rate-guard", 1)
        await eventually(h.shared_by(0))
        await h.system.restart("rate-guard", 2)
        await eventually(h.shared_by(0, 2))
        await eventually(h.lists(2, *addresses))


async def test_counters_survive_a_restart_and_move_to_another_member(state_dir: Path) -> None:
    async with rig(state_dir, processes=2) as h:
        addresses = [f"192.0.2.{number}" for number in range(20)]
        owners = {address: await h.owner(address, 2) for address in addresses}
        assert set(owners.values()) == {0, 1}
        for address, owner in owners.items():
            await h.count(owner, (address, LIMIT))
        await h.system.stop("rate-guard", 1)
        await eventually(h.shared_by(0))
        moved = [address for address, owner in owners.items() if owner == 1]

        async def are_banned() -> bool:
            await h.count(0, *((address, 1) for address in moved))
            return await h.listed(0) == sorted(moved)

        await eventually(are_banned)
        await h.system.restart("rate-guard", 0)
        kept = [address for address, owner in owners.items() if owner == 0]

        async def are_banned_too() -> bool:
            try:
                await h.count(0, *((address, 1) for address in kept))
            except Unavailable:
                return False
            return await h.listed(0) == sorted(addresses)

        await eventually(are_banned_too)


@pytest.mark.setting("firewall-static", "maxsubsmsgcount")
async def test_another_policy_holds_at_once(state_dir: Path) -> None:
    async with rig(state_dir, processes=1) as h:
        await h.count(0, ("192.0.2.7", 100), ("192.0.2.8", 100))
        spec = {"messages": {"perAddress": {"max": 99, "period": "3m"}}, "firewall": {"allow": ["192.0.2.8"]}}
        bundle = policy_pb2.Bundle(revision=7)
        bundle.documents.add(name="strict", json=Document("strict", spec).to_json())
        await h.bus.kv(Bucket.POLICY).put("bundle", bundle.SerializeToString())

        async def is_acknowledged() -> bool:
            acks = await h.bus.kv(Bucket.POLICY_ACKS).items()
            return any(policy_pb2.Ack.FromString(ack.value).revision == 7 for ack in acks.values())

        await eventually(is_acknowledged)
        await h.count(0, ("192.0.2.7", 1), ("192.0.2.8", 1_000))
        await eventually(h.lists(0, "192.0.2.7"))


async def test_what_is_decided_while_nats_is_away_is_kept_when_it_is_back(state_dir: Path) -> None:
    async with rig(state_dir, processes=1) as h:
        await h.system.kill("nats")
        await h.count(0, ("192.0.2.7", LIMIT + 1))
        assert await h.listed(0) == ["192.0.2.7"]
        with pytest.raises(CallwardenError):
            await unary(h.stubs[0].AddBan, pb.AddBanRequest(address="192.0.2.8"), timeout_s=0.5)
        await h.system.restart("nats")

        async def is_kept() -> bool:
            return await h.bans.get(key_of("192.0.2.7")) is not None

        await eventually(is_kept, timeout_s=20.0)
        assert "192.0.2.7" in await h.listed(0)
