"""Whole calls on real SIP: SIPp through Callwarden, beside Kamailio as a plain proxy and no proxy at all.

Callwarden challenges, verifies, admits, relays, settles; Kamailio only relays. SIPp, PostgreSQL and NATS run on the
same cores. Environment: BENCH_RATES (calls/s, comma-separated), BENCH_SECONDS (each step), BENCH_ACCOUNTS.
"""

import asyncio
import os
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kamailio import Kamailio
from benchmarks.report import Table, pacing_factor, reference_us
from callwarden.local.ports import reserve
from callwarden.local.system import LocalSystem
from callwarden.local.usage import usage
from callwarden.testing import sipp
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.waiting import eventually

RATES = [int(rate) for rate in os.environ.get("BENCH_RATES", "100,250,500,600,700,800").split(",")]
SECONDS = int(os.environ.get("BENCH_SECONDS", "15"))
ACCOUNTS = int(os.environ.get("BENCH_ACCOUNTS", "1000"))
HOLD_MS = 1_000
HALF_LOAD = 250
TARGET = 500
WARM_RATE = 125
# What a call and its delay may cost, and what Kamailio took for a relayed call on the machine of which that was said
# (DESIGN.md, Budget): the middle of 210 to 260 µs.
CPU_US_MAX = 1_500
DELAY_MS_MAX = 10
KAMAILIO_US = 235


@dataclass(frozen=True, slots=True)
class Step:
    """One rate held for SECONDS."""

    rate: int
    result: sipp.Result
    cpu_us: dict[str, float]

    @property
    def cpu_us_total(self) -> float:
        return sum(self.cpu_us.values())


async def step(
    scenario: str, remote: str, rate: int, users: Path, folder: Path, pids: dict[str, int], port: int
) -> Step:
    """SIPp at a rate, with the CPU that each process took for a call of it, in microseconds."""
    calls = rate * SECONDS
    before = usage(*pids.values())
    result = await sipp.run(
        scenario,
        remote,
        folder=folder,
        local_port=port,
        calls=calls,
        rate=rate,
        hold_ms=HOLD_MS,
        injection=users,
        called="493012345",
        realm=DEFAULT_REALM,
        measure=True,
        timeout_s=SECONDS + 60,
    )
    after = usage(*pids.values())
    cpu_us = {
        name: (after[pid].cpu_s - before[pid].cpu_s) * 1e6 / calls
        for name, pid in pids.items()
        if pid in before and pid in after
    }
    return Step(rate, result, cpu_us)


async def run() -> list[Table]:
    if shutil.which("sipp") is None:
        raise SystemExit("benchmarks: calls needs SIPp: apt-get install sip-tester")
    with tempfile.TemporaryDirectory(prefix="callwarden-bench-") as folder:
        # On disk, since the database's writes are part of what is measured; passed through by PostgreSQL's user.
        os.chmod(folder, 0o711)
        return await _run(Path(folder))


