"""What a policy change of very many realms does to the processes that answer calls meanwhile.

The whole system runs; each change alters the policy of every realm. Meanwhile every service is asked all the time:
the edge by SIP OPTIONS, the others for /healthz, which their event loop answers. Then all processes but the edge and
NATS are stopped (SIGSTOP) and the edge alone takes over as many changes: on a cluster, services don't share a node's
last two cores. In a third part one edge's following of the policy runs in this process, and the CPU time that it
takes between two turns of the loop is measured: that is what a change costs a waiting packet, whatever else the
machine does.

Environment: BENCH_REALMS (default 1000), BENCH_REALMS_CHANGES (default 20).
"""

import asyncio
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.report import Table
from callwarden.api.policy.v1 import policy_pb2
from callwarden.common.bus import Bucket, Bus
from callwarden.common.clock import SystemClock
from callwarden.common.metrics import Metrics
from callwarden.common.policy import BUNDLE_KEY, Policies, encode_bundle
from callwarden.common.runtime import tune_garbage_collection
from callwarden.common.settings import split_listen
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.local.nats import NatsServer
from callwarden.local.system import LocalSystem
from callwarden.policy.bundle import Document, PolicySet
from callwarden.testing.waiting import eventually

REALMS: Final = int(os.environ.get("BENCH_REALMS", "1000"))
CHANGES: Final = int(os.environ.get("BENCH_REALMS_CHANGES", "20"))
TARGET_MS: Final = 10.0
_NAMES: Final = [f"r{number}.test" for number in range(REALMS)]
_SERVED: Final = _NAMES[:400]  # as many as the edge's setting has room for
EDGE: Final = "edge-proxy"
ALONE: Final = "edge-proxy alone"
_ASK_EVERY_S: Final = 0.002
_QUIET_S: Final = 5.0


async def run() -> list[Table]:
    bundles = [_bundle(revision) for revision in range(1, 2 * CHANGES + 2)]
    with tempfile.TemporaryDirectory(prefix="callwarden-bench-") as name:
        os.chmod(name, 0o711)
        folder = Path(name)
        inside = await _inside(folder / "nats", bundles[: CHANGES + 1])
        return [_table(await _system(folder / "state", bundles), inside, len(bundles[0]))]


def _bundle(revision: int) -> bytes:
    """One document for all realms and one for each of them; all are different in each revision."""
    base = Document("all", {"firewall": {"allow": ["127.0.0.1/32"]}, "session": {"ringTimeout": 20 + revision % 60}})
    own = [
        Document(f"p{number}", {"realm": realm, "lines": {"max": 1 + (number + revision) % 50}, "spend": {"grace": 3}})
        for number, realm in enumerate(_NAMES[: REALMS - 1])
    ]
    return encode_bundle(PolicySet.build(revision, [base, *own]), 0.0)


# The system from outside.


