"""Datagrams as they are: for cases whose messages no parser of ours should have touched before the edge did.

In: a socket that keeps what it gets, digests, and calls made of lines. Out: which messages, and what must come of them
(test_cases_given).
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from callwarden.sip.digest import parse_challenge
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD

ANSWER_S: Final = 40.0
AGAIN_S: Final = 2.0
_COMPACT: Final = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length"}
_COPIED: Final = ("via", "from", "to", "call-id", "cseq", "record-route")
SDP: Final = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"


def token() -> str:
    return uuid.uuid4().hex[:16]


class Datagram:
    """A message that came: its lines, and nothing understood that needn't be."""

    def __init__(self, data: bytes, source: tuple[str, int]) -> None:
        self.source = source
        self.text = data.decode("utf-8", "replace")
        head, _, self.body = self.text.partition("\r\n\r\n")
        self.start, *lines = head.split("\r\n")
        self.fields: list[tuple[str, list[str]]] = []
        """Name, and the lines as they came: more than one where it is folded."""
        for line in lines:
            if line[:1] in (" ", "\t") and self.fields:
                self.fields[-1][1].append(line)
            else:
                name = line.partition(":")[0].strip().lower()
                self.fields.append((_COMPACT.get(name, name), [line]))

    @property
    def status(self) -> int:
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def method(self) -> str:
        return "" if self.status else self.start.split()[0]

    def all(self, name: str) -> list[str]:
        return [" ".join(lines).partition(":")[2].strip() for key, lines in self.fields if key == name]

    def get(self, name: str) -> str:
        return next(iter(self.all(name)), "")


class Wire:
    """A UDP socket. `await wire.until(…)` gives the first message that is so, which may have come before."""

    def __init__(self, host: str) -> None:
        self._host = host
        self.got: list[Datagram] = []
        self._came = asyncio.Condition()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Keep(self), local_addr=(self._host, 0))
        self.host, self.port = self._transport.get_extra_info("sockname")[:2]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def keep(self, message: Datagram) -> None:
        async with self._came:
            self.got.append(message)
            self._came.notify_all()

    def send(self, data: str | bytes, to: str | tuple[str, int]) -> None:
        if isinstance(to, str):
            host, _, port = to.rpartition(":")
            to = host.strip("[]"), int(port)
        self._transport.sendto(data if isinstance(data, bytes) else data.encode(), to)

    async def until(self, wanted: Callable[[Datagram], bool], what: str, *, within_s: float = ANSWER_S) -> Datagram:
        found = await self.maybe(wanted, within_s)
        if found is None:
            raise AssertionError(f"{what} did not come")
        return found

    async def maybe(self, wanted: Callable[[Datagram], bool], within_s: float) -> Datagram | None:
        try:
            async with asyncio.timeout(within_s), self._came:
                while True:
                    for message in self.got:
                        if wanted(message):
                            return message
                    await self._came.wait()
        except TimeoutError:
            return None

    async def ask(
        self, data: str | bytes, to: str, wanted: Callable[[Datagram], bool], what: str = "an answer"
    ) -> Datagram:
        """Sends it again and again, as UDP needs, until a message comes that is so."""
        for _ in range(int(ANSWER_S / AGAIN_S)):
            self.send(data, to)
            found = await self.maybe(wanted, AGAIN_S)
            if found is not None:
                return found
        raise AssertionError(f"{what} did not come to {data[:60]!r}")


