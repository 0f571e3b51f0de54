"""Many policy documents become one immutable snapshot, or are refused with field and reason.

In: parsing, validation, merging by realm and priority over the profile's values. Out: where documents are kept and how
services hear of them (callwarden.common.policy), and what each field means (callwarden.policy.model).

The order in which fields are laid over each other: the profile's values, the policies for all realms, the policies for
the realm; within each step by priority, and by name where priorities are equal. Lists are replaced, not joined.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from callwarden.kernel.errors import Invalid
from callwarden.policy.model import API_VERSION, HARDENED, KIND, Metadata, PolicySpec

DOCUMENT_BYTES_MAX: Final = 1_000_000  # etcd's limit for one object is 1.5 MB.
DOCUMENTS_MAX: Final = 1_000
_MERGE_KEYS_MAX_DEPTH: Final = 12  # The model is 5 deep.


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a policy: the field as the user wrote it ("spec.lines.max") and why."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class BadPolicy(Invalid):
    """A policy can't be taken. `problems` is never empty; nothing was changed."""

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        text = "; ".join(map(str, self.problems))
        super().__init__(f"policy {name or '(unnamed)'}: {text}", field=self.problems[0].field)


@dataclass(frozen=True, slots=True)
class Document:
    """One SecurityPolicy as it was applied. `spec` holds only what the user wrote."""

    name: str
    spec: Mapping[str, Any]

    @property
    def realm(self) -> str:
        return str(self.spec.get("realm", ""))

    @property
    def priority(self) -> int:
        return int(self.spec.get("priority", 0))

    def to_json(self) -> str:
        """The whole resource as canonical JSON."""
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": self.name}, "spec": self.spec}
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_object(cls, value: object) -> "Document":
        """Checks one decoded resource on its own. Raises BadPolicy with every problem it has."""
        if not isinstance(value, dict):
            raise BadPolicy("", [Problem("(document)", "is not a mapping")])
        metadata = value.get("metadata")
        name = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
        problems = []
        if value.get("apiVersion") != API_VERSION:
            problems.append(Problem("apiVersion", f"must be {API_VERSION}"))
        if value.get("kind") != KIND:
            problems.append(Problem("kind", f"must be {KIND}"))
        problems += _problems_of(Metadata, metadata if metadata is not None else {}, "metadata")
        spec = value.get("spec", {})
        if not isinstance(spec, dict):
            problems.append(Problem("spec", "is not a mapping"))
        else:
            problems += _problems_of(PolicySpec, spec, "spec")
        problems += [Problem(str(key), "is not a field of a SecurityPolicy") for key in value if key not in _TOP_FIELDS]
        if problems:
            raise BadPolicy(name, problems)
        return cls(name, spec)


# status and the rest of metadata are Kubernetes' business; `kubectl get -o yaml` output can be applied.
_TOP_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