class Probe:
    """Asks one process again and again, in a thread of its own, and keeps when and for how long."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self.answers: list[tuple[float, float]] = []
        """When it was asked (perf_counter), and how long the answer took."""

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(_ASK_EVERY_S):
            began_s = time.perf_counter()
            self._ask()
            self.answers.append((began_s, time.perf_counter() - began_s))

    def delays_ms(self, spans: list[tuple[float, float]]) -> list[float]:
        """In order of length, of what was under way within these spans of time."""
        return sorted(
            took_s * 1e3
            for began_s, took_s in self.answers
            if any(began_s < end_s and start_s < began_s + took_s for start_s, end_s in spans)
        )


def _sip(address: str) -> Callable[[], None]:
    host, port = split_listen(address)
    ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours.connect((host, port))
    ours.settimeout(5.0)
    own = "{}:{}".format(*ours.getsockname())
    numbers = count()

    def ask() -> None:
        number = next(numbers)
        ours.send(
            f"OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-o{number};rport\r\n"
            f"From: <sip:probe@{own}>;tag=p\r\nTo: <sip:{address}>\r\nCall-ID: o{number}@{own}\r\n"
            f"CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n".encode()
        )
        if not ours.recv(65_535).startswith(b"SIP/2.0 200"):
            raise SystemExit("benchmarks: realms: the edge doesn't answer OPTIONS")

    return ask


def _http(address: str) -> Callable[[], None]:
    host, port = split_listen(address)

    def ask() -> None:
        with socket.create_connection((host, port), timeout=5.0) as ours:
            ours.sendall(b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n")
            if not ours.recv(65_535).startswith(b"HTTP/1.1 200"):
                raise SystemExit("benchmarks: realms: a service doesn't answer /healthz")

    return ask


@contextmanager
def _asking(probes: dict[str, Probe]) -> Iterator[None]:
    stopping = threading.Event()
    threads = [threading.Thread(target=probe.run, args=(stopping,)) for probe in probes.values()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


async def _system(folder: Path, bundles: list[bytes]) -> dict[str, tuple[list[float], list[float]]]:
    """By service the delays in ms without a change, and while every process takes one over."""
    env = {"edge-proxy": {"CALLWARDEN_REALMS": ",".join(_SERVED)}}
    async with LocalSystem(folder, env=env, log_level="warning") as system, Bus(system.nats_url, name="bench") as bus:
        probes = {
            process.service.name: Probe(
                _sip(process.sip_address) if process.sip_address else _http(process.endpoint.metrics)
            )
            for process in system.all_processes()
        }
        await _put(bus, bundles[0], 1, len(probes))
        with _asking(probes):
            quiet = [(time.perf_counter(), time.perf_counter() + _QUIET_S)]
            await asyncio.sleep(_QUIET_S)  # nothing happens: that is what is measured
            changing = []
            for revision, bundle in enumerate(bundles[1 : CHANGES + 1], start=2):
                began_s = time.perf_counter()
                await _put(bus, bundle, revision, len(probes))
                changing.append((began_s, time.perf_counter()))
        delays = {name: (probe.delays_ms(quiet), probe.delays_ms(changing)) for name, probe in probes.items()}
        with _stopped(system, EDGE), _asking({EDGE: probes[EDGE]}):
            alone = []
            for revision, bundle in enumerate(bundles[CHANGES + 1 :], start=CHANGES + 2):
                began_s = time.perf_counter()
                await _put(bus, bundle, revision, 1)
                alone.append((began_s, time.perf_counter()))
        return {**delays, ALONE: (delays[EDGE][0], probes[EDGE].delays_ms(alone))}


@contextmanager
def _stopped(system: LocalSystem, name: str) -> Iterator[None]:
    """All services stand still but the one of that name."""
    pids = [process.child.pid for process in system.all_processes() if process.service.name != name]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def _put(bus: Bus, bundle: bytes, revision: int, processes: int) -> None:
    """Returns when all of them have acknowledged it."""
    await bus.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle)

    async def everywhere() -> bool:
        acks = (await bus.kv(Bucket.POLICY_ACKS).items()).values()
        return sum(policy_pb2.Ack.FromString(ack.value).revision == revision for ack in acks) == processes

    await eventually(everywhere, timeout_s=60.0, interval_s=0.02)


# One edge's following, from inside.


async def _inside(folder: Path, bundles: list[bytes]) -> list[float]:
    """For each change the longest that the loop was kept from its next turn, in ms of CPU."""
    worst: list[float] = []
    async with NatsServer(folder) as nats, Bus(nats.url, name="follower") as bus:

        async def write(bundle: bytes) -> None:
            async with Bus(nats.url, name="writer") as writer:
                await writer.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle)

        policies = Policies(bus, "edge-proxy", "bench", SystemClock(), Metrics())
        books = [RuleBook(policies.current, tuple(_SERVED))]
        swapped = asyncio.Event()

        def swap(current: PolicySet) -> None:
            books[0] = RuleBook(current, tuple(_SERVED))
            swapped.set()

        policies.on_change(swap)
        following = asyncio.create_task(policies.follow())
        tune_garbage_collection()
        for bundle in bundles:
            turns: list[float] = []
            watching = asyncio.create_task(_watch_turns(turns))
            swapped.clear()
            await asyncio.to_thread(asyncio.run, write(bundle))  # its CPU time isn't the edge's
            await swapped.wait()
            for realm in _SERVED:  # a request for each of them
                books[0].for_realm(realm)
                await asyncio.sleep(0)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            worst.append(max(turns) * 1e3)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return worst


async def _watch_turns(turns: list[float]) -> None:
    last_s = time.thread_time()
    while True:
        await asyncio.sleep(0)
        unix_s = time.thread_time()
        turns.append(unix_s - last_s)
        last_s = unix_s


def _table(outside: dict[str, tuple[list[float], list[float]]], inside: list[float], size: int) -> Table:
    rows: list[list[str | int | float]] = [
        [name, f"{len(during):,}", _share(quiet, 0.5), quiet[-1], _share(during, 0.5), _share(during, 0.99), during[-1]]
        for name, (quiet, during) in outside.items()
    ]
    reached = "reached" if max(inside) < TARGET_MS else "missed"
    return Table(
        f"A policy change of {REALMS:,} realms: how long a service doesn't answer",
        ["service", "asked", "quiet p50 ms", "max ms", "changing p50 ms", "p99 ms", "max ms"],
        rows,
        [
            f"{CHANGES} changes, each of every realm ({size:,} bytes), from the write until all processes have "
            f"acknowledged it. The edge serves {len(_SERVED)} of the realms.",
            "All services, PostgreSQL, NATS and the probes share the machine's cores, and all services take over each "
            "change at the same moment: these delays hold the waiting for a core, and the quiet columns some of it.",
            f"In the row {ALONE} all other services stand still meanwhile (SIGSTOP).",
            f"An edge's following alone, CPU between two turns of its loop: worst of {len(inside)} changes "
            f"{max(inside):.1f} ms, median {_share(sorted(inside), 0.5):.1f} ms. To reach: under {TARGET_MS:g} ms: "
            f"{reached}.",
        ],
    )


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
