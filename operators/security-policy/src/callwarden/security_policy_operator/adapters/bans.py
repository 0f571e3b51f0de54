"""Ban resources carried out: an address is banned while a Ban names it, and heard again when the Ban is gone.

rate-guard writes and lifts; what is banned now is read from the bucket it writes to. Which Ban counts is in core/bans.
"""

from typing import TYPE_CHECKING, Final

from callwarden.api.events.v1 import events_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.bus import KeyValue
from callwarden.common.bus.keys import key_of
from callwarden.common.logs import get_logger
from callwarden.common.rpc.client import unary
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import Exhausted, Invalid, NotFound
from callwarden.security_policy_operator.core.bans import Order, Refusal, address_of, decide
from callwarden.security_policy_operator.core.plan import Source
from callwarden.security_policy_operator.core.status import Json, moment_of, simple_status
from callwarden.security_policy_operator.ports import Cluster

if TYPE_CHECKING:
    from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceAsyncStub

log = get_logger(__name__)

PLURAL: Final = "bans"
FINALIZER: Final = "callwarden.io/banned"


class Bans:
    """`reconcile` in each round."""

    def __init__(self, cluster: Cluster, rate_guard: "RateGuardServiceAsyncStub", kv: KeyValue, clock: Clock) -> None:
        self._cluster, self._rate_guard, self._kv, self._clock = cluster, rate_guard, kv, clock

    async def reconcile(self) -> None:
        bodies = await self._cluster.list(PLURAL)
        sources = [Source({"apiVersion": "callwarden.io/v1", "kind": "Ban", **body}) for body in bodies]
        decisions = decide(sources, self._clock.now_s())
        banned = {decision.address for _, decision in decisions if isinstance(decision, Order)}
        # Lifting first: what another Ban has to say of the address comes after it.
        for source in sources:
            if source.is_leaving:
                await self._lift(source, still=address_of(source) in banned)
        for source, decision in decisions:
            if isinstance(decision, Order):
                await self._keep(source, decision)
            else:
                await self._refuse(source, decision)

    async def _keep(self, source: Source, order: Order) -> None:
        finalizers = list(source.metadata.get("finalizers") or ())
        if FINALIZER not in finalizers and not await self._finalize(source, [*finalizers, FINALIZER]):
            return
        now_s = self._clock.now_s()
        entry = await self._kv.get(key_of(order.address))
        ban = events_pb2.Ban.FromString(entry.value) if entry is not None else None
        if ban is None or not order.is_kept_by(ban.reason, ban.until_s):
            duration_s = 0 if order.until_s is None else max(1, round(order.until_s - now_s))
            request = pb.AddBanRequest(address=order.address, reason=order.reason, duration_s=duration_s)
            try:
                await unary(self._rate_guard.AddBan, request)
            except Invalid as error:  # one of our own addresses, or one that the policy allows
                await self._refuse(source, Refusal("Invalid", f"spec.{error.field or 'address'}: {error.message}"))
                return
            except Exhausted as error:
                await self._refuse(source, Refusal("NoRoom", error.message, accepted=True))
                return
            log.info("ban.added", address=order.address, until_s=order.until_s or 0.0)
        message = "The address is banned on every edge."
        status = simple_status(source.body, message, "Banned", now_s, accepted=True, applied=True)
        if order.until_s is not None:
            status["until"] = moment_of(order.until_s)
        await self._say(source, status)

    async def _refuse(self, source: Source, refusal: Refusal) -> None:
        now_s = self._clock.now_s()
        await self._say(
            source, simple_status(source.body, refusal.message, refusal.reason, now_s, accepted=refusal.accepted)
        )

    async def _lift(self, source: Source, *, still: bool) -> None:
        """`still`: another Ban names the address."""
        finalizers = list(source.metadata.get("finalizers") or ())
        if FINALIZER not in finalizers:
            return
        address = address_of(source)
        if address and not still:
            await unary(self._rate_guard.RemoveBans, pb.RemoveBansRequest(address=address))
            log.info("ban.lifted", address=address)
        await self._finalize(source, [name for name in finalizers if name != FINALIZER])

    async def _finalize(self, source: Source, finalizers: list[str]) -> bool:
        """False if it's gone meanwhile."""
        metadata = source.metadata
        change = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        try:
            await self._cluster.patch(PLURAL, metadata["namespace"], metadata["name"], change)
        except NotFound:
            return False
        return True

    async def _say(self, source: Source, status: Json) -> None:
        if status == source.body.get("status"):
            return
        metadata = source.metadata
        # A merge patch keeps what it doesn't name.
        body = {"status": {"until": None, **status}}
        try:
            await self._cluster.patch(PLURAL, metadata["namespace"], metadata["name"], body, status=True)
        except NotFound:
            return
