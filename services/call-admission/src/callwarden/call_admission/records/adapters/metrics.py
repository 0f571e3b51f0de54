"""What the check of charges found, as metrics."""

from callwarden.call_admission.records.app.charge_check import ChargeCheck
from callwarden.common.metrics import Metric, Metrics

FOUND = Metric(
    "callwarden_admission_charge_findings",
    "gauge",
    "{calls}",
    "What the last check of charges found wrong, by kind; nothing before the first check.",
    labels=("kind",),
)
CHECKED_AT = Metric(
    "callwarden_admission_charges_checked_timestamp_seconds",
    "gauge",
    "s",
    "When charges were last checked, in seconds since 1970; 0: not since the process began.",
)


def register_check(metrics: Metrics, check: ChargeCheck) -> None:
    metrics.observe(FOUND, lambda: {(kind.value,): n for kind, n in check.found.items()})
    metrics.observe(CHECKED_AT, lambda: check.checked_at_s)
