"""The operator's rounds: who reconciles when, and again after a failure."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from callwarden.common.follower import Follower
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict
from callwarden.security_policy_operator.app.policies import PLURALS, PolicyReconciler
from callwarden.security_policy_operator.app.realms import RealmBindings
from callwarden.security_policy_operator.app.rounds import Rounds
from callwarden.security_policy_operator.ports import BundleStore, ClusterApi, ResourceReconciler

log = get_logger(__name__)

GATHER_S: Final = 0.05  # `kubectl apply` of 200 policies takes a few rounds, not 200
RETRY_S: Final = 0.5
RETRY_MAX_S: Final = 30.0
POLICIES: Final = PLURALS["SecurityPolicy"]
STATUSES: Final = "statuses"
"""What the rounds of policies and of their statuses are called, beside the kinds' plurals."""


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
        seen: Callable[[str, float], None] = lambda plural, seconds: None,
    ) -> None:
        """`me`: this process, as Events name it. Everything is reconciled after `resync_s`, notified or not. `seen` is
        told for each round with changes, by kind, how long the oldest of them waited until it was carried out."""
        self.rounds = {
            plural: Rounds(clock, partial(seen, plural))
            for plural in (POLICIES, STATUSES, *(each.plural for each in resources))
        }
        self._resync_s = resync_s
        self.policies = PolicyReconciler(cluster, bundles, realms, clock, me, lambda: self._reports.changed())
        self._reports = self._follower(STATUSES, self.policies.report, lambda: self.policies.until_report_s(resync_s))
        # Each with rounds of its own: policies don't wait for services that are away.
        self._reconcilers = {
            POLICIES: self._follower(POLICIES, self.policies.reconcile, lambda: resync_s),
            **{each.plural: self._follower(each.plural, each.reconcile, self._pause_of(each)) for each in resources},
        }

    def changed(self, plural: str = "") -> None:
        """Resources of that kind may be different; all of them where a kind has no rounds of its own."""
        plural = POLICIES if plural in PLURALS.values() else plural
        for name in (plural,) if plural in self._reconcilers else self._reconcilers:
            self.rounds[name].changed()
            self._reconcilers[name].changed()

    async def lead(self) -> None:
        """Reconcile; for ever."""
        await self.policies.acks_known.wait()
        self.policies.forget()
        for rounds in self.rounds.values():
            rounds.forget()
        self.changed()
        async with asyncio.TaskGroup() as group:
            for follower in (self._reports, *self._reconcilers.values()):
                group.create_task(follower.run())

    def _pause_of(self, reconciler: ResourceReconciler) -> Callable[[], float]:
        return lambda: min(self._resync_s, reconciler.pause_s())

    def _follower(self, name: str, reconcile: Callable[[], Awaitable[None]], pause_s: Callable[[], float]) -> Follower:
        async def one_round() -> None:
            end = self.rounds[name].begin()
            try:
                await reconcile()
            except Conflict:
                # Someone else wrote first: the next round sees what they did.
                end("conflict")
                follower.changed()
            except CallwardenError:
                end("failed")
                raise
            else:
                end("done")

        def failed(error: CallwardenError) -> None:
            log.warning("reconcile.failed", resource=name, error=error)

        follower = Follower(one_round, pause_s, failed, retry_s=_retry_s, gather_s=GATHER_S)
        return follower


def _retry_s(failures: int) -> float:
    return min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures - 1, 10))
