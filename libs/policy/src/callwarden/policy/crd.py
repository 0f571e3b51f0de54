"""The model as Kubernetes CustomResourceDefinitions (apiextensions.k8s.io/v1).

In: structural schemas with descriptions, bounds and CEL rules, status and printer columns of each kind. Out: the files
(libs/policy/generate.py writes deploy/helm/callwarden/crds), what a schema can't check (callwarden.policy.bundle).

Policies have no `default:` in their schemas. A default that the API server fills in can't be told from what a user
wrote, and would override every policy below (docs/decisions/0007). Descriptions name the defaults instead.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from callwarden.policy.fields import FieldFacts, FieldGroup, camel, is_union, walk, written
from callwarden.policy.model import API_VERSION, CLUSTER_KIND, HARDENED, KIND, PolicySpec
from callwarden.policy.resources import NAME_MAX, BanSpec, RateDeckSpec, RealmBindingSpec, TrunkSpec
from callwarden.policy.values import Wire

CATEGORY: Final = "callwarden"
GROUP, VERSION = API_VERSION.split("/")
CONDITIONS: Final = ("Accepted", "Applied", "Degraded")

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    """1: with -o wide only."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource."""

    kind: str
    plural: str
    short: str
    spec: type[FieldGroup]
    about: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    layers: bool = False
    """Whether several are laid over each other, so that what isn't written has no default of its own."""
    without: frozenset[str] = frozenset()
    """Fields of the spec that this kind lacks."""
    name_max: int | None = None
    """Longest name of what the resource declares."""
    reported: bool = True
    """Whether the operator writes its status."""

    @property
    def file(self) -> str:
        return f"{self.plural}.yaml"


def _condition(name: str) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{name}")].status')


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_ACCEPTED, _APPLIED, _DEGRADED = map(_condition, CONDITIONS)
_POLICY = (
    Column("Priority", ".spec.priority", "integer"),
    Column("Profile", ".spec.profile"),
    _ACCEPTED,
    _APPLIED,
    Column("Degraded", _DEGRADED.path, priority=1),
    Column("Revision", ".status.revision", "integer"),
    _AGE,
)

KINDS: Final = (
    Kind(
        KIND,
        "securitypolicies",
        "cwsp",
        PolicySpec,
        "What Callwarden protects against, and what accounts may do: for one realm or all. Fields that aren't set "
        "are inherited from the policies below and the profile.",
        (Column("Realm", ".spec.realm"), *_POLICY),
        layers=True,
    ),
    Kind(
        CLUSTER_KIND,
        "clustersecuritypolicies",
        "cwcsp",
        PolicySpec,
        "The base for all realms: like a SecurityPolicy, and below all of them.",
        _POLICY,
        namespaced=False,
        layers=True,
        without=frozenset({"realm"}),
    ),
    Kind(
        "Ban",
        "bans",
        "cwban",
        BanSpec,
        BanSpec.__doc__ or "",
        (
            Column("Address", ".spec.address"),
            Column("Reason", ".spec.reason"),
            Column("Until", ".status.until"),  # as a date kubectl shows how long ago it was, and <invalid> before
            _ACCEPTED,
            _APPLIED,
            _AGE,
        ),
    ),
    Kind(
        "Trunk",
        "trunks",
        "cwtrunk",
        TrunkSpec,
        TrunkSpec.__doc__ or "",
        (
            Column("Direction", ".spec.direction"),
            Column("Address", ".spec.address"),
            Column("Enabled", ".spec.enabled", "boolean"),
            _ACCEPTED,
            _APPLIED,
            _AGE,
        ),
        name_max=NAME_MAX,
    ),
    Kind(
        "RateDeck",
        "ratedecks",
        "cwdeck",
        RateDeckSpec,
        RateDeckSpec.__doc__ or "",
        (
            Column("Currency", ".spec.currency"),
            Column("Rates", ".status.rates", "integer"),
            Column("Version", ".status.version", "integer"),
            _ACCEPTED,
            _APPLIED,
            _AGE,
        ),
        name_max=NAME_MAX,
    ),
    Kind(
        "RealmBinding",
        "realmbindings",
        "cwrealm",
        RealmBindingSpec,
        RealmBindingSpec.__doc__ or "",
        (
            Column("Namespaces", ".spec.namespaces"),
            Column("Realms", ".spec.realms"),
            Column("Decks", ".spec.rateDecks", priority=1),
            _AGE,
        ),
        namespaced=False,
        reported=False,
    ),
)


