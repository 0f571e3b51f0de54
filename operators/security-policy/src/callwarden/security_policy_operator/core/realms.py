"""Which realms the resources in a namespace may act on: RealmBinding resources in, refusals out.

In: who may act on what. Out: what is withdrawn where a right ends (`plan`, `app`). The release's own namespace may act
on everything, since who may write there may read its Secrets. A ClusterSecurityPolicy has no namespace: RBAC decides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from callwarden.policy.bundle import Document
from callwarden.policy.resources import ANY, RealmBindingSpec, TrunkSpec
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal, spec_of

KIND: Final = "RealmBinding"
NOT_ALLOWED: Final = "RealmNotAllowed"
_SHOWN_MAX: Final = 10  # names in a message
_EVERYTHING: Final = frozenset({ANY})


@dataclass(frozen=True, slots=True)
class RealmGrants:
    """What each namespace may act on."""

    realms: Mapping[str, frozenset[str]]
    """By namespace, in lower case: realms are domains (RFC 4343). ANY stands for every namespace, and every realm."""
    decks: Mapping[str, frozenset[str]]
    invalid: tuple[str, ...] = ()
    """Names of bindings that grant nothing, since they can't be read."""

    @classmethod
    def of(cls, home: str, bindings: Iterable[Mapping[str, Any]]) -> "RealmGrants":
        """`home`: the release's namespace. A binding that is being deleted grants nothing more."""
        realms: dict[str, frozenset[str]] = {home: _EVERYTHING}
        decks: dict[str, frozenset[str]] = {}
        invalid = []
        for body in bindings:
            binding = ManagedResource.of(KIND, body)
            if binding.is_deleted:
                continue
            spec = spec_of(binding, RealmBindingSpec)
            if isinstance(spec, Refusal):
                invalid.append(binding.key.name)
                continue
            for namespace in spec.namespaces:
                realms[namespace] = realms.get(namespace, frozenset()) | {realm.lower() for realm in spec.realms}
                decks[namespace] = decks.get(namespace, frozenset()) | set(spec.rate_decks)
        return cls(realms, decks, tuple(invalid))

    def deny_realm(self, namespace: str, realm: str, what: str) -> Refusal | None:
        """Why something in a namespace may not act on a realm; "": on all of them. `what` begins the message."""
        allowed = self._realms_of(namespace)
        if ANY in allowed or (realm and realm.lower() in allowed):
            return None
        return Refusal(NOT_ALLOWED, f"{what}, and namespace {namespace} may act on {_shown(allowed)}.", accepted=True)

    def deny_policy(self, document: Document) -> Refusal | None:
        if document.is_cluster:
            return None
        what = f"spec.realm is {document.realm}" if document.realm else "A policy without spec.realm acts on all realms"
        return self.deny_realm(document.namespace, document.realm, what)

    def deny_ban(self, ban: ManagedResource) -> Refusal | None:
        return self.deny_realm(ban.key.namespace, "", "A Ban acts on all realms")

    def deny_trunk(self, trunk: ManagedResource, spec: TrunkSpec | Refusal) -> Refusal | None:
        """An invalid one is denied where its namespace may act on nothing."""
        namespace = trunk.key.namespace
        if isinstance(spec, Refusal):
            return None if self._realms_of(namespace) else self.deny_realm(namespace, "", "A Trunk acts on a realm")
        if not spec.account:
            return self.deny_realm(namespace, spec.realm, f"spec.realm is {spec.realm or 'empty'}")
        realm = spec.account.partition("@")[2]
        what = f"spec.account is of realm {realm}" if realm else "spec.account is written without its realm"
        return self.deny_realm(namespace, realm, what)

    def deny_deck(self, deck: ManagedResource) -> Refusal | None:
        """An account of any realm may have any price list, so their names are granted."""
        namespace, name = deck.key.namespace, deck.key.name
        decks = self.decks.get(namespace, frozenset()) | self.decks.get(ANY, frozenset())
        if ANY in self._realms_of(namespace) or not decks.isdisjoint({ANY, name}):
            return None
        text = f"Accounts of all realms may have price list {name}, and no RealmBinding lets {namespace} import it."
        return Refusal(NOT_ALLOWED, text, accepted=True)

    def _realms_of(self, namespace: str) -> frozenset[str]:
        return self.realms.get(namespace, frozenset()) | self.realms.get(ANY, frozenset())


def _shown(realms: frozenset[str]) -> str:
    if not realms:
        return "none: no RealmBinding names it"
    first = ", ".join(sorted(realms)[:_SHOWN_MAX])
    return f"{first} and {len(realms) - _SHOWN_MAX} more only" if len(realms) > _SHOWN_MAX else f"{first} only"
