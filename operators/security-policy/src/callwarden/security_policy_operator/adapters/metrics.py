"""What the operator counts, by name."""

from typing import Final

from callwarden.common.metrics import Metric, Metrics
from callwarden.security_policy_operator.adapters.lease import Election
from callwarden.security_policy_operator.app import Operator

RECONCILES: Final = Metric(
    "callwarden_operator_reconciles_total",
    "counter",
    "{rounds}",
    "Rounds of reconciling, by how they ended.",
    ("result",),
)
POLICIES: Final = Metric(
    "callwarden_operator_policies", "gauge", "{policies}", "Policy resources, by what became of them.", ("state",)
)
APPLY: Final = Metric(
    "callwarden_operator_apply_seconds", "gauge", "s", "From writing the last bundle until every pod ran it."
)
LEADER: Final = Metric("callwarden_operator_leader", "gauge", "1", "1: this process reconciles. 0: another one does.")


def register(metrics: Metrics, operator: Operator, election: Election) -> None:
    counts = operator.counts
    metrics.observe(RECONCILES, lambda: {(result,): float(count) for result, count in counts.rounds.items()})
    metrics.observe(POLICIES, lambda: {("accepted",): float(counts.accepted), ("refused",): float(counts.refused)})
    metrics.observe(APPLY, lambda: counts.apply_s)
    metrics.observe(LEADER, lambda: float(election.leads))
