"""docs/mutants.md and its numbers, docs/mutants.json: one entry for each core, renewed by a full run of it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.mutation.reasons import Reasons

SHARE_MAX: Final = 0.05  # Of a core's mutants: those that survive without a reason.
ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "mutants.md"
NUMBERS: Final = ROOT / "docs" / "mutants.json"

_HEAD: Final = """\
# Mutants

<!-- Written by `make mutants`. -->

A mutant is one small fault planted in a core: a comparison inverted or moved by one, an operator swapped, a constant
changed, a statement deleted, a condition negated or dropped, nothing returned. The unit tests of the service must fail
for it. A mutant that survives shows behaviour that no test needs; it gets a test, or a reason why it makes no
difference (`tests/mutation/reasons.toml`). A mutant that runs into its time limit counts as noticed. Where the table
says "600 of 2,842", the run took a sample: the same mutants each time, chosen by a hash of their names.

    make mutants                       all cores, and this page
    make mutants CORES=rating          one core, and its part of this page
    make mutants CORES=rating SAMPLE=50   fifty of its mutants; the page stays
    make mutants CORES=rating AGAIN=1     those that survived last time; the page stays
    make mutants CORES=rating MODULE=core.deck   those of one module (or of a pattern); the page stays

How it works: [decision 11](decisions/0011-own-mutation-runs.md).
"""


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no test noticed. `reason` is empty where nobody gave one."""

    module: str
    name: str
    reason: str = ""


@dataclass(slots=True)
class CoreResult:
    """What a run of one core found."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """By module: how many mutants had which outcome."""
    survivors: list[Survivor] = field(default_factory=list)
    found: int = 0
    """How many mutants there are; more than were run where the run took a sample."""

    def add(self, module: str, name: str, outcome: str, reasons: Reasons) -> None:
        """Takes in the outcome of one mutant."""
        counts = self.counts.setdefault(module, {"killed": 0, "timed out": 0, "survived": 0})
        if outcome == "not run":
            outcome = "survived"
        counts[outcome] += 1
        if outcome == "survived":
            self.survivors.append(Survivor(module, name, reasons.of(module, name) or ""))

    @property
    def mutants(self) -> int:
        return sum(map(sum, (counts.values() for counts in self.counts.values())))

    @property
    def size(self) -> str:
        """How many mutants were run, and of how many."""
        return f"{self.mutants:,}" if self.mutants >= self.found else f"{self.mutants:,} of {self.found:,}"

    @property
    def unexplained(self) -> list[Survivor]:
        """Those that survive without a reason."""
        return [survivor for survivor in self.survivors if not survivor.reason]

    @property
    def share(self) -> float:
        """Of all mutants, those that survive without a reason."""
        return len(self.unexplained) / self.mutants if self.mutants else 0.0


def table(results: Mapping[str, CoreResult]) -> str:
    """A row for each core."""
    rows = [
        "| core | mutants | killed | timed out | survive with a reason | survive without | share without |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, result in results.items():
        total: Counter[str] = Counter()
        for counts in result.counts.values():
            total.update(counts)
        without = len(result.unexplained)
        rows.append(
            f"| {name} | {result.size} | {total['killed']:,} | {total['timed out']:,}"
            f" | {len(result.survivors) - without:,} | {without:,} | {result.share:.1%} |"
        )
    return "\n".join(rows)


def page(results: Mapping[str, CoreResult]) -> str:
    """The whole page."""
    parts = [_HEAD, table(results)]
    for name, result in results.items():
        parts += [f"\n## {name}\n", _modules(result)]
        explained = [survivor for survivor in result.survivors if survivor.reason]
        if explained:
            parts.append("\nThese survive with a reason:\n")
            parts += _list(explained)
        if result.unexplained:
            parts.append("\nThese survive, and nobody has said why they may:\n")
            parts += _list(result.unexplained)
    return "\n".join(parts) + "\n"


def _modules(result: CoreResult) -> str:
    rows = ["| module | mutants | killed | timed out | survive |", "| --- | --: | --: | --: | --: |"]
    for module, counts in sorted(result.counts.items()):
        short = module.split(".", 2)[-1]
        rows.append(
            f"| {short} | {sum(counts.values())} | {counts['killed']} | {counts['timed out']} | {counts['survived']} |"
        )
    return "\n".join(rows)


def _list(survivors: Sequence[Survivor]) -> list[str]:
    lines: list[str] = []
    module = ""
    for survivor in sorted(survivors, key=lambda each: (each.module, each.name)):
        if survivor.module != module:
            module = survivor.module
            lines.append(f"\n{module.split('.', 2)[-1]}\n")
        # A code span ends at the first backquote; none of ours has one.
        lines.append(f"- `{survivor.name}`" + (f": {survivor.reason}" if survivor.reason else ""))
    return lines


def load(file: Path = NUMBERS) -> dict[str, CoreResult]:
    """The results of earlier runs."""
    if not file.exists():
        return {}
    return {
        name: CoreResult(entry["counts"], [Survivor(**survivor) for survivor in entry["survivors"]], entry["found"])
        for name, entry in json.loads(file.read_text()).items()
    }


def save(results: Mapping[str, CoreResult]) -> None:
    """Writes numbers and page."""
    entries = {
        name: {
            "found": result.found,
            "counts": result.counts,
            "survivors": [asdict(survivor) for survivor in result.survivors],
        }
        for name, result in results.items()
    }
    NUMBERS.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(results))
