"""Trunk and RateDeck resources: what they ask for."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.policy.resources import RateDeckSpec, TrunkSpec
from callwarden.security_policy_operator.adapters.trunks import change_of, changed_fields, trunk_of
from callwarden.security_policy_operator.core.declared import Refusal
from callwarden.security_policy_operator.core.named import CSV_BYTES_MAX, csv_of, decide, digest_of, shown
from callwarden.security_policy_operator.core.plan import Source

PREFIXES = st.lists(st.text("0123456789", min_size=1, max_size=4), unique=True, max_size=5)


def trunk(name: str, namespace: str = "default", *, age: int = 0, leaving: bool = False, **spec: Any) -> Source:
    metadata = {
        "name": name,
        "namespace": namespace,
        "creationTimestamp": f"2026-01-01T00:00:{age:02}Z",
        **({"deletionTimestamp": "2026-01-01T00:01:00Z"} if leaving else {}),
    }
    spec = {"address": "192.0.2.10:5060", **spec}
    return Source({"apiVersion": "callwarden.io/v1", "kind": "Trunk", "metadata": metadata, "spec": spec})


def deck(**more: Any) -> RateDeckSpec:
    return RateDeckSpec.model_validate({"configMap": {"name": "prices"}, **more})


def test_a_name_is_the_systems_so_of_two_namespaces_the_older_resource_has_it() -> None:
    decisions = decide(
        [trunk("berlin", "b", age=1), trunk("berlin", "a", age=2), trunk("hamburg", "a", age=3)], TrunkSpec
    )
    by_place = {(source.key.namespace, source.key.name): decision for source, decision in decisions}
    assert isinstance(by_place["b", "berlin"], TrunkSpec)
    assert isinstance(by_place["a", "hamburg"], TrunkSpec)
    refused = by_place["a", "berlin"]
    assert isinstance(refused, Refusal)
    assert (refused.reason, "b/berlin" in refused.message) == ("Conflict", True)


def test_one_that_is_leaving_makes_room_and_a_wrong_one_keeps_its_name() -> None:
    left = decide([trunk("berlin", "a", leaving=True), trunk("berlin", "b", age=1)], TrunkSpec)
    assert [type(decision) for _, decision in left] == [TrunkSpec]
    wrong = decide([trunk("berlin", "a", stripDigits=99), trunk("berlin", "b", age=1)], TrunkSpec)
    reasons = [decision.reason for _, decision in wrong if isinstance(decision, Refusal)]
    assert reasons == ["Invalid", "Conflict"]


@given(PREFIXES, PREFIXES, PREFIXES, PREFIXES)
def test_a_change_makes_the_trunk_that_stands_the_wanted_one_and_then_there_is_none(
    allowed: list[str], blocked: list[str], wanted_allowed: list[str], wanted_blocked: list[str]
) -> None:
    stands = pb.Trunk(name="berlin", address="192.0.2.1:5060", allow_prefixes=allowed, block_prefixes=blocked)
    wanted = pb.Trunk(
        name="berlin", address="192.0.2.2:5060", allow_prefixes=wanted_allowed, block_prefixes=wanted_blocked
    )
    change = change_of(stands, wanted)
    assert change is not None
    assert change.address == "192.0.2.2:5060"
    assert not change.HasField("enabled")
    assert ({*allowed} | {*change.add_allow_prefixes}) - {*change.remove_allow_prefixes} == {*wanted_allowed}
    assert ({*blocked} | {*change.add_block_prefixes}) - {*change.remove_block_prefixes} == {*wanted_blocked}
    assert change_of(wanted, wanted) is None


def test_what_goes_back_to_its_default_is_a_change_too() -> None:
    spec = TrunkSpec.model_validate({"address": "192.0.2.10:5060"})
    stands = pb.Trunk(name="berlin", address="192.0.2.10:5060", strip_digits=3, add_prefix="00", enabled=True)
    change = change_of(stands, trunk_of("berlin", spec))
    assert change is not None
    assert [name.name for name, _ in change.ListFields()] == ["name", "strip_digits", "add_prefix"]
    assert (change.strip_digits, change.add_prefix) == (0, "")
    assert changed_fields(change) == ["stripDigits", "addPrefix"]


def test_a_change_names_fields_as_the_resource_does_each_once() -> None:
    stands = pb.Trunk(name="berlin", allow_prefixes=["49"], block_prefixes=["4990"], only_local=True)
    wanted = pb.Trunk(name="berlin", allow_prefixes=["43"], block_prefixes=["4990"], tech_prefix="77")
    change = change_of(stands, wanted)
    assert change is not None
    assert sorted(changed_fields(change)) == ["allowPrefixes", "onlyLocal", "techPrefix"]


def test_a_file_is_found_in_data_and_in_binary_data() -> None:
    assert csv_of({"data": {"rates.csv": "ä"}}, "rates.csv") == "ä".encode()
    assert csv_of({"binaryData": {"rates.csv": base64.b64encode(b"\xff").decode()}}, "rates.csv") == b"\xff"


@pytest.mark.parametrize(
    ("config_map", "reason"),
    [
        ({}, "NoFile"),
        ({"data": None, "binaryData": {"other.csv": ""}}, "NoFile"),
        ({"binaryData": {"rates.csv": "no base64"}}, "NoFile"),
        ({"data": {"rates.csv": "x" * (CSV_BYTES_MAX + 1)}}, "TooLarge"),
    ],
)
def test_a_file_that_cant_be_imported_is_refused_with_the_field(config_map: dict[str, Any], reason: str) -> None:
    found = csv_of(config_map, "rates.csv")
    assert isinstance(found, Refusal)
    assert (found.reason, "spec.configMap.key" in found.message) == (reason, True)


def test_a_list_is_another_when_file_name_or_terms_are_and_the_same_wherever_the_file_is_kept() -> None:
    same = digest_of("retail", deck(), b"csv")
    assert same == digest_of("retail", deck(configMap={"name": "other", "key": "b.csv"}), b"csv")
    others = [
        digest_of("retail", deck(), b"csv "),
        digest_of("wholesale", deck(), b"csv"),
        digest_of("retail", deck(currency="USD"), b"csv"),
        digest_of("retail", deck(rounding={"decimals": 2}), b"csv"),
    ]
    assert len({same, *others}) == 5
    assert len(same) == 64


def test_of_many_wrong_lines_the_first_are_shown_and_none_at_any_length() -> None:
    texts = shown((line, "rate", "x" * 1_000) for line in range(2, 100))
    assert (len(texts), max(map(len, texts))) == (32, 512)
    assert texts[0].startswith("line 2: rate: ")
