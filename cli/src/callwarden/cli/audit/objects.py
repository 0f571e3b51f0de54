"""Kubernetes objects as the audit looks at them: from kubectl or from a file, with what runs pods told apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from callwarden.cli.audit.finding import AuditPlace
from callwarden.policy.crd import KINDS

# Kinds that make pods, and where their pod template is.
_POD_AT: Final[Mapping[str, tuple[str, ...]]] = {
    "Deployment": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}
RUN_ALWAYS: Final = frozenset({"Deployment", "DaemonSet", "StatefulSet"})
_SHORT: Final = {
    **{kind.kind: kind.short for kind in KINDS},  # Others have a SecurityPolicy, too.
    "PodDisruptionBudget": "pdb",
    "HorizontalPodAutoscaler": "hpa",
}


def to_kubectl(kind: str, name: str, namespace: str) -> str:
    """An object as kubectl's command lines name it."""
    return f"{_SHORT.get(kind, kind.lower())} {name}{f' -n {namespace}' if namespace else ''}"


@dataclass(frozen=True, slots=True)
class Object:
    """One object; `line` is where it begins in `file`."""

    body: Mapping[str, Any]
    file: str = ""
    line: int = 0

    @property
    def kind(self) -> str:
        return str(self.body.get("kind", ""))

    @property
    def metadata(self) -> Mapping[str, Any]:
        return mapping(self.body.get("metadata"))

    @property
    def name(self) -> str:
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace", ""))

    @property
    def to_kubectl(self) -> str:
        return to_kubectl(self.kind, self.name, self.namespace)

    @property
    def spec(self) -> Mapping[str, Any]:
        return mapping(self.body.get("spec"))

    @property
    def labels(self) -> Mapping[str, Any]:
        return mapping(self.metadata.get("labels"))

    @property
    def is_of_chart(self) -> bool:
        """Whether our chart makes it, whose next upgrade takes back what is patched by hand."""
        return str(self.labels.get("helm.sh/chart", "")).startswith("callwarden-")

    @property
    def is_owned(self) -> bool:
        """Whether another object made it, such as a Deployment its ReplicaSet: then the finding is that one's."""
        return bool(self.metadata.get("ownerReferences"))

    @property
    def place(self) -> AuditPlace:
        return self.within("")

    def within(self, part: str) -> AuditPlace:
        where = f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
        return AuditPlace(f"{where} {part}".rstrip(), self.file, self.line)


@dataclass(frozen=True, slots=True)
class Workload:
    """An object that makes pods."""

    object: Object

    @property
    def template(self) -> Mapping[str, Any]:
        found: Any = self.object.body
        for key in _POD_AT[self.object.kind]:
            found = mapping(found).get(key)
        return mapping(found)

    @property
    def labels(self) -> Mapping[str, Any]:
        return mapping(mapping(self.template.get("metadata")).get("labels"))

    @property
    def pod(self) -> Mapping[str, Any]:
        return mapping(self.template.get("spec"))

    @property
    def containers(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Each container with the list that it is in."""
        return [
            (group, mapping(container))
            for group in ("initContainers", "containers")
            for container in sequence(self.pod.get(group))
        ]

    def patch(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """A patch of the object that changes its pods' spec so."""
        body: dict[str, Any] = {"spec": dict(pod)}
        for key in reversed(_POD_AT[self.object.kind]):
            body = {key: body}
        return body

    def patch_container(self, group: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        return self.patch({group: [{"name": name, **change}]})

    def how(self) -> str:
        """What to do with a patch."""
        one = self.object
        if one.kind == "Pod" or one.kind == "Job":
            return "write it into the manifest and recreate the object: it can't be changed in place"
        return f"into the manifest; at once: kubectl patch {one.to_kubectl} --type strategic -p 'LINE'"


@dataclass(frozen=True, slots=True)
class Objects:
    """Everything that was found. `unseen`: kinds, as plurals, that couldn't be looked at, so that their absence says
    nothing.
    """

    all: Sequence[Object]
    unseen: frozenset[str] = frozenset()

    def of(self, *kinds: str) -> Iterator[Object]:
        return (one for one in self.all if one.kind in kinds)

    def workloads(self) -> Iterator[Workload]:
        return (Workload(one) for one in self.all if one.kind in _POD_AT and not one.is_owned)

    def running(self) -> Iterator[Workload]:
        """Those whose pods are to run all the time."""
        return (workload for workload in self.workloads() if workload.object.kind in RUN_ALWAYS)


def mapping(value: object) -> Mapping[str, Any]:
    """What should be a mapping; an empty one for anything else, so that a check needs to ask once only."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def selects(selector: object, labels: Mapping[str, Any]) -> bool:
    """Whether a Kubernetes label selector (matchLabels, matchExpressions) is about pods with these labels."""
    wanted = mapping(selector)
    if any(labels.get(key) != value for key, value in mapping(wanted.get("matchLabels")).items()):
        return False
    for expression in map(mapping, sequence(wanted.get("matchExpressions"))):
        held = labels.get(str(expression.get("key")))
        values = sequence(expression.get("values"))
        match expression.get("operator"):
            case "In":
                fits = held in values
            case "NotIn":
                fits = held not in values
            case "Exists":
                fits = held is not None
            case "DoesNotExist":
                fits = held is None
            case _:
                fits = False
        if not fits:
            return False
    return True
