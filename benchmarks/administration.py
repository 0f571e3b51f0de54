"""What an import of accounts costs the calls: admissions at a steady rate with it and without it, in turn, in one run.

The real processes (call-admission, administration, rating, PostgreSQL, NATS) share the machine's cores with this one,
which plays the edges as `benchmarks.admission` does. Each round has two windows of the same length: one while
administration imports a file of new accounts, one without. Which is first changes from round to round, so that a
machine that grows slower harms both alike.

Environment: BENCH_ADMINISTRATION_LINES (of the file, default 100000), BENCH_ADMINISTRATION_RATE (admissions/s, default
200), BENCH_ADMINISTRATION_ROUNDS (default 4), BENCH_ADMINISTRATION_ACCOUNTS (that call, default 2000).
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import asyncpg

from benchmarks.admission import SERVICE, Bench, Edges, Load, account_id
from benchmarks.report import Table
from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.common.bus import Bus
from callwarden.common.metrics import Metrics
from callwarden.common.rpc.client import unary
from callwarden.common.rpc.stream import StreamPool
from callwarden.edge_proxy.adapters.events_nats import EventsNats
from callwarden.limits.rendezvous import ranking
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import DEFAULT_REALM, OperatorClient

LINES: Final = int(os.environ.get("BENCH_ADMINISTRATION_LINES", "100000"))
RATE: Final = int(os.environ.get("BENCH_ADMINISTRATION_RATE", "200"))
ROUNDS: Final = int(os.environ.get("BENCH_ADMINISTRATION_ROUNDS", "4"))
ACCOUNTS: Final = int(os.environ.get("BENCH_ADMINISTRATION_ACCOUNTS", "2000"))
PART_BYTES: Final = 1024 * 1024  # as the command line sends it
IMPORT_TIMEOUT_S: Final = 600.0
WARM_CALLS: Final = 200  # before each window: connections, plans, prices
IMPORT, QUIET = "import", "none"
TARGET: Final = "Target: the import moves the p99 of admission by less than 20 %."
COLUMNS: Final = [
    "round", "administration", "seconds", "calls", "not admitted", "admit p50 ms", "admit p99 ms", "slowest ms",
    "call-admission µs/call", "administration s of CPU", "PostgreSQL s of CPU",
]  # fmt: skip


def file_of(number: int) -> bytes:
    """A file of new accounts, each with a number, limits and an address."""
    head = "name,lines,daily,monthly,numbers,email,country\n"
    return (head + "".join(
        f"import-{number}-{line},5,50,500,+4989{number:02d}{line:07d},user{line}@example.org,DE\n"
        for line in range(LINES)
    )).encode()  # fmt: skip


class Windows:
    """One running system, and windows of load on it."""

    def __init__(self, system: LocalSystem, operator: OperatorClient, bench: Bench, edges: Edges) -> None:
        self._system = system
        self._operator = operator
        self._bench = bench
        self._edges = edges
        self._calls = 0

    async def import_file(self, content: bytes) -> float:
        """Imports it through administration; how many seconds that took. Raises RuntimeError for a bad line."""
        began_s = time.perf_counter()
        parts = [
            pb.ImportAccountsRequest(csv=content[at : at + PART_BYTES], realm=DEFAULT_REALM, currency="EUR")
            for at in range(0, len(content), PART_BYTES)
        ]
        reply = await unary(self._operator.accounts.ImportAccounts, iter(parts), timeout_s=IMPORT_TIMEOUT_S)
        if reply.created != LINES:
            raise RuntimeError(f"{reply.created} accounts created: {reply.errors[:3]}")
        return time.perf_counter() - began_s

    async def offer(self, load: Load, is_over: Callable[[], bool]) -> None:
        """Places calls at the rate, each on another account, until it is over."""
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            number = 0
            while not is_over():
                pause_s = began_s + number / RATE - time.perf_counter()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                number += 1
                group.create_task(self._call(load))

    async def _call(self, load: Load) -> None:
        self._calls += 1
        await self._edges.call(account_id(self._calls % ACCOUNTS), self._calls, load)

    async def window(self, name: str, round_: int, length_s: float) -> tuple[list[str | int | float], float, Load]:
        """One row, its length, what the edges saw. With an import it lasts as long as that, else `length_s`."""
        await asyncio.gather(*(self._call(Load()) for _ in range(WARM_CALLS)))
        await self._bench.settled(self._edges)
        content = file_of(round_) if name == IMPORT else b""
        load, before = Load(), self._system.cpu_seconds()
        began_s = time.perf_counter()
        if name == IMPORT:
            importing = asyncio.create_task(self.import_file(content))
            await self.offer(load, importing.done)
            await importing
        else:
            await self.offer(load, lambda: time.perf_counter() - began_s >= length_s)
        took_s = time.perf_counter() - began_s
        after = self._system.cpu_seconds()
        spent = {
            name: sum(after[process] - before[process] for process in after if process.startswith(name))
            for name in ("call-admission", "administration", "postgres")
        }
        row: list[str | int | float] = [
            round_,
            name,
            round(took_s, 1),
            load.begun,
            load.refused + load.failed,
            load.delay_ms(0.5),
            load.delay_ms(0.99),
            load.delay_ms(1.0),
            round(spent["call-admission"] * 1e6 / max(load.begun, 1)),
            round(spent["administration"], 1),
            round(spent["postgres"], 1),
        ]
        print(row, file=sys.stderr, flush=True)
        return row, took_s, load


async def measure(windows: Windows, bench: Bench) -> list[Table]:
    await bench.accounts(ACCOUNTS)
    rows: list[list[str | int | float]] = []
    ratios: list[float] = []
    all_delays: dict[str, Load] = {IMPORT: Load(), QUIET: Load()}
    # The first import only says how long a window is: what it creates makes the table's indexes grow.
    _, length_s, _ = await windows.window(IMPORT, 0, 0.0)
    for round_ in range(1, ROUNDS + 1):
        found: dict[str, float] = {}
        for name in (IMPORT, QUIET) if round_ % 2 else (QUIET, IMPORT):
            row, took_s, load = await windows.window(name, round_, length_s)
            rows.append(row)
            found[name] = load.delay_ms(0.99)
            all_delays[name].delays_s += load.delays_s
            if name == IMPORT:
                length_s = took_s
        ratios.append(found[IMPORT] / found[QUIET])
    await bench.check()
    with_it, without = (all_delays[name].delay_ms(0.99) for name in (IMPORT, QUIET))
    notes = [
        TARGET,
        f"Over all rounds p99 was {with_it} ms with the import and {without} ms without: a ratio of "
        f"{with_it / without:.2f}. By round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median "
        f"{statistics.median(ratios):.2f}.",
        f"{RATE} admissions/s, each ended and settled, over {ACCOUNTS:,} accounts; each file has {LINES:,} "
        "new accounts with a number and three limits.",
        "Edges, services and servers share the machine's cores; administration runs at a lower priority than calls do.",
    ]
    return [Table(f"Admission during an import of {LINES:,} accounts", COLUMNS, rows, notes)]


async def run() -> list[Table]:
    """The tables for docs/benchmarks.md."""
    async with AsyncExitStack() as stack:
        services = {"call-admission", "administration", "rating", "payment", "auth"}
        system = await stack.enter_async_context(LocalSystem(services=services))
        operator = await stack.enter_async_context(OperatorClient(system))
        bus = await stack.enter_async_context(Bus(system.nats_url, name="bench"))
        publisher = await stack.enter_async_context(bus.publisher())
        connection = await asyncpg.connect(system.database_url.replace("+asyncpg", ""))
        stack.push_async_callback(connection.close)
        await operator.deck()
        await operator.carrier("127.0.0.1:9")
        events = await stack.enter_async_context(EventsNats(publisher, "bench", Metrics(), os.urandom))
        pool = await stack.enter_async_context(StreamPool(SERVICE, system.targets("call-admission"), ranking))
        await pool.wait_up(10.0)
        bench = Bench(system, operator, connection, publisher)
        return await measure(Windows(system, operator, bench, Edges(pool, events)), bench)
