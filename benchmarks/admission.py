"""What admission and settlement carry and cost: flat out, at half of that, with more accounts, with more processes.

The real processes (call-admission, rating, PostgreSQL, NATS) on the same cores; this process plays the edges: it asks
over one gRPC stream to each process and tells by JetStream how the calls ended, by the edge's own adapter, which sends
together what ends within 20 ms. A row is over when every call of it is settled, and its rate is calls by that time.
Accounts are made in the database directly; they have no limit that they reach. CPU is each process's own, a call.

Environment: BENCH_ADMISSION_SECONDS (each row, default 4), BENCH_ADMISSION_ACCOUNTS (default 10000),
BENCH_ADMISSION_GROWTH (numbers of accounts with commas, rising), BENCH_ADMISSION_PROCESSES (of call-admission, with
commas), BENCH_ADMISSION_IN_FLIGHT (calls that are asked for at a time, flat out), BENCH_ADMISSION_SHARDS (of the one
hot account), BENCH_ADMISSION_STARTS (1: edges also tell that calls were answered), BENCH_ADMISSION_FSYNC (1: the
database syncs to disk).
"""

import asyncio
import hashlib
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import uvloop

from benchmarks.report import Table, reference_us
from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.common.bus import Bus, Publisher
from callwarden.common.metrics import Metrics
from callwarden.common.rpc.stream import StreamPool
from callwarden.edge_proxy.adapters.events_nats import EventsNats
from callwarden.edge_proxy.core.effects import CallEnded, CallStarted
from callwarden.kernel.errors import CallwardenError
from callwarden.limits.rendezvous import ranking
from callwarden.local.system import LocalSystem
from callwarden.testing import databases
from callwarden.testing.operator import DEFAULT_REALM, OperatorClient
from callwarden.testing.waiting import eventually


def _numbers(name: str, default: str) -> tuple[int, ...]:
    return tuple(int(number) for number in os.environ.get(name, default).split(","))


SECONDS: Final = float(os.environ.get("BENCH_ADMISSION_SECONDS", "4"))
ACCOUNTS: Final = int(os.environ.get("BENCH_ADMISSION_ACCOUNTS", "10000"))
GROWTH: Final = _numbers("BENCH_ADMISSION_GROWTH", "1000,100000,1000000")
PROCESSES: Final = _numbers("BENCH_ADMISSION_PROCESSES", "1,2,4")
IN_FLIGHT: Final = int(os.environ.get("BENCH_ADMISSION_IN_FLIGHT", "256"))
SHARDS: Final = int(os.environ.get("BENCH_ADMISSION_SHARDS", "8"))
STARTS: Final = os.environ.get("BENCH_ADMISSION_STARTS", "0") == "1"
FSYNC: Final = os.environ.get("BENCH_ADMISSION_FSYNC", "0") == "1"
SERVICE: Final = "callwarden.api.admission.v1.AdmissionService"
SERVERS: Final = ("call-admission", "postgres", "nats", "rating")
UNTOLD_MAX: Final = 20_000  # calls admitted and not yet settled, above which the edges wait: 4 s of work
TALK_S: Final = 30.0  # what calls are told to have lasted; they end at once, so that rows don't run into each other
TARGETS: Final = (
    "Targets: 5,000 admits and settlements/s over 10,000 accounts, 2,000/s on one sharded account, p99 under 20 ms at "
    "half load, under 150 µs of CPU a call in call-admission."
)
CREATE: Final = """
INSERT INTO account (id, realm, name, type, currency, prepaid, deck, overdraft_micros, max_lines, shards)
SELECT md5('bench-' || n)::uuid, $3, 'bench-' || n, 'enduser', 'EUR', true, 'retail', 1000000000000, 1000000, $4
FROM generate_series($1::int, $2::int) AS n"""
CREATE_ROWS: Final = 100_000  # a statement
HOT: Final = -1  # the sharded account's number


def account_id(number: int) -> str:
    return str(uuid.UUID(hashlib.md5(f"bench-{number}".encode(), usedforsecurity=False).hexdigest()))


@dataclass(slots=True)
class Load:
    """What the edges saw."""

    delays_s: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    begun: int = 0

    def delay_ms(self, share: float) -> float:
        delays = sorted(self.delays_s)
        return round(delays[min(int(len(delays) * share), len(delays) - 1)] * 1e3, 2) if delays else 0.0


