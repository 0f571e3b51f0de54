"""Bans by rate-guard (ports.BanRegistry): it adds and lifts them; those in force are read from the bucket it writes."""

from typing import TYPE_CHECKING

from callwarden.api.events.v1 import events_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.bus import KeyValue
from callwarden.common.bus.keys import key_of
from callwarden.common.rpc.client import unary
from callwarden.kernel.clock import UnixS
from callwarden.security_policy_operator.core.bans import AppliedBan, BanOrder

if TYPE_CHECKING:
    from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceAsyncStub


class RateGuardBans:
    """Of one rate-guard."""

    def __init__(self, rate_guard: "RateGuardServiceAsyncStub", kv: KeyValue) -> None:
        self._rate_guard, self._kv = rate_guard, kv

    async def get(self, address: str) -> AppliedBan | None:
        entry = await self._kv.get(key_of(address))
        if entry is None:
            return None
        ban = events_pb2.Ban.FromString(entry.value)
        return AppliedBan(ban.reason, ban.until_s)

    async def add(self, order: BanOrder, unix_s: UnixS) -> None:
        duration_s = 0 if order.until_s is None else max(1, round(order.until_s - unix_s))
        request = pb.AddBanRequest(address=order.address, reason=order.reason, duration_s=duration_s)
        await unary(self._rate_guard.AddBan, request)

    async def remove(self, address: str) -> bool:
        return bool((await unary(self._rate_guard.RemoveBans, pb.RemoveBansRequest(address=address))).removed)
