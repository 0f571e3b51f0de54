"""`callwarden sip call` and `sip answer` as a person starts them, against each other and against what refuses."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from callwarden.cli.demo.phones import PhoneProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

CALLWARDEN = (sys.executable, "-P", "-m", "callwarden.cli.main")


async def sip_call(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and all that was printed; alice's password comes on standard input."""
    process = await asyncio.create_subprocess_exec(
        *(*CALLWARDEN, "--state-dir", str(folder), "sip", "call", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    printed, _ = await process.communicate(b"wonderland-7\n")
    assert process.returncode is not None
    return process.returncode, printed.decode()


@asynccontextmanager
async def answering(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(*CALLWARDEN, "sip", "answer", "--listen", f"127.0.0.1:{port}"), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert b"answering every number" in await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_call_is_answered_and_both_ends_say_how_it_went(
    tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    port = free_udp_port()
    async with answering(port) as far_end:
        code, printed = await sip_call(
            tmp_path,
            *("+493023125042", "--user", "alice", "--password", "-", "--for", "1s", "--proxy", f"127.0.0.1:{port}"),
        )
        assert code == 0, printed
        assert "200 OK" in printed
        assert "hung up after 1." in printed
        assert far_end.stdout is not None
        assert b"answered a call from sip:alice@callwarden.local" in await far_end.stdout.readline()
        assert b"ended after" in await far_end.stdout.readline()
        far_end.send_signal(signal.SIGINT)
        assert await far_end.wait() == 0


async def test_a_refused_call_ends_with_1_and_names_its_status_and_how_to_ask_why(
    tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    port = free_udp_port()
    async with PhoneProcess("bob", tmp_path / "bob.log") as bob:
        await bob.start(domain="callwarden.local", listen=f"127.0.0.1:{port}")
        code, printed = await sip_call(
            tmp_path, *("carol", "--user", "alice", "--password", "-", "--proxy", f"127.0.0.1:{port}")
        )
    assert code == 1
    assert "404 Not Found; `callwarden explain " in printed


async def test_without_a_system_or_an_edge_it_says_what_to_do(tmp_path: Path) -> None:
    code, printed = await sip_call(tmp_path, "+493023125042", "--user", "alice", "--password", "-")
    assert code == 1
    assert "callwarden up" in printed
    assert "--proxy" in printed


async def test_a_time_or_an_address_that_is_none_is_misuse(tmp_path: Path) -> None:
    for arguments in (("--for", "0s"), ("--proxy", "nowhere")):
        code, printed = await sip_call(tmp_path, "bob", "--user", "alice", "--password", "-", *arguments)
        assert code == 2, printed
