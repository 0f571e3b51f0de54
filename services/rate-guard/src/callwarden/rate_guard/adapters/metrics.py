"""What rate-guard measures."""

from typing import Any

from callwarden.common.metrics import Metric, Metrics
from callwarden.limits.table import Table
from callwarden.rate_guard.app import RateGuard

REPORTS = Metric(
    "callwarden_rate_guard_reports_total",
    "counter",
    "{reports}",
    "Reports of edges: counted, or come twice.",
    ("what",),
)
NOT_OWNED = Metric(
    "callwarden_rate_guard_not_owned_total",
    "counter",
    "{addresses}",
    "Addresses that were reported to the wrong member.",
)
BANS = Metric("callwarden_rate_guard_bans", "gauge", "{bans}", "Bans that hold, of all members and operators.")
BANNED = Metric(
    "callwarden_rate_guard_banned_total", "counter", "{bans}", "Bans that this process's counters caused.", ("reason",)
)
SPARED = Metric(
    "callwarden_rate_guard_spared_total",
    "counter",
    "{bans}",
    "Limits passed without a ban: an allowed or own address, or no room for more bans.",
)
KEYS = Metric("callwarden_rate_guard_keys", "gauge", "{keys}", "Addresses and endpoints with counters.", ("table",))
FORGOTTEN = Metric(
    "callwarden_rate_guard_forgotten_total",
    "counter",
    "{keys}",
    "Keys whose counters went: after their time, for want of room, and of those the ones that mattered (hot).",
    ("table", "why"),
)
MEMBERS = Metric("callwarden_rate_guard_members", "gauge", "{members}", "Members that share the counting.")


def register(metrics: Metrics, app: RateGuard) -> None:
    """Has the app's counts read whenever the metrics are collected."""
    counts = app.counts
    tables: dict[str, Table[Any]] = {"addresses": app.counters.addresses, "endpoints": app.counters.endpoints}
    metrics.observe(
        REPORTS, lambda: {("counted",): counts.reports - counts.duplicates, ("duplicate",): counts.duplicates}
    )
    metrics.observe(NOT_OWNED, lambda: counts.not_owned)
    metrics.observe(BANS, lambda: app.ban_count)
    metrics.observe(BANNED, lambda: {(reason,): count for reason, count in counts.banned.items()})
    metrics.observe(SPARED, lambda: counts.not_banned)
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
