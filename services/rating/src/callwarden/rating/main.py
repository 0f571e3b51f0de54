"""The process: `callwarden-rating`, or `python -m callwarden.rating.main`."""

from callwarden.api.rating.v1 import rating_pb2_grpc
from callwarden.common.runtime import Runtime, run_service
from callwarden.rating.adapters import events_nats, metrics
from callwarden.rating.adapters.deck_process import ProcessDeckWork
from callwarden.rating.adapters.decks_sql import SqlDeckStore
from callwarden.rating.adapters.events_nats import NatsDeckNotifier, NatsUnbilledEventPublisher
from callwarden.rating.adapters.grpc_server import RatingServicer
from callwarden.rating.app.deck_work import StoreDeckWork
from callwarden.rating.app.rating import Rating
from callwarden.rating.settings import RatingSettings


async def wire(settings: RatingSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    policies = await runtime.policies()
    store = SqlDeckStore(await runtime.database())
    app = Rating(
        store,
        ProcessDeckWork(store, StoreDeckWork(store, runtime.clock)),
        NatsDeckNotifier(bus),
        NatsUnbilledEventPublisher(await runtime.open(bus.publisher())),
        policies,
        runtime.clock,
        quote_valid_s=settings.quote_valid_s,
        refresh_every_s=settings.refresh_every_s,
    )
    metrics.register(runtime.metrics, app)
    await events_nats.follow(bus, app)  # before the first read, so that no change is missed
    await app.refresh()
    rating_pb2_grpc.add_RatingServiceServicer_to_server(RatingServicer(app), runtime.server)
    runtime.spawn("follow-decks", app.follow())
    runtime.spawn("report-unbilled", app.report_unbilled())


def main() -> None:
    run_service("rating", RatingSettings, wire)


if __name__ == "__main__":
    main()
