"""Ban resources carried out: an address is banned while a Ban names it, and heard again when the Ban is gone.

rate-guard writes and lifts; what is banned now is read from the bucket it writes to.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import grpc

from callwarden.api.events.v1 import events_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.bus import KeyValue
from callwarden.common.bus.keys import key_of
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import NotFound, Unavailable
from callwarden.policy.bundle import BadPolicy
from callwarden.policy.resources import BanSpec, parse_resource
from callwarden.policy.values import seconds_of
from callwarden.security_policy_operator.adapters.kubernetes import Kubernetes
from callwarden.security_policy_operator.core.status import Json, moment_of, simple_status

if TYPE_CHECKING:
    from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceAsyncStub

log = get_logger(__name__)

PLURAL: Final = "bans"
FINALIZER: Final = "callwarden.io/banned"
TIMEOUT_S: Final = 5.0


class Bans:
    """`reconcile` in each round."""

    def __init__(
        self, cluster: Kubernetes, rate_guard: "RateGuardServiceAsyncStub", kv: KeyValue, clock: Clock
    ) -> None:
        self._cluster, self._rate_guard, self._kv, self._clock = cluster, rate_guard, kv, clock

    async def reconcile(self) -> None:
        """Raises Unavailable."""
        bodies = await self._cluster.list(PLURAL)
        wanted = {_address(body) for body in bodies if "deletionTimestamp" not in body["metadata"]}
        for body in bodies:
            body = {"apiVersion": "callwarden.io/v1", "kind": "Ban", **body}
            if "deletionTimestamp" in body["metadata"]:
                await self._lift(body, still=_address(body) in wanted)
            else:
                await self._keep(body)

    async def _keep(self, body: Json) -> None:
        finalizers = list(body["metadata"].get("finalizers") or ())
        if FINALIZER not in finalizers:
            await self._finalize(body, [*finalizers, FINALIZER])
        now_s = self._clock.now_s()
        try:
            spec = parse_resource({name: value for name, value in body.items() if name != "status"}).spec
        except BadPolicy as error:
            await self._say(body, simple_status(body, "; ".join(map(str, error.problems)), "Invalid", now_s))
            return
        assert isinstance(spec, BanSpec)
        until_s = _until_s(spec, body)
        if until_s is not None and until_s <= now_s:
            await self._say(body, simple_status(body, "Its time is up.", "Expired", now_s, accepted=True))
            return
        entry = await self._kv.get(key_of(spec.address))
        ban = events_pb2.Ban.FromString(entry.value) if entry is not None else None
        if ban is None or ban.reason != spec.reason or not _ends_alike(ban.until_s, until_s):
            duration_s = 0 if until_s is None else max(1, round(until_s - now_s))
            request = pb.AddBanRequest(address=spec.address, reason=spec.reason, duration_s=duration_s)
            await self._ask(self._rate_guard.AddBan(request, timeout=TIMEOUT_S))
            log.info("ban.added", address=spec.address, until_s=until_s or 0.0)
        status = simple_status(
            body, "The address is banned on every edge.", "Banned", now_s, accepted=True, applied=True
        )
        if until_s is not None:
            status["until"] = moment_of(until_s)
        await self._say(body, status)

    async def _lift(self, body: Json, *, still: bool) -> None:
        """`still`: another Ban names the address."""
        finalizers = list(body["metadata"].get("finalizers") or ())
        if FINALIZER not in finalizers:
            return
        address = _address(body)
        if address and not still:
            await self._ask(self._rate_guard.RemoveBans(pb.RemoveBansRequest(address=address), timeout=TIMEOUT_S))
            log.info("ban.lifted", address=address)
        await self._finalize(body, [name for name in finalizers if name != FINALIZER])

    async def _finalize(self, body: Json, finalizers: list[str]) -> None:
        metadata = body["metadata"]
        change = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        try:
            changed = await self._cluster.patch(PLURAL, metadata["namespace"], metadata["name"], change)
        except NotFound:
            return
        body["metadata"] = changed["metadata"]

    async def _say(self, body: Json, status: Json) -> None:
        if status == body.get("status"):
            return
        metadata = body["metadata"]
        try:
            await self._cluster.patch(PLURAL, metadata["namespace"], metadata["name"], {"status": status}, status=True)
        except NotFound:
            return

    async def _ask(self, call: Any) -> None:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"rate-guard: {error.code().name}") from error


def _address(body: Json) -> str:
    spec = body.get("spec")
    return str(spec.get("address", "")) if isinstance(spec, dict) else ""


def _until_s(spec: BanSpec, body: Json) -> float | None:
    if spec.until is not None:
        return seconds_of(spec.until)
    if spec.duration is None:
        return None
    created = datetime.strptime(body["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return created.timestamp() + spec.duration


def _ends_alike(stands_s: float, wanted_s: float | None) -> bool:
    """Whole seconds are kept, and asking takes a moment. 0: for good."""
    if wanted_s is None or not stands_s:
        return wanted_s is None and not stands_s
    return abs(stands_s - wanted_s) < 3.0
