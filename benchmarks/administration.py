"""What an import of accounts costs the calls: admissions at a steady rate while it runs and while it is held, in turn.

The real processes (call-admission, administration, rating, PostgreSQL, NATS) share the machine's cores with this one,
which plays the edges as `benchmarks.admission` does. One import of a file of new accounts is under way from the first
window to the last. In every other window the administration process is stopped (SIGSTOP), so that windows with and
without its work follow each other within seconds and see the same machine.

Environment: BENCH_ADMINISTRATION_LINES (of the file, default 100000), BENCH_ADMINISTRATION_RATE (admissions/s, default
200), BENCH_ADMINISTRATION_WINDOW (seconds of each, default 2), BENCH_ADMINISTRATION_SECONDS (at most, of all, default
900: the import may be under way still), BENCH_ADMINISTRATION_ACCOUNTS (that call, default 2000).
"""

import asyncio
import os
import signal
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

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
from callwarden.testing import databases
from callwarden.testing.operator import DEFAULT_REALM, OperatorClient

LINES: Final = int(os.environ.get("BENCH_ADMINISTRATION_LINES", "100000"))
RATE: Final = int(os.environ.get("BENCH_ADMINISTRATION_RATE", "200"))
WINDOW_S: Final = float(os.environ.get("BENCH_ADMINISTRATION_WINDOW", "2"))
SECONDS: Final = float(os.environ.get("BENCH_ADMINISTRATION_SECONDS", "900"))
ACCOUNTS: Final = int(os.environ.get("BENCH_ADMINISTRATION_ACCOUNTS", "2000"))
PART_BYTES: Final = 1024 * 1024  # as the command line sends it
IMPORT_TIMEOUT_S: Final = 3_600.0
WARM_CALLS: Final = 1_000  # before the first window: connections, plans, prices, every other account
SETTLING_S: Final = 0.25  # after each turn: what was begun before is over, and isn't counted
RUNNING, HELD = "import runs", "import held"
TARGET: Final = "Target: the import moves the p99 of admission by less than 20 %."
COLUMNS: Final = [
    "administration", "windows", "seconds", "calls", "not admitted", "admit p50 ms", "admit p99 ms", "p99.9 ms",
    "call-admission µs/call", "administration s of CPU", "PostgreSQL s of CPU",
]  # fmt: skip
SERVERS: Final = ("call-admission", "administration", "postgres")


def file_of() -> bytes:
    """New accounts, each with a number, limits and an address."""
    lines = (f"import-{line},5,50,500,+4989{line:07d},user{line}@example.org,DE\n" for line in range(LINES))
    return ("name,lines,daily,monthly,numbers,email,country\n" + "".join(lines)).encode()


@dataclass(slots=True)
class Side:
    """What was seen in all windows of one kind."""

    load: Load = field(default_factory=Load)
    p99_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SERVERS, 0.0))

    def row(self, name: str) -> list[str | int | float]:
        load, cpu_s = self.load, self.cpu_s
        return [
            name,
            len(self.p99_ms),
            round(self.seconds, 1),
            load.begun,
            load.refused + load.failed,
            load.delay_ms(0.5),
            load.delay_ms(0.99),
            load.delay_ms(0.999),
            round(cpu_s["call-admission"] * 1e6 / max(load.begun, 1)),
            round(cpu_s["administration"], 1),
            round(cpu_s["postgres"], 1),
        ]


