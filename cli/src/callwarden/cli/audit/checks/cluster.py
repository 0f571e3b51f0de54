"""Checks of what is around the pods: network policies, availability, rights of service accounts, refused resources."""

from collections.abc import Iterator
from typing import Any, Final

from callwarden.cli.audit.checks.fixes import EDGE, by_chart, values_of_service
from callwarden.cli.audit.checks.pods import is_service
from callwarden.cli.audit.finding import AuditFinding, AuditRule
from callwarden.cli.audit.objects import Object, Objects, Workload, mapping, selects, sequence
from callwarden.cli.yaml_lines import line_of_yaml
from callwarden.policy.resources import ANY

_OPERATOR: Final = "security-policy"
_REPLICAS_MIN: Final = 2


def without_network_policy(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    policies = list(objects.of("NetworkPolicy"))
    for workload in objects.workloads():
        one = workload.object
        if one.kind == "Pod" or workload.pod.get("hostNetwork") is True:
            continue  # A pod on its node's network is outside of every policy: the node's firewall is its.
        about = [
            policy.spec
            for policy in policies
            if policy.namespace == one.namespace and selects(policy.spec.get("podSelector"), workload.labels)
        ]
        types = {str(kind) for spec in about for kind in sequence(spec.get("policyTypes"))}
        types |= {"Ingress"} if about else set()  # What is always meant.
        if missing := [kind for kind in ("Ingress", "Egress") if kind not in types]:
            what = f"no NetworkPolicy limits {' and '.join(kind.lower() for kind in missing)} of its pods"
            finding = AuditFinding(
                rule,
                rule.severity,
                one.place,
                what,
                line_of_yaml(_network_policy(workload)),
                "kubectl apply -f - with that line; the chart's own policies let through less",
            )
            yield by_chart(finding, one, {"networkPolicy": {"enabled": True}})


def _network_policy(workload: Workload) -> dict[str, Any]:
    """Lets in pods of the namespace, and on an edge's ports everybody; lets out whatever is asked for by name."""
    ingress: list[dict[str, Any]] = [{"from": [{"podSelector": {}}]}]
    if is_service(workload, EDGE):
        ports = [
            {"protocol": port.get("protocol", "TCP"), "port": port.get("containerPort")}
            for _, container in workload.containers
            for port in map(mapping, sequence(container.get("ports")))
            if str(port.get("name", "")).startswith("sip")
        ]
        ingress += [{"ports": ports}] if ports else []
    one = workload.object
    metadata = {"name": one.name, **({"namespace": one.namespace} if one.namespace else {})}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": dict(workload.labels)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [{}],
        },
    }


