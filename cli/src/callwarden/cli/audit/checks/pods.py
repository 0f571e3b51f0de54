"""Checks of pods: rights, host, image, limits, token, probes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from callwarden.cli.audit.checks.fixes import (
    BUILTIN,
    EDGE,
    by_chart,
    containers,
    in_container,
    in_pod,
    security_context,
    values_of_service,
)
from callwarden.cli.audit.finding import AuditFinding, AuditRule
from callwarden.cli.audit.objects import Object, Objects, Workload, mapping, sequence

# The one container that may have a capability: it puts bans into the kernel's firewall, where an operator chose that.
FIREWALL_CONTAINER: Final = "kernel-firewall"
_FIREWALL_CAPABILITY: Final = "NET_ADMIN"
_USER_ID: Final = 65_532  # "nonroot" of most minimal images.


def runs_as_root(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in containers(objects):
        workload, container = found[0], found[3]
        effective = {**security_context(workload.pod), **security_context(container)}
        if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
            change: dict[str, Any] = {"runAsNonRoot": True}
            if effective.get("runAsUser") == 0:
                change["runAsUser"] = _USER_ID
            yield in_container(rule, found, "may run as root", {"securityContext": change})


def writes_to_root(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in containers(objects):
        if security_context(found[3]).get("readOnlyRootFilesystem") is not True:
            yield in_container(
                rule, found, "can write to its root file system", {"securityContext": {"readOnlyRootFilesystem": True}}
            )


def escalates(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in containers(objects):
        context = security_context(found[3])
        if context.get("privileged") is True:
            change = {"securityContext": {"privileged": False, "allowPrivilegeEscalation": False}}
            yield in_container(rule, found, "is privileged: it owns its node", change)
        elif context.get("allowPrivilegeEscalation") is not False:
            change = {"securityContext": {"allowPrivilegeEscalation": False}}
            yield in_container(rule, found, "may gain rights that it wasn't given", change)


def has_capabilities(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in containers(objects):
        capabilities = mapping(security_context(found[3]).get("capabilities"))
        allowed = {_FIREWALL_CAPABILITY} if found[2] == FIREWALL_CONTAINER else set()
        added = [str(one) for one in sequence(capabilities.get("add"))]
        extra = sorted(set(added) - allowed)
        if extra or "ALL" not in sequence(capabilities.get("drop")):
            keep = [one for one in added if one in allowed]
            what = f"has the capabilities {', '.join(extra)}" if extra else "keeps the runtime's capabilities"
            yield in_container(rule, found, what, {"securityContext": {"capabilities": {"drop": ["ALL"], "add": keep}}})


def is_unconfined(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for found in containers(objects):
        of_pod = mapping(security_context(found[0].pod).get("seccompProfile"))
        profile = mapping(security_context(found[3]).get("seccompProfile")) or of_pod
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            change = {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}
            yield in_container(rule, found, "may make every system call", change)


def shares_host(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for workload in objects.workloads():
        allowed = {"hostNetwork"} if is_service(workload, EDGE) else set()
        shared = [key for key in ("hostNetwork", "hostPID", "hostIPC") if workload.pod.get(key) is True]
        if extra := [key for key in shared if key not in allowed]:
            what = f"shares {', '.join(extra)} with its node"
            yield in_pod(rule, workload, what, dict.fromkeys(extra, False))
        for volume in map(mapping, sequence(workload.pod.get("volumes"))):
            if "hostPath" in volume:
                name = str(volume.get("name", ""))
                change: dict[str, Any] = {"volumes": [{"name": name, "hostPath": None, "emptyDir": {}}]}
                yield in_pod(rule, workload, f"mounts a folder of its node (volume {name})", change)


def is_service(workload: Workload, name: str) -> bool:
    """Whether it runs that service of ours: by the label that every chart sets, or by its container's name."""
    labels = workload.labels
    names = {str(labels.get("app.kubernetes.io/name")), str(labels.get("app.kubernetes.io/component"))}
    return name in names or any(container.get("name") == name for _, container in workload.containers)


def image_by_tag(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    running = _running_images(objects)
    for found in containers(objects):
        image = str(found[3].get("image", ""))
        if "@sha256:" in image:
            continue
        what = f"runs the image {image}, which can be another one tomorrow"
        if (pinned := running.get(image)) is None:
            # No line can be right: only the registry knows what the tag means.
            how = f"docker buildx imagetools inspect {image} says the digest; write image: NAME@sha256:DIGEST"
            yield replace(in_container(rule, found, what, {}), fix="", how=how)
        else:
            finding = in_container(rule, found, what, {"image": pinned})
            yield by_chart(finding, found[0].object, _digest_value(found[0].object, pinned))


def _digest_value(one: Object, pinned: str) -> dict[str, Any]:
    component, digest = str(one.labels.get("app.kubernetes.io/component", "")), pinned.rpartition("@")[2]
    if component in BUILTIN:
        return {BUILTIN[component]: {"image": {"digest": digest}}}
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


def no_limits(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
    for workload in objects.running():
        for group, container in workload.containers:
            resources = mapping(container.get("resources"))
            has = "memory" in mapping(resources.get("limits")) and "cpu" in mapping(resources.get("requests"))
            if not has and group == "containers":
                change = {"resources": {"requests": {"cpu": "250m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}}
                found = (workload, group, str(container.get("name", "")), container)
                finding = in_container(rule, found, "has no memory limit or no CPU request", change)
                yield by_chart(finding, workload.object, values_of_service(workload.object, change))


def has_token(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
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
            yield in_pod(
                rule,
                workload,
                "carries a token of the Kubernetes API, and needs none",
                {"automountServiceAccountToken": False},
            )


def without_probes(rule: AuditRule, objects: Objects) -> Iterator[AuditFinding]:
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
            yield in_container(rule, found, f"has no {' and no '.join(missing)}", change)
