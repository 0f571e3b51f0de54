"""The process: `callwarden-payment`, or `python -m callwarden.payment.main`."""

import os

from callwarden.api.payment.v1 import payment_pb2_grpc
from callwarden.common.runtime import Runtime, run_service
from callwarden.payment.adapters import metrics
from callwarden.payment.adapters.books_sql import SqlBooks
from callwarden.payment.adapters.grpc_server import PaymentGrpc
from callwarden.payment.app import Payment
from callwarden.payment.settings import Settings


async def wire(settings: Settings, runtime: Runtime) -> None:
    # No field of the policy is payment's yet. It acknowledges each revision all the same: status shows every process.
    await runtime.policies()
    app = Payment(SqlBooks(await runtime.database(), os.urandom))
    metrics.register(runtime.metrics, app)
    payment_pb2_grpc.add_PaymentServiceServicer_to_server(PaymentGrpc(app), runtime.server)


def main() -> None:
    run_service("payment", Settings, wire)


if __name__ == "__main__":
    main()
