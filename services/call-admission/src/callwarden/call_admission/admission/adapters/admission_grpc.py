"""callwarden.api.admission.v1.AdmissionService: messages to values and back, checked at the door."""

from collections.abc import Awaitable
from typing import Any, Final

from callwarden.api.admission.v1 import admission_pb2, admission_pb2_grpc
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.core.commands import Admitted, Extended, PlacedElsewhere, Refused
from callwarden.call_admission.admission.ports import CallObserver
from callwarden.call_admission.model.calls import CallRequest, ExtendRequest
from callwarden.call_admission.model.codecs.fields import (
    CALL_ID_CHARS_MAX,
    TEXT_CHARS_MAX,
    destination_of,
    seconds_of,
    text_of,
    uuid_of,
)
from callwarden.call_admission.model.codecs.messages import refused_message, route_message
from callwarden.common import trace
from callwarden.common.rpc.stream import StreamServicer

SECONDS_MAX: Final = 2**31 - 1


class AdmissionGrpc(StreamServicer, admission_pb2_grpc.AdmissionServiceServicer):
    def __init__(self, app: CallAdmission, watch: CallObserver) -> None:
        super().__init__(
            {
                "Admit": (admission_pb2.AdmitRequest, self._admit),
                "Extend": (admission_pb2.ExtendRequest, self._extend),
            }
        )
        self._app = app
        self._watch = watch

    async def Admit(self, request: admission_pb2.AdmitRequest, context: Any) -> admission_pb2.AdmitReply:  # noqa: N802
        return await self._admit(request)

    async def Extend(  # noqa: N802
        self, request: admission_pb2.ExtendRequest, context: Any
    ) -> admission_pb2.ExtendReply:
        return await self._extend(request)

    def _admit(self, request: admission_pb2.AdmitRequest) -> Awaitable[admission_pb2.AdmitReply]:
        return self._answer_admit(call_request(request))

    async def _answer_admit(self, request: CallRequest) -> admission_pb2.AdmitReply:
        outcome = await self._app.admit(request)
        if isinstance(outcome, Refused):
            self._watch.refused(
                request.account_id,
                request.destination,
                outcome.refuse.reason,
                local=request.local,
                source=request.source_address,
            )
            return admission_pb2.AdmitReply(
                refused=refused_message(outcome.refuse, outcome.sip_status), policy_revision=outcome.policy_revision
            )
        if isinstance(outcome, PlacedElsewhere):
            return admission_pb2.AdmitReply(placed_elsewhere=admission_pb2.PlacedElsewhere())
        return admitted_reply(outcome)

    def _extend(self, request: admission_pb2.ExtendRequest) -> Awaitable[admission_pb2.ExtendReply]:
        return self._answer_extend(
            ExtendRequest(
                uuid_of(request.hold_id, "hold_id"),
                text_of(request.call_id, "call_id", CALL_ID_CHARS_MAX),
                uuid_of(request.account_id, "account_id"),
                seconds_of(request.answered_at_s, "answered_at_s"),
                min(request.granted_s, SECONDS_MAX),
                trace_id_of(trace.traceparent()),
            )
        )

    async def _answer_extend(self, request: ExtendRequest) -> admission_pb2.ExtendReply:
        outcome = await self._app.extend(request)
        if isinstance(outcome, Refused):
            return admission_pb2.ExtendReply(refused=refused_message(outcome.refuse, outcome.sip_status))
        return extended_reply(outcome)


def call_request(request: admission_pb2.AdmitRequest) -> CallRequest:
    """The request, checked. Raises Invalid with the field."""
    destination = destination_of(request.destination, local=request.local)
    return CallRequest(
        uuid_of(request.hold_id, "hold_id"),
        text_of(request.call_id, "call_id", CALL_ID_CHARS_MAX),
        uuid_of(request.account_id, "account_id"),
        destination,
        text_of(request.dialled, "dialled", TEXT_CHARS_MAX),
        text_of(request.caller_number, "caller_number", TEXT_CHARS_MAX),
        text_of(request.source_address, "source_address", TEXT_CHARS_MAX),
        text_of(request.edge, "edge", TEXT_CHARS_MAX),
        request.local,
        seconds_of(request.at_s, "at_s"),
        trace_id_of(trace.traceparent()),
        text_of(request.trunk, "trunk", TEXT_CHARS_MAX),
    )


def admitted_reply(outcome: Admitted) -> admission_pb2.AdmitReply:
    hold = outcome.hold
    return admission_pb2.AdmitReply(
        admitted=admission_pb2.Admitted(
            hold_id=str(hold.id),
            granted_s=hold.granted_s,
            final=hold.final,
            max_duration_s=hold.max_duration_s,
            routes=[route_message(route) for route in outcome.routes],
            expires_at_s=hold.expires_at_s,
        ),
        policy_revision=outcome.policy_revision,
    )


def extended_reply(outcome: Extended) -> admission_pb2.ExtendReply:
    hold = outcome.hold
    return admission_pb2.ExtendReply(
        extended=admission_pb2.Extended(granted_s=hold.granted_s, final=hold.final, expires_at_s=hold.expires_at_s)
    )


def trace_id_of(traceparent: str) -> str:
    """The 32 digits of a W3C traceparent, or ""."""
    context = trace.TraceContext.parse(traceparent) if traceparent else None
    return context.trace_id if context is not None else ""
