"""What a controlled call costs inside the edge: its core, flat out, without sockets, services and waking up.

Whole calls (INVITE, 407, ACK, INVITE with credentials, verified and admitted, 100, 180, 200, ACK, BYE, 200) are played
once to record every datagram and answer that reaches the edge, in the order and at the times of BENCH_EDGE_RATE calls/s
that last a second each. Chance and clocks are arguments of the core, so that the record, played to a fresh edge, meets
the same branches, nonces and cookies: what is measured is the edge alone. The messages are as long as those of SIPp in
`python -m benchmarks calls`; what that finds above these figures is sockets, streams, events and waking up.

Environment: BENCH_EDGE_CALLS (in each round, default 2,000), BENCH_EDGE_ROUNDS (default 7), BENCH_EDGE_RATE (500).
"""

import gc
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from time import process_time
from typing import Final
from uuid import NAMESPACE_DNS, uuid5

from benchmarks.report import Table
from callwarden.common.runtime import tune_garbage_collection
from callwarden.edge_proxy.core.context import ProxyIdentity
from callwarden.edge_proxy.core.edge import Edge
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    Answer,
    Ask,
    CallAdmitted,
    CallEnded,
    CallerIdentity,
    CarrierRoute,
    Rejected,
    VerifyDigest,
    VerifySource,
)
from callwarden.edge_proxy.core.keys import derive
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import Document, PolicySet
from callwarden.sip import build
from callwarden.sip.address import SocketAddress, socket_address
from callwarden.sip.digest import parse_challenge
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.transaction import Send

CALLS: Final = int(os.environ.get("BENCH_EDGE_CALLS", "2000"))
ROUNDS: Final = int(os.environ.get("BENCH_EDGE_ROUNDS", "7"))
RATE: Final = int(os.environ.get("BENCH_EDGE_RATE", "500"))
USERS: Final = 1_000
CALL_S: Final = 1.0
TICK_S: Final = 0.05  # as `EdgeApp` rings its timer
TRIP_S: Final = 0.001
START_S: Final = 1_000.0
WALL_S: Final = 1_767_614_400.0
REALM: Final = "callwarden.local"
NUMBER: Final = "493012345"
SITE: Final = ProxyIdentity(SocketAddress("127.0.0.1", 5060), (REALM,))
CALLER: Final = SocketAddress("127.0.0.1", 15_061)
CARRIER: Final = SocketAddress("127.0.0.1", 15_062)
OFFER: Final = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0 8\r\n"
    b"a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
)
ANSWER: Final = OFFER.partition(b"a=rtpmap:8")[0]

# What reaches the edge: a datagram from an address, or None: the answer to its oldest question; and when.
Step = tuple[bytes | None, SocketAddress, float]