async def _run(folder: Path) -> list[Table]:
    # Before anything runs beside it.
    reference = await asyncio.to_thread(reference_us)
    factors = {rate: await asyncio.to_thread(pacing_factor, rate) for rate in (HALF_LOAD, TARGET)}
    async with AsyncExitStack() as stack:
        port, carrier_port, plain_port = (reserve() for _ in range(3))
        carrier = await stack.enter_async_context(
            sipp.Answerer("answerer.xml", folder / "carrier", carrier_port.number)
        )
        system = await stack.enter_async_context(LocalSystem(folder / "state", fsync=True, log_level="warning"))
        users = await _provision(system, carrier.address, folder)
        pids = {name: child.pid for name, child in system.children().items()}
        await _warm(system, users, folder, port.number)
        ours = []
        rss: dict[str, int] = {}
        for rate in RATES:
            here = folder / f"ours-{rate}"
            ours.append(await step("caller.xml", system.sip_address, rate, users, here, pids, port.number))
            for name, used in system.rss_bytes().items():
                rss[name] = max(rss.get(name, 0), used)
            print(
                f"callwarden {rate}/s: {ours[-1].result.failed} failed, {ours[-1].cpu_us_total:.0f} us/call", flush=True
            )
            if ours[-1].result.failed or ours[-1].result.exit_code:
                break  # A call that SIPp gave up without a BYE runs on until its limits end it.
            await _settled(system)
        audit = await _books(system)
        plain: list[Step] = []
        if shutil.which("kamailio") is not None:
            kamailio = await stack.enter_async_context(
                Kamailio(folder / "kamailio", plain_port.number, carrier.address)
            )
            for rate in (HALF_LOAD, TARGET):
                here = folder / f"kamailio-{rate}"
                pid = {"kamailio": kamailio.pid}
                plain.append(await step("plain.xml", kamailio.address, rate, users, here, pid, port.number))
        direct = [
            await step("plain.xml", carrier.address, rate, users, folder / f"direct-{rate}", {}, port.number)
            for rate in (HALF_LOAD, TARGET)
        ]
    return _tables(ours, plain, direct, rss, audit, factors, reference)


async def _provision(system: LocalSystem, carrier: str, folder: Path) -> Path:
    async with OperatorClient(system) as operator:
        await operator.deck()
        await operator.apply_policy(sipp.POLICY)
        await operator.carrier(carrier)
        names = [f"user{number}" for number in range(ACCOUNTS)]
        for start in range(0, ACCOUNTS, 50):
            await asyncio.gather(
                *(operator.account(name, lines=100, credit_micros=1_000_000_000) for name in names[start : start + 50])
            )
    return sipp.users_file(folder / "users.csv", [(name, PASSWORD) for name in names])


async def _warm(system: LocalSystem, users: Path, folder: Path, port: int) -> None:
    """One call of every account: what is measured is a day's work, not the first minute after a start."""
    await sipp.run(
        "caller.xml",
        system.sip_address,
        folder=folder / "warm",
        local_port=port,
        calls=ACCOUNTS,
        rate=WARM_RATE,
        hold_ms=HOLD_MS,
        injection=users,
        called="493012345",
        realm=DEFAULT_REALM,
        timeout_s=ACCOUNTS / WARM_RATE + 60,
    )
    await _settled(system)


async def _settled(system: LocalSystem) -> None:
    async with OperatorClient(system) as operator:

        async def nothing_open() -> bool:
            return (await operator.audit()).open_holds == 0

        await eventually(nothing_open, timeout_s=180, interval_s=0.2, what="all holds settled")


async def _books(system: LocalSystem) -> str:
    async with OperatorClient(system) as operator:
        audit = await operator.audit()
    right = not audit.mismatched_accounts and audit.balance_sum_micros == audit.ledger_sum_micros
    return (
        f"Afterwards: {audit.entries:,} ledger entries, {audit.open_holds} open holds, ledger "
        f"{'equals' if right else 'DOES NOT EQUAL'} the balances."
    )


