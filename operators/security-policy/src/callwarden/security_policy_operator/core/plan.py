"""Which policies hold: all resources of a cluster and what holds now in, the documents of the bundle and a verdict on
each resource out.

In: what a schema can't check, conflicts, the last good version of a policy that became bad. Out: reading resources,
writing the bundle, status (`status`). A policy that is wrong never takes another one down with it: that one is refused
with field and reason, its last good version stays in force, and all others hold.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from callwarden.policy.bundle import DOCUMENTS_MAX, BadPolicy, Document, Key, PolicySet
from callwarden.policy.fields import leaves
from callwarden.policy.model import CLUSTER_KIND

# The pair under which two policies may not say the same field; that isn't said of them, but where they lie.
_PLACE: Final = frozenset({"realm", "priority"})
BUNDLE_BYTES_MAX: Final = 700_000
"""A bundle is one value of a bucket that takes 768 KiB (callwarden.common.bus.streams)."""

_Objection = tuple[str, str]


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
    def finalizers(self) -> list[str]:
        return [str(name) for name in self.metadata.get("finalizers") or ()]

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
    """What is to hold, by what is there and what held until now. Resources that are being deleted have no part.

    First each on its own, the older ones first; then all of them together: the forms that held as long as nothing
    speaks against it, and in their place the present ones as far as they fit.
    """
    present = sorted((source for source in sources if not source.is_leaving), key=lambda source: source.age)
    before = {document.key: document for document in held.documents}
    claims = _Claims()
    refused: dict[Key, _Objection] = {}
    for source in present:
        read = _read(source)
        if isinstance(read, BadPolicy):
            refused[source.key] = "Invalid", "; ".join(map(str, read.problems))
        elif objection := claims.claim(read):
            refused[source.key] = objection
    for key in refused:
        if key in before:
            claims.claim(before[key])
    wanted = dict(claims.documents)
    chosen: dict[Key, Document] = {}
    waiting = _take(chosen, [before[key] for key in wanted if key in before and claims.allow(before[key])])
    waiting += _take(chosen, [document for key, document in wanted.items() if before.get(key) != document])
    while waiting:  # one may need another that came after it
        asked = [one for one in waiting if one.key not in chosen or one == wanted[one.key] != chosen[one.key]]
        waiting = _take(chosen, asked)
        if len(waiting) == len(asked):
            break
    for key, document in wanted.items():
        if chosen.get(key) != document:
            refused.setdefault(key, ("Invalid", _problem({**chosen, key: document}) or ""))
    verdicts = {source.key: _verdict(chosen.get(source.key), refused.get(source.key)) for source in present}
    return Plan(tuple(chosen.values()), verdicts)


class _Claims:
    """Policies that may hold as far as two of them can contradict each other, and as far as there is room."""

    def __init__(self) -> None:
        self.documents: dict[Key, Document] = {}
        self._said: dict[tuple[bool, str, int, str], dict[Key, Any]] = {}
        self._bytes = 0

    def claim(self, document: Document) -> _Objection | None:
        """Takes it in, or says why not: reason and words."""
        size = _size(document)
        if len(self.documents) >= DOCUMENTS_MAX or self._bytes + size > BUNDLE_BYTES_MAX:
            return "TooMany", f"There is room for {DOCUMENTS_MAX:,} policies and {BUNDLE_BYTES_MAX:,} bytes of them."
        said = _said(document)
        for where, value in said.items():
            for key, other in self._said.get(where, {}).items():
                if other != value:
                    return "Conflict", (
                        f"spec.{where[-1]} is set by {_called(key)} to another value, with the same realm and "
                        "priority: give one of them another priority."
                    )
        for where, value in said.items():
            self._said.setdefault(where, {})[document.key] = value
        self.documents[document.key] = document
        self._bytes += size
        return None

    def allow(self, last: Document) -> bool:
        """Whether this form of one that is in would contradict nothing, either."""
        document = self.documents[last.key]
        self._leave(document)
        is_free = self.claim(last) is None
        if is_free:
            self._leave(last)
        self.claim(document)
        return is_free

    def _leave(self, document: Document) -> None:
        del self.documents[document.key]
        self._bytes -= _size(document)
        for where in _said(document):
            del self._said[where][document.key]


def _take(chosen: dict[Key, Document], block: list[Document]) -> list[Document]:
    """Adds those that fit to the chosen ones, in the place of other forms; returns the others.

    By halves: nearly always all fit together, and one look at the whole of 200 takes 12 ms.
    """
    together = {**chosen, **{document.key: document for document in block}}
    if not block or _problem(together) is None:
        chosen.update(together)
        return []
    if len(block) == 1:
        return block
    half = len(block) // 2
    return [*_take(chosen, block[:half]), *_take(chosen, block[half:])]


def _verdict(stands: Document | None, refused: _Objection | None) -> Verdict:
    if refused is not None:
        reason, message = refused
        stays = " Its last good version stays in force." if stands is not None else ""
        return Verdict(False, reason, message + stays, stands)
    assert stands is not None
    warnings = tuple(map(str, stands.warnings))
    text = "The policy is right." if not warnings else f"The policy is right, with {len(warnings)} warnings."
    return Verdict(True, "Valid", text, stands, warnings)


def _read(source: Source) -> Document | BadPolicy:
    body = {name: value for name, value in source.body.items() if name != "status"}
    try:
        return Document.from_object(body)
    except BadPolicy as error:
        return error


def _problem(documents: Mapping[Key, Document]) -> str | None:
    """What is wrong when these are laid over each other."""
    try:
        PolicySet.build(0, documents.values())
    except BadPolicy as error:
        return "; ".join(map(str, error.problems))
    return None


def _said(document: Document) -> dict[tuple[bool, str, int, str], Any]:
    """What it says where: by place and field."""
    place = document.is_cluster, document.realm, document.priority
    return {(*place, field): value for field, value in leaves(document.spec) if field not in _PLACE}


def _size(document: Document) -> int:
    return len(document.to_json().encode())


def _called(key: Key) -> str:
    return f"{key.kind} {key.namespace}/{key.name}" if key.namespace else f"{key.kind} {key.name}"


def _content(documents: Iterable[Document]) -> list[str]:
    return sorted(document.to_json() for document in documents)


def unknown(held: PolicySet, present: Container[Key]) -> list[str]:
    """Policies in the bundle that no resource stands for: applied past the cluster, or deleted by force."""
    return [_called(document.key) for document in held.documents if document.key not in present]
