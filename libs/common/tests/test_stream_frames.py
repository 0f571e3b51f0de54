"""The coalescing stream by its frames, as a client in another language writes them."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.stream.v1 import stream_pb2
from callwarden.common.rpc.client import channel
from callwarden.common.rpc.stream.bounds import GOODBYE_ID
from callwarden.common.rpc.stream.servicer import DROPPED

from .example_server import Serve, Served
from .stream_helpers import SERVICE, Hanging, echo, echo_later, value


class RawStream:
    """Frames as a foreign client would send them."""

    def __init__(self, opened: Any) -> None:
        self.call = opened.stream_stream(
            f"/{SERVICE}/Stream",
            request_serializer=stream_pb2.Frame.SerializeToString,
            response_deserializer=stream_pb2.Frame.FromString,
        )()

    async def send(self, *items: stream_pb2.Item) -> None:
        await self.call.write(stream_pb2.Frame(items=items))

    async def read(self, count: int) -> list[stream_pb2.Item]:
        found: list[stream_pb2.Item] = []
        while len(found) < count:
            found += (await self.call.read()).items
        return found


@pytest_asyncio.fixture
async def raw_stream() -> AsyncIterator[Any]:
    opened: list[Any] = []

    async def connect(served: Served) -> RawStream:
        opened.append(await channel(served.target).__aenter__())
        return RawStream(opened[-1])

    yield connect
    for one in opened:
        await one.close()


async def test_an_id_that_is_in_flight_already_is_refused(serve: Serve, raw_stream: Any) -> None:
    hanging = Hanging(as_future=False)
    stream = await raw_stream(await serve({"Count": hanging}))
    await stream.send(stream_pb2.Item(id=1, method="Count"), stream_pb2.Item(id=1, method="Count"))
    (refused,) = await stream.read(1)
    assert (refused.id, refused.status) == (1, 8)
    assert hanging.calls == 1


async def test_cancelling_what_is_not_there_does_nothing(serve: Serve, raw_stream: Any) -> None:
    stream = await raw_stream(await serve({"Count": echo}))
    await stream.send(stream_pb2.Item(id=9, cancel=True), stream_pb2.Item(id=1, method="Count"))
    (answer,) = await stream.read(1)
    assert (answer.id, answer.status) == (1, 0)


async def test_a_client_that_closes_its_side_gets_the_rest_of_its_answers(serve: Serve, raw_stream: Any) -> None:
    stream = await raw_stream(await serve({"Count": echo_later}))
    await stream.send(*(stream_pb2.Item(id=n, method="Count") for n in range(1, 1001)))
    await stream.call.done_writing()
    assert {item.id for item in await stream.read(1000)} == set(range(1, 1001))
    assert (await stream.call.code()).name == "OK"


async def test_a_shutdown_is_told_with_the_id_of_the_stream_itself(serve: Serve, raw_stream: Any) -> None:
    served = await serve({"Count": echo})
    stream = await raw_stream(served)
    await stream.send(stream_pb2.Item(id=1, method="Count"))
    await stream.read(1)
    draining = asyncio.create_task(served.server.drain(30))
    (goodbye,) = await stream.read(1)
    assert (goodbye.id, goodbye.status) == (GOODBYE_ID, 14)
    await stream.send(stream_pb2.Item(id=2, method="Count"))  # crossed on the wire: answered all the same
    assert [item.id for item in await stream.read(1)] == [2]
    await stream.call.done_writing()
    await draining


async def test_a_client_that_does_not_read_gets_no_unbounded_work_done(serve: Serve, raw_stream: Any) -> None:
    handled = 0

    def large(request: Any) -> pb.CountReply:
        nonlocal handled
        handled += 1
        return pb.CountReply(not_owned=["x" * 100_000])

    stream = await raw_stream(await serve({"Count": large}, in_flight_max=4))
    for number in range(1, 1001):
        await stream.send(stream_pb2.Item(id=number, method="Count"))
    assert handled < 500  # what fits into the transport's buffers, and four
    assert {item.id for item in await stream.read(1000)} == set(range(1, 1001))


async def test_work_that_is_given_up_before_its_first_step_leaves_no_warning(
    serve: Serve, raw_stream: Any, recwarn: pytest.WarningsRecorder
) -> None:
    async def never(request: Any) -> pb.CountReply:
        raise AssertionError("it was cancelled in the same message")

    served = await serve({"Count": never, "ListBans": echo})
    stream = await raw_stream(served)
    await stream.send(
        stream_pb2.Item(id=1, method="Count"),
        stream_pb2.Item(id=1, cancel=True),
        stream_pb2.Item(id=2, method="ListBans"),
    )
    assert [item.id for item in await stream.read(1)] == [2]
    assert value(served.metrics, DROPPED, "cancelled") == 1
    gc.collect()
    assert [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)] == []