def hides_sources(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for one in objects.of("Service"):
        ports = [mapping(port) for port in sequence(one.spec.get("ports"))]
        speaks_sip = any("sip" in str(port.get("name", "")) or port.get("port") in (5060, 5061) for port in ports)
        is_outside = one.spec.get("type") in ("LoadBalancer", "NodePort")
        if speaks_sip and is_outside and one.spec.get("externalTrafficPolicy") != "Local":
            yield AuditFinding(
                rule,
                rule.severity,
                one.place,
                "replaces the callers' addresses by the node's",
                line_of_yaml({"spec": {"externalTrafficPolicy": "Local"}}),
                f"kubectl patch {one.to_kubectl} --type merge -p 'LINE'",
            )


def one_replica(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for workload in objects.running():
        one = workload.object
        if one.kind == "DaemonSet" or is_service(workload, _OPERATOR):
            continue  # One on each node; and everything runs on without an operator.
        scaler = next((hpa for hpa in objects.of("HorizontalPodAutoscaler") if _scales(hpa, one)), None)
        count = (scaler or one).spec.get("minReplicas" if scaler else "replicas", 1)
        if isinstance(count, int) and count < _REPLICAS_MIN:
            target = scaler or one
            key = "minReplicas" if scaler else "replicas"
            finding = AuditFinding(
                rule,
                rule.severity,
                target.place,
                f"runs in {count} pod{'' if count == 1 else 's'}",
                line_of_yaml({"spec": {key: _REPLICAS_MIN}}),
                f"into the manifest; at once: kubectl patch {target.to_kubectl} --type merge -p 'LINE'",
            )
            count_value = {"autoscaling": {"min": _REPLICAS_MIN}} if scaler else {"replicas": _REPLICAS_MIN}
            yield by_chart(finding, one, values_of_service(one, count_value))


def _scales(hpa: Object, workload: Object) -> bool:
    target = mapping(hpa.spec.get("scaleTargetRef"))
    return hpa.namespace == workload.namespace and (target.get("kind"), target.get("name")) == (
        workload.kind,
        workload.name,
    )


def without_budget(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    budgets = list(objects.of("PodDisruptionBudget"))
    for workload in objects.running():
        one = workload.object
        if one.kind == "DaemonSet" or is_service(workload, _OPERATOR):
            continue
        if any(
            budget.namespace == one.namespace and selects(budget.spec.get("selector"), workload.labels)
            for budget in budgets
        ):
            continue
        metadata = {"name": one.name, **({"namespace": one.namespace} if one.namespace else {})}
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(workload.labels)}},
        }
        finding = AuditFinding(
            rule,
            rule.severity,
            one.place,
            "all its pods may be evicted at once",
            line_of_yaml(budget),
            "kubectl apply -f - with that line",
        )
        # The chart makes one by itself where there is more than one pod.
        values = values_of_service(one, {"replicas": _REPLICAS_MIN, "disruption": {"enabled": True}})
        yield by_chart(finding, one, values)


def wildcard_rights(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for one in objects.of("Role", "ClusterRole"):
        for entry in map(mapping, sequence(one.body.get("rules"))):
            wild = [key for key in ("verbs", "resources", "apiGroups") if "*" in sequence(entry.get(key))]
            if wild:
                yield AuditFinding(
                    rule,
                    rule.severity,
                    one.place,
                    f"allows any of {', '.join(wild)}",
                    "",
                    "name what is needed; the chart's role for the operator is a list to begin with",
                )
                break


def admits_anything(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    label = "pod-security.kubernetes.io/enforce"
    on_host = {one.object.namespace for one in objects.workloads() if one.pod.get("hostNetwork") is True}
    for one in objects.of("Namespace"):
        labels = mapping(one.metadata.get("labels"))
        if one.name in on_host or labels.get(label) == "restricted":
            continue
        yield AuditFinding(
            rule,
            rule.severity,
            one.place,
            f"admits any pod (level {labels.get(label, 'not set')})",
            line_of_yaml({"metadata": {"labels": {label: "restricted"}}}),
            f"kubectl patch {one.to_kubectl} --type merge -p 'LINE'",
        )


def binds_everything(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for one in objects.of("RealmBinding"):
        if ANY in sequence(one.spec.get("namespaces")) and ANY in sequence(one.spec.get("realms")):
            yield AuditFinding(
                rule,
                rule.severity,
                one.place,
                "lets resources in every namespace act on all realms",
                line_of_yaml({"spec": {"namespaces": ["NAMESPACE"]}}),
                f"kubectl patch {one.to_kubectl} --type merge -p 'LINE', with the namespaces that need it",
            )


def not_applied(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for one in objects.of("SecurityPolicy", "ClusterSecurityPolicy"):
        for condition in map(mapping, sequence(mapping(one.body.get("status")).get("conditions"))):
            kind, status = condition.get("type"), condition.get("status")
            if (kind in ("Accepted", "Applied") and status == "False") or (kind == "Degraded" and status == "True"):
                reason = condition.get("message") or condition.get("reason") or "no reason given"
                yield AuditFinding(
                    rule,
                    rule.severity,
                    one.place,
                    f"{kind} is {status}: {reason}",
                    "",
                    f"kubectl describe {one.to_kubectl}; callwarden policy lint says what is wrong",
                )
