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


def test_every_marker_names_a_row() -> None:
    tests = [path for folder in ("libs", "services", "cli", "tests") for path in (ROOT / folder).rglob("test_*.py")]
    named = {
        name for path in tests for call in MARK.findall(path.read_text()) for name in re.findall(r'"([^"<]+)"', call)
    }
    assert named
    assert named <= IDS, f"not in the catalogue: {sorted(named - IDS)}"


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
