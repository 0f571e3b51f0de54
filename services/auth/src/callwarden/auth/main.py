"""The process: `callwarden-auth`, or `python -m callwarden.auth.main`."""

import asyncio
import os
from contextlib import suppress

from callwarden.api.auth.v1 import auth_pb2_grpc
from callwarden.auth.adapters import events_nats, metrics
from callwarden.auth.adapters.credentials_sql import SqlCredentialStore
from callwarden.auth.adapters.events_nats import NatsAccountEventPublisher
from callwarden.auth.adapters.grpc_server import AuthServicer
from callwarden.auth.app import Auth
from callwarden.auth.core.cache import CredentialCache
from callwarden.auth.settings import AuthSettings
from callwarden.common.logs import get_logger
from callwarden.common.runtime import Runtime, run_service
from callwarden.kernel.errors import CallwardenError

log = get_logger(__name__)

RESEAL_RETRY_S = 30.0
LOAD_S = 5.0  # For the numbers, before any call is answered.


async def wire(settings: AuthSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    database = await runtime.database()
    accounts = SqlCredentialStore(database, await runtime.open(await database.hot()))
    events = NatsAccountEventPublisher(await runtime.open(bus.publisher()))
    policies = await runtime.policies()
    cache = CredentialCache(settings.cache_users_max)
    app = Auth(accounts, events, policies, settings.sealing_keys(), runtime.clock, os.urandom, cache)
    metrics.register(runtime.metrics, app)
    await events_nats.follow(bus, app)
    auth_pb2_grpc.add_AuthServiceServicer_to_server(AuthServicer(app), runtime.server)
    runtime.spawn("trunks", app.follow_trunks())
    runtime.spawn("numbers", app.numbers.follow())
    runtime.spawn("names", app.names.follow())
    with suppress(
        TimeoutError
    ):  # Without the database it starts all the same, and answers as it does when that is away.
        async with asyncio.timeout(LOAD_S):
            await app.numbers.loaded.wait()
            await app.names.loaded.wait()
    runtime.spawn("reseal", _reseal(app))


async def _reseal(app: Auth) -> None:
    """Reseals once at the start, for a rotated key; retries until the database is available."""
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
    run_service("auth", AuthSettings, wire)


if __name__ == "__main__":
    main()
