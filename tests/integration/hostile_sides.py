"""The two sides of calls through running edges, one of which does as it likes from a moment on.

In: what each side sends, answers and believes. Out: the states in which that is tried, and what must come of it
(test_hostile).
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from callwarden.sip import build
from callwarden.sip.message import Request, Response
from callwarden.testing.hostile import Answer
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import SDP, Phones

ACK_TIMEOUT_S: Final = 32.0  # RFC 3261 13.3.1.4: 64 × T1, after which a callee gives its dialog up.
REPEAT_S: Final = 4.0  # T2
WELL: Final = (Answer(200),)
CANCELLED: Final = (Answer(487),)


@dataclass(eq=False, slots=True)
class Leg:
    """A call as one of its sides sees it. Moments are Unix times, 0: it hasn't come to that."""

    call_id: str
    tag: str
    behaviour: tuple[Answer, ...] = WELL
    invite_answer: tuple[Answer, ...] = (Answer(180),)
    """What the callee says to the INVITE at once; what it says later comes by `Side.reply_to_invite`."""
    up_s: float = 0.0
    """It believes in the call: the 2xx came (caller), or went out (callee)."""
    told_s: float = 0.0
    """A BYE came."""
    hung_up_s: float = 0.0
    """It sent the BYE that the other side accepted."""
    gave_up_s: float = 0.0
    """No ACK came to its 2xx."""
    failed: int = 0
    """The caller's final answer, if no 2xx."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    invited: asyncio.Event = field(default_factory=asyncio.Event)
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    rung: asyncio.Event = field(default_factory=asyncio.Event)
    pending: int = 0
    """Answers that it will send later."""
    local: str = ""
    remote: str = ""
    target: str = ""
    routes: tuple[str, ...] = ()
    cseq: int = 100
    invite: Request | None = None
    source: tuple[str, int] = ("", 0)
    accepted: bytes = b""
    """The callee's 2xx."""
    ack: bytes = b""
    """The caller's."""
    seen: set[tuple[str, str]] = field(default_factory=set)

    @property
    def ended_s(self) -> float:
        """When it stopped believing in the call; 0: it still does, or never did."""
        return min((each for each in (self.told_s, self.hung_up_s, self.gave_up_s) if each), default=0.0)

    @property
    def moments(self) -> str:
        named = {"up": self.up_s, "told": self.told_s, "hung up": self.hung_up_s, "gave up": self.gave_up_s}
        return f"{self.tag}: " + ", ".join(f"{name} {at_s:.2f}" for name, at_s in named.items() if at_s)

    @property
    def is_over(self) -> bool:
        return not self.pending and (not self.up_s or self.ended_s > 0)


