"""The deployment's part of the checklist: pods, network, secrets, availability. Each check is a pure function of the
objects found; where they come from (kubectl, a rendered chart) is in callwarden.cli.audit.sources.

A fix is a strategic merge patch of the object that the finding names, or a whole object where one is missing. What the
chart sets by itself is found only where somebody changed it, or deploys without the chart.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from callwarden.cli.audit.finding import AuditFinding, AuditRule, AuditSeverity
from callwarden.cli.audit.objects import Object, Objects, Workload, mapping, selects, sequence
from callwarden.cli.yaml_lines import line_of_yaml

# The one container that may have a capability: it puts bans into the kernel's firewall, where somebody chose that.
FIREWALL_CONTAINER: Final = "kernel-firewall"
_FIREWALL_CAPABILITY: Final = "NET_ADMIN"
_EDGE: Final = "edge-proxy"
_OPERATOR: Final = "security-policy"
_USER_ID: Final = 65_532  # "nonroot" of most minimal images.
_REPLICAS_MIN: Final = 2
_BUILTIN: Final = {"postgres": "database", "nats": "nats"}  # Components of the chart, and their values.

_SECRET_NAME: Final = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|_KEY)S?$|(DATABASE|NATS)_URL$", re.IGNORECASE)
_CREDENTIALS: Final = re.compile(r"://[^/\s@]*:[^/\s@]+@")
_PRIVATE_KEY: Final = "PRIVATE KEY-----"
_TLS_VARIABLES: Final = ("CALLWARDEN_TLS_CERT", "CALLWARDEN_TLS_KEY", "CALLWARDEN_TLS_CA")
_TLS_FOLDER: Final = "/var/run/callwarden/tls"
_TLS_FILES: Final = ("tls.crt", "tls.key", "ca.crt")  # As cert-manager writes them.


@dataclass(frozen=True, slots=True)
class Check:
    rule: AuditRule
    find: Callable[[AuditRule, Objects], Iterator[AuditFinding]]
    needs: tuple[str, ...] = ()
    """Kinds whose absence it would tell."""


def findings(objects: Objects) -> Iterator[AuditFinding]:
    for check in CHECKS:
        if objects.unseen.isdisjoint(check.needs):
            yield from check.find(check.rule, objects)


# ------------------------------------------------------------------ pods


def _containers(objects: Objects) -> Iterator[tuple[Workload, str, str, Mapping[str, Any]]]:
    for workload in objects.workloads():
        for group, container in workload.containers:
            yield workload, group, str(container.get("name", "")), container


def _context(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(value.get("securityContext"))


def _in_pod(rule: AuditRule, workload: Workload, what: str, change: Mapping[str, Any]) -> AuditFinding:
    fix = line_of_yaml(workload.patch(change))
    return AuditFinding(rule, rule.severity, workload.object.place, what, fix, workload.how())


def _in_container(
    rule: AuditRule, found: tuple[Workload, str, str, Mapping[str, Any]], what: str, change: Mapping[str, Any]
) -> AuditFinding:
    workload, group, name, _ = found
    fix = line_of_yaml(workload.patch_container(group, name, change))
    return AuditFinding(rule, rule.severity, workload.object.within(f"container {name}"), what, fix, workload.how())


def _by_chart(finding: AuditFinding, one: Object, values: Mapping[str, Any] | None) -> AuditFinding:
    """For what our chart makes, a line of its values instead of a patch."""
    if values is None or not one.is_of_chart:
        return finding
    how = "into the chart's values, then: helm upgrade RELEASE CHART -f values.yaml"
    return replace(finding, fix=line_of_yaml(values), how=how)


def _values_of_service(one: Object, values: Mapping[str, Any]) -> dict[str, Any]:
    """What differs for one service; the built-in servers are for trying out, and have one pod."""
    component = str(one.labels.get("app.kubernetes.io/component", ""))
    if component in _BUILTIN:
        return {_BUILTIN[component]: {"builtin": False}, "secrets": {"generate": False}}
    return {"services": {component: dict(values)}}


def _runs_as_root(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in _containers(objects):
        workload, container = found[0], found[3]
        effective = {**_context(workload.pod), **_context(container)}
        if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
            change: dict[str, Any] = {"runAsNonRoot": True}
            if effective.get("runAsUser") == 0:
                change["runAsUser"] = _USER_ID
            yield _in_container(rule, found, "may run as root", {"securityContext": change})


def _writes_to_root(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in _containers(objects):
        if _context(found[3]).get("readOnlyRootFilesystem") is not True:
            yield _in_container(
                rule, found, "can write to its root file system", {"securityContext": {"readOnlyRootFilesystem": True}}
            )


def _escalates(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in _containers(objects):
        context = _context(found[3])
        if context.get("privileged") is True:
            change = {"securityContext": {"privileged": False, "allowPrivilegeEscalation": False}}
            yield _in_container(rule, found, "is privileged: it owns its node", change)
        elif context.get("allowPrivilegeEscalation") is not False:
            change = {"securityContext": {"allowPrivilegeEscalation": False}}
            yield _in_container(rule, found, "may gain rights that it wasn't given", change)


def _has_capabilities(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in _containers(objects):
        capabilities = mapping(_context(found[3]).get("capabilities"))
        allowed = {_FIREWALL_CAPABILITY} if found[2] == FIREWALL_CONTAINER else set()
        added = [str(one) for one in sequence(capabilities.get("add"))]
        extra = sorted(set(added) - allowed)
        if extra or "ALL" not in sequence(capabilities.get("drop")):
            keep = [one for one in added if one in allowed]
            what = f"has the capabilities {', '.join(extra)}" if extra else "keeps the runtime's capabilities"
            yield _in_container(
                rule, found, what, {"securityContext": {"capabilities": {"drop": ["ALL"], "add": keep}}}
            )


def _is_unconfined(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in _containers(objects):
        of_pod = mapping(_context(found[0].pod).get("seccompProfile"))
        profile = mapping(_context(found[3]).get("seccompProfile")) or of_pod
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            change = {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}
            yield _in_container(rule, found, "may make every system call", change)


def _shares_host(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for workload in objects.workloads():
        allowed = {"hostNetwork"} if _is_service(workload, _EDGE) else set()
        shared = [key for key in ("hostNetwork", "hostPID", "hostIPC") if workload.pod.get(key) is True]
        if extra := [key for key in shared if key not in allowed]:
            what = f"shares {', '.join(extra)} with its node"
            yield _in_pod(rule, workload, what, dict.fromkeys(extra, False))
        for volume in map(mapping, sequence(workload.pod.get("volumes"))):
            if "hostPath" in volume:
                name = str(volume.get("name", ""))
                change: dict[str, Any] = {"volumes": [{"name": name, "hostPath": None, "emptyDir": {}}]}
                yield _in_pod(rule, workload, f"mounts a folder of its node (volume {name})", change)


def _is_service(workload: Workload, name: str) -> bool:
    """Whether it runs that service of ours: by the label that every chart sets, or by its container's name."""
    labels = workload.labels
    names = {str(labels.get("app.kubernetes.io/name")), str(labels.get("app.kubernetes.io/component"))}
    return name in names or any(container.get("name") == name for _, container in workload.containers)


