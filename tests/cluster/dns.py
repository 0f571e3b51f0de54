"""The cluster's DNS, since there is no image of CoreDNS: A records of Services, of headless ones' ready pods by
their names, from the API. `python -m tests.cluster.dns FOLDER`, inside the node's namespaces.
"""

import asyncio
import json
import logging
import random
import socket
import ssl
import struct
import sys
from pathlib import Path
from typing import Any, Final, cast

import aiohttp

from tests.cluster.layout import ADDRESS, ADMIN_TOKEN, API_PORT, CLUSTER_DOMAIN

INTERVAL_S: Final = 0.5
PORT: Final = 53
TTL_S: Final = 5
_QUESTION: Final = struct.Struct("!HHHHHH")
_A: Final = 1
_ANY: Final = 255
_NXDOMAIN: Final = 3
_AUTHORITATIVE_ANSWER: Final = 0x8580  # QR, AA, RD, RA

Names = dict[str, list[str]]


def names_of(services: list[dict[str, Any]], slices: list[dict[str, Any]]) -> Names:
    """IPv4 addresses by full name, as the specification of Kubernetes' DNS has them."""
    found: Names = {}
    headless = set()
    for service in services:
        metadata, address = service["metadata"], service["spec"].get("clusterIP")
        full = f"{metadata['name']}.{metadata['namespace']}.svc.{CLUSTER_DOMAIN}"
        found[full] = [address] if address not in (None, "", "None") else []
        if address == "None":
            headless.add(full)
    for each in slices:
        metadata = each["metadata"]
        service_name = metadata.get("labels", {}).get("kubernetes.io/service-name")
        full = f"{service_name}.{metadata['namespace']}.svc.{CLUSTER_DOMAIN}"
        if full in headless:
            for endpoint in each.get("endpoints") or ():
                if endpoint.get("conditions", {}).get("ready"):
                    found[full] += endpoint["addresses"]
                    if hostname := endpoint.get("hostname"):
                        found[f"{hostname}.{full}"] = endpoint["addresses"]
    return found


def answer(question: bytes, names: Names) -> bytes:
    """The reply to one question (RFC 1035 4.1). IndexError or struct.error if it isn't one."""
    identifier = _QUESTION.unpack_from(question)[0]
    at, labels = _QUESTION.size, []
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += 1 + length
    (kind,) = struct.unpack_from("!H", question, at + 1)
    known = names.get(".".join(labels))
    addresses = random.sample(known, len(known)) if known and kind in (_A, _ANY) else []
    code = 0 if known is not None else _NXDOMAIN
    head = _QUESTION.pack(identifier, _AUTHORITATIVE_ANSWER | code, 1, len(addresses), 0, 0)
    records = [b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, TTL_S, 4) + socket.inet_aton(each) for each in addresses]
    return head + question[_QUESTION.size : at + 5] + b"".join(records)


class DnsServer(asyncio.DatagramProtocol):
    """Over UDP and TCP. `names` are replaced as the cluster changes."""

    def __init__(self) -> None:
        self.names: Names = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        try:
            self._transport.sendto(answer(data, self.names), addr)
        except (IndexError, struct.error):
            logging.warning("no question: %r", data)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: each message after its length (RFC 1035 4.2.2)."""
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                reply = answer(await reader.readexactly(length), self.names)
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, IndexError, struct.error):
            writer.close()


async def main(folder: Path) -> None:
    server = DnsServer()
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, (ADDRESS, PORT))
    await asyncio.start_server(server.stream, ADDRESS, PORT)
    context = ssl.create_default_context(cafile=folder / "certs" / "ca.crt")
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    base = f"https://127.0.0.1:{API_PORT}"
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def items(path: str) -> list[dict[str, Any]]:
            async with session.get(f"{base}{path}", raise_for_status=True) as reply:
                found: list[dict[str, Any]] = json.loads(await reply.read())["items"]
                return found

        while True:
            try:
                services = await items("/api/v1/services")
                server.names = names_of(services, await items("/apis/discovery.k8s.io/v1/endpointslices"))
            except (aiohttp.ClientError, TimeoutError) as error:
                logging.warning("the names are as before: %s", error)
            await asyncio.sleep(INTERVAL_S)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
