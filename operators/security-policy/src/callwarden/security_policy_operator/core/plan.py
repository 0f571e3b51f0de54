"""Which policies hold: all resources of a cluster and what holds now in, the documents of the bundle and a verdict on
each resource out.

In: what a schema can't check, conflicts, the last good version of a policy that became bad. Out: reading resources,
writing the bundle, status (`status`). A policy that is wrong never takes another one down with it: that one is refused
with field and reason, its last good version stays in force, and all others hold.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from callwarden.policy.bundle import DOCUMENTS_MAX, BadPolicy, Document, Key, PolicySet
from callwarden.policy.fields import leaves
from callwarden.policy.model import CLUSTER_KIND

# The pair under which two policies may not say the same field; that isn't said of them, but where they lie.
_PLACE: Final = frozenset({"realm", "priority"})


@dataclass(frozen=True, slots=True)
class Source:
    """A resource as the cluster has it."""

    body: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        metadata = self.body.get("metadata")
        return metadata if isinstance(metadata, Mapping) else {}

    @property
    def key(self) -> Key:
        kind = str(self.body.get("kind", ""))
        namespace = "" if kind == CLUSTER_KIND else str(self.metadata.get("namespace", ""))
        return Key(kind, namespace, str(self.metadata.get("name", "")))

    @property
    def is_leaving(self) -> bool:
        """Whether somebody has deleted it, and it waits for the finalizer to be taken off."""
        return "deletionTimestamp" in self.metadata

    @property
    def age(self) -> tuple[str, Key]:
        """Older ones first; RFC 3339 in UTC with whole seconds, as the API server writes it, sorts as text."""
        return str(self.metadata.get("creationTimestamp", "")), self.key


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one resource."""

    accepted: bool
    reason: str
    message: str
    document: Document | None
    """What of it holds: its present form, or where that was refused its last good one; None: nothing."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to hold."""

    documents: tuple[Document, ...]
    verdicts: Mapping[Key, Verdict]

    def differs(self, held: PolicySet) -> bool:
        """Whether the bundle has to be written anew."""
        return _content(self.documents) != _content(held.documents)


def plan(sources: Iterable[Source], held: PolicySet) -> Plan:
    """What is to hold, by what is there and what held until now. Resources that are being deleted have no part."""
    present = sorted((source for source in sources if not source.is_leaving), key=lambda source: source.age)
    before = {document.key: document for document in held.documents}
    chosen = _Chosen()
    read: dict[Key, Document | BadPolicy] = {source.key: _read(source) for source in present}
    good = [document for document in read.values() if isinstance(document, Document)]
    # Nearly always all fit together, and one look at the whole says so; 200 looks would take seconds.
    if len(good) == len(read) <= DOCUMENTS_MAX and not _clashes(good) and _problem(good) is None:
        for document in good:
            chosen.take(document)
    else:
        for source in present:
            _choose(chosen, source.key, read[source.key], before.get(source.key))
    return Plan(tuple(chosen.documents.values()), chosen.verdicts)


class _Chosen:
    """What holds so far, the older ones first."""

    def __init__(self) -> None:
        self.documents: dict[Key, Document] = {}
        self.verdicts: dict[Key, Verdict] = {}

    def take(self, document: Document) -> None:
        self.documents[document.key] = document
        warnings = tuple(map(str, document.warnings))
        text = "The policy is right." if not warnings else f"The policy is right, with {len(warnings)} warnings."
        self.verdicts[document.key] = Verdict(True, "Valid", text, document, warnings)

    def objection(self, document: Document) -> tuple[str, str] | None:
        """Why it can't hold beside these: reason and words."""
        if len(self.documents) >= DOCUMENTS_MAX:
            return "TooMany", f"There are {DOCUMENTS_MAX} policies already."
        for other in self.documents.values():
            if field := _clash(document, other):
                return "Conflict", (
                    f"spec.{field} is set by {_called(other)} to another value, with the same realm and priority: "
                    "give one of them another priority."
                )
        problem = _problem([*self.documents.values(), document])
        return None if problem is None else ("Invalid", problem)


def _choose(chosen: _Chosen, key: Key, read: Document | BadPolicy, before: Document | None) -> None:
    if isinstance(read, Document):
        objection = chosen.objection(read)
        if objection is None:
            chosen.take(read)
            return
    else:
        objection = "Invalid", "; ".join(map(str, read.problems))
    reason, message = objection
    stays = before is not None and before != read and chosen.objection(before) is None
    if stays and before is not None:
        chosen.documents[key] = before
        message += " Its last good version stays in force."
    chosen.verdicts[key] = Verdict(False, reason, message, before if stays else None)


def _read(source: Source) -> Document | BadPolicy:
    body = {name: value for name, value in source.body.items() if name != "status"}
    try:
        return Document.from_object(body)
    except BadPolicy as error:
        return error


def _problem(documents: Sequence[Document]) -> str | None:
    """What is wrong when these are laid over each other."""
    try:
        PolicySet.build(0, documents)
    except BadPolicy as error:
        return "; ".join(map(str, error.problems))
    return None


def _clash(one: Document, other: Document) -> str | None:
    """A field that both set, to different values, in the same place; None: it's clear what holds."""
    if _place(one) != _place(other):
        return None
    theirs = dict(leaves(other.spec))
    for field, value in leaves(one.spec):
        if field not in _PLACE and field in theirs and theirs[field] != value:
            return field
    return None


def _clashes(documents: Iterable[Document]) -> bool:
    said: dict[tuple[bool, str, int, str], Any] = {}
    for document in documents:
        for field, value in leaves(document.spec):
            if field not in _PLACE and said.setdefault((*_place(document), field), value) != value:
                return True
    return False


def _place(document: Document) -> tuple[bool, str, int]:
    return document.is_cluster, document.realm, document.priority


def _called(document: Document) -> str:
    where = f"{document.namespace}/" if document.namespace else ""
    return f"{document.kind} {where}{document.name}"


def _content(documents: Iterable[Document]) -> list[str]:
    return sorted(document.to_json() for document in documents)


def unknown(held: PolicySet, present: Container[Key]) -> list[str]:
    """Policies in the bundle that no resource stands for: applied past the cluster, or deleted by force."""
    return [_called(document) for document in held.documents if document.key not in present]
