"""Metrics of number lists and of the statistics of numbers."""

from callwarden.call_admission.lists.app.call_watch import CallWatch
from callwarden.call_admission.lists.app.number_lists import NumberLists
from callwarden.common.metrics import Metric, Metrics

LIST_ENTRIES = Metric(
    "callwarden_admission_list_entries", "gauge", "{entries}", "Entries of all number lists in this process's memory."
)


LIST_BYTES = Metric("callwarden_admission_list_bytes", "gauge", "By", "What their numbers and prefixes take.")


LIST_LOADS = Metric("callwarden_admission_list_loads_total", "counter", "{lists}", "Number lists read and swapped in.")


LIST_FAILURES = Metric(
    "callwarden_admission_list_load_failures_total", "counter", "{refreshes}", "Times that lists couldn't be read."
)


LISTED = Metric("callwarden_admission_listed", "gauge", "{numbers}", "Numbers that are listed for a time.")


LISTED_HERE = Metric(
    "callwarden_admission_listed_total", "counter", "{numbers}", "Numbers that this process listed.", labels=("list",)
)


WATCHED = Metric("callwarden_admission_watched", "gauge", "{numbers}", "Numbers with statistics, by side.", ("side",))


WATCH_EVICTED = Metric(
    "callwarden_admission_watch_evicted_total",
    "counter",
    "{numbers}",
    "Numbers whose statistics were forgotten for want of room.",
)


WATCH_DROPPED = Metric(
    "callwarden_admission_watch_dropped_total", "counter", "{calls}", "Calls that statistics had no room for."
)


def register_lists(metrics: Metrics, lists: NumberLists) -> None:
    """Of number lists, as any process that follows them has them."""
    metrics.observe(LIST_ENTRIES, lambda: sum(one.head.entries for one in lists.current.fixed.values()))
    metrics.observe(LIST_BYTES, lambda: sum(one.size_bytes for one in lists.current.fixed.values()))
    metrics.observe(LIST_LOADS, lambda: lists.counts.loads)
    metrics.observe(LIST_FAILURES, lambda: lists.counts.load_failures)
    metrics.observe(LISTED, lambda: len(lists.listings))


def register_watch(metrics: Metrics, watch: CallWatch) -> None:
    """Of the statistics of numbers, which only processes that see calls keep."""
    stats = watch.stats
    metrics.observe(LISTED_HERE, lambda: {(name,): n for name, n in watch.counts.listed.items()})
    metrics.observe(WATCHED, lambda: {("called",): len(stats.targets), ("calling",): len(stats.callers)})
    metrics.observe(WATCH_EVICTED, lambda: stats.evicted)
    metrics.observe(WATCH_DROPPED, lambda: watch.pending.dropped)
