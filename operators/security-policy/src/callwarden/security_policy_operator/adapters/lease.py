"""One leader among all operators that run: by a Lease of coordination.k8s.io, as Kubernetes' own components do.

Only this process's own clock counts: a holder is gone when its Lease hasn't changed for the Lease's duration since it
was first seen. Should two lead for a moment all the same, the bundle's compare-and-set lets one of them write.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock, MonoS
from callwarden.kernel.errors import CallwardenError, Conflict, NotFound
from callwarden.security_policy_operator.adapters.kubernetes import Kubernetes

log = get_logger(__name__)

_JUST_AFTER_S: Final = 0.05
_ROUNDS: Final = 3  # renewals within a lease's time: two may fail


class _Seen(NamedTuple):
    """Another process's Lease: since when it has been as it is, and for how long it holds."""

    version: str
    mono_s: MonoS
    lease_s: float


class LeaderElection:
    """`await election.run(lead)`: `lead` runs while this process leads, and is cancelled when it no longer does."""

    def __init__(self, cluster: Kubernetes, clock: Clock, namespace: str, name: str, lease_s: int, me: str) -> None:
        self._cluster, self._clock = cluster, clock
        self._namespace, self._name, self._lease_s, self._me = namespace, name, lease_s, me
        self._seen = _Seen("", MonoS(0.0), 0.0)
        self.leads = False

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """For ever. Raises what `lead` raises."""
        work: asyncio.Task[None] | None = None
        held_s = 0.0
        try:
            while True:
                mono_s = self._clock.mono_s()
                try:
                    self.leads = await self._take()
                    held_s = mono_s if self.leads else 0.0
                except CallwardenError as error:
                    log.warning("lease.failed", error=error)
                    # Another process may take it a lease's duration after our last renewal: stop before that.
                    self.leads = self.leads and mono_s - held_s < self._lease_s * (_ROUNDS - 1) / _ROUNDS
                if self.leads and work is None:
                    log.info("leader.elected", lease=self._name)
                    work = asyncio.ensure_future(lead())
                elif not self.leads and work is not None:
                    log.warning("leader.lost", lease=self._name)
                    work.cancel()
                    await asyncio.wait({work})
                    work = None
                pause = asyncio.ensure_future(asyncio.sleep(self._pause_s()))
                await asyncio.wait({pause} | ({work} if work is not None else set()), return_when="FIRST_COMPLETED")
                if work is not None and work.done():
                    await work  # its error
                await pause
        finally:
            if work is not None:
                work.cancel()
                await asyncio.wait({work})
            if self.leads:
                self.leads = False
                await self._release()

    def _pause_s(self) -> float:
        """Until it is renewed, or until its holder would be gone, whichever is earlier."""
        pause_s = self._lease_s / _ROUNDS
        if self.leads or not self._seen.version:
            return pause_s
        left_s = self._seen.mono_s + self._seen.lease_s - self._clock.mono_s()
        return min(pause_s, left_s + _JUST_AFTER_S) if left_s > 0 else pause_s

    async def _take(self) -> bool:
        """Tries to take or renew the Lease; whether this process holds it."""
        try:
            found = await self._cluster.lease(self._namespace, self._name)
        except NotFound:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec(0),
            }
            try:
                await self._cluster.create_lease(self._namespace, body)
            except Conflict:
                return False
            return True
        spec = found.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        if holder not in ("", self._me) and not self._is_gone(found, spec):
            return False
        changes = int(spec.get("leaseTransitions") or 0) + (holder != self._me)
        renewed = self._spec(changes)
        if holder == self._me and spec.get("acquireTime"):
            renewed["acquireTime"] = spec["acquireTime"]
        try:
            await self._cluster.replace_lease(self._namespace, self._name, {**found, "spec": renewed})
        except Conflict:
            return False
        return True

    async def _release(self) -> None:
        """Lets the next leader begin at once."""
        try:
            found = await self._cluster.lease(self._namespace, self._name)
            spec = found.get("spec") or {}
            if spec.get("holderIdentity") == self._me:
                free = {**found, "spec": {**spec, "holderIdentity": ""}}
                await self._cluster.replace_lease(self._namespace, self._name, free)
        except CallwardenError as error:
            log.debug("lease.not_released", error=repr(error))

    def _is_gone(self, found: dict[str, Any], spec: dict[str, Any]) -> bool:
        version = str(found.get("metadata", {}).get("resourceVersion", ""))
        mono_s = self._clock.mono_s()
        if self._seen.version != version:
            self._seen = _Seen(version, mono_s, float(spec.get("leaseDurationSeconds") or self._lease_s))
            return False
        return mono_s - self._seen.mono_s > self._seen.lease_s

    def _spec(self, changes: int) -> dict[str, Any]:
        now = datetime.fromtimestamp(self._clock.unix_s(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._me,
            "leaseDurationSeconds": self._lease_s,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": changes,
        }