class _Keep(asyncio.DatagramProtocol):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._tasks: set[asyncio.Task[None]] = set()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._wire.keep(Datagram(data, (str(addr[0]), addr[1]))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def message(start: str, lines: Sequence[str], body: str = "") -> str:
    more = [] if any(line.lower().startswith(("content-length", "l:")) for line in lines) else [_length(body)]
    return "\r\n".join([start, *lines, *more, "", ""]) + body


def _length(body: str) -> str:
    return f"Content-Length: {len(body.encode())}"


def credentials(
    challenged: Datagram, user: str, method: str, uri: str, algorithm: str = "MD5", password: str = PASSWORD
) -> str:
    """The value of (Proxy-)Authorization that answers the challenge of this algorithm."""
    offered = challenged.all("www-authenticate") + challenged.all("proxy-authenticate")
    (value,) = [one for one in offered if f"algorithm={algorithm}," in f"{one},"]
    return str(parse_challenge(value).answer(user, password, method, uri, cnonce=token()))


def reply(request: Datagram, status: int, tag: str = "", more: Sequence[str] = (), body: str = "") -> str:
    """The answer that a switch gives which copies what it doesn't understand."""
    lines: list[str] = []
    for name, spelled in request.fields:
        if name in _COPIED:
            lines += spelled
            if name == "to" and tag and "tag=" not in spelled[-1]:
                lines[-1] += f";tag={tag}"
    return message(f"SIP/2.0 {status} Whatever", [*lines, *more], body)


class WireCall:
    """The caller's side of a call; `edge` sets it up. `case` goes along in a header of its own, to find it again."""

    def __init__(self, wire: Wire, edge: str, case: str, user: str, **odd: Any) -> None:
        self.wire, self.edge, self.case, self.user = wire, edge, case, user
        self.uri: str = odd.pop("uri", f"sip:4930123456@{DEFAULT_REALM}")
        self.call_id: str = odd.pop("call_id", f"{token()}@wire")
        self.from_: str = odd.pop("from_", f"<sip:{user}@{DEFAULT_REALM}>") + f";tag={token()}"
        self.to: str = odd.pop("to", f"<{self.uri}>")
        self.more: list[str] = odd.pop("more", [])
        self.contact: str = odd.pop("contact", f"<sip:{user}@{wire.address}>")
        self.body: str = odd.pop("body", SDP)
        assert not odd, odd
        self.cseq = 1
        self.branch = ""
        self.target = ""
        self.routes: list[str] = []

    def lines(self, method: str, more: Sequence[str] = ()) -> list[str]:
        self.branch = token()
        return [
            f"Via: SIP/2.0/UDP {self.wire.address};rport;branch=z9hG4bK{self.branch}",
            "Max-Forwards: 70",
            f"From: {self.from_}",
            f"To: {self.to}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self.cseq} {method}",
            f"X-Case: {self.case}",
            *more,
        ]

    def invite(self, more: Sequence[str] = ()) -> str:
        lines = self.lines("INVITE", [f"Contact: {self.contact}"] if self.contact else [])
        return message(
            f"INVITE {self.uri} SIP/2.0", [*lines, *self.more, *more, "Content-Type: application/sdp"], self.body
        )

    def is_answer(self, message: Datagram) -> bool:
        return message.status > 100 and f"z9hG4bK{self.branch}" in message.text

    def acknowledge_failure(self, failed: Datagram) -> None:
        branch = self.branch
        ack = message(f"ACK {self.uri} SIP/2.0", self.lines("ACK"))
        ack = ack.replace(self.branch, branch).replace(f"To: {self.to}", f"To: {failed.get('to')}", 1)
        self.branch = branch
        self.wire.send(ack, self.edge)

    async def start(self, edit: Callable[[bytes], bytes] = lambda data: data) -> bytes:
        """Answers the challenge; the INVITE with credentials, as it is to be sent."""
        challenged = await self.wire.ask(self.invite(), self.edge, self.is_answer)
        if challenged.status != 407:
            raise AssertionError(f"{self.case}: {challenged.start}")
        self.acknowledge_failure(challenged)
        self.cseq += 1
        value = credentials(challenged, self.user, "INVITE", self.uri)
        return edit(self.invite([f"Proxy-Authorization: {value}"]).encode())

    def learn(self, answer: Datagram) -> None:
        self.to = answer.get("to")
        self.routes = list(reversed(answer.all("record-route")))
        self.target = answer.get("contact").strip("<>")

    def inside(self, method: str, edge: str, more: Sequence[str] = (), **odd: Any) -> str:
        """A request inside the call, as it goes to that edge."""
        if method != "ACK":
            self.cseq += 1
        lines = self.lines(method)
        if "cseq" in odd:
            lines[5] = f"CSeq: {odd['cseq']} {method}"
        if "to" in odd:
            lines[3] = f"To: {odd['to']}"
        if "max_forwards" in odd:
            lines[1] = f"Max-Forwards: {odd['max_forwards']}"
        routes = [f"Route: {route.replace(self.edge, edge)}" for route in odd.get("routes", self.routes)]
        return message(f"{method} {odd.get('uri', self.target)} SIP/2.0", [*lines, *routes, *more], odd.get("body", ""))

    async def ask(self, method: str, edge: str, more: Sequence[str] = (), **odd: Any) -> int:
        """Such a request; its final status."""
        request = self.inside(method, edge, more, **odd)
        return (await self.wire.ask(request, edge, lambda got: self.is_answer(got) and got.status >= 200)).status
