"""The coalescing stream: answers reach who asked, time and load are bounded, ends are told."""

import asyncio
import gc
import random
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.stream.v1 import stream_pb2
from callwarden.common import trace
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.rpc.client import channel
from callwarden.common.rpc.stream import StreamClient
from callwarden.common.rpc.stream.bounds import GOODBYE_ID, IN_FLIGHT_MAX, ITEM_BYTES_MAX, STREAMS_WORTH
from callwarden.common.rpc.stream.client import BREAKS, CALLS, FRAMES, NotSent
from callwarden.common.rpc.stream.servicer import DROPPED, RUNNING
from callwarden.kernel.errors import (
    Conflict,
    Denied,
    Exhausted,
    Internal,
    Invalid,
    NotFound,
    TimedOut,
    Unavailable,
)
from callwarden.testing.waiting import eventually

from .example_server import Serve, Served

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


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.close()


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


@HANDLERS
async def test_each_caller_gets_its_own_answer(serve: Serve, clients: Clients, handler: Any) -> None:
    client = await clients.to((await serve({"Count": handler})).target)
    replies = await asyncio.gather(*(count(client, f"edge-{number}") for number in range(500)))
    assert [reply.not_owned[0] for reply in replies] == [f"edge-{number}" for number in range(500)]


async def test_answers_may_come_in_any_order(serve: Serve, clients: Clients) -> None:
    waiting: dict[str, asyncio.Future[pb.CountReply]] = {}
    all_here = asyncio.Event()

    def hold(request: pb.CountRequest) -> "asyncio.Future[pb.CountReply]":
        waiting[request.edge] = asyncio.get_running_loop().create_future()
        if len(waiting) == 50:
            all_here.set()
        return waiting[request.edge]

    client = await clients.to((await serve({"Count": hold})).target)
    calls = {str(n): asyncio.create_task(count(client, str(n))) for n in range(50)}
    await all_here.wait()
    for edge in random.Random(7).sample(sorted(waiting), 50):
        waiting[edge].set_result(pb.CountReply(not_owned=[edge]))
        assert (await calls[edge]).not_owned == [edge]


async def test_what_is_asked_at_once_goes_in_few_messages(serve: Serve, clients: Clients) -> None:
    metrics = Metrics()
    served = await serve({"Count": echo})
    client = await clients.to(served.target, metrics=metrics)
    await asyncio.gather(*(count(client) for _ in range(256)))
    assert value(metrics, CALLS, served.target) == 256
    assert value(metrics, FRAMES, served.target) <= 3


async def test_a_request_on_an_idle_stream_is_sent_at_once(serve: Serve, clients: Clients) -> None:
    metrics = Metrics()
    served = await serve({"Count": echo})
    client = await clients.to(served.target, metrics=metrics)
    for _ in range(5):
        await count(client)
    assert value(metrics, FRAMES, served.target) == value(metrics, CALLS, served.target) == 5


