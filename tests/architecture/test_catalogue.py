"""Tests and policy fields speak of rows that the settings catalogue has."""

import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from callwarden.policy.bundle import Document, PolicySet
from callwarden.policy.fields import walk
from callwarden.policy.model import PolicySpec
from callwarden.policy.values import parse_duration

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "settings.yaml").read_text())
IDS = {row["id"] for row in CATALOGUE}
# Rows to come, by what they lack: a field of the policy, the catalogue's values, a test. The lists only shrink.
TO_COME: dict[str, list[str]] = yaml.safe_load((ROOT / "tests" / "data" / "settings_to_come.yaml").read_text())
MARK = re.compile(r"mark\.setting\(([^)]*)\)")


# Tables of tests whose rows carry their ids: rows by rows, as their modules make the marks of them.
TABLES = re.compile(r"^    (?:Row|Race)\((.*?)^    \),?$|^    Row\((.*)\),$", re.MULTILINE | re.DOTALL)


def marked(text: str) -> set[str]:
    """The catalogue's ids that a module of tests says it shows."""
    return {name for call in MARK.findall(text) for name in re.findall(r'"([^"<]+)"', call)}


def tabled(text: str) -> set[str]:
    """Those that its table names. A row's other words are no ids."""
    return {
        name for row in TABLES.findall(text) for name in re.findall(r'"([^"]+)"', "".join(row)) if name in IDS
    } if "mark.setting(" in text else set()  # fmt: skip


def modules() -> list[str]:
    folders = ("libs", "services", "operators", "cli", "tests")
    return [path.read_text() for folder in folders for path in (ROOT / folder).rglob("test_*.py")]


def unshown(rows: list[dict[str, Any]], shown: set[str]) -> list[str]:
    """Rows that no test shows."""
    return [row["id"] for row in rows if row["id"] not in shown]


def test_every_marker_names_a_row() -> None:
    named = set().union(*map(marked, modules()))
    assert named
    assert named <= IDS, f"not in the catalogue: {sorted(named - IDS)}"


def test_a_test_shows_every_row_but_those_that_are_listed_as_to_come() -> None:
    shown = set().union(*(marked(text) | tabled(text) for text in modules()))
    assert_shrinks(TO_COME["test"], unshown(CATALOGUE, shown))


def assert_shrinks(listed: list[str], found: list[str]) -> None:
    """Fails unless exactly the listed rows are to come."""
    assert [row for row in found if row not in listed] == [], "neither there nor listed as to come"
    assert [row for row in listed if row not in found] == [], "there by now: take it off the list"


def test_a_list_of_what_is_to_come_only_shrinks() -> None:
    assert_shrinks(["sips", "wss"], ["wss", "sips"])
    with pytest.raises(AssertionError, match="neither"):
        assert_shrinks(["sips"], ["sips", "wss"])
    with pytest.raises(AssertionError, match="by now"):
        assert_shrinks(["sips", "wss"], ["sips"])


def test_a_row_without_a_test_is_found() -> None:
    rows = [{"id": "maxlines"}, {"id": "credit"}]
    assert unshown(rows, marked('@pytest.mark.setting("credit")')) == ["maxlines"]
    assert unshown(rows, marked('@pytest.mark.setting("maxlines", "credit")')) == []


def fields(model: type[BaseModel], path: str = "spec") -> dict[str, list[str]]:
    """Catalogue ids of each field path of the model."""
    found: dict[str, list[str]] = {}
    for name, info in model.model_fields.items():
        here = f"{path}.{info.alias or name}"
        extra = info.json_schema_extra
        if isinstance(extra, dict) and "catalogue" in extra:
            found[here] = [str(item) for item in extra["catalogue"]]  # type: ignore[union-attr]
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found |= fields(info.annotation, here)
    return found


def parent(path: str) -> str:
    return path.rpartition(".")[0]


