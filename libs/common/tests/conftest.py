"""Fixtures of these tests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.bus import Bus
from callwarden.common.metrics import Metrics
from callwarden.common.rpc.interceptors import Serving
from callwarden.common.rpc.server import Server
from callwarden.common.rpc.stream import Handler
from callwarden.common.telemetry import Tracer
from callwarden.local.nats import NatsServer

from .child import Process, Start
from .example_server import ExampleServicer, Serve, Served
from .stream_helpers import Clients


@pytest_asyncio.fixture(params=["direct", "grpc"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """`served = await serve({"Count": handler})`; `host=` and `port=` to choose the place, or to come back at it. Each
    test runs twice: with streams that go on over a direct connection, and without.
    """
    async with AsyncExitStack() as stack:

        async def start(
            handlers: Mapping[str, Handler],
            *,
            host: str = "127.0.0.1",
            port: int = 0,
            tracer: Tracer | None = None,
            **options: Any,
        ) -> Served:
            serving = Serving(asyncio.Event(), tracer or Tracer(None), Metrics())
            server = Server(f"{host}:{port}", serving, direct=request.param == "direct")
            servicer = ExampleServicer(handlers, **options)
            rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(servicer, server)
            await server.start()
            stack.push_async_callback(server.drain, 0)
            return Served(server, servicer, host)

        yield start


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`process = await start("processes.py", "works", log_level="debug")`: script, arguments, settings."""
    started: list[Process] = []

    async def run(script: str, *arguments: str, **settings: str) -> Process:
        ready_file = tmp_path / f"ready-{len(started)}.json"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CALLWARDEN_", "OTEL"))
        }
        environment |= {"CALLWARDEN_READY_FILE": str(ready_file), "CALLWARDEN_INSTANCE": "example-0"}
        environment |= {"CALLWARDEN_GRPC_OPEN": "true"}
        environment |= {f"CALLWARDEN_{name.upper()}": value for name, value in settings.items()}
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name(script)),
            *arguments,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(Process(child, ready_file))
        return started[-1]

    yield run
    for process in started:
        if process.child.returncode is None:
            process.child.kill()
            await process.ends()


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus(nats_server.url, name="test") as connected:
        yield connected
        connected.stopping.set()


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.close()
