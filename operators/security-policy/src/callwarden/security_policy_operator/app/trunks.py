"""Trunk resources carried out: call-admission has a trunk as each of them says, and none when it is gone."""

import math
from collections.abc import Container, Iterable
from dataclasses import replace
from itertools import chain
from typing import Final

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict, Denied, Exhausted, Invalid, NotFound, Unavailable
from callwarden.policy.resources import TrunkSpec
from callwarden.security_policy_operator.app.managed import ManagedResources, each
from callwarden.security_policy_operator.app.realms import RealmBindings
from callwarden.security_policy_operator.core.names import decide
from callwarden.security_policy_operator.core.realms import RealmGrants
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal
from callwarden.security_policy_operator.core.status import unavailable
from callwarden.security_policy_operator.core.trunks import TrunkDifference, TrunkState, change_of, trunk_of
from callwarden.security_policy_operator.ports import ClusterApi, TrunkRegistry

log = get_logger(__name__)

PLURAL: Final = "trunks"
FINALIZER: Final = "callwarden.io/trunk"
SERVICE: Final = "administration"
_FINAL: Final = (Invalid, NotFound, Conflict, Denied, Exhausted)
"""An early retry is of no use; the next resync tries again."""


class TrunkReconciler:
    """Implements ports.ResourceReconciler."""

    plural = PLURAL

    def __init__(
        self, cluster: ClusterApi, trunks: TrunkRegistry, realms: RealmBindings, clock: Clock, me: str
    ) -> None:
        """`me`: this process, as Events name it."""
        self._resources = ManagedResources(cluster, clock, me, "Trunk", PLURAL, FINALIZER)
        self._trunks, self._realms = trunks, realms

    async def reconcile(self) -> None:
        grants, resources = await self._realms.grants(), await self._resources.list()
        if not resources:
            return
        decisions = decide(resources, TrunkSpec, self._resources.is_held, grants.deny_trunk)
        try:
            existing = {trunk.name: trunk for trunk in await self._trunks.list()}
        except CallwardenError as error:
            for resource, decision in decisions:
                refusal = decision if isinstance(decision, Refusal) else unavailable(SERVICE, error.message)
                await self._resources.refused(resource, refusal)
            raise Unavailable(f"{SERVICE}: {error.message}") from error
        denied = {
            resource.uid: self._denied(resource, existing.get(resource.key.name), grants) for resource in resources
        }
        kept: set[str] = set()
        present = (
            (
                resource,
                self._keep(resource, decision, existing.get(resource.key.name), kept)
                if isinstance(decision, TrunkSpec)
                else self._resources.refused(resource, decision),
            )
            for resource, decision in decisions
            if denied[resource.uid] is None
        )
        # After those that stay: one of them may take over the trunk of a deleted one.
        deleted = (
            (resource, self._delete(resource, existing.get(resource.key.name), kept))
            for resource in resources
            if resource.is_deleted
        )
        withdrawn = (
            (resource, self._withdraw(resource, reason, existing[resource.key.name], kept))
            for resource, _ in decisions
            if (reason := denied[resource.uid]) is not None
        )
        await each(chain(present, deleted, withdrawn))

    def states(self) -> Iterable[str]:
        return self._resources.states.values()

    def pause_s(self) -> float:
        return math.inf

    def _denied(self, resource: ManagedResource, trunk: TrunkState | None, grants: RealmGrants) -> Refusal | None:
        """Why it may no longer have the trunk that is its own. The realm of the trunk's account counts, which edits of
        the resource don't change."""
        if trunk is None or not self._resources.is_held(resource):
            return None
        return grants.deny_realm(resource.key.namespace, trunk.realm, f"The trunk's account is of realm {trunk.realm}")

    async def _keep(
        self, resource: ManagedResource, spec: TrunkSpec, existing: TrunkState | None, kept: set[str]
    ) -> None:
        """Its name comes to `kept` as soon as the trunk is its own."""
        wanted = trunk_of(resource.key.name, spec)
        change = change_of(existing, wanted) if existing is not None else None
        is_new = not self._resources.is_held(resource)
        account = ""
        if existing is None or is_new:
            try:
                account = await self._claim(wanted.name, spec, existing)
            except CallwardenError as error:
                await self._failed(resource, error)
                return
            # Only now: a resource that never had a trunk takes none away.
            if not await self._resources.hold(resource):
                return
        kept.add(wanted.name)
        try:
            await self._write(replace(wanted, account=account), existing, change)
        except CallwardenError as error:
            await self._failed(resource, error)
            return
        if existing is not None and is_new:
            fields = ", ".join(change.written_fields) if change is not None else "nothing"
            await self._resources.notify(resource, "TakenOver", f"The trunk existed already. Changed: {fields}.")
        message = "Calls use the trunk as specified." if spec.enabled else "The trunk exists and is disabled."
        await self._resources.applied(resource, "InUse", message)

    async def _failed(self, resource: ManagedResource, error: CallwardenError) -> None:
        """Reports why call-admission refuses it; raises what may work soon."""
        if not isinstance(error, _FINAL):
            await self._resources.refused(resource, unavailable(SERVICE, error.message))
            raise error
        text = f"{error.field}: {error.message}" if error.field else error.message
        await self._resources.refused(resource, Refusal("Refused", text))

    async def _claim(self, name: str, spec: TrunkSpec, existing: TrunkState | None) -> str:
        """The id of its account, which is created if need be. Conflict if the trunk belongs to another one."""
        wanted = spec.account or f"{name}@{spec.realm}"
        account = await self._trunks.find_account(wanted)
        if account is None and spec.account:
            raise NotFound(f"there is no account {spec.account}", field="spec.account")
        if existing is not None:
            owner = (account.type, account.name, account.realm) if account is not None else None
            if spec.direction != existing.direction or owner != (existing.direction, existing.account, existing.realm):
                whose = f"a {existing.direction} of account {existing.account}@{existing.realm}"
                raise Conflict(f"there is already a trunk {existing.name}, {whose}", field="metadata.name")
        elif account is None:
            account = await self._trunks.create_account(name, spec)
        elif account.type != spec.direction:
            raise Conflict(f"account {wanted} is of type {account.type}", field="spec.account")
        assert account is not None
        return account.id

    async def _write(self, wanted: TrunkState, existing: TrunkState | None, change: TrunkDifference | None) -> None:
        if existing is None:
            await self._trunks.create(wanted)
            log.info("trunk.created", name=wanted.name)
        elif change is not None:
            await self._trunks.update(change)
            log.info("trunk.changed", name=wanted.name, fields=change.written_fields)

    async def _withdraw(
        self, resource: ManagedResource, denied: Refusal, existing: TrunkState, kept: Container[str]
    ) -> None:
        """It isn't allowed the trunk any more."""
        why = await self._drop(resource, existing, kept)
        if why:
            text = f"{denied.message} Its trunk is disabled, not deleted: {why}."
            await self._resources.refused(resource, replace(denied, message=text))
        else:
            await self._resources.refused(resource, denied, held=None)

    async def _delete(self, resource: ManagedResource, existing: TrunkState | None, kept: Container[str]) -> None:
        if why := await self._drop(resource, existing, kept):
            refusal = Refusal("Routed", f"Disabled, not deleted: {why}.", accepted=True)
            await self._resources.refused(resource, refusal)

    async def _drop(self, resource: ManagedResource, existing: TrunkState | None, kept: Container[str]) -> str:
        """Why its trunk can't be deleted and is disabled instead; "": it is gone, or was never its own. `kept`: the
        names of trunks that belong to another resource now."""
        name = resource.key.name
        if not self._resources.is_held(resource) or name in kept:
            await self._resources.release(resource)
            return ""
        try:
            deleted = await self._trunks.delete(name)
        except Conflict as error:  # a route leads to it: until someone removes the route no call passes
            change = change_of(existing, replace(existing, enabled=False)) if existing is not None else None
            if change is not None:
                await self._trunks.update(change)
            return error.message
        log.info("trunk.deleted", name=name, deleted=deleted)
        await self._resources.release(resource, "Deleted" if deleted else "", "The trunk no longer exists.")
        return ""
