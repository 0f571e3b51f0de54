"""The process: `callwarden-security-policy-operator`, or `python -m callwarden.security_policy_operator.main`."""

from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceStub
from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceStub
from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceStub
from callwarden.common.bus import Bucket
from callwarden.common.rpc.client import channel
from callwarden.common.runtime import Runtime, run_service
from callwarden.security_policy_operator.adapters import bans, decks, metrics, trunks
from callwarden.security_policy_operator.adapters.bans import Bans
from callwarden.security_policy_operator.adapters.bundles_nats import NatsBundles
from callwarden.security_policy_operator.adapters.decks import Decks
from callwarden.security_policy_operator.adapters.kubernetes import Kubernetes
from callwarden.security_policy_operator.adapters.lease import Election
from callwarden.security_policy_operator.adapters.trunks import Trunks
from callwarden.security_policy_operator.adapters.watch import Watch
from callwarden.security_policy_operator.app import POLICIES, Operator
from callwarden.security_policy_operator.ports import Others
from callwarden.security_policy_operator.settings import Settings


async def wire(settings: Settings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    cluster = await runtime.open(Kubernetes())
    me = settings.instance
    others: list[Others] = []
    plurals = list(POLICIES.values())
    if settings.rate_guard is not None:
        stub = RateGuardServiceStub(await runtime.open(channel(settings.rate_guard, runtime.tls, peer="rate-guard")))
        others.append(Bans(cluster, stub, bus.kv(Bucket.BANS), runtime.clock, me))
        plurals.append(bans.PLURAL)
    if settings.call_admission is not None:
        peer = await runtime.open(channel(settings.call_admission, runtime.tls, peer="call-admission"))
        others.append(Trunks(cluster, AccountServiceStub(peer), runtime.clock, me))
        plurals.append(trunks.PLURAL)
    if settings.rating is not None:
        peer = await runtime.open(channel(settings.rating, runtime.tls, peer="rating"))
        others.append(Decks(cluster, RatingServiceStub(peer), runtime.clock, me))
        plurals.append(decks.PLURAL)
    bundles = NatsBundles(bus.kv(Bucket.POLICY), bus.kv(Bucket.POLICY_ACKS))
    operator = Operator(cluster, bundles, runtime.clock, me=me, resync_s=settings.resync_s, others=others)
    election = Election(cluster, runtime.clock, settings.lease_namespace, settings.lease_name, settings.lease_s, me)
    metrics.register(runtime.metrics, operator, election)
    runtime.spawn("acks", operator.follow_acks())
    runtime.spawn("watch", Watch(plurals, operator.changed).run())
    runtime.spawn("lead", election.run(operator.lead))


def main() -> None:
    run_service("security-policy", Settings, wire)


if __name__ == "__main__":
    main()
