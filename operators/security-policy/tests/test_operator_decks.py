"""Price lists: the file in a ConfigMap, and when it has to be imported again."""

import base64
from typing import Any

import pytest

from callwarden.policy.resources import RateDeckSpec
from callwarden.security_policy_operator.core.decks import CSV_BYTES_MAX, LineError, csv_of, digest_of, shown
from callwarden.security_policy_operator.core.resource import Refusal


def deck(**more: Any) -> RateDeckSpec:
    return RateDeckSpec.model_validate({"configMap": {"name": "prices"}, **more})


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
    texts = shown(LineError(line, "rate", "x" * 1_000) for line in range(2, 100))
    assert (len(texts), max(map(len, texts))) == (32, 512)
    assert texts[0].startswith("line 2: rate: ")
