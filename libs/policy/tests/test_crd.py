"""The schemas that the Kubernetes API server is given say what the model says, as far as a schema can."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from cel_expr_python import cel
from cel_expr_python.ext import ext_strings
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from pydantic import ValidationError
from structural_schemas import as_json_schema, values

from callwarden.policy import crd
from callwarden.policy.bundle import BadPolicy, Document
from callwarden.policy.crd import KINDS, Kind
from callwarden.policy.fields import DOCUMENT, FieldFacts, FieldGroup, Rule, camel, group_of, walk
from callwarden.policy.model import HARDENED, STRESS_TEST, PolicySpec
from callwarden.policy.reference import schema_at
from callwarden.policy.resources import parse_resource
from callwarden.policy.values import format_duration

BY_NAME = {kind.kind: kind for kind in KINDS}
SCHEMAS = {kind.kind: crd.spec_schema(kind) for kind in KINDS}
VALIDATORS = {name: Draft4Validator(as_json_schema(schema)) for name, schema in SCHEMAS.items()}
CEL = cel.NewEnv(
    variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}, extensions=[ext_strings.ExtStrings()]
)  # The API server has these string functions, too.


def each(values_of: Sequence[Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", values_of, ids=lambda kind: kind.kind)


def resource(kind: Kind, spec: Any) -> dict[str, Any]:
    return {"apiVersion": "callwarden.io/v1", "kind": kind.kind, "metadata": {"name": "p"}, "spec": spec}


def refused(kind: Kind, spec: Any) -> list[str]:
    """The fields that the model refuses; none where it takes the spec."""
    try:
        if kind.layers:
            Document.from_object(resource(kind, spec))
        else:
            parse_resource(resource(kind, spec))
    except BadPolicy as error:
        return [problem.field for problem in error.problems]
    return []


def satisfies(kind: Kind, spec: Any) -> list[str]:
    return [error.message for error in VALIDATORS[kind.kind].iter_errors(spec)]


def stands(value: Any, path: str) -> bool:
    """Whether there is something at a path of the value, or could be at its last step."""
    *steps, _ = path.split(".")
    for step in steps:
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return False
    return True


# ------------------------------------------------------------------ the model and the schema


@each(KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_the_schema_allows_is_accepted_or_refused_with_its_field(kind: Kind, data: st.DataObject) -> None:
    spec = data.draw(values(SCHEMAS[kind.kind]))
    for field in refused(kind, spec):
        assert field.startswith("spec.")
        assert stands({"spec": spec}, field), f"{field} is not in {spec}"


@each(KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_schema_allows_what_the_model_accepts(kind: Kind, data: st.DataObject) -> None:
    spec = data.draw(values(SCHEMAS[kind.kind], junk=True))
    if not refused(kind, spec):
        assert satisfies(kind, spec) == []
        assert broken_rules(SCHEMAS[kind.kind], spec) == []


def leaf_facts() -> list[FieldFacts]:
    return [fact for fact in walk(PolicySpec) if fact.is_leaf and "[]" not in fact.path]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_field_accepts_what_its_schema_forbids(data: st.DataObject) -> None:
    fact = data.draw(st.sampled_from(leaf_facts()))
    value = data.draw(values(schema_at(SCHEMAS["SecurityPolicy"], fact.path), junk=True))
    for step in reversed(fact.path.split(".")):
        value = {step: value}
    if not refused(BY_NAME["SecurityPolicy"], value):
        assert satisfies(BY_NAME["SecurityPolicy"], value) == []


@pytest.mark.parametrize("spec", [HARDENED, STRESS_TEST, PolicySpec().model_dump(mode="json", by_alias=True)])
def test_what_the_model_writes_is_a_policy(spec: dict[str, Any]) -> None:
    kind = BY_NAME["SecurityPolicy"]
    assert (refused(kind, spec), satisfies(kind, spec)) == ([], [])
    again = PolicySpec.model_validate(spec)
    assert PolicySpec.model_validate(again.model_dump(mode="json", by_alias=True)) == again


@each([kind for kind in KINDS if not kind.layers])
def test_the_defaults_that_the_api_server_fills_in_are_those_of_the_model(kind: Kind) -> None:
    schema = SCHEMAS[kind.kind]
    filled = {name: below["default"] for name, below in schema["properties"].items() if "default" in below}
    given_: dict[str, dict[str, Any]] = {
        "Ban": {"address": "192.0.2.1"},
        "Trunk": {"address": "192.0.2.1:5060"},
        "RateDeck": {"configMap": {"name": "rates", "key": "rates.csv"}},
        "RealmBinding": {"namespaces": ["sales"], "realms": ["sales.example"]},
    }
    required = given_[kind.kind]
    assert (refused(kind, filled | required), satisfies(kind, filled | required)) == ([], [])
    bare = parse_resource(resource(kind, required))
    assert parse_resource(resource(kind, filled | required)).spec == bare.spec


# ------------------------------------------------------------------ rules across fields, in Python and in CEL


def broken_rules(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What the schema's CEL rules say against a value, at any depth."""
    if isinstance(value, list):
        return [one for item in value for one in broken_rules(schema.get("items", {}), item)]
    if not isinstance(value, dict):
        return []
    rules = [one for one in schema.get("x-kubernetes-validations", []) if "oldSelf" not in one["rule"]]
    found = [one["message"] for one in rules if not holds(one["rule"], value)]
    below = (broken_rules(schema["properties"].get(name, {}), inner) for name, inner in value.items())
    return found + [one for several in below for one in several]


