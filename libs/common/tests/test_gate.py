"""Whom a server lets in: by token or certificate, by unary call, on a stream, on a direct connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.metrics import Metrics
from callwarden.common.rpc import direct
from callwarden.common.rpc.client import Credentials, channel, unary
from callwarden.common.rpc.gate import REFUSED, CertificateIdentities, Gate, TokenIdentities
from callwarden.common.rpc.interceptors import ERROR_KEY, Serving
from callwarden.common.rpc.server import Server
from callwarden.common.rpc.stream import StreamClient
from callwarden.common.rpc.tokens import METADATA_KEY, TokenFile, TokenHashes, callers_json, new_tokens
from callwarden.kernel.errors import CallwardenError, Denied, Internal, Invalid, Unauthenticated, Unavailable
from callwarden.testing.certificates import Authority
from callwarden.testing.waiting import eventually

from .child import Start
from .example_server import ExampleServicer
from .stream_helpers import SERVICE, count, echo, value

pytestmark = pytest.mark.cases

PATH = f"/{SERVICE}"


def untyped(value: Any) -> Any:
    """Bytes in, bytes out: grpc's types know no methods without messages."""
    return value


class Guarded:
    """A server behind a gate, and the credentials of whoever comes."""

    def __init__(self, folder: Path, how: str) -> None:
        self.metrics = Metrics()
        self.how = how
        self._folder = folder
        self._authority = Authority(folder, "ours")
        self.tokens = new_tokens(("edge-proxy", "call-admission", "admin", "monitor"))
        (folder / "callers.json").write_text(callers_json(self.tokens))
        for role, token in self.tokens.items():
            (folder / role).write_text(token)
        tls = self._authority.files("server", "rate-guard") if how == "certificates" else None
        identities = CertificateIdentities() if tls else TokenIdentities(TokenHashes(folder / "callers.json"))
        self.gate = Gate(identities, self.metrics)
        serving = Serving(asyncio.Event(), metrics=self.metrics, gate=self.gate)
        self.server = Server("127.0.0.1:0", serving, tls, direct=how == "tokens")
        servicer = ExampleServicer({"Count": echo, "ListBans": lambda _: pb.ListBansReply()})
        rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(servicer, self.server)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def credentials(self, role: str) -> Credentials:
        if self.how == "certificates":
            return self._authority.files(role, role)
        return TokenFile(self._folder / role)

    def channel(self, role: str) -> grpc.aio.Channel:
        return channel(self.target, self.credentials(role), peer="rate-guard")

    def strangers(self) -> list[Credentials | None]:
        """None with a certificate that our authority signed for a role."""
        if self.how == "certificates":
            return [self._authority.files("intruder", "intruder"), self._authority.files("by-address", "localhost")]
        (self._folder / "wrong").write_text("x" * 43)
        (self._folder / "hash").write_text(json.loads((self._folder / "callers.json").read_text())["admin"][0])
        return [None, TokenFile(self._folder / "wrong"), TokenFile(self._folder / "hash")]

    def refused(self, method: str, reason: str) -> float:
        return value(self.metrics, REFUSED, f"{PATH}/{method}", reason)


@pytest_asyncio.fixture(params=["tokens", "tokens-grpc", "certificates"])
async def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Guarded]:
    """By tokens with direct connections and without, and by certificates."""
    made = Guarded(tmp_path, request.param)
    await made.server.start()
    yield made
    await made.server.drain(0)


async def test_a_role_may_call_what_the_table_allows_it(guarded: Guarded) -> None:
    async with guarded.channel("edge-proxy") as edge, guarded.channel("admin") as admin:
        by_edge, by_admin = (rateguard_pb2_grpc.RateGuardServiceStub(each) for each in (edge, admin))
        assert (await unary(by_edge.Count, pb.CountRequest(edge="e"))).not_owned == ["e"]
        await unary(by_admin.ListBans, pb.ListBansRequest())
        for method, request in ((by_edge.ListBans, pb.ListBansRequest()), (by_admin.Count, pb.CountRequest())):
            with pytest.raises(Denied, match="may not call"):
                await unary(method, request)
    assert guarded.refused("ListBans", "role") == guarded.refused("Count", "role") == 1


