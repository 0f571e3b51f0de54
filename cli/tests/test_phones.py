"""The demo's phones: real processes of a SIP stack that is not ours, seen from outside."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from callwarden.cli.demo.guesser import Guesser
from callwarden.cli.demo.phones import PhoneFailed, PhoneProcess
from callwarden.sip import digest
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration


async def test_two_phones_call_each_other_and_know_how_it_ended(
    tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    port = free_udp_port()
    async with PhoneProcess("alice", tmp_path / "alice.log") as alice, PhoneProcess("bob", tmp_path / "bob.log") as bob:
        await alice.start(domain="a.example", listen=f"127.0.0.1:{free_udp_port()}", proxy=f"sip:127.0.0.1:{port}")
        await bob.start(domain="a.example", listen=f"127.0.0.1:{port}", any_number=True)
        call = await alice.dial("sip:+493023125042@a.example")
        assert await call.outcome() == 200
        other = await asyncio.wait_for(bob.incoming.get(), 5)
        assert other.call_id == call.call_id
        await other.hang_up()
        await call.closed(5.0)
        assert call.talked_s > 0
        assert not call.is_up


async def test_a_refusal_is_told_with_its_status(tmp_path: Path, free_udp_port: Callable[[], int]) -> None:
    port = free_udp_port()
    async with PhoneProcess("alice", tmp_path / "alice.log") as alice, PhoneProcess("bob", tmp_path / "bob.log") as bob:
        await alice.start(domain="a.example", listen=f"127.0.0.1:{free_udp_port()}", proxy=f"sip:127.0.0.1:{port}")
        await bob.start(domain="a.example", listen=f"127.0.0.1:{port}")
        call = await alice.dial("sip:nobody@a.example")
        assert await call.outcome() == 404
        assert call.closing == "404 Not Found"


async def test_a_phone_whose_process_ends_is_an_error_and_not_a_wait(
    tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with silent:
        silent.bind(("127.0.0.1", 0))
        async with PhoneProcess("alice", tmp_path / "alice.log") as alice:
            await alice.start(
                domain="a.example",
                listen=f"127.0.0.1:{free_udp_port()}",
                proxy=f"sip:127.0.0.1:{silent.getsockname()[1]}",
                register=True,
            )
            asking = asyncio.create_task(alice.register())
            assert await asyncio.get_running_loop().run_in_executor(None, silent.recv, 4096)
            os.kill(alice.pid, signal.SIGKILL)
            with pytest.raises(PhoneFailed, match="its process has ended"):
                await asking
            with pytest.raises(PhoneFailed, match="its process has ended"):
                await alice.dial("sip:bob@a.example")


async def test_a_phone_that_cannot_do_it_says_why(tmp_path: Path, free_udp_port: Callable[[], int]) -> None:
    async with PhoneProcess("alice", tmp_path / "alice.log") as alice:
        await alice.start(domain="a.example", listen=f"127.0.0.1:{free_udp_port()}")
        with pytest.raises(PhoneFailed, match="alice can't dial"):
            await alice.dial("two\nlines")


async def test_a_phone_ends_with_whoever_started_it(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from callwarden.cli.demo.phones import PhoneProcess\n"
        "async def main():\n"
        "    async with PhoneProcess('alice', pathlib.Path(sys.argv[1])) as phone:\n"
        "        print(phone.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "alice.log"), stdout=subprocess.PIPE
    )
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    # The phone holds the other end of this pipe as long as it lives.
    assert await asyncio.wait_for(starter.stdout.read(), 10) == b""
    await starter.wait()
    await eventually(lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Registrar(asyncio.DatagramProtocol):
    """Answers every REGISTER with the challenge of RFC 2617 section 3.5 and remembers what came."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[str] = asyncio.Queue()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        text = data.decode()
        self.requests.put_nowait(text)
        headers = [line for line in text.split("\r\n")[1:] if line.startswith(("Via", "From", "To", "Call-ID", "CSeq"))]
        challenge = 'WWW-Authenticate: Digest realm="a.example", nonce="n0", qop="auth", algorithm=MD5'
        assert self._transport is not None
        answer = "\r\n".join(["SIP/2.0 401 Unauthorized", *headers, challenge, "Content-Length: 0", "", ""])
        self._transport.sendto(answer.encode(), addr)


async def test_the_guesser_answers_a_challenge_from_an_address_of_its_own() -> None:
    loop = asyncio.get_running_loop()
    transport, registrar = await loop.create_datagram_endpoint(Registrar, local_addr=("127.0.0.1", 0))
    try:
        async with Guesser("127.0.0.66", transport.get_extra_info("sockname"), "a.example") as guesser:
            answer = await guesser.guess("alice", "secret")
        assert answer is not None
        assert answer.status == 401
        first, second = registrar.requests.get_nowait(), registrar.requests.get_nowait()
        assert "Via: SIP/2.0/UDP 127.0.0.66:" in first
        assert "Authorization" not in first
        line = next(line for line in second.split("\r\n") if line.startswith("Authorization: "))
        sent = digest.parse_credentials(line.removeprefix("Authorization: "))
        right, wrong = (digest.ha1(digest.Algorithm.MD5, "alice", "a.example", word) for word in ("secret", "other"))
        assert sent.verify(right, "REGISTER")
        assert not sent.verify(wrong, "REGISTER")
    finally:
        transport.close()
