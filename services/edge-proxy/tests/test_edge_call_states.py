"""The machines of a call: every pair of state and event is decided, and the core goes through every row."""

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from edge_world import Agent, EdgeWorld

from callwarden.edge_proxy.core.call import CallSide, EdgeCall
from callwarden.edge_proxy.core.call_states import (
    CALL,
    GRANT,
    IN_SETUP,
    MAY_HOLD,
    OVER,
    SIDE,
    TALKING,
    CallEvent,
    CallState,
    GrantEvent,
    GrantState,
    ImpossibleEvent,
    SideEvent,
    SideState,
)
from callwarden.edge_proxy.core.context import NotAsked
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    Answer,
    CallAdmitted,
    CallExtended,
    CallPlacedElsewhere,
    CallRefused,
    ExtendCall,
    Question,
    Rejected,
    Unanswered,
)
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request, Response

S, E, G, H, D, V = CallState, CallEvent, GrantState, GrantEvent, SideState, SideEvent
TABLES: tuple[dict[Any, dict[Any, Any]], ...] = (CALL, GRANT, SIDE)
HOLD = UUID("9a06b950-af52-4b41-b13f-f3222176d61e")

# What has no row, and why it can't happen. Every pair is here or in the table.
NO_TARGET = {S.IDENTIFYING, S.ADMITTING, S.ABANDONED}
IMPOSSIBLE: dict[CallEvent, tuple[set[CallState], str]] = {
    E.IDENTIFIED: (set(S) - {S.IDENTIFYING}, "auth answers once, and what it says of an ended call is dropped"),
    E.ADMITTED: (set(S) - {S.ADMITTING, S.ABANDONED}, "call-admission is asked once, and answers once"),
    E.UNANSWERED: (set(S) - {S.ADMITTING, S.ABANDONED}, "call-admission is asked once"),
    E.PLACED_ELSEWHERE: (set(S) - {S.ADMITTING, S.ABANDONED}, "call-admission is asked once"),
    E.REFUSED: (set(S) - {S.IDENTIFYING, S.ADMITTING, S.ABANDONED}, "a call is refused before it has a target"),
    E.PROGRESSED: (NO_TARGET | TALKING | OVER, "no target has the INVITE, or it has answered, or it was left"),
    E.ANSWERED: (NO_TARGET | OVER, "no target has the INVITE; a late 2xx is ended by itself (LateAnswer)"),
    E.FAILED: (NO_TARGET | TALKING | OVER, "the caller has one final answer, after a target was tried"),
    E.CANCELLED: (
        {S.ABANDONED, S.CANCELLING} | TALKING | OVER,
        "the layer reports a CANCEL once, before the final answer",
    ),
    E.HUNG_UP: (set(S) - TALKING, "a BYE in an early dialog, or after the end, changes nothing"),
    E.RETARGETED: (set(S) - {S.CALLING, S.RINGING}, "only a call that is set up and not cancelled has a next target"),
    E.RECORD: (set(S) - {S.ANSWERED}, "a call is recorded once"),
    E.CUT: (set(S) - TALKING, "only running calls are cut"),
    E.CLOSED: (set(S) - {S.CUTTING}, "only a call that is cut waits for its sides"),
}
IMPOSSIBLE_GRANT: dict[GrantEvent, tuple[set[GrantState], str]] = {
    H.ASK: ({G.ASKED, G.FINAL}, "one question at a time, and none for what can't be had"),
    H.GRANTED: ({G.OPEN, G.FINAL}, "nothing was asked"),
    H.UNANSWERED: ({G.OPEN, G.FINAL}, "nothing was asked"),
    H.LAST: ({G.FINAL}, "it is final already"),
}


