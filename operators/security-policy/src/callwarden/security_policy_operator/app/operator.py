"""The operator's rounds: who reconciles when, and again after a failure."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from callwarden.common.follower import Follower
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict
from callwarden.security_policy_operator.app.policies import PolicyReconciler
from callwarden.security_policy_operator.app.realms import RealmBindings
from callwarden.security_policy_operator.ports import BundleStore, ClusterApi, ResourceReconciler

log = get_logger(__name__)

GATHER_S: Final = 0.05  # `kubectl apply` of 200 policies takes a few rounds, not 200
RETRY_S: Final = 0.5
RETRY_MAX_S: Final = 30.0


class SecurityPolicyOperator:
    """`lead` while this process is the leader, `policies.follow_acks` always."""

    def __init__(
        self,
        cluster: ClusterApi,
        bundles: BundleStore,
        realms: RealmBindings,
        clock: Clock,
        *,
        me: str,
        resync_s: float,
        resources: Sequence[ResourceReconciler] = (),
    ) -> None:
        """`me`: this process, as Events name it. Everything is reconciled after `resync_s`, notified or not."""
        self.rounds: Counter[str] = Counter()
        """Since the start, by how they ended: done, conflict, failed."""
        self._resync_s = resync_s
        self.policies = PolicyReconciler(cluster, bundles, realms, clock, me, lambda: self._reports.changed())
        self._reports = self._follower(self.policies.report, lambda: self.policies.until_report_s(resync_s))
        # Each with rounds of its own: policies don't wait for services that are away.
        self._reconcilers = [
            self._follower(self.policies.reconcile, lambda: resync_s),
            *(self._follower(each.reconcile, self._pause_of(each)) for each in resources),
        ]

    def changed(self) -> None:
        """Resources may be different."""
        for follower in self._reconcilers:
            follower.changed()

    async def lead(self) -> None:
        """Reconcile; for ever."""
        await self.policies.acks_known.wait()
        self.policies.forget()
        self.changed()
        async with asyncio.TaskGroup() as group:
            for follower in (self._reports, *self._reconcilers):
                group.create_task(follower.run())

    def _pause_of(self, reconciler: ResourceReconciler) -> Callable[[], float]:
        return lambda: min(self._resync_s, reconciler.pause_s())

    def _follower(self, reconcile: Callable[[], Awaitable[None]], pause_s: Callable[[], float]) -> Follower:
        async def one_round() -> None:
            try:
                await reconcile()
            except Conflict:
                # Someone else wrote first: the next round sees what they did.
                self.rounds["conflict"] += 1
                follower.changed()
            else:
                self.rounds["done"] += 1

        follower = Follower(one_round, pause_s, self._failed, retry_s=_retry_s, gather_s=GATHER_S)
        return follower

    def _failed(self, error: CallwardenError) -> None:
        self.rounds["failed"] += 1
        log.warning("reconcile.failed", error=error)


def _retry_s(failures: int) -> float:
    return min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures - 1, 10))