def _image_by_tag(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    running = _running_images(objects)
    for found in _containers(objects):
        image = str(found[3].get("image", ""))
        if "@sha256:" in image:
            continue
        what = f"runs the image {image}, which can be another one tomorrow"
        if (pinned := running.get(image)) is None:
            # No line can be right: only the registry knows what the tag means.
            how = f"docker buildx imagetools inspect {image} says the digest; write image: NAME@sha256:DIGEST"
            yield replace(_in_container(rule, found, what, {}), fix="", how=how)
        else:
            finding = _in_container(rule, found, what, {"image": pinned})
            yield _by_chart(finding, found[0].object, _digest_value(found[0].object, pinned))


def _digest_value(one: Object, pinned: str) -> dict[str, Any]:
    component, digest = str(one.labels.get("app.kubernetes.io/component", "")), pinned.rpartition("@")[2]
    if component in _BUILTIN:
        return {_BUILTIN[component]: {"image": {"digest": digest}}}
    if component == "backup":
        return {"backup": {"image": {"digest": digest}}}
    return {"image": {"digests": {component: digest}}}


def _running_images(objects: Objects) -> dict[str, str]:
    """By image as written, what the nodes have pulled for it: `name@sha256:…`, where all agree."""
    found: dict[str, set[str]] = {}
    for pod in objects.of("Pod"):
        status = mapping(pod.body.get("status"))
        for one in [*sequence(status.get("containerStatuses")), *sequence(status.get("initContainerStatuses"))]:
            wanted, pulled = str(mapping(one).get("image", "")), str(mapping(one).get("imageID", ""))
            if "@sha256:" in pulled:
                name, _, digest = pulled.removeprefix("docker-pullable://").partition("@")
                found.setdefault(wanted, set()).add(f"{_without_tag(wanted) or name}@{digest}")
    return {wanted: pulled.pop() for wanted, pulled in found.items() if len(pulled) == 1}


def _without_tag(image: str) -> str:
    head, slash, tail = image.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


def _no_limits(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for workload in objects.running():
        for group, container in workload.containers:
            resources = mapping(container.get("resources"))
            has = "memory" in mapping(resources.get("limits")) and "cpu" in mapping(resources.get("requests"))
            if not has and group == "containers":
                change = {"resources": {"requests": {"cpu": "250m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}}
                found = (workload, group, str(container.get("name", "")), container)
                finding = _in_container(rule, found, "has no memory limit or no CPU request", change)
                yield _by_chart(finding, workload.object, _values_of_service(workload.object, change))


def _has_token(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    bound = {
        (str(mapping(subject).get("namespace", binding.namespace)), str(mapping(subject).get("name", "")))
        for binding in objects.of("RoleBinding", "ClusterRoleBinding")
        for subject in sequence(binding.body.get("subjects"))
    }
    accounts = {(one.namespace, one.name): one.body for one in objects.of("ServiceAccount")}
    for workload in objects.workloads():
        account = (workload.object.namespace, str(workload.pod.get("serviceAccountName", "default")))
        mounts = workload.pod.get("automountServiceAccountToken")
        if mounts is None:
            mounts = mapping(accounts.get(account)).get("automountServiceAccountToken")
        if mounts is not False and account not in bound:
            yield _in_pod(
                rule,
                workload,
                "carries a token of the Kubernetes API, and needs none",
                {"automountServiceAccountToken": False},
            )


def _without_probes(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for workload in objects.running():
        for group, container in workload.containers:
            missing = [probe for probe in ("readinessProbe", "livenessProbe") if probe not in container]
            port = next(
                (
                    port
                    for port in map(mapping, sequence(container.get("ports")))
                    if port.get("name") in ("metrics", "http")
                ),
                None,
            )
            if not missing or group != "containers" or port is None:
                continue  # Without such a port it is none of our services.
            paths = {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}
            change = {probe: {"httpGet": {"path": paths[probe], "port": port["name"]}} for probe in missing}
            found = (workload, group, str(container.get("name", "")), container)
            yield _in_container(rule, found, f"has no {' and no '.join(missing)}", change)


# ------------------------------------------------------------------ secrets and encryption


def _secret_in_environment(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in _containers(objects):
        for variable in map(mapping, sequence(found[3].get("env"))):
            name, value = str(variable.get("name", "")), str(variable.get("value", ""))
            if not _is_secret(name, value):
                continue
            reference = {"secretKeyRef": {"name": f"{found[0].object.name}-secrets", "key": name}}
            change: dict[str, Any] = {"env": [{"name": name, "value": None, "valueFrom": reference}]}
            yield _in_container(rule, found, f"has {name} in clear text", change)


def _is_secret(name: str, value: str) -> bool:
    if _PRIVATE_KEY in value or _CREDENTIALS.search(value):
        return True
    # A path to a file of secrets is none, nor is a URL without a password.
    return bool(value and _SECRET_NAME.search(name)) and not value.startswith("/") and "://" not in value


def _secret_in_config_map(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for one in objects.of("ConfigMap"):
        for key, value in mapping(one.body.get("data")).items():
            if _is_secret(str(key), str(value)):
                patch = f"kubectl patch {one.to_kubectl} --type merge -p 'LINE'"
                how = f"move it into a Secret and refer to that, then: {patch}"
                yield AuditFinding(
                    rule, rule.severity, one.place, f"holds a secret ({key})", line_of_yaml({"data": {key: None}}), how
                )


def _without_tls(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in _containers(objects):
        names = {str(mapping(variable).get("name", "")) for variable in sequence(found[3].get("env"))}
        if not any(name.startswith("CALLWARDEN_") and name.endswith(("_TARGETS", "GRPC_LISTEN")) for name in names):
            continue
        if not names.issuperset(_TLS_VARIABLES):
            workload, group, name, _ = found
            secret = {"name": "tls", "secret": {"secretName": f"{workload.object.name}-tls"}}
            container = {
                "name": name,
                "env": [
                    {"name": variable, "value": f"{_TLS_FOLDER}/{file}"}
                    for variable, file in zip(_TLS_VARIABLES, _TLS_FILES, strict=True)
                ],
                "volumeMounts": [{"name": "tls", "mountPath": _TLS_FOLDER, "readOnly": True}],
            }
            finding = AuditFinding(
                rule,
                rule.severity,
                workload.object.within(f"container {name}"),
                "talks to other services in clear text",
                line_of_yaml(workload.patch({group: [container], "volumes": [secret]})),
                f"for every service together, with a certificate in the Secret named; {workload.how()}",
            )
            yield _by_chart(finding, workload.object, {"tls": {"enabled": True}})


def _plain_url(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    """URLs that stand in the open; those in Secrets are never read."""
    for found in _containers(objects):
        for variable in map(mapping, sequence(found[3].get("env"))):
            name, value = str(variable.get("name", "")), str(variable.get("value", ""))
            if name.endswith("NATS_URL") and value.startswith("nats://"):
                safe = value.replace("nats://", "tls://")
            elif name.endswith("DATABASE_URL") and "://" in value and not re.search(r"ssl(mode)?=", value):
                safe = f"{value}{'&' if '?' in value else '?'}ssl=verify-full"
            else:
                continue
            if _CREDENTIALS.search(value):
                continue  # Told as a secret in clear text, and not to be repeated here.
            what = f"reaches {'NATS' if 'NATS' in name else 'the database'} without TLS ({name})"
            yield _in_container(rule, found, what, {"env": [{"name": name, "value": safe}]})


# ------------------------------------------------------------------ network


def _without_network_policy(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
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
            yield _by_chart(finding, one, {"networkPolicy": {"enabled": True}})


def _network_policy(workload: Workload) -> dict[str, Any]:
    """Lets in pods of the namespace, and on an edge's ports everybody; lets out whatever is asked for by name."""
    ingress: list[dict[str, Any]] = [{"from": [{"podSelector": {}}]}]
    if _is_service(workload, _EDGE):
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


def _hides_sources(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
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


# ------------------------------------------------------------------ availability


def _one_replica(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for workload in objects.running():
        one = workload.object
        if one.kind == "DaemonSet" or _is_service(workload, _OPERATOR):
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
            yield _by_chart(finding, one, _values_of_service(one, count_value))


def _scales(hpa: Object, workload: Object) -> bool:
    target = mapping(hpa.spec.get("scaleTargetRef"))
    return hpa.namespace == workload.namespace and (target.get("kind"), target.get("name")) == (
        workload.kind,
        workload.name,
    )


def _without_budget(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    budgets = list(objects.of("PodDisruptionBudget"))
    for workload in objects.running():
        one = workload.object
        if one.kind == "DaemonSet" or _is_service(workload, _OPERATOR):
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
        values = _values_of_service(one, {"replicas": _REPLICAS_MIN, "disruption": {"enabled": True}})
        yield _by_chart(finding, one, values)


# ------------------------------------------------------------------ rights and policies


def _wildcard_rights(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
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


def _admits_anything(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
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


def _not_applied(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
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


_HARDENING: Final = ("os-hardening",)
_LOW, _MEDIUM, _HIGH, _CRITICAL = AuditSeverity.LOW, AuditSeverity.MEDIUM, AuditSeverity.HIGH, AuditSeverity.CRITICAL

CHECKS: Final = (
    Check(
        AuditRule(
            "deploy/root",
            _HIGH,
            "Containers run as an ordinary user",
            "A process that is broken into has the rights it runs with; root in a container is root for every file and "
            "device that the container reaches.",
            _HARDENING,
        ),
        _runs_as_root,
    ),
    Check(
        AuditRule(
            "deploy/root-file-system",
            _MEDIUM,
            "Root file systems are read-only",
            "What can't be written can't be replaced by an attacker's program.",
            _HARDENING,
        ),
        _writes_to_root,
    ),
    Check(
        AuditRule(
            "deploy/escalation",
            _CRITICAL,
            "No container is privileged or gains rights",
            "A privileged container owns its node, and with it every other pod there.",
            _HARDENING,
        ),
        _escalates,
    ),
    Check(
        AuditRule(
            "deploy/capabilities",
            _HIGH,
            "Containers have no capability",
            "Capabilities are pieces of root: raw sockets, any port, other users' files. Only the kernel firewall's "
            "container needs one.",
            _HARDENING,
        ),
        _has_capabilities,
    ),
    Check(
        AuditRule(
            "deploy/seccomp",
            _MEDIUM,
            "System calls are filtered",
            "Most ways out of a container go through system calls that no service of ours makes.",
            _HARDENING,
        ),
        _is_unconfined,
    ),
    Check(
        AuditRule(
            "deploy/host",
            _HIGH,
            "Pods share nothing with their node",
            "A node's network, processes and files are everybody's on it. Only the edge may be on the node's network, "
            "to see its callers' addresses.",
            _HARDENING,
        ),
        _shares_host,
    ),
    Check(
        AuditRule(
            "deploy/image-digest",
            _MEDIUM,
            "Images are named by digest",
            "A tag can be moved: pods that start tomorrow may run what somebody else pushed.",
            _HARDENING,
        ),
        _image_by_tag,
    ),
    Check(
        AuditRule(
            "deploy/resources",
            _LOW,
            "Containers have a memory limit and a CPU request",
            "Without them a flood against one service takes the memory and the cores of its neighbours.",
            _HARDENING,
        ),
        _no_limits,
    ),
    Check(
        AuditRule(
            "deploy/api-token",
            _LOW,
            "Pods carry no token that they don't need",
            "A token of the Kubernetes API in a pod on the open internet is a first step into the cluster.",
            _HARDENING,
        ),
        _has_token,
        ("rolebindings", "clusterrolebindings", "serviceaccounts"),
    ),
    Check(
        AuditRule(
            "deploy/probes",
            _LOW,
            "Services have probes",
            "Without them calls go to pods that can't take them.",
            _HARDENING,
        ),
        _without_probes,
    ),
    Check(
        AuditRule(
            "deploy/secret-in-environment",
            _HIGH,
            "Secrets are given by reference",
            "Whoever may look at a Deployment reads its variables; a Secret has rights of its own.",
            _HARDENING,
        ),
        _secret_in_environment,
    ),
    Check(
        AuditRule(
            "deploy/secret-in-config-map",
            _HIGH,
            "No ConfigMap holds a secret",
            "ConfigMaps are readable by nearly everybody and written to etcd as they are.",
            _HARDENING,
        ),
        _secret_in_config_map,
    ),
    Check(
        AuditRule(
            "deploy/tls",
            _HIGH,
            "Services talk over mutual TLS",
            "Who can listen between pods reads credentials' digests and numbers; who can speak there admits calls "
            "without an account.",
            ("https",),
        ),
        _without_tls,
    ),
    Check(
        AuditRule(
            "deploy/tls-url",
            _HIGH,
            "NATS and the database are reached over TLS",
            "Passwords of both go over the network, and so do policies, bans and money.",
            ("https", "db-roles"),
        ),
        _plain_url,
    ),
    Check(
        AuditRule(
            "deploy/network-policy",
            _HIGH,
            "Only what talks is let through",
            "Without a NetworkPolicy every pod of the cluster reaches the services and the database.",
            ("os-hardening", "db-roles"),
        ),
        _without_network_policy,
        ("networkpolicies",),
    ),
    Check(
        AuditRule(
            "deploy/source-address",
            _HIGH,
            "The edge sees its callers' addresses",
            "With the node's address in their place a ban hits everybody, and so no address can be banned at all.",
            ("firewall-static",),
        ),
        _hides_sources,
    ),
    Check(
        AuditRule(
            "deploy/replicas",
            _MEDIUM,
            "Services run in more than one pod",
            "One pod is an outage at each upgrade, each eviction and each crash.",
        ),
        _one_replica,
        ("horizontalpodautoscalers",),
    ),
    Check(
        AuditRule(
            "deploy/disruption-budget",
            _LOW,
            "Nodes are drained pod by pod",
            "Without a budget a drain may stop all pods of a service at once.",
        ),
        _without_budget,
        ("poddisruptionbudgets",),
    ),
    Check(
        AuditRule(
            "deploy/rights",
            _HIGH,
            "No role allows everything",
            "A role with a wildcard is a cluster administrator's, whoever gets hold of it.",
            _HARDENING,
        ),
        _wildcard_rights,
    ),
    Check(
        AuditRule(
            "deploy/pod-security",
            _LOW,
            "The namespace admits restricted pods only",
            "The Pod Security Standard keeps what is checked here true for pods that come later.",
            _HARDENING,
        ),
        _admits_anything,
    ),
    Check(
        AuditRule(
            "deploy/policy-status",
            _HIGH,
            "Every policy is applied",
            "A policy that was refused or hasn't reached every pod protects nobody, whatever stands in it.",
        ),
        _not_applied,
    ),
)
