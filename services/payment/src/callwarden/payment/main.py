"""The process: `callwarden-payment`, or `python -m callwarden.payment.main`."""

import os

from callwarden.api.payment.v1 import payment_pb2_grpc
from callwarden.common.runtime import Runtime, run_service
from callwarden.payment.adapters import metrics
from callwarden.payment.adapters.grpc_server import PaymentServicer
from callwarden.payment.adapters.ledger_sql import SqlLedgerStore
from callwarden.payment.app import PaymentApp
from callwarden.payment.settings import PaymentSettings


async def wire(settings: PaymentSettings, runtime: Runtime) -> None:
    # payment uses no field of the policy yet, but acknowledges each revision: status lists every process.
    await runtime.policies()
    app = PaymentApp(SqlLedgerStore(await runtime.database(), os.urandom))
    metrics.register(runtime.metrics, app)
    payment_pb2_grpc.add_PaymentServiceServicer_to_server(PaymentServicer(app), runtime.server)


def main() -> None:
    run_service("payment", PaymentSettings, wire)


if __name__ == "__main__":
    main()
