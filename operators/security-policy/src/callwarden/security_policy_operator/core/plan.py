"""Which policies are in force: all resources of a cluster and the bundle so far in, the documents of the next bundle
and a verdict on each resource out.

In: what a schema can't check, conflicts, realms that a namespace may not act on, the last good version of a policy that
became invalid. Out: reading resources,
writing the bundle, status (`status`). An invalid policy never takes another one down with it: it is refused with field
and reason, its last good version stays in force, and all others apply.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from callwarden.policy.bundle import DOCUMENTS_MAX, BadPolicy, Document, Key, PolicySet
from callwarden.policy.fields import leaves
from callwarden.security_policy_operator.core.realms import NOT_ALLOWED, RealmGrants
from callwarden.security_policy_operator.core.resource import ManagedResource

# Two policies with the same pair must not set the same field. The pair itself is a place, not a setting.
_PLACE: Final = frozenset({"realm", "priority"})
BUNDLE_BYTES_MAX: Final = 700_000
"""A bundle is one value of a bucket that takes 768 KiB (callwarden.common.bus.streams)."""

_Objection = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """What becomes of one resource."""

    accepted: bool
    reason: str
    message: str
    document: Document | None
    """What of it is in force: its present form, or where that was refused its last good one; None: nothing."""
    warnings: tuple[str, ...] = ()
    denied: str = ""
    """Why a valid policy may not act on its realm; empty: it may."""

    @property
    def is_carried_out(self) -> bool:
        """Whether its present form is in force."""
        return self.accepted and not self.denied


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """What is to be in force."""

    documents: tuple[Document, ...]
    verdicts: Mapping[Key, PolicyVerdict]

    def differs(self, applied: PolicySet) -> bool:
        """Whether the bundle has to be written again."""
        return _content(self.documents) != _content(applied.documents)


def plan(resources: Iterable[ManagedResource], applied: PolicySet, grants: RealmGrants) -> PolicyPlan:
    """What is to be in force, given the resources, the bundle so far and who may act on what. Resources that are being
    deleted don't count, and what is no longer allowed is not in force, not even as a last good version.

    Each is judged on its own first, the older ones first; then all of them together: the forms that were in force as
    long as nothing contradicts them, and the present ones in their place as far as they fit.
    """
    present = sorted((resource for resource in resources if not resource.is_deleted), key=lambda resource: resource.age)
    before = {document.key: document for document in applied.documents if grants.deny_policy(document) is None}
    claims = _Claims()
    refused: dict[Key, _Objection] = {}
    for resource in present:
        read = _read(resource)
        if isinstance(read, BadPolicy):
            refused[resource.key] = "Invalid", "; ".join(map(str, read.problems))
        elif denied := grants.deny_policy(read):
            refused[resource.key] = denied.reason, denied.message
        elif objection := claims.claim(read):
            refused[resource.key] = objection
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
    verdicts = {resource.key: _verdict(chosen.get(resource.key), refused.get(resource.key)) for resource in present}
    return PolicyPlan(tuple(chosen.values()), verdicts)


class _Claims:
    """Policies that may be in force as far as two of them can contradict each other, and as far as there is room."""

    def __init__(self) -> None:
        self.documents: dict[Key, Document] = {}
        self._settings: dict[tuple[bool, str, int, str], dict[Key, Any]] = {}
        self._bytes = 0

    def claim(self, document: Document) -> _Objection | None:
        """Takes it in, or returns why not: reason and message."""
        size = _size(document)
        if len(self.documents) >= DOCUMENTS_MAX or self._bytes + size > BUNDLE_BYTES_MAX:
            return "TooMany", f"There is room for {DOCUMENTS_MAX:,} policies and {BUNDLE_BYTES_MAX:,} bytes of them."
        settings = _settings(document)
        for where, value in settings.items():
            for key, other in self._settings.get(where, {}).items():
                if other != value:
                    return "Conflict", (
                        f"{_called(key)} sets spec.{where[-1]} to another value, with the same realm and priority: "
                        "give one of them another priority."
                    )
        for where, value in settings.items():
            self._settings.setdefault(where, {})[document.key] = value
        self.documents[document.key] = document
        self._bytes += size
        return None

    def allow(self, last: Document) -> bool:
        """Whether this form of a policy that was taken in would contradict nothing, either."""
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
        for where in _settings(document):
            del self._settings[where][document.key]


def _take(chosen: dict[Key, Document], block: list[Document]) -> list[Document]:
    """Adds those that fit to the chosen ones, in the place of other forms; returns the others.

    By halves: nearly always all of them fit, and checking 200 together takes 5 ms.
    """
    together = {**chosen, **{document.key: document for document in block}}
    if not block or _problem(together) is None:
        chosen.update(together)
        return []
    if len(block) == 1:
        return block
    half = len(block) // 2
    return [*_take(chosen, block[:half]), *_take(chosen, block[half:])]


def _verdict(applied: Document | None, refused: _Objection | None) -> PolicyVerdict:
    if refused is not None:
        reason, message = refused
        if reason == NOT_ALLOWED:
            return PolicyVerdict(True, "Valid", "The policy is valid.", applied, denied=message)
        stays = " Its last good version stays in force." if applied is not None else ""
        return PolicyVerdict(False, reason, message + stays, applied)
    assert applied is not None
    warnings = tuple(map(str, applied.warnings))
    count = f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}"
    text = f"The policy is valid, with {count}." if warnings else "The policy is valid."
    return PolicyVerdict(True, "Valid", text, applied, warnings)


def _read(resource: ManagedResource) -> Document | BadPolicy:
    body = {name: value for name, value in resource.body.items() if name != "status"}
    try:
        return Document.from_object(body)
    except BadPolicy as error:
        return error


def _problem(documents: Mapping[Key, Document]) -> str | None:
    """What is invalid when these are laid over each other."""
    try:
        PolicySet.build(0, documents.values())
    except BadPolicy as error:
        return "; ".join(map(str, error.problems))
    return None


def _settings(document: Document) -> dict[tuple[bool, str, int, str], Any]:
    """What it sets, by place and field."""
    place = document.is_cluster, document.realm, document.priority
    return {(*place, field): value for field, value in leaves(document.spec) if field not in _PLACE}


def _size(document: Document) -> int:
    return len(document.to_json().encode())


def _called(key: Key) -> str:
    return f"{key.kind} {key.namespace}/{key.name}" if key.namespace else f"{key.kind} {key.name}"


def _content(documents: Iterable[Document]) -> list[str]:
    return sorted(document.to_json() for document in documents)


def unknown(applied: PolicySet, present: Container[Key]) -> list[str]:
    """Policies in the bundle without a resource: applied past the cluster, or deleted by force."""
    return [_called(document.key) for document in applied.documents if document.key not in present]
