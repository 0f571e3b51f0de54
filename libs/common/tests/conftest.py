"""Fixtures of these tests."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio

from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.metrics import Metrics
from callwarden.common.rpc.interceptors import Serving
from callwarden.common.rpc.server import Server
from callwarden.common.rpc.stream import Handler
from callwarden.common.telemetry import Tracer

from .example_server import ExampleServicer, Serve, Served


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """`served = await serve({"Count": handler})`; `port=` to come back at the same place."""
    async with AsyncExitStack() as stack:

        async def start(
            handlers: Mapping[str, Handler], *, port: int = 0, tracer: Tracer | None = None, **options: Any
        ) -> Served:
            serving = Serving(asyncio.Event(), tracer or Tracer(None, 0.0), Metrics())
            server = Server(f"127.0.0.1:{port}", serving)
            servicer = ExampleServicer(handlers, **options)
            rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(servicer, server)
            await server.start()
            stack.push_async_callback(server.drain, 0)
            return Served(server, servicer)

        yield start
