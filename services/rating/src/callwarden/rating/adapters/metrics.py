"""rating's rows of the catalogue of metrics."""

from typing import Final

from callwarden.common.metrics import Metric, Metrics
from callwarden.rating.app.rating import Rating

PREFIXES: Final = Metric("callwarden_rating_prefixes", "gauge", "{prefixes}", "Prefixes in memory.", labels=("deck",))
REFRESH_FAILURES: Final = Metric(
    "callwarden_rating_refresh_failures_total",
    "counter",
    "{refreshes}",
    "Failed refreshes; prices and routes are those of the last good one.",
)

UNBILLED: Final = Metric(
    "callwarden_rating_unbilled_total",
    "counter",
    "{questions}",
    "Requests without a price, by the severity that the policy gives them.",
    labels=("severity",),
)


def register(metrics: Metrics, app: Rating) -> None:
    """Reads the app's statistics whenever metrics are collected."""
    metrics.observe(PREFIXES, lambda: {(deck.head.name,): float(deck.rows) for deck in app.decks()})
    metrics.observe(REFRESH_FAILURES, lambda: app.refresh_failures)
    metrics.observe(
        UNBILLED, lambda: {(severity.name.lower(),): float(count) for severity, count in app.unbilled.items()}
    )
