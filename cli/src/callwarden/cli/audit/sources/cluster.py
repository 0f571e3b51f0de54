"""A cluster, through the kubectl that its administrator uses anyway: KUBECONFIG, contexts and logins are kubectl's.

Only what the checklist looks at is asked for, in few requests, with a time and a size that end them. Secrets are never
asked for.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final

from callwarden.cli.audit.local import trunk_of
from callwarden.cli.audit.objects import RUN_ALWAYS, Object, Objects, mapping, sequence, to_kubectl
from callwarden.cli.audit.report import Evidence
from callwarden.policy.bundle import BadPolicy, Document, PolicySet
from callwarden.policy.model import CLUSTER_KIND, KIND

_NOT_ALLOWED: Final = "RealmNotAllowed"  # as the operator reports it
SELECTOR: Final = "app.kubernetes.io/part-of=callwarden"
_REQUEST_TIMEOUT_S: Final = 20
_TIMEOUT_S: Final = 60.0  # kubectl follows pages, each within the request's time.
_REPLY_BYTES_MAX: Final = 256 * 1024 * 1024  # 10,000 pods of 6 KiB, with their services, four times over.
_ERROR_CHARS_MAX: Final = 400

_POLICIES: Final = ("securitypolicies.callwarden.io", "clustersecuritypolicies.callwarden.io", "trunks.callwarden.io")
# What the chart labels, and what an administrator may have added without our labels.
_LABELLED: Final = (
    *("deployments.apps", "daemonsets.apps", "statefulsets.apps", "cronjobs.batch", "jobs.batch", "pods"),
    *("services", "configmaps", "roles.rbac.authorization.k8s.io"),
)
_BINDINGS: Final = ("realmbindings.callwarden.io",)
_BESIDE: Final = (
    *("networkpolicies.networking.k8s.io", "poddisruptionbudgets.policy", "horizontalpodautoscalers.autoscaling"),
    *("rolebindings.rbac.authorization.k8s.io", "serviceaccounts"),
)
_CLUSTER_WIDE: Final = ("clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io")


class ClusterUnreachable(Exception):
    """The cluster can't be asked; the message says why and what to do."""


