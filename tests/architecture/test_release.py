"""What is released together says so: one version everywhere, every package typed, the changelog up to date."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = sorted(
    path
    for pattern in (
        "libs/*/pyproject.toml",
        "services/*/pyproject.toml",
        "operators/*/pyproject.toml",
        "cli/pyproject.toml",
    )
    for path in ROOT.glob(pattern)
)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def project(pyproject: Path) -> dict[str, Any]:
    return tomllib.loads(pyproject.read_text())


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.parent.name)
def test_every_package_has_the_workspace_s_version_and_is_typed(member: Path) -> None:
    described = project(member)
    assert described["project"]["version"] == VERSION
    package = described["tool"]["uv"]["build-backend"]["module-name"]
    assert (member.parent / "src" / package.replace(".", "/") / "py.typed").is_file()


def test_the_chart_has_the_workspace_s_version() -> None:
    chart = yaml.safe_load((ROOT / "deploy/helm/callwarden/Chart.yaml").read_text())
    assert (chart["version"], str(chart["appVersion"])) == (VERSION, VERSION)


def test_the_changelog_s_newest_section_is_this_version() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == f"Unreleased ({VERSION})" or sections[0].startswith(f"{VERSION} – ")
