"""A custom resource as the cluster has it, and why nothing is done for one.

In: what applies to all kinds. Out: what each kind asks for (`plan`, `bans`, `names`), what its status says (`status`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from callwarden.policy.bundle import BadPolicy, Key
from callwarden.policy.fields import FieldGroup
from callwarden.policy.model import API_VERSION, CLUSTER_KIND
from callwarden.policy.resources import parse_resource

Spec = TypeVar("Spec", bound=FieldGroup)


@dataclass(frozen=True, slots=True)
class ManagedResource:
    """A resource of one of our kinds."""

    body: Mapping[str, Any]

    @classmethod
    def of(cls, kind: str, body: Mapping[str, Any]) -> "ManagedResource":
        """From an item of a list, in which the API server leaves kind and version out."""
        return cls({"apiVersion": API_VERSION, "kind": kind, **body})

    @property
    def metadata(self) -> Mapping[str, Any]:
        metadata = self.body.get("metadata")
        return metadata if isinstance(metadata, Mapping) else {}

    @property
    def status(self) -> Mapping[str, Any]:
        status = self.body.get("status")
        return status if isinstance(status, Mapping) else {}

    @property
    def key(self) -> Key:
        kind = str(self.body.get("kind", ""))
        namespace = "" if kind == CLUSTER_KIND else str(self.metadata.get("namespace", ""))
        return Key(kind, namespace, str(self.metadata.get("name", "")))

    @property
    def uid(self) -> str:
        return str(self.metadata.get("uid", ""))

    @property
    def finalizers(self) -> list[str]:
        return [str(name) for name in self.metadata.get("finalizers") or ()]

    @property
    def was_held(self) -> bool:
        """Whether the operator has reported that a service has, or may have, something of it."""
        conditions = [one for one in self.status.get("conditions") or () if isinstance(one, Mapping)]
        is_applied = any(one.get("type") == "Applied" and one.get("status") == "True" for one in conditions)
        return is_applied or self.status.get("held") is True

    @property
    def is_deleted(self) -> bool:
        """Whether someone has deleted it, and it waits for its finalizers to be removed."""
        return "deletionTimestamp" in self.metadata

    @property
    def age(self) -> tuple[str, Key]:
        """Older ones first; RFC 3339 in UTC with whole seconds, as the API server writes it, sorts as text."""
        return str(self.metadata.get("creationTimestamp", "")), self.key


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is done for a resource, and why. `accepted`: the resource is valid all the same."""

    reason: str
    message: str
    accepted: bool = False


def spec_of(resource: ManagedResource, kind: type[Spec]) -> Spec | Refusal:
    """What a resource asks for, or the fields that are invalid in ways that a schema can't check."""
    try:
        spec = parse_resource({name: value for name, value in resource.body.items() if name != "status"}).spec
    except BadPolicy as error:
        return Refusal("Invalid", "; ".join(map(str, error.problems)))
    assert isinstance(spec, kind)
    return spec
