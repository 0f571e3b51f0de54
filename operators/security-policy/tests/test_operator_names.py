"""Trunk resources with one name: which of them counts."""

from typing import Any

import pytest

from callwarden.policy.resources import TrunkSpec
from callwarden.security_policy_operator.core import names
from callwarden.security_policy_operator.core.realms import RealmGrants
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal


def trunk(
    name: str, namespace: str = "default", *, age: int = 0, leaving: bool = False, **spec: Any
) -> ManagedResource:
    metadata = {
        "name": name,
        "namespace": namespace,
        "creationTimestamp": f"2026-01-01T00:00:{age:02}Z",
        **({"deletionTimestamp": "2026-01-01T00:01:00Z"} if leaving else {}),
    }
    spec = {"address": "192.0.2.10:5060", **spec}
    return ManagedResource({"apiVersion": "callwarden.io/v1", "kind": "Trunk", "metadata": metadata, "spec": spec})


GRANTS = RealmGrants.of(
    "default",
    [
        {"metadata": {"name": "both"}, "spec": {"namespaces": ["a", "b"], "realms": ["callwarden.local"]}},
        {"metadata": {"name": "sales"}, "spec": {"namespaces": ["sales"], "realms": ["sales.example"]}},
    ],
)


def decide(sources: list[ManagedResource], kind: type[TrunkSpec]) -> list[tuple[ManagedResource, TrunkSpec | Refusal]]:
    return names.decide(sources, kind, lambda one: one.was_held, GRANTS.deny_trunk)


def test_the_resource_that_has_the_name_keeps_it_whatever_its_age() -> None:
    younger = trunk("berlin", "b", age=1)
    younger = ManagedResource({**younger.body, "status": {"held": True}})
    (first, spec), (second, refusal) = decide([trunk("berlin", "a"), younger], TrunkSpec)
    assert (first.key.namespace, second.key.namespace) == ("b", "a")
    assert isinstance(spec, TrunkSpec)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, "b/berlin" in refusal.message) == ("Conflict", True)


@pytest.mark.cases
@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({"realm": "sales.example"}, True),
        ({"account": "carrier@SALES.example"}, True),
        ({"account": "carrier@other.example", "realm": "sales.example"}, False),
        ({"account": "carrier", "realm": "sales.example"}, False),  # of whatever realm
        ({"account": "0190a5d0-0000-7000-8000-000000000000", "realm": "sales.example"}, False),
        ({"realm": "other.example"}, False),
        ({"realm": ""}, False),
        ({}, False),
    ],
)
def test_a_trunk_acts_on_its_accounts_realm_and_one_that_may_not_has_no_name(
    spec: dict[str, Any], allowed: bool
) -> None:
    decisions = decide([trunk("berlin", "sales", **spec), trunk("berlin", age=1)], TrunkSpec)
    by_place = {source.key.namespace: decision for source, decision in decisions}
    reasons = {place: one.reason for place, one in by_place.items() if isinstance(one, Refusal)}
    assert reasons == ({"default": "Conflict"} if allowed else {"sales": "RealmNotAllowed"})


@pytest.mark.cases
def test_an_invalid_trunk_of_a_namespace_without_realms_has_no_name() -> None:
    decisions = decide([trunk("berlin", "stranger", stripDigits=99), trunk("berlin", age=1)], TrunkSpec)
    assert [type(decision) for _, decision in decisions] == [Refusal, TrunkSpec]


def test_of_two_namespaces_the_older_resource_has_the_name() -> None:
    decisions = decide(
        [trunk("berlin", "b", age=1), trunk("berlin", "a", age=2), trunk("hamburg", "a", age=3)], TrunkSpec
    )
    by_place = {(source.key.namespace, source.key.name): decision for source, decision in decisions}
    assert isinstance(by_place["b", "berlin"], TrunkSpec)
    assert isinstance(by_place["a", "hamburg"], TrunkSpec)
    refused = by_place["a", "berlin"]
    assert isinstance(refused, Refusal)
    assert (refused.reason, "b/berlin" in refused.message) == ("Conflict", True)


def test_a_deleted_resource_frees_its_name_and_an_invalid_one_keeps_it() -> None:
    left = decide([trunk("berlin", "a", leaving=True), trunk("berlin", "b", age=1)], TrunkSpec)
    assert [type(decision) for _, decision in left] == [TrunkSpec]
    wrong = decide([trunk("berlin", "a", stripDigits=99), trunk("berlin", "b", age=1)], TrunkSpec)
    reasons = [decision.reason for _, decision in wrong if isinstance(decision, Refusal)]
    assert reasons == ["Invalid", "Conflict"]
