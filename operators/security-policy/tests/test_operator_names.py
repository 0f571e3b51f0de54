"""Trunk resources with one name: which of them counts."""

from typing import Any

from callwarden.policy.resources import TrunkSpec
from callwarden.security_policy_operator.core.names import decide
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
