"""What a process and its descendants use, read from /proc (proc_pid_stat(5))."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Positions after the command's closing bracket, where field 3 is 0.
_PPID, _UTIME, _CSTIME, _RSS = 1, 11, 14, 21


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """`cpu_s` counts ended children that were waited for, too. `rss_bytes` counts shared pages once per process."""

    cpu_s: float
    rss_bytes: int
    processes: int


@dataclass(frozen=True, slots=True)
class _Stat:
    ppid: int
    cpu_s: float
    rss_bytes: int


def _read(pid: int) -> _Stat | None:
    try:
        # The command may hold spaces and brackets: the fields start after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None  # It ended between the listing and the look.
    return _Stat(
        ppid=int(fields[_PPID]),
        cpu_s=sum(int(ticks) for ticks in fields[_UTIME : _CSTIME + 1]) / _TICKS_PER_S,
        rss_bytes=int(fields[_RSS]) * _PAGE_BYTES,
    )


def usage(*pids: int) -> dict[int, ProcessUsage]:
    """For each process that runs, the sum over it and all its descendants; those that have ended are left out."""
    stats = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _read(int(name)))}
    children: dict[int, list[int]] = defaultdict(list)
    for pid, stat in stats.items():
        children[stat.ppid].append(pid)
    result = {}
    for root in pids:
        family = [root] if root in stats else []
        for pid in family:  # Grows while it is read, generation by generation.
            family.extend(children[pid])
        if family:
            result[root] = ProcessUsage(
                cpu_s=sum(stats[pid].cpu_s for pid in family),
                rss_bytes=sum(stats[pid].rss_bytes for pid in family),
                processes=len(family),
            )
    return result
