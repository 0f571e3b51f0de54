"""The process: `callwarden-security-policy-operator`, or `python -m callwarden.security_policy_operator.main`."""

from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceStub
from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceStub
from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceStub
from callwarden.common.bus import Bucket
from callwarden.common.rpc.client import channel
from callwarden.common.runtime import Runtime, run_service
from callwarden.security_policy_operator.adapters import metrics
from callwarden.security_policy_operator.adapters.bans_grpc import RateGuardBans
from callwarden.security_policy_operator.adapters.bundles_nats import NatsBundles
from callwarden.security_policy_operator.adapters.decks_grpc import RatingDecks
from callwarden.security_policy_operator.adapters.kubernetes import Kubernetes
from callwarden.security_policy_operator.adapters.lease import LeaderElection
from callwarden.security_policy_operator.adapters.trunks_grpc import AccountServiceTrunks
from callwarden.security_policy_operator.adapters.watch import ResourceWatch
from callwarden.security_policy_operator.app.bans import BanReconciler
from callwarden.security_policy_operator.app.decks import DeckReconciler
from callwarden.security_policy_operator.app.operator import SecurityPolicyOperator
from callwarden.security_policy_operator.app.policies import PLURALS
from callwarden.security_policy_operator.app.realms import PLURAL as BINDINGS
from callwarden.security_policy_operator.app.realms import RealmBindings
from callwarden.security_policy_operator.app.trunks import TrunkReconciler
from callwarden.security_policy_operator.ports import ResourceReconciler
from callwarden.security_policy_operator.settings import OperatorSettings


async def wire(settings: OperatorSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    cluster = await runtime.open(Kubernetes())
    clock, me = runtime.clock, settings.instance
    realms = RealmBindings(cluster, settings.lease_namespace)
    resources: list[ResourceReconciler] = []
    if settings.rate_guard is not None:
        peer = await runtime.open(channel(settings.rate_guard, runtime.credentials, peer="rate-guard"))
        bans = RateGuardBans(RateGuardServiceStub(peer), bus.kv(Bucket.BANS))
        resources.append(BanReconciler(cluster, bans, realms, clock, me))
    if settings.administration is not None:
        peer = await runtime.open(channel(settings.administration, runtime.credentials, peer="administration"))
        trunks = AccountServiceTrunks(AccountServiceStub(peer))
        resources.append(TrunkReconciler(cluster, trunks, realms, clock, me))
    if settings.rating is not None:
        peer = await runtime.open(channel(settings.rating, runtime.credentials, peer="rating"))
        decks = RatingDecks(RatingServiceStub(peer))
        resources.append(DeckReconciler(cluster, cluster, decks, realms, clock, me))
    bundles = NatsBundles(bus.kv(Bucket.POLICY), bus.kv(Bucket.POLICY_ACKS))
    operator = SecurityPolicyOperator(
        cluster,
        bundles,
        realms,
        clock,
        me=me,
        resync_s=settings.resync_s,
        resources=resources,
        seen=metrics.seen(runtime.metrics),
    )
    election = LeaderElection(cluster, clock, settings.lease_namespace, settings.lease_name, settings.lease_s, me)
    metrics.register(runtime.metrics, operator, resources, election)
    plurals = [*PLURALS.values(), BINDINGS, *(each.plural for each in resources)]
    runtime.spawn("acks", operator.policies.follow_acks())
    runtime.spawn("watch", ResourceWatch(plurals, operator.changed, me).run())
    runtime.spawn("lead", election.run(operator.lead))


def main() -> None:
    run_service("security-policy", OperatorSettings, wire)


if __name__ == "__main__":
    main()