def test_every_field_of_the_policy_stands_where_the_catalogue_says() -> None:
    where = {row["id"]: str(row["field"]) for row in CATALOGUE}
    for path, ids in fields(PolicySpec).items():
        for row in ids:
            assert row in IDS, f"{path} names {row}, which the catalogue lacks"
            places = [place.strip() for place in where[row].split("/")]
            if places[0].startswith("spec."):
                # In, above or beside the field: some rows need more than one.
                near = (place.startswith(path) or path.startswith(place) for place in places)
                assert any(near) or parent(path) in map(parent, places), (path, row, places)


def places(row: dict[str, Any]) -> set[str]:
    """The fields of the policy that a row names."""
    return {place.strip() for place in str(row["field"]).split("/") if place.strip().startswith("spec.")}


def test_the_policy_has_a_field_for_every_row_but_those_that_are_listed_as_to_come() -> None:
    paths = {f"spec.{fact.path}" for fact in walk(PolicySpec)}
    by_row = {row for fact in walk(PolicySpec) for row in fact.catalogue}
    named = [row for row in CATALOGUE if places(row)]
    without = [row["id"] for row in named if places(row) - paths or row["id"] not in by_row]
    assert_shrinks(TO_COME["field"], without)


# Their fields are named for what they switch, and the other products' keys for the opposite or in another unit.
RENAMED = {"forwardclientaddress", "autocreatereguserstrict", "allowcalleridchange", "enable jsonp", "httpapikey"}
NO_LIMIT = {-1: None}
ADDRESS_CALLS = {"maxcallperip", "maxdurationperip", "maxcostperip", "maxcallperuserid"}
AUTOMATIC = {"maxdailycreditperuser": None}


def as_written(row: dict[str, Any], value: Any) -> Any:
    """A value of the catalogue, as a policy has it."""
    if row["id"] in ADDRESS_CALLS:
        return NO_LIMIT.get(value, value)
    if row["id"] in AUTOMATIC:
        return AUTOMATIC[row["id"]]
    if isinstance(value, str) and re.fullmatch(r"[0-9]+[smhd]", value):
        return parse_duration(value)
    return value


def alike(have: Any, want: Any) -> bool:
    """Amounts are written with decimals, durations in any units, words in any case."""
    if isinstance(want, dict):
        return all(alike(have[key], value) for key, value in want.items())
    if isinstance(have, str) and isinstance(want, int):
        return parse_duration(have) == want if have[-1].isalpha() else float(have) == want
    if isinstance(have, str) and isinstance(want, str):
        return have.replace("-", "").lower() == want.replace("-", "").lower()
    return bool(have == want)


@pytest.mark.parametrize("profile", ["default", "hardened"])
def test_the_profiles_have_the_catalogues_values(profile: str) -> None:
    document = Document("p", {"profile": profile.capitalize()})
    spec = PolicySet.build(1, [document]).for_realm("").model_dump(mode="json", by_alias=True)
    wrong = []
    for row in CATALOGUE:
        place = str(row["field"])
        if (
            not place.startswith("spec.")
            or row["id"] in (*RENAMED, *TO_COME["field"])
            or "/" in place
            or row["id"] == "stress-test"
        ):
            continue
        value = reduce(lambda below, step: below[step], place.split(".")[1:], spec)
        want = as_written(row, row.get(profile, row["default"]))
        if isinstance(value, dict) and not isinstance(want, dict):
            value = next(iter(value.values()))  # of a group, the first is what the row is about
        if want is not None and not alike(value, want):
            wrong.append(row["id"])
    assert_shrinks(TO_COME["value"], wrong)


def test_every_field_of_the_policy_is_described() -> None:
    def check(model: type[BaseModel], path: str) -> None:
        for name, info in model.model_fields.items():
            here = f"{path}.{info.alias or name}"
            nested = isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
            assert info.description or nested, f"{here} has no description"
            if nested:
                check(info.annotation, here)  # type: ignore[arg-type]

    check(PolicySpec, "spec")
