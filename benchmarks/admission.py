"""What a call costs in call-admission: admitted over a stream, started and ended over NATS, settled. CPU a process.

The real processes (call-admission, rating, payment, PostgreSQL, NATS); this process plays the edge. Calls arrive evenly
spaced, spread over accounts, and last BENCH_ADMISSION_CALL_S. Environment: BENCH_ADMISSION_SECONDS (each row, default
8), BENCH_ADMISSION_RATES (calls/s with commas), BENCH_ADMISSION_PROCESSES, BENCH_ADMISSION_FSYNC (1: the database syncs
to disk).
"""

import asyncio
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Final

import uvloop

from benchmarks.report import Table
from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bus, Publisher
from callwarden.common.rpc.stream import StreamPool
from callwarden.limits.rendezvous import ranking
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import Operator
from callwarden.testing.waiting import eventually

SECONDS: Final = float(os.environ.get("BENCH_ADMISSION_SECONDS", "8"))
RATES: Final = tuple(int(rate) for rate in os.environ.get("BENCH_ADMISSION_RATES", "100,250,500,1000,2000").split(","))
PROCESSES: Final = int(os.environ.get("BENCH_ADMISSION_PROCESSES", "1"))
FSYNC: Final = os.environ.get("BENCH_ADMISSION_FSYNC", "0") == "1"
CALL_S: Final = float(os.environ.get("BENCH_ADMISSION_CALL_S", "1"))
ACCOUNTS: Final = 200
TARGET_US: Final = 200.0  # call-admission's own CPU a call: admission and settlement
SERVICE: Final = "callwarden.api.admission.v1.AdmissionService"
SERVERS: Final = ("call-admission", "rating", "postgres", "nats")


class Edge:
    """Places calls and tells what becomes of them, as an edge does."""

    def __init__(self, pool: StreamPool, events: Publisher, accounts: Sequence[str]) -> None:
        self._pool = pool
        self._events = events
        self._accounts = accounts
        self.delays_s: list[float] = []
        self.refused = 0
        self.failed = 0

    async def call(self, number: int) -> None:
        account = self._accounts[number % len(self._accounts)]
        hold_id, call_id = str(uuid.uuid4()), f"bench-{number}"
        request = pb.AdmitRequest(
            hold_id=hold_id,
            call_id=call_id,
            account_id=account,
            destination=f"4930{number % 5_000:06d}",
            dialled="030",
            caller_number="493012345",
            source_address="192.0.2.7",
            at_s=time.time(),
            edge="bench",
        )
        began_s = time.perf_counter()
        try:
            reply = await self._pool.call(account, "Admit", request, pb.AdmitReply, timeout_s=5.0, idempotent=True)
        except Exception as error:
            self.failed += 1
            print(f"call {number}: {error!r}", file=sys.stderr)
            return
        self.delays_s.append(time.perf_counter() - began_s)
        if not reply.HasField("admitted"):
            self.refused += 1
            return
        answered_at_s = time.time()
        started = events_pb2.CallStarted(
            hold_id=hold_id, call_id=call_id, account_id=account, answered_at_s=answered_at_s, trunk="carrier"
        )
        self._events.publish("calls.started", started.SerializeToString(), message_id=f"{hold_id}.started")
        await asyncio.sleep(CALL_S)
        ended = events_pb2.CallEnded(
            hold_id=hold_id,
            call_id=call_id,
            account_id=account,
            answered_at_s=answered_at_s,
            ended_at_s=time.time(),
            reason="caller-bye",
            trunk="carrier",
        )
        self._events.publish("calls.ended", ended.SerializeToString(), message_id=f"{hold_id}.ended")


async def offer(edge: Edge, rate: int, first: int) -> int:
    """Offers calls evenly for SECONDS; how many."""
    tasks = []
    began_s = time.perf_counter()
    count = int(rate * SECONDS)
    for number in range(count):
        due_s = began_s + number / rate
        pause_s = due_s - time.perf_counter()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        tasks.append(asyncio.create_task(edge.call(first + number)))
    await asyncio.gather(*tasks)
    return count


def cpu_of(system: LocalSystem, name: str) -> float:
    return sum(used for process, used in system.cpu_seconds().items() if process.startswith(name))


async def settled(operator: Operator) -> None:
    """Returns when no call runs any more."""

    async def all_of_them() -> bool:
        return not (await operator.audit()).open_holds

    await eventually(all_of_them, timeout_s=120.0, interval_s=0.1)


async def measure(system: LocalSystem, operator: Operator) -> list[list[str | int | float]]:
    await operator.deck()
    await operator.carrier("127.0.0.1:9")
    accounts = [
        await operator.account(f"a{number}", lines=10_000, password=None, credit_micros=10**12)
        for number in range(ACCOUNTS)
    ]
    rows: list[list[str | int | float]] = []
    async with (
        StreamPool(SERVICE, system.targets("call-admission"), ranking) as pool,
        Bus(system.nats_url, name="bench") as bus,
        bus.publisher() as events,
    ):
        number = await offer(Edge(pool, events, accounts), 100, 0)  # warms caches, plans, connections
        await settled(operator)
        for rate in RATES:
            edge = Edge(pool, events, accounts)
            before = {name: cpu_of(system, name) for name in SERVERS}
            count = await offer(edge, rate, number)
            await events.flush()
            await settled(operator)
            spent = {name: (cpu_of(system, name) - before[name]) * 1e6 / count for name in SERVERS}
            number += count
            delays = sorted(delay * 1e3 for delay in edge.delays_s)
            rss = max(used for process, used in system.rss_bytes().items() if process.startswith("call-admission"))
            rows.append(
                [
                    rate,
                    count,
                    edge.refused + edge.failed,
                    round(spent["call-admission"]),
                    round(spent["postgres"]),
                    round(spent["nats"]),
                    round(spent["rating"]),
                    round(statistics.median(delays), 2),
                    round(delays[int(len(delays) * 0.99)], 2),
                    round(rss / 2**20),
                ]
            )
    audit = await operator.audit()
    if audit.mismatched_accounts or audit.balance_sum_micros != audit.ledger_sum_micros or audit.held_sum_micros:
        raise RuntimeError(f"the books are wrong: {audit}")
    return rows


async def run() -> list[Table]:
    """The table for docs/benchmarks.md."""
    async with (
        LocalSystem(
            services={"call-admission", "rating", "payment", "auth"},
            processes={"call-admission": PROCESSES},
            fsync=FSYNC,
        ) as system,
        Operator(system) as operator,
    ):
        rows = await measure(system, operator)
    return [
        Table(
            f"Admission and settlement ({PROCESSES} process{'es' if PROCESSES > 1 else ''} of call-admission)",
            [
                "calls/s", "calls", "not admitted", "call-admission µs/call", "PostgreSQL µs/call", "NATS µs/call",
                "rating µs/call", "admit p50 ms", "admit p99 ms", "RSS MiB",
            ],
            rows,
            [
                f"CPU a call of each process, for one admission, one start, one end; target for call-admission: "
                f"{TARGET_US:g} µs.",
                "The delay is measured by the asking process on the same machine, offered load evenly spaced.",
                f"The database {'syncs' if FSYNC else 'does not sync'} to disk.",
            ],
        )
    ]  # fmt: skip


def main() -> None:
    tables = uvloop.run(run())
    for table in tables:
        print(table.to_markdown())
        print(json.dumps({"columns": list(table.columns), "rows": table.rows}))


if __name__ == "__main__":
    main()
