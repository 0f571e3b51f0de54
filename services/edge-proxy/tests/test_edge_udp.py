"""The edge's UDP socket against the real network of this host: datagrams, names, and lost ones."""

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from callwarden.common.metrics import Metrics
from callwarden.edge_proxy.adapters.udp import UdpSocket
from callwarden.kernel.errors import Invalid
from callwarden.sip.address import Endpoint, HostName, SocketAddress
from callwarden.testing.waiting import eventually


class ReceivedDatagrams:
    """What came in, awaited in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[bytes, SocketAddress]] = asyncio.Queue()

    def __call__(self, data: bytes, source: SocketAddress) -> None:
        if data == b"explode":
            raise RuntimeError("of our own making")
        self.queue.put_nowait((data, source))

    async def next(self) -> tuple[bytes, SocketAddress]:
        async with asyncio.timeout(10):
            return await self.queue.get()


class FailedDatagrams:
    """What was reported as not sent, awaited in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()

    def __call__(self, data: bytes) -> None:
        self.queue.put_nowait(data)

    async def next(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.queue.get()


def udp_socket(
    host: str = "127.0.0.1",
    received: ReceivedDatagrams | None = None,
    failed: FailedDatagrams | None = None,
    *,
    port: int = 0,
    metrics: Metrics | None = None,
) -> UdpSocket:
    return UdpSocket(
        host,
        port,
        received or ReceivedDatagrams(),
        failed or FailedDatagrams(),
        receive_buffer_bytes=65_536,
        metrics=metrics or Metrics(),
    )


def lost(metrics: Metrics) -> float:
    (samples,) = [samples for metric, samples in metrics.collect() if metric.name == "callwarden_edge_send_lost_total"]
    return sum(sample.value for sample in samples)


@pytest.fixture
def closed_port() -> int:
    """A port of this host at which nobody listens: the system answers with an ICMP error."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_come_and_go(host: str) -> None:
    first, second = ReceivedDatagrams(), ReceivedDatagrams()
    async with udp_socket(host, first) as one, udp_socket(host, second) as two:
        one.start()
        two.start()
        one.send(b"ping", SocketAddress(host, two.port))
        data, source = await second.next()
        assert (data, source) == (b"ping", SocketAddress(host, one.port))
        two.send(b"pong", source)
        assert (await first.next())[0] == b"pong"


async def test_an_ipv4_peer_of_an_ipv6_socket_has_its_ipv4_address() -> None:
    received = ReceivedDatagrams()
    answered = ReceivedDatagrams()
    async with udp_socket("::", received) as dual, udp_socket("127.0.0.1", answered) as peer:
        dual.start()
        peer.start()
        peer.send(b"ping", SocketAddress("127.0.0.1", dual.port))
        _, source = await received.next()
        assert source == SocketAddress("127.0.0.1", peer.port)
        dual.send(b"pong", source)
        assert (await answered.next())[0] == b"pong"


async def test_what_came_before_the_start_is_not_lost() -> None:
    received = ReceivedDatagrams()
    async with udp_socket(received=received) as udp:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"early", ("127.0.0.1", udp.port))
            udp.start()
            assert (await received.next())[0] == b"early"


async def test_a_datagram_that_breaks_us_spoils_neither_the_next_nor_the_process() -> None:
    received = ReceivedDatagrams()
    async with udp_socket(received=received) as udp:
        udp.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            for data in (b"explode", b"fine"):
                peer.sendto(data, ("127.0.0.1", udp.port))
            assert (await received.next())[0] == b"fine"


async def test_names_are_looked_up_in_the_background_and_what_waits_is_sent_in_order() -> None:
    received = ReceivedDatagrams()
    async with udp_socket(received=received) as udp:
        udp.start()
        for data in (b"one", b"two"):
            udp.send(data, HostName("localhost", udp.port))
        assert [(await received.next())[0] for _ in range(2)] == [b"one", b"two"]
        udp.send(b"three", HostName("localhost", udp.port))
        assert (await received.next())[0] == b"three"


@pytest.mark.parametrize(
    ("to", "size"),
    [
        (SocketAddress("127.0.0.1", 0), 1),  # EINVAL
        (SocketAddress("2001:db8::1", 5060), 1),  # not of this socket's family
        (SocketAddress("255.255.255.255", 5060), 1),  # EACCES
        (SocketAddress("127.0.0.1", 5060), 65_530),  # EMSGSIZE
        (HostName("nowhere.invalid", 5060), 1),
    ],
)
async def test_what_can_not_be_sent_is_reported_counted_and_never_raised(to: Endpoint, size: int) -> None:
    metrics, failed = Metrics(), FailedDatagrams()
    async with udp_socket(failed=failed, metrics=metrics) as udp:
        udp.send(b"x" * size, to)
        assert failed.queue.empty()  # later, never from within send
        assert await failed.next() == b"x" * size
        assert lost(metrics) == 1


async def test_a_port_at_which_nobody_listens_is_reported_with_the_datagram(closed_port: int) -> None:
    metrics, failed = Metrics(), FailedDatagrams()
    async with udp_socket(failed=failed, metrics=metrics) as udp:
        udp.start()
        udp.send(b"INVITE sip:x", SocketAddress("127.0.0.1", closed_port))
        assert await failed.next() == b"INVITE sip:x"
        assert lost(metrics) == 1


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_errors_of_one_peer_stop_neither_reading_nor_sending(
    new_loop: Callable[[], asyncio.AbstractEventLoop], closed_port: int
) -> None:
    """libuv stops to poll a socket that has an error, and the system reports it with the next send to anybody."""

    async def scene() -> None:
        received, failed = ReceivedDatagrams(), FailedDatagrams()
        async with udp_socket(received=received, failed=failed) as udp:
            udp.start()
            here = SocketAddress("127.0.0.1", udp.port)
            for number in range(20):
                udp.send(b"lost %d" % number, SocketAddress("127.0.0.1", closed_port))
                udp.send(b"fine %d" % number, here)
                assert (await received.next())[0] == b"fine %d" % number
                assert await failed.next() == b"lost %d" % number

    run(new_loop, scene())


def run(new_loop: Callable[[], asyncio.AbstractEventLoop], scene: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scene)


async def test_an_error_that_came_before_the_start_is_reported_after_it(closed_port: int) -> None:
    failed = FailedDatagrams()
    async with udp_socket(failed=failed) as udp:
        udp.send(b"early", SocketAddress("127.0.0.1", closed_port))
        udp.start()
        assert await failed.next() == b"early"


async def test_a_peer_that_is_gone_and_back_is_heard_and_spoken_to_again(closed_port: int) -> None:
    failed, received = FailedDatagrams(), ReceivedDatagrams()
    async with udp_socket(failed=failed) as udp:
        udp.start()
        udp.send(b"lost", SocketAddress("127.0.0.1", closed_port))
        await failed.next()
        async with udp_socket(received=received, port=closed_port) as back:
            back.start()
            udp.send(b"again", SocketAddress("127.0.0.1", closed_port))
            assert (await received.next())[0] == b"again"
        await eventually(lambda: failed.queue.empty())


async def test_an_error_for_which_a_flood_left_no_room_fails_no_other_datagram(closed_port: int) -> None:
    """The system has no room to queue it, and reports it with the next datagram, whosever that is."""
    failed, got = FailedDatagrams(), ReceivedDatagrams()
    async with udp_socket(failed=failed) as udp, udp_socket(received=got) as peer:
        peer.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            for _ in range(2_000):  # nothing is read yet
                flood.sendto(b"x", ("127.0.0.1", udp.port))
        udp.send(b"to nobody", SocketAddress("127.0.0.1", closed_port))
        udp.send(b"to the peer", SocketAddress("127.0.0.1", peer.port))
        assert (await got.next())[0] == b"to the peer"
        assert failed.queue.empty()


async def test_a_port_that_is_taken_is_reported_clearly() -> None:
    async with udp_socket() as udp:
        with pytest.raises(Invalid, match="can't listen"):
            async with udp_socket(port=udp.port):
                pass
