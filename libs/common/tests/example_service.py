"""Keeps bans: everything that libs/common gives a service, on one page."""

from pathlib import Path
from typing import Any

from sqlalchemy import text

from callwarden.api.events.v1 import events_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common import settings
from callwarden.common.bus import Bucket, Deleted, Delivery, Publisher, Put, Spool, Stream, Synced, key_of, parts_of
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric
from callwarden.common.rpc.stream import StreamServicer
from callwarden.common.runtime import Runtime, run_service
from callwarden.kernel.errors import NotFound

log = get_logger(__name__)
REPORTS = Metric("callwarden_example_reports_total", "counter", "{reports}", "Reports of edges.")
BANS = Metric("callwarden_example_bans", "gauge", "{bans}", "Bans in force.")


class Settings(settings.Settings):
    spool_dir: Path  # CALLWARDEN_SPOOL_DIR


class ExampleGrpc(StreamServicer, rateguard_pb2_grpc.RateGuardServiceServicer):  # StreamServicer first
    def __init__(self, runtime: Runtime, bans: set[str], events: Publisher) -> None:
        super().__init__({"Count": (pb.CountRequest, self._count)})  # the hot methods, by short name
        self._reports = runtime.metrics.counter(REPORTS)
        self._bans = bans
        self._events = events

    def _count(self, request: pb.CountRequest) -> pb.CountReply:  # plain, giving a Future, or a coroutine
        self._reports.value += 1  # a plain attribute
        self._events.publish("security.counted", b"", message_id=f"{request.edge}.{request.sequence}")  # never waits
        return pb.CountReply()

    async def Count(self, request: pb.CountRequest, context: Any) -> pb.CountReply:  # the same, unary
        return self._count(request)

    async def ListBans(self, request: pb.ListBansRequest, context: Any) -> pb.ListBansReply:
        return pb.ListBansReply(bans=[pb.BanEntry(address=address) for address in sorted(self._bans)])

    async def RemoveBans(self, request: pb.RemoveBansRequest, context: Any) -> pb.RemoveBansReply:
        raise NotFound("no such ban", field="address")  # a kernel error speaks; anything else becomes INTERNAL

    async def AddBan(self, request: pb.AddBanRequest, context: Any) -> pb.AddBanReply:
        return pb.AddBanReply()


async def wire(settings: Settings, runtime: Runtime) -> None:
    bus = await runtime.bus()  # NATS: connected, streams and buckets declared
    policies = await runtime.policies()  # swapped whole when it changes: ask policies.for_realm(realm) each time
    database = await runtime.database()  # SQLAlchemy
    hot = await runtime.open(await database.hot())  # a bare asyncpg pool for the statements that every call runs
    events = await runtime.open(bus.publisher(Spool(settings.spool_dir)))  # the spool: NATS may be away
    kept, bans = bus.kv(Bucket.BANS), set[str]()

    async def settle(event: Delivery) -> None:  # it returns: done; Poison or Invalid: never again; else: again
        accounts = await hot.transaction(
            "settle", lambda connection: connection.fetchval("SELECT count(*) FROM account")
        )
        log.info("event.settled", message_id=event.message_id, accounts=accounts)

    async def follow_bans() -> None:  # first what is there, then Synced, then changes; survives reconnects
        async for change in kept.watch():
            match change:
                case Put(key, value, _):
                    bans.add(events_pb2.Ban.FromString(value).address)
                case Deleted(key, _):
                    bans.discard(parts_of(key)[0])
                case Synced():
                    log.info("bans.synced", bans=len(bans), lines_max=policies.for_realm("").lines.max)

    await database.transaction("check", lambda connection: connection.execute(text("SELECT 1")))  # retried on 40001
    await kept.put(key_of("192.0.2.1"), events_pb2.Ban(address="192.0.2.1").SerializeToString(), ttl_s=60)
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(ExampleGrpc(runtime, bans, events), runtime.server)
    runtime.metrics.observe(BANS, lambda: len(bans))  # read when somebody asks
    runtime.spawn("settle", bus.consume(Stream.SECURITY, "example", "security.counted", settle), drains=True)
    runtime.spawn("follow-bans", follow_bans())  # if it raises, the process ends with its error


def main() -> None:
    run_service("example", Settings, wire)  # the class: settings that are wrong are a line each and exit 2


if __name__ == "__main__":
    main()
