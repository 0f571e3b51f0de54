"""RateDeck resources carried out: rating has the price list that is in the ConfigMap.

A list is imported when the resource or the file differs from what was imported last (`status.digest`). rating can't
delete one, so nothing is held back when a resource goes.

ConfigMaps aren't watched: that takes the right to be told of all of them, with whatever they hold. We may get those
whose names we know, and so ask for their versions, often.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
PEEK_S: Final = 2.0  # between two looks at the versions of the ConfigMaps
PEEKS_PER_S_MAX: Final = 5.0  # what an API server doesn't notice
IMPORT_TIMEOUT_S: Final = 60.0  # the rows of a full ConfigMap take seconds, behind an import of a million longer
_METHODS: Final = {"up": pb.Rounding.UP, "middle": pb.Rounding.MIDDLE, "down": pb.Rounding.DOWN}
_KEPT: Final = ("rates", "version", "digest")  # of the status: they speak of the list that holds


class ConfigMaps(Cluster, Protocol):
    """The cluster with its ConfigMaps."""

    async def config_map(self, namespace: str, name: str) -> dict[str, Any]:
        """Raises NotFound, Denied, Unavailable."""
        ...

    async def config_map_version(self, namespace: str, name: str) -> str:
        """Its resourceVersion. Raises as above."""
        ...


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one file on one resource's terms."""

    form: tuple[RateDeckSpec, str]
    """The terms, and the version of the ConfigMap."""
    digest: str = ""
    """Of file and terms; empty: there is no file."""
    refusal: Refusal | None = None
    errors: tuple[str, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    """Where it was imported: what is said of the list that holds."""


class Decks:
    """`reconcile` in each round."""

    def __init__(self, cluster: ConfigMaps, rating: "RatingServiceAsyncStub", clock: Clock, me: str) -> None:
        """`me`: this process, as Events name it."""
        self._cluster, self._rating = cluster, rating
        self._declared = Declared(cluster, clock, me, "RateDeck", PLURAL)
        self._pause_s = math.inf
        self._outcomes: dict[str, _Outcome] = {}
        """By uid: what is known isn't read and sent again in each round."""

    async def reconcile(self) -> None:
        decisions = decide(await self._declared.sources(), RateDeckSpec)
        uids = {_uid(source) for source, _ in decisions}
        self._outcomes = {uid: outcome for uid, outcome in self._outcomes.items() if uid in uids}
        self._pause_s = max(PEEK_S, len(uids) / PEEKS_PER_S_MAX) if uids else math.inf
        await each(
            (
                source,
                self._keep(source, decision) if isinstance(decision, RateDeckSpec) else self._refuse(source, decision),
            )
            for source, decision in decisions
        )

    def pause_s(self) -> float:
        return self._pause_s

    async def _keep(self, source: Source, spec: RateDeckSpec) -> None:
        namespace, name = source.key.namespace, spec.config_map.name
        outcome = self._outcomes.get(_uid(source))
        try:
            version = await self._cluster.config_map_version(namespace, name)
            is_known = outcome is not None and outcome.form == (spec, version)
            config_map = {} if is_known else await self._cluster.config_map(namespace, name)
        except (NotFound, Denied) as error:
            text = f"spec.configMap.name: ConfigMap {name}: {error.message}"
            await self._refuse(source, Refusal("NoConfigMap", text))
            return
        if not is_known:
            outcome = await self._judge(source, spec, config_map, outcome)
        if outcome is None:
            return
        self._outcomes[_uid(source)] = outcome
        if outcome.refusal is not None:
            await self._refuse(source, outcome.refusal, outcome.errors)
        else:
            await self._declared.applied(
                source, "Imported", "Calls are priced by it.", **_kept(outcome.status), errors=[]
            )

    async def _judge(
        self, source: Source, spec: RateDeckSpec, config_map: Json, before: _Outcome | None
    ) -> _Outcome | None:
        """What comes of a file that may be new; None: nothing yet, its status says why. `before`: of the last one."""
        form = spec, str(config_map["metadata"]["resourceVersion"])
        content = csv_of(config_map, spec.config_map.key)
        if isinstance(content, Refusal):
            return _Outcome(form, refusal=content)
        digest = digest_of(source.key.name, spec, content)
        if (status := _status(source)).get("digest") == digest:
            return _Outcome(form, digest, status=status)
        if before is not None and before.digest == digest:
            return replace(before, form=form)  # refused already; only a label is new, or the file's place
        return await self._import(source, spec, content, _Outcome(form, digest))

    async def _import(self, source: Source, spec: RateDeckSpec, content: bytes, outcome: _Outcome) -> _Outcome | None:
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
            return replace(outcome, refusal=Refusal("Refused", text))
        except CallwardenError as error:
            await self._refuse(source, away("rating", error))
            if isinstance(error, Conflict):  # another import came in between: by the next round it has ended
                return None
            raise
        if reply.errors:
            errors = shown((bad.line, bad.field, bad.reason) for bad in reply.errors)
            text = f"Nothing was imported, {len(reply.errors)} lines are wrong. The first: {errors[0]}"
            return replace(outcome, refusal=Refusal("BadLines", text), errors=tuple(errors))
        log.info("deck.imported", name=source.key.name, version=reply.version, rates=reply.rows)
        return replace(outcome, status={"rates": reply.rows, "version": reply.version, "digest": outcome.digest})

    async def _refuse(self, source: Source, refusal: Refusal, errors: Sequence[str] = ()) -> None:
        """What was imported before holds on."""
        await self._declared.refused(source, refusal, **_kept(_status(source)), errors=list(errors))


def _uid(source: Source) -> str:
    return str(source.metadata.get("uid", ""))


def _status(source: Source) -> Json:
    status = source.body.get("status")
    return dict(status) if isinstance(status, dict) else {}


def _kept(status: Mapping[str, Any]) -> Json:
    return {name: status[name] for name in _KEPT if name in status}
