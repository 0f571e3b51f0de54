"""Reconciles: whatever was told, the whole is read, and what differs from what should be is written.

Level-triggered and idempotent: a process that dies in the middle leaves nothing that the next round doesn't set right.
The order of writes makes that so: finalizers before a policy holds, the bundle before a status says so, and a finalizer
comes off only when the bundle no longer has the policy. Statuses are written beside: what is to be enforced doesn't
wait for 200 of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict, NotFound
from callwarden.policy.bundle import Key, PolicySet
from callwarden.security_policy_operator.core.plan import Plan, Source, Verdict, plan, unknown
from callwarden.security_policy_operator.core.status import (
    BEHIND_S,
    Ack,
    Event,
    Held,
    moment_of,
    revision_of,
    status_of,
    transitions,
)
from callwarden.security_policy_operator.ports import Bundles, Cluster, Others

log = get_logger(__name__)

POLICIES: Final = {"SecurityPolicy": "securitypolicies", "ClusterSecurityPolicy": "clustersecuritypolicies"}
FINALIZER: Final = "callwarden.io/in-force"
GATHER_S: Final = 0.05  # `kubectl apply` of 200 policies is a few rounds, not 200
RETRY_S: Final = 0.5
RETRY_MAX_S: Final = 30.0
_AT_ONCE: Final = 8  # patches under way


@dataclass(slots=True)
class Counts:
    """What came of it, since this process leads."""

    rounds: dict[str, int] = field(default_factory=dict)
    """By how they ended."""
    accepted: int = 0
    refused: int = 0
    apply_s: float = 0.0
    """From writing the last bundle until every pod ran it."""


@dataclass(slots=True)
class _Seen:
    """What the last round of reconciling saw and did."""

    sources: list[Source]
    wanted: Plan
    held: PolicySet
    written_s: float


class Operator:
    """`lead` while this process is the leader, `follow_acks` always."""

    def __init__(
        self,
        cluster: Cluster,
        bundles: Bundles,
        clock: Clock,
        *,
        me: str,
        resync_s: float,
        others: Sequence[Others] = (),
    ) -> None:
        """`me`: this process, as Events name it. Everything is looked at anew after `resync_s`, told or not."""
        self._cluster, self._bundles, self._clock = cluster, bundles, clock
        self._me, self._resync_s = me, resync_s
        self._others = {other: asyncio.Event() for other in others}
        self._acks: dict[str, Ack] = {}
        self._acks_known = asyncio.Event()
        self._dirty = asyncio.Event()
        self._to_report = asyncio.Event()
        self._seen: _Seen | None = None
        self._next_s = 0.0  # Unix time at which a status changes by itself
        # By policy the revision since which its present form holds, where this process wrote it.
        self._since: dict[Key, int] = {}
        self._written_revision = -1
        self._is_applied = True
        self.counts = Counts()

    def changed(self) -> None:
        """Something may be different: look at it all."""
        for dirty in (self._dirty, *self._others.values()):
            dirty.set()

    async def follow_acks(self) -> None:
        """Keep in mind who runs what; for ever."""
        async for said in self._bundles.acks():
            if said is None:
                self._acks_known.set()
                continue
            process, ack = said
            if self._acks.get(process) == ack:
                continue  # processes repeat themselves
            if ack is None:
                del self._acks[process]
            else:
                self._acks[process] = ack
            self._to_report.set()

    async def lead(self) -> None:
        """Reconcile; for ever. Policies don't wait for the others, whose services may be away."""
        await self._acks_known.wait()
        self._seen, self._written_revision = None, -1  # another one may have led meanwhile
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._reconcile, self._dirty, lambda: self._resync_s))
            group.create_task(self._repeat(self._report, self._to_report, self._until_next_s))
            for other, dirty in self._others.items():
                group.create_task(self._repeat(other.reconcile, dirty, self._pause_of(other)))

    async def _repeat(
        self, reconcile: Callable[[], Awaitable[None]], dirty: asyncio.Event, pause_s: Callable[[], float]
    ) -> None:
        """A round now, and one whenever something changed or the pause is over; for ever."""
        dirty.set()
        failures = 0
        while True:
            retry_s = min(RETRY_MAX_S, RETRY_S * 2 ** (failures - 1))
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_s if failures else pause_s()):
                    await dirty.wait()
            await asyncio.sleep(GATHER_S)
            dirty.clear()
            try:
                await reconcile()
            except Conflict:
                result = "conflict"  # somebody was quicker: what they did is seen in the next round
                dirty.set()
            except CallwardenError as error:
                result = "failed"
                failures = min(failures + 1, 10)
                log.warning("reconcile.failed", error=error)
            else:
                result, failures = "done", 0
            self.counts.rounds[result] = self.counts.rounds.get(result, 0) + 1

    def _pause_of(self, other: Others) -> Callable[[], float]:
        return lambda: min(self._resync_s, other.pause_s())

    def _until_next_s(self) -> float:
        return max(0.0, self._next_s - self._clock.unix_s()) if self._next_s else self._resync_s

    async def _reconcile(self) -> None:
        sources = await self._sources()
        held, written_s, sequence = await self._bundles.read()
        # Beside the loop, which renews the Lease: a thousand policies that don't fit together take seconds.
        wanted = await asyncio.to_thread(plan, sources, held)
        await _all(
            self._hold(source) for source in sources if not source.is_leaving and FINALIZER not in source.finalizers
        )
        if held.revision != self._written_revision:
            self._since.clear()  # another process wrote it
        if wanted.differs(held):
            if strange := unknown(held, {source.key: None for source in sources}):
                log.warning("bundle.not_of_the_cluster", removed=strange[:20])
            before = {document.key: document for document in held.documents}
            held = PolicySet.build(held.revision + 1, wanted.documents)
            written_s = self._clock.unix_s()
            await self._bundles.write(held, written_s, sequence)
            for document in held.documents:
                if before.get(document.key) != document:
                    self._since[document.key] = held.revision
            self._written_revision = held.revision
            self._is_applied = False
            log.info("bundle.written", revision=held.revision, policies=len(held.documents))
        self._seen = _Seen(sources, wanted, held, written_s)
        self._to_report.set()
        await _all(self._let_go(source) for source in sources if source.is_leaving)

    async def _sources(self) -> list[Source]:
        found = await asyncio.gather(*(self._cluster.list(plural) for plural in POLICIES.values()))
        return [
            Source({"apiVersion": "callwarden.io/v1", "kind": kind, **body})
            for kind, bodies in zip(POLICIES, found, strict=True)
            for body in bodies
        ]

    async def _report(self) -> None:
        seen = self._seen
        if seen is None:
            return
        now_s = self._clock.unix_s()
        stressed = seen.held.at(now_s).stressed
        acks = list(self._acks.values())
        refused, behind = 0, False
        work: list[Awaitable[None]] = []
        for index, source in enumerate(seen.sources):
            verdict = seen.wanted.verdicts.get(source.key)
            if verdict is None:
                continue  # it is being deleted
            refused += not verdict.accepted
            revision = revision_of(source, verdict, self._since.get(source.key, 0), seen.held.revision)
            stands = Held(revision, seen.written_s, _is_stressed(verdict, stressed))
            status = status_of(source, verdict, stands, acks, now_s)
            behind |= any(service["running"] < service["pods"] for service in status["services"])
            if status != source.body.get("status"):
                work.append(self._say(seen, index, status))
        await _all(work)
        self.counts.accepted, self.counts.refused = len(seen.wanted.verdicts) - refused, refused
        if not behind and not self._is_applied:
            self._is_applied = True
            self.counts.apply_s = max(0.0, now_s - seen.written_s)
        turns_s = [moment for moment in (seen.held.next_change_s(now_s),) if moment is not None]
        if behind and now_s - seen.written_s <= BEHIND_S:
            turns_s.append(seen.written_s + BEHIND_S + 1.0)
        self._next_s = min(turns_s, default=0.0)

    async def _say(self, seen: _Seen, index: int, status: dict[str, Any]) -> None:
        if seen is not self._seen:
            return  # something newer is to be said
        source = seen.sources[index]
        key = source.key
        # A merge patch keeps what it doesn't name.
        body = {"status": {**status, "revision": status.get("revision")}}
        try:
            await self._cluster.patch(POLICIES[key.kind], key.namespace, key.name, body, status=True)
        except NotFound:
            return  # deleted meanwhile
        seen.sources[index] = Source({**source.body, "status": status})
        await tell(self._cluster, source, transitions(source, status), self._clock.unix_s(), self._me)

    async def _hold(self, source: Source) -> None:
        await self._finalize(source, [*source.finalizers, FINALIZER])

    async def _let_go(self, source: Source) -> None:
        if FINALIZER in source.finalizers:
            await self._finalize(source, [name for name in source.finalizers if name != FINALIZER])

    async def _finalize(self, source: Source, finalizers: list[str]) -> None:
        key = source.key
        metadata = {"finalizers": finalizers, "resourceVersion": source.metadata.get("resourceVersion")}
        try:
            await self._cluster.patch(POLICIES[key.kind], key.namespace, key.name, {"metadata": metadata})
        except NotFound:
            return


async def tell(cluster: Cluster, source: Source, events: Iterable[Event], now_s: float, me: str) -> None:
    """Kubernetes Events about a resource, by the process `me`. They are a courtesy, the status is the word."""
    for event in events:
        try:
            await cluster.tell(source.body, event, moment_of(now_s), me)
        except CallwardenError as error:
            log.debug("event.not_told", error=repr(error))


def _is_stressed(verdict: Verdict, realms: frozenset[str]) -> bool:
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
