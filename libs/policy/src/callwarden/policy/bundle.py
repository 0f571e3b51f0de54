"""Many policy documents become one immutable snapshot, or are refused with field and reason.

In: parsing, validation, merging by realm and priority over the profile's values. Out: where documents are kept and how
services hear of them (callwarden.common.policy), and what each field means (callwarden.policy.model).

The order in which fields are laid over each other: the profile's values, the ClusterSecurityPolicies, the policies for
all realms, the policies for the realm; within each step by priority, and by name where priorities are equal. Lists are
replaced, not joined. What profile StressTest turns off is off whatever the policies set, but only for its time, of
which a set without a clock knows nothing: `PolicySet.at` gives the set in force at a moment.
"""

import ipaddress
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from callwarden.kernel.clock import UnixS
from callwarden.kernel.errors import Invalid
from callwarden.policy import yaml_text
from callwarden.policy.fields import DOCUMENT, FieldFacts, leaves, walk, written
from callwarden.policy.model import (
    API_VERSION,
    CLUSTER_KIND,
    HARDENED,
    KIND,
    STRESS_TEST,
    Metadata,
    PolicySpec,
    StressTest,
)
from callwarden.policy.values import format_duration, seconds_of

DOCUMENT_BYTES_MAX: Final = 1_000_000  # etcd's limit for one object is 1.5 MB.
DOCUMENTS_MAX: Final = 1_000
_DEPTH_MAX: Final = 12  # The model is 5 deep.


Result = TypeVar("Result")
Steps: TypeAlias = Generator[None, None, Result]
"""Work cut into short steps, so that an event loop can do something else in between; it returns the result."""


def finish(steps: Steps[Result]) -> Result:
    """Does all the steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is invalid in a policy: the field as the user wrote it ("spec.lines.max") and why."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class BadPolicy(Invalid):
    """A policy is invalid. `problems` is never empty; nothing was changed."""

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        text = "; ".join(map(str, self.problems))
        super().__init__(f"policy {name or '(unnamed)'}: {text}", field=self.problems[0].field)


class Key(NamedTuple):
    """Identifies a policy. The two kinds, and on Kubernetes two namespaces, may use the same name."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Document:
    """One SecurityPolicy or ClusterSecurityPolicy as it was applied. `spec` holds only what the user wrote."""

    name: str
    spec: Mapping[str, Any]
    kind: str = KIND
    namespace: str = ""
    """The resource's namespace on Kubernetes; a ClusterSecurityPolicy has none."""

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)

    @property
    def realm(self) -> str:
        """In lower case: it is a domain (RFC 4343)."""
        return str(self.spec.get("realm", "")).lower()

    @property
    def priority(self) -> int:
        return int(self.spec.get("priority", 0))

    @property
    def is_cluster(self) -> bool:
        """Whether it lies below all SecurityPolicies."""
        return self.kind == CLUSTER_KIND

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Settings without effect."""
        return tuple(_without_effect(self.spec))

    def to_json(self) -> str:
        """The whole resource as canonical JSON."""
        metadata = {"name": self.name, **({"namespace": self.namespace} if self.namespace else {})}
        body = {"apiVersion": API_VERSION, "kind": self.kind, "metadata": metadata, "spec": self.spec}
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_object(cls, value: object) -> "Document":
        """Checks one decoded resource on its own. Raises BadPolicy with every problem it has."""
        kind, metadata, spec, problems = open_resource(value, (KIND, CLUSTER_KIND))
        if spec is not None:
            problems += problems_of(PolicySpec, spec, "spec", document=True)
            if kind == CLUSTER_KIND and "realm" in spec:
                problems.append(Problem("spec.realm", f"is not a field of a {CLUSTER_KIND}, which is for all realms"))
        if problems or spec is None or metadata is None:
            raise BadPolicy(name_of(value), problems)
        return cls(metadata.name, spec, kind, metadata.namespace if kind == KIND else "")


def name_of(value: object) -> str:
    """The name that a resource gives itself, or ""."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def open_resource(
    value: object, kinds: Iterable[str]
) -> tuple[str, Metadata | None, dict[str, Any] | None, list[Problem]]:
    """Kind, metadata and spec of a resource of one of these kinds, as far as they are valid, and the problems."""
    kinds = tuple(kinds)
    if not isinstance(value, dict):
        return "", None, None, [Problem("(document)", "is not a mapping")]
    problems = []
    if value.get("apiVersion") != API_VERSION:
        problems.append(Problem("apiVersion", f"must be {API_VERSION}"))
    kind = value.get("kind")
    if kind not in kinds:
        problems.append(Problem("kind", f"must be {' or '.join(kinds)}"))
    given = value.get("metadata") or {}
    unnamed = problems_of(Metadata, given, "metadata")
    problems += unnamed
    metadata = None if unnamed else Metadata.model_validate(given)
    spec = value.get("spec", {})
    if not isinstance(spec, dict):
        problems.append(Problem("spec", "is not a mapping"))
        spec = None
    elif not _is_plain(spec):
        problems.append(
            Problem(
                "spec", "contains something other than plain YAML (such as a time or a set), or is nested too deeply"
            )
        )
        spec = None
    problems += [Problem(str(key), f"is not a field of a {kinds[0]}") for key in value if key not in _TOP_FIELDS]
    return str(kind), metadata, spec, problems