async def test_a_stranger_is_answered_nothing(guarded: Guarded) -> None:
    for number, stranger in enumerate(guarded.strangers(), 1):
        async with channel(guarded.target, stranger, peer="rate-guard") as opened:
            with pytest.raises(Unauthenticated, match="only callers that it knows"):
                await unary(rateguard_pb2_grpc.RateGuardServiceStub(opened).Count, pb.CountRequest())
            call = untyped(opened.stream_stream(f"{PATH}/Stream"))()
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert direct.METADATA_KEY not in dict(await call.initial_metadata())  # not even where frames would go
            async with StreamClient(opened, SERVICE, target=guarded.target) as stream:
                with pytest.raises(Unavailable):
                    await count(stream, timeout_s=1.0)
        assert guarded.refused("Count", "unknown caller") == number
    assert guarded.refused("Stream", "unknown caller") >= len(guarded.strangers())


async def test_a_certificate_of_another_authority_reaches_nothing(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "certificates")
    await guarded.server.start()
    theirs = Authority(tmp_path, "theirs").files("admin", "admin")
    try:
        for stranger in (theirs, None, TokenFile(tmp_path / "admin")):
            async with channel(guarded.target, stranger, peer="rate-guard") as opened:
                with pytest.raises(Unavailable):
                    await unary(rateguard_pb2_grpc.RateGuardServiceStub(opened).ListBans, pb.ListBansRequest())
    finally:
        await guarded.server.drain(0)


async def test_what_a_stream_carries_is_allowed_method_by_method(guarded: Guarded) -> None:
    async with guarded.channel("edge-proxy") as opened, StreamClient(opened, SERVICE, target=guarded.target) as stream:
        assert (await count(stream, "e")).not_owned == ["e"]
        with pytest.raises(Denied, match="may not call ListBans"):
            await stream.call("ListBans", pb.ListBansRequest(), pb.ListBansReply, timeout_s=30.0)
        with pytest.raises(Internal):  # UNIMPLEMENTED
            await stream.call("Forget", pb.ListBansRequest(), pb.ListBansReply, timeout_s=30.0)
        assert (await count(stream, "again")).not_owned == ["again"]
    async with guarded.channel("admin") as opened:
        assert await opened.stream_stream(f"{PATH}/Stream")().code() is grpc.StatusCode.PERMISSION_DENIED


async def test_health_is_for_those_we_know_and_reflection_for_the_administrator(guarded: Guarded) -> None:
    async def may(role: str, call: Callable[[grpc.aio.Channel], Awaitable[object]]) -> grpc.StatusCode:
        async with guarded.channel(role) as opened:
            while True:
                try:
                    await call(opened)
                except grpc.aio.AioRpcError as error:
                    # grpc.aio's client has a word of its own for a write that meets the server's refusal: ask again.
                    if ERROR_KEY in dict(error.trailing_metadata() or ()):
                        return error.code()
                    assert error.code() is grpc.StatusCode.INTERNAL
                else:
                    return grpc.StatusCode.OK

    async def health(opened: grpc.aio.Channel) -> object:
        stub: Any = health_pb2_grpc.HealthStub  # grpc's types know its synchronous half
        return await stub(opened).Check(health_pb2.HealthCheckRequest())

    async def reflection(opened: grpc.aio.Channel) -> object:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub
        call = stub(opened).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        return await call.read()

    assert await may("monitor", health) is grpc.StatusCode.OK
    assert await may("admin", reflection) is grpc.StatusCode.OK
    assert await may("edge-proxy", reflection) is grpc.StatusCode.PERMISSION_DENIED
    async with guarded.channel("monitor") as opened:
        with pytest.raises(Denied):
            await unary(rateguard_pb2_grpc.RateGuardServiceStub(opened).ListBans, pb.ListBansRequest())


async def test_two_tokens_in_one_call_are_none(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "tokens")
    await guarded.server.start()
    try:
        async with grpc.aio.insecure_channel(guarded.target) as opened:
            for shown in (
                [f"Bearer {guarded.tokens['edge-proxy']}", f"Bearer {guarded.tokens['admin']}"],
                [guarded.tokens["edge-proxy"]],
                ["Bearer "],
                [""],
            ):
                call: Any = untyped(opened.unary_unary(f"{PATH}/Count"))(
                    b"", metadata=[(METADATA_KEY, each) for each in shown]
                )
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        await guarded.server.drain(0)


