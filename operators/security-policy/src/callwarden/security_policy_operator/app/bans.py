"""Ban resources carried out: an address is banned while a Ban names it, and no longer when the Ban is gone."""

import math
from collections.abc import Iterable
from itertools import chain
from typing import Final

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.errors import CallwardenError, Exhausted, Invalid
from callwarden.security_policy_operator.app.managed import ManagedResources, each
from callwarden.security_policy_operator.app.realms import RealmBindings
from callwarden.security_policy_operator.core.bans import AppliedBan, BanOrder, address_of, decide
from callwarden.security_policy_operator.core.realms import NOT_ALLOWED
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal
from callwarden.security_policy_operator.core.status import moment_of, unavailable
from callwarden.security_policy_operator.ports import BanRegistry, ClusterApi

log = get_logger(__name__)

PLURAL: Final = "bans"
FINALIZER: Final = "callwarden.io/banned"


class BanReconciler:
    """Implements ports.ResourceReconciler."""

    plural = PLURAL

    def __init__(self, cluster: ClusterApi, bans: BanRegistry, realms: RealmBindings, clock: Clock, me: str) -> None:
        """`me`: this process, as Events name it."""
        self._resources = ManagedResources(cluster, clock, me, "Ban", PLURAL, FINALIZER)
        self._bans, self._realms, self._clock = bans, realms, clock
        self._ends_s = math.inf  # Unix time at which the next one expires

    async def reconcile(self) -> None:
        grants, resources = await self._realms.grants(), await self._resources.list()
        decisions = decide(resources, self._clock.unix_s(), grants)
        orders = [decision for _, decision in decisions if isinstance(decision, BanOrder)]
        self._ends_s = min((order.until_s for order in orders if order.until_s is not None), default=math.inf)
        # All of them first: while NATS is away none of what follows is tried.
        existing = {order.address: await self._bans.get(order.address) for order in orders}
        deleted = (
            (resource, self._lift(resource, still=address_of(resource) in existing))
            for resource in resources
            if resource.is_deleted
        )
        present = (
            (
                resource,
                self._keep(resource, decision, existing[decision.address])
                if isinstance(decision, BanOrder)
                else self._refuse(resource, decision, still=address_of(resource) in existing),
            )
            for resource, decision in decisions
        )
        await each(chain(deleted, present))

    def states(self) -> Iterable[str]:
        return self._resources.states.values()

    def pause_s(self) -> float:
        return max(0.0, self._ends_s - self._clock.unix_s())

    async def _keep(self, resource: ManagedResource, order: BanOrder, existing: AppliedBan | None) -> None:
        # Before the ban: a process that dies in between leaves none that no one lifts.
        if not await self._resources.hold(resource):
            return
        if existing is None or not order.is_met_by(existing):
            try:
                await self._bans.add(order, self._clock.unix_s())
            except Invalid as error:  # one of our own addresses, or one that the policy allows
                refusal = Refusal("Invalid", f"spec.{error.field or 'address'}: {error.message}")
                await self._resources.refused(resource, refusal)
                return
            except Exhausted as error:
                await self._resources.refused(resource, Refusal("NoRoom", error.message, accepted=True))
                return
            except CallwardenError as error:
                await self._resources.refused(resource, unavailable("rate-guard", error.message))
                raise
            log.info("ban.added", address=order.address, until_s=order.until_s or 0.0)
        until = None if order.until_s is None else moment_of(UnixS(order.until_s))
        await self._resources.applied(resource, "Banned", "The address is banned on every edge.", until=until)

    async def _refuse(self, resource: ManagedResource, refusal: Refusal, *, still: bool) -> None:
        """`still`: another Ban names the address."""
        if refusal.reason != NOT_ALLOWED:
            await self._resources.refused(resource, refusal)
            return
        await self._lift(resource, still=still)
        await self._resources.refused(resource, refusal, held=None)

    async def _lift(self, resource: ManagedResource, *, still: bool) -> None:
        """`still`: another Ban names the address."""
        address = address_of(resource)
        if not self._resources.is_held(resource) or not address or still:
            await self._resources.release(resource)
            return
        removed = await self._bans.remove(address)
        log.info("ban.lifted", address=address)
        await self._resources.release(resource, "Lifted" if removed else "", "The address is no longer banned.")