# status and the rest of metadata are Kubernetes' business; `kubectl get -o yaml` output can be applied.
_TOP_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether it is what JSON can say, as everything must be that travels in a bundle."""
    match value:
        case None | bool() | int() | float() | str():
            return True
        case dict():
            return depth < _DEPTH_MAX and all(
                isinstance(key, str) and _is_plain(below, depth + 1) for key, below in value.items()
            )
        case list():
            return depth < _DEPTH_MAX and all(_is_plain(below, depth + 1) for below in value)
        case _:
            return False


def parse_yaml(text: str) -> list[Document]:
    """The policies in a YAML (or JSON) text, which may hold several documents. Raises BadPolicy."""
    return [Document.from_object(value) for value in load_yaml(text)]


def load_yaml(text: str) -> list[Any]:
    """The documents of a YAML text, at least one, unchecked. Raises BadPolicy."""
    if len(text.encode("utf-8", "replace")) > DOCUMENT_BYTES_MAX:
        raise BadPolicy("", [Problem("(file)", f"is larger than {DOCUMENT_BYTES_MAX:,} bytes")])
    try:
        values = [value for _, value in yaml_text.documents(text)]
    except yaml_text.NotYaml as error:
        raise BadPolicy("", [Problem(f"line {error.line}" if error.line else "(file)", error.reason)]) from error
    if not values:
        raise BadPolicy("", [Problem("(file)", "holds no document")])
    return values


@dataclass(frozen=True, slots=True)
class _Stress:
    """The settings of a realm while profile StressTest applies."""

    starts_s: float
    ends_s: float
    spec: PolicySpec

    def applies_at(self, unix_s: UnixS) -> bool:
        return self.starts_s <= unix_s < self.ends_s


@dataclass(frozen=True)
class PolicySet:
    """All policies in force, with their revision: the snapshot that a service swaps whole."""

    revision: int
    documents: tuple[Document, ...] = ()
    _by_realm: dict[str, PolicySpec] = field(default_factory=dict, repr=False, compare=False)
    _usual: dict[str, PolicySpec] = field(default_factory=dict, repr=False, compare=False)
    """The settings outside StressTest, which are the same where there is none."""
    _stress: dict[str, _Stress] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(cls, revision: int, documents: Iterable[Document]) -> "PolicySet":
        """Merges and validates for every realm that any document names, so that a set which exists is valid for all.
        Profile StressTest is off in all of them until `at` turns it on. Raises BadPolicy."""
        return finish(cls.build_in_steps(revision, documents))

    @classmethod
    def build_in_steps(cls, revision: int, documents: Iterable[Document]) -> "Steps[PolicySet]":
        """`build` for an event loop: yields after each realm, which takes some 30 µs, and returns the set."""
        ordered = tuple(sorted(documents, key=lambda document: document.key))
        if len(ordered) > DOCUMENTS_MAX:
            raise BadPolicy("", [Problem("(bundle)", f"has more than {DOCUMENTS_MAX} policies")])
        merger = _Merger(ordered)
        usual, stress = {}, {}
        for realm in merger.realms:
            usual[realm], under_stress = merger.effective(realm)
            if under_stress is not None:
                stress[realm] = under_stress
            yield
        return cls(revision, ordered, dict(usual), usual, stress)

    def for_realm(self, realm: str) -> PolicySpec:
        """The effective settings of one realm, in whatever case it is written."""
        spec = self._by_realm.get(realm)
        if spec is None:
            spec = self._by_realm.get(realm.lower())
        return spec if spec is not None else self._by_realm[""]

    @property
    def realms(self) -> tuple[str, ...]:
        """Those that any policy names, after "" for all others."""
        return tuple(sorted(self._by_realm))

    def at(self, unix_s: UnixS) -> "PolicySet":
        """The same, with profile StressTest in those realms where it applies at that Unix time."""
        if not self._stress:
            return self
        held = {realm: stress.spec for realm, stress in self._stress.items() if stress.applies_at(unix_s)}
        return replace(self, _by_realm=self._usual | held)

    @property
    def stressed(self) -> frozenset[str]:
        """The realms in which profile StressTest applies."""
        return frozenset(realm for realm, stress in self._stress.items() if self._by_realm[realm] is stress.spec)

    def next_change_s(self, unix_s: UnixS) -> float | None:
        """The Unix time after this one at which a StressTest begins or ends next; None: never."""
        moments = (moment for stress in self._stress.values() for moment in (stress.starts_s, stress.ends_s))
        return min((moment for moment in moments if moment > unix_s), default=None)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Settings that may not be intended; each once, whatever the number of realms and policies that have it."""
        found = [problem for document in self.documents for problem in document.warnings]
        found += [problem for spec in self._usual.values() for problem in _doubts(spec)]
        return tuple(dict.fromkeys(found))

    def with_applied(self, documents: Iterable[Document]) -> "PolicySet":
        """The next revision, in which these documents replace those of the same keys. Raises BadPolicy."""
        by_key = {document.key: document for document in self.documents}
        by_key.update({document.key: document for document in documents})
        return PolicySet.build(self.revision + 1, by_key.values())

    def without(self, key: Key) -> "PolicySet":
        """The next revision, in which that document is gone."""
        return PolicySet.build(self.revision + 1, (document for document in self.documents if document.key != key))


