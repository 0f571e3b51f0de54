"""The operator's metrics."""

from typing import Final

from callwarden.common.metrics import Metric, Metrics
from callwarden.security_policy_operator.adapters.lease import LeaderElection
from callwarden.security_policy_operator.app.operator import SecurityPolicyOperator

RECONCILES: Final = Metric(
    "callwarden_operator_reconciles_total",
    "counter",
    "{rounds}",
    "Rounds of reconciling, by how they ended.",
    ("result",),
)
POLICIES: Final = Metric(
    "callwarden_operator_policies",
    "gauge",
    "{policies}",
    "Policy resources, accepted or refused.",
    ("state",),
)
APPLY: Final = Metric(
    "callwarden_operator_apply_seconds", "gauge", "s", "From writing the last bundle until every pod enforced it."
)
LEADER: Final = Metric("callwarden_operator_leader", "gauge", "1", "1: this process is the leader, 0: another one is.")


def register(metrics: Metrics, operator: SecurityPolicyOperator, election: LeaderElection) -> None:
    stats = operator.policies.stats
    metrics.observe(RECONCILES, lambda: {(result,): float(count) for result, count in operator.rounds.items()})
    metrics.observe(POLICIES, lambda: {("accepted",): float(stats.accepted), ("refused",): float(stats.refused)})
    metrics.observe(APPLY, lambda: stats.apply_s)
    metrics.observe(LEADER, lambda: float(election.leads))
