"""Trunk and RateDeck resources: what each asks for, and which of two with the same name counts.

A name belongs to the system and not to a namespace: the resource that has it keeps it, and of two that don't the older
one gets it. One that isn't allowed has no name. In: what a schema can't check. Out: what becomes of them (`trunks`,
`decks`).
"""

from collections.abc import Callable, Iterable

from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal, Spec, spec_of


def decide(
    resources: Iterable[ManagedResource],
    kind: type[Spec],
    has: Callable[[ManagedResource], bool],
    deny: Callable[[ManagedResource, Spec | Refusal], Refusal | None],
) -> list[tuple[ManagedResource, Spec | Refusal]]:
    """What each resource of one kind that isn't being deleted asks for, or why it gets nothing; first those that have
    what they declare (`has`), then older ones. `deny`: why one isn't allowed what it asks for."""
    found: list[tuple[ManagedResource, Spec | Refusal]] = []
    taken: dict[str, ManagedResource] = {}
    present = (one for one in resources if not one.is_deleted)
    for resource in sorted(present, key=lambda one: (not has(one), one.age)):
        key, spec = resource.key, spec_of(resource, kind)
        if (denied := deny(resource, spec)) is not None:
            found.append((resource, denied))
            continue
        # An invalid one keeps its name, too: it may be a good one's bad edit.
        if (other := taken.setdefault(key.name, resource)) is not resource:
            message = f"metadata.name is taken by {key.kind} {other.key.namespace}/{key.name}."
            found.append((resource, Refusal("Conflict", message)))
        else:
            found.append((resource, spec))
    return found