class Windows:
    """One running system, and windows of load on it."""

    def __init__(self, system: LocalSystem, operator: OperatorClient, edges: Edges) -> None:
        self._system = system
        self._operator = operator
        self.edges = edges
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

    def go_on(self) -> None:
        os.kill(self._system.process("administration").child.pid, signal.SIGCONT)

    async def offer(self, load: Load, seconds: float) -> None:
        """Places calls at the rate, each on another account, and waits for the answers."""
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(RATE * seconds)):
                pause_s = began_s + number / RATE - time.perf_counter()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                group.create_task(self.call(load))

    async def call(self, load: Load) -> None:
        self._calls += 1
        await self.edges.call(account_id(self._calls % ACCOUNTS), self._calls, load)

    async def window(self, side: Side, signal_: signal.Signals) -> None:
        """One window, in which administration runs on or stands still."""
        os.kill(self._system.process("administration").child.pid, signal_)
        await self.offer(Load(), SETTLING_S)
        load, before, began_s = Load(), self._system.cpu_seconds(), time.perf_counter()
        await self.offer(load, WINDOW_S)
        side.seconds += time.perf_counter() - began_s
        after = self._system.cpu_seconds()
        for server in SERVERS:
            side.cpu_s[server] += sum(after[name] - before[name] for name in after if name.startswith(server))
        side.p99_ms.append(load.delay_ms(0.99))
        side.load.delays_s += load.delays_s
        side.load.begun += load.begun
        side.load.refused += load.refused
        side.load.failed += load.failed


async def measure(windows: Windows, bench: Bench) -> list[Table]:
    await bench.accounts(ACCOUNTS)
    await asyncio.gather(*(windows.call(Load()) for _ in range(WARM_CALLS)))
    running, held = Side(), Side()
    began_s = time.perf_counter()
    importing = asyncio.create_task(windows.import_file(file_of()))
    turns = [(running, signal.SIGCONT), (held, signal.SIGSTOP)]
    try:
        while not importing.done() and time.perf_counter() - began_s < SECONDS:
            turns.reverse()  # which comes first: a machine that grows slower harms both alike
            for side, signal_ in turns:
                await windows.window(side, signal_)
            print(f"p99 ms: {running.p99_ms[-1]} while it runs, {held.p99_ms[-1]} held", file=sys.stderr, flush=True)
    finally:
        windows.go_on()
    took_s = running.seconds + len(running.p99_ms) * SETTLING_S
    if importing.done():
        end = f"was done after running for {took_s:.0f} s"
        await importing
        await bench.settled(windows.edges)
        await bench.check()
    else:
        end = f"was under way still after running for {took_s:.0f} s"
        importing.cancel()
    ratios = [one / other for one, other in zip(running.p99_ms, held.p99_ms, strict=True)]
    pooled = running.load.delay_ms(0.99) / held.load.delay_ms(0.99)
    notes = [
        TARGET,
        f"The p99 of all calls while the import runs is {pooled:.2f} times that while it is held; the median of the "
        f"{len(ratios)} pairs of windows is {statistics.median(ratios):.2f}, the middle half "
        f"{' to '.join(f'{each:.2f}' for each in statistics.quantiles(ratios, n=4)[::2])}.",
        f"{RATE} admissions/s, each ended and settled, over {ACCOUNTS:,} accounts. The import of {LINES:,} new "
        f"accounts, with a number and three limits each, {end}.",
        "Edges, services and servers share the machine's cores. What an open transaction of that length costs is in "
        "both rows.",
        f"Load average over the last five minutes: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores.",
    ]
    rows = [running.row(RUNNING), held.row(HELD)]
    return [Table(f"Admission during an import of {LINES:,} accounts", COLUMNS, rows, notes)]


async def run() -> list[Table]:
    """The tables for docs/benchmarks.md."""
    async with AsyncExitStack() as stack:
        services = {"call-admission", "administration", "rating", "payment", "auth"}
        system = await stack.enter_async_context(LocalSystem(services=services))
        operator = await stack.enter_async_context(OperatorClient(system))
        bus = await stack.enter_async_context(Bus(system.nats_url, name="bench"))
        publisher = await stack.enter_async_context(bus.publisher())
        connection = await databases.connect(system.database_url)
        stack.push_async_callback(connection.close)
        await operator.deck()
        await operator.carrier("127.0.0.1:9")
        events = await stack.enter_async_context(EventsNats(publisher, "bench", Metrics(), os.urandom))
        targets, credentials = system.targets("call-admission"), system.credentials("edge-proxy")
        pool = await stack.enter_async_context(StreamPool(SERVICE, targets, ranking, credentials=credentials))
        await pool.wait_up(10.0)
        bench = Bench(system, operator, connection, publisher)
        return await measure(Windows(system, operator, Edges(pool, events)), bench)
