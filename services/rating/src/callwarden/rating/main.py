"""The process: `callwarden-rating`, or `python -m callwarden.rating.main`."""

from callwarden.api.rating.v1 import rating_pb2_grpc
from callwarden.common.runtime import Runtime, run_service
from callwarden.rating.adapters import events_nats, metrics
from callwarden.rating.adapters.decks_sql import SqlDecks
from callwarden.rating.adapters.events_nats import NatsAnnouncer, NatsEvents
from callwarden.rating.adapters.grpc_server import RatingGrpc
from callwarden.rating.app import Rating
from callwarden.rating.settings import Settings


async def wire(settings: Settings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    policies = await runtime.policies()
    app = Rating(
        SqlDecks(await runtime.database()),
        NatsAnnouncer(bus),
        NatsEvents(await runtime.open(bus.publisher())),
        policies,
        runtime.clock,
        quote_valid_s=settings.quote_valid_s,
        refresh_every_s=settings.refresh_every_s,
    )
    metrics.register(runtime.metrics, app)
    await events_nats.follow(bus, app)  # before the first read, so that nothing falls in between
    await app.refresh()
    rating_pb2_grpc.add_RatingServiceServicer_to_server(RatingGrpc(app), runtime.server)
    runtime.spawn("follow-decks", app.follow())
    runtime.spawn("report-unbilled", app.report_unbilled())


def main() -> None:
    run_service("rating", Settings, wire)


if __name__ == "__main__":
    main()
