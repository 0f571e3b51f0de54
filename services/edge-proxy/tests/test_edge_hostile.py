"""A far side that answers as it likes, in every state of a call: the call ends at both sides, or it is charged.

The table is generated: each state a call can be in × what the far side does then × which of the two sides it is.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from edge_world import SDP, Agent, AnsweredCall, EdgeWorld

from callwarden.edge_proxy.core.active_call import RECORD_AFTER_S
from callwarden.edge_proxy.core.call_states import TALKING
from callwarden.edge_proxy.core.effects import CallAdmitted
from callwarden.sip import build
from callwarden.sip.message import Request
from callwarden.testing.hostile import BEHAVIOURS, Answer

pytestmark = pytest.mark.cases

NUMBER = "+49301234567"


class HostileScene:
    """An answered call of alice's through a carrier, one of whose sides does as the table says from a moment on."""

    def __init__(self, far: str) -> None:
        self.world = world = EdgeWorld()
        world.admit = lambda question: CallAdmitted(7_200, True, 7_200, world.routes)
        self.alice, self.carrier = world.registered("alice", "192.0.2.1"), world.carrier()
        self.elsewhere = world.agent("203.0.113.66")
        self.far, self.near = (self.carrier, self.alice) if far == "callee" else (self.alice, self.carrier)
        self.is_callee = far == "callee"
        self.talk: AnsweredCall | None = None
        self.told: set[str] = set()  # by address: a BYE was delivered there
        self.hung_up: set[str] = set()  # a BYE from there was accepted by the other side
        self.behaviour: tuple[Answer, ...] | None = None
        self.later: list[tuple[float, bytes, Agent]] = []

    def connect(self, *, acknowledge: bool = True) -> AnsweredCall:
        world = self.world
        invite = world.invite(self.alice, NUMBER)
        incoming = self.carrier.got("INVITE")
        self.carrier.respond(incoming, 200, body=SDP)
        talk = self.talk = AnsweredCall(world, self.alice, self.carrier, invite, self.alice.response(200), incoming)
        if acknowledge:
            self.alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
            self.carrier.got("ACK")
        return talk

    def from_near(self, method: str, cseq: int = 50) -> Request:
        assert self.talk is not None
        return self.talk.from_caller(method, cseq=cseq) if self.is_callee else self.talk.from_callee(method, cseq=cseq)

    def from_far(self, method: str, cseq: int = 60) -> Request:
        assert self.talk is not None
        return self.talk.from_callee(method, cseq=cseq) if self.is_callee else self.talk.from_caller(method, cseq=cseq)

    def run(self, seconds: float) -> None:
        """Let time pass; the far side does as it likes with each request, the near side as it should."""
        end_s = self.world.mono_s + seconds
        while True:
            self.read()
            if self.world.mono_s >= end_s:
                return
            self.world.advance(min(0.5, end_s - self.world.mono_s))
            due = [each for each in self.later if each[0] <= self.world.mono_s]
            self.later = [each for each in self.later if each[0] > self.world.mono_s]
            for _, data, agent in due:
                agent.send(data)

    def read(self) -> None:
        while self.alice.inbox or self.carrier.inbox:
            for agent in (self.alice, self.carrier):
                while agent.inbox:
                    message = agent.inbox.popleft()
                    if isinstance(message, Request):
                        self.take(agent, message)
                    elif message.cseq.method == "BYE" and message.status == 200:
                        self.hung_up.add(agent.host)

    def take(self, agent: Agent, request: Request) -> None:
        if request.method == "BYE":
            self.told.add(agent.host)
        if request.method in ("ACK", "CANCEL"):
            return
        if agent is not self.far or self.behaviour is None:
            agent.respond(request, 200)
            return
        for status, after_s, elsewhere in self.behaviour:
            headers = [("Contact", agent.contact)] if status < 300 else []
            data = build.response(request, status, to_tag="callee", headers=headers).to_bytes()
            sender = self.elsewhere if elsewhere else agent
            if after_s:
                self.later.append((self.world.mono_s + after_s, data, sender))
            else:
                sender.send(data)

    @property
    def is_charged(self) -> bool:
        return any(call.state in TALKING for call in self.world.edge.calls.all())


