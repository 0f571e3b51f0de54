"""Why a mutant may survive: reasons.toml, by module and the mutant's name.

    ["callwarden.rating.core.deck"]
    "Deck.price: boundary: a < b → a <= b" = "Equivalent: …"

A name that ends in `*` stands for all that begin alike: a reason can cover a whole function.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("reasons.toml")


class Reasons:
    """Reasons, and which of them were never needed."""

    def __init__(self, by_module: Mapping[str, Mapping[str, str]]) -> None:
        self._by_module = by_module
        self._used: set[tuple[str, str]] = set()

    def of(self, module: str, name: str) -> str | None:
        """Why this mutant may survive; None where nobody said so."""
        for pattern, reason in self._by_module.get(module, {}).items():
            if pattern == name or (pattern.endswith("*") and name.startswith(pattern[:-1])):
                self._used.add((module, pattern))
                return reason
        return None

    def unused(self, modules: Iterable[str]) -> list[str]:
        """Reasons for mutants of these modules that `of` was never asked for: killed now, or gone."""
        return [
            f"{module}: {pattern}"
            for module in modules
            for pattern in self._by_module.get(module, {})
            if (module, pattern) not in self._used
        ]


def read(file: Path = FILE) -> Reasons:
    """The reasons of a file. ValueError where one is empty."""
    by_module = tomllib.loads(file.read_text())
    for module, reasons in by_module.items():
        for name, reason in reasons.items():
            if not isinstance(reason, str) or len(reason.strip()) < 10:
                raise ValueError(f"{module}: {name}: give a reason")
    return Reasons(by_module)
