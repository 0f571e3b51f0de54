"""Kubernetes' structural schemas for tests: as JSON Schema, and as strategies for what they allow."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

Schema = Mapping[str, Any]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 100_001),
    st.integers(),
    st.floats(),
    st.sampled_from(["-1", "5", "1d", "90s", "auto", "12.50", "1.0000001", "true", "", " 5", "Off"]),
    st.text(max_size=12),
    st.lists(st.integers() | st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def as_json_schema(schema: Schema) -> dict[str, Any]:
    """The same in JSON Schema, draft 4, with what the API server does beyond it: it refuses unknown fields (as kubectl
    asks it to), takes null where `nullable` says so, and integers and strings where x-kubernetes-int-or-string does."""
    kept = (
        "type",
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "pattern",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
    )
    found = {key: schema[key] for key in kept if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    if "items" in schema:
        found["items"] = as_json_schema(schema["items"])
    if "properties" in schema:
        found["properties"] = {name: as_json_schema(below) for name, below in schema["properties"].items()}
        found["additionalProperties"] = False
        found["required"] = list(schema.get("required", []))
        if not found["required"]:
            del found["required"]
    return {"anyOf": [{"type": "null"}, found]} if schema.get("nullable") else found


def values(schema: Schema, junk: bool = False) -> st.SearchStrategy[Any]:
    """What a schema allows; with `junk`, also what it may not."""
    found = _values(schema, junk)
    if schema.get("nullable"):
        found = st.none() | found
    return found if not junk or schema.get("type") == "object" else found | JUNK


def _values(schema: Schema, junk: bool) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return _integers(schema) | _texts(schema)
    return _BY_TYPE[schema["type"]](schema, junk)


def objects(schema: Schema, names: list[str], junk: bool = False, most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these of its properties, and all that are required."""
    properties = schema["properties"]
    required = set(schema.get("required", []))

    def filled(chosen: list[str]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({name: values(properties[name], junk) for name in {*chosen, *required}})

    return st.lists(st.sampled_from(names), unique=True, max_size=most).flatmap(filled)


def _integers(schema: Schema) -> st.SearchStrategy[int]:
    least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
    return st.integers(least, most) | st.integers(least, min(most, least + 20))


def _texts(schema: Schema) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 20)
    if "pattern" in schema:
        return st.from_regex(str(schema["pattern"])).filter(lambda text: least <= len(text) <= most)
    return st.text(min_size=least, max_size=min(most, 20))


_BY_TYPE: dict[str, Callable[[Schema, bool], st.SearchStrategy[Any]]] = {
    "object": lambda schema, junk: objects(schema, sorted(schema["properties"]), junk),
    "array": lambda schema, junk: st.lists(
        values(schema["items"], junk), min_size=0 if junk else schema.get("minItems", 0), max_size=3
    ),
    "integer": lambda schema, _: _integers(schema),
    "number": lambda schema, _: st.floats(
        schema["minimum"], schema["maximum"], exclude_min=schema.get("exclusiveMinimum", False)
    ),
    "boolean": lambda _, __: st.booleans(),
    "string": lambda schema, _: _texts(schema),
}
