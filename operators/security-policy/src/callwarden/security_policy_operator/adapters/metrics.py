"""The operator's metrics."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from callwarden.common.metrics import Metric, Metrics
from callwarden.security_policy_operator.adapters.lease import LeaderElection
from callwarden.security_policy_operator.app.operator import POLICIES, SecurityPolicyOperator
from callwarden.security_policy_operator.ports import ResourceReconciler

ROUNDS: Final = Metric(
    "callwarden_operator_reconciles_total",
    "counter",
    "{rounds}",
    "Rounds of reconciling, by kind and by how they ended.",
    ("resource", "result"),
)
QUEUE: Final = Metric(
    "callwarden_operator_queue",
    "gauge",
    "{changes}",
    "Changes of resources that no finished round has seen, by kind.",
    ("resource",),
)
LATENCY: Final = Metric(
    "callwarden_operator_latency_seconds",
    "histogram",
    "s",
    "From the oldest change that a round saw until the round was done, by kind.",
    ("resource",),
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
RESOURCES: Final = Metric(
    "callwarden_operator_resources",
    "gauge",
    "{resources}",
    "Resources by kind and by what the last round came to: accepted (policies), applied, pending, refused.",
    ("resource", "state"),
)
APPLY: Final = Metric(
    "callwarden_operator_apply_seconds", "gauge", "s", "From writing the last bundle until every pod enforced it."
)
LEADER: Final = Metric("callwarden_operator_leader", "gauge", "1", "1: this process is the leader, 0: another one is.")


def seen(metrics: Metrics) -> Callable[[str, float], None]:
    """Records how long changes of a kind waited."""
    return lambda resource, seconds: metrics.histogram(LATENCY, resource).record(seconds)


def register(
    metrics: Metrics,
    operator: SecurityPolicyOperator,
    resources: Sequence[ResourceReconciler],
    election: LeaderElection,
) -> None:
    stats = operator.policies.stats

    def states() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {
            (POLICIES, "accepted"): float(stats.accepted),
            (POLICIES, "refused"): float(stats.refused),
        }
        for each in resources:
            by_state = Counter(each.states())
            found |= {(each.plural, state): float(by_state[state]) for state in ("applied", "pending", "refused")}
        return found

    metrics.observe(
        ROUNDS,
        lambda: {
            (name, result): float(count)
            for name, rounds in operator.rounds.items()
            for result, count in rounds.outcomes.items()
        },
    )
    metrics.observe(
        QUEUE,
        # Another process's changes are not for this one to carry out.
        lambda: {(name,): float(rounds.waiting if election.leads else 0) for name, rounds in operator.rounds.items()},
    )
    metrics.observe(RESOURCES, states)
    metrics.observe(APPLY, lambda: stats.apply_s)
    metrics.observe(LEADER, lambda: float(election.leads))