class Side(Phones):
    """A socket with one side of many calls, each a leg by its Call-ID."""

    def __init__(self, proxy: str, host: str) -> None:
        super().__init__(proxy, host=host)
        self.legs: dict[str, Leg] = {}
        self.elsewhere: Phones | None = None
        """Whence it answers at times."""
        self._tasks: set[asyncio.Task[None]] = set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What it asks for.

    async def place(self, leg: Leg, user: str, number: str) -> None:
        """An INVITE with its challenge; returns when there is a final answer."""
        uri = f"sip:{number}@{DEFAULT_REALM}"
        headers = [("Contact", f"<sip:{user}@{self.address}>"), ("Content-Type", "application/sdp")]
        leg.local = f"<sip:{user}@{DEFAULT_REALM}>;tag={leg.tag}"
        status, response = await self._request_with_credentials(
            "INVITE", uri, user, PASSWORD, DEFAULT_REALM, uri, leg.call_id, leg.tag, 1, headers, SDP
        )
        if status >= 300:
            leg.failed = status
            return
        leg.up_s = time.time()
        leg.remote, leg.cseq = response.get("to") or "", response.cseq.number
        leg.target = str(response.contacts[0].uri)
        leg.routes = tuple(str(route) for route in reversed(response.record_routes))

    def acknowledge(self, leg: Leg, edge: str) -> None:
        leg.ack = self.request(leg, "ACK", edge).to_bytes()
        self._transport.sendto(leg.ack, endpoint(edge))

    def cancel(self, leg: Leg) -> None:
        assert leg.invite is not None
        self._start(self._send_cancel(build.cancel(leg.invite)))

    async def _send_cancel(self, request: Request) -> None:
        await self._send(request)

    def request(self, leg: Leg, method: str, edge: str) -> Request:
        """A request inside the call as this side would send it by that edge."""
        if method != "ACK":
            leg.cseq += 1
        return build.request(
            method,
            leg.target,
            via=self._via(),
            from_=leg.local,
            to=leg.remote,
            call_id=leg.call_id,
            cseq=leg.cseq,
            routes=[route.replace(":".join(map(str, self._proxy)), edge) for route in leg.routes],
            headers=[("Contact", f"<sip:side@{self.address}>")] if method in ("INVITE", "UPDATE") else [],
        )

    async def ask(self, leg: Leg, method: str, edge: str) -> int:
        """A request inside the call; its final status, 0 if there was none."""
        request = self.request(leg, method, edge)
        sent_s = time.time()
        try:
            response = await self._send(request, endpoint(edge))
        except TimeoutError:
            return 0
        if method == "INVITE":
            ack = self.request(leg, "ACK", edge) if response.status < 300 else build.ack(request, response)
            self._transport.sendto(ack.to_bytes(), endpoint(edge))
        if method == "BYE" and response.status < 300:
            leg.hung_up_s = leg.hung_up_s or sent_s
        return response.status

    async def _send(self, request: Request, to: tuple[str, int] | None = None) -> Response:
        leg = self.legs.get(request.call_id)
        if leg is not None and request.method == "INVITE" and not request.is_in_dialog:
            leg.invite = request
        return await super()._send(request, to)

    def _receive_response(self, response: Response) -> None:
        leg = self.legs.get(response.call_id)
        if leg is not None and response.cseq.method == "INVITE":
            if response.status == 180:
                leg.rung.set()
            elif 200 <= response.status < 300 and leg.ack and response.cseq.number < leg.cseq:
                self._transport.sendto(leg.ack, self._proxy)  # its 2xx once more
        super()._receive_response(response)

    # What it is asked for.

    def _receive_request(self, request: Request, source: tuple[str, int]) -> None:
        leg = self.legs.get(request.call_id)
        if leg is None:
            return
        method = request.method
        if method == "ACK":
            if leg.invite is not None and request.via.branch != leg.invite.via.branch:  # else of a failure
                leg.acknowledged.set()
            return
        if method == "INVITE" and not request.is_in_dialog:
            self._invited(leg, request, source)
            return
        if method == "BYE":
            leg.told_s = leg.told_s or time.time()
        self._respond(leg, request, source, leg.behaviour)
        if method == "CANCEL":
            leg.cancelled.set()
            if not leg.accepted and leg.behaviour is WELL:
                self.reply_to_invite(leg, CANCELLED)

    def _invited(self, leg: Leg, invite: Request, source: tuple[str, int]) -> None:
        if leg.invite is None:
            leg.invite, leg.source = invite, source
            leg.local, leg.remote = f"{invite.get('to')};tag={leg.tag}", invite.get("from") or ""
            leg.target = str(invite.contacts[0].uri)
            leg.routes = tuple(str(route) for route in invite.record_routes)
            leg.invited.set()
        self._respond(leg, invite, source, leg.invite_answer)

    def reply_to_invite(self, leg: Leg, answers: tuple[Answer, ...]) -> None:
        assert leg.invite is not None
        self._respond(leg, leg.invite, leg.source, answers)

    def _respond(self, leg: Leg, request: Request, source: tuple[str, int], answers: tuple[Answer, ...]) -> None:
        key = request.via.params.get("branch") or "", request.method
        is_new = key not in leg.seen
        leg.seen.add(key)
        for answer in answers:
            if not answer.after_s:
                self._emit(leg, request, source, answer)
            elif is_new or request is leg.invite:
                leg.pending += 1
                self._start(self._emit_later(leg, request, source, answer))

    async def _emit_later(self, leg: Leg, request: Request, source: tuple[str, int], answer: Answer) -> None:
        await asyncio.sleep(answer.after_s)
        leg.pending -= 1
        self._emit(leg, request, source, answer)

    def _emit(self, leg: Leg, request: Request, source: tuple[str, int], answer: Answer) -> None:
        is_invite = request.method == "INVITE"
        headers = [("Contact", f"<sip:side@{self.address}>")] if answer.status < 300 else []
        if is_invite and 200 <= answer.status < 300:
            headers.append(("Content-Type", "application/sdp"))
        body = SDP if is_invite and 200 <= answer.status < 300 else b""
        response = build.response(request, answer.status, to_tag=leg.tag, headers=headers, body=body)
        sender = self.elsewhere if answer.elsewhere else self
        assert sender is not None
        sender._transport.sendto(response.to_bytes(), source)
        if is_invite and not request.is_in_dialog and 200 <= answer.status < 300 and not leg.accepted:
            leg.accepted, leg.up_s = response.to_bytes(), time.time()
            self._start(self._repeat(leg, sender))

    async def _repeat(self, leg: Leg, sender: Phones) -> None:
        """The 2xx again until its ACK comes (RFC 3261 13.3.1.4)."""
        wait_s, left_s = 0.5, ACK_TIMEOUT_S
        while left_s > 0 and not leg.told_s:
            try:
                async with asyncio.timeout(wait_s):
                    await leg.acknowledged.wait()
                return
            except TimeoutError:
                sender._transport.sendto(leg.accepted, leg.source)
            left_s -= wait_s
            wait_s = min(2 * wait_s, REPEAT_S)
        leg.gave_up_s = time.time()

    async def __aexit__(self, *error: Any) -> None:
        for task in self._tasks:
            task.cancel()
        await super().__aexit__(*error)


def endpoint(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
