"""The life of a real process: it says when it is ready, goes in the right order, and ends as it was told."""

import asyncio
import signal
import uuid
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import make_url

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.bus import Bus, Stream
from callwarden.common.rpc.client import channel
from callwarden.common.rpc.stream import StreamClient
from callwarden.common.sql.schema import REVISION
from callwarden.local.nats import NatsServer
from callwarden.local.ports import reserved
from callwarden.testing import databases
from callwarden.testing.waiting import eventually

from .child import Start, get

pytestmark = pytest.mark.integration

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"


async def test_it_says_where_it_is_and_that_it_is_ready(start: Start) -> None:
    process = await start("processes.py", "works")
    ready = await process.ready()
    assert ready["pid"] == process.child.pid
    assert (ready["service"], ready["instance"], ready["sip_port"]) == ("example", "example-0", 5060)
    assert await get(ready["metrics_port"], "/readyz") == (200, "ok\n")
    assert await get(ready["metrics_port"], "/healthz") == (200, "ok\n")
    status, body = await get(ready["metrics_port"], "/metrics")
    assert status == 200
    assert "callwarden_process_ready 1.0" in body
    assert (await get(ready["metrics_port"], "/else"))[0] == 404
    assert (await get(ready["metrics_port"], "/metrics", "POST"))[0] == 405
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ready['grpc_port']}") as opened:
        health: Any = health_pb2_grpc
        reply = await health.HealthStub(opened).Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_goes_in_the_right_order_and_finishes_what_it_has(
    start: Start, number: signal.Signals
) -> None:
    process = await start("processes.py", "works", drain_timeout_s="30")
    ready = await process.ready()
    async with channel(f"127.0.0.1:{ready['grpc_port']}") as opened, StreamClient(opened, SERVICE) as stream:
        stub: Any = rateguard_pb2_grpc.RateGuardServiceStub(opened)
        unary = asyncio.ensure_future(stub.Count(pb.CountRequest(), timeout=60))
        streamed = asyncio.create_task(stream.call("Count", pb.CountRequest(), pb.CountReply, timeout_s=60))
        await process._until(lambda: process.output.count("working") == 2)
        process.signal(number)
        assert [(await call).not_owned for call in (unary, streamed)] == [["done"], ["done"]]
    assert await process.ends() == 0
    assert not process.ready_file.exists()
    order = [line for line in process.output if line != "working"]
    assert order == ["consumer done", "cancelled background", "closed third", "closed second", "closed first"]
    assert [line["event"] for line in process.logged][-3:] == [
        "service.stopping",
        "resource.close_failed",
        "service.stopped",
    ]


async def test_what_does_not_finish_in_time_is_cut_off(start: Start) -> None:
    process = await start("processes.py", "hangs", drain_timeout_s="0.1")
    ready = await process.ready()
    async with channel(f"127.0.0.1:{ready['grpc_port']}") as opened:
        stub: Any = rateguard_pb2_grpc.RateGuardServiceStub(opened)
        call = asyncio.ensure_future(stub.Count(pb.CountRequest(), timeout=60))
        await process.says("working")
        process.signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    assert await process.ends() == 0


async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    process = await start("processes.py", "hangs", drain_timeout_s="600")
    ready = await process.ready()
    async with channel(f"127.0.0.1:{ready['grpc_port']}") as opened:
        stub: Any = rateguard_pb2_grpc.RateGuardServiceStub(opened)
        call = asyncio.ensure_future(stub.Count(pb.CountRequest(), timeout=60))
        await process.says("working")
        process.signal(signal.SIGTERM)
        await process.logs("service.stopping")
        process.signal(signal.SIGTERM)
        assert await process.ends() == 128 + signal.SIGTERM
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_while_it_drains_it_is_not_ready(start: Start) -> None:
    process = await start("processes.py", "hangs", drain_timeout_s="600")
    ready = await process.ready()
    async with channel(f"127.0.0.1:{ready['grpc_port']}") as opened:
        stub: Any = rateguard_pb2_grpc.RateGuardServiceStub(opened)
        call = asyncio.ensure_future(stub.Count(pb.CountRequest(), timeout=60))
        await process.says("working")
        process.signal(signal.SIGTERM)
        await process.logs("service.stopping")
        status, body = await get(ready["metrics_port"], "/readyz")
        assert status == 503
        assert "stopping" in body
        assert (await get(ready["metrics_port"], "/healthz"))[0] == 200, "a draining process is not to be killed"
        call.cancel()
        assert not process.ready_file.exists()


async def test_told_to_stop_before_it_is_ready_it_stops(start: Start) -> None:
    process = await start("processes.py", "never_starts")
    await process.says("starting")
    process.signal(signal.SIGTERM)
    assert await process.ends() == 0
    assert process.output == ["starting", "closed first"]
    assert not process.ready_file.exists()


async def test_a_background_task_that_fails_ends_the_process_with_its_error(start: Start) -> None:
    process = await start("processes.py", "fails_in_background")
    assert await process.ends() == 1
    line = next(line for line in process.logged if line["event"] == "task.failed")
    assert (line["task"], line["error"]) == ("follower", "the follower fell over")
    assert "traceback" in line
    assert process.output == ["closed first"]


async def test_a_mistake_at_start_is_told_with_its_traceback(start: Start) -> None:
    process = await start("processes.py", "fails_at_start")
    assert await process.ends() == 1
    line = next(line for line in process.logged if line["event"] == "service.start_failed")
    assert "traceback" in line
    assert process.output == ["closed first"]