def default_set() -> PolicySet:
    """The policies in force before any is applied: profile Default, revision 0."""
    return PolicySet.build(0, ())


def layers_of(realm: str, documents: Iterable[Document]) -> list[Document]:
    """Those that apply to a realm, in the order in which they are laid over each other."""

    def step(document: Document) -> int:
        return 0 if document.is_cluster else 2 if document.realm else 1

    concerned = [document for document in documents if document.realm in ("", realm)]
    return sorted(concerned, key=lambda one: (step(one), one.priority, one.name, one.namespace))


class _Base(NamedTuple):
    """The policies for all realms, laid over each other on one profile."""

    documents: dict[str, Any]
    """As they are written."""
    validated: dict[str, Any]
    """The same with each group in its final form, so that it is validated once and shared by all realms."""


class _Merger:
    """Documents grouped by realm, merged for one realm at a time."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._by_realm: dict[str, list[Document]] = {"": []}
        for document in documents:
            self._by_realm.setdefault(document.realm, []).append(document)
        self._common = layers_of("", self._by_realm[""])
        self._bases: dict[str, _Base] = {}

    @property
    def realms(self) -> Iterable[str]:
        """Those that any document names, and "" for all others."""
        return self._by_realm

    def effective(self, realm: str) -> tuple[PolicySpec, _Stress | None]:
        """Raises BadPolicy."""
        own = layers_of(realm, self._by_realm[realm]) if realm else []
        layers = [*self._common, *own]
        profiles = [str(layer.spec["profile"]) for layer in layers if "profile" in layer.spec]
        is_stressed = bool(profiles) and profiles[-1] == _STRESS
        profile = next((name for name in reversed(profiles) if name != _STRESS), "Default")
        base = self._base(profile)
        merged = base.documents
        for layer in own:
            merged = _merge(merged, layer.spec)
        changed = {key: merged[key] for layer in own for key in layer.spec}
        values = base.validated | changed | {"profile": profile, "realm": realm}
        try:
            spec = PolicySpec.model_validate(values)
        except ValidationError as error:
            raise BadPolicy(layers[-1].name if layers else "", _problems_in(error, "spec")) from error
        if not is_stressed:
            return spec, None
        # Only a document with startsAt can name the profile, so it is there.
        starts_s = seconds_of(spec.stress_test.starts_at or "")
        off = {key: _merge(merged.get(key, {}), group) for key, group in STRESS_TEST.items()}
        stressed = PolicySpec.model_validate(values | off | {"profile": _STRESS})
        return spec, _Stress(starts_s, starts_s + spec.stress_test.duration, stressed)

    def _base(self, profile: str) -> _Base:
        base = self._bases.get(profile)
        if base is None:
            merged: dict[str, Any] = dict(HARDENED) if profile == "Hardened" else {}
            for layer in self._common:
                merged = _merge(merged, layer.spec)
            base = self._bases[profile] = _Base(merged, _groups_of(merged, profile))
        return base


def _groups_of(merged: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """What is written in `merged` as the model has it, or as it is: a realm's own policy may correct what is wrong."""
    try:
        spec = PolicySpec.model_validate({**merged, "profile": profile})
    except ValidationError:
        return dict(merged)
    return {key: getattr(spec, _NAMES[key]) for key in merged}


