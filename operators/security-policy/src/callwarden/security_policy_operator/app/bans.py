"""Ban resources carried out: an address is banned while a Ban names it, and heard again when the Ban is gone.

rate-guard writes and lifts; what is banned now is read from the bucket it writes to. Which Ban counts is in core/bans.
"""

import math
from itertools import chain
from typing import TYPE_CHECKING, Final

from callwarden.api.events.v1 import events_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.bus import KeyValue
from callwarden.common.bus.keys import key_of
from callwarden.common.logs import get_logger
from callwarden.common.rpc.client import unary
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Exhausted, Invalid
from callwarden.security_policy_operator.adapters.declared import Declared, away, each
from callwarden.security_policy_operator.core.bans import Order, address_of, decide
from callwarden.security_policy_operator.core.declared import Refusal
from callwarden.security_policy_operator.core.plan import Source
from callwarden.security_policy_operator.core.status import moment_of
from callwarden.security_policy_operator.ports import Cluster

if TYPE_CHECKING:
    from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceAsyncStub

log = get_logger(__name__)

PLURAL: Final = "bans"
FINALIZER: Final = "callwarden.io/banned"


class Bans:
    """`reconcile` in each round."""

    def __init__(
        self, cluster: Cluster, rate_guard: "RateGuardServiceAsyncStub", kv: KeyValue, clock: Clock, me: str
    ) -> None:
        """`me`: this process, as Events name it."""
        self._declared = Declared(cluster, clock, me, "Ban", PLURAL, FINALIZER)
        self._rate_guard, self._kv, self._clock = rate_guard, kv, clock
        self._ends_s = math.inf  # Unix time at which the next one's time is up

    async def reconcile(self) -> None:
        sources = await self._declared.sources()
        decisions = decide(sources, self._clock.unix_s())
        orders = [decision for _, decision in decisions if isinstance(decision, Order)]
        self._ends_s = min((order.until_s for order in orders if order.until_s is not None), default=math.inf)
        # All of them first: while NATS is away none of what follows is tried.
        stands = {order.address: await self._stands(order.address) for order in orders}
        leaving = (
            (source, self._lift(source, still=address_of(source) in stands)) for source in sources if source.is_leaving
        )
        staying = (
            (
                source,
                self._keep(source, decision, stands[decision.address])
                if isinstance(decision, Order)
                else self._declared.refused(source, decision),
            )
            for source, decision in decisions
        )
        await each(chain(leaving, staying))

    def pause_s(self) -> float:
        return max(0.0, self._ends_s - self._clock.unix_s())

    async def _stands(self, address: str) -> events_pb2.Ban | None:
        entry = await self._kv.get(key_of(address))
        return events_pb2.Ban.FromString(entry.value) if entry is not None else None

    async def _keep(self, source: Source, order: Order, stands: events_pb2.Ban | None) -> None:
        # Before the ban: a process that dies in between leaves none that nobody lifts.
        if not await self._declared.hold(source):
            return
        if stands is None or not order.is_kept_by(stands.reason, stands.until_s):
            duration_s = 0 if order.until_s is None else max(1, round(order.until_s - self._clock.unix_s()))
            request = pb.AddBanRequest(address=order.address, reason=order.reason, duration_s=duration_s)
            try:
                await unary(self._rate_guard.AddBan, request)
            except Invalid as error:  # one of our own addresses, or one that the policy allows
                refusal = Refusal("Invalid", f"spec.{error.field or 'address'}: {error.message}")
                await self._declared.refused(source, refusal)
                return
            except Exhausted as error:
                await self._declared.refused(source, Refusal("NoRoom", error.message, accepted=True))
                return
            except CallwardenError as error:
                await self._declared.refused(source, away("rate-guard", error))
                raise
            log.info("ban.added", address=order.address, until_s=order.until_s or 0.0)
        until = None if order.until_s is None else moment_of(order.until_s)
        await self._declared.applied(source, "Banned", "The address is banned on every edge.", until=until)

    async def _lift(self, source: Source, *, still: bool) -> None:
        """`still`: another Ban names the address."""
        address = address_of(source)
        if not self._declared.is_held(source) or not address or still:
            await self._declared.let_go(source)
            return
        removed = (await unary(self._rate_guard.RemoveBans, pb.RemoveBansRequest(address=address))).removed
        log.info("ban.lifted", address=address)
        await self._declared.let_go(source, "Lifted" if removed else "", "The address is banned no more.")
