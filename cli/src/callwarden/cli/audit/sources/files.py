"""YAML files: policies, and whatever else Kubernetes would be given with them, such as a rendered chart."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from callwarden.cli.audit.finding import AuditPlace
from callwarden.cli.audit.local import trunk_of
from callwarden.cli.audit.objects import Object, Objects
from callwarden.cli.audit.report import Evidence
from callwarden.policy import yaml_text
from callwarden.policy.bundle import BadPolicy, Document, Key, PolicySet
from callwarden.policy.model import API_VERSION, CLUSTER_KIND, KIND

FILE_BYTES_MAX: Final = 16_000_000  # A rendered chart with its dashboards has one or two.
OBJECTS_MAX: Final = 10_000


class NotAuditable(Exception):
    """A file can't be audited; the message says why."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A decoded document with the node that it was decoded from, which knows lines."""

    body: Mapping[str, Any]
    node: yaml.Node
    file: str


def evidence(texts: Iterable[tuple[str, str]]) -> Evidence:
    """Of files, each with its name and text. Raises NotAuditable."""
    placed = [one for file, text in texts for one in _documents(file, text)]
    if len(placed) > OBJECTS_MAX:
        raise NotAuditable(f"more than {OBJECTS_MAX:,} objects")
    documents: dict[Key, tuple[Document, _Placed]] = {}
    objects, trunks = [], []
    for one in placed:
        where = Object(one.body, one.file, one.node.start_mark.line + 1)
        if one.body.get("apiVersion") == API_VERSION and where.kind in (KIND, CLUSTER_KIND):
            try:
                document = Document.from_object(dict(one.body))
            except BadPolicy as error:
                raise NotAuditable(f"{one.file}: {error.message}") from error
            # As `kubectl apply` does: a later one takes the place of an earlier one.
            documents[document.key] = (document, one)
        elif where.kind == "Trunk" and (trunk := trunk_of(one.body, where.place)) is not None:
            trunks.append(trunk)
        objects.append(where)
    if not objects:
        raise NotAuditable("there is no Kubernetes object and no policy to audit")
    try:
        policies = PolicySet.build(1, [document for document, _ in documents.values()]) if documents else None
    except BadPolicy as error:
        raise NotAuditable(error.message) from error

    def locate(document: Document, path: str) -> AuditPlace:
        return _place(document, documents[document.key][1], path)

    files = tuple(dict.fromkeys(one.file for one in placed))
    return Evidence(", ".join(files), policies, locate, objects=Objects(objects), trunks=tuple(trunks))


def _documents(file: str, text: str) -> Iterator[_Placed]:
    if len(text) > FILE_BYTES_MAX:
        raise NotAuditable(f"{file}: is larger than {FILE_BYTES_MAX:,} bytes")
    try:
        placed = list(yaml_text.documents(text))
    except yaml_text.NotYaml as error:
        raise NotAuditable(f"{file}{f':{error.line}' if error.line else ''}: {error.reason}") from error
    for node, body in placed:
        if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
            raise NotAuditable(f"{file}:{node.start_mark.line + 1}: is no Kubernetes object")
        if body["kind"] == "List" and isinstance(body.get("items"), list):
            items = _below(node, "items")
            below = items.value if isinstance(items, yaml.SequenceNode) else []
            for item, item_node in zip(body["items"], below, strict=True):
                if isinstance(item, dict):
                    yield _Placed(item, item_node, file)
        else:
            yield _Placed(body, node, file)


def _below(node: yaml.Node, key: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return value  # type: ignore[no-any-return]
    return None


def _place(document: Document, placed: _Placed, path: str) -> AuditPlace:
    """The line of the field, or of the innermost group of it that is written."""
    node, line = placed.node, placed.node.start_mark.line
    for key in ("spec", *path.split(".")):
        below = _below(node, key)
        if below is None:
            break
        line = next(name.start_mark.line for name, value in node.value if value is below)
        node = below
    return AuditPlace(f"{document.kind} {document.name}", placed.file, line + 1)
