"""Around every RPC: statuses, deadlines, what follows a call, health, bounds, TLS."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common import trace
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.interceptors import DEADLINE_DEFAULT_S, RPC_SECONDS, RPCS, Serving
from callwarden.common.rpc.server import MESSAGE_BYTES_MAX, Server
from callwarden.common.rpc.status import CODE_OF_KIND, INTERNAL_TEXT, MESSAGE_CHARS_MAX, to_error, to_status
from callwarden.kernel.errors import (
    ERROR_OF_KIND,
    CallwardenError,
    ErrorKind,
    Exhausted,
    Internal,
    Invalid,
    NotFound,
    TimedOut,
    Unavailable,
)
from callwarden.testing.certificates import Authority
from callwarden.testing.waiting import eventually

from .example_server import ExampleServicer, Serve

# gRPC sends a time-out with three digits, rounded up: 19.96 s becomes 20.0.
GRPC_ROUNDING_S = 1.0
SECRET = "postgresql://user:hunter2@db"


def stub_of(opened: grpc.aio.Channel) -> Any:
    return rateguard_pb2_grpc.RateGuardServiceStub(opened)


def untyped(value: Any) -> Any:
    """The stubs of grpc know its synchronous half, or nothing, of these."""
    return value


def test_the_status_table_is_total_and_one_to_one() -> None:
    assert set(CODE_OF_KIND) == set(ErrorKind)
    assert len(set(CODE_OF_KIND.values())) == len(ErrorKind)


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind is not ErrorKind.INTERNAL])
def test_an_error_survives_the_table_both_ways(kind: ErrorKind) -> None:
    code, text, field = to_status(ERROR_OF_KIND[kind]("message", field="spec.lines"))
    error = to_error(code.value[0], text, field=field)
    assert (error.kind, error.message, error.field) == (kind, "message", "spec.lines")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_of_grpc_is_some_error(code: grpc.StatusCode) -> None:
    assert isinstance(to_error(code.value[0], ""), CallwardenError)


def test_a_status_nobody_knows_is_internal() -> None:
    assert to_error(99, "").kind is ErrorKind.INTERNAL


def test_a_message_is_cut_to_what_a_header_carries() -> None:
    assert len(to_status(Invalid("x" * 10_000))[1]) == MESSAGE_CHARS_MAX


@pytest.mark.parametrize("error", [ValueError(SECRET), Internal(SECRET), OSError(SECRET), KeyError(SECRET)])
def test_what_nobody_foresaw_has_one_fixed_text(error: Exception) -> None:
    assert to_status(error) == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT, "")


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind is not ErrorKind.INTERNAL])
async def test_a_caller_gets_the_error_as_it_was_raised(serve: Serve, kind: ErrorKind) -> None:
    def refuse(request: Any) -> Any:
        raise ERROR_OF_KIND[kind]("no such rate", field="prefix")

    served = await serve({"Count": refuse})
    async with channel(served.target) as opened:
        with pytest.raises(ERROR_OF_KIND[kind]) as caught:
            await unary(stub_of(opened).Count, pb.CountRequest())
    assert (caught.value.message, caught.value.field) == ("no such rate", "prefix")
    method = "/callwarden.api.rateguard.v1.RateGuardService/Count"
    # The caller may have its answer before the server has counted it.
    await eventually(lambda: served.metrics.counter(RPCS, method, CODE_OF_KIND[kind].name).value == 1)
    await eventually(lambda: served.metrics.histogram(RPC_SECONDS, method).count == 1)


async def test_a_caller_learns_nothing_of_an_unforeseen_exception(serve: Serve) -> None:
    def fail(request: Any) -> Any:
        raise RuntimeError(SECRET)

    served = await serve({"Count": fail})
    async with grpc.aio.insecure_channel(served.target) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(opened).Count(pb.CountRequest())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT)
    assert "hunter2" not in repr(caught.value)


async def failing_after_one(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield b"one"
    raise RuntimeError(SECRET)


async def refusing_after_one(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield b"one"
    raise NotFound("no more", field="page")


async def writing_by_itself(request: Any, context: Any) -> None:
    await context.write(b"one")
    raise RuntimeError(SECRET)


async def aborting(request: Any, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.DATA_LOSS, "as the handler said")
    raise AssertionError


@pytest.mark.parametrize(
    ("behaviour", "code", "details"),
    [
        (failing_after_one, grpc.StatusCode.INTERNAL, INTERNAL_TEXT),
        (refusing_after_one, grpc.StatusCode.NOT_FOUND, "no more"),
        (writing_by_itself, grpc.StatusCode.INTERNAL, INTERNAL_TEXT),
    ],
)
@pytest.mark.parametrize("streams_requests", [False, True])
async def test_streaming_handlers_are_guarded_as_well(
    behaviour: Any, code: grpc.StatusCode, details: str, streams_requests: bool
) -> None:
    make: Any = grpc.stream_stream_rpc_method_handler if streams_requests else grpc.unary_stream_rpc_method_handler
    server = Server("127.0.0.1:0", Serving())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Pages", {"Read": make(behaviour)}),))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
            # Nothing is written where requests are a stream: the answer may end the call before that is through.
            call: Any = (
                opened.stream_stream("/test.Pages/Read")()
                if streams_requests
                else untyped(opened).unary_stream("/test.Pages/Read")(b"")
            )
            assert await call.read() == b"one"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert (caught.value.code(), caught.value.details()) == (code, details)
    finally:
        await server.drain(0)


async def test_a_handler_may_abort_by_itself() -> None:
    server = Server("127.0.0.1:0", Serving())
    handler: Any = grpc.unary_unary_rpc_method_handler(aborting)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Abort", {"Now": handler}),))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
            with pytest.raises(grpc.aio.AioRpcError, match="as the handler said"):
                await untyped(opened).unary_unary("/test.Abort/Now")(b"")
    finally:
        await server.drain(0)


@pytest.mark.parametrize("steps", range(6))
async def test_a_server_whose_start_was_cancelled_at_any_step_still_drains(steps: int) -> None:
    server = Server("127.0.0.1:0", Serving(), direct=False)
    starting = asyncio.create_task(server.start())
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    async with asyncio.timeout(30):
        await server.drain(30)
    await asyncio.wait([starting])


async def test_an_unknown_method_is_unimplemented(serve: Serve) -> None:
    served = await serve({})
    async with grpc.aio.insecure_channel(served.target) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await untyped(opened).unary_unary("/no.Such/Method")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_trace_call_id_and_deadline_go_along(serve: Serve) -> None:
    seen: list[tuple[str, str, float | None]] = []

    def note(request: Any) -> pb.CountReply:
        seen.append((trace.traceparent(), trace.call_id(), trace.deadline_remaining_s()))
        return pb.CountReply()

    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    async with channel((await serve({"Count": note})).target) as opened:
        with trace.scope(traceparent=traceparent, call_id="f81d4fae@198.51.100.7"):
            await unary(stub_of(opened).Count, pb.CountRequest(), timeout_s=30)
    ((seen_traceparent, seen_call_id, remaining_s),) = seen
    assert (seen_traceparent, seen_call_id) == (traceparent, "f81d4fae@198.51.100.7")
    assert remaining_s is not None
    assert 0 < remaining_s <= 30 + GRPC_ROUNDING_S


@pytest.mark.parametrize("call_id", ["Grüße@example", "a\nb", "x\x7f"])
async def test_a_call_id_that_no_header_carries_is_left_out(serve: Serve, call_id: str) -> None:
    seen: list[str] = []

    def note(request: Any) -> pb.CountReply:
        seen.append(trace.call_id())
        return pb.CountReply()

    async with channel((await serve({"Count": note})).target) as opened:
        with trace.scope(call_id=call_id):
            await unary(stub_of(opened).Count, pb.CountRequest())
    assert seen == [""]


async def test_a_call_without_a_deadline_gets_one(serve: Serve) -> None:
    seen: list[float | None] = []

    def note(request: Any) -> pb.CountReply:
        seen.append(trace.deadline_remaining_s())
        return pb.CountReply()

    served = await serve({"Count": note})
    async with grpc.aio.insecure_channel(served.target) as foreign:
        await stub_of(foreign).Count(pb.CountRequest())
    assert seen[0] is not None
    assert 0 < seen[0] <= DEADLINE_DEFAULT_S


async def test_the_deadline_of_our_own_caller_bounds_what_we_ask(serve: Serve) -> None:
    seen: list[float | None] = []

    def note(request: Any) -> pb.CountReply:
        seen.append(trace.deadline_remaining_s())
        return pb.CountReply()

    served = await serve({"Count": note})
    async with channel(served.target) as opened:
        with trace.scope(deadline_s=time.monotonic() + 20):
            await unary(stub_of(opened).Count, pb.CountRequest(), timeout_s=1000)
        with trace.scope(deadline_s=time.monotonic() - 1), pytest.raises(TimedOut):
            await unary(stub_of(opened).Count, pb.CountRequest(), timeout_s=1000)
    assert len(seen) == 1, "nobody waits for the second: it is not asked"
    assert seen[0] is not None
    assert seen[0] <= 20 + GRPC_ROUNDING_S


async def test_work_whose_time_has_passed_is_cancelled(serve: Serve) -> None:
    cancelled = asyncio.Event()

    async def hang(request: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with channel((await serve({"Count": hang})).target) as opened:
        with pytest.raises(TimedOut):
            await unary(stub_of(opened).Count, pb.CountRequest(), timeout_s=0.05)
        await cancelled.wait()


async def test_a_server_that_is_not_there_is_unavailable_without_its_address() -> None:
    async with channel("127.0.0.1:1") as opened:  # tcpmux: nobody serves it
        with pytest.raises(Unavailable) as caught:
            await unary(stub_of(opened).Count, pb.CountRequest(), timeout_s=30)
    assert "127.0.0.1" not in caught.value.message


async def test_a_message_beyond_the_bound_is_refused(serve: Serve) -> None:
    served = await serve({"Count": lambda request: pb.CountReply()})
    async with grpc.aio.insecure_channel(served.target) as foreign:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(foreign).Count(pb.CountRequest(edge="x" * (MESSAGE_BYTES_MAX + 1)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    async with channel(served.target) as opened:
        with pytest.raises(Exhausted):
            await unary(stub_of(opened).Count, pb.CountRequest(edge="x" * (MESSAGE_BYTES_MAX + 1)))


async def test_health_says_serving_and_then_not(serve: Serve) -> None:
    served = await serve({})
    async with grpc.aio.insecure_channel(served.target) as opened:
        check = untyped(health_pb2_grpc).HealthStub(opened).Check
        for name in ("", "callwarden.api.rateguard.v1.RateGuardService"):
            reply = await check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        await served.server.not_ready()
        reply = await check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_services(serve: Serve) -> None:
    served = await serve({})
    async with grpc.aio.insecure_channel(served.target) as opened:
        call = untyped(reflection_pb2_grpc).ServerReflectionStub(opened).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {service.name for service in (await call.read()).list_services_response.service}
        call.cancel()
    assert names >= {"callwarden.api.rateguard.v1.RateGuardService", "grpc.health.v1.Health"}


async def test_an_address_in_use_is_a_clear_error(serve: Serve) -> None:
    served = await serve({})
    with pytest.raises(Invalid, match="can't listen on") as caught:
        await Server(served.target, Serving()).start()
    assert caught.value.field == "grpc_listen"


async def test_mutual_tls_lets_in_who_our_authority_knows_and_nobody_else(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    server = Server("localhost:0", Serving(), ours.files("server"))
    servicer = ExampleServicer({"Count": lambda request: pb.CountReply(not_owned=["secure"])})
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(servicer, server)
    await server.start()
    target = f"localhost:{server.port}"
    try:
        async with channel(target, ours.files("client")) as opened:
            assert (await unary(stub_of(opened).Count, pb.CountRequest())).not_owned == ["secure"]
        for stranger in (channel(target, theirs.files("client")), channel(target)):
            async with stranger:
                with pytest.raises(Unavailable):
                    await unary(stub_of(stranger).Count, pb.CountRequest())
    finally:
        await server.drain(0)


async def test_under_mutual_tls_a_server_must_be_the_service_that_is_asked(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    server = Server("127.0.0.1:0", Serving(), ours.files("rate-guard", "rate-guard"))
    servicer = ExampleServicer({"Count": lambda request: pb.CountReply(not_owned=["secure"])})
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(servicer, server)
    await server.start()
    client = ours.files("edge-proxy", "edge-proxy")
    target = f"127.0.0.1:{server.port}"  # as a pod's: no certificate names it
    try:
        async with channel(target, client, peer="rate-guard") as opened:
            assert (await unary(stub_of(opened).Count, pb.CountRequest())).not_owned == ["secure"]
        for wrong in (channel(target, client, peer="auth"), channel(target, client)):
            async with wrong:
                with pytest.raises(Unavailable):
                    await unary(stub_of(wrong).Count, pb.CountRequest())
    finally:
        await server.drain(0)
