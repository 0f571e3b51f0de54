"""The process: `callwarden-rate-guard`, or `python -m callwarden.rate_guard.main`."""

import asyncio
import socket

from callwarden.api.events.v1 import events_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.bus import Bucket, KeyValue
from callwarden.common.runtime import Runtime, run_service
from callwarden.common.settings import split_listen
from callwarden.policy.bundle import PolicySet
from callwarden.rate_guard.adapters import bans_nats, members_nats, metrics
from callwarden.rate_guard.adapters.bans_nats import NatsBanEventPublisher, NatsBanStore
from callwarden.rate_guard.adapters.grpc_server import RateGuardServicer
from callwarden.rate_guard.adapters.snapshots_nats import NatsSnapshotStore
from callwarden.rate_guard.app import RateGuard
from callwarden.rate_guard.core.counters import AddressCounters
from callwarden.rate_guard.core.limits import compile_limits
from callwarden.rate_guard.settings import RateGuardSettings


async def wire(settings: RateGuardSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    bans, members = bus.kv(Bucket.BANS), bus.kv(Bucket.MEMBERS)
    events = NatsBanEventPublisher(await runtime.open(bus.publisher()))
    policies = await runtime.policies()
    own = settings.own_networks()
    limits = compile_limits(policies.for_realm(settings.realm), own)
    counters = AddressCounters(limits, settings.addresses_max, settings.endpoints_max)
    snapshots = NatsSnapshotStore(bus.kv(Bucket.COUNTERS))
    app = RateGuard(settings.instance, NatsBanStore(bans, runtime.clock), events, snapshots, runtime.clock, counters)

    def policy_changed(policy_set: PolicySet) -> None:
        app.apply(compile_limits(policy_set.for_realm(settings.realm), own))

    policies.on_change(policy_changed)
    metrics.register(runtime.metrics, app)
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(RateGuardServicer(app), runtime.server)
    await bans_nats.follow_unbans(bus, app)
    runtime.spawn("bans-follow", bans_nats.follow_bans(bans, app))
    runtime.spawn("bans-write", app.write_bans())
    runtime.spawn("expire", app.expire())
    runtime.spawn("members-follow", members_nats.follow_members(members, app))
    runtime.spawn("snapshots-load", app.load_snapshots())
    runtime.spawn("member", _be_member(settings, runtime, app, members), drains=True)


async def _be_member(settings: RateGuardSettings, runtime: Runtime, app: RateGuard, members: KeyValue) -> None:
    """A member from when we can be reached until we stop. Then the edges report to others before we stop answering, and
    those find our last snapshots."""
    while not runtime.server.port:  # noqa: ASYNC110 - bound as soon as everything is wired; there is no event for it
        await asyncio.sleep(0.01)
    member = events_pb2.Member(
        service=members_nats.SERVICE,
        instance=settings.instance,
        grpc_address=settings.advertise or _reached_at(settings.grpc_listen, runtime.server.port),
        started_at_s=runtime.clock.unix_s(),
    )
    async with members_nats.membership(members, member):
        await app.save_snapshots(runtime.stopping)


def _reached_at(listen: str, port: int) -> str:
    host, _ = split_listen(listen)
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = socket.gethostbyname(socket.gethostname())
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def main() -> None:
    run_service("rate-guard", RateGuardSettings, wire)


if __name__ == "__main__":
    main()
