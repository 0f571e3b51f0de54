"""The edge's metrics: read from the core at each scrape."""

from callwarden.common.metrics import Metric, Metrics
from callwarden.edge_proxy.core.edge import Edge

EVENTS = Metric(
    "callwarden_edge_events_total",
    "counter",
    "{events}",
    "What the edge saw and did, by what it was.",
    labels=("what",),
)
CALLS = Metric("callwarden_edge_calls", "gauge", "{calls}", "Calls being set up or running.")
TRANSACTIONS = Metric("callwarden_edge_transactions", "gauge", "{transactions}", "SIP transactions kept.")
LOCATIONS = Metric("callwarden_edge_locations", "gauge", "{users}", "Registered users known.")
BANS = Metric("callwarden_edge_bans", "gauge", "{addresses}", "Addresses banned here.")
ADDRESSES = Metric("callwarden_edge_addresses", "gauge", "{addresses}", "Source addresses counted.")


def observe(metrics: Metrics, edge: Edge) -> None:
    """Have everything read when the metrics are collected."""
    metrics.observe(EVENTS, lambda: {(name,): value for name, value in edge.stats.items().items()})
    metrics.observe(CALLS, lambda: len(edge.calls))
    metrics.observe(TRANSACTIONS, lambda: len(edge.layer))
    metrics.observe(LOCATIONS, lambda: len(edge.locations))
    metrics.observe(BANS, lambda: edge.source_filter.bans)
    metrics.observe(ADDRESSES, lambda: len(edge.counters))
