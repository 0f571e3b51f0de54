"""What does not yet keep a rule of the house, by name. These lists only shrink.

A rule that came after the code starts with the list of what breaks it. A test fails on what is not listed, and on what
is listed and no longer breaks the rule: `python -m tests.architecture.prune` drops those, and never adds any.
"""

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
LISTS: Final = Path(__file__).with_suffix(".yaml")
GENERATED: Final = "libs/api/"
SOURCES: Final = ("libs/*/src", "services/*/src", "operators/*/src", "cli/src")
EVERYTHING: Final = ("libs", "services", "operators", "cli", "tests", "benchmarks")


def listed(rule: str) -> set[str]:
    return set(yaml.safe_load(LISTS.read_text())[rule] or ())


def assert_only_listed(rule: str, found: Collection[str]) -> None:
    """Fails unless exactly the listed ones break the rule."""
    known = listed(rule)
    assert set(found) - known == set(), f"breaks the rule {rule}"
    assert known - set(found) == set(), f"keeps the rule {rule} now: run python -m tests.architecture.prune"


def area(path: Path) -> str:
    """The member or folder that a file belongs to: `services/auth`, `cli`, `tests/integration`."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if parts[0] in ("cli", "benchmarks") else "/".join(parts[:2])


def files(*folders: str) -> Iterator[Path]:
    """Every Python file that somebody wrote, in folders that may hold stars."""
    for folder in folders:
        for base in sorted(ROOT.glob(folder)):
            for path in sorted(base.rglob("*.py")):
                if not str(path.relative_to(ROOT)).startswith(GENERATED):
                    yield path


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))
