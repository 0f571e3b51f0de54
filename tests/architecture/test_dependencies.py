"""Each member can be installed by itself, as its image does: what it imports of ours is among what it depends on."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.remaining import ROOT


@dataclass(frozen=True, slots=True)
class Member:
    """One package of the workspace."""

    source: Path
    packages: frozenset[str]
    """Below `callwarden`."""
    needs: frozenset[str]
    """Distributions, by name."""


def _members() -> dict[str, Member]:
    found = {}
    for file in sorted([*ROOT.glob("*/*/pyproject.toml"), ROOT / "cli" / "pyproject.toml"]):
        project = tomllib.loads(file.read_text())["project"]
        source = file.parent / "src" / "callwarden"
        packages = frozenset(path.name for path in source.iterdir() if (path / "__init__.py").exists())
        needs = frozenset(re.split(r"[^A-Za-z0-9._-]", each)[0] for each in project.get("dependencies", []))
        found[project["name"]] = Member(source, packages, needs)
    return found


MEMBERS = _members()


def _imported(source: Path) -> Iterator[tuple[str, Path]]:
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                if name.startswith("callwarden."):
                    yield name.split(".")[1], path


def _installed_with(name: str) -> set[str]:
    """Our packages that an installation of that member has."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in seen and one in MEMBERS:
            seen.add(one)
            waiting += MEMBERS[one].needs
    return {package for one in seen for package in MEMBERS[one].packages}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_depends_on_what_it_imports(name: str) -> None:
    there = _installed_with(name)
    assert {(package, path.name) for package, path in _imported(MEMBERS[name].source) if package not in there} == set()


def test_all_members_are_looked_at() -> None:
    assert {"callwarden", "callwarden-auth", "callwarden-kernel", "callwarden-security-policy"} <= MEMBERS.keys()