def parse_yaml(text: str) -> list[Document]:
    """The policies in a YAML (or JSON) text, which may hold several documents. Raises BadPolicy."""
    if len(text.encode("utf-8", "replace")) > DOCUMENT_BYTES_MAX:
        raise BadPolicy("", [Problem("(file)", f"is larger than {DOCUMENT_BYTES_MAX:,} bytes")])
    if _has_alias(text):
        # Anchors can make a small text expand without bound, and no policy needs them.
        raise BadPolicy("", [Problem("(file)", "YAML aliases are not supported")])
    try:
        values = [value for value in yaml.safe_load_all(text) if value is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else "(file)"
        raise BadPolicy("", [Problem(where, "is not YAML")]) from error
    if not values:
        raise BadPolicy("", [Problem("(file)", "holds no document")])
    return [Document.from_object(value) for value in values]


def _has_alias(text: str) -> bool:
    try:
        return any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False  # parse_yaml's own reading says what is wrong.


@dataclass(frozen=True)
class PolicySet:
    """All policies that hold, with their revision: the snapshot that a service swaps whole."""

    revision: int
    documents: tuple[Document, ...] = ()
    _by_realm: dict[str, PolicySpec] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(cls, revision: int, documents: Iterable[Document]) -> "PolicySet":
        """Merges and validates for every realm that any document names, so that a set which exists is right for all.
        Raises BadPolicy."""
        ordered = tuple(sorted(documents, key=lambda document: document.name))
        if len(ordered) > DOCUMENTS_MAX:
            raise BadPolicy("", [Problem("(bundle)", f"holds more than {DOCUMENTS_MAX} policies")])
        realms = {"", *(document.realm for document in ordered)}
        return cls(revision, ordered, {realm: _effective(realm, ordered) for realm in realms})

    def for_realm(self, realm: str) -> PolicySpec:
        """The effective settings of one realm."""
        spec = self._by_realm.get(realm)
        return spec if spec is not None else self._by_realm[""]

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is taken, but may not be meant; each once, whatever the number of realms that have it."""
        found = [problem for spec in self._by_realm.values() for problem in _doubts(spec)]
        return tuple(dict.fromkeys(found))

    @property
    def digest(self) -> str:
        """SHA-256 over the effective settings of all realms: two equal digests mean the same protection."""
        effective = {
            realm: spec.model_dump(mode="json", by_alias=True) for realm, spec in sorted(self._by_realm.items())
        }
        return hashlib.sha256(json.dumps(effective, sort_keys=True).encode()).hexdigest()

    def with_applied(self, documents: Iterable[Document]) -> "PolicySet":
        """The next revision, in which these documents replace those of the same names. Raises BadPolicy."""
        by_name = {document.name: document for document in self.documents}
        by_name.update({document.name: document for document in documents})
        return PolicySet.build(self.revision + 1, by_name.values())

    def without(self, name: str) -> "PolicySet":
        """The next revision, in which the named document is gone."""
        return PolicySet.build(self.revision + 1, (document for document in self.documents if document.name != name))


def default_set() -> PolicySet:
    """What holds before any policy is applied: profile Default, revision 0."""
    return PolicySet.build(0, ())


def _effective(realm: str, documents: tuple[Document, ...]) -> PolicySpec:
    general = [document for document in documents if not document.realm]
    special = [document for document in documents if realm and document.realm == realm]
    layers = [
        *sorted(general, key=lambda d: (d.priority, d.name)),
        *sorted(special, key=lambda d: (d.priority, d.name)),
    ]
    merged: dict[str, Any] = {}
    profile = next((layer.spec["profile"] for layer in reversed(layers) if "profile" in layer.spec), "Default")
    if profile == "Hardened":
        merged = _merge(merged, HARDENED)
    for layer in layers:
        merged = _merge(merged, layer.spec)
    merged["profile"], merged["realm"] = profile, realm
    problems = _problems_of(PolicySpec, merged, "spec")
    if problems:
        raise BadPolicy(layers[-1].name if layers else "", problems)
    return PolicySpec.model_validate(merged)


MULTIPLIER_MIN: Final = 4  # Below it a good day after a quiet week is blocked.


def _doubts(spec: PolicySpec) -> Iterator[Problem]:
    dynamic = spec.spend.dynamic_daily
    if dynamic.mode and dynamic.multiplier < MULTIPLIER_MIN:
        yield Problem(
            "spec.spend.dynamicDaily.multiplier",
            f"is {dynamic.multiplier}, and below {MULTIPLIER_MIN} accounts are blocked by ordinary growth",
        )


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and depth < _MERGE_KEYS_MAX_DEPTH:
            result[key] = _merge(below, value, depth + 1)
        else:
            result[key] = value
    return result


def _problems_of(model: type[BaseModel], value: object, root: str) -> list[Problem]:
    """What the model says against the value, with our own field paths and without echoing what was given."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        return [
            Problem(".".join([root, *map(str, item["loc"])]), _reason(item["type"], item["msg"]))
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    return []


def _reason(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "missing":
        return "is required"
    text = message.removeprefix("Value error, ")
    return text[0].lower() + text[1:]
