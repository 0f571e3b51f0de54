"""Certificates that are renewed while processes run: by a kubelet, which exchanges all files of a Secret at once."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.interceptors import Serving
from callwarden.common.rpc.renewing import RenewingChannel
from callwarden.common.rpc.server import Server, TlsFiles
from callwarden.common.rpc.stream import StreamClient
from callwarden.common.rpc.stream import client as stream_client
from callwarden.kernel.errors import Unavailable
from callwarden.testing.certificates import Authority
from callwarden.testing.waiting import eventually

from .example_server import ExampleServicer

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"
PEER = "rate-guard"


class Secret:
    """A mounted Secret: files that are links through `..data` to the folder of the present generation."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._mount = folder / f"mount-{name}"
        self._mount.mkdir()
        self._generation = 0
        for file in ("tls.crt", "tls.key", "ca.crt"):
            (self._mount / file).symlink_to(Path("..data") / file)
        self.tls = TlsFiles(*(self._mount / file for file in ("tls.crt", "tls.key", "ca.crt")))

    def renew(self, authority: Authority) -> None:
        self._generation += 1
        folder = self._mount / f"..{self._generation}"
        folder.mkdir()
        made = authority.files(self.name, self.name)
        for source, file in ((made.cert, "tls.crt"), (made.key, "tls.key"), (made.ca, "ca.crt")):
            shutil.copy(source, folder / file)
        beside = self._mount / "..data_tmp"
        beside.symlink_to(folder.name)
        beside.replace(self._mount / "..data")


@asynccontextmanager
async def serving(tls: TlsFiles, port: int = 0) -> AsyncIterator[int]:
    server = Server(f"127.0.0.1:{port}", Serving(asyncio.Event()), tls)
    servicer = ExampleServicer({"Count": lambda request: pb.CountReply(not_owned=["secure"])})
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(servicer, server)
    await server.start()
    try:
        yield server.port
    finally:
        await server.drain(0)


async def count(opened: Any) -> list[str]:
    stub: Any = rateguard_pb2_grpc.RateGuardServiceStub(opened)
    return list((await unary(stub.Count, pb.CountRequest(), timeout_s=30)).not_owned)


async def count_on(stream: StreamClient) -> list[str]:
    return list((await stream.call("Count", pb.CountRequest(), pb.CountReply, timeout_s=30)).not_owned)


@pytest.fixture
def pods(tmp_path: Path) -> tuple[Secret, Secret]:
    """Of a server and of a client, with certificates of one authority."""
    first = Authority(tmp_path, "first")
    found = Secret(tmp_path, PEER), Secret(tmp_path, "edge-proxy")
    for each in found:
        each.renew(first)
    return found


@pytest.mark.setting("https")
async def test_new_connections_have_the_renewed_certificates_of_both_sides_and_old_ones_go_on(
    pods: tuple[Secret, Secret], tmp_path: Path
) -> None:
    server, client = pods
    shutil.copytree(tmp_path / "mount-edge-proxy", tmp_path / "old", symlinks=True)
    old = TlsFiles(*(tmp_path / "old" / file for file in ("tls.crt", "tls.key", "ca.crt")))
    async with serving(server.tls) as port:
        target = f"127.0.0.1:{port}"
        async with channel(target, client.tls, peer=PEER) as opened, StreamClient(opened, SERVICE) as stream:
            assert await count(opened) == await count_on(stream) == ["secure"]
            # Of another authority altogether: neither side's old certificate would be taken by the other's new one.
            second = Authority(tmp_path, "second")
            server.renew(second)
            client.renew(second)
            assert await count(opened) == ["secure"]
            assert await count_on(stream) == ["secure"]
            async with channel(target, old, peer=PEER) as refused:
                with pytest.raises(Unavailable):
                    await count(refused)
            assert stream.up
            assert isinstance(opened, RenewingChannel)
            assert len(opened._lingering) == 1
            await stream.finish(30)
            await eventually(lambda: not opened._lingering, what="the end of the old connection")


async def test_a_stream_that_broke_comes_back_with_the_renewed_certificate(
    pods: tuple[Secret, Secret], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_client, "ATTEMPT_S", 0.2)  # ten seconds are long for a test
    server, client = pods
    async with serving(server.tls) as port:
        opened = channel(f"127.0.0.1:{port}", client.tls, peer=PEER)
        stream = await StreamClient(opened, SERVICE).__aenter__()
        assert await count_on(stream) == ["secure"]
    second = Authority(tmp_path, "second")
    server.renew(second)
    async with serving(server.tls, port):
        # The client's own is renewed a moment later: until then it is refused.
        await eventually(lambda: not stream.up)
        client.renew(second)
        await asyncio.wait_for(stream.connected(), 60)
        assert await count_on(stream) == ["secure"]
        await stream.__aexit__(None, None, None)
        await opened.close()


async def test_files_that_cannot_be_read_for_a_while_change_nothing(pods: tuple[Secret, Secret]) -> None:
    server, client = pods
    async with serving(server.tls) as port, channel(f"127.0.0.1:{port}", client.tls, peer=PEER) as opened:
        assert await count(opened) == ["secure"]
        another = channel(f"127.0.0.1:{port}", client.tls, peer=PEER)
        for each in pods:
            each.tls.key.rename(each.tls.key.with_suffix(".away"))
        assert await count(opened) == ["secure"]
        async with another:  # connects only now
            assert await count(another) == ["secure"]
        with pytest.raises(OSError, match=r"tls\.key"):
            channel(f"127.0.0.1:{port}", client.tls, peer=PEER)


async def test_a_key_that_does_not_go_with_its_certificate_is_not_taken(
    pods: tuple[Secret, Secret], tmp_path: Path
) -> None:
    server, client = pods
    stranger = Authority(tmp_path, "second").files("nobody")
    async with serving(server.tls) as port:
        server.tls.key.unlink()
        shutil.copy(stranger.key, server.tls.key)
        async with channel(f"127.0.0.1:{port}", client.tls, peer=PEER) as opened:
            assert await count(opened) == ["secure"]
