"""Resources of one kind that a service carries out: listed, reported on, held while the service has a part of them."""

from collections.abc import Awaitable, Iterable
from typing import Any

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.errors import CallwardenError, NotFound
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal
from callwarden.security_policy_operator.core.status import Json, ResourceEvent, moment_of, simple_status, transitions
from callwarden.security_policy_operator.ports import ClusterApi

log = get_logger(__name__)


class ManagedResources:
    """What the operator does to resources of one kind, whatever they are for."""

    def __init__(
        self, cluster: ClusterApi, clock: Clock, me: str, kind: str, plural: str, finalizer: str | None = None
    ) -> None:
        """`me`: this process, as Events name it. Without a finalizer nothing is held."""
        self._cluster, self._clock, self._me = cluster, clock, me
        self._kind, self._plural, self._finalizer = kind, plural, finalizer
        self.states: dict[str, str] = {}
        """By uid what the last round came to: applied, refused, or pending (accepted, and not carried out yet)."""

    async def list(self) -> list[ManagedResource]:
        """All of them, in all namespaces."""
        found = [ManagedResource.of(self._kind, body) for body in await self._cluster.list(self._plural)]
        uids = {resource.uid for resource in found}
        self.states = {uid: state for uid, state in self.states.items() if uid in uids}
        return found

    def is_held(self, resource: ManagedResource) -> bool:
        """Whether the service may have something of it. A finalizer alone doesn't say so: the author of a resource
        may write one, and by deleting it would remove what belongs to others. Only the operator may write status."""
        return self._finalizer in resource.finalizers and resource.was_held

    async def hold(self, resource: ManagedResource) -> bool:
        """Keeps it until `release`. False if it has gone meanwhile."""
        assert self._finalizer is not None
        others = [name for name in resource.finalizers if name != self._finalizer]
        return self.is_held(resource) or (
            await self._finalize(resource, [*others, self._finalizer])
            and await self._patch(resource, {"status": {"held": True}}, status=True)
        )

    async def release(self, resource: ManagedResource, reason: str = "", message: str = "") -> None:
        """`reason`: what became of what the service had of it, for an Event."""
        if self._finalizer not in resource.finalizers:
            return
        others = [name for name in resource.finalizers if name != self._finalizer]
        if await self._finalize(resource, others) and reason:
            await self.notify(resource, reason, message)

    async def notify(self, resource: ManagedResource, reason: str, message: str) -> None:
        """An Event in addition to those for its conditions."""
        await self._notify(resource, [ResourceEvent("Normal", reason, message)])

    async def applied(self, resource: ManagedResource, reason: str, message: str, **fields: Any) -> None:
        """What it asks for is in force. `fields`: of its status; those that are None are removed."""
        self.states[resource.uid] = "applied"
        if self._finalizer is not None:
            fields["held"] = True
        await self._report(resource, simple_status(resource, reason, message, self._clock.unix_s()), fields)

    async def refused(self, resource: ManagedResource, refusal: Refusal, **fields: Any) -> None:
        """What it asks for isn't in force, or not yet; something else of it may be, unless `held` is None."""
        self.states[resource.uid] = "pending" if refusal.accepted else "refused"
        if self._finalizer is not None and resource.was_held:
            fields.setdefault("held", True)
        status = simple_status(
            resource, refusal.reason, refusal.message, self._clock.unix_s(), accepted=refusal.accepted, applied=False
        )
        await self._report(resource, status, fields)

    async def _report(self, resource: ManagedResource, status: Json, fields: Json) -> None:
        """Replaces its status, unless that reports the same already."""
        status |= {name: value for name, value in fields.items() if value is not None}
        before = resource.status
        if status == before:
            return
        # A merge patch keeps what it doesn't name.
        if await self._patch(resource, {"status": {**dict.fromkeys(before), **status}}, status=True):
            await self._notify(resource, transitions(resource, status))

    async def _notify(self, resource: ManagedResource, events: Iterable[ResourceEvent]) -> None:
        await notify(self._cluster, resource, events, self._clock.unix_s(), self._me)

    async def _finalize(self, resource: ManagedResource, finalizers: Iterable[str]) -> bool:
        version = resource.metadata.get("resourceVersion")
        return await self._patch(resource, {"metadata": {"finalizers": finalizers, "resourceVersion": version}})

    async def _patch(self, resource: ManagedResource, body: Json, *, status: bool = False) -> bool:
        key = resource.key
        try:
            await self._cluster.patch(self._plural, key.namespace, key.name, body, status=status)
        except NotFound:
            return False
        return True


async def notify(
    cluster: ClusterApi, resource: ManagedResource, events: Iterable[ResourceEvent], unix_s: UnixS, me: str
) -> None:
    """Kubernetes Events about a resource, by the process `me`. They may get lost: the status is what counts."""
    for event in events:
        try:
            await cluster.notify(resource.body, event, moment_of(unix_s), me)
        except CallwardenError as error:
            log.debug("event.not_written", error=repr(error))


async def each(work: Iterable[tuple[ManagedResource, Awaitable[None]]]) -> None:
    """One after the other, whatever becomes of the others; the first error is raised when all have been tried."""
    first: CallwardenError | None = None
    for resource, one in work:
        try:
            await one
        except CallwardenError as error:
            key = resource.key
            log.warning("resource.not_done", kind=key.kind, namespace=key.namespace, name=key.name, error=error)
            first = first or error
    if first is not None:
        raise first
