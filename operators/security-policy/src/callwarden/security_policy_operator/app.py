"""Reconciles: whatever was told, the whole is read, and what differs from what should be is written.

Level-triggered and idempotent: a process that dies in the middle leaves nothing that the next round doesn't set right.
The order of writes makes that so: finalizers before a policy holds, the bundle before a status says so, and a finalizer
comes off only when the bundle no longer has the policy.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict, NotFound
from callwarden.policy.bundle import PolicySet
from callwarden.security_policy_operator.core.plan import Plan, Source, Verdict, plan, unknown
from callwarden.security_policy_operator.core.status import BEHIND_S, Ack, Held, moment_of, status_of, transitions
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
        self._me, self._resync_s, self._others = me, resync_s, others
        self._acks: dict[str, Ack] = {}
        self._acks_known = asyncio.Event()
        self._dirty = asyncio.Event()
        self._next_s = 0.0  # Unix time at which something changes by itself
        self._is_applied = True
        self.counts = Counts()

    def changed(self) -> None:
        """Something may be different: look at it all."""
        self._dirty.set()

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
            self._dirty.set()

    async def lead(self) -> None:
        """Reconcile; for ever."""
        await self._acks_known.wait()
        self._dirty.set()
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(GATHER_S)
            self._dirty.clear()
            try:
                await self._reconcile()
            except Conflict:
                result = "conflict"  # somebody was quicker: what they did is seen in the next round
                self._dirty.set()
            except CallwardenError as error:
                result = "failed"
                pause_s = min(RETRY_MAX_S, RETRY_S * 2**failures)
                failures = min(failures + 1, 10)
                log.warning("reconcile.failed", error=error, retry_s=pause_s)
                self._dirty.set()
                await asyncio.sleep(pause_s)
            else:
                result, failures = "done", 0
            self.counts.rounds[result] = self.counts.rounds.get(result, 0) + 1

    def _pause_s(self) -> float:
        until_s = self._next_s - self._clock.now_s() if self._next_s else self._resync_s
        return max(0.0, min(self._resync_s, until_s))

    async def _reconcile(self) -> None:
        sources = await self._sources()
        held, written_s, sequence = await self._bundles.read()
        # Beside the loop, which renews the Lease: a thousand policies that don't fit together take seconds.
        wanted = await asyncio.to_thread(plan, sources, held)
        await _all(
            self._hold(source) for source in sources if not source.is_leaving and FINALIZER not in _finalizers(source)
        )
        before = {document.key: document.to_json() for document in held.documents}
        if wanted.differs(held):
            if strange := unknown(held, {source.key: None for source in sources}):
                log.warning("bundle.not_of_the_cluster", removed=strange[:20])
            held = PolicySet.build(held.revision + 1, wanted.documents)
            written_s = self._clock.now_s()
            await self._bundles.write(held, written_s, sequence)
            self._is_applied = False
            log.info("bundle.written", revision=held.revision, policies=len(held.documents))
        await _all(self._let_go(source) for source in sources if source.is_leaving)
        await self._report(sources, wanted, before, held, written_s)
        for each in self._others:
            await each.reconcile()

    async def _sources(self) -> list[Source]:
        found = await asyncio.gather(*(self._cluster.list(plural) for plural in POLICIES.values()))
        return [
            Source({"apiVersion": "callwarden.io/v1", "kind": kind, **body})
            for kind, bodies in zip(POLICIES, found, strict=True)
            for body in bodies
        ]

    async def _report(
        self, sources: Iterable[Source], wanted: Plan, before: Mapping[Any, str], held: PolicySet, written_s: float
    ) -> None:
        now_s = self._clock.now_s()
        stressed = held.at(now_s).stressed
        acks = list(self._acks.values())
        refused, behind = 0, False
        patches: list[Awaitable[None]] = []
        for source in sources:
            verdict = wanted.verdicts.get(source.key)
            if verdict is None:
                continue  # it is being deleted
            refused += not verdict.accepted
            stands = Held(_revision(source, verdict, before, held.revision), written_s, _is_stressed(verdict, stressed))
            status = status_of(source, verdict, stands, acks, now_s)
            behind |= any(service["running"] < service["pods"] for service in status["services"])
            if status != source.body.get("status"):
                patches.append(self._say(source, status))
        await _all(patches)
        self.counts.accepted, self.counts.refused = len(wanted.verdicts) - refused, refused
        if not behind and not self._is_applied:
            self._is_applied = True
            self.counts.apply_s = max(0.0, now_s - written_s)
        turns_s = [moment for moment in (held.next_change_s(now_s),) if moment is not None]
        if behind and now_s - written_s <= BEHIND_S:
            turns_s.append(written_s + BEHIND_S + 1.0)
        self._next_s = min(turns_s, default=0.0)

    async def _say(self, source: Source, status: dict[str, Any]) -> None:
        key = source.key
        # A merge patch keeps what it doesn't name.
        body = {"status": {**status, "revision": status.get("revision")}}
        try:
            await self._cluster.patch(POLICIES[key.kind], key.namespace, key.name, body, status=True)
        except NotFound:
            return  # deleted meanwhile
        moment = moment_of(self._clock.now_s())
        for kind, reason, message in transitions(source, status):
            try:
                await self._cluster.tell(source.body, kind, reason, message, moment, self._me)
            except CallwardenError as error:
                log.debug("event.not_told", error=repr(error))  # events are a courtesy, the status is the word

    async def _hold(self, source: Source) -> None:
        await self._finalize(source, [*_finalizers(source), FINALIZER])

    async def _let_go(self, source: Source) -> None:
        if FINALIZER in _finalizers(source):
            await self._finalize(source, [name for name in _finalizers(source) if name != FINALIZER])

    async def _finalize(self, source: Source, finalizers: list[str]) -> None:
        key = source.key
        metadata = {"finalizers": finalizers, "resourceVersion": source.metadata.get("resourceVersion")}
        try:
            await self._cluster.patch(POLICIES[key.kind], key.namespace, key.name, {"metadata": metadata})
        except NotFound:
            return


def _finalizers(source: Source) -> list[str]:
    return [str(name) for name in source.metadata.get("finalizers") or ()]


def _revision(source: Source, verdict: Verdict, before: Mapping[Any, str], now: int) -> int:
    """Since which revision of the bundle the policy's form holds, as far as its status remembers; 0: it doesn't."""
    if verdict.document is None:
        return 0
    status = source.body.get("status")
    said = status.get("revision") if isinstance(status, Mapping) else None
    is_old = before.get(source.key) == verdict.document.to_json()
    return said if is_old and isinstance(said, int) and 0 < said <= now else now


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