def definition(kind: Kind) -> Schema:
    """The CustomResourceDefinition of a kind."""
    schema: Schema = {
        "description": kind.about,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{kind.kind}."},
            "metadata": {"type": "object"},
            "spec": spec_schema(kind),
            **({"status": _status(kind)} if kind.reported else {}),
        },
    }
    if kind.name_max is not None:
        schema["x-kubernetes-validations"] = [
            {
                "rule": f"size(self.metadata.name) <= {kind.name_max}",
                "message": f"a name has at most {kind.name_max} characters",
            }
        ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "callwarden"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    **({"subresources": {"status": {}}} if kind.reported else {}),
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def spec_schema(kind: Kind) -> Schema:
    """The structural schema of a kind's spec."""
    facts = {fact.path: fact for fact in walk(kind.spec)}
    schema = _group(kind.spec, "", facts, with_defaults=not kind.layers, without=kind.without)
    schema["description"] = (
        kind.spec.__doc__ if not kind.layers else "The settings; fields that aren't set are inherited."
    )
    return schema


def _group(
    model: type[FieldGroup],
    prefix: str,
    facts: Mapping[str, FieldFacts],
    *,
    with_defaults: bool,
    without: frozenset[str] = frozenset(),
) -> Schema:
    properties: Schema = {}
    for name, info in model.model_fields.items():
        outside = info.alias or name
        if outside in without:
            continue
        fact = facts[f"{prefix}{outside}"]
        schema = _value(info.annotation, info.metadata, fact.path, facts, with_defaults=with_defaults)
        schema["description"] = described(fact) if not with_defaults else fact.info.description
        if with_defaults and not info.is_required():
            default = _default(info, model, name)
            if default is not None:
                schema["default"] = default
        properties[outside] = schema
    group: Schema = {"type": "object", "properties": properties}
    required = [info.alias or name for name, info in model.model_fields.items() if info.is_required()]
    if required:
        group["required"] = required
    rules = [_rule(rule.cel, rule.reason, rule.fields[0]) for rule in model.RULES] + [
        _fixed(name) for name in model.FIXED
    ]
    if rules:
        group["x-kubernetes-validations"] = rules
    return group


def _rule(cel: str, reason: str, name: str) -> Schema:
    path = camel(name)
    return {"rule": cel, "message": f"{path} {reason}", "fieldPath": f".{path}", "reason": "FieldValueInvalid"}


def _fixed(name: str) -> Schema:
    path = camel(name)
    unset = f"has(self.{path}) == has(oldSelf.{path})"
    same = f"{unset} && (!has(self.{path}) || self.{path} == oldSelf.{path})"
    return _rule(same, "is immutable: delete the resource and create another", name)


def _value(
    annotation: Any,
    metadata: Iterable[Any],
    path: str,
    facts: Mapping[str, FieldFacts],
    *,
    with_defaults: bool,
) -> Schema:
    """The schema of a type with what Annotated and Field say of it."""
    known = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        known = [*more, *known]
    known = [piece for one in known for piece in (one.metadata if isinstance(one, FieldInfo) else [one])]
    wire = next((one for one in reversed(known) if isinstance(one, Wire)), None)
    if wire is not None:
        schema = dict(wire.schema)
        if wire.bounded:
            _bound(schema, known)
        return schema
    if is_union(annotation):
        (inner,) = [one for one in get_args(annotation) if one is not type(None)]
        return _value(inner, known, path, facts, with_defaults=with_defaults) | {"nullable": True}
    if get_origin(annotation) is tuple:
        items = _value(get_args(annotation)[0], (), f"{path}[]", facts, with_defaults=with_defaults)
        lengths = [one.max_length for one in known if isinstance(one, annotated_types.MaxLen)]
        least = max((one.min_length for one in known if isinstance(one, annotated_types.MinLen)), default=0)
        return {"type": "array", **({"minItems": least} if least else {}), "maxItems": min(lengths), "items": items}
    if get_origin(annotation) is Literal:
        values = list(get_args(annotation))
        return {"type": _TYPES[type(values[0])], "enum": values}
    if isinstance(annotation, type) and issubclass(annotation, FieldGroup):
        return _group(annotation, f"{path}.", facts, with_defaults=with_defaults)
    schema = {"type": _TYPES[annotation]}
    if annotation is int:
        schema["format"] = "int64"
    _bound(schema, known)
    return schema


_TYPES: Final[dict[Any, str]] = {int: "integer", float: "number", bool: "boolean", str: "string"}


def _bound(schema: Schema, known: Iterable[Any]) -> None:
    """Takes over bounds, the innermost first, so that a field's own go before those of its type."""
    for one in known:
        match one:
            case annotated_types.Ge(ge=least):
                schema["minimum"] = least
            case annotated_types.Gt(gt=least):
                schema |= {"minimum": least, "exclusiveMinimum": True}
            case annotated_types.Le(le=most):
                schema["maximum"] = most
            case annotated_types.MinLen(min_length=least) if schema.get("type") == "string":
                schema["minLength"] = least
            case annotated_types.MaxLen(max_length=most) if schema.get("type") == "string":
                schema["maxLength"] = most
            case _ if (pattern := getattr(one, "pattern", None)) is not None:
                schema["pattern"] = pattern


def _default(info: FieldInfo, model: type[FieldGroup], name: str) -> Any:
    """As it is written outside; None where there is none to write."""
    default = info.get_default(call_default_factory=True)
    if isinstance(default, FieldGroup):
        return default.model_dump(mode="json", by_alias=True, exclude_none=True)
    return list(default) if isinstance(default, tuple) else default


def described(fact: FieldFacts) -> str:
    """What a field of a policy does, with its default, which no schema of ours holds."""
    if fact.path in _DEFAULTS:
        default = f"Default: {shown(_DEFAULTS[fact.path])}"
        if fact.path in _HARDENED:
            default += f"; in profile Hardened: {shown(_HARDENED[fact.path])}"
        return f"{fact.description} {default}."
    return fact.description


def shown(value: Any) -> str:
    """A value on one line; what is empty by its name."""
    return "empty" if value in ("", []) else written(value)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, below in value.items():
        found |= _flat(below, f"{prefix}{key}.") if isinstance(below, Mapping) else {f"{prefix}{key}": below}
    return found


def defaults() -> dict[str, Any]:
    """Each field's value in profile Default, as it is written, by its path below spec."""
    return dict(_DEFAULTS)


def hardened() -> dict[str, Any]:
    """Those that profile Hardened changes."""
    return dict(_HARDENED)


_DEFAULTS: Final = _flat(PolicySpec().model_dump(mode="json", by_alias=True))
_HARDENED: Final = _flat(HARDENED)


def _column(column: Column) -> Schema:
    schema: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.priority:
        schema["priority"] = column.priority
    return schema


def _text(description: str, length_max: int, **more: Any) -> Schema:
    return {"type": "string", "maxLength": length_max, "description": description, **more}


def _integer(description: str) -> Schema:
    return {"type": "integer", "format": "int64", "minimum": 0, "description": description}


def _status(kind: Kind) -> Schema:
    """What the operator reports of a resource: standard conditions, and which pods enforce it."""
    condition = {
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": _text(
                "Accepted: it is valid. Applied: it is enforced. Degraded: less than it specifies is in force.", 316
            ),
            "status": {
                "type": "string",
                "enum": ["True", "False", "Unknown"],
                "description": "Whether the condition is met.",
            },
            "observedGeneration": _integer("The metadata.generation that this is about."),
            "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When status changed."},
            "reason": _text("The reason, in one word.", 1_024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
            "message": _text("The reason, in words.", 32_768),
        },
    }
    properties: Schema = {
        "conditions": {
            "type": "array",
            "description": "Conditions to wait for: Accepted, Applied, Degraded.",
            "maxItems": 16,
            "items": condition,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
        "observedGeneration": _integer("The metadata.generation that the operator reconciled last."),
    }
    if kind.layers:
        properties |= {
            "revision": _integer("The revision of the bundle since which this form is in force."),
            "services": {
                "type": "array",
                "description": "Services and how many of their pods enforce that revision.",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["name", "pods", "running"],
                    "properties": {
                        "name": _text("The service.", 63),
                        "pods": _integer("Its pods that follow policies."),
                        "running": _integer("Those of them that enforce the revision."),
                    },
                },
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
            "warnings": {
                "type": "array",
                "description": "Settings that may not be intended, and fields that no service enforces yet.",
                "maxItems": 256,
                "items": {"type": "string", "maxLength": 2_048},
            },
        }
    if kind.kind in ("Ban", "Trunk"):
        properties["held"] = {
            "type": "boolean",
            "description": "Whether a service may have something of this resource, which is removed with it.",
        }
    if kind.kind == "Ban":
        properties["until"] = {"type": "string", "format": "date-time", "description": "When it ends; not set: never."}
    elif kind.kind == "RateDeck":
        properties |= {
            "rates": _integer("Rates that were imported."),
            "version": _integer("The version of the price list in force."),
            "digest": _text("SHA-256 of what was imported, in hex.", 64),
            "errors": {
                "type": "array",
                "description": "The first invalid lines of the CSV.",
                "maxItems": 32,
                "items": {"type": "string", "maxLength": 512},
            },
        }
    return {"type": "object", "description": "Written by the operator.", "properties": properties}
