"""The chart as helm renders it: objects, and what is asked of them often. Presets, versions."""

import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from callwarden.testing.kube_tools import program

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "callwarden"
RELEASE: Final = "cw"
NAMESPACE: Final = "voip"
# The oldest that Chart.yaml allows, and the newest that there are schemas for.
VERSIONS: Final = ("1.28.0", "1.31.0", "1.34.0", "1.37.0")

Object: TypeAlias = Mapping[str, Any]

PRESETS: Final[dict[str, tuple[str, ...]]] = {
    "default": (),
    "minimal": ("values-minimal.yaml",),
    "production": ("values-production.yaml",),
    "edge-daemonset": ("values-production.yaml", "values-edge-daemonset.yaml"),
}
# What no preset has.
VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "everything": (
        "tls.enabled=true",
        "tls.certManager.issuerRef.name=corporate",
        "backup.kind=postgresql",
        "edge.service.type=LoadBalancer",
        "edge.service.nodePort=30060",
        "edge.sip.advertised=192.0.2.7:5070",
        "edge.sip.port=5070",
        "edge.gateway.enabled=true",
        "edge.gateway.parentRefs[0].name=public",
        "image.registry=registry.example.com",
        f"image.digests.auth=sha256:{'0' * 64}",
        "image.pullSecrets[0]=pull",
        "telemetry.otlpEndpoint=http://collector.monitoring:4317",
        "ownAddresses[0]=10.0.0.0/8",
        "networkPolicy.sipFrom[0].ipBlock.cidr=198.51.100.0/24",
        "networkPolicy.adminFrom[0].podSelector.matchLabels.app=console",
        "rateDecks.namespaces={sales,wholesale,voip}",
        "services.administration.settings.keep_cdr_days=2000000",
        "services.auth.disruption.enabled=false",
        "pod.priorityClassName=high",
        "monitoring.serviceMonitor.enabled=true",
    ),
    "little": (
        "networkPolicy.enabled=false",
        "migrations.enabled=false",
        "services.payment.enabled=false",
        "services.security-policy.enabled=false",
        "listenHost=[::]",
    ),
}
CASES: Final = (*PRESETS, *VARIANTS)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("helm"), *arguments], capture_output=True, text=True, check=False)


def arguments_of(case: str) -> list[str]:
    """Helm's arguments for a preset or a variant."""
    files = [f"--values={CHART / name}" for name in PRESETS.get(case, ())]
    return files + [f"--set={value}" for value in VARIANTS.get(case, ())]


@cache
def rendered(case: str, version: str = VERSIONS[-1], *more: str) -> tuple[Object, ...]:
    result = helm(
        *("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", version),
        *arguments_of(case),
        *more,
    )
    assert result.returncode == 0, result.stderr
    return tuple(each for each in yaml.safe_load_all(result.stdout) if each)


def of_kind(objects: tuple[Object, ...], *kinds: str) -> Iterator[Object]:
    return (each for each in objects if each["kind"] in kinds)


def pod_of(each: Object) -> Object | None:
    """The template of an object's pods: metadata and spec."""
    match each["kind"]:
        case "Deployment" | "DaemonSet" | "StatefulSet" | "Job":
            template: Object = each["spec"]["template"]
            return template
        case "CronJob":
            nested: Object = each["spec"]["jobTemplate"]["spec"]["template"]
            return nested
    return None


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """(name of the owner, pod template) of all that makes pods."""
    for each in objects:
        if (pod := pod_of(each)) is not None:
            yield each["metadata"]["name"], pod


def containers(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    for owner, pod in pods(objects):
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield f"{owner}/{container['name']}", container


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a podSelector with matchLabels only selects these labels."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
