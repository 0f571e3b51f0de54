"""call-admission over its coalescing stream. See `ports.Admission`."""

from collections.abc import Iterable

from callwarden.api.admission.v1 import admission_pb2
from callwarden.api.rating.v1 import rating_pb2
from callwarden.common.logs import get_logger
from callwarden.common.rpc.stream import StreamPool
from callwarden.edge_proxy.adapters.auth_grpc import reason_of
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    CallAdmitted,
    CallExtended,
    CallPlacedElsewhere,
    CallRefused,
    CarrierRoute,
    ExtendCall,
)
from callwarden.kernel.errors import Internal
from callwarden.kernel.verdict import Refuse
from callwarden.sip.address import BadAddress, parse_endpoint
from callwarden.sip.via import PORT_DEFAULT

log = get_logger(__name__)

SERVICE = "callwarden.api.admission.v1.AdmissionService"


class GrpcAdmissionClient:
    """Asks the process that an account belongs to, or the next one: hold ids make asking twice harmless."""

    def __init__(self, pool: StreamPool, timeout_s: float, edge: str) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._edge = edge

    async def admit(self, question: AdmitCall) -> CallAdmitted | CallRefused | CallPlacedElsewhere:
        request = admission_pb2.AdmitRequest(
            hold_id=str(question.hold_id),
            call_id=question.call_id,
            account_id=question.account_id,
            destination=question.destination,
            dialled=question.dialled,
            caller_number=question.caller_number,
            source_address=question.source,
            local=question.local,
            at_s=question.at_s,
            edge=self._edge,
            trunk=question.trunk,
        )
        reply = await self._pool.call(
            question.account_id,
            "Admit",
            request,
            admission_pb2.AdmitReply,
            timeout_s=self._timeout_s,
            idempotent=True,
        )
        if reply.HasField("admitted"):
            admitted = reply.admitted
            return CallAdmitted(
                admitted.granted_s,
                admitted.final,
                admitted.max_duration_s,
                _routes(admitted.routes),
            )
        if reply.HasField("refused"):
            return _refused(reply.refused)
        if reply.HasField("placed_elsewhere"):
            return CallPlacedElsewhere()
        raise Internal("call-admission gave no answer")

    async def extend(self, question: ExtendCall) -> CallExtended | CallRefused:
        request = admission_pb2.ExtendRequest(
            hold_id=str(question.hold_id),
            call_id=question.call_id,
            account_id=question.account_id,
            answered_at_s=question.answered_at_s,
            granted_s=question.granted_s,
        )
        reply = await self._pool.call(
            question.account_id,
            "Extend",
            request,
            admission_pb2.ExtendReply,
            timeout_s=self._timeout_s,
            idempotent=True,
        )
        if reply.HasField("extended"):
            return CallExtended(reply.extended.granted_s, reply.extended.final)
        if reply.HasField("refused"):
            return _refused(reply.refused)
        raise Internal("call-admission gave no answer")


def _refused(refused: admission_pb2.Refused) -> CallRefused:
    return CallRefused(
        Refuse(
            reason_of(refused.reason),
            refused.rule,
            counter=refused.counter,
            value=refused.value,
            limit=refused.limit,
            window=refused.window,
            text=refused.text,
            retry_after_s=refused.retry_after_s,
        ),
        refused.sip_status,
    )


def _routes(routes: Iterable[rating_pb2.Route]) -> tuple[CarrierRoute, ...]:
    found = []
    for route in routes:
        try:
            carrier = parse_endpoint(route.address, PORT_DEFAULT)
        except BadAddress as error:
            log.error("route.bad_address", trunk=route.trunk, error=error)
            continue
        found.append(CarrierRoute(route.trunk, carrier, route.add_prefix, route.strip_digits))
    return tuple(found)
