"""Number lists: how long a list takes to compile, what it takes in memory, and what looking a number up costs.

In one process, without database: reading the rows of a million entries comes on top (0.5 s, in pages between calls).
"""

import asyncio
import random
import time
import tracemalloc
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from asyncpg.pgproto import pgproto

from benchmarks.report import Table
from callwarden.call_admission.lists.core import list_file
from callwarden.call_admission.lists.core.call_stats import CallStats, Pending
from callwarden.call_admission.model.lists import ListBuilder, ListHead, Listings, Lists, ListSide, NumberList
from callwarden.common.runtime import tune_garbage_collection
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.policy.model import DynamicList, SmartList

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
LOOKED_UP: Final = 100_000
PAGE: Final = 4_000
CALLS: Final = 100_000


def entries(count: int, rng: random.Random) -> list[str]:
    """Numbers, and for each hundred of them a prefix and some wildcards of four kinds, in the store's order."""
    found = {f"49{rng.randrange(10**9, 10**10)}" for _ in range(count)}
    for index, number in enumerate(list(found)[: count // 100]):
        found.discard(number)
        at = 4 + index % 4
        found.add(f"{number[:8]}*" if index % 2 else f"{number[:at]}?{number[at + 1 :]}")
    return sorted(found)


def compiled(patterns: Sequence[str]) -> NumberList:
    builder = ListBuilder(ListHead("bench", 1, entries=len(patterns)))
    for start in range(0, len(patterns), PAGE):
        builder.add(patterns[start : start + PAGE])
    return builder.build()


def per_look_us(look: Callable[[str], object], numbers: Sequence[str]) -> float:
    """The best of three, so that a neighbour's noise doesn't count."""

    def once() -> float:
        began_s = time.perf_counter()
        for number in numbers:
            look(number)
        return time.perf_counter() - began_s

    return min(once() for _ in range(3)) / len(numbers) * 1e6


def measure(count: int) -> list[str | int | float]:
    rng = random.Random(count)
    patterns = entries(count, rng)
    file = "\n".join(patterns).encode()
    began_s = time.perf_counter()
    read = sum(1 for _ in list_file.read([file]))
    read_s = time.perf_counter() - began_s
    assert read == len(patterns)
    began_s = time.perf_counter()
    one = compiled(patterns)
    compile_s = time.perf_counter() - began_s
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = compiled(patterns)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept.size_bytes
    listing = Listings()
    lists = Lists.of([one], listing)
    began_s = time.perf_counter()
    Lists.of([one], listing)
    swap_us = (time.perf_counter() - began_s) * 1e6

    def find(number: str) -> object:
        return lists.find(("bench",), number, ListSide.CALLED)

    plain = [pattern for pattern in patterns if pattern.isdigit()]
    wild = [pattern for pattern in patterns if "?" in pattern]
    hits = [rng.choice(plain) for _ in range(LOOKED_UP)]
    misses = [f"33{rng.randrange(10**9, 10**10)}" for _ in range(LOOKED_UP)]
    wildcards = [rng.choice(wild).replace("?", str(rng.randrange(10))) for _ in range(LOOKED_UP)]
    assert all(find(number) for number in (hits[0], wildcards[0]))
    assert find(misses[0]) is None
    return [
        len(patterns),
        read_s,
        compile_s,
        swap_us,
        (now - before) / 1e6,
        (peak - before) / 1e6,
        per_look_us(find, hits),
        per_look_us(find, misses),
        per_look_us(find, wildcards),
    ]


def watch_row(name: str, numbers: int) -> list[str | int | float]:
    """Calls from as many callers to as many targets."""
    rng = random.Random(numbers)
    # As messages bring them.
    account, realm = pgproto.UUID(uuid.UUID(int=7).hex), "example.org"
    calls = [
        (f"49{rng.randrange(numbers):09}", f"3712{rng.randrange(numbers):07}", 60.0 if rng.random() < 0.5 else None)
        for _ in range(CALLS)
    ]
    pending, stats = Pending(), CallStats()
    tune_garbage_collection()  # as in every service
    dynamic, smart = DynamicList(), SmartList()
    counted_s = added_s = 0.0
    told = 0
    # 500 calls between two flushes, as at 500 calls/s.
    for start in range(0, CALLS, 500):
        began_s = time.perf_counter()
        for calling, called, talk_s in calls[start : start + 500]:
            fresh = stats.is_fresh(account, called, MonoS(start / 500))
            pending.ended(account, called, calling, talk_s, 404, fresh=fresh)
        middle_s = time.perf_counter()
        counts = pending.take({account: realm})
        for count in counts:
            stats.add(count, dynamic, smart, MonoS(start / 500), UnixS(start / 500))
        counted_s += middle_s - began_s
        added_s += time.perf_counter() - middle_s
        told += len(counts)
    return [name, counted_s / CALLS * 1e6, added_s / CALLS * 1e6, told / CALLS, stats.evicted]


async def run() -> list[Table]:
    return [
        Table(
            "Number lists",
            [
                "entries",
                "file read (s)",
                "compiled (s)",
                "swap (µs)",
                "memory (MB)",
                "peak (MB)",
                "hit (µs)",
                "miss (µs)",
                "wildcard (µs)",
            ],
            [measure(count) for count in SIZES],
            notes=(
                "One entry of a hundred is a prefix or a wildcard of four kinds; each kind costs a look-up.",
                "Compiling goes page by page between calls; memory is what a process keeps of the list.",
            ),
        ),
        Table(
            "Call statistics (dynamic and smart list), CPU of one ended call",
            ["numbers", "counted (µs)", "told and added (µs)", "entries told a call", "evicted"],
            [watch_row("100 callers and targets", 100), watch_row("100,000 callers and targets", 100_000)],
            notes=("Counted where the call is settled, added once a second in every process.",),
        ),
    ]


if __name__ == "__main__":
    for table in asyncio.run(run()):
        print(table.to_markdown())