def holds(rule: str, value: Mapping[str, Any]) -> bool:
    result = CEL.compile(rule).eval(data={"self": value}).value()
    assert isinstance(result, bool), result
    return result


def ruled() -> Iterator[tuple[type[FieldGroup], Rule, bool]]:
    """Every rule with the group that it is of, and whether documents with it layer."""
    for spec, layers in {kind.spec: kind.layers for kind in KINDS}.items():
        models = [spec, *(fact.group for fact in walk(spec) if fact.group is not None)]
        yield from ((model, rule, layers) for model in models for rule in model.RULES)


@pytest.mark.parametrize(("model", "rule", "layers"), [
    pytest.param(model, rule, layers, id=f"{model.__name__}-{rule.fields[0]}-{number}")
    for number, (model, rule, layers) in enumerate(ruled())
])  # fmt: skip
def test_a_rule_means_the_same_in_cel_and_in_python(model: type[FieldGroup], rule: Rule, layers: bool) -> None:
    seen: set[bool] = set()

    @settings(max_examples=100, deadline=None)
    @given(values_of_rule(model, rule))
    def agrees(value: dict[str, Any]) -> None:
        try:
            model.model_validate(value, context={DOCUMENT: layers})
            ours = True
        except ValidationError as error:
            reasons = [item["msg"] for item in error.errors() if item["type"] == "rule" and len(item["loc"]) == 1]
            assume(len(reasons) == error.error_count())  # what is wrong on its own isn't compared
            ours = rule.reason not in reasons
        seen.add(ours)
        assert holds(rule.cel, value) is ours

    agrees()
    assert seen == {True, False}, "the values never broke the rule, or always did"


def values_of_rule(model: type[FieldGroup], rule: Rule) -> st.SearchStrategy[dict[str, Any]]:
    """Groups with the fields that a rule compares, near each other, and sometimes without."""
    near = st.integers(0, 4)
    shapes: dict[str, st.SearchStrategy[dict[str, Any]]] = {
        "Slice": _pair("minimum", "first", durations(1, 3_600)),
        "Session": _pair("minTimer", "timers", durations(90, 86_400)) | _pair("minTimer", "timers", st.just("0s")),
        "PaymentLimits": _pair("minAmount", "maxAmount", amounts() | st.none()),
        "PolicySpec": st.fixed_dictionaries(
            {},
            optional={
                "profile": st.sampled_from(["Default", "Hardened", "StressTest"]),
                "stressTest": st.fixed_dictionaries(
                    {}, optional={"startsAt": st.none() | st.just("2026-12-24T20:00:00Z"), "duration": st.just("1h")}
                ),
            },
        ),
        "TrunkSpec": st.fixed_dictionaries(
            {"address": st.just("192.0.2.1:5060")},
            optional={
                "onlyLocal": st.booleans(),
                "direction": st.sampled_from(["carrier", "traffic-sender"]),
            },
        ),
        "BanSpec": st.builds(
            lambda more: {"address": "192.0.2.1"} | more,
            st.fixed_dictionaries(
                {},
                optional={
                    "duration": st.none() | durations(1, 90_000),
                    "until": st.none() | st.just("2026-12-24T20:00:00Z"),
                },
            ),
        ),
        "RealmBindingSpec": st.builds(
            lambda items: {"namespaces": ["a"], "realms": ["a"]} | {camel(rule.fields[0]): items},
            st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3),
        ),
        "VelocityRule": st.fixed_dictionaries(
            {"name": st.just("a")},
            optional={level: _some(_LEVELS, rule, near.map(lambda one: one + 1)) for level in ("warning", "critical")},
        ),
        "Fraud": st.fixed_dictionaries(
            {},
            optional={
                "velocity": st.lists(st.fixed_dictionaries({"name": st.sampled_from("abc")}), max_size=4),
                "blockPremium": st.booleans(),
            },
        ),
        "System": st.builds(
            lambda system, each: system | {"perRealm": each}, _some(_CEILINGS, rule, near), _some(_CEILINGS, rule, near)
        ),
    }
    return shapes[model.__name__]


