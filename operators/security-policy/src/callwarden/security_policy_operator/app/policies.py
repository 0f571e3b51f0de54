"""SecurityPolicy resources become the bundle that services follow, and their status reports which pods enforce it.

Level-triggered and idempotent: each round reads everything and writes what differs from what should be, so a process
that dies in the middle leaves nothing that the next round doesn't correct. The order of writes sees to that: finalizers
before a policy comes into force, the bundle before a status reports it, and a finalizer is removed only when the bundle
no longer has the policy. Statuses are written in the background: enforcement doesn't wait for 200 of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import NotFound
from callwarden.policy.bundle import Key, PolicySet
from callwarden.security_policy_operator.app.managed import notify
from callwarden.security_policy_operator.app.realms import RealmBindings
from callwarden.security_policy_operator.core.plan import PolicyPlan, PolicyVerdict, plan, unknown
from callwarden.security_policy_operator.core.resource import ManagedResource
from callwarden.security_policy_operator.core.status import (
    BEHIND_S,
    Ack,
    AppliedState,
    revision_of,
    status_of,
    transitions,
)
from callwarden.security_policy_operator.ports import BundleStore, ClusterApi

log = get_logger(__name__)

PLURALS: Final = {"SecurityPolicy": "securitypolicies", "ClusterSecurityPolicy": "clustersecuritypolicies"}
FINALIZER: Final = "callwarden.io/in-force"
_AT_ONCE: Final = 8  # patches under way


@dataclass(slots=True)
class PolicyStats:
    """For metrics."""

    accepted: int = 0
    refused: int = 0
    apply_s: float = 0.0
    """From writing the last bundle until every pod enforced it."""


@dataclass(slots=True)
class _Round:
    """What the last round of reconciling read and did."""

    resources: list[ManagedResource]
    plan: PolicyPlan
    applied: PolicySet
    written_s: float


class PolicyReconciler:
    """`reconcile` and `report` in rounds of their own while this process leads, `follow_acks` always."""

    def __init__(
        self,
        cluster: ClusterApi,
        bundles: BundleStore,
        realms: RealmBindings,
        clock: Clock,
        me: str,
        report_due: Callable[[], None],
    ) -> None:
        """`me`: this process, as Events name it. `report_due` is called when `report` has something to write."""
        self._cluster, self._bundles, self._clock, self._me = cluster, bundles, clock, me
        self._realms, self._report_due = realms, report_due
        self._acks: dict[str, Ack] = {}
        self.acks_known = asyncio.Event()
        self._round: _Round | None = None
        self._next_s = 0.0  # Unix time at which a status changes by itself
        # By policy the revision since which its present form is in force, where this process wrote it.
        self._since: dict[Key, int] = {}
        # By uid the status that this process wrote: a round may have read the one before it, and would tell it again.
        self._reported: dict[str, dict[str, Any]] = {}
        self._written_revision = -1
        self._is_applied = True
        self.stats = PolicyStats()

    async def follow_acks(self) -> None:
        """Keep track of which process enforces what; for ever."""
        async for change in self._bundles.acks():
            if change is None:
                self.acks_known.set()
                continue
            process, ack = change
            if self._acks.get(process) == ack:
                continue  # processes repeat themselves
            if ack is None:
                del self._acks[process]
            else:
                self._acks[process] = ack
            self._report_due()

    def forget(self) -> None:
        """Another process may have led in the meantime."""
        self._round, self._written_revision = None, -1
        self._reported.clear()

    async def reconcile(self) -> None:
        """Bring the bundle in line with the resources. Raises Unavailable, and Conflict if someone else wrote it."""
        grants, resources = await self._realms.grants(), await self._list()
        applied, written_s, sequence = await self._bundles.read()
        # Off the loop, which renews the Lease: a thousand policies that contradict each other take seconds.
        wanted = await asyncio.to_thread(plan, resources, applied, grants)
        await _all(
            self._hold(resource)
            for resource in resources
            if not resource.is_deleted and FINALIZER not in resource.finalizers
        )
        if applied.revision != self._written_revision:
            self._since.clear()  # another process wrote it
        if wanted.differs(applied):
            if strangers := unknown(applied, {resource.key: None for resource in resources}):
                log.warning("bundle.not_of_the_cluster", removed=strangers[:20])
            before = {document.key: document for document in applied.documents}
            applied = await asyncio.to_thread(PolicySet.build, applied.revision + 1, wanted.documents)
            written_s = self._clock.unix_s()
            await self._bundles.write(applied, written_s, sequence)
            for document in applied.documents:
                if before.get(document.key) != document:
                    self._since[document.key] = applied.revision
            self._written_revision = applied.revision
            self._is_applied = False
            log.info("bundle.written", revision=applied.revision, policies=len(applied.documents))
        uids = {resource.uid for resource in resources}
        self._reported = {uid: status for uid, status in self._reported.items() if uid in uids}
        self._round = _Round(resources, wanted, applied, written_s)
        self._report_due()
        await _all(self._release(resource) for resource in resources if resource.is_deleted)

    def until_report_s(self, resync_s: float) -> float:
        """How long `report` may wait: until a status changes by itself, else `resync_s`."""
        return max(0.0, self._next_s - self._clock.unix_s()) if self._next_s else resync_s

    async def report(self) -> None:
        """Write the status of all policies of the last round, where it differs. Raises Unavailable."""
        last = self._round
        if last is None:
            return
        unix_s = self._clock.unix_s()
        stressed = last.applied.at(unix_s).stressed
        acks = list(self._acks.values())
        refused, behind = 0, False
        work: list[Awaitable[None]] = []
        for index, resource in enumerate(last.resources):
            verdict = last.plan.verdicts.get(resource.key)
            if verdict is None:
                continue  # it is being deleted
            refused += not verdict.is_carried_out
            revision = revision_of(resource, verdict, self._since.get(resource.key, 0), last.applied.revision)
            state = AppliedState(revision, last.written_s, _is_stressed(verdict, stressed))
            status = status_of(resource, verdict, state, acks, unix_s)
            behind |= any(service["running"] < service["pods"] for service in status["services"])
            if status != resource.body.get("status"):
                work.append(self._write_status(last, index, status))
        await _all(work)
        self.stats.accepted, self.stats.refused = len(last.plan.verdicts) - refused, refused
        if not behind and not self._is_applied:
            self._is_applied = True
            self.stats.apply_s = max(0.0, unix_s - last.written_s)
        changes_s = [moment for moment in (last.applied.next_change_s(unix_s),) if moment is not None]
        if behind and unix_s - last.written_s <= BEHIND_S:
            changes_s.append(last.written_s + BEHIND_S + 1.0)
        self._next_s = min(changes_s, default=0.0)

    async def _list(self) -> list[ManagedResource]:
        found = await asyncio.gather(*(self._cluster.list(plural) for plural in PLURALS.values()))
        return [ManagedResource.of(kind, body) for kind, bodies in zip(PLURALS, found, strict=True) for body in bodies]

    async def _write_status(self, last: _Round, index: int, status: dict[str, Any]) -> None:
        if last is not self._round:
            return  # out of date
        resource = last.resources[index]
        # A merge patch keeps what it doesn't name.
        body = {"status": {**status, "revision": status.get("revision")}}
        if not await self._patch(resource, body, status=True):
            return
        last.resources[index] = ManagedResource({**resource.body, "status": status})
        before = ManagedResource({**resource.body, "status": self._reported.get(resource.uid, resource.status)})
        self._reported[resource.uid] = status
        await notify(self._cluster, resource, transitions(before, status), self._clock.unix_s(), self._me)

    async def _hold(self, resource: ManagedResource) -> None:
        await self._finalize(resource, [*resource.finalizers, FINALIZER])

    async def _release(self, resource: ManagedResource) -> None:
        if FINALIZER in resource.finalizers:
            await self._finalize(resource, [name for name in resource.finalizers if name != FINALIZER])

    async def _finalize(self, resource: ManagedResource, finalizers: list[str]) -> None:
        metadata = {"finalizers": finalizers, "resourceVersion": resource.metadata.get("resourceVersion")}
        await self._patch(resource, {"metadata": metadata})

    async def _patch(self, resource: ManagedResource, body: dict[str, Any], *, status: bool = False) -> bool:
        """False if it has been deleted meanwhile."""
        key = resource.key
        try:
            await self._cluster.patch(PLURALS[key.kind], key.namespace, key.name, body, status=status)
        except NotFound:
            return False
        return True


def _is_stressed(verdict: PolicyVerdict, realms: frozenset[str]) -> bool:
    document = verdict.document
    return (
        document is not None
        and document.spec.get("profile") == "StressTest"
        and (document.realm in realms or (not document.realm and bool(realms)))
    )


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Everything, a few at a time. The first error is raised when all have ended."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Awaitable[None]) -> None:
        async with gate:
            await each

    results = await asyncio.gather(*(one(each) for each in work), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
