"""auth's rows of the catalogue of metrics."""

from callwarden.auth.app import Auth
from callwarden.common.metrics import Metric, Metrics

VERDICTS = Metric(
    "callwarden_auth_verdicts_total", "counter", "{verdicts}", "Verdicts on callers.", labels=("verdict",)
)
LOOK_UPS = Metric(
    "callwarden_auth_look_ups_total",
    "counter",
    "{look-ups}",
    "Verifications by where the user was found: in the cache or in the database.",
    labels=("where",),
)
QUERIES = Metric(
    "callwarden_auth_queries_total",
    "counter",
    "{queries}",
    "Queries for credentials; verifications share them.",
)
CACHED = Metric("callwarden_auth_cached_users", "gauge", "{users}", "Users in memory, existing or not.")
NUMBERS = Metric("callwarden_auth_numbers", "gauge", "{numbers}", "Numbers of accounts in memory.")
UNREADABLE = Metric(
    "callwarden_auth_unreadable_credentials_total",
    "counter",
    "{credentials}",
    "Credentials that no configured key opens, or that were changed in the database.",
)


SLOWED = Metric(
    "callwarden_auth_slowed_total",
    "counter",
    "{requests}",
    "Right credentials from an address where the user never was, refused since too many wrong ones had come.",
)


def register(metrics: Metrics, app: Auth) -> None:
    """Reads the app's statistics whenever metrics are collected."""
    stats = app.stats
    metrics.observe(VERDICTS, lambda: {("identified",): stats.identified, ("rejected",): stats.rejected})
    metrics.observe(LOOK_UPS, lambda: {("cache",): stats.hits, ("database",): stats.misses})
    metrics.observe(QUERIES, lambda: stats.queries)
    metrics.observe(CACHED, lambda: app.cached)
    metrics.observe(NUMBERS, lambda: len(app.numbers))
    metrics.observe(UNREADABLE, lambda: stats.unreadable)
    metrics.observe(SLOWED, lambda: stats.slowed)
