"""A password guesser: sends REGISTERs with wrong passwords from an address of its own, over a bare UDP socket.

Written from RFC 3261 and RFC 2617 alone and shares no code with Callwarden's SIP, so that it shows what an attacker
sees. It only knows as much SIP as guessing needs.
"""

import asyncio
import hashlib
import re
import secrets
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

# What a silence is judged by: any answer over the loopback comes within milliseconds.
ANSWER_TIMEOUT_S: Final = 1.5

_PARAMETER = re.compile(r'(\w+)="?([^",]*)"?')


@dataclass(frozen=True, slots=True)
class GuessAnswer:
    """Status of a response, and the challenge in it."""

    status: int
    challenge: dict[str, str]


class Guesser(asyncio.DatagramProtocol):
    """An attacker at `source` (an address of the loopback) inside `async with`."""

    def __init__(self, source: str, target: tuple[str, int], realm: str) -> None:
        self.source = source
        self._target = target
        self._realm = realm
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._transport: asyncio.DatagramTransport | None = None
        self._sequence = 0
        self._call_id = secrets.token_hex(8)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.source, 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._answers.put_nowait(data)

    async def guess(self, user: str, password: str) -> GuessAnswer | None:
        """One guess: ask for a challenge, answer it with `password`. The final answer, None for silence."""
        first = await self.knock(user)
        if first is None or first.status not in (401, 407):
            return first
        kind = "Authorization" if first.status == 401 else "Proxy-Authorization"
        return await self._ask(user, f"{kind}: {self._credentials(user, password, first.challenge)}\r\n")

    async def knock(self, user: str) -> GuessAnswer | None:
        """A REGISTER without credentials; None if nobody answers."""
        return await self._ask(user, "")

    async def _ask(self, user: str, authorization: str) -> GuessAnswer | None:
        assert self._transport is not None
        self._sequence += 1
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        host, port = self._transport.get_extra_info("sockname")[:2]
        request = (
            f"REGISTER sip:{self._realm} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {host}:{port};rport;branch={branch}\r\n"
            "Max-Forwards: 70\r\n"
            f"From: <sip:{user}@{self._realm}>;tag={secrets.token_hex(4)}\r\n"
            f"To: <sip:{user}@{self._realm}>\r\n"
            f"Call-ID: {self._call_id}\r\n"
            f"CSeq: {self._sequence} REGISTER\r\n"
            f"Contact: <sip:{user}@{host}:{port}>\r\n"
            f"{authorization}"
            "Content-Length: 0\r\n\r\n"
        )
        self._transport.sendto(request.encode(), self._target)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while True:
                    answer = _read(await self._answers.get(), branch)
                    if answer is not None and answer.status >= 200:
                        return answer
        except TimeoutError:
            return None

    def _credentials(self, user: str, password: str, challenge: dict[str, str]) -> str:
        """RFC 2617 section 3.2.2 (RFC 7616 for SHA-256), with qop "auth" where it is offered."""
        algorithm = challenge.get("algorithm", "MD5")
        digest = hashlib.sha256 if algorithm.upper() == "SHA-256" else hashlib.md5

        def hashed(text: str) -> str:
            return digest(text.encode()).hexdigest()

        realm, nonce, uri = challenge.get("realm", ""), challenge.get("nonce", ""), f"sip:{self._realm}"
        ha1, ha2 = hashed(f"{user}:{realm}:{password}"), hashed(f"REGISTER:{uri}")
        parts = [f'username="{user}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"', f"algorithm={algorithm}"]
        if "qop" in challenge:
            cnonce = secrets.token_hex(8)
            response = hashed(f"{ha1}:{nonce}:00000001:{cnonce}:auth:{ha2}")
            parts += ["qop=auth", "nc=00000001", f'cnonce="{cnonce}"']
        else:
            response = hashed(f"{ha1}:{nonce}:{ha2}")
        if "opaque" in challenge:
            parts.append(f'opaque="{challenge["opaque"]}"')
        return f'Digest {", ".join(parts)}, response="{response}"'


def _read(data: bytes, branch: str) -> GuessAnswer | None:
    """The response to the request with that branch; None for anything else."""
    lines = data.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if words[0] != "SIP/2.0" or len(words) < 2 or not words[1].isdigit() or branch not in data.decode("latin-1"):
        return None
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() in ("www-authenticate", "proxy-authenticate"):
            scheme, _, rest = value.strip().partition(" ")
            found = {key.lower(): text for key, text in _PARAMETER.findall(rest)}
            if scheme.lower() == "digest" and found.get("algorithm", "MD5").upper() in ("MD5", "SHA-256"):
                return GuessAnswer(int(words[1]), found)
    return GuessAnswer(int(words[1]), {})
