"""What one set of policies changes against another: effective values, realm by realm."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from callwarden.policy.bundle import PolicySet
from callwarden.policy.fields import leaves


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of one realm, before and after, as they are written."""

    realm: str
    """Empty: all realms that no policy names."""
    path: str
    before: Any
    after: Any


def changes(before: PolicySet, after: PolicySet) -> list[Change]:
    """By realm, in the order of the model."""
    return [
        Change(realm, path, old, new)
        for realm in sorted({*before.realms, *after.realms})
        for path, old, new in _differing(_dumped(before, realm), _dumped(after, realm))
        if path not in _ITSELF
    ]


_ITSELF = frozenset({"realm", "priority"})  # They say which policy it is, and set nothing.


def _dumped(policies: PolicySet, realm: str) -> dict[str, Any]:
    return policies.for_realm(realm).model_dump(mode="json", by_alias=True)


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    theirs = dict(leaves(new))
    for path, value in leaves(old):
        if theirs[path] != value:
            yield path, value, theirs[path]