async def test_what_is_missing_at_start_is_one_clear_line(start: Start) -> None:
    process = await start("processes.py", "lacks_something")
    assert await process.ends() == 1
    line = next(line for line in process.logged if line["event"] == "service.start_failed")
    assert line["error"] == "the rating service is not available"
    assert "traceback" not in line
    assert "Traceback" not in process.errors


async def test_an_address_in_use_is_one_clear_line(start: Start) -> None:
    first = await start("processes.py", "works")
    port = (await first.ready())["grpc_port"]
    second = await start("processes.py", "works", grpc_listen=f"127.0.0.1:{port}")
    assert await second.ends() == 1
    line = next(line for line in second.logged if line["event"] == "service.start_failed")
    assert line["error"] == f"can't listen on 127.0.0.1:{port} for gRPC"


async def test_wrong_settings_are_a_line_each_without_their_values(start: Start) -> None:
    process = await start("processes.py", "works", grpc_listen="hunter2", drain_timeout_s="-1")
    assert await process.ends() == 2
    lines = process.errors.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "CALLWARDEN_GRPC_LISTEN",
        "CALLWARDEN_DRAIN_TIMEOUT_S",
    ]
    assert "hunter2" not in process.errors
    assert "Traceback" not in process.errors


async def test_a_list_that_does_not_parse_is_one_clear_line(start: Start) -> None:
    process = await start("processes.py", "works", realms="hunter2")
    assert await process.ends() == 2
    (line,) = process.errors.splitlines()
    assert "realms" in line
    assert "hunter2" not in line


async def test_a_consumer_finishes_what_it_has_taken(start: Start, nats_server: NatsServer) -> None:
    process = await start("processes.py", "uses_nats", nats_url=nats_server.url)
    await process.ready()
    async with Bus(nats_server.url, name="test") as bus, bus.publisher() as events:
        events.publish("calls.ended", b"", message_id="hold.ended")
        await process.says("working")
        process.signal(signal.SIGTERM)
        assert await process.ends() == 0
        assert process.output == ["working", "handled hold.ended"]
        info = await bus.jetstream.consumer_info(Stream.CALLS.value, "settle")
        assert (info.num_ack_pending, info.num_pending) == (0, 0), "acknowledged before the connection was closed"


async def test_without_nats_it_does_not_start_and_says_why(start: Start) -> None:
    process = await start(
        "processes.py", "uses_nats", nats_url="nats://user:hunter2@127.0.0.1:1", start_timeout_s="0.3"
    )
    line = await process.logs("service.start_failed")
    assert line["error"] == "NATS at nats://…@127.0.0.1:1 is not available"
    assert "hunter2" not in process.errors
    assert await process.ends() == 1


async def test_a_collector_that_is_away_does_not_hold_up_the_end(start: Start) -> None:
    process = await start("processes.py", "works", otlp_endpoint="http://127.0.0.1:1", trace_sample_ratio="1")
    await process.ready()
    process.signal(signal.SIGTERM)
    assert await process.ends() == 0
    assert process.logged[-1]["event"] == "service.stopped"


async def test_the_database_is_there_when_asked_for(start: Start, database_url: str) -> None:
    process = await start("processes.py", "uses_database", database_url=database_url)
    await process.ready()
    assert process.output == ["selected 1"]
    process.signal(signal.SIGTERM)
    assert await process.ends() == 0


async def test_it_waits_for_the_schema_says_why_it_is_not_ready_and_goes_on_when_it_is_there(
    start: Start, postgres_url: str
) -> None:
    name = f"test_{uuid.uuid4().hex}"
    url_of_ours = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    server = await databases.connect(postgres_url)
    with reserved() as port:
        process = await start(
            "processes.py",
            "uses_database",
            database_url=url_of_ours,
            metrics_listen=f"127.0.0.1:{port}",
        )

        async def becomes(problem: str) -> None:
            async def is_so() -> bool:
                return await get(port, "/readyz") == (503, f"not ready: started, schema ({problem})\n")

            await eventually(is_so, timeout_s=60)
            assert (await get(port, "/healthz"))[0] == 200, "it is not to be killed for what others have to do"

        assert (await process.logs("schema.waiting"))["reason"] == "the database doesn't exist yet"
        await becomes("the database doesn't exist yet")
        await server.execute(f"CREATE DATABASE {name}")
        try:
            await becomes("the database has no tables yet")
            owner = await databases.connect(url_of_ours)
            await owner.execute("CREATE TABLE alembic_version (version_num text)")
            await owner.execute("INSERT INTO alembic_version VALUES ('0001')")
            await becomes(f"the database's schema is 0001, this release needs {REVISION}")
            assert process.output == []
            # The next release's migrations keep what this one reads.
            await owner.execute("UPDATE alembic_version SET version_num = '9000'")
            await process.ready()
            assert process.output == ["selected 1"]
            assert await get(port, "/readyz") == (200, "ok\n")
            process.signal(signal.SIGTERM)
            assert await process.ends() == 0
            await owner.close()
        finally:
            await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await server.close()


async def test_told_to_stop_while_it_waits_for_the_schema_it_stops(start: Start) -> None:
    process = await start("processes.py", "uses_database", database_url="postgresql+asyncpg://u:p@127.0.0.1:1/d")
    assert (await process.logs("schema.waiting"))["reason"] == "the database doesn't answer"
    process.signal(signal.SIGTERM)
    assert await process.ends() == 0
