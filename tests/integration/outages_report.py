"""The page of the outage table, docs/outages.md: `python -m tests.integration.outages_report FOLDER PAGE`.

Of what each run of test_outages left in the folder. No cell may be missing.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.integration.outages import ALL_PHASES, CALLS, MARGIN_S, OUTAGES, PARTS, PHASES, Outage, Place


@dataclass(frozen=True, slots=True)
class Cell:
    """The calls of one part, outage and phase. Seconds are sums over its calls."""

    part: str
    outage: str
    phase: str
    calls: int
    answered: int
    refused: dict[str, int]
    """Calls that got another final answer, by its status; "none": no answer."""
    cut: int
    talked_s: float
    """As the phones measured it, at most: a second that has begun is charged. Without calls whose end no phone saw."""
    charged_s: int
    unseen: int
    """Calls whose end no phone saw."""
    unseen_charged_s: int


def cells_of(place: Place, part: str, outage: Outage) -> list[Cell]:
    cells = []
    for phase in ALL_PHASES:
        found = [one for one in place.measured if one.phase == phase]
        statuses: Counter[str] = Counter()
        for one in found:
            status = one.call.status
            if not status.done() or status.cancelled() or status.exception() is not None:
                statuses["none"] += 1
            elif status.result() != 200:
                statuses[str(status.result())] += 1
        seen = [one for one in found if not math.isinf(place.talked_s(one)[1])]
        charged = {id(one): one.record.billed_s if one.record is not None else 0 for one in found}
        seen_charged_s = sum(charged[id(one)] for one in seen)
        cells.append(
            Cell(
                part,
                outage.name,
                phase,
                len(found),
                sum(bool(one.call.answered_s) for one in found),
                dict(sorted(statuses.items())),
                sum(one.call.cut for one in found),
                round(sum(place.talked_s(one)[1] for one in seen), 1),
                seen_charged_s,
                len(found) - len(seen),
                sum(charged.values()) - seen_charged_s,
            )
        )
    return cells


def write(folder: Path, cells: Sequence[Cell]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{cells[0].part}-{cells[0].outage}.json".replace(" ", "-")
    (folder / name).write_text(json.dumps([asdict(cell) for cell in cells], indent=1))


def read(folder: Path) -> dict[tuple[str, str, str], Cell]:
    """Raises ValueError if a cell is missing."""
    found = [Cell(**each) for file in sorted(folder.glob("*.json")) for each in json.loads(file.read_text())]
    cells = {(cell.part, cell.outage, cell.phase): cell for cell in found}
    wanted = [(part, outage.name, phase) for part in PARTS for outage in OUTAGES for phase in ALL_PHASES]
    if missing := [key for key in wanted if key not in cells]:
        raise ValueError(f"cells were not run: {missing}")
    return cells


def text_of(cell: Cell) -> str:
    """`8.1 → 9`, and what else became of its calls."""
    parts = []
    if cell.answered > cell.unseen:
        parts.append(f"{cell.talked_s} → {cell.charged_s}")
    if cell.unseen:
        parts.append(f"{cell.unseen} unseen → {cell.unseen_charged_s}")
    if cell.cut:
        parts.append(f"{cell.cut} cut")
    parts += [f"{count} × {status}" for status, count in cell.refused.items() if status != "none"]
    if none := cell.refused.get("none"):
        parts.append(f"{none} × no answer")
    if not cell.answered and cell.charged_s:
        parts.append(f"0 → {cell.charged_s}")
    return ", ".join(parts)


HEAD = """# Outages

Written by `make outages`: {cells} cells of {each} calls, {calls} calls in all.

Each part of a running system is killed and stays away while calls are set up, talk, and have just ended. A cell shows
`talked → charged`: the seconds of its calls as the phones measured them, and as their records charge them. A second
that has begun is charged, so a call is charged up to a second more than it talked. `unseen` are calls whose end no
phone saw, because no edge took the BYE. A status is the final answer to calls that weren't put through.

What is true in every cell, and checked by `tests/integration/test_outages.py`:

- **The edge lived**: charged is what was talked, but for the `spend.grace` at most by which a call goes on while nobody
  can grant it more time (PostgreSQL or call-admission away). The operator bears that.
- **The edge died**: charged is at most what was talked, or the slices that were granted when it died. A call that
  wasn't answered costs nothing.
- Afterwards nothing is held, no line and no money, and ledger and balances agree. A hold of which nothing more is heard
  lasts for ring time-out + call-init time-out + slice + grace + {margin} s.

"""


def page(cells: dict[tuple[str, str, str], Cell]) -> str:
    calls = sum(cell.calls for cell in cells.values())
    lines = [HEAD.format(cells=len(cells), each=CALLS, calls=calls, margin=MARGIN_S).rstrip(), ""]
    for outage in OUTAGES:
        longer = ", longer than a hold lasts" if outage.away_s > outage.hold_s else ""
        lines += [
            f"## Away for {outage.away_s} s{longer}",
            "",
            f"Ring time-out {outage.ring_s} s, call-init time-out {outage.init_s} s, slices of {outage.slice_s} s, "
            f"grace {outage.grace_s} s: a hold lasts {outage.hold_s} s.",
            "",
        ]
        for group, phases in PHASES.items():
            lines += [f"| {group} | " + " | ".join(phases) + " |", "| --- " * (len(phases) + 1) + "|"]
            for part in PARTS:
                found = [text_of(cells[part, outage.name, phase]) for phase in phases]
                lines.append(f"| {part} | " + " | ".join(found) + " |")
            lines.append("")
    return "\n".join(lines)


def main(folder: str, target: str) -> None:
    cells = read(Path(folder))
    Path(target).write_text(page(cells))
    sys.stdout.write(f"{target}: {len(cells)} cells, {sum(cell.calls for cell in cells.values())} calls\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
