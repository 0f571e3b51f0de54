"""The direct connection beside a stream: only who came in by gRPC gets in, and a lost one is a lost stream."""

import asyncio
import secrets
from typing import Any

import pytest

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.rpc import direct
from callwarden.common.rpc.client import channel
from callwarden.common.rpc.direct import STRANGERS_MAX, TOKEN_BYTES, WIRE_BYTES_MAX, DirectListener, Link
from callwarden.common.rpc.stream import StreamClient
from callwarden.kernel.errors import Unavailable
from callwarden.testing.waiting import eventually

from .example_server import Serve

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"


async def listening() -> DirectListener:
    listener = DirectListener()
    await listener.start("127.0.0.1")
    return listener


async def closed_by_peer(port: int, data: bytes) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.read() == b""
    except ConnectionResetError:
        return True
    finally:
        writer.close()


async def test_a_token_lets_in_once_and_frames_arrive_whole_however_they_are_cut() -> None:
    listener = await listening()
    frames: list[bytes] = []
    adopted: list[Link] = []

    def adopt(link: Link) -> None:
        adopted.append(link)
        link.attach(frames.append, lambda: None)

    _, metadata = listener.offer(adopt)
    link = await direct.connect("127.0.0.1:1", metadata)
    assert link is not None
    sent = [b"", b"a", secrets.token_bytes(300_000), b"z" * 5]
    for frame in sent:
        link.send(frame)
    await eventually(lambda: len(frames) == len(sent))
    assert frames == sent
    again = await direct.connect("127.0.0.1:1", metadata)
    assert again is not None
    async with asyncio.timeout(10):
        await again.lost  # the token is used up
    assert len(adopted) == 1
    link.close()
    listener.stop()


@pytest.mark.parametrize("data", [b"x" * TOKEN_BYTES, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 4096])
async def test_who_has_no_token_is_cut_off(data: bytes) -> None:
    listener = await listening()
    listener.offer(lambda link: pytest.fail("adopted a stranger"))
    assert await closed_by_peer(listener.port, data)
    listener.stop()


async def test_a_withdrawn_offer_lets_nobody_in() -> None:
    listener = await listening()
    token, _ = listener.offer(lambda link: pytest.fail("adopted after the end"))
    listener.withdraw(token)
    assert await closed_by_peer(listener.port, token)
    listener.stop()


async def test_a_crowd_of_silent_strangers_is_bounded() -> None:
    listener = await listening()
    crowd = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(STRANGERS_MAX)]
    assert await closed_by_peer(listener.port, b"")
    for _, writer in crowd:
        writer.close()
    listener.stop()


async def test_a_frame_that_is_too_long_ends_the_connection_before_it_is_read() -> None:
    listener = await listening()
    token, _ = listener.offer(lambda link: link.attach(lambda frame: pytest.fail("took it"), lambda: None))
    assert await closed_by_peer(listener.port, token + (WIRE_BYTES_MAX + 1).to_bytes(4, "big") + b"x" * 100)
    listener.stop()


@pytest.mark.parametrize(
    "metadata", [(), (("callwarden-direct", ""),), (("callwarden-direct", "x y"),), (("callwarden-direct", "1 00"),)]
)
async def test_an_offer_that_can_not_be_used_leaves_the_grpc_stream(metadata: tuple[tuple[str, Any], ...]) -> None:
    assert await direct.connect("127.0.0.1:9", metadata) is None


@pytest.mark.parametrize("serve", ["direct"], indirect=True)
async def test_a_lost_direct_connection_fails_what_waits_and_a_new_stream_comes(serve: Serve) -> None:
    arrived = asyncio.Event()

    def never(request: pb.CountRequest) -> "asyncio.Future[pb.CountReply]":
        arrived.set()
        return asyncio.get_running_loop().create_future()

    served = await serve({"Count": never, "ListBans": lambda request: pb.ListBansReply()})
    async with channel(served.target) as opened, StreamClient(opened, SERVICE, target=served.target) as client:
        waiting = asyncio.ensure_future(client.call("Count", pb.CountRequest(), pb.CountReply, timeout_s=30))
        await arrived.wait()
        (stream,) = served.servicer._streams
        assert stream._link is not None, "the stream did not go over the direct connection"
        stream._link.abort()
        with pytest.raises(Unavailable):
            await waiting
        await asyncio.wait_for(client.connected(), 10)
        await client.call("ListBans", pb.ListBansRequest(), pb.ListBansReply, timeout_s=30)