_NAMES: Final = {info.alias or name: name for name, info in PolicySpec.model_fields.items()}
_STRESS: Final = "StressTest"
MULTIPLIER_MIN: Final = 4  # Below it a good day after a quiet week is blocked.


def _doubts(spec: PolicySpec) -> Iterator[Problem]:
    """Effective settings that may not be intended."""
    dynamic = spec.spend.dynamic_daily
    if dynamic.mode and dynamic.multiplier < MULTIPLIER_MIN:
        yield Problem(
            "spec.spend.dynamicDaily.multiplier",
            f"is {dynamic.multiplier}, and below {MULTIPLIER_MIN} accounts are blocked by ordinary growth",
        )
    if spec.lines.max_off_peak is not None and not spec.lines.peak_hours:
        yield Problem("spec.lines.maxOffPeak", "never applies: without peakHours all hours are peak")
    for version in _all_of(map(str, spec.firewall.deny)):
        yield Problem(
            "spec.firewall.deny", f"drops every IPv{version} address except those in allow: nobody else can register"
        )


def _all_of(networks: Iterable[str]) -> Iterator[int]:
    """The IP versions whose every address is in one of these networks, however it is cut up."""
    parsed = [ipaddress.ip_network(network, strict=False) for network in networks]
    four = [network for network in parsed if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in parsed if isinstance(network, ipaddress.IPv6Network)]
    if any(network.prefixlen == 0 for network in ipaddress.collapse_addresses(four)):
        yield 4
    if any(network.prefixlen == 0 for network in ipaddress.collapse_addresses(six)):
        yield 6


@cache
def facts() -> Mapping[str, FieldFacts]:
    """Every field of a policy by its path below spec."""
    return {fact.path: fact for fact in walk(PolicySpec)}


def without_effect(settings: Mapping[str, Any]) -> list[tuple[FieldFacts, Any]]:
    """The fields that these settings set and no service enforces, but those set to what services do anyway."""
    found = []
    for path, value in leaves(settings):
        fact = facts().get(path)
        if fact is None or not fact.is_leaf or fact.enforced:
            continue
        if fact.has_always and value == fact.always and type(value) is type(fact.always):
            continue
        found.append((fact, value))
    return found


def _without_effect(spec: Mapping[str, Any]) -> Iterator[Problem]:
    for fact, _ in without_effect(spec):
        reason = "is not enforced by any service yet: it has no effect"
        if fact.has_always:
            reason = f"has no effect yet: services behave as for {written(fact.always)}, whatever is set"
        yield Problem(f"spec.{fact.path}", reason)
    if spec.get("profile") == "Hardened" and (idle := without_effect(HARDENED)):
        names = ", ".join(fact.path for fact, _ in idle)
        yield Problem("spec.profile", f"Hardened also sets what no service enforces yet: {names}")
    if spec.get("profile") == _STRESS:
        test = StressTest.model_validate(spec["stressTest"])
        off = ", ".join(path for path, _ in leaves(STRESS_TEST))
        hours = f"from {test.starts_at} for {format_duration(test.duration)}"
        yield Problem("spec.profile", f"StressTest turns off {off} {hours}")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and depth < _DEPTH_MAX:
            result[key] = _merge(below, value, depth + 1)
        else:
            result[key] = value
    return result


def problems_of(model: type[BaseModel], value: object, root: str, *, document: bool = False) -> list[Problem]:
    """What the model says against the value, with our own field paths and without echoing what was given."""
    try:
        model.model_validate(value, context={DOCUMENT: document})
    except ValidationError as error:
        return _problems_in(error, root)
    return []


def _problems_in(error: ValidationError, root: str) -> list[Problem]:
    return [
        Problem(".".join([root, *map(str, item["loc"])]), _reason(item["type"], item["msg"]))
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _reason(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "missing":
        return "is required"
    text = message.removeprefix("Value error, ")
    return text[0].lower() + text[1:]
