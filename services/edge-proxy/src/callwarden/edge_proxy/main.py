"""The edge-proxy process: settings, wiring, start."""

import asyncio
import os
from contextlib import suppress
from typing import Any, Final

from callwarden.common.bus import Bucket, Spool
from callwarden.common.logs import get_logger
from callwarden.common.rpc.stream import StreamPool
from callwarden.common.rpc.stream.pool import Ranking
from callwarden.common.runtime import Runtime, run_service
from callwarden.common.settings import split_listen
from callwarden.edge_proxy.adapters import accounts_nats, admission_grpc, auth_grpc, rate_guard_grpc
from callwarden.edge_proxy.adapters import metrics as edge_metrics
from callwarden.edge_proxy.adapters.admission_grpc import GrpcAdmissionClient
from callwarden.edge_proxy.adapters.auth_grpc import GrpcIdentities
from callwarden.edge_proxy.adapters.bans_nats import BansNats
from callwarden.edge_proxy.adapters.events_nats import EventsNats
from callwarden.edge_proxy.adapters.locations_nats import LocationsNats
from callwarden.edge_proxy.adapters.news_nats import NewsNats
from callwarden.edge_proxy.adapters.rate_guard_grpc import GrpcGuard
from callwarden.edge_proxy.adapters.records_nats import RecordsNats
from callwarden.edge_proxy.adapters.udp import UdpSocket
from callwarden.edge_proxy.app import EdgeApp
from callwarden.edge_proxy.core.context import ProxyIdentity
from callwarden.edge_proxy.core.edge import Edge
from callwarden.edge_proxy.core.keys import derive, parse_masters
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.edge_proxy.settings import EdgeSettings, targets
from callwarden.limits import rendezvous
from callwarden.sip.address import endpoint

log = get_logger(__name__)

SYNC_TIMEOUT_S: Final = 15.0  # For locations, bans and peers at start; without them a call is refused that needn't be.


async def wire(settings: EdgeSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    policies = await runtime.policies()
    publisher = await runtime.open(bus.publisher(Spool(settings.spool_dir)))

    def pool(peer: str, service: str, addresses: str, ranking: Ranking, **options: Any) -> StreamPool:
        return StreamPool(
            service,
            targets(addresses),
            ranking,
            credentials=runtime.credentials,
            peer=peer,
            metrics=runtime.metrics,
            **options,
        )

    auth = await runtime.open(pool("auth", auth_grpc.SERVICE, settings.auth_targets, rendezvous.ranking))
    admission = await runtime.open(
        pool("call-admission", admission_grpc.SERVICE, settings.admission_targets, rendezvous.ranking)
    )
    # Its members publish their own addresses; until they have, the settings name all of them.
    guards = await runtime.open(
        pool(
            rate_guard_grpc.PEER,
            rate_guard_grpc.SERVICE,
            settings.rate_guard_targets,
            rate_guard_grpc.only,
            resolve=None,
        )
    )

    listen_host, listen_port = split_listen(settings.sip_listen)
    udp = UdpSocket(
        listen_host,
        listen_port,
        lambda data, source: app.datagram(data, source),
        lambda data: app.send_failed(data),
        receive_buffer_bytes=settings.receive_buffer_bytes,
        metrics=runtime.metrics,
    )
    await runtime.open(udp)  # Bound now, so that its port is known; it is read only when all below is done.
    advertised = endpoint(
        *(split_listen(settings.sip_advertised) if settings.sip_advertised else (listen_host, udp.port))
    )
    realms = settings.realm_names
    edge = Edge(
        ProxyIdentity(advertised, realms),
        derive(parse_masters(settings.nonce_key.get_secret_value())),
        RuleBook(policies.current, realms),
        os.urandom,
        settings.trace_sample_ratio if runtime.tracer.enabled else 0.0,
    )
    policies.on_change(lambda current: edge.apply(RuleBook(current, realms)))
    edge_metrics.observe(runtime.metrics, edge)

    directory = LocationsNats(bus.kv(Bucket.LOCATIONS), edge.locations.put, edge.locations.remove)
    bans = BansNats(bus.kv(Bucket.BANS), edge.source_filter, edge.counters, runtime.clock)
    guard = GrpcGuard(
        guards,
        bus.kv(Bucket.MEMBERS),
        targets(settings.rate_guard_targets),
        settings.instance,
        runtime.metrics,
        runtime.credentials,
        # Milliseconds: an edge makes twenty reports a second, so a restarted one begins above where it ended.
        first_sequence=int(runtime.clock.unix_s() * 1_000),
    )
    records = RecordsNats(
        bus.kv(Bucket.DIALOGS),
        bus.kv(Bucket.MEMBERS),
        settings.instance,
        runtime.clock,
        lambda record: app.adopt(record),
    )
    news = NewsNats(bus, settings.instance, lambda told: app.heard(told))
    events = await runtime.open(EventsNats(publisher, settings.instance, runtime.metrics, os.urandom))
    app = EdgeApp(
        edge,
        runtime.clock,
        identities=GrpcIdentities(auth, settings.auth_timeout_s),
        admission=GrpcAdmissionClient(admission, settings.admission_timeout_s, settings.instance),
        guard=guard,
        directory=directory,
        records=records,
        events=events,
        others=news,
    )

    async def drain() -> None:
        await app.drain(runtime.stopping, settings.drain_timeout_s)
        await records.say_goodbye()

    await news.follow()
    await accounts_nats.follow(bus, edge.sources.forget)
    runtime.spawn("locations-follow", directory.follow())
    runtime.spawn("locations-write", directory.write())
    runtime.spawn("bans-follow", bans.follow())
    runtime.spawn("members-follow", guard.follow())
    runtime.spawn("records-write", records.write())
    runtime.spawn("report-counts", app.report_counts())
    runtime.spawn("report-scanners", app.report_scanners())
    runtime.spawn("drain", drain(), drains=True)
    with suppress(TimeoutError):
        async with asyncio.timeout(SYNC_TIMEOUT_S):
            await directory.synced.wait()
            await bans.synced.wait()
    await asyncio.gather(*(peers.wait_up(SYNC_TIMEOUT_S) for peers in (auth, admission, guards)))
    app.attach(udp)
    runtime.ready_details["sip_port"] = udp.port
    udp.start()
    runtime.spawn("alive", records.stay_alive())
    runtime.spawn("records-follow", records.follow())
    log.info("edge.listening", host=listen_host, port=udp.port, advertised=edge.context.proxy.address)


def main() -> None:
    run_service("edge-proxy", EdgeSettings, wire)


if __name__ == "__main__":
    main()