# How the call gets into each state; from then on the far side misbehaves.


def unacknowledged(scene: HostileScene) -> None:
    scene.connect(acknowledge=False)


def talking(scene: HostileScene) -> None:
    scene.connect()


def recorded(scene: HostileScene) -> None:
    scene.connect()
    scene.world.advance(RECORD_AFTER_S + 0.1)


def near_hangs_up(scene: HostileScene) -> None:
    scene.connect()
    scene.near.send(scene.from_near("BYE"))


def near_hangs_up_twice(scene: HostileScene) -> None:
    near_hangs_up(scene)
    scene.near.send(scene.from_near("BYE", cseq=51))


def far_hangs_up(scene: HostileScene) -> None:
    scene.connect()
    scene.far.send(scene.from_far("BYE"))


def both_hang_up(scene: HostileScene) -> None:
    scene.connect()
    scene.near.send(scene.from_near("BYE"))
    scene.far.send(scene.from_far("BYE"))


def refreshed_by_invite(scene: HostileScene) -> None:
    scene.connect()
    scene.near.send(scene.from_near("INVITE"))


def refreshed_by_update(scene: HostileScene) -> None:
    scene.connect()
    scene.near.send(scene.from_near("UPDATE"))


def informed(scene: HostileScene) -> None:
    scene.connect()
    scene.near.send(scene.from_near("INFO"))


def cut(scene: HostileScene) -> None:
    scene.connect()
    scene.world.edge.cut_all("test", scene.world.mono_s, scene.world.unix_s)
    scene.world.settle()


def cut_while_hanging_up(scene: HostileScene) -> None:
    near_hangs_up(scene)
    scene.world.edge.cut_all("test", scene.world.mono_s, scene.world.unix_s)
    scene.world.settle()


STATES: tuple[Callable[[HostileScene], None], ...] = (
    unacknowledged, talking, recorded, near_hangs_up, near_hangs_up_twice, far_hangs_up, both_hang_up,
    refreshed_by_invite, refreshed_by_update, informed, cut, cut_while_hanging_up,
)  # fmt: skip


def table() -> Iterator[tuple[Callable[[HostileScene], None], str, str]]:
    yield from product(STATES, BEHAVIOURS, ("callee", "caller"))


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_whatever_a_far_side_answers_the_call_ends_at_both_sides_or_is_charged(
    state: Callable[[HostileScene], None],
) -> None:
    pairs = [(behaviour, far) for each, behaviour, far in table() if each is state]
    assert len(pairs) == 2 * len(BEHAVIOURS)
    for behaviour, far in pairs:
        where = f"{state.__name__} × {behaviour} × {far}"
        scene = HostileScene(far)
        state(scene)
        scene.behaviour = BEHAVIOURS[behaviour]
        for _ in range(3):
            scene.run(20)
            check(scene, where)
        # The policy's longest talk ends what is left.
        scene.world.advance(7_200)
        scene.run(40)
        check(scene, where)
        assert not scene.is_charged, where
        assert len(scene.world.ended) == 1, where


def check(scene: HostileScene, where: str) -> None:
    """Either it is charged, or each side was told by a BYE or has said so itself."""
    assert scene.is_charged != bool(scene.world.ended), where
    if scene.world.ended:
        (ended,) = scene.world.ended
        assert ended.ended_at_s >= ended.answered_at_s, where
        for agent in (scene.alice, scene.carrier):
            assert agent.host in scene.told | scene.hung_up, f"{where}: {agent.user} believes in it"


def test_the_table_leaves_no_pair_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(table())
    assert len(set(rows)) == len(STATES) * len(BEHAVIOURS) * 2
    with capsys.disabled():
        sys.stdout.write(f"\n{len(STATES)} states × {len(BEHAVIOURS)} behaviours × 2 sides = {len(rows)}\n")
