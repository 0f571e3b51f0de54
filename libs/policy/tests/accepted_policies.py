"""Policies that nobody would write and that are taken all the same, for tests of what services make of them."""

from collections.abc import Sequence
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from structural_schemas import objects

from callwarden.policy import crd
from callwarden.policy.bundle import BadPolicy, Document, PolicySet

_SCHEMA = crd.spec_schema(next(kind for kind in crd.KINDS if kind.kind == "SecurityPolicy"))
_SPECS = objects(_SCHEMA, sorted(_SCHEMA["properties"]), most=len(_SCHEMA["properties"]))
_REPAIRS_MAX = 8


def _without(value: Any, path: Sequence[str]) -> None:
    """Takes away what stands at the path, or the last thing on the way to it."""
    step: Any = int(path[0]) if isinstance(value, list) and path[0].isdigit() else path[0]
    below = value[step] if isinstance(value, list) else value.get(step)
    if len(path) > 1 and isinstance(below, dict | list):
        _without(below, path[1:])
    elif isinstance(value, dict):
        value.pop(step, None)
    else:
        del value[step]


def _taken(name: str, spec: dict[str, Any]) -> Document | None:
    """The document, without the fields that are refused."""
    body = {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": name}, "spec": spec}
    for _ in range(_REPAIRS_MAX):
        try:
            document = Document.from_object(body)
            PolicySet.build(1, [document])
        except BadPolicy as error:
            try:
                _without(spec, error.problems[0].field.removeprefix("spec.").split("."))
            except (LookupError, TypeError):
                return None
        else:
            return document
    return None


@st.composite
def policy_sets(draw: st.DrawFn, *, realms: Sequence[str] = (), revision: int = 2) -> PolicySet:
    """A bundle of up to three documents, each for one of these realms or for all."""
    documents: list[Document] = []
    for number in range(draw(st.integers(1, 3))):
        spec = draw(_SPECS)
        spec["realm"] = draw(st.sampled_from(["", *realms]))
        document = _taken(f"p{number}", spec)
        if document is not None:
            documents.append(document)
    while True:
        assume(documents)
        try:
            return PolicySet.build(revision, documents)
        except BadPolicy:
            documents.pop()  # Each is right by itself, all together are not.
