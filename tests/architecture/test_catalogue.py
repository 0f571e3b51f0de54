"""Tests and policy fields speak of rows that the settings catalogue has."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from callwarden.policy.model import PolicySpec

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "settings.yaml").read_text())
IDS = {row["id"] for row in CATALOGUE}
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
    folders = ("libs", "services", "cli", "tests")
    return [path.read_text() for folder in folders for path in (ROOT / folder).rglob("test_*.py")]


def unshown(rows: list[dict[str, Any]], shown: set[str]) -> list[str]:
    """Rows of call-admission that no test shows."""
    return [row["id"] for row in rows if "call-admission" in row["by"] and row["id"] not in shown]


def test_every_marker_names_a_row() -> None:
    named = set().union(*map(marked, modules()))
    assert named
    assert named <= IDS, f"not in the catalogue: {sorted(named - IDS)}"


def test_a_test_shows_every_row_of_call_admission() -> None:
    shown = set().union(*(marked(text) | tabled(text) for text in modules()))
    assert unshown(CATALOGUE, shown) == []


def test_a_row_without_a_test_is_found() -> None:
    rows = [{"id": "maxlines", "by": ["call-admission"]}, {"id": "others", "by": ["edge-proxy"]}]
    assert unshown(rows, marked('@pytest.mark.setting("credit")')) == ["maxlines"]
    assert unshown(rows, marked('@pytest.mark.setting("maxlines")')) == []


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


def test_every_field_of_the_policy_stands_where_the_catalogue_says() -> None:
    where = {row["id"]: str(row["field"]) for row in CATALOGUE}
    for path, ids in fields(PolicySpec).items():
        for row in ids:
            assert row in IDS, f"{path} names {row}, which the catalogue lacks"
            places = [place.strip() for place in where[row].split("/")]
            if places[0].startswith("spec."):
                assert any(place.startswith(path) or path.startswith(place) for place in places), (path, row, places)


def test_every_field_of_the_policy_is_described() -> None:
    def check(model: type[BaseModel], path: str) -> None:
        for name, info in model.model_fields.items():
            here = f"{path}.{info.alias or name}"
            nested = isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
            assert info.description or nested, f"{here} has no description"
            if nested:
                check(info.annotation, here)  # type: ignore[arg-type]

    check(PolicySpec, "spec")
