"""The coalescing stream ends: breaks, shutdowns and cancellations lose nothing that was answered."""

import asyncio
import random
import socket

import pytest

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.metrics import Metrics
from callwarden.common.rpc.stream.client import BREAKS, NotSent
from callwarden.kernel.errors import (
    TimedOut,
    Unavailable,
)
from callwarden.testing.waiting import eventually

from .example_server import Serve
from .stream_helpers import Clients, Hanging, count, echo, echo_later, value


async def test_a_break_fails_what_is_in_flight_and_what_comes_after(serve: Serve, clients: Clients) -> None:
    hanging = Hanging(as_future=False)
    served = await serve({"Count": hanging})
    metrics = Metrics()
    client = await clients.to(served.target, metrics=metrics)
    calls = [asyncio.create_task(count(client)) for _ in range(20)]
    await hanging.begun.wait()
    await served.stop()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    # Sent, so that nobody knows whether it was done: not a NotSent.
    assert {type(end) for end in ends} == {Unavailable}
    with pytest.raises(NotSent):
        await count(client)
    assert value(metrics, BREAKS, served.target) >= 1


async def test_it_reconnects_by_itself(serve: Serve, clients: Clients) -> None:
    first = await serve({"Count": echo})
    client = await clients.to(first.target)
    await count(client)
    await first.stop()
    with pytest.raises(Unavailable):
        await count(client)
    await serve({"Count": echo}, port=first.server.port)
    await client.connected()
    assert (await count(client, "again")).not_owned == ["again"]


async def test_a_target_that_is_not_there_is_unavailable_before_the_time_out(clients: Clients) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        client = await clients.to(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(NotSent):
            await count(client, timeout_s=60)


async def test_a_server_that_shuts_down_answers_what_it_has(serve: Serve, clients: Clients) -> None:
    release, begun = asyncio.Event(), asyncio.Event()

    async def wait(request: pb.CountRequest) -> pb.CountReply:
        begun.set()
        await release.wait()
        return echo(request)

    served = await serve({"Count": wait})
    client = await clients.to(served.target)
    calls = [asyncio.create_task(count(client, str(n))) for n in range(30)]
    await begun.wait()
    assert client._connection is not None
    told = client._connection.leaving
    draining = asyncio.create_task(served.server.drain(30))
    await told
    release.set()
    assert [reply.not_owned[0] for reply in await asyncio.gather(*calls)] == [str(n) for n in range(30)]
    await draining  # long before the 30 s: the stream was closed when all was answered


async def test_a_shutdown_under_load_loses_no_request(serve: Serve, clients: Clients) -> None:
    """While one server drains and the next takes over its port, every call is answered or certainly not sent."""
    served = await serve({"Count": echo_later})
    client = await clients.to(served.target)
    answered = 0
    enough, over = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        nonlocal answered
        while not over.is_set():
            try:
                await count(client)
            except NotSent:
                await client.connected()
            else:
                answered += 1
                if answered % 200 == 0:
                    enough.set()

    askers = [asyncio.create_task(ask()) for _ in range(20)]
    await enough.wait()
    await served.server.drain(30)
    enough.clear()
    await serve({"Count": echo_later}, port=served.server.port)
    await enough.wait()
    over.set()
    await asyncio.gather(*askers)  # any other error than NotSent fails here


async def test_thousands_with_cancellations_and_time_outs_leave_nothing_behind(serve: Serve, clients: Clients) -> None:
    rng = random.Random(20)

    async def sometimes_slow(request: pb.CountRequest) -> pb.CountReply:
        if request.sequence % 7 == 0:
            await asyncio.Event().wait()
        for _ in range(request.sequence % 5):
            await asyncio.sleep(0)
        return echo(request)

    served = await serve({"Count": sometimes_slow})
    client = await clients.to(served.target)
    await client.connected()  # on a busy machine the first connection may take longer than calls wait for it

    async def one(number: int) -> str:
        patience_s = 0.05 if number % 7 == 0 else 60
        call = asyncio.create_task(count(client, str(number), sequence=number, timeout_s=patience_s))
        if rng.random() < 0.1:
            await asyncio.sleep(0)
            call.cancel()
        try:
            assert (await call).not_owned == [str(number)]
        except (TimedOut, asyncio.CancelledError) as error:
            return type(error).__name__
        return "answered"

    ends = await asyncio.gather(*(one(number) for number in range(3_000)))
    assert ends.count("answered") > 2_000
    assert client.in_flight == 0
    assert {end for number, end in enumerate(ends) if number % 7 == 0} == {"TimedOut", "CancelledError"}
    assert {end for number, end in enumerate(ends) if number % 7 != 0} == {"answered", "CancelledError"}
    stream = next(iter(served.servicer._streams))
    await eventually(lambda: not stream.running, what="the last ones are swept")
