"""Cases on a running edge: what phones send besides SIP, and what is sent in their name, shuts nobody out."""

import asyncio
import socket

import pytest

from callwarden.testing.operator import DEFAULT_REALM
from tests.integration.conftest import Sites

pytestmark = pytest.mark.cases

POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: main}
spec:
  messages: {wrongPerAddress: {max: 10, period: 1h}}
  authFailures: {period: 1h, perAddress: {max: 5}, perKnownAddress: {max: 5}, perKnownEndpoint: {max: 5}}
"""
STUN = bytes.fromhex("000100002112a442") + b"callwarden12"
SENT = {
    "CRLFCRLF": b"\r\n\r\n",
    "empty": b"",
    "CRLF NUL": b"\r\n\0",
    "eight NULs": b"\0" * 8,
    "STUN": STUN,
    "Kapanga": b"jaK",
    "RTP": b"\x80\0\0\1" + b"\0" * 168,
    "half a message": b"INVITE sip:x@y SIP/2.0\r\nVia",
    "scanner": b"",  # made below, since it names who sends it
    "garbage as credentials": b"",
}


def options(host: str, port: int, number: int, more: str = "") -> bytes:
    return (
        f"OPTIONS sip:{DEFAULT_REALM} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bK{host}-{number}\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:x@{DEFAULT_REALM}>;tag=1\r\nTo: <sip:{DEFAULT_REALM}>\r\n"
        f"Call-ID: {host}-{number}\r\nCSeq: 1 OPTIONS\r\n{more}Content-Length: 0\r\n\r\n"
    ).encode()


async def is_answered(sender: socket.socket, edge: tuple[str, int]) -> bool:
    loop = asyncio.get_running_loop()
    host, port = sender.getsockname()
    for number in range(1_000, 1_003):  # UDP may lose one
        await loop.sock_sendto(sender, options(host, port, number), edge)
        try:
            async with asyncio.timeout(2):
                while True:
                    if b" 200 OK" in (await loop.sock_recv(sender, 65_535))[:20]:
                        return True
        except TimeoutError:
            continue
    return False


async def test_nobody_is_shut_out_by_it(site: Sites) -> None:
    """Lines 8 and 11: half of it is sent to each of two edges, and both are asked afterwards."""
    async with site(processes={"edge-proxy": 2}) as s:
        await s.operator.apply_policy(POLICY)
        edges = [(host, int(port)) for host, _, port in (each.rpartition(":") for each in s.system.sip_addresses)]
        loop = asyncio.get_running_loop()
        served: dict[str, bool] = {}
        for number, (name, data) in enumerate(SENT.items(), start=10):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.bind((f"127.0.1.{number}", 0))
                own, own_port = sender.getsockname()
                for count in range(28):
                    if name == "scanner":
                        data = options(own, own_port, count, "User-Agent: friendly-scanner\r\n")
                    elif name == "garbage as credentials":
                        register = options(own, own_port, count, "Authorization: Digest garbage\r\n")
                        data = register.replace(b"OPTIONS", b"REGISTER")
                    await loop.sock_sendto(sender, data, edges[count % 2])
                served[name] = all([await is_answered(sender, edge) for edge in edges])
        assert served == dict.fromkeys(SENT, True)
