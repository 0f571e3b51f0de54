"""What is counted, as metrics."""

from callwarden.call_admission.admission.adapters.quotes_grpc import GrpcQuotes
from callwarden.call_admission.admission.app.calls import CallAdmission
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
