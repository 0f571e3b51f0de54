"""What a benchmark gives and how docs/benchmarks.md is written from it. Nothing in that file is written by hand."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
RESULTS: Final = ROOT / "docs" / "benchmarks.json"


@dataclass(frozen=True, slots=True)
class Table:
    """One table of figures with what a reader must know to judge them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_markdown(self) -> str:
        def cell(value: str | float) -> str:
            if isinstance(value, float):
                return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
            return f"{value:,}" if isinstance(value, int) else value

        lines = [f"## {self.title}", ""]
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("|" + " --- |" * len(self.columns))
        lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def machine() -> str:
    """What the figures were measured on."""
    model = ""
    memory_gib = 0.0
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
        memory_gib = memory_kib / 2**20
    except OSError:
        pass
    return (
        f"{model or platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def pacing_factor(per_s: int, seconds: float = 2.0) -> float:
    """How much more CPU the same arithmetic costs when it is done `per_s` times a second than when done flat out.

    Above 1 where waking up is dear: clocks that slow down, caches that go cold, virtual processors that are put away.
    A service at part load pays this for each message, whatever its code.
    """

    def work() -> int:
        return sum(number * number for number in range(3_000))

    flat_s = time.process_time()
    for _ in range(1_000):
        work()
    flat_s = (time.process_time() - flat_s) / 1_000
    paced_s, begun_s = time.process_time(), time.perf_counter()
    count = int(per_s * seconds)
    for number in range(1, count + 1):
        work()
        time.sleep(max(0.0, begun_s + number / per_s - time.perf_counter()))
    return (time.process_time() - paced_s) / count / flat_s


def reference_us() -> float:
    """How many µs of CPU a fixed piece of Python (strings, a dictionary, integers) takes: the best of many rounds.

    By it figures of different machines, or of one whose speed changes by the hour, can be compared.
    """

    def work() -> int:
        found: dict[int, str] = {}
        total = 0
        for number in range(2_000):
            found[number & 255] = f"x{number}".partition("1")[0]
            total += len(found[number & 255])
        return total

    best_s = inf
    for _ in range(50):
        began_s = time.process_time()
        work()
        best_s = min(best_s, time.process_time() - began_s)
    return best_s * 1e6


def revision() -> str:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def save(name: str, tables: Sequence[Table]) -> None:
    """Keeps the tables of one benchmark and writes the page anew from all that are kept."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[name] = {
        "machine": machine(),
        "revision": revision(),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "tables": [asdict(table) for table in tables],
    }
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    parts = [
        "# Benchmarks",
        "",
        "Written by `make bench` (one part: `python -m benchmarks NAME`). Machines are noisy: figures that are",
        "compared come from one run, and CPU per call says more than calls per second.",
        "",
    ]
    for part in kept.values():
        parts += [f"Measured {part['at']} at revision {part['revision']} on {part['machine']}.", ""]
        parts += [Table(**table).to_markdown() for table in part["tables"]]
    PAGE.write_text("\n".join(parts).rstrip() + "\n")
