"""RateDeck resources carried out: rating has the price list that is in the ConfigMap.

A list is imported when the resource or the file differs from what was imported last (`status.digest`). rating can't
delete one, so nothing is held back when a resource goes.

ConfigMaps aren't watched: that takes the right to watch all of them, with whatever they hold. The operator may get
those whose names it knows, and so asks for their versions, often.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict, Denied, Invalid, NotFound
from callwarden.policy.resources import RateDeckSpec
from callwarden.security_policy_operator.app.managed import ManagedResources, each
from callwarden.security_policy_operator.app.realms import RealmBindings
from callwarden.security_policy_operator.core.decks import DeckImport, DeckOutcome, csv_of, digest_of, shown
from callwarden.security_policy_operator.core.names import decide
from callwarden.security_policy_operator.core.realms import NOT_ALLOWED
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal
from callwarden.security_policy_operator.core.status import Json, unavailable
from callwarden.security_policy_operator.ports import ClusterApi, ConfigMaps, DeckRegistry

log = get_logger(__name__)

PLURAL: Final = "ratedecks"
PEEK_S: Final = 2.0  # between two looks at the versions of the ConfigMaps
PEEKS_PER_S_MAX: Final = 5.0  # what an API server doesn't notice
_NAMELESS: Final = frozenset({"Conflict", NOT_ALLOWED})  # refusals of those that don't have their name
_KEPT: Final = ("rates", "version", "digest")  # of the status: they are about the list in force


class DeckReconciler:
    """Implements ports.ResourceReconciler."""

    plural = PLURAL

    def __init__(
        self,
        cluster: ClusterApi,
        config_maps: ConfigMaps,
        decks: DeckRegistry,
        realms: RealmBindings,
        clock: Clock,
        me: str,
    ) -> None:
        """`me`: this process, as Events name it."""
        self._config_maps, self._decks, self._realms = config_maps, decks, realms
        self._resources = ManagedResources(cluster, clock, me, "RateDeck", PLURAL)
        self._pause_s = math.inf
        self._outcomes: dict[str, DeckOutcome] = {}
        """By uid, so that a known file isn't read and sent again in each round."""

    async def reconcile(self) -> None:
        grants, resources = await self._realms.grants(), await self._resources.list()
        decisions = decide(resources, RateDeckSpec, _has, lambda resource, _: grants.deny_deck(resource))
        uids = {resource.uid for resource, _ in decisions}
        self._outcomes = {uid: outcome for uid, outcome in self._outcomes.items() if uid in uids}
        self._pause_s = max(PEEK_S, len(uids) / PEEKS_PER_S_MAX) if uids else math.inf
        await each(
            (
                resource,
                self._keep(resource, decision)
                if isinstance(decision, RateDeckSpec)
                else self._refuse(resource, decision),
            )
            for resource, decision in decisions
        )

    def states(self) -> Iterable[str]:
        return self._resources.states.values()

    def pause_s(self) -> float:
        return self._pause_s

    async def _keep(self, resource: ManagedResource, spec: RateDeckSpec) -> None:
        namespace, name = resource.key.namespace, spec.config_map.name
        outcome = self._outcomes.get(resource.uid)
        try:
            version = await self._config_maps.config_map_version(namespace, name)
            is_known = outcome is not None and outcome.form == (spec, version)
            config_map = {} if is_known else await self._config_maps.config_map(namespace, name)
        except (NotFound, Denied) as error:
            text = f"spec.configMap.name: ConfigMap {name}: {error.message}"
            await self._refuse(resource, Refusal("NoConfigMap", text))
            return
        if not is_known:
            outcome = await self._judge(resource, spec, config_map, outcome)
        if outcome is None:
            return
        self._outcomes[resource.uid] = outcome
        if outcome.refusal is not None:
            await self._refuse(resource, outcome.refusal, outcome.errors)
        else:
            await self._resources.applied(
                resource, "Imported", "Calls are charged by this price list.", **_kept(outcome.status), errors=[]
            )

    async def _judge(
        self, resource: ManagedResource, spec: RateDeckSpec, config_map: Json, before: DeckOutcome | None
    ) -> DeckOutcome | None:
        """What comes of a file that may be new; None: nothing yet, its status says why. `before`: of the last one."""
        form = spec, str(config_map["metadata"]["resourceVersion"])
        content = csv_of(config_map, spec.config_map.key)
        if isinstance(content, Refusal):
            return DeckOutcome(form, refusal=content)
        digest = digest_of(resource.key.name, spec, content)
        if resource.status.get("digest") == digest:
            return DeckOutcome(form, digest, status=resource.status)
        if before is not None and before.digest == digest:
            return replace(before, form=form)  # refused already; only a label is new, or the file's place
        return await self._import(resource, spec, content, DeckOutcome(form, digest))

    async def _import(
        self, resource: ManagedResource, spec: RateDeckSpec, content: bytes, outcome: DeckOutcome
    ) -> DeckOutcome | None:
        name = resource.key.name
        try:
            result = await self._decks.import_deck(name, spec, content)
        except (Invalid, Denied) as error:
            text = f"{error.field}: {error.message}" if error.field else error.message
            return replace(outcome, refusal=Refusal("Refused", text))
        except CallwardenError as error:
            await self._refuse(resource, unavailable("rating", error.message))
            if isinstance(error, Conflict):  # another import came in between: by the next round it has ended
                return None
            raise
        if not isinstance(result, DeckImport):
            errors = shown(result)
            lines = "1 line is" if len(result) == 1 else f"{len(result)} lines are"
            text = f"Nothing was imported: {lines} invalid. The first: {errors[0]}"
            return replace(outcome, refusal=Refusal("BadLines", text), errors=tuple(errors))
        log.info("deck.imported", name=name, version=result.version, rates=result.rates)
        return replace(outcome, status={"rates": result.rates, "version": result.version, "digest": outcome.digest})

    async def _refuse(self, resource: ManagedResource, refusal: Refusal, errors: Sequence[str] = ()) -> None:
        """The list that was imported before stays in force."""
        kept = _kept(resource.status)
        if refusal.reason in _NAMELESS:
            # Another resource may replace the list now: once it has the name again, it imports its file again.
            self._outcomes.pop(resource.uid, None)
            kept = {}
        await self._resources.refused(resource, refusal, **kept, errors=list(errors))


def _has(resource: ManagedResource) -> bool:
    """Whether the list in force is this one's."""
    return "digest" in resource.status


def _kept(status: Mapping[str, Any]) -> Json:
    return {name: status[name] for name in _KEPT if name in status}
