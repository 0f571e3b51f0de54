"""What the checks of a deployment share: walking through containers, and the line of YAML that closes a finding."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from callwarden.cli.audit.finding import AuditFinding, AuditRule
from callwarden.cli.audit.objects import Object, Objects, Workload, mapping
from callwarden.cli.yaml_lines import line_of_yaml

EDGE: Final = "edge-proxy"
BUILTIN: Final = {"postgres": "database", "nats": "nats"}  # Components of the chart, and their values.


def containers(objects: Objects) -> Iterator[tuple[Workload, str, str, Mapping[str, Any]]]:
    for workload in objects.workloads():
        for group, container in workload.containers:
            yield workload, group, str(container.get("name", "")), container


def security_context(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(value.get("securityContext"))


def in_pod(rule: AuditRule, workload: Workload, what: str, change: Mapping[str, Any]) -> AuditFinding:
    fix = line_of_yaml(workload.patch(change))
    return AuditFinding(rule, rule.severity, workload.object.place, what, fix, workload.how())


def in_container(
    rule: AuditRule, found: tuple[Workload, str, str, Mapping[str, Any]], what: str, change: Mapping[str, Any]
) -> AuditFinding:
    workload, group, name, _ = found
    fix = line_of_yaml(workload.patch_container(group, name, change))
    return AuditFinding(rule, rule.severity, workload.object.within(f"container {name}"), what, fix, workload.how())


def by_chart(finding: AuditFinding, one: Object, values: Mapping[str, Any] | None) -> AuditFinding:
    """For what our chart makes, a line of its values instead of a patch."""
    if values is None or not one.is_of_chart:
        return finding
    how = "into the chart's values, then: helm upgrade RELEASE CHART -f values.yaml"
    return replace(finding, fix=line_of_yaml(values), how=how)


def values_of_service(one: Object, values: Mapping[str, Any]) -> dict[str, Any]:
    """What differs for one service; the built-in servers are for trying out, and have one pod."""
    component = str(one.labels.get("app.kubernetes.io/component", ""))
    if component in BUILTIN:
        return {BUILTIN[component]: {"builtin": False}, "secrets": {"generate": False}}
    return {"services": {component: dict(values)}}
