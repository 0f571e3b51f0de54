"""Many phones on one UDP socket: they register, call, answer and hang up, thousands at once.

For integration tests that need numbers rather than a foreign stack. It stands on callwarden.sip for messages, but on
none of its transactions: it retransmits and answers by itself, so that a fault there isn't hidden. Foreign stacks are
in callwarden.testing.sipp and in the demo.
"""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from callwarden.sip import build
from callwarden.sip.digest import parse_challenge
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response, parse

T1_S = 0.5  # RFC 3261 17.1.1.1.
SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"


@dataclass(eq=False)
class PhoneCall:
    """One call as its caller sees it. `status` becomes the final status of the INVITE; `ended` is set by either BYE."""

    user: str
    password: str
    realm: str
    to: str
    call_id: str
    tag: str
    status: "asyncio.Future[int]"
    ended: "asyncio.Event" = field(default_factory=asyncio.Event)
    response: Response | None = None
    cut: bool = False
    """The other side (or the edge) hung up."""
    cseq: int = 1
    routes: tuple[str, ...] = ()
    target: str = ""
    answered_s: float = 0.0
    """When its 200 came, by the loop's clock."""
    ended_s: float = 0.0
    """When the 200 to its BYE, or the other side's BYE, came."""


class Phones:
    """A socket with any number of phones behind it. Use as `async with Phones(proxy) as phones`.

    Incoming calls are answered at once (`answer` False: only rung); `incoming` counts INVITEs that start a call.
    `doubled`: other proxies that get every INVITE, too, as if it had been sent again after a change of DNS; requests
    inside a call then go to the one whose Record-Route it has.
    """

    def __init__(
        self,
        proxy: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        answer: bool = True,
        doubled: Sequence[str] = (),
    ) -> None:
        self._proxy, *self._doubled = (_socket_address(each) for each in (proxy, *doubled))
        self._bind = (host, port)
        self._answer = answer
        self.contact = ""
        """What calls give as the host and port of their Contact; empty: where they can be reached."""
        self._pending: dict[tuple[str, str], asyncio.Future[Response]] = {}
        self._calls: dict[str, PhoneCall] = {}
        self._answered: dict[str, Response] = {}
        self._retransmit: dict[str, asyncio.Task[None]] = {}
        self.incoming = 0
        self.answers_s: dict[str, float] = {}
        """When an incoming call was first answered, by Call-ID and the loop's clock."""
        self._ringing: dict[str, tuple[Request, tuple[str, int]]] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Protocol(self._receive), local_addr=self._bind
        )
        self.host, self.port = self._transport.get_extra_info("sockname")[:2]
        # A thousand answers come at once; a 200 that the kernel drops is lost, for this callee doesn't repeat it.
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._retransmit.values():
            task.cancel()
        self._transport.close()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def register(self, user: str, password: str, realm: str, *, expires_s: int = 300) -> int:
        """Registers this socket as the user's phone; the final status."""
        headers = [("Contact", f"<sip:{user}@{self.address}>"), ("Expires", str(expires_s))]
        call_id, tag = _token(), _token()
        status, _ = await self._request_with_credentials(
            "REGISTER", f"sip:{realm}", user, password, realm, f"sip:{user}@{realm}", call_id, tag, 1, headers, b""
        )
        return status

    def call(self, user: str, password: str, realm: str, to: str) -> PhoneCall:
        """Starts a call to a user or number of the realm; await its `status`."""
        loop = asyncio.get_running_loop()
        call = PhoneCall(user, password, realm, to, _token(), _token(), loop.create_future())
        self._calls[call.call_id] = call
        task = loop.create_task(self._place(call))
        self._retransmit[call.call_id] = task
        return call

    async def hang_up(self, call: PhoneCall) -> int:
        """Sends BYE; its status."""
        call.cseq += 1
        request = self._build("BYE", call.target, call, [], b"")
        response = await self._send(request)
        self._end(call)
        return response.status

    def pick_up(self, call_id: str) -> None:
        """Answers a call that rings here."""
        _, source = self._ringing.pop(call_id)
        self.answers_s[call_id] = asyncio.get_running_loop().time()
        self._transport.sendto(self._answered[call_id].to_bytes(), source)

    def decline(self, call_id: str) -> None:
        """Declines a call that rings here: 486."""
        invite, source = self._ringing.pop(call_id)
        self._transport.sendto(build.response(invite, 486, to_tag="callee").to_bytes(), source)

    def rings(self, call_id: str) -> bool:
        return call_id in self._ringing

    def _end(self, call: PhoneCall) -> None:
        call.ended_s = call.ended_s or asyncio.get_running_loop().time()
        call.ended.set()

    def send_raw(self, data: bytes) -> None:
        """One datagram as it is."""
        self._transport.sendto(data, self._proxy)

    # The caller's side.

    async def _place(self, call: PhoneCall) -> None:
        uri = f"sip:{call.to}@{call.realm}"
        contact = f"<sip:{call.user}@{self.contact or self.address}>"
        headers = [("Contact", contact), ("Content-Type", "application/sdp")]
        try:
            status, response = await self._request_with_credentials(
                "INVITE", uri, call.user, call.password, call.realm, uri, call.call_id, call.tag, 1, headers, SDP
            )
        except (TimeoutError, Malformed) as error:
            if not call.status.done():
                call.status.set_exception(error)
            return
        call.response = response
        call.cseq = response.cseq.number
        if status < 300:
            call.answered_s = asyncio.get_running_loop().time()
            call.routes = tuple(str(route) for route in reversed(response.record_routes))
            call.target = str(response.contacts[0].uri)
            ack = self._build("ACK", call.target, call, [], b"")
            self._transport.sendto(ack.to_bytes(), self._next_hop(ack))
        if not call.status.done():
            call.status.set_result(status)

    def _build(self, method: str, uri: str, call: PhoneCall, headers: list[tuple[str, str]], body: bytes) -> Request:
        to = call.response.get("to") if call.response is not None else f"<sip:{call.to}@{call.realm}>"
        return build.request(
            method,
            uri,
            via=self._via(),
            from_=f"<sip:{call.user}@{call.realm}>;tag={call.tag}",
            to=to or "",
            call_id=call.call_id,
            cseq=call.cseq,
            routes=call.routes,
            headers=headers,
            body=body,
        )

    def _via(self) -> str:
        return f"SIP/2.0/UDP {self.address};branch=z9hG4bK{_token()};rport"

    async def _request_with_credentials(
        self,
        method: str,
        uri: str,
        user: str,
        password: str,
        realm: str,
        to: str,
        call_id: str,
        tag: str,
        cseq: int,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> tuple[int, Response]:
        extra: list[tuple[str, str]] = []
        for attempt in (cseq, cseq + 1):
            request = build.request(
                method,
                uri,
                via=self._via(),
                from_=f"<sip:{user}@{realm}>;tag={tag}",
                to=f"<{to}>",
                call_id=call_id,
                cseq=attempt,
                headers=[*headers, *extra],
                body=body,
            )
            response = await self._send(request)
            if method == "INVITE" and response.status >= 300:
                self._transport.sendto(build.ack(request, response).to_bytes(), self._proxy)
            if response.status not in (401, 407) or extra:
                break
            name = "proxy-authenticate" if response.status == 407 else "www-authenticate"
            challenge = parse_challenge(response.get_all(name)[0])
            credentials = challenge.answer(user, password, method, uri, cnonce=_token())
            extra = [("Proxy-Authorization" if response.status == 407 else "Authorization", str(credentials))]
        return response.status, response

    def _next_hop(self, request: Request) -> tuple[str, int]:
        if not self._doubled or "route" not in request:
            return self._proxy
        uri = request.routes[0].uri
        return uri.host, uri.port or 5060

    async def _send(self, request: Request) -> Response:
        """Sends until a final response comes, as RFC 3261 17.1 says; TimeoutError after 64 × T1."""
        key = (request.via.params["branch"] or "", request.method)
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._pending[key] = future
        data, wait_s, left_s = request.to_bytes(), T1_S, 64 * T1_S
        try:
            while left_s > 0:
                for proxy in (self._next_hop(request), *(self._doubled if request.method == "INVITE" else ())):
                    self._transport.sendto(data, proxy)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        return await asyncio.shield(future)
                left_s -= wait_s
                wait_s = min(2 * wait_s, 4.0)
            raise TimeoutError(f"no final answer to {request.method}")
        finally:
            del self._pending[key]
            future.cancel()

    # What comes in.

    def _receive(self, data: bytes, source: tuple[str, int]) -> None:
        try:
            message = parse(data)
        except Malformed:
            return
        if isinstance(message, Response):
            self._receive_response(message)
        else:
            self._receive_request(message, source)

    def _receive_response(self, response: Response) -> None:
        future = self._pending.get((response.via.params.get("branch") or "", response.cseq.method))
        if response.status >= 200 and future is not None and not future.done():
            future.set_result(response)

    def _receive_request(self, request: Request, source: tuple[str, int]) -> None:
        match request.method:
            case "INVITE" if not request.is_in_dialog:
                answered = self._answered.get(request.call_id)
                if answered is None:
                    self.incoming += 1
                    answered = self._ok(request)
                    self._answered[request.call_id] = answered
                self._transport.sendto(build.response(request, 180, to_tag="callee").to_bytes(), source)
                if not self._answer:
                    self._ringing.setdefault(request.call_id, (request, source))
                else:
                    self.answers_s.setdefault(request.call_id, asyncio.get_running_loop().time())
                    self._transport.sendto(answered.to_bytes(), source)
            case "ACK":
                pass
            case "BYE":
                self._transport.sendto(build.response(request, 200).to_bytes(), source)
                if call := self._calls.get(request.call_id):
                    call.cut = True
                    self._end(call)
            case _:
                self._transport.sendto(build.response(request, 200).to_bytes(), source)

    def _ok(self, invite: Request) -> Response:
        headers = [("Contact", f"<sip:answer@{self.address}>"), ("Content-Type", "application/sdp")]
        return build.response(invite, 200, to_tag="callee", headers=headers, body=SDP)


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._receive(data, (str(addr[0]), addr[1]))


def _socket_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _token() -> str:
    return uuid.uuid4().hex[:20]