class Edges:
    """Places calls and tells what becomes of them, as edges do."""

    def __init__(self, pool: StreamPool, events: EventsNats) -> None:
        self._pool = pool
        self._events = events

    async def call(self, account: str, number: int, load: Load) -> None:
        load.begun += 1
        hold_id, call_id = str(uuid.uuid4()), f"bench-{number}"
        unix_s = time.time()
        request = pb.AdmitRequest(
            hold_id=hold_id,
            call_id=call_id,
            account_id=account,
            destination=f"4930{number % 5_000:06d}",
            dialled="030",
            caller_number="493012345",
            source_address="192.0.2.7",
            at_s=unix_s - TALK_S,
            edge="bench",
        )
        began_s = time.perf_counter()
        try:
            reply = await self._pool.call(account, "Admit", request, pb.AdmitReply, timeout_s=10.0, idempotent=True)
        except CallwardenError as error:
            load.failed += 1
            print(f"call {number}: {error!r}", file=sys.stderr)
            return
        load.delays_s.append(time.perf_counter() - began_s)
        if not reply.HasField("admitted"):
            load.refused += 1
            return
        if STARTS:
            self._events.started(CallStarted(UUID(hold_id), call_id, account, unix_s - TALK_S, "carrier", ""))
        self._events.ended(
            CallEnded(
                UUID(hold_id), call_id, account, unix_s - TALK_S, unix_s, "caller-bye", 0, "carrier", "",
                request.destination, request.caller_number, request.source_address,
            )
        )  # fmt: skip

    def flush(self) -> None:
        """Sends what waits for company."""
        self._events.flush()


class Bench:
    """One running system, its accounts and the rows measured on it."""

    def __init__(self, system: LocalSystem, operator: OperatorClient, connection: Any, events: Publisher) -> None:
        self._system = system
        self._operator = operator
        self._connection = connection
        self._events = events
        self._rng = random.Random(1)
        self._created = 0
        self._calls = 0
        self.running = max(PROCESSES)
        """Processes of call-admission that run."""

    async def accounts(self, count: int) -> float:
        """Has so many of them at least; how many seconds that took."""
        began_s = time.perf_counter()
        while self._created < count:
            last = min(self._created + CREATE_ROWS, count)
            await self._connection.execute(CREATE, self._created, last - 1, DEFAULT_REALM, 0, timeout=120)
            self._created = last
        # Now, and not by the server itself in the middle of a row.
        await self._connection.execute("VACUUM ANALYZE account", timeout=120)
        return time.perf_counter() - began_s

    async def hot_account(self) -> None:
        await self._connection.execute(CREATE, HOT, HOT, DEFAULT_REALM, SHARDS)

    async def processes(self, count: int) -> None:
        """Only so many of call-admission run from now on; fewer each time."""
        while self.running > count:
            self.running -= 1
            await self._system.stop("call-admission", self.running)

    def _pick(self, accounts: int) -> Callable[[], str]:
        if accounts == 1:
            hot = account_id(HOT)
            return lambda: hot
        chosen = [account_id(number) for number in self._rng.sample(range(accounts), min(accounts, 50_000))]
        return lambda: self._rng.choice(chosen)

    async def flat_out(self, edges: Edges, pick: Callable[[], str], load: Load) -> None:
        until_s = time.perf_counter() + SECONDS

        async def phone() -> None:
            while time.perf_counter() < until_s:
                await edges.call(pick(), self._next(), load)

        async def brake() -> None:
            nonlocal until_s
            while time.perf_counter() < until_s:
                await asyncio.sleep(0.25)
                if await self.open_holds() > UNTOLD_MAX:
                    until_s = 0.0  # settlement doesn't keep up; what was begun is counted

        await asyncio.gather(brake(), *(phone() for _ in range(IN_FLIGHT)))

    def paced(self, rate: int) -> Callable[[Edges, Callable[[], str], Load], Awaitable[None]]:
        async def offer(edges: Edges, pick: Callable[[], str], load: Load) -> None:
            began_s = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(int(rate * SECONDS)):
                    pause_s = began_s + number / rate - time.perf_counter()
                    if pause_s > 0:
                        await asyncio.sleep(pause_s)
                    group.create_task(edges.call(pick(), self._next(), load))

        return offer

    def _next(self) -> int:
        self._calls += 1
        return self._calls

    async def open_holds(self) -> int:
        return int(await self._connection.fetchval("SELECT count(*) FROM hold"))

    async def row(
        self,
        name: str,
        accounts: int,
        offer: Callable[[Edges, Callable[[], str], Load], Awaitable[None]],
    ) -> tuple[list[str | int | float], float]:
        """One row of the table, and its calls/s."""
        pick, load = self._pick(accounts), Load()
        targets = self._system.targets("call-admission")[: self.running]
        async with (
            EventsNats(self._events, "bench", Metrics(), os.urandom) as events,
            StreamPool(SERVICE, targets, ranking, credentials=self._system.credentials("edge-proxy")) as pool,
        ):
            await pool.wait_up(10.0)
            edges = Edges(pool, events)
            # Connections, plans, prices; not the accounts, which are too many to be known.
            await asyncio.gather(*(edges.call(pick(), self._next(), Load()) for _ in range(200)))
            await self.settled(edges)
            reference = reference_us()
            before, client_s = self._cpu(), time.process_time()
            began_s = time.perf_counter()
            await offer(edges, pick, load)
            offered_s = time.perf_counter() - began_s
            await self.settled(edges)
            took_s = time.perf_counter() - began_s
            after, client_s = self._cpu(), time.process_time() - client_s
        calls = max(load.begun, 1)
        spent = [round((after[name] - before[name]) * 1e6 / calls) for name in SERVERS]
        rate = calls / took_s
        row: list[str | int | float] = [
            name,
            self.running,
            accounts,
            load.begun,
            load.refused + load.failed,
            round(calls / offered_s),
            round(rate),
            load.delay_ms(0.5),
            load.delay_ms(0.99),
            *spent,
            round(client_s * 1e6 / calls),
            round(self._rss() / 2**20),
            round(reference),
        ]
        print(row, file=sys.stderr, flush=True)
        return row, rate

    def _cpu(self) -> dict[str, float]:
        used = self._system.cpu_seconds()
        return {name: sum(cpu for process, cpu in used.items() if process.startswith(name)) for name in SERVERS}

    def _rss(self) -> int:
        used = self._system.rss_bytes()
        return max(rss for process, rss in used.items() if process.startswith("call-admission"))

    async def settled(self, edges: Edges) -> None:
        """Returns when JetStream has all ends and no call runs any more."""
        edges.flush()
        await self._events.flush()

        async def all_of_them() -> bool:
            return not await self.open_holds()

        await eventually(all_of_them, timeout_s=120.0, interval_s=0.02)

    async def check(self) -> None:
        """The books are right after all that."""
        audit = await self._operator.audit(account_id(0))
        if audit.mismatched_accounts or audit.balance_sum_micros != audit.ledger_sum_micros or audit.held_sum_micros:
            raise RuntimeError(f"the books are wrong: {audit}")