async def test_tokens_are_exchanged_while_everything_runs(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "tokens")
    await guarded.server.start()
    try:
        async with guarded.channel("edge-proxy") as opened:
            stub = rateguard_pb2_grpc.RateGuardServiceStub(opened)
            await unary(stub.Count, pb.CountRequest())
            renewed = guarded.tokens | new_tokens(("edge-proxy",))
            (tmp_path / "callers.new").write_text(callers_json(renewed))
            (tmp_path / "callers.new").replace(tmp_path / "callers.json")
            with pytest.raises(Unauthenticated):
                await unary(stub.Count, pb.CountRequest())
            (tmp_path / "edge.new").write_text(renewed["edge-proxy"])
            (tmp_path / "edge.new").replace(tmp_path / "edge-proxy")
            await unary(stub.Count, pb.CountRequest())
            (tmp_path / "callers.json").write_text("garbled")  # half written: what was read last stays good
            await unary(stub.Count, pb.CountRequest())
    finally:
        await guarded.server.drain(0)


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough for one token", "ä" * 43])
def test_a_file_without_a_token_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(Invalid) as caught:
        TokenFile(tmp_path / "token")
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"admin": "x"}', '{"admin": ["hunter2"]}'])
def test_a_list_that_is_none_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "callers.json").write_text(text)
    with pytest.raises(Invalid) as caught:
        TokenHashes(tmp_path / "callers.json")
    assert "hunter2" not in str(caught.value)


async def test_a_method_that_says_nothing_can_not_be_served(tmp_path: Path) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="planted.proto", package="planted", syntax="proto3")
    file.message_type.add(name="Nothing")
    file.service.add(name="Planted").method.add(
        name="Forgotten", input_type=".planted.Nothing", output_type=".planted.Nothing"
    )
    descriptor_pool.Default().Add(file)
    guarded = Guarded(tmp_path, "tokens")
    with pytest.raises(Internal, match=r"planted\.Planted/Forgotten doesn't say who may call it"):
        guarded.server.add_registered_method_handlers("planted.Planted", {"Forgotten": None})


async def test_a_process_without_any_identity_does_not_start(start: Start) -> None:
    for settings in ({}, {"grpc_listen": "0.0.0.0:0"}):
        process = await start("processes.py", "works", grpc_open="false", **settings)
        assert await process.ends() == 1
        failed = await process.logs("service.start_failed")
        assert failed["field"] == "callers_file"
        assert "nothing says who may call this service" in failed["error"]
        assert process.output == []


async def test_a_process_that_is_open_on_purpose_says_so(start: Start) -> None:
    process = await start("processes.py", "works", grpc_open="true")
    assert (await process.logs("grpc.open"))["level"] == "warning"
    process.terminate()
    await process.ends()


async def test_a_refusal_is_logged_without_the_token(start: Start, tmp_path: Path) -> None:
    tokens = new_tokens(("edge-proxy", "admin"))
    for role, token in tokens.items():
        (tmp_path / role).write_text(token)
    (tmp_path / "callers.json").write_text(callers_json(tokens))
    files = {"token_file": str(tmp_path / "edge-proxy"), "callers_file": str(tmp_path / "callers.json")}
    process = await start("processes.py", "works", grpc_open="false", log_level="debug", **files)
    target = f"127.0.0.1:{(await process.ready())['grpc_port']}"
    wrong = "w" * 43
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        for shown in (wrong, tokens["edge-proxy"]):
            call: Any = untyped(opened.unary_unary(f"{PATH}/ListBans"))(
                b"", metadata=[(METADATA_KEY, f"Bearer {shown}")]
            )
            assert await call.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            assert shown not in str(await call.details())
    line = await process.logs("rpc.caller_refused")
    assert (line["method"], line["reason"], line["role"]) == (f"{PATH}/ListBans", "unknown caller", "")
    assert line["peer"].startswith("ipv4:127.0.0.1")
    process.terminate()
    await process.ends()
    assert not [shown for shown in (wrong, *tokens.values()) if shown in process.errors]


async def test_a_stream_that_is_refused_says_so_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guarded = Guarded(tmp_path, "tokens")
    await guarded.server.start()
    try:
        async with guarded.channel("monitor") as opened, StreamClient(opened, SERVICE, target=guarded.target) as stream:
            with pytest.raises(CallwardenError):
                await count(stream, timeout_s=1.0)
            await eventually(lambda: "stream.refused" in caplog.text)
    finally:
        await guarded.server.drain(0)
