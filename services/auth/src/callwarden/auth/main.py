"""The process: `callwarden-auth`, or `python -m callwarden.auth.main`."""

import asyncio
import os

from callwarden.api.auth.v1 import auth_pb2_grpc
from callwarden.auth.adapters import events_nats, metrics
from callwarden.auth.adapters.accounts_sql import SqlAccounts
from callwarden.auth.adapters.events_nats import NatsEvents
from callwarden.auth.adapters.grpc_server import AuthGrpc
from callwarden.auth.app import Auth
from callwarden.auth.core.cache import Cache
from callwarden.auth.settings import Settings
from callwarden.common.logs import get_logger
from callwarden.common.runtime import Runtime, run_service
from callwarden.kernel.errors import CallwardenError

log = get_logger(__name__)

RESEAL_RETRY_S = 30.0


async def wire(settings: Settings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    database = await runtime.database()
    accounts = SqlAccounts(database, await runtime.open(await database.hot()))
    events = NatsEvents(await runtime.open(bus.publisher()))
    policies = await runtime.policies()
    cache = Cache(settings.cache_users_max)
    app = Auth(accounts, events, policies, settings.sealing_keys(), runtime.clock, os.urandom, cache)
    metrics.register(runtime.metrics, app)
    await events_nats.follow(bus, app)
    auth_pb2_grpc.add_AuthServiceServicer_to_server(AuthGrpc(app), runtime.server)
    runtime.spawn("trunks", app.follow_trunks())
    runtime.spawn("reseal", _reseal(app))


async def _reseal(app: Auth) -> None:
    """Once, after a rotation of the key; tried until the database is there."""
    while True:
        try:
            count = await app.reseal()
        except CallwardenError as error:
            log.warning("credentials.not_resealed", error=error)
            await asyncio.sleep(RESEAL_RETRY_S)
            continue
        if count:
            log.info("credentials.resealed", count=count)
        return


def main() -> None:
    run_service("auth", Settings, wire)


if __name__ == "__main__":
    main()