COLUMNS: Final = [
    "load", "processes", "accounts", "calls", "not admitted", "admits/s", "admits and settlements/s", "admit p50 ms",
    "admit p99 ms", "call-admission µs/call", "PostgreSQL µs/call", "NATS µs/call", "rating µs/call", "edges µs/call",
    "RSS MiB", "reference µs",
]  # fmt: skip


async def measure(bench: Bench) -> list[Table]:
    rows: list[list[str | int | float]] = []
    created_s = await bench.accounts(ACCOUNTS)
    await bench.hot_account()
    for processes in sorted(set(PROCESSES) - {1}, reverse=True):
        await bench.processes(processes)
        rows.append((await bench.row("flat out", ACCOUNTS, bench.flat_out))[0])
    await bench.processes(1)
    row, rate = await bench.row("flat out", ACCOUNTS, bench.flat_out)
    rows.append(row)
    rows.reverse()
    rows.append((await bench.row("half of that", ACCOUNTS, bench.paced(round(rate / 2))))[0])
    row, rate = await bench.row("one sharded account", 1, bench.flat_out)
    rows.append(row)
    rows.append((await bench.row("half of that", 1, bench.paced(round(rate / 2))))[0])
    growth: list[list[str | int | float]] = []
    for accounts in GROWTH:
        created_s += await bench.accounts(accounts)
        growth.append((await bench.row("flat out", accounts, bench.flat_out))[0])
    await bench.check()
    notes = [
        TARGETS,
        f"Edges, services and servers share the machine's cores; {IN_FLIGHT} calls are asked for at a time. A call is "
        f"an admission{', a start' if STARTS else ''} and an end over JetStream; the rate counts the time until the "
        "last is settled.",
        "The reference is a fixed piece of Python work without I/O before each row: where it took twice as long, the "
        "machine was half as fast.",
        f"The database {'syncs' if FSYNC else 'does not sync'} to disk.",
    ]
    return [
        Table("Admission and settlement", COLUMNS, rows, [*notes, f"The sharded account has {SHARDS} shards."]),
        Table("Admission and settlement, by number of accounts", COLUMNS, growth, [f"Made in {created_s:.0f} s."]),
    ]


async def run() -> list[Table]:
    """The tables for docs/benchmarks.md."""
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(
            LocalSystem(
                services={"call-admission", "administration", "rating", "payment", "auth"},
                processes={"call-admission": max(PROCESSES)},
                fsync=FSYNC,
            )
        )
        operator = await stack.enter_async_context(OperatorClient(system))
        bus = await stack.enter_async_context(Bus(system.nats_url, name="bench"))
        events = await stack.enter_async_context(bus.publisher())
        connection = await databases.connect(system.database_url)
        stack.push_async_callback(connection.close)
        await operator.deck()
        await operator.carrier("127.0.0.1:9")
        return await measure(Bench(system, operator, connection, events))


def main() -> None:
    tables = uvloop.run(run())
    for table in tables:
        print(table.to_markdown())
        print(json.dumps({"columns": list(table.columns), "rows": table.rows}))


if __name__ == "__main__":
    main()
