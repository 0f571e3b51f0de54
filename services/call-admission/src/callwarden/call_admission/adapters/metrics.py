"""What is counted, as metrics."""

from callwarden.call_admission.adapters.quotes_grpc import GrpcQuotes
from callwarden.call_admission.app import CallAdmission
from callwarden.call_admission.call_watch import CallWatch
from callwarden.call_admission.number_lists import NumberLists
from callwarden.common.metrics import Metric, Metrics

ADMITTED = Metric("callwarden_admission_admitted_total", "counter", "{calls}", "Calls admitted.")
REFUSED = Metric(
    "callwarden_admission_refused_total", "counter", "{calls}", "Calls refused.", labels=("rule", "reason")
)
REPORTED = Metric(
    "callwarden_admission_reported_total",
    "counter",
    "{calls}",
    "Calls that a rule in mode Report would have refused.",
    labels=("rule",),
)
EXTENDED = Metric("callwarden_admission_extended_total", "counter", "{slices}", "Further slices granted.")
SETTLED = Metric("callwarden_admission_settled_total", "counter", "{calls}", "Calls settled when they ended.")
EXPIRED = Metric("callwarden_admission_expired_total", "counter", "{calls}", "Calls settled because nobody ended them.")
IGNORED = Metric(
    "callwarden_admission_ignored_total",
    "counter",
    "{events}",
    "Events that changed nothing: repeated or late (settled), or of a call nobody knows.",
    labels=("why",),
)
BATCHES = Metric("callwarden_admission_batches_total", "counter", "{transactions}", "Group commits begun.")
COMMANDS = Metric("callwarden_admission_commands_total", "counter", "{commands}", "Commands in them.")
FAILED = Metric("callwarden_admission_failed_batches_total", "counter", "{transactions}", "Group commits that failed.")
QUEUED = Metric("callwarden_admission_queued", "gauge", "{commands}", "Commands that wait for the next group commit.")
QUOTES = Metric(
    "callwarden_admission_quotes_total",
    "counter",
    "{quotes}",
    "Prices needed, by where they came from: memory or rating.",
    labels=("source",),
)
GROWN = Metric(
    "callwarden_admission_accounts_sharded_total",
    "counter",
    "{accounts}",
    "Accounts that got more shards because several processes contended for them.",
)
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


def register_lists(metrics: Metrics, lists: NumberLists, watch: CallWatch) -> None:
    """Likewise, of number lists and statistics."""
    stats = watch.stats
    metrics.observe(LIST_ENTRIES, lambda: sum(one.head.entries for one in lists.current.fixed.values()))
    metrics.observe(LIST_BYTES, lambda: sum(one.size_bytes for one in lists.current.fixed.values()))
    metrics.observe(LIST_LOADS, lambda: lists.counts.loads)
    metrics.observe(LIST_FAILURES, lambda: lists.counts.load_failures)
    metrics.observe(LISTED, lambda: len(lists.listings))
    metrics.observe(LISTED_HERE, lambda: {(name,): n for name, n in watch.counts.listed.items()})
    metrics.observe(WATCHED, lambda: {("called",): len(stats.targets), ("calling",): len(stats.callers)})
    metrics.observe(WATCH_EVICTED, lambda: stats.evicted)
    metrics.observe(WATCH_DROPPED, lambda: watch.pending.dropped)


def register(metrics: Metrics, app: CallAdmission, quotes: GrpcQuotes) -> None:
    """Has what is counted anyway read when somebody scrapes."""
    counts = app.counts
    metrics.observe(ADMITTED, lambda: counts.admitted)
    metrics.observe(REFUSED, lambda: {(rule, reason): n for (rule, reason), n in counts.refused.items()})
    metrics.observe(REPORTED, lambda: {(rule,): n for rule, n in counts.reported.items()})
    metrics.observe(EXTENDED, lambda: counts.extended)
    metrics.observe(SETTLED, lambda: counts.settled)
    metrics.observe(EXPIRED, lambda: counts.expired)
    metrics.observe(IGNORED, lambda: {(why,): n for why, n in counts.ignored.items()})
    metrics.observe(BATCHES, lambda: counts.batches)
    metrics.observe(COMMANDS, lambda: counts.commands)
    metrics.observe(FAILED, lambda: counts.failed_batches)
    metrics.observe(GROWN, lambda: counts.grown)
    metrics.observe(QUEUED, lambda: app.queued)
    metrics.observe(QUOTES, lambda: {("memory",): quotes.found, ("rating",): quotes.asked})
