"""Trunk and RateDeck resources: what each asks for, and which of two with the same name counts.

A name belongs to the system and not to a namespace. In: what a schema can't check. Out: what becomes of them
(`trunks`, `decks`).
"""

from collections.abc import Iterable

from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal, Spec, spec_of


def decide(resources: Iterable[ManagedResource], kind: type[Spec]) -> list[tuple[ManagedResource, Spec | Refusal]]:
    """What each resource of one kind that isn't being deleted asks for, or why it gets nothing; older ones first."""
    found: list[tuple[ManagedResource, Spec | Refusal]] = []
    taken: dict[str, ManagedResource] = {}
    for resource in sorted((one for one in resources if not one.is_deleted), key=lambda one: one.age):
        key = resource.key
        # An invalid one keeps its name, too: it may be a good one's bad edit.
        if (other := taken.setdefault(key.name, resource)) is not resource:
            message = f"metadata.name is taken by the older {key.kind} {other.key.namespace}/{key.name}."
            found.append((resource, Refusal("Conflict", message)))
        else:
            found.append((resource, spec_of(resource, kind)))
    return found
