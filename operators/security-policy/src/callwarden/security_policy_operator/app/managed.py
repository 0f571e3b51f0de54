"""Resources of one kind that a service carries out: read, told of, held while the service has something of them."""

from collections.abc import Awaitable, Iterable
from typing import Any

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, NotFound
from callwarden.security_policy_operator.app import tell
from callwarden.security_policy_operator.core.declared import Refusal
from callwarden.security_policy_operator.core.plan import Source
from callwarden.security_policy_operator.core.status import Event, Json, simple_status, transitions
from callwarden.security_policy_operator.ports import Cluster

log = get_logger(__name__)


class Declared:
    """The calls to the cluster about them."""

    def __init__(
        self, cluster: Cluster, clock: Clock, me: str, kind: str, plural: str, finalizer: str | None = None
    ) -> None:
        """`me`: this process, as Events name it. Without a finalizer nothing is held."""
        self._cluster, self._clock, self._me = cluster, clock, me
        self._kind, self._plural, self._finalizer = kind, plural, finalizer

    async def sources(self) -> list[Source]:
        bodies = await self._cluster.list(self._plural)
        return [Source({"apiVersion": "callwarden.io/v1", "kind": self._kind, **body}) for body in bodies]

    def is_held(self, source: Source) -> bool:
        return self._finalizer in source.finalizers

    async def hold(self, source: Source) -> bool:
        """It stays until `let_go`. False if it's gone meanwhile."""
        assert self._finalizer is not None
        return self.is_held(source) or await self._finalize(source, [*source.finalizers, self._finalizer])

    async def let_go(self, source: Source, reason: str = "", message: str = "") -> None:
        """`reason`: what became of what the service had of it, for an Event."""
        if not self.is_held(source):
            return
        others = [name for name in source.finalizers if name != self._finalizer]
        if await self._finalize(source, others) and reason:
            await self.tell(source, reason, message)

    async def tell(self, source: Source, reason: str, message: str) -> None:
        """An Event beside those that its conditions are."""
        await self._tell(source, [Event("Normal", reason, message)])

    async def applied(self, source: Source, reason: str, message: str, **fields: Any) -> None:
        """What it asks for is there. `fields`: of its status, those that are None are taken away."""
        await self._say(source, simple_status(source, reason, message, self._clock.unix_s()), fields)

    async def refused(self, source: Source, refusal: Refusal, **fields: Any) -> None:
        """What it asks for isn't there, or not yet."""
        status = simple_status(
            source, refusal.reason, refusal.message, self._clock.unix_s(), accepted=refusal.accepted, applied=False
        )
        await self._say(source, status, fields)

    async def _say(self, source: Source, status: Json, fields: Json) -> None:
        """Replace its status, unless it says so already."""
        status |= {name: value for name, value in fields.items() if value is not None}
        before = source.body.get("status") or {}
        if status == before:
            return
        # A merge patch keeps what it doesn't name.
        if await self._patch(source, {"status": {**dict.fromkeys(before), **status}}, status=True):
            await self._tell(source, transitions(source, status))

    async def _tell(self, source: Source, events: Iterable[Event]) -> None:
        await tell(self._cluster, source, events, self._clock.unix_s(), self._me)

    async def _finalize(self, source: Source, finalizers: list[str]) -> bool:
        version = source.metadata.get("resourceVersion")
        return await self._patch(source, {"metadata": {"finalizers": finalizers, "resourceVersion": version}})

    async def _patch(self, source: Source, body: Json, *, status: bool = False) -> bool:
        key = source.key
        try:
            await self._cluster.patch(self._plural, key.namespace, key.name, body, status=status)
        except NotFound:
            return False
        return True


def away(service: str, error: CallwardenError) -> Refusal:
    """Of a resource that is right, while the service doesn't answer."""
    return Refusal("Unavailable", f"{service}: {error.message}.", accepted=True)


async def each(work: Iterable[tuple[Source, Awaitable[None]]]) -> None:
    """One after the other, whatever becomes of the others; the first error is raised when all have been tried."""
    first: CallwardenError | None = None
    for source, one in work:
        try:
            await one
        except CallwardenError as error:
            key = source.key
            log.warning("resource.not_done", kind=key.kind, namespace=key.namespace, name=key.name, error=error)
            first = first or error
    if first is not None:
        raise first
