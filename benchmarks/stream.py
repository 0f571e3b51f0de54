"""What a request between two of our processes costs: a unary call, the coalescing stream over gRPC, and the same over
a direct connection. CPU on each side.

Two processes on uvloop with the interceptors, metrics, bounds and garbage collection that services run with. The
message is rate-guard's CountRequest with one address, about 60 bytes. Environment: BENCH_STREAM_SECONDS (each row,
default 2).
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import psutil
import uvloop

from benchmarks.report import Table
from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.interceptors import Serving
from callwarden.common.rpc.server import Server
from callwarden.common.rpc.stream import StreamClient, StreamServicer
from callwarden.common.runtime import tune_garbage_collection

SECONDS: Final = float(os.environ.get("BENCH_STREAM_SECONDS", "2"))
IN_FLIGHT: Final = (1, 64, 512)
SERVICE: Final = "callwarden.api.rateguard.v1.RateGuardService"
TARGET_US: Final = 17.0  # over both sides at 64 in flight (DESIGN.md D5: 6 to 10 a side)

Ask = Callable[[], Awaitable[Any]]


class Example(StreamServicer, rateguard_pb2_grpc.RateGuardServiceServicer):
    """The same answer in each of the ways a handler may give it."""

    def __init__(self) -> None:
        super().__init__(
            {
                "Count": (pb.CountRequest, self._at_once),
                "AddBan": (pb.CountRequest, self._future),
                "ListBans": (pb.CountRequest, self._coroutine),
            }
        )
        self._loop = asyncio.get_running_loop()

    def _at_once(self, request: pb.CountRequest) -> pb.CountReply:
        return pb.CountReply()

    def _future(self, request: pb.CountRequest) -> "asyncio.Future[pb.CountReply]":
        """As a group commit answers: by a later turn of the loop."""
        future: asyncio.Future[pb.CountReply] = self._loop.create_future()
        self._loop.call_soon(future.set_result, pb.CountReply())
        return future

    async def _coroutine(self, request: pb.CountRequest) -> pb.CountReply:
        await asyncio.sleep(0)
        return pb.CountReply()

    async def Count(self, request: pb.CountRequest, context: Any) -> pb.CountReply:  # noqa: N802
        return pb.CountReply()

    async def ListBans(self, request: Any, context: Any) -> pb.ListBansReply:  # noqa: N802
        return pb.ListBansReply()

    async def AddBan(self, request: Any, context: Any) -> pb.AddBanReply:  # noqa: N802
        return pb.AddBanReply()

    async def RemoveBans(self, request: Any, context: Any) -> pb.RemoveBansReply:  # noqa: N802
        return pb.RemoveBansReply()


async def serve() -> None:
    """Until standard input ends."""
    server = Server("127.0.0.1:0", Serving())
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(Example(), server)
    await server.start()
    tune_garbage_collection()
    print(server.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.drain(1)


async def measure(ask: Ask, in_flight: int, server: psutil.Process) -> tuple[float, ...]:
    """requests/s, CPU of client and of server per request in µs, p50 and p99 in ms."""
    took: list[float] = []

    async def worker(until_s: float) -> None:
        while (began_s := time.perf_counter()) < until_s:
            await ask()
            took.append(time.perf_counter() - began_s)

    async def work(seconds: float) -> None:
        until_s = time.perf_counter() + seconds
        await asyncio.gather(*(worker(until_s) for _ in range(in_flight)))

    await work(SECONDS / 5)  # connections, caches
    took.clear()
    began_s, client_s, server_s = time.perf_counter(), _cpu_s(), sum(server.cpu_times()[:2])
    await work(SECONDS)
    elapsed_s = time.perf_counter() - began_s
    client_s, server_s = _cpu_s() - client_s, sum(server.cpu_times()[:2]) - server_s
    took.sort()
    count = len(took)
    return (
        count / elapsed_s,
        client_s / count * 1e6,
        server_s / count * 1e6,
        took[count // 2] * 1e3,
        took[count * 99 // 100] * 1e3,
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def ask(port: int, server_pid: int) -> list[list[Any]]:
    """All rows, measured from this process."""
    server = psutil.Process(server_pid)
    request = pb.CountRequest(edge="edge-0", sequence=1, counts=[pb.AddressCount(address="192.0.2.1", messages=3)])
    rows: list[list[Any]] = []
    tune_garbage_collection()
    target = f"127.0.0.1:{port}"
    async with (
        channel(target) as opened,
        StreamClient(opened, SERVICE) as stream,  # without host:port it can't leave gRPC
        StreamClient(opened, SERVICE, target=target) as direct,
    ):
        await direct.connected()
        count = rateguard_pb2_grpc.RateGuardServiceStub(opened).Count

        async def by_unary() -> None:
            await unary(count, request, timeout_s=5)

        def by_stream(method: str) -> Ask:
            return lambda: stream.call(method, request, pb.CountReply, timeout_s=5)

        ways: dict[str, Ask] = {
            "unary": by_unary,
            "stream, answered at once": by_stream("Count"),
            "stream, by a Future": by_stream("AddBan"),
            "stream, by a coroutine": by_stream("ListBans"),
            "direct, answered at once": lambda: direct.call("Count", request, pb.CountReply, timeout_s=5),
        }
        for name, way in ways.items():
            for in_flight in IN_FLIGHT:
                per_s, client_us, server_us, p50_ms, p99_ms = await measure(way, in_flight, server)
                rows.append(
                    [name, in_flight, round(per_s), client_us, server_us, client_us + server_us, p50_ms, p99_ms]
                )
    return rows


async def run() -> list[Table]:
    """Start both processes, collect the rows."""
    pipe = asyncio.subprocess.PIPE
    module = [sys.executable, "-m", "benchmarks.stream"]
    server = await asyncio.create_subprocess_exec(*module, "serve", stdin=pipe, stdout=pipe)
    try:
        assert server.stdout is not None
        port = (await server.stdout.readline()).decode().strip()
        client = await asyncio.create_subprocess_exec(*module, "ask", port, str(server.pid), stdout=pipe)
        output, _ = await client.communicate()
    finally:
        assert server.stdin is not None
        server.stdin.close()
        await server.wait()
    rows = json.loads(output)
    both_us = next(row[5] for row in rows if row[0] == "stream, answered at once" and row[1] == 64)
    verdict = "reached" if both_us <= TARGET_US else "missed"
    return [
        Table(
            "A request between two services",
            ["way", "in flight", "requests/s", "client µs", "server µs", "both µs", "p50 ms", "p99 ms"],
            rows,
            [
                f"µs are CPU per request. To reach: {TARGET_US:g} µs over both sides at 64 in flight: {verdict}.",
                "Client and server have one core each here and are both full at 64 and more, so p50 is queueing.",
            ],
        )
    ]


def main() -> None:
    match sys.argv[1:]:
        case ["serve"]:
            uvloop.run(serve())
        case ["ask", port, pid]:
            print(json.dumps(uvloop.run(ask(int(port), int(pid)))))
        case _:
            sys.exit("python -m benchmarks stream")


if __name__ == "__main__":
    main()