class BenchmarkRandomBytes:
    """Bytes that are the same in every run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return (self._count * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big").ljust(size, b"\x5a")[:size]


def new_edge() -> Edge:
    """An edge with the policy of `benchmarks.calls`: the load's address is exempt from a stranger's limits."""
    policies = PolicySet.build(1, [Document("bench", {"firewall": {"allow": ["127.0.0.1/32"]}})])
    return Edge(SITE, derive([bytes(range(32))]), RuleBook(policies, SITE.realms), BenchmarkRandomBytes())


def answer_to(ask: Ask) -> Answer:
    """What auth and call-admission say: yes."""
    question = ask.question
    if isinstance(question, VerifyDigest):
        account_id = str(uuid5(NAMESPACE_DNS, question.credentials.username))
        return CallerIdentity(account_id, "enduser", (f"+{NUMBER}",), "", 60)
    if isinstance(question, VerifySource):
        return Rejected(Reason.ACCOUNT_UNKNOWN)  # no trunk: once a while, of each address
    assert isinstance(question, AdmitCall)
    return CallAdmitted(60, False, 7_200, (CarrierRoute("carrier", CARRIER, "", 0),))


@dataclass
class Recorder:
    """Plays phones, carrier and services to an edge and writes down what it is given."""

    edge: Edge = field(default_factory=new_edge)
    steps: list[Step] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    ended: int = 0
    mono_s: float = START_S
    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0

    def run(self, calls: int) -> None:
        for number in range(calls):
            self._at(START_S + number / RATE, lambda number=number: self._begin(number))  # type: ignore[misc]
        while self._later:
            self.mono_s, _, work = heappop(self._later)
            work()

    def _at(self, at_s: float, work: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._later, (at_s, self._count, work))

    def _give(self, message: Request | Response, source: SocketAddress) -> None:
        data = message.to_bytes()
        self._at(self.mono_s + TRIP_S, lambda: self._receive(data, source))

    def _receive(self, data: bytes, source: SocketAddress) -> None:
        self.steps.append((data, source, self.mono_s))
        self.edge.receive(data, source, MonoS(self.mono_s), UnixS(WALL_S + self.mono_s))
        self._perform()

    def _resume(self, ask: Ask) -> None:
        answer = answer_to(ask)
        self.answers.append(answer)
        self.steps.append((None, CALLER, self.mono_s))
        self.edge.resume(ask.number, answer, MonoS(self.mono_s), UnixS(WALL_S + self.mono_s))
        self._perform()

    def _perform(self) -> None:
        for effect in self.edge.take_effects():
            if isinstance(effect, Send):
                message = parse(effect.data)
                if effect.to.address == CARRIER:
                    assert isinstance(message, Request)
                    self._carrier(message)
                else:
                    assert isinstance(message, Response)
                    self._caller(message)
            elif isinstance(effect, Ask):
                self._at(self.mono_s + TRIP_S, lambda ask=effect: self._resume(ask))  # type: ignore[misc]
            elif isinstance(effect, CallEnded):
                self.ended += 1

    # The phone.

    def _begin(self, number: int) -> None:
        self._give(self._invite(number, None), CALLER)

    def _invite(self, number: int, credentials: str | None) -> Request:
        user = f"user{number % USERS}"
        return build.request(
            "INVITE",
            f"sip:{NUMBER}@{REALM}",
            via=f"SIP/2.0/UDP 127.0.0.1:15061;branch=z9hG4bK-7-{number}-{5 if credentials else 0};rport",
            from_=f"<sip:{user}@{REALM}>;tag=7c{number}",
            to=f"<sip:{NUMBER}@{REALM}>",
            call_id=f"{number}-7@127.0.0.1",
            cseq=2 if credentials else 1,
            headers=[
                ("Contact", f"<sip:{user}@127.0.0.1:15061>"),
                *([("Proxy-Authorization", credentials)] if credentials else []),
                ("User-Agent", "traffic"),
                ("Content-Type", "application/sdp"),
            ],
            body=OFFER,
        )

    def _caller(self, response: Response) -> None:
        number = int(response.call_id.partition("-")[0])
        first = self._invite(number, None)
        if response.status == 407:
            self._give(build.ack(first, response), CALLER)
            user = f"user{number % USERS}"
            challenge = parse_challenge(response.get("proxy-authenticate") or "")
            credentials = challenge.answer(user, "secret", "INVITE", first.uri_text, cnonce="6b8b4567")
            self._give(self._invite(number, str(credentials)), CALLER)
        elif response.status == 200 and response.cseq.method == "INVITE":
            self._give(self._inside(number, response, "ACK", 2), CALLER)
            bye = self._inside(number, response, "BYE", 3)
            self._at(self.mono_s + CALL_S, lambda: self._give(bye, CALLER))

    def _inside(self, number: int, ok: Response, method: str, cseq: int) -> Request:
        return build.request(
            method,
            str(ok.contacts[0].uri),
            via=f"SIP/2.0/UDP 127.0.0.1:15061;branch=z9hG4bK-7-{number}-{method};rport",
            from_=f"<sip:user{number % USERS}@{REALM}>;tag=7c{number}",
            to=ok.get("to") or "",
            call_id=ok.call_id,
            cseq=cseq,
            routes=[str(route) for route in ok.record_routes],
        )

    # The carrier.

    def _carrier(self, request: Request) -> None:
        tag = f"7s{request.call_id.partition('-')[0]}"
        contact = ("Contact", "<sip:127.0.0.1:15062;transport=UDP>")
        if request.method == "INVITE":
            self._give(build.response(request, 180, to_tag=tag, headers=[contact]), CARRIER)
            headers = [contact, ("Content-Type", "application/sdp")]
            self._give(build.response(request, 200, to_tag=tag, headers=headers, body=ANSWER), CARRIER)
        elif request.method == "BYE":
            self._give(build.response(request, 200), CARRIER)


def play(steps: list[Step], answers: list[Answer]) -> tuple[float, int]:
    """CPU seconds that a fresh edge takes for the record, with the timers of that time; and how many calls it ended."""
    edge = new_edge()
    asks: list[Ask] = []
    answer = iter(answers)
    ended = 0
    next_tick_s = START_S + TICK_S
    gc.collect()
    begun_s = process_time()
    for data, source, mono_s in steps:
        if mono_s >= next_tick_s:
            edge.handle_timers(MonoS(mono_s), UnixS(WALL_S + mono_s))
            next_tick_s = mono_s + TICK_S
        if data is None:
            edge.resume(asks.pop(0).number, next(answer), MonoS(mono_s), UnixS(WALL_S + mono_s))
        else:
            edge.receive(data, socket_address(source[0], source[1]), MonoS(mono_s), UnixS(WALL_S + mono_s))
        for effect in edge.take_effects():
            kind = type(effect)
            if kind is Ask:
                asks.append(effect)  # type: ignore[arg-type]
            elif kind is CallEnded:
                ended += 1
    return process_time() - begun_s, ended


async def run() -> list[Table]:
    recorder = Recorder()
    recorder.run(CALLS)
    if recorder.ended != CALLS:
        raise SystemExit(f"benchmarks: edge: {recorder.ended} of {CALLS} calls ended")
    tune_garbage_collection()  # as in service
    rounds = []
    for _ in range(ROUNDS):
        cpu_s, ended = play(recorder.steps, recorder.answers)
        if ended != CALLS:
            raise SystemExit(f"benchmarks: edge: {ended} of {CALLS} calls ended when played again")
        rounds.append(cpu_s / CALLS * 1e6)
        print(f"edge: {rounds[-1]:.0f} us/call", file=sys.stderr, flush=True)
    datagrams = sum(data is not None for data, _, _ in recorder.steps) / CALLS
    return [
        Table(
            "A call inside the edge's core",
            ["what", "µs per call, best", "median"],
            [[f"{datagrams:g} datagrams in, 2 questions, timers", min(rounds), statistics.median(rounds)]],
            [
                f"{ROUNDS} rounds of {CALLS:,} calls, flat out: CPU of the edge's decisions and messages alone, "
                "without sockets, services and waking up, which `calls` has.",
            ],
        )
    ]
