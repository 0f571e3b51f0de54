"""RateDeck resources carried out: rating has the price list that is in the ConfigMap.

A list is imported when the resource or the file differs from what was imported last (`status.digest`). rating can't
delete one, so nothing is held back when a resource goes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from callwarden.api.rating.v1 import rating_pb2 as pb
from callwarden.common.logs import get_logger
from callwarden.common.rpc.client import unary
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict, Denied, Invalid, NotFound
from callwarden.policy.resources import RateDeckSpec
from callwarden.security_policy_operator.adapters.declared import Declared, away, each
from callwarden.security_policy_operator.core.declared import Refusal
from callwarden.security_policy_operator.core.named import csv_of, decide, digest_of, shown
from callwarden.security_policy_operator.core.plan import Source
from callwarden.security_policy_operator.core.status import Json
from callwarden.security_policy_operator.ports import Cluster

if TYPE_CHECKING:
    from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceAsyncStub

log = get_logger(__name__)

PLURAL: Final = "ratedecks"
IMPORT_TIMEOUT_S: Final = 60.0  # the rows of a full ConfigMap take seconds, behind an import of a million longer
_METHODS: Final = {"up": pb.Rounding.UP, "middle": pb.Rounding.MIDDLE, "down": pb.Rounding.DOWN}
_KEPT: Final = ("rates", "version", "digest")  # of the status: they speak of the list that holds


class ConfigMaps(Cluster, Protocol):
    """The cluster with its ConfigMaps."""

    async def config_map(self, namespace: str, name: str) -> dict[str, Any]:
        """Raises NotFound, Denied, Unavailable."""
        ...


class Decks:
    """`reconcile` in each round."""

    def __init__(self, cluster: ConfigMaps, rating: "RatingServiceAsyncStub", clock: Clock, me: str) -> None:
        """`me`: this process, as Events name it."""
        self._cluster, self._rating = cluster, rating
        self._declared = Declared(cluster, clock, me, "RateDeck", PLURAL)
        self._wrong: dict[str, tuple[str, Refusal, list[str]]] = {}
        """By uid the digest that rating refused last, and why: the same isn't sent again in each round."""

    async def reconcile(self) -> None:
        decisions = decide(await self._declared.sources(), RateDeckSpec)
        known = {_uid(source) for source, _ in decisions}
        self._wrong = {uid: wrong for uid, wrong in self._wrong.items() if uid in known}
        await each(
            (
                source,
                self._keep(source, decision) if isinstance(decision, RateDeckSpec) else self._refuse(source, decision),
            )
            for source, decision in decisions
        )

    async def _keep(self, source: Source, spec: RateDeckSpec) -> None:
        key = source.key
        try:
            config_map = await self._cluster.config_map(key.namespace, spec.config_map.name)
        except (NotFound, Denied) as error:
            text = f"spec.configMap.name: ConfigMap {spec.config_map.name}: {error.message}"
            await self._refuse(source, Refusal("NoConfigMap", text))
            return
        content = csv_of(config_map, spec.config_map.key)
        if isinstance(content, Refusal):
            await self._refuse(source, content)
            return
        digest = digest_of(key.name, spec, content)
        if _before(source).get("digest") == digest:
            await self._imported(source, _before(source))
            return
        refused_digest, refusal, errors = self._wrong.get(_uid(source), ("", None, []))
        if refused_digest == digest and refusal is not None:
            await self._refuse(source, refusal, errors)
            return
        await self._import(source, spec, content, digest)

    async def _import(self, source: Source, spec: RateDeckSpec, content: bytes, digest: str) -> None:
        request = pb.ImportDeckRequest(
            name=source.key.name,
            currency=spec.currency,
            csv=content,
            peak_hours=spec.peak_hours,
            time_zone=spec.time_zone,
            rounding=pb.Rounding(method=_METHODS[spec.rounding.method], decimals=spec.rounding.decimals),
        )
        try:
            reply = await unary(self._rating.ImportDeck, request, timeout_s=IMPORT_TIMEOUT_S)
        except (Invalid, Denied) as error:
            text = f"{error.field}: {error.message}" if error.field else error.message
            await self._remember(source, digest, Refusal("Refused", text), [])
            return
        except CallwardenError as error:
            await self._refuse(source, away("rating", error))
            if isinstance(error, Conflict):  # another import came in between: by the next resync it has ended
                return
            raise
        if reply.errors:
            errors = shown((bad.line, bad.field, bad.reason) for bad in reply.errors)
            text = f"Nothing was imported, {len(reply.errors)} lines are wrong. The first: {errors[0]}"
            await self._remember(source, digest, Refusal("BadLines", text), errors)
            return
        log.info("deck.imported", name=source.key.name, version=reply.version, rates=reply.rows)
        await self._imported(source, {"rates": reply.rows, "version": reply.version, "digest": digest})

    async def _remember(self, source: Source, digest: str, refusal: Refusal, errors: list[str]) -> None:
        self._wrong[_uid(source)] = digest, refusal, errors
        await self._refuse(source, refusal, errors)

    async def _imported(self, source: Source, found: Json) -> None:
        await self._declared.applied(source, "Imported", "Calls are priced by it.", **_kept(found), errors=[])

    async def _refuse(self, source: Source, refusal: Refusal, errors: Sequence[str] = ()) -> None:
        """What was imported before holds on."""
        await self._declared.refused(source, refusal, **_kept(_before(source)), errors=list(errors))


def _uid(source: Source) -> str:
    return str(source.metadata.get("uid", ""))


def _before(source: Source) -> Json:
    status = source.body.get("status")
    return dict(status) if isinstance(status, dict) else {}


def _kept(status: Json) -> Json:
    return {name: status[name] for name in _KEPT if name in status}
