"""The deployment's part of the checklist: each fact is found in the object that has it, and its line closes it."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from callwarden.cli.audit import deployment
from callwarden.cli.audit.checks.pods import FIREWALL_CONTAINER
from callwarden.cli.audit.finding import AuditFinding
from callwarden.cli.audit.objects import Object, Objects, selects
from cli.tests.strategic_merge import merge

LABELS = {"app.kubernetes.io/name": "rating", "app.kubernetes.io/part-of": "callwarden"}
TLS = [
    {"name": "CALLWARDEN_TLS_CERT", "value": "/tls/tls.crt"},
    {"name": "CALLWARDEN_TLS_KEY", "value": "/tls/tls.key"},
    {"name": "CALLWARDEN_TLS_CA", "value": "/tls/ca.crt"},
]
CONTAINER: dict[str, Any] = {
    "name": "rating",
    "image": f"registry.example/rating@sha256:{'0' * 64}",
    "env": [{"name": "CALLWARDEN_GRPC_LISTEN", "value": "0.0.0.0:9000"}, *TLS],
    "ports": [{"name": "grpc", "containerPort": 9000}, {"name": "metrics", "containerPort": 9090}],
    "readinessProbe": {"httpGet": {"path": "/readyz", "port": "metrics"}},
    "livenessProbe": {"httpGet": {"path": "/healthz", "port": "metrics"}},
    "resources": {"requests": {"cpu": "250m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}},
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
POD: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [CONTAINER],
}


def named(kind: str, spec: Mapping[str, Any], name: str = "rating", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "voip"}, "spec": spec, **more}


WORKLOAD = named("Deployment", {"replicas": 2, "template": {"metadata": {"labels": LABELS}, "spec": POD}})
BESIDE = [
    named("NetworkPolicy", {"podSelector": {"matchLabels": LABELS}, "policyTypes": ["Ingress", "Egress"]}),
    named("PodDisruptionBudget", {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}}),
]


def audited(*bodies: Mapping[str, Any]) -> list[AuditFinding]:
    return list(deployment.findings(Objects([Object(body) for body in bodies])))


def with_container(change: Mapping[str, Any], **pod: Any) -> dict[str, Any]:
    """The workload with its container, and its pod, changed so; None takes a key away."""
    changed = copy.deepcopy(WORKLOAD)
    spec = changed["spec"]["template"]["spec"]
    for target, values in ((spec["containers"][0], change), (spec, pod)):
        for key, value in values.items():
            target.pop(key) if value is None else target.update({key: value})
    return changed


def security(**context: Any) -> dict[str, Any]:
    return {"securityContext": {**CONTAINER["securityContext"], **context}}


def env(name: str, value: str) -> dict[str, Any]:
    return {"env": [*CONTAINER["env"], {"name": name, "value": value}]}


def test_a_workload_as_the_chart_makes_it_has_no_finding() -> None:
    assert audited(WORKLOAD, *BESIDE) == []


CASES: list[tuple[str, dict[str, Any]]] = [
    ("deploy/root", with_container(security(runAsNonRoot=False))),
    ("deploy/root", with_container(security(runAsUser=0))),
    ("deploy/root-file-system", with_container(security(readOnlyRootFilesystem=False))),
    ("deploy/escalation", with_container(security(privileged=True))),
    ("deploy/escalation", with_container(security(allowPrivilegeEscalation=True))),
    ("deploy/capabilities", with_container(security(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]}))),
    ("deploy/capabilities", with_container(security(capabilities={}))),
    ("deploy/seccomp", with_container(security(seccompProfile={"type": "Unconfined"}))),
    ("deploy/host", with_container({}, hostPID=True)),
    ("deploy/host", with_container({}, hostNetwork=True)),
    ("deploy/host", with_container({}, volumes=[{"name": "etc", "hostPath": {"path": "/etc"}}])),
    ("deploy/resources", with_container({"resources": None})),
    ("deploy/api-token", with_container({}, automountServiceAccountToken=None)),
    ("deploy/probes", with_container({"readinessProbe": None, "livenessProbe": None})),
    ("deploy/secret-in-environment", with_container(env("CALLWARDEN_NONCE_KEY", "0123456789abcdef"))),
    ("deploy/secret-in-environment", with_container(env("CALLWARDEN_NATS_URL", "tls://u:p4ss@nats:4222"))),
    ("deploy/tls", with_container({"env": [CONTAINER["env"][0]]})),
    ("deploy/tls-url", with_container(env("CALLWARDEN_NATS_URL", "nats://nats:4222"))),
    ("deploy/tls-url", with_container(env("CALLWARDEN_DATABASE_URL", "postgresql+asyncpg://db/callwarden"))),
    ("deploy/replicas", {**WORKLOAD, "spec": {**WORKLOAD["spec"], "replicas": 1}}),
]


@pytest.mark.parametrize("value", ["$(RAW_PASSWORD)", '"$(RAW_PASSWORD)"', "/run/secrets/password"])
def test_what_only_says_where_a_secret_is_is_none(value: str) -> None:
    assert audited(with_container(env("CALLWARDEN_SOME_PASSWORD", value)), *BESIDE) == []


@pytest.mark.setting("audit-checklist")
@pytest.mark.parametrize(("rule", "workload"), CASES, ids=[f"{rule}-{index}" for index, (rule, _) in enumerate(CASES)])
def test_each_fact_is_found_and_the_line_closes_it(rule: str, workload: dict[str, Any]) -> None:
    (finding,) = audited(workload, *BESIDE)
    assert finding.rule.id == rule
    assert finding.place.name.startswith("Deployment voip/rating")
    assert "kubectl patch deployment rating -n voip" in finding.how
    assert audited(merge(workload, yaml.safe_load(finding.fix)), *BESIDE) == []


@pytest.mark.parametrize("rule", ["deploy/network-policy", "deploy/disruption-budget"])
@pytest.mark.setting("audit-checklist")
def test_an_object_that_is_missing_is_the_line(rule: str) -> None:
    others = [body for body in BESIDE if (body["kind"] == "NetworkPolicy") is not (rule == "deploy/network-policy")]
    (finding,) = audited(WORKLOAD, *others)
    assert finding.rule.id == rule
    assert audited(WORKLOAD, *others, yaml.safe_load(finding.fix)) == []


def test_half_a_network_policy_is_told() -> None:
    only_in = named("NetworkPolicy", {"podSelector": {}, "policyTypes": ["Ingress"]})
    (finding,) = audited(WORKLOAD, only_in, BESIDE[1])
    assert finding.what == "no NetworkPolicy limits egress of its pods"


def test_a_secret_in_a_config_map_is_found_and_not_repeated() -> None:
    body = {
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "voip"},
        "data": {"DATABASE_PASSWORD": "hunter2"},
    }
    (finding,) = audited(body)
    assert finding.rule.id == "deploy/secret-in-config-map"
    assert "hunter2" not in repr(finding)
    assert audited(merge(body, yaml.safe_load(finding.fix))) == []


def test_a_secret_in_the_environment_is_not_repeated() -> None:
    for value in ("tls://u:p4ss@nats:4222", "nats://u:p4ss@nats:4222"):
        found = audited(with_container(env("CALLWARDEN_NATS_URL", value)), *BESIDE)
        assert [one.rule.id for one in found] == ["deploy/secret-in-environment"]
        assert "p4ss" not in repr(found)


def test_an_image_by_tag_is_closed_by_the_digest_that_runs() -> None:
    digest = f"sha256:{'a' * 64}"
    by_tag = with_container({"image": "registry.example:5000/rating:1.2"})
    status = {
        "containerStatuses": [{"image": "registry.example:5000/rating:1.2", "imageID": f"docker-pullable://x@{digest}"}]
    }
    pod = {
        "kind": "Pod",
        "metadata": {"name": "rating-1", "namespace": "voip", "ownerReferences": [{"kind": "ReplicaSet"}]},
        "status": status,
    }
    (finding,) = audited(by_tag, pod, *BESIDE)
    assert yaml.safe_load(finding.fix)["spec"]["template"]["spec"]["containers"][0]["image"] == (
        f"registry.example:5000/rating@{digest}"
    )
    assert audited(merge(by_tag, yaml.safe_load(finding.fix)), pod, *BESIDE) == []
    (without,) = audited(by_tag, *BESIDE)
    assert (without.fix, "registry.example:5000/rating:1.2" in without.how) == ("", True)


def test_the_edge_may_be_on_its_nodes_network_and_nobody_else() -> None:
    assert [one.rule.id for one in audited(with_container({}, hostNetwork=True), BESIDE[1])] == ["deploy/host"]
    assert audited(with_container({"name": "edge-proxy"}, hostNetwork=True), BESIDE[1]) == []


def test_only_the_firewalls_container_may_have_its_capability() -> None:
    allowed = security(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]})
    assert audited(with_container({**allowed, "name": FIREWALL_CONTAINER}), *BESIDE) == []
    assert [one.rule.id for one in audited(with_container(allowed), *BESIDE)] == ["deploy/capabilities"]


def test_an_autoscaler_says_how_many_pods_there_are() -> None:
    one = {**WORKLOAD, "spec": {**WORKLOAD["spec"], "replicas": 1}}
    target = {"kind": "Deployment", "name": "rating"}
    scaled = named("HorizontalPodAutoscaler", {"minReplicas": 3, "scaleTargetRef": target})
    assert audited(one, scaled, *BESIDE) == []
    alone = named("HorizontalPodAutoscaler", {"minReplicas": 1, "scaleTargetRef": target})
    (finding,) = audited(one, alone, *BESIDE)
    assert (finding.place.name, yaml.safe_load(finding.fix)) == (
        "HorizontalPodAutoscaler voip/rating",
        {"spec": {"minReplicas": 2}},
    )


def test_who_speaks_to_the_kubernetes_api_needs_its_token() -> None:
    operator = with_container({}, automountServiceAccountToken=None, serviceAccountName="operator")
    subjects = [{"kind": "ServiceAccount", "name": "operator", "namespace": "voip"}]
    assert audited(operator, *BESIDE, named("RoleBinding", {}, subjects=subjects)) == []
    assert [one.rule.id for one in audited(operator, *BESIDE)] == ["deploy/api-token"]


def test_a_service_that_hides_the_callers_addresses_is_found() -> None:
    service = named("Service", {"type": "LoadBalancer", "ports": [{"name": "sip-udp", "port": 5060}]})
    (finding,) = audited(service)
    assert finding.rule.id == "deploy/source-address"
    assert audited(merge(service, yaml.safe_load(finding.fix))) == []
    assert audited(named("Service", {"type": "ClusterIP", "ports": [{"name": "sip-udp", "port": 5060}]})) == []


def test_a_role_that_allows_everything_is_found() -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, {"apiGroups": ["*"], "verbs": ["*"]}]
    (finding,) = audited({"kind": "ClusterRole", "metadata": {"name": "all"}, "rules": rules})
    assert finding.what == "allows any of verbs, apiGroups"
    assert audited({"kind": "ClusterRole", "metadata": {"name": "all"}, "rules": rules[:1]}) == []


def test_a_namespace_that_admits_any_pod_is_found() -> None:
    space: dict[str, Any] = {"kind": "Namespace", "metadata": {"name": "voip", "labels": {}}}
    (finding,) = audited(WORKLOAD, *BESIDE, space)
    assert audited(WORKLOAD, *BESIDE, merge(space, yaml.safe_load(finding.fix))) == []
    on_host = with_container({"name": "edge-proxy"}, hostNetwork=True)
    assert audited(on_host, BESIDE[1], space) == []


@pytest.mark.parametrize(
    ("condition", "is_open"),
    [
        ({"type": "Accepted", "status": "False", "reason": "Invalid", "message": "spec.lines.max: too large"}, True),
        ({"type": "Applied", "status": "False", "reason": "Waiting"}, True),
        ({"type": "Degraded", "status": "True", "reason": "PodsBehind"}, True),
        ({"type": "Accepted", "status": "True"}, False),
        ({"type": "Degraded", "status": "False"}, False),
    ],
)
def test_a_policy_that_is_not_applied_protects_nobody(condition: dict[str, str], is_open: bool) -> None:
    found = audited(named("SecurityPolicy", {}, "main", status={"conditions": [condition]}))
    assert [one.rule.id for one in found] == (["deploy/policy-status"] if is_open else [])


@pytest.mark.parametrize(
    ("namespaces", "realms", "is_open"),
    [(["*"], ["*"], True), (["*"], ["demo.example"], False), (["sales"], ["*"], False)],
)
def test_a_binding_of_every_namespace_to_all_realms_is_found(
    namespaces: list[str], realms: list[str], is_open: bool
) -> None:
    found = audited(named("RealmBinding", {"namespaces": namespaces, "realms": realms}, "all"))
    assert [one.rule.id for one in found] == (["deploy/realms"] if is_open else [])


@pytest.mark.parametrize("kind", ["DaemonSet", "StatefulSet", "CronJob", "Job", "Pod"])
def test_every_kind_that_makes_pods_is_looked_into(kind: str) -> None:
    pod = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    body = {
        "CronJob": named("CronJob", {"jobTemplate": {"spec": {"template": pod}}}),
        "Pod": {
            "kind": "Pod",
            "metadata": {"name": "rating", "namespace": "voip", "labels": LABELS},
            "spec": pod["spec"],
        },
    }.get(kind, named(kind, {"template": pod, "replicas": 2}))
    found = {one.rule.id for one in audited(body, *BESIDE)}
    assert {"deploy/root", "deploy/escalation", "deploy/capabilities", "deploy/seccomp", "deploy/api-token"} <= found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "Deployment"},
        {"kind": "Deployment", "metadata": None, "spec": []},
        {"kind": "Deployment", "spec": {"template": {"spec": {"containers": [None, "x", {"env": "no"}]}}}},
        {"kind": "Service", "spec": {"ports": "none"}},
        {"kind": "Role", "rules": [None]},
        {"kind": "SecurityPolicy", "status": {"conditions": "x"}},
    ],
    ids=str,
)
def test_objects_of_any_shape_are_looked_at_without_a_crash(body: dict[str, Any]) -> None:
    audited(body)


@pytest.mark.parametrize(
    ("selector", "is_about"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Odd"}]}, False),
    ],
)
def test_selectors_mean_what_they_mean_to_kubernetes(selector: dict[str, Any], is_about: bool) -> None:
    assert selects(selector, {"a": "1"}) is is_about
