"""Resources of one kind that a service carries out: read, told of, held while the service has something of them."""

from collections.abc import Awaitable, Iterable

from callwarden.common.logs import get_logger
from callwarden.kernel.errors import CallwardenError, NotFound
from callwarden.security_policy_operator.core.plan import Source
from callwarden.security_policy_operator.core.status import Json
from callwarden.security_policy_operator.ports import Cluster

log = get_logger(__name__)


class Declared:
    """The calls to the cluster about them."""

    def __init__(self, cluster: Cluster, kind: str, plural: str, finalizer: str = "") -> None:
        self._cluster, self._kind, self._plural, self._finalizer = cluster, kind, plural, finalizer

    async def sources(self) -> list[Source]:
        bodies = await self._cluster.list(self._plural)
        return [Source({"apiVersion": "callwarden.io/v1", "kind": self._kind, **body}) for body in bodies]

    def is_held(self, source: Source) -> bool:
        return self._finalizer in (source.metadata.get("finalizers") or ())

    async def hold(self, source: Source) -> bool:
        """It stays until `let_go`. False if it's gone meanwhile."""
        if self.is_held(source):
            return True
        return await self._finalize(source, [*(source.metadata.get("finalizers") or ()), self._finalizer])

    async def let_go(self, source: Source) -> None:
        if self.is_held(source):
            await self._finalize(source, [name for name in source.metadata["finalizers"] if name != self._finalizer])

    async def say(self, source: Source, status: Json) -> None:
        """Replace its status, unless it says so already."""
        before = source.body.get("status") or {}
        if status == before:
            return
        # A merge patch keeps what it doesn't name.
        await self._patch(source, {"status": {**dict.fromkeys(before), **status}}, status=True)

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
