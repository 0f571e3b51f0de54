"""What the tests of the coalescing stream share."""

import asyncio
from typing import Any

import pytest

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.rpc.client import channel
from callwarden.common.rpc.stream import StreamClient

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"


class Clients:
    """Makes clients of one target and closes them."""

    def __init__(self) -> None:
        self._entered: list[Any] = []

    async def to(self, target: str, **options: Any) -> StreamClient:
        opened = await channel(target).__aenter__()
        client = await StreamClient(opened, SERVICE, target=target, **options).__aenter__()
        self._entered += [opened, client]
        return client

    async def close(self) -> None:
        while self._entered:
            await self._entered.pop().__aexit__(None, None, None)


async def count(client: StreamClient, edge: str = "", *, timeout_s: float = 30.0, **fields: Any) -> pb.CountReply:
    return await client.call("Count", pb.CountRequest(edge=edge, **fields), pb.CountReply, timeout_s=timeout_s)


def echo(request: pb.CountRequest) -> pb.CountReply:
    return pb.CountReply(not_owned=[request.edge])


async def echo_later(request: pb.CountRequest) -> pb.CountReply:
    await asyncio.sleep(0)
    return echo(request)


def echo_future(request: pb.CountRequest) -> "asyncio.Future[pb.CountReply]":
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, echo(request))
    return future


HANDLERS = pytest.mark.parametrize("handler", [echo, echo_later, echo_future])


def total(metrics: Metrics, metric: Metric) -> float:
    return sum(sample.value for found, samples in metrics.collect() if found is metric for sample in samples)


def samples_of(metrics: Metrics, metric: Metric) -> list[float]:
    return [sample.value for found, samples in metrics.collect() if found is metric for sample in samples]


def value(metrics: Metrics, metric: Metric, *labels: str) -> float:
    return metrics.counter(metric, *labels).value


class Hanging:
    """A handler that never answers, and tells when it begins and that it was cancelled."""

    def __init__(self, *, as_future: bool) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0
        self._as_future = as_future

    def __call__(self, request: Any) -> Any:
        self.calls += 1
        self.begun.set()
        if not self._as_future:
            return self._hang()
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: self.cancelled.set() if done.cancelled() else None)
        return future

    async def _hang(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
