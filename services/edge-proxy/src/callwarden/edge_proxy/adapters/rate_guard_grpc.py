"""rate-guard over streams: each address's sums to the member that owns its shard (DESIGN D4). See `ports.Guard`.

Who the members are is in NATS KV; until there are any, the targets of the settings are asked by their own names.
"""

import asyncio
from typing import Final

from google.protobuf.message import DecodeError

from callwarden.api.events.v1 import events_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2, rateguard_pb2_grpc
from callwarden.common.bus import Deleted, KeyValue, Put
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.rpc import client as rpc
from callwarden.common.rpc.client import Credentials
from callwarden.common.rpc.stream import StreamPool
from callwarden.edge_proxy.core.counters import EdgeAddressReport
from callwarden.edge_proxy.core.effects import ScannerSeen
from callwarden.kernel.errors import CallwardenError, Unavailable
from callwarden.kernel.verdict import Reason
from callwarden.limits.rendezvous import ShardMap

log = get_logger(__name__)

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"
PEER: Final = "rate-guard"  # its name among the members, and in its certificate
TIMEOUT_S: Final = 0.5  # Stale reports are dropped.
ADDRESSES_MAX: Final = 2_000  # In one request: 100 KB.

REPORTED = Metric(
    "callwarden_edge_counts_total", "counter", "{addresses}", "Sums of addresses by what became of them.", ("result",)
)


def only(key: str, targets: object) -> tuple[str, ...]:
    """The ranking of a pool whose key is the target itself: no other member may count."""
    return (key,)


class GrpcGuard:
    """Knows the members and asks the right one."""

    def __init__(
        self,
        pool: StreamPool,
        members: KeyValue,
        targets: tuple[str, ...],
        edge: str,
        metrics: Metrics,
        credentials: Credentials | None,
        first_sequence: int = 0,
    ) -> None:
        """`pool` ranks by `only`; `targets` are used while there are no members. Reports are numbered from
        `first_sequence`, which must be above all numbers of an earlier process of this name: else the first reports
        count as repetitions.
        """
        self._pool = pool
        self._members_bucket = members
        self._targets = targets
        self._edge = edge
        self._credentials = credentials
        self._sequence = first_sequence
        self._addresses: dict[str, str] = {}  # instance → host:port
        self._by_key: dict[str, str] = {}  # KV key → instance
        self._map = ShardMap(targets)
        self._sent = metrics.counter(REPORTED, "sent")
        self._lost = metrics.counter(REPORTED, "lost")

    async def follow(self) -> None:
        """Keep the members as the bucket has them; for ever. Only those that rate-guard itself can have put there."""
        async for change in self._members_bucket.watch(f"{PEER}.*"):
            match change:
                case Put(key, value, _):
                    try:
                        member = events_pb2.Member.FromString(value)
                    except DecodeError:
                        continue
                    if member.service != PEER or self._addresses.get(member.instance) == member.grpc_address:
                        continue
                    self._by_key[key] = member.instance
                    self._addresses[member.instance] = member.grpc_address
                case Deleted(key, _):
                    instance = self._by_key.pop(key, None)
                    if instance is None:
                        continue
                    self._addresses.pop(instance, None)
                case _:
                    continue
            await self._changed()

    async def _changed(self) -> None:
        self._map = ShardMap(self._addresses or self._targets)
        await self._pool.update(tuple(self._addresses.values()) or self._targets)
        log.info("rate_guard.members", members=sorted(self._addresses))

    async def report(self, reports: list[EdgeAddressReport]) -> None:
        by_target: dict[str, list[EdgeAddressReport]] = {}
        for report in reports:
            target = self._owner(report.host)
            if target is None:
                self._lost.value += 1
            else:
                by_target.setdefault(target, []).append(report)
        again = [
            report
            for batch in await asyncio.gather(*(self._send(target, given) for target, given in by_target.items()))
            for report in batch
        ]
        # Owned by another member by now. Once: who that is may be known to us only with the next change of members.
        for report in again:
            target = self._owner(report.host)
            if target is None or await self._send(target, [report]):
                self._lost.value += 1

    def _owner(self, host: str) -> str | None:
        member = self._map.owner_of(host)
        return None if member is None else self._addresses.get(member, member)

    async def _send(self, target: str, reports: list[EdgeAddressReport]) -> list[EdgeAddressReport]:
        """Those that the target doesn't own."""
        refused: list[EdgeAddressReport] = []
        for start in range(0, len(reports), ADDRESSES_MAX):
            part = reports[start : start + ADDRESSES_MAX]
            self._sequence += 1
            request = rateguard_pb2.CountRequest(
                edge=self._edge, sequence=self._sequence, counts=[_count(report) for report in part]
            )
            try:
                reply = await self._pool.call(target, "Count", request, rateguard_pb2.CountReply, timeout_s=TIMEOUT_S)
            except CallwardenError:
                self._lost.value += len(part)
                continue
            not_owned = set(reply.not_owned)
            self._sent.value += len(part) - len(not_owned)
            refused += [report for report in part if report.host in not_owned]
        return refused

    async def ban(self, scanner: ScannerSeen) -> None:
        target = self._owner(scanner.source)
        if target is None:
            raise Unavailable("no rate-guard is there")
        request = rateguard_pb2.AddBanRequest(
            address=scanner.source, reason=Reason.SCANNER.value, duration_s=scanner.ban_s
        )
        async with rpc.channel(target, self._credentials, peer=PEER) as channel:
            await rpc.unary(rateguard_pb2_grpc.RateGuardServiceStub(channel).AddBan, request, timeout_s=2.0)


def _count(report: EdgeAddressReport) -> rateguard_pb2.AddressCount:
    return rateguard_pb2.AddressCount(
        address=report.host,
        messages=report.messages,
        wrong=report.wrong,
        verified=report.verified,
        endpoints=[
            rateguard_pb2.EndpointCount(
                address=host if host != report.host else "",
                port=port,
                username=username,
                auth_failures=sums.failures,
                auth_successes=sums.successes,
                challenges=sums.challenges,
            )
            for host, port, username, sums in report.endpoints
        ],
    )