@pytest.mark.parametrize(
    "error", [Invalid("a"), Denied("b"), NotFound("c"), Conflict("d"), Exhausted("e"), Unavailable("f"), TimedOut("g")]
)
async def test_an_error_keeps_its_kind_and_message(serve: Serve, clients: Clients, error: Exception) -> None:
    async def fail(request: Any) -> Any:
        raise error

    def fail_at_once(request: Any) -> Any:
        raise error

    def fail_future(request: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    client = await clients.to((await serve({"Count": fail, "ListBans": fail_at_once, "AddBan": fail_future})).target)
    for method in ("Count", "ListBans", "AddBan"):
        with pytest.raises(type(error)) as caught:
            await client.call(method, pb.CountRequest(), pb.CountReply, timeout_s=30)
        assert str(caught.value) == str(error)


async def test_no_text_of_an_unforeseen_exception_leaves_the_process(serve: Serve, clients: Clients) -> None:
    async def fail(request: Any) -> Any:
        raise RuntimeError("postgresql://user:secret@db")

    def fail_at_once(request: Any) -> Any:
        raise Internal("postgresql://user:secret@db")

    client = await clients.to((await serve({"Count": fail, "ListBans": fail_at_once})).target)
    for method in ("Count", "ListBans"):
        with pytest.raises(Internal) as caught:
            await client.call(method, pb.CountRequest(), pb.CountReply, timeout_s=30)
        assert str(caught.value) == "internal error"


async def test_a_handler_that_gives_no_message_is_an_internal_error(serve: Serve, clients: Clients) -> None:
    async def nothing(request: Any) -> None:
        return None

    def nothing_at_once(request: Any) -> None:
        return None

    def nothing_future(request: Any) -> "asyncio.Future[None]":
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    handlers = {"Count": nothing, "ListBans": nothing_at_once, "AddBan": nothing_future}
    client = await clients.to((await serve(handlers)).target)
    for method in handlers:
        with pytest.raises(Internal):
            await client.call(method, pb.CountRequest(), pb.CountReply, timeout_s=30)


async def test_unknown_methods_and_unreadable_requests_are_errors_and_the_stream_goes_on(
    serve: Serve, clients: Clients
) -> None:
    class Garbage:
        def SerializeToString(self) -> bytes:
            return b"\xff\xff\xff"

    client = await clients.to((await serve({"Count": echo})).target)
    with pytest.raises(Internal):
        await client.call("Nonesuch", pb.CountRequest(), pb.CountReply, timeout_s=30)
    with pytest.raises(Invalid):
        await client.call("Count", Garbage(), pb.CountReply, timeout_s=30)
    assert (await count(client, "still")).not_owned == ["still"]


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


@pytest.fixture(params=[False, True], ids=["coroutine", "future"])
def hanging(request: pytest.FixtureRequest) -> Hanging:
    return Hanging(as_future=request.param)


async def test_work_whose_time_has_passed_is_cancelled(serve: Serve, clients: Clients, hanging: Hanging) -> None:
    served = await serve({"Count": hanging})
    client = await clients.to(served.target)
    with pytest.raises(TimedOut):
        await count(client, timeout_s=0.05)
    await hanging.cancelled.wait()
    assert total(served.metrics, DROPPED) == 1
    assert client.in_flight == 0


async def test_work_whose_caller_is_cancelled_is_cancelled(serve: Serve, clients: Clients, hanging: Hanging) -> None:
    served = await serve({"Count": hanging})
    client = await clients.to(served.target)
    call = asyncio.create_task(count(client))
    await hanging.begun.wait()
    call.cancel()
    await hanging.cancelled.wait()
    assert value(served.metrics, DROPPED, "cancelled") == 1
    with pytest.raises(asyncio.CancelledError):
        await call


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


async def test_work_whose_client_is_gone_is_cancelled(serve: Serve, clients: Clients, hanging: Hanging) -> None:
    served = await serve({"Count": hanging})
    client = await clients.to(served.target)
    call = asyncio.create_task(count(client))
    await hanging.begun.wait()
    await clients.close()
    await hanging.cancelled.wait()
    with pytest.raises((Unavailable, asyncio.CancelledError)):
        await call


async def test_a_request_that_is_cancelled_before_it_is_written_is_never_sent(serve: Serve, clients: Clients) -> None:
    asked: list[str] = []

    def note(request: pb.CountRequest) -> pb.CountReply:
        asked.append(request.edge)
        return pb.CountReply()

    client = await clients.to((await serve({"Count": note})).target)
    await count(client, "first")
    given_up = asyncio.create_task(count(client, "given up"))
    kept = asyncio.create_task(count(client, "kept"))
    await asyncio.sleep(0)  # both have asked, the writer has not had its turn
    given_up.cancel()
    await kept
    assert asked == ["first", "kept"]


@HANDLERS
async def test_trace_call_id_and_deadline_reach_the_handler(serve: Serve, clients: Clients, handler: Any) -> None:
    seen: list[tuple[str, str, float | None]] = []

    def note(request: pb.CountRequest) -> Any:
        seen.append((trace.traceparent(), trace.call_id(), trace.deadline_remaining_s()))
        return handler(request)

    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    client = await clients.to((await serve({"Count": note})).target)
    with trace.scope(traceparent=traceparent, call_id="a84b4c76e66710@pc33"):
        await count(client, timeout_s=20)
    await count(client, timeout_s=20)
    assert [(parent, call_id) for parent, call_id, _ in seen] == [(traceparent, "a84b4c76e66710@pc33"), ("", "")]
    assert all(remaining_s is not None and 0 < remaining_s <= 20 for _, _, remaining_s in seen)


@HANDLERS
async def test_text_that_is_no_unicode_harms_no_other_request(serve: Serve, clients: Clients, handler: Any) -> None:
    def refuse(request: Any) -> Any:
        raise NotFound("no user \udc80")

    client = await clients.to((await serve({"Count": handler, "ListBans": refuse})).target)
    with trace.scope(call_id="\udc80", traceparent="\udcff"):
        strange = count(client, "strange")
        replies = await asyncio.gather(strange, count(client, "other"))
    assert [reply.not_owned[0] for reply in replies] == ["strange", "other"]
    with pytest.raises(NotFound, match=r"no user \?"):
        await client.call("ListBans", pb.CountRequest(), pb.CountReply, timeout_s=30)


async def test_a_writer_that_fails_ends_its_stream_and_the_next_one_works(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unpackable(int):
        """A deadline that no arithmetic is possible with."""

        def __sub__(self, other: Any) -> Any:
            raise ZeroDivisionError

    client = await clients.to((await serve({"Count": echo})).target)
    await count(client)
    broken = client._connection
    assert broken is not None
    asked = asyncio.create_task(count(client))
    await asyncio.sleep(0)
    item_id, method, payload, _, scope = broken.queue.pop()
    broken.queue.append((item_id, method, payload, Unpackable(), scope))
    with pytest.raises(Unavailable):
        await asked
    await broken.leaving
    await eventually(lambda: client._connection not in (None, broken), what="it has another stream")
    assert (await count(client, "again")).not_owned == ["again"]


async def test_a_coroutine_keeps_its_own_scope_while_others_run(serve: Serve, clients: Clients) -> None:
    async def slow(request: pb.CountRequest) -> pb.CountReply:
        for _ in range(3):
            await asyncio.sleep(0)
        return pb.CountReply(not_owned=[trace.call_id()])

    client = await clients.to((await serve({"Count": slow})).target)

    async def ask(call_id: str) -> str:
        with trace.scope(call_id=call_id):
            return (await count(client)).not_owned[0]

    wanted = [f"call-{number}" for number in range(100)]
    assert await asyncio.gather(*map(ask, wanted)) == wanted


async def test_the_deadline_is_never_later_than_that_of_the_request_being_served(
    serve: Serve, clients: Clients
) -> None:
    remaining: list[float | None] = []

    def note(request: Any) -> pb.CountReply:
        remaining.append(trace.deadline_remaining_s())
        return pb.CountReply()

    client = await clients.to((await serve({"Count": note})).target)
    mono_s = asyncio.get_running_loop().time()
    with trace.scope(deadline_s=mono_s + 10):
        await count(client, timeout_s=1000)
    assert remaining[0] is not None
    assert remaining[0] <= 10
    with trace.scope(deadline_s=mono_s - 1), pytest.raises(TimedOut):
        await count(client, timeout_s=1000)
    assert len(remaining) == 1


async def test_a_client_with_too_much_in_flight_says_no_at_once(serve: Serve, clients: Clients) -> None:
    hanging = Hanging(as_future=False)
    client = await clients.to((await serve({"Count": hanging})).target, in_flight_max=8)
    calls = [asyncio.create_task(count(client)) for _ in range(8)]
    await hanging.begun.wait()
    with pytest.raises(Exhausted):
        await count(client)
    calls[0].cancel()
    with suppress(asyncio.CancelledError):
        await calls[0]
    ninth = asyncio.create_task(count(client, timeout_s=0.05))  # there is room again
    with pytest.raises(TimedOut):
        await ninth
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_server_with_too_much_to_do_says_no_and_serves_what_it_has(serve: Serve, clients: Clients) -> None:
    release = asyncio.Event()

    async def wait(request: pb.CountRequest) -> pb.CountReply:
        await release.wait()
        return echo(request)

    client = await clients.to((await serve({"Count": wait}, in_flight_max=8)).target)
    calls = [asyncio.create_task(count(client, str(n))) for n in range(12)]
    refused = await asyncio.gather(*calls[8:], return_exceptions=True)
    assert [type(error) for error in refused] == [Exhausted] * 4
    release.set()
    assert [reply.not_owned[0] for reply in await asyncio.gather(*calls[:8])] == list("01234567")


async def test_all_streams_together_are_bounded(serve: Serve, clients: Clients) -> None:
    hanging = Hanging(as_future=False)
    served = await serve({"Count": hanging, "ListBans": echo}, in_flight_max=2)
    most = 2 * STREAMS_WORTH
    every = [await clients.to(served.target) for _ in range(STREAMS_WORTH + 1)]
    calls = [asyncio.create_task(count(client)) for client in every for _ in range(2)]
    refused = await first_ended(calls, 2)
    assert [type(call.exception()) for call in refused] == [Exhausted] * 2
    assert hanging.calls == most
    running = [call for call in calls if call not in refused]
    running[0].cancel()
    await hanging.cancelled.wait()
    assert value(served.metrics, DROPPED, "cancelled") == 1
    for call in running:
        call.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await eventually(lambda: samples_of(served.metrics, RUNNING) == [0], what="nothing is left")


async def first_ended(calls: list[Any], wanted: int) -> list[Any]:
    done: set[Any] = set()
    while len(done) < wanted:
        newly, _ = await asyncio.wait(set(calls) - done, return_when=asyncio.FIRST_COMPLETED)
        done |= newly
    return [call for call in calls if call in done]


async def test_requests_and_replies_beyond_the_size_bound_are_errors(serve: Serve, clients: Clients) -> None:
    def large(request: Any) -> pb.CountReply:
        return pb.CountReply(not_owned=["x" * (ITEM_BYTES_MAX + 1)])

    client = await clients.to((await serve({"Count": large, "ListBans": echo})).target)
    with pytest.raises(Invalid):
        await count(client, "x" * (ITEM_BYTES_MAX + 1))
    with pytest.raises(Internal):
        await count(client)


async def test_large_requests_do_not_make_too_large_a_message(serve: Serve, clients: Clients) -> None:
    client = await clients.to((await serve({"Count": echo})).target)
    payload = "x" * (ITEM_BYTES_MAX - 100)
    replies = await asyncio.gather(*(count(client, payload) for _ in range(16)))
    assert all(len(reply.not_owned[0]) == len(payload) for reply in replies)


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


def test_the_bound_in_flight_is_the_same_on_both_sides() -> None:
    assert (StreamClient.__init__.__kwdefaults__ or {})["in_flight_max"] == IN_FLIGHT_MAX