class UnknownKind(ClusterUnreachable):
    """The cluster serves no such objects."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the context to use; empty: the current one."""

    context: str = ""
    program: str = field(default_factory=lambda: shutil.which("kubectl") or "")
    timeout_s: float = _TIMEOUT_S

    def get(self, kinds: Sequence[str], *arguments: str) -> list[Mapping[str, Any]]:
        """The objects of those kinds. Raises Unreachable, with what kubectl said."""
        if not self.program:
            raise ClusterUnreachable("kubectl is not in PATH: install it, or audit a file with --file")
        context = (f"--context={self.context}",) if self.context else ()
        command = (
            *(self.program, "get", ",".join(kinds), "--output=json", f"--request-timeout={_REQUEST_TIMEOUT_S}s"),
            *("--ignore-not-found", *context, *arguments),
        )
        reply = self._run(command)
        if not reply.strip():
            return []
        try:
            body = json.loads(reply)
        except ValueError as error:
            raise ClusterUnreachable("kubectl answered something that isn't JSON") from error
        return list(body["items"]) if "items" in body else [body]

    def _run(self, command: Sequence[str]) -> bytes:
        try:
            with subprocess.Popen(  # noqa: S603  No shell, and nothing of what is run comes from the cluster.
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as child:
                try:
                    return _bounded(child, self.timeout_s)
                finally:
                    child.kill()
        except OSError as error:
            raise ClusterUnreachable(f"{self.program} can't be run: {error.strerror}") from error


def _bounded(child: "subprocess.Popen[bytes]", timeout_s: float) -> bytes:
    """What it writes, or Unreachable: when it takes too long, writes too much, or fails."""
    from concurrent.futures import ThreadPoolExecutor
    from concurrent.futures import TimeoutError as TooLate

    def read(stream: IO[bytes] | None, bytes_max: int) -> bytes:
        return stream.read(bytes_max) if stream is not None else b""

    with ThreadPoolExecutor(2) as pool:
        out = pool.submit(read, child.stdout, _REPLY_BYTES_MAX + 1)
        errors = pool.submit(read, child.stderr, 64 * 1024)
        try:
            reply = out.result(timeout_s)
            if len(reply) > _REPLY_BYTES_MAX:
                raise ClusterUnreachable(f"kubectl writes more than {_REPLY_BYTES_MAX >> 20} MiB: name one --namespace")
            said = errors.result(timeout_s)
            code = child.wait(timeout_s)
        except (TooLate, subprocess.TimeoutExpired) as error:
            raise ClusterUnreachable(
                f"kubectl gave no answer within {timeout_s:g} s: is the cluster reachable?"
            ) from error
        finally:
            child.kill()
    if code != 0:
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        message = (lines[-1] if lines else f"exit code {code}")[:_ERROR_CHARS_MAX]
        raise (UnknownKind if "resource type" in message else ClusterUnreachable)(f"kubectl: {message}")
    return reply


def evidence(kubectl: Kubectl, *, namespace: str = "", selector: str = SELECTOR) -> Evidence:
    """Of a cluster. Raises Unreachable when nothing of it can be looked at."""
    where = (f"--namespace={namespace}",) if namespace else ("--all-namespaces",)
    unseen: dict[str, str] = {}  # Kinds, as plurals, and why.
    resources = _known(kubectl, unseen, _POLICIES, "--all-namespaces")
    objects = [Object(body) for body in _known(kubectl, unseen, _LABELLED, *where, f"--selector={selector}")]
    for kinds, arguments in ((_BINDINGS, ()), (_BESIDE, where), (_CLUSTER_WIDE, (f"--selector={selector}",))):
        objects += map(Object, _optional(kubectl, unseen, kinds, *arguments))
    if spaces := {one.namespace for one in objects if one.kind in RUN_ALWAYS}:
        found = map(Object, _optional(kubectl, unseen, ("namespaces",)))
        objects += [one for one in found if one.name in spaces]
    policies = [body for body in resources if body.get("kind") in (KIND, CLUSTER_KIND)]
    if not resources and not spaces:
        raise ClusterUnreachable(
            f"nothing of Callwarden is in this cluster ({selector}): name --namespace, or --selector"
        )
    try:
        held = PolicySet.build(1, list(_documents(policies)))
    except BadPolicy as error:
        raise ClusterUnreachable(f"the policies can't hold together: {error.message}") from error
    trunks = [trunk_of(body, Object(body).place) for body in resources if body.get("kind") == "Trunk"]
    return Evidence(
        f"cluster{f' {kubectl.context}' if kubectl.context else ''}",
        held,
        remedy=_patch,
        objects=Objects([*objects, *map(Object, policies)], frozenset(unseen)),
        trunks=tuple(trunk for trunk in trunks if trunk is not None),
        notes=tuple(f"not looked at: {kind} ({why})" for kind, why in unseen.items()),
    )


def _patch(document: Document | None) -> str:
    if document is None:
        return "into a SecurityPolicy, then: kubectl apply -f FILE"
    return f"kubectl patch {to_kubectl(document.kind, document.name, document.namespace)} --type merge -p 'LINE'"


def _known(kubectl: Kubectl, unseen: dict[str, str], kinds: Sequence[str], *arguments: str) -> list[Mapping[str, Any]]:
    """The objects of those kinds that the cluster serves; asked at once, or by kind where it lacks one."""
    try:
        return kubectl.get(kinds, *arguments)
    except UnknownKind as error:
        if len(kinds) > 1:
            return [body for kind in kinds for body in _known(kubectl, unseen, (kind,), *arguments)]
        unseen[kinds[0].partition(".")[0]] = str(error)
        return []


def _optional(
    kubectl: Kubectl, unseen: dict[str, str], kinds: Sequence[str], *arguments: str
) -> list[Mapping[str, Any]]:
    """The same where we may not look at some of them."""
    try:
        return _known(kubectl, unseen, kinds, *arguments)
    except ClusterUnreachable as error:
        if len(kinds) > 1:
            return [body for kind in kinds for body in _optional(kubectl, unseen, (kind,), *arguments)]
        unseen[kinds[0].partition(".")[0]] = str(error)
        return []


def _documents(bodies: Sequence[Mapping[str, Any]]) -> Iterator[Document]:
    """The valid policies: a refused one protects nothing, and its status says so, also where its namespace may not act
    on its realm."""
    for body in bodies:
        conditions = map(mapping, sequence(mapping(body.get("status")).get("conditions")))
        if any(one.get("reason") == _NOT_ALLOWED for one in conditions):
            continue
        known = {key: value for key, value in body.items() if key in ("apiVersion", "kind", "metadata", "spec")}
        try:
            yield Document.from_object(known)
        except BadPolicy:
            continue
