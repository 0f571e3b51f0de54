"""PaymentService over gRPC."""

from typing import Any

from callwarden.api.payment.v1 import payment_pb2 as pb
from callwarden.api.payment.v1 import payment_pb2_grpc
from callwarden.payment.app import PaymentApp
from callwarden.payment.core.topup import TopUp


class PaymentServicer(payment_pb2_grpc.PaymentServiceServicer):
    """The service."""

    def __init__(self, app: PaymentApp) -> None:
        self._app = app

    async def TopUp(self, request: pb.TopUpRequest, context: Any) -> pb.TopUpReply:  # noqa: N802
        result = await self._app.top_up(
            TopUp(request.account, request.amount_micros, request.currency, request.key, request.note)
        )
        return pb.TopUpReply(
            entry_id=result.entry_id,
            balance_micros=result.balance_micros,
            duplicate=result.duplicate,
            currency=result.currency,
        )
