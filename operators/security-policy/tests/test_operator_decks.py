"""Price lists: the file in a ConfigMap, and when it has to be imported again."""

import base64
from typing import Any

import pytest

from callwarden.policy.resources import RateDeckSpec
from callwarden.security_policy_operator.core.decks import CSV_BYTES_MAX, DeckLineError, csv_of, digest_of, shown
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
def test_a_file_that_cant_be_imported_is_refused_and_names_the_field(config_map: dict[str, Any], reason: str) -> None:
    found = csv_of(config_map, "rates.csv")
    assert isinstance(found, Refusal)
    assert (found.reason, "spec.configMap.key" in found.message) == (reason, True)


def test_the_digest_depends_on_file_name_and_terms_but_not_on_the_place_of_the_file() -> None:
    same = digest_of("retail", deck(), b"csv")
    assert same == digest_of("retail", deck(configMap={"name": "other", "key": "b.csv"}), b"csv")
    others = [
        digest_of("retail", deck(), b"csv "),
        digest_of("wholesale", deck(), b"csv"),
        digest_of("retail", deck(currency="USD"), b"csv"),
        digest_of("retail", deck(rounding={"decimals": 2}), b"csv"),
        digest_of("retail", deck(windows=[{"name": "sat", "hours": "Sat 09:00-13:00"}]), b"csv"),
    ]
    assert len({same, *others}) == 6
    assert len(same) == 64


@pytest.mark.parametrize(
    "window",
    [{"name": "sat"}, {"hours": "Sat 09:00-13:00"}, {"name": "Sat", "hours": "Sat 09:00-13:00"},
     {"name": "sat", "hours": ""}, {"name": "sat", "hours": "at noon"}],
)  # fmt: skip
def test_a_window_without_a_name_and_hours_is_refused(window: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="windows"):
        deck(windows=[window])


def test_of_many_invalid_lines_the_first_are_shown_and_cut() -> None:
    texts = shown(DeckLineError(line, "rate", "x" * 1_000) for line in range(2, 100))
    assert (len(texts), max(map(len, texts))) == (32, 512)
    assert texts[0].startswith("line 2: rate: ")
