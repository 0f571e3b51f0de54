"""What is counted, as metrics."""

from callwarden.call_admission.admission.adapters.quotes_grpc import GrpcQuotes
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.attempts import AdmissionAttempts
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
LAPSED = Metric(
    "callwarden_admission_lapsed_total", "counter", "{calls}", "Calls whose hold expired before their end was told."
)
EXPIRED = Metric(
    "callwarden_admission_expired_total", "counter", "{calls}", "Of those, calls recorded because no end came."
)
ENDED_LATE = Metric(
    "callwarden_admission_ended_late_total",
    "counter",
    "{calls}",
    "Calls whose end came after their hold had expired: in-time, or corrected where they were recorded already.",
    labels=("how",),
)
UNCHARGED = Metric(
    "callwarden_admission_uncharged_micros_total",
    "counter",
    "1",
    "What such calls cost beyond what their prepaid account had left, in millionths of any currency.",
)
IGNORED = Metric(
    "callwarden_admission_ignored_total",
    "counter",
    "{events}",
    "Events that changed nothing: repeated or late (settled), or of an unknown call.",
    labels=("why",),
)
BATCHES = Metric("callwarden_admission_batches_total", "counter", "{transactions}", "Group commits begun.")
COMMANDS = Metric("callwarden_admission_commands_total", "counter", "{commands}", "Commands in them.")
FAILED = Metric("callwarden_admission_failed_batches_total", "counter", "{transactions}", "Group commits that failed.")
CLOCK_SKEW = Metric(
    "callwarden_admission_edge_clock_skew_seconds",
    "gauge",
    "s",
    "An edge's clock less this process's, as of its last request. Charges don't depend on it.",
    labels=("edge",),
)
QUEUED = Metric("callwarden_admission_queued", "gauge", "{commands}", "Commands that wait for the next group commit.")
QUOTES = Metric(
    "callwarden_admission_quotes_total",
    "counter",
    "{quotes}",
    "Prices needed, by where they came from: memory or rating.",
    labels=("source",),
)
CONFLICTS = Metric(
    "callwarden_admission_conflicts_total",
    "counter",
    "{transactions}",
    "Batches read again because another process had moved an account.",
)
GROWN = Metric(
    "callwarden_admission_accounts_sharded_total",
    "counter",
    "{accounts}",
    "Accounts that got more shards because several processes contended for them.",
)


def register(metrics: Metrics, app: CallAdmission, attempts: AdmissionAttempts, quotes: GrpcQuotes) -> None:
    """Registers the metrics; they are read when they are scraped."""
    stats, commits = app.stats, app.commit_stats
    metrics.observe(CLOCK_SKEW, lambda: {(edge,): skew_s for edge, skew_s in app.edge_clocks.skew_s.items()})
    metrics.observe(ADMITTED, lambda: stats.admitted)
    metrics.observe(REFUSED, lambda: {(rule, reason): n for (rule, reason), n in stats.refused.items()})
    metrics.observe(REPORTED, lambda: {(rule,): n for rule, n in commits.reported.items()})
    metrics.observe(EXTENDED, lambda: stats.extended)
    metrics.observe(SETTLED, lambda: stats.settled)
    metrics.observe(LAPSED, lambda: stats.lapsed)
    metrics.observe(EXPIRED, lambda: stats.expired)
    metrics.observe(ENDED_LATE, lambda: {(how,): n for how, n in stats.ended_late.items()})
    metrics.observe(UNCHARGED, lambda: stats.uncharged_micros)
    metrics.observe(IGNORED, lambda: {(why,): n for why, n in stats.ignored.items()})
    metrics.observe(BATCHES, lambda: commits.batches)
    metrics.observe(COMMANDS, lambda: commits.commands)
    metrics.observe(FAILED, lambda: commits.failed_batches)
    metrics.observe(CONFLICTS, lambda: attempts.conflicts)
    metrics.observe(GROWN, lambda: stats.grown)
    metrics.observe(QUEUED, lambda: app.queued)
    metrics.observe(QUOTES, lambda: {("memory",): quotes.found, ("rating",): quotes.asked})
