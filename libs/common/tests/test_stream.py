"""The coalescing stream: answers reach who asked, time and load are bounded."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common import trace
from callwarden.common.metrics import Metrics
from callwarden.common.rpc.stream import StreamClient
from callwarden.common.rpc.stream.bounds import IN_FLIGHT_MAX, ITEM_BYTES_MAX, STREAMS_WORTH
from callwarden.common.rpc.stream.client import CALLS, FRAMES
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

from .example_server import Serve
from .stream_helpers import HANDLERS, Clients, Hanging, count, echo, samples_of, total, value


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


@pytest.fixture(params=[False, True], ids=["coroutine", "future"])
def hanging(request: pytest.FixtureRequest) -> Hanging:
    return Hanging(as_future=request.param)


async def test_work_whose_time_has_passed_is_cancelled(serve: Serve, clients: Clients, hanging: Hanging) -> None:
    served = await serve({"Count": hanging})
    client = await clients.to(served.target)
    timeout_s = 0.05
    while not hanging.begun.is_set():  # on a busy machine it may have passed before the work has begun
        with pytest.raises(TimedOut):
            await count(client, timeout_s=timeout_s)
        timeout_s *= 2
    await hanging.cancelled.wait()
    assert total(served.metrics, DROPPED) >= 1
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


def test_the_bound_in_flight_is_the_same_on_both_sides() -> None:
    assert (StreamClient.__init__.__kwdefaults__ or {})["in_flight_max"] == IN_FLIGHT_MAX