IMPOSSIBLE_SIDE: dict[SideEvent, tuple[set[SideState], str]] = {
    V.TELL: ({D.GONE}, "who is gone is told nothing"),
    V.CLOSED: ({D.UP, D.GONE}, "each BYE of the edge has one end"),
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("event", E)
def test_every_event_in_every_state_has_a_row_or_a_reason(state: CallState, event: CallEvent) -> None:
    states, reason = IMPOSSIBLE[event]
    assert (event in CALL[state]) != (state in states), reason
    call = EdgeCall(HOLD, "call-1", "", None, None, None, state)  # type: ignore[arg-type]
    if event in CALL[state]:
        assert call.step(event) is call.state is CALL[state][event]
    else:
        with pytest.raises(ImpossibleEvent):
            call.step(event)
        assert call.state is state


@pytest.mark.parametrize("state", G)
@pytest.mark.parametrize("event", H)
def test_every_event_of_a_grant_has_a_row_or_a_reason(state: GrantState, event: GrantEvent) -> None:
    states, reason = IMPOSSIBLE_GRANT[event]
    assert (event in GRANT[state]) != (state in states), reason
    call = EdgeCall(HOLD, "call-1", "", None, None, None)  # type: ignore[arg-type]
    call.grant = state
    if event in GRANT[state]:
        call.step_grant(event)
        assert call.grant is GRANT[state][event]
    else:
        with pytest.raises(ImpossibleEvent):
            call.step_grant(event)
        assert call.grant is state


@pytest.mark.parametrize("state", D)
@pytest.mark.parametrize("event", V)
def test_every_event_of_a_side_has_a_row_or_a_reason(state: SideState, event: SideEvent) -> None:
    states, reason = IMPOSSIBLE_SIDE[event]
    assert (event in SIDE[state]) != (state in states), reason
    side = CallSide(SocketAddress("192.0.2.1", 5060), True, 1)
    side.state = state
    if event in SIDE[state]:
        side.step(event)
        assert side.state is SIDE[state][event]
    else:
        with pytest.raises(ImpossibleEvent):
            side.step(event)
        assert side.state is state


def reachable(start: CallState) -> set[CallState]:
    found = {start}
    left = [start]
    while left:
        for state in CALL[left.pop()].values():
            if state not in found:
                found.add(state)
                left.append(state)
    return found


def test_every_state_is_reached_and_the_end_is_reached_from_every_state() -> None:
    assert reachable(S.IDENTIFYING) == set(S)
    assert all(S.ENDED in reachable(state) for state in S)
    assert reachable(S.ENDED) == {S.ENDED}
    assert not IN_SETUP & TALKING
    assert set(S) - {S.IDENTIFYING} - OVER == MAY_HOLD


class Recorder(dict[StrEnum, StrEnum]):
    """A row of a table that notes which of its events came."""

    def __init__(self, state: StrEnum, row: Mapping[StrEnum, StrEnum], seen: set[tuple[StrEnum, StrEnum]]) -> None:
        super().__init__(row)
        self._state, self._seen = state, seen

    def get(self, event: StrEnum, default: StrEnum | None = None) -> StrEnum | None:  # type: ignore[override]
        self._seen.add((self._state, event))
        return super().get(event, default)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[tuple[StrEnum, StrEnum]]:
    pairs: set[tuple[StrEnum, StrEnum]] = set()
    for table in TABLES:
        for state, row in list(table.items()):
            monkeypatch.setitem(table, state, Recorder(state, row, pairs))
    return pairs


REFUSAL = CallRefused(Refuse(Reason.CREDIT, "credit"))


class Scene:
    """A caller, two carriers and the services, who do what they may at any moment, at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.weights = [self.random.choice((1, 3, 9)) for _ in range(6)]  # scenes differ in what happens most
        self.world = EdgeWorld({"spend": {"grace": "10s"}, "session": {"callInitTimeout": "5s", "ringTimeout": "20s"}})
        self.world.admit = lambda question: CallAdmitted(self.random.choice((2, 60)), seed % 4 == 0, 7_200, self.routes)
        self.alice = self.world.registered("alice", "192.0.2.1")
        self.carriers = [self.world.carrier("198.51.100.1"), self.world.carrier("198.51.100.2")]
        self.routes = self.world.routes
        self.invite = self.world_invite()
        self.requests: list[tuple[Agent, Request]] = []
        self.answer: Response | None = None  # the last one to the caller with a To tag
        self.told: set[tuple[str, str | None]] = set()  # who has had a BYE: address and own tag
        self.cseq = 10
        for _ in range(self.random.choice((0, 1, 2, 2))):  # who it is, whether it may
            self.world.release()

    def world_invite(self) -> Request:
        first = self.alice.request("INVITE", "sip:+49301234@callwarden.local")
        self.alice.send(first)
        challenged = self.alice.response(407)
        self.alice.send(build.ack(first, challenged))
        again = self.alice.with_credentials(first, challenged)
        self.world.hold_answers = True
        self.alice.send(again)
        return again

    def step(self) -> None:
        self.read()
        deeds = (self.service, self.carrier, self.cancel, self.wait, self.bye, self.cut)
        self.random.choices(deeds, self.weights)[0]()

    def read(self) -> None:
        for agent in self.carriers:
            while agent.inbox:
                message = agent.inbox.popleft()
                if isinstance(message, Request) and message.method != "ACK":
                    self.requests.append((agent, message))
                    if message.method == "BYE":
                        self.told.add((agent.host, message.to.tag))
        while self.alice.inbox:
            message = self.alice.inbox.popleft()
            if isinstance(message, Request) and message.method == "BYE":
                self.told.add((self.alice.host, "caller"))
            if isinstance(message, Response) and 100 < message.status < 300 and message.cseq.method == "INVITE":
                self.answer = message

    def check_that_who_believes_in_a_call_was_told_of_its_end(self) -> None:
        """A call that a far side believes in isn't reported ended without a BYE to that side through the edge."""
        self.read()
        for ended in self.world.ended:
            if ended.answered_at_s:
                callees = {host for host, tag in self.told if tag == "callee"}
                assert callees, ended
                # Who sent a BYE that was accepted needs none.
                assert ended.reason == "caller-bye" or (self.alice.host, "caller") in self.told, ended

    def service(self) -> None:
        """The oldest question gets one of its answers."""
        if self.world.held:
            self.world.release(self.random.choice(self.answers(self.world.held[0].question)))

    def answers(self, question: Question) -> list[Answer]:
        usual = self.world.answer(question)
        if isinstance(question, AdmitCall):
            return [usual, usual, usual, REFUSAL, CallPlacedElsewhere(), Unanswered()]
        if isinstance(question, ExtendCall):
            more = CallExtended(question.granted_s + 60, False)
            return [more, more, CallExtended(question.granted_s + 1, True), REFUSAL, Unanswered()]
        return [usual, usual, usual, Rejected(Reason.ACCOUNT_DISABLED), Unanswered()]

    def carrier(self) -> None:
        """A carrier answers one of the requests that it has had."""
        if self.requests:
            agent, request = self.random.choice(self.requests)
            statuses = (180, 200, 486, 503) if request.method == "INVITE" else (200, 481, 500, 403)
            agent.respond(request, self.random.choice(statuses))

    def cancel(self) -> None:
        self.alice.send(build.cancel(self.invite))

    def bye(self) -> None:
        if self.answer is not None:
            self.cseq += 1
            routes = [str(route) for route in reversed(self.answer.record_routes)]
            uri = str(self.answer.contacts[0].uri)
            to = self.answer.get("to") or ""
            self.alice.send(self.alice.request("BYE", uri, to=to, cseq=self.cseq, routes=routes))

    def cut(self) -> None:
        if self.random.random() < 0.1:
            self.world.edge.cut_all("test", self.world.mono_s, self.world.unix_s)
            self.world.settle()

    def wait(self) -> None:
        self.world.advance(self.random.choice((0.1, 1.0, 4.0, 10.0)))

    def finish(self) -> None:
        """Everybody falls silent: the clocks and the services' last answers end the call."""
        while self.world.held:
            self.world.release(Unanswered())
        self.world.hold_answers = False
        self.world.extend = lambda question: Unanswered()
        self.world.advance(7_300)


def test_whatever_happens_is_in_the_table_every_row_happens_and_every_call_ends_once(
    seen: set[tuple[StrEnum, StrEnum]],
) -> None:
    rows = {(state, event) for table in TABLES for state, row in table.items() for event in row}
    for seed in range(1_200):
        scene = Scene(seed)
        for _ in range(25):
            scene.step()
        scene.finish()
        assert len(scene.world.edge.calls) == 0
        assert len(scene.world.edge.layer) == 0
        assert not scene.world.edge.context._waiting
        admitted = any(isinstance(question, AdmitCall) for question in scene.world.asked)
        assert len(scene.world.ended) <= admitted
        scene.check_that_who_believes_in_a_call_was_told_of_its_end()
    assert seen == rows


def test_an_answer_that_comes_twice_or_to_no_question_is_an_error() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    world.hold_answers = True
    first = alice.request("INVITE", "sip:+49301234@callwarden.local")
    alice.send(first)
    world.held.clear()
    world.hold_answers = False
    challenge = alice.inbox
    assert not challenge  # the address is asked about
    number = 1
    world.edge.resume(number, Rejected(Reason.ACCOUNT_UNKNOWN), world.mono_s, world.unix_s)
    world.settle()
    alice.response(407)
    for again in (number, 7):
        with pytest.raises(NotAsked):
            world.edge.resume(again, Rejected(Reason.ACCOUNT_UNKNOWN), world.mono_s, world.unix_s)


def test_questions_are_plain_values_with_numbers_of_their_own() -> None:
    world = EdgeWorld()
    world.hold_answers = True
    for number in range(3):
        agent = world.agent(f"192.0.2.{number + 1}", user="a")
        agent.send(agent.request("INVITE", "sip:+49301234@callwarden.local", call_id=f"call-{number}"))
    assert [ask.number for ask in world.held] == [1, 2, 3]
    assert all(hash(ask) == hash(type(ask)(*ask)) for ask in world.held)
