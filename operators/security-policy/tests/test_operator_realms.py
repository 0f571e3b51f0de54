"""Which realms and price lists the resources in a namespace may act on."""

from typing import Any

import pytest

from callwarden.policy.bundle import Document
from callwarden.security_policy_operator.core.realms import NOT_ALLOWED, RealmGrants
from callwarden.security_policy_operator.core.resource import ManagedResource

pytestmark = pytest.mark.cases


def binding(name: str, leaving: bool = False, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"deletionTimestamp": "2026-01-01T00:01:00Z"} if leaving else {})}
    return {"metadata": metadata, "spec": spec}


def deck(name: str, namespace: str) -> ManagedResource:
    return ManagedResource.of("RateDeck", {"metadata": {"name": name, "namespace": namespace}, "spec": {}})


def allowed(grants: RealmGrants, namespace: str, *realms: str) -> set[str]:
    return {realm for realm in realms if grants.deny_realm(namespace, realm, "It") is None}


def test_without_bindings_only_the_releases_namespace_acts_and_on_everything() -> None:
    grants = RealmGrants.of("callwarden", ())
    assert allowed(grants, "callwarden", "", "a.example") == {"", "a.example"}
    assert allowed(grants, "default", "", "a.example") == set()
    assert grants.deny_deck(deck("retail", "callwarden")) is None
    assert grants.deny_deck(deck("retail", "default")) is not None


def test_bindings_add_up_and_leave_the_releases_namespace_as_it_is() -> None:
    grants = RealmGrants.of(
        "callwarden",
        [
            binding("one", namespaces=["sales", "callwarden"], realms=["A.example"]),
            binding("two", namespaces=["sales"], realms=["b.example"], rateDecks=["retail"]),
            binding("gone", leaving=True, namespaces=["sales"], realms=["*"]),
            binding("unreadable", namespaces=["sales"], realms="*"),
        ],
    )
    assert grants.invalid == ("unreadable",)
    assert allowed(grants, "sales", "", "a.example", "B.EXAMPLE", "c.example") == {"a.example", "B.EXAMPLE"}
    assert allowed(grants, "callwarden", "", "c.example") == {"", "c.example"}
    assert [grants.deny_deck(deck(name, "sales")) is None for name in ("retail", "Retail")] == [True, False]


def test_a_star_is_every_namespace_and_every_realm() -> None:
    grants = RealmGrants.of(
        "callwarden",
        [
            binding("shared", namespaces=["*"], realms=["demo.example"], rateDecks=["*"]),
            binding("house", namespaces=["house"], realms=["*"]),
        ],
    )
    assert allowed(grants, "anyone", "", "demo.example", "a.example") == {"demo.example"}
    assert allowed(grants, "house", "", "demo.example", "a.example") == {"", "demo.example", "a.example"}
    assert grants.deny_deck(deck("retail", "anyone")) is None


def test_a_refusal_names_the_realm_the_namespace_and_what_it_may_act_on() -> None:
    grants = RealmGrants.of("callwarden", [binding("s", namespaces=["sales"], realms=["b.example", "a.example"])])
    document = Document("p", {"realm": "c.example"}, namespace="sales")
    refusal = grants.deny_policy(document)
    assert refusal is not None
    assert (refusal.reason, refusal.accepted) == (NOT_ALLOWED, True)
    assert refusal.message == "spec.realm is c.example, and namespace sales may act on a.example, b.example only."
    nowhere = grants.deny_policy(Document("p", {}, namespace="other"))
    assert nowhere is not None
    assert nowhere.message.endswith("namespace other may act on none: no RealmBinding names it.")
    many = [binding("m", namespaces=["m"], realms=[f"{number:03}.example" for number in range(500)])]
    long = RealmGrants.of("callwarden", many).deny_policy(Document("p", {}, namespace="m"))
    assert long is not None
    assert "and 490 more only" in long.message


def test_a_cluster_policy_has_no_namespace_and_rbac_decides() -> None:
    document = Document("base", {}, "ClusterSecurityPolicy")
    assert RealmGrants.of("callwarden", ()).deny_policy(document) is None
