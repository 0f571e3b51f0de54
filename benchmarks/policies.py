"""From a policy changed in the Kubernetes API to enforced in every pod.

The operator's process on a real API server and a real NATS, and 100 processes' real following of policies (in this
process, over one connection).

Environment: BENCH_POLICIES_PODS (default 100), BENCH_POLICIES_CHANGES (default 20), BENCH_POLICIES_OTHERS (policies
that stand there besides, default 50).
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.report import Table
from callwarden.local.nats import NatsServer
from callwarden.local.usage import usage
from callwarden.testing.waiting import eventually
from tests.kubernetes.cluster import KubernetesCluster, missing
from tests.kubernetes.conftest import OperatorSite

PODS: Final = int(os.environ.get("BENCH_POLICIES_PODS", "100"))
CHANGES: Final = int(os.environ.get("BENCH_POLICIES_CHANGES", "20"))
OTHERS: Final = int(os.environ.get("BENCH_POLICIES_OTHERS", "50"))
TARGET_S: Final = 2.0


async def run() -> list[Table]:
    if why := missing():
        raise SystemExit(f"benchmarks: policies {why}")
    with tempfile.TemporaryDirectory(prefix="callwarden-bench-") as name:
        folder = Path(name)
        async with NatsServer(folder / "nats") as nats, KubernetesCluster(folder / "cluster") as cluster:
            return await _measure(OperatorSite(folder, cluster, nats))


def _policy(name: str, realm: str, lines: int) -> dict[str, Any]:
    return {
        "apiVersion": "callwarden.io/v1",
        "kind": "SecurityPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"realm": realm, "lines": {"max": lines}},
    }


async def _measure(site: OperatorSite) -> list[Table]:
    async with site.pods(PODS) as pods, site.operator() as operator:
        await site.kubectl.apply(*(_policy(f"other-{n}", f"r{n}.example", 5) for n in range(OTHERS)))
        await site.kubectl.apply(_policy("changed", "a.example", 1))
        await site.kubectl.do("wait", "--for=condition=Applied", "cwsp", "--all", "--timeout=90s")
        enforced: list[float] = []
        told: list[float] = []
        before = usage(operator.pid)[operator.pid]
        for lines in range(2, CHANGES + 2):
            await site.kubectl.apply(_policy("changed", "a.example", lines))
            began_s = time.perf_counter()  # kubectl returns when the API server has it

            def everywhere(lines: int = lines) -> bool:
                return all(pod.for_realm("a.example").lines.max == lines for pod in pods)

            await eventually(everywhere, timeout_s=60.0, interval_s=0.005)
            enforced.append(time.perf_counter() - began_s)
            await site.kubectl.do(
                "wait", "cwsp/changed", "--for=jsonpath={.status.observedGeneration}=" + str(lines), "--timeout=60s"
            )
            await site.kubectl.do("wait", "cwsp/changed", "--for=condition=Applied", "--timeout=60s")
            told.append(time.perf_counter() - began_s)
        after = usage(operator.pid)[operator.pid]
    worst = max(enforced)
    return [
        Table(
            "A policy change: from the Kubernetes API to every pod",
            ["until", "pods", "policies", "changes", "p50 s", "p95 s", "max s"],
            [
                ["enforced in every pod", PODS, OTHERS + 1, CHANGES, *_shares(enforced)],
                ["condition Applied seen by kubectl", PODS, OTHERS + 1, CHANGES, *_shares(told)],
            ],
            [
                f"To reach: {TARGET_S:g} s until enforced at 100 pods: "
                f"{'reached' if worst < TARGET_S and PODS >= 100 else 'not reached'} (worst {worst:.2f} s).",
                "Counted from when kubectl had its answer. API server, etcd, NATS, operator and all pods share the "
                "machine's cores; the second row holds two runs of kubectl.",
                f"CPU of the operator for a change: {(after.cpu_s - before.cpu_s) / CHANGES * 1e3:.0f} ms.",
            ],
        )
    ]


def _shares(seconds: list[float]) -> list[float]:
    ordered = sorted(seconds)
    return [ordered[len(ordered) // 2], ordered[min(len(ordered) * 95 // 100, len(ordered) - 1)], ordered[-1]]