def _pair(low: str, high: str, one: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={low: one, high: one})


_LEVELS = ("perSecond", "perMinute", "total", "atOnce", "inSequence")
_CEILINGS = ("maxCalls", "maxAccounts", "maxCallsPerSecond")


def _some(names: tuple[str, ...], rule: Rule, number: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    """Of these fields those that the rule's CEL names, or none, or null."""
    named = [name for name in names if f".{name})" in rule.cel]
    return st.fixed_dictionaries(dict.fromkeys(named, number)) | st.fixed_dictionaries(
        {}, optional={name: st.none() | number for name in named}
    )


def durations(least: int, most: int) -> st.SearchStrategy[Any]:
    near = st.integers(least, least + 3) | st.integers(least, most)
    return near | near.map(format_duration) | near.map(lambda seconds: f"{seconds}s")


def amounts() -> st.SearchStrategy[Any]:
    return st.integers(0, 3) | st.decimals(0, 3, places=2, allow_nan=False, allow_infinity=False).map(str)


# ------------------------------------------------------------------ the shape of the definitions


def nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


@each(KINDS)
def test_a_definition_is_structural_bounded_and_described(kind: Kind) -> None:
    (version,) = crd.definition(kind)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    for path, node in nodes(schema):
        assert node.keys().isdisjoint({"$ref", "anyOf", "allOf", "oneOf", "not", "title", "const"}), path
        assert ("type" in node) is not node.get("x-kubernetes-int-or-string", False), path
        assert "description" in node or path.endswith("[]") or path == ".metadata", path
        if node.get("type") == "array":
            assert node["maxItems"], path
        if node.get("type") == "string" and "enum" not in node and path not in (".apiVersion", ".kind"):
            assert "maxLength" in node or node.get("format") == "date-time", path


@each([kind for kind in KINDS if kind.layers])
def test_a_policy_has_no_defaults_that_would_override_the_policies_below(kind: Kind) -> None:
    assert [path for path, node in nodes(SCHEMAS[kind.kind]) if "default" in node] == []
    described = SCHEMAS[kind.kind]["properties"]["lines"]["properties"]["max"]["description"]
    assert described.endswith("Default: 5.")


def test_a_field_that_no_service_enforces_says_so_to_kubectl_explain() -> None:
    for fact in leaf_facts():
        said = "Not enforced yet" in schema_at(SCHEMAS["SecurityPolicy"], fact.path)["description"]
        assert said is not fact.enforced, fact.path


def test_a_cluster_policy_is_a_policy_without_a_realm() -> None:
    ours, theirs = (SCHEMAS[name]["properties"] for name in ("SecurityPolicy", "ClusterSecurityPolicy"))
    assert ours.keys() - theirs.keys() == {"realm"}
    assert BY_NAME["ClusterSecurityPolicy"].namespaced is False


@each(KINDS)
def test_every_rule_is_cel_and_names_an_existing_field(kind: Kind) -> None:
    (version,) = crd.definition(kind)["spec"]["versions"]
    for path, node in nodes(version["schema"]["openAPIV3Schema"]):
        for rule in node.get("x-kubernetes-validations", []):
            CEL.compile(rule["rule"])
            assert len(rule["message"]) < 2_048
            if "fieldPath" in rule:
                assert rule["fieldPath"].removeprefix(".") in node["properties"], (path, rule)


@each(KINDS)
def test_names_are_those_that_documentation_uses(kind: Kind) -> None:
    names = crd.definition(kind)["spec"]["names"]
    assert names["categories"] == ["callwarden"]
    assert names["shortNames"][0].startswith("cw")


def test_lists_of_groups_are_walked() -> None:
    assert group_of(dict[str, int]) is None
    assert "fraud.velocity[].warning.total" in {fact.path for fact in walk(PolicySpec)}
