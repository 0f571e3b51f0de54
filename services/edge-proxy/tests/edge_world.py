"""A world without sockets for the edge's core: user agents, a network that delivers at once, a clock to turn, and the
services it asks, as plain functions.

Nothing of the edge is replaced here: what is asked of auth is answered by checking the digest, calls are admitted as
the test says.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import NAMESPACE_DNS, UUID, uuid5

from callwarden.edge_proxy.core.context import ProxyIdentity
from callwarden.edge_proxy.core.edge import Edge
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    Answer,
    Ask,
    CallAdmitted,
    CallEnded,
    CallerIdentity,
    CallExtended,
    CallStarted,
    CarrierRoute,
    EdgeDecision,
    ExtendCall,
    FindCalled,
    ForgetRecord,
    FoundCalled,
    LoadRecord,
    NoRecord,
    NumberOwner,
    Question,
    Rejected,
    StoreRecord,
    VerifyDigest,
    VerifySource,
)
from callwarden.edge_proxy.core.keys import derive
from callwarden.edge_proxy.core.records import DialogRecord
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.phone import E164, BadNumber
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import Document, PolicySet
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.digest import ha1, parse_challenge
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.transaction import Send

REALM = "callwarden.local"
EDGE = ("192.0.2.10", 5060)
PASSWORD = "correct horse"
MASTER = bytes(range(32))
START_S = UnixS(1_767_614_400.0)
SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n"

RINGS_MAX = 1_000  # At once, of any test: an edge that rings for nothing does it at each tick, for ever.

T = TypeVar("T")


def account_id(user: str) -> str:
    """The account of a subscriber of that name."""
    return str(uuid5(NAMESPACE_DNS, user))


class FixedRandomBytes:
    """Bytes that look random and are the same in every run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return (self._count * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big").ljust(size, b"\x5a")[:size]


def policy(spec: dict[str, object] | None = None, revision: int = 1) -> PolicySet:
    """A set of one policy for all realms; without one, sides are not probed, as most tests look at other messages."""
    spec = spec or {}
    session = spec.get("session", {})
    assert isinstance(session, dict)
    return PolicySet.build(revision, [Document("test", {**spec, "session": {"probe": "0s", **session}})])


class Agent:
    """A user agent at one address: what it is sent lands in `inbox`."""

    def __init__(self, world: "EdgeWorld", host: str, port: int = 5060, user: str = "") -> None:
        self.world = world
        self.host, self.port, self.user = host, port, user
        self.inbox: deque[Request | Response] = deque()
        self.raw: list[bytes] = []
        self._branch = 0
        self.last_invite: Request | None = None  # with credentials, as `EdgeWorld.invite` sent it

    @property
    def contact(self) -> str:
        return f"<sip:{self.user}@{self.uri_host}:{self.port}>"

    @property
    def uri_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    # Sending.

    def via(self, rport: bool = True) -> str:
        self._branch += 1
        return (
            f"SIP/2.0/UDP {self.uri_host}:{self.port};branch=z9hG4bK-{self.user}-{self.port}-{self._branch}"
            f"{';rport' if rport else ''}"
        )

    def request(
        self,
        method: str,
        uri: str,
        *,
        to: str = "",
        call_id: str = "call-1",
        cseq: int = 1,
        tag: str = "caller",
        from_: str = "",
        headers: Sequence[tuple[str, str]] = (),
        routes: Sequence[str] = (),
        body: bytes = b"",
        max_forwards: int = 70,
    ) -> Request:
        return build.request(
            method,
            uri,
            via=self.via(),
            from_=from_ or f"<sip:{self.user}@{REALM}>;tag={tag}",
            to=to or f"<{uri}>",
            call_id=call_id,
            cseq=cseq,
            routes=routes,
            max_forwards=max_forwards,
            headers=[("Contact", self.contact), *headers],
            body=body,
        )

    def send(self, message: Request | Response | bytes) -> None:
        self.world.receive(message if isinstance(message, bytes) else message.to_bytes(), self.host, self.port)

    def respond(
        self, request: Request, status: int, *, tag: str = "callee", contact: bool = True, body: bytes = b""
    ) -> Response:
        headers = [("Contact", self.contact)] if contact and status < 300 else []
        response = build.response(request, status, to_tag=tag, headers=headers, body=body)
        self.send(response)
        return response

    def with_credentials(
        self, request: Request, challenged: Response, password: str = PASSWORD, username: str = ""
    ) -> Request:
        """The request once more, with the next number and the answer to the (first) challenge."""
        proxy = challenged.status == 407
        text = challenged.get_all("proxy-authenticate" if proxy else "www-authenticate")[0]
        answer = parse_challenge(text).answer(
            username or self.user, password, request.method, request.uri_text, cnonce="c0ffee"
        )
        again = request.copy()
        again.set("Via", self.via())
        again.set("CSeq", f"{request.cseq.number + 1} {request.method}")
        again.set("Proxy-Authorization" if proxy else "Authorization", str(answer))
        return parse_request(again.to_bytes())

    # Receiving.

    def next(self) -> Request | Response:
        assert self.inbox, f"{self.user or self.host} got nothing more"
        return self.inbox.popleft()

    def response(self, status: int) -> Response:
        message = self.next()
        assert isinstance(message, Response), message
        assert message.status == status, f"{message.status} {message.reason} and not {status}"
        return message

    def got(self, method: str) -> Request:
        message = self.next()
        assert isinstance(message, Request), message
        assert message.method == method
        return message


class EdgeWorld:
    """The edge and all that is around it. `admit`, `extend`, `identify` are the services: replace them as you like."""

    def __init__(self, spec: dict[str, object] | None = None, realms: tuple[str, ...] = (REALM,)) -> None:
        self.mono_s, self.unix_s = MonoS(1_000.0), START_S
        self.keys = derive([MASTER])
        self.proxy = ProxyIdentity(SocketAddress(*EDGE), realms)
        self.random_bytes = FixedRandomBytes()
        self.policies = policy(spec)
        self.edge = self.new_edge()
        self.agents: dict[tuple[str, int], Agent] = {}
        self.users: dict[str, CallerIdentity] = {}
        self.trunks: dict[str, CallerIdentity] = {}
        self.owners: dict[str, NumberOwner] = {}
        self.events: list[object] = []
        self.asked: list[Question] = []
        self.held: list[Ask] = []
        self.hold_answers = False
        self.lost: list[Send] = []
        self.records: dict[UUID, DialogRecord] = {}
        self.routes: tuple[CarrierRoute, ...] = ()
        self.admit: Callable[[AdmitCall], Answer] = lambda question: CallAdmitted(
            60, False, 7_200, () if question.local else self.routes
        )
        self.extend: Callable[[ExtendCall], Answer] = lambda question: CallExtended(question.granted_s + 60, False)

    def new_edge(self) -> Edge:
        return Edge(self.proxy, self.keys, RuleBook(self.policies, self.proxy.realms), self.random_bytes)

    def restart(self) -> None:
        """Another process in the edge's place: it knows nothing of before."""
        locations = self.edge.locations
        self.edge = self.new_edge()
        for location in [locations.get(REALM, user) for user in self.users]:
            if location is not None:
                self.edge.locations.put(location)

    def apply(self, spec: dict[str, object], revision: int = 2) -> None:
        self.edge.apply(RuleBook(policy(spec, revision), self.proxy.realms))

    # People.

    def agent(self, host: str, port: int = 5060, user: str = "") -> Agent:
        agent = self.agents[host, port] = Agent(self, host, port, user)
        return agent

    def user(self, name: str, host: str, port: int = 5060, *, numbers: tuple[str, ...] = ()) -> Agent:
        """A subscriber with a phone that isn't registered."""
        self.users[name] = CallerIdentity(account_id(name), "enduser", numbers, "", 60)
        return self.agent(host, port, name)

    def registered(self, name: str, host: str, port: int = 5060, *, numbers: tuple[str, ...] = ()) -> Agent:
        agent = self.user(name, host, port, numbers=numbers)
        register = agent.request(
            "REGISTER", f"sip:{REALM}", to=f"<sip:{name}@{REALM}>", call_id=f"register-{name}-{port}"
        )
        agent.send(register)
        agent.send(agent.with_credentials(register, agent.response(401)))
        agent.response(200)
        return agent

    def carrier(self, host: str = "198.51.100.1", port: int = 5060, trunk: str = "carrier") -> Agent:
        """A carrier, the next route of every call."""
        self.routes = (*self.routes, CarrierRoute(trunk, SocketAddress(host, port), "", 0))
        return self.agent(host, port, trunk)

    # Time and the wire.

    def receive(self, data: bytes, host: str, port: int) -> None:
        self.edge.receive(data, SocketAddress(host, port), self.mono_s, self.unix_s)
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer at its moment."""
        end_s = self.mono_s + seconds
        rings_left = RINGS_MAX + 2 * seconds
        while (next_s := self.edge.next_timer_s()) is not None and next_s <= end_s:
            rings_left -= 1
            assert rings_left > 0, "timers ring and ring"
            step_s = max(next_s - self.mono_s, 0.0)
            self.pass_by(step_s)
            self.edge.handle_timers(self.mono_s, self.unix_s)
            self.settle()
        self.pass_by(end_s - self.mono_s)
        self.edge.handle_timers(self.mono_s, self.unix_s)
        self.settle()

    def pass_by(self, seconds: float) -> None:
        """Let time pass while nobody looks."""
        self.mono_s, self.unix_s = MonoS(self.mono_s + seconds), UnixS(self.unix_s + seconds)

    def settle(self) -> None:
        """Deliver everything; answer what is asked, unless `hold_answers`."""
        while effects := self.edge.take_effects():
            for effect in effects:
                match effect:
                    case Send(data, to):
                        agent = self.agents.get(to.address)
                        if agent is None:
                            self.lost.append(effect)
                        else:
                            agent.raw.append(data)
                            agent.inbox.append(parse(data))
                    case Ask(number, question):
                        self.asked.append(question)
                        if self.hold_answers:
                            self.held.append(effect)
                        else:
                            self.edge.resume(number, self.answer(question), self.mono_s, self.unix_s)
                    case _:
                        if isinstance(effect, StoreRecord):
                            self.records[effect.record.hold_id] = effect.record
                        elif isinstance(effect, ForgetRecord):
                            self.records.pop(effect.hold_id, None)
                        self.events.append(effect)

    def release(self, answer: Answer | None = None) -> None:
        """Answer the oldest question that was held back."""
        ask = self.held.pop(0)
        self.edge.resume(ask.number, self.answer(ask.question) if answer is None else answer, self.mono_s, self.unix_s)
        self.settle()

    def answer(self, question: Question) -> Answer:
        match question:
            case VerifyDigest(credentials, method):
                known = self.users.get(credentials.user)
                hashed = ha1(credentials.algorithm, credentials.username, credentials.realm, PASSWORD)
                if known is None or not credentials.verify(hashed, method):
                    return Rejected(Reason.CREDENTIALS)
                return self.called(known, question.called, question.called_realm)
            case VerifySource(source, called):
                trunk = self.trunks.get(source)
                if trunk is None:
                    return Rejected(Reason.ACCOUNT_UNKNOWN)
                return self.called(trunk, called.removeprefix(trunk.tech_prefix), question.called_realm)
            case FindCalled(called, realm):
                is_user = called.isdigit() and called in self.users and realm == REALM
                return FoundCalled(is_user or self.owner_of(called) is not None)
            case AdmitCall():
                return self.admit(question)
            case ExtendCall():
                return self.extend(question)
            case LoadRecord(hold_id):
                return self.records.get(hold_id) or NoRecord()

    def called(self, caller: CallerIdentity, called: str, realm: str) -> CallerIdentity:
        is_user = called.isdigit() and called in self.users and realm == REALM
        return caller._replace(called_owner=self.owner_of(called), called_is_user=is_user)

    def owner_of(self, called: str) -> NumberOwner | None:
        """Whose number that is: of `owners` (by E.164 with "+") or of a user."""
        try:
            number = str(E164.parse(called))
        except BadNumber:
            return None
        users = [NumberOwner(user.account_id) for user in self.users.values() if number in user.numbers]
        return self.owners.get(number, users[0] if users else None)

    # What happened.

    def events_of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def started(self) -> list[CallStarted]:
        return self.events_of(CallStarted)

    @property
    def ended(self) -> list[CallEnded]:
        return self.events_of(CallEnded)

    @property
    def decided(self) -> list[EdgeDecision]:
        return self.events_of(EdgeDecision)

    # Whole ways.

    def invite(self, caller: Agent, to: str, *, call_id: str = "call-1", **more: object) -> Request:
        """The caller's INVITE with credentials, sent; the challenge and the 100 are behind us."""
        first = caller.request("INVITE", f"sip:{to}@{REALM}", call_id=call_id, body=SDP, **more)  # type: ignore[arg-type]
        caller.send(first)
        challenged = caller.response(407)
        caller.send(build.ack(first, challenged))
        again = caller.last_invite = caller.with_credentials(first, challenged)
        caller.send(again)
        caller.response(100)
        return again

    def talk(self, caller: Agent, callee: Agent, to: str, *, call_id: str = "call-1") -> "AnsweredCall":
        """A call that was answered and acknowledged."""
        invite = self.invite(caller, to, call_id=call_id)
        incoming = callee.got("INVITE")
        callee.respond(incoming, 200, body=SDP)
        answer = caller.response(200)
        talk = AnsweredCall(self, caller, callee, invite, answer, incoming)
        caller.send(talk.from_caller("ACK", cseq=invite.cseq.number))
        callee.got("ACK")
        return talk


class AnsweredCall:
    """An answered call as both sides see it, to send requests in it."""

    def __init__(
        self, world: EdgeWorld, caller: Agent, callee: Agent, invite: Request, answer: Response, incoming: Request
    ) -> None:
        self.world = world
        self.caller, self.callee = caller, callee
        self.invite, self.answer, self.incoming = invite, answer, incoming
        self.routes = tuple(str(route) for route in reversed(answer.record_routes))
        self.callee_routes = tuple(str(route) for route in incoming.record_routes)

    @property
    def hold_id(self) -> UUID:
        return self.world.started[-1].hold_id

    def from_caller(self, method: str, *, cseq: int, headers: Sequence[tuple[str, str]] = ()) -> Request:
        return self.caller.request(
            method,
            str(self.answer.contacts[0].uri),
            to=self.answer.get("to") or "",
            from_=self.invite.get("from") or "",
            call_id=self.invite.call_id,
            cseq=cseq,
            routes=self.routes,
            headers=headers,
        )

    def from_callee(self, method: str, *, cseq: int = 1, headers: Sequence[tuple[str, str]] = ()) -> Request:
        return self.callee.request(
            method,
            str(self.incoming.contacts[0].uri),
            to=self.incoming.get("from") or "",
            from_=self.answer.get("to") or "",
            call_id=self.incoming.call_id,
            cseq=cseq,
            routes=self.callee_routes,
            headers=headers,
        )


def parse_request(data: bytes) -> Request:
    message = parse(data)
    assert isinstance(message, Request)
    return message
