"""What auth measures."""

from callwarden.auth.app import Auth
from callwarden.common.metrics import Metric, Metrics

VERDICTS = Metric(
    "callwarden_auth_verdicts_total", "counter", "{verdicts}", "Verdicts on who is calling.", labels=("verdict",)
)
LOOK_UPS = Metric(
    "callwarden_auth_look_ups_total",
    "counter",
    "{look-ups}",
    "Verifications by where the user was found: in the cache, or by asking the database.",
    labels=("where",),
)
QUERIES = Metric(
    "callwarden_auth_queries_total", "counter", "{queries}", "Queries for credentials; many verifications share one."
)
CACHED = Metric("callwarden_auth_cached_users", "gauge", "{users}", "Users in memory, existing or not.")
UNREADABLE = Metric(
    "callwarden_auth_unreadable_credentials_total",
    "counter",
    "{credentials}",
    "Credentials that no configured key opens, or that were changed in the database.",
)


def register(metrics: Metrics, app: Auth) -> None:
    """Has the app's counts read whenever the metrics are collected."""
    counts = app.counts
    metrics.observe(VERDICTS, lambda: {("identified",): counts.identified, ("rejected",): counts.rejected})
    metrics.observe(LOOK_UPS, lambda: {("cache",): counts.hits, ("database",): counts.misses})
    metrics.observe(QUERIES, lambda: counts.queries)
    metrics.observe(CACHED, lambda: app.cached)
    metrics.observe(UNREADABLE, lambda: counts.unreadable)