def _tables(
    ours: list[Step],
    plain: list[Step],
    direct: list[Step],
    rss: dict[str, int],
    audit: str,
    factors: dict[int, float],
    reference: float,
) -> list[Table]:
    base = {step.rate: step for step in direct}
    relayed = {step.rate: step.cpu_us_total for step in plain}
    rows: list[list[str | int | float]] = []
    for name, steps in (("Callwarden, controlled", ours), ("Kamailio, plain proxy", plain), ("no proxy", direct)):
        for one in steps:
            floor = base.get(one.rate, direct[0]).result
            rows.append(
                [
                    name,
                    one.rate,
                    one.result.successful,
                    one.result.failed,
                    one.cpu_us_total if one.cpu_us else "–",
                    one.cpu_us_total / relayed[one.rate] if one.cpu_us and relayed.get(one.rate) else "–",
                    one.cpu_us_total / reference if one.cpu_us else "–",
                    max(0.0, one.result.delay_ms(0.5) - floor.delay_ms(0.5)) if name != "no proxy" else 0.0,
                    max(0.0, one.result.delay_ms(0.99) - floor.delay_ms(0.99)) if name != "no proxy" else 0.0,
                ]
            )
    good = [one for one in ours if not one.result.failed]
    processes = sorted({name for one in ours for name in one.cpu_us})
    cpu_rows: list[list[str | int | float]] = [
        [name, *(one.cpu_us.get(name, 0.0) for one in ours), rss.get(name, 0) / 2**20] for name in processes
    ]
    cpu_rows.append(["all", *(one.cpu_us_total for one in ours), sum(rss.values()) / 2**20])
    delays = {
        one.rate: max(0.0, one.result.delay_ms(0.99) - base[one.rate].result.delay_ms(0.99))
        for one in ours
        if one.rate in base
    }
    return [
        Table(
            "Calls: challenge, verify, admit, relay, settle",
            [
                *("what", "calls/s", "good", "failed", "CPU µs per call", "of Kamailio's", "of the reference"),
                *("added set-up delay p50 ms", "p99 ms"),
            ],
            rows,
            [
                f"Each step {SECONDS} s over {ACCOUNTS:,} accounts, calls of {HOLD_MS / 1000:g} s, UDP on loopback, "
                "SIPp as caller and as carrier on the same cores. PostgreSQL with fsync on.",
                f"No call failed up to {max((one.rate for one in good), default=0)} calls/s.",
                "Set-up delay: from the INVITE with credentials to its 200; added: less that without any proxy at "
                "the same rate (or at half load).",
                "CPU: all processes of Callwarden with PostgreSQL and NATS; Kamailio with its children; never SIPp.",
                f"Reference: a fixed piece of Python took {reference:.0f} µs here just before. The same machine "
                "is half as fast on some days; compare days by this column, and by Kamailio's in the same run.",
                "What waking up costs here: the same arithmetic takes "
                + " and ".join(f"{factor:.1f} times the CPU at {rate}/s" for rate, factor in factors.items())
                + " of what it takes flat out; the figures above hold that.",
                *_judged(ours, relayed, delays),
                audit,
            ],
        ),
        Table(
            "CPU per call and peak memory of each process",
            ["process", *(f"µs at {one.rate}/s" for one in ours), "resident MiB"],
            cpu_rows,
            ["PostgreSQL's memory counts shared buffers once for each of its processes."],
        ),
    ]


def _judged(ours: list[Step], relayed: dict[int, float], delays: dict[int, float]) -> list[str]:
    """The figures against what they are to reach: as they are, and by Kamailio's in the same run."""
    lines = []
    cpu = next((one.cpu_us_total for one in ours if one.rate == TARGET), None)
    if cpu is not None:
        lines.append(f"To reach: {CPU_US_MAX:,} µs a call at {TARGET}/s: {_verdict(cpu, CPU_US_MAX)} ({cpu:,.0f}).")
        if relayed.get(TARGET):
            scale = relayed[TARGET] / KAMAILIO_US
            lines.append(
                f"That was said of a machine where Kamailio takes {KAMAILIO_US} µs for a relayed call. Here it takes "
                f"{relayed[TARGET]:,.0f}, {scale:.1f} times that; by that measure {cpu / scale:,.0f} µs: "
                f"{_verdict(cpu / scale, CPU_US_MAX)}."
            )
    if HALF_LOAD in delays:
        delay = delays[HALF_LOAD]
        line = (
            f"To reach: {DELAY_MS_MAX} ms added at p99 at {HALF_LOAD}/s: {_verdict(delay, DELAY_MS_MAX)} ({delay:.1f})"
        )
        if relayed.get(TARGET):
            scaled = delay * KAMAILIO_US / relayed[TARGET]
            line += f"; by the same measure {scaled:.1f} ms: {_verdict(scaled, DELAY_MS_MAX)}"
        lines.append(line + ".")
    return lines


def _verdict(value: float, limit: float) -> str:
    return "reached" if value < limit else "not reached"
