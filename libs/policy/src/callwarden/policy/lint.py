"""All problems and warnings of a text with resources, without a running system."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from callwarden.policy.bundle import BadPolicy, Document, PolicySet, load_yaml, name_of
from callwarden.policy.resources import SPECS, Resource, parse_resource


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, for which the resource is refused, or one warning."""

    severity: Literal["problem", "warning"]
    resource: str
    """Its name; empty where it has none, or the finding is about the whole file."""
    field: str
    reason: str


def lint(text: str) -> tuple[list[Document | Resource], list[Finding]]:
    """The resources of a YAML text that are valid on their own, and the findings about all of them."""
    right: list[Document | Resource] = []
    findings: list[Finding] = []
    try:
        values = load_yaml(text)
    except BadPolicy as error:
        return [], _problems("", error)
    for value in values:
        is_policy = not (isinstance(value, dict) and value.get("kind") in SPECS)
        try:
            resource = Document.from_object(value) if is_policy else parse_resource(value)
        except BadPolicy as error:
            findings += _problems(name_of(value), error)
            continue
        right.append(resource)
        if isinstance(resource, Document):
            findings += [Finding("warning", resource.name, one.field, one.reason) for one in resource.warnings]
    return right, findings


def lint_together(documents: Iterable[Document]) -> list[Finding]:
    """Findings about policies that are laid over each other, beyond those about each."""
    documents = list(documents)
    found = [
        Finding("problem", document.name, "metadata.name", f"there is another {document.kind} with this name")
        for number, document in enumerate(documents)
        if document.key in {other.key for other in documents[:number]}
    ]
    try:
        policies = PolicySet.build(1, {document.key: document for document in documents}.values())
    except BadPolicy as error:
        return found + _problems(error.name, error)
    said = {warning for document in documents for warning in document.warnings}
    return found + [
        Finding("warning", "", warning.field, warning.reason) for warning in policies.warnings if warning not in said
    ]


def _problems(name: str, error: BadPolicy) -> list[Finding]:
    return [Finding("problem", name, problem.field, problem.reason) for problem in error.problems]
