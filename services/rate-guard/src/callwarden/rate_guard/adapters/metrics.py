"""rate-guard's rows of the catalogue of metrics."""

from typing import Any

from callwarden.common.metrics import Metric, Metrics
from callwarden.limits.table import Table
from callwarden.rate_guard.app import RateGuard

REPORTS = Metric(
    "callwarden_rate_guard_reports_total",
    "counter",
    "{reports}",
    "Reports from edges: counted, or delivered twice.",
    ("what",),
)
NOT_OWNED = Metric(
    "callwarden_rate_guard_not_owned_total",
    "counter",
    "{addresses}",
    "Addresses reported to the wrong member.",
)
BANS = Metric("callwarden_rate_guard_bans", "gauge", "{bans}", "Bans in force, by all members and operators.")
BANNED = Metric(
    "callwarden_rate_guard_banned_total", "counter", "{bans}", "Bans that this process's counters caused.", ("reason",)
)
SPARED = Metric(
    "callwarden_rate_guard_spared_total",
    "counter",
    "{bans}",
    "Exceeded limits without a ban: an allowed or own address, or no room for more bans.",
)
KEYS = Metric("callwarden_rate_guard_keys", "gauge", "{keys}", "Addresses and endpoints with counters.", ("table",))
FORGOTTEN = Metric(
    "callwarden_rate_guard_forgotten_total",
    "counter",
    "{keys}",
    "Keys whose counters were removed: expired, evicted for lack of room, or evicted although hot.",
    ("table", "why"),
)
MEMBERS = Metric("callwarden_rate_guard_members", "gauge", "{members}", "Members that share the counting.")


def register(metrics: Metrics, app: RateGuard) -> None:
    """Reads the app's statistics whenever metrics are collected."""
    stats = app.stats
    tables: dict[str, Table[Any]] = {"addresses": app.counters.addresses, "endpoints": app.counters.endpoints}
    metrics.observe(REPORTS, lambda: {("counted",): stats.reports - stats.duplicates, ("duplicate",): stats.duplicates})
    metrics.observe(NOT_OWNED, lambda: stats.not_owned)
    metrics.observe(BANS, lambda: app.ban_count)
    metrics.observe(BANNED, lambda: {(reason,): count for reason, count in stats.banned.items()})
    metrics.observe(SPARED, lambda: stats.spared)
    metrics.observe(MEMBERS, lambda: len(app.members))
    metrics.observe(KEYS, lambda: {(name,): len(table) for name, table in tables.items()})
    metrics.observe(
        FORGOTTEN,
        lambda: {
            key: value
            for name, table in tables.items()
            for key, value in (
                ((name, "expired"), table.expired),
                ((name, "evicted"), table.evicted - table.evicted_hot),
                ((name, "evicted-hot"), table.evicted_hot),
            )
        },
    )
