"""Cases: an INVITE that comes to two edges is one call with one hold."""

from uuid import UUID

import pytest
from edge_world import AnsweredCall, EdgeWorld

from callwarden.edge_proxy.core.duplicates import hold_id_of
from callwarden.edge_proxy.core.edge import Edge
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    Answer,
    CallAdmitted,
    CallEnded,
    CallerIdentity,
    CallNews,
    CallPlacedElsewhere,
    NewsKind,
)
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request, Response

pytestmark = pytest.mark.cases


class TwoEdges:
    """Two edges behind one name. Requests of agents go to `world.edge`; what each of the two asks is noted."""

    def __init__(self) -> None:
        self.world = world = EdgeWorld()
        self.first = world.edge
        world.restart()
        self.second = world.edge
        world.edge = self.first
        self.asked: list[tuple[Edge, AdmitCall]] = []
        self.placed: dict[UUID, Edge] = {}
        world.admit = self.admit
        self.alice = world.registered("alice", "192.0.2.1")
        self.carrier = world.carrier()

    def admit(self, question: AdmitCall) -> Answer:
        """As call-admission: a hold for the edge that asks first."""
        edge = self.world.edge
        self.asked.append((edge, question))
        if self.placed.setdefault(question.hold_id, edge) is not edge:
            return CallPlacedElsewhere()
        return CallAdmitted(60, False, 7_200, self.world.routes)

    def at(self, edge: Edge, message: Request) -> None:
        """Arrives there; what follows does, too."""
        self.world.edge = edge
        self.alice.send(message)

    def invite(self) -> Request:
        first = self.alice.request("INVITE", "sip:+49301234@callwarden.local")
        self.at(self.first, first)
        challenged = self.alice.response(407)
        self.alice.send(build.ack(first, challenged))
        return self.alice.with_credentials(first, challenged)

    def pass_news(self, to: Edge) -> CallNews:
        (news,) = self.world.events_of(CallNews)
        self.world.edge = to
        to.heard(news, self.world.mono_s, self.world.unix_s)
        self.world.settle()
        return news


@pytest.fixture
def edges() -> TwoEdges:
    return TwoEdges()


def test_the_edge_that_asks_first_places_the_call_and_the_other_one_says_nothing_more(edges: TwoEdges) -> None:
    invite = edges.invite()
    for edge in (edges.first, edges.second, edges.second):
        edges.at(edge, invite)
    (one, other) = edges.asked
    assert (one[0], other[0]) == (edges.first, edges.second)
    assert one[1].hold_id == other[1].hold_id
    incoming = edges.carrier.got("INVITE")
    assert not edges.carrier.inbox
    edges.world.edge = edges.first
    edges.carrier.respond(incoming, 200)
    answers = [message.status for message in edges.alice.inbox if isinstance(message, Response)]
    assert answers == [100, 100, 200]
    assert not edges.world.ended
    assert len(edges.second.calls) == 0
    assert len(edges.second.layer) == 0


@pytest.mark.parametrize("moment", ["asking", "placed"])
def test_the_caller_may_give_up_at_either_edge(edges: TwoEdges, moment: str) -> None:
    invite = edges.invite()
    edges.at(edges.first, invite)
    incoming = edges.carrier.got("INVITE")
    edges.carrier.respond(incoming, 180)
    edges.world.hold_answers = moment == "asking"
    edges.at(edges.second, invite)
    if moment == "asking":
        edges.world.release()  # who it is
    edges.at(edges.second, build.cancel(invite))
    if moment == "asking":
        edges.world.release(CallPlacedElsewhere())
    news = edges.pass_news(edges.first)
    assert (news.kind, news.hold_id) == (NewsKind.CANCELLED, edges.asked[0][1].hold_id)
    edges.carrier.respond(edges.carrier.got("CANCEL"), 200)
    edges.carrier.respond(incoming, 487)
    (ended,) = edges.world.events_of(CallEnded)
    assert (ended.reason, ended.sip_status) == ("cancelled", 487)
    statuses = {message.status for message in edges.alice.inbox if isinstance(message, Response)}
    assert 487 in statuses
    assert not {status for status in statuses if status > 400} - {487}


def test_a_cancel_of_a_call_that_no_edge_places_elsewhere_is_told_to_nobody(edges: TwoEdges) -> None:
    invite = edges.invite()
    edges.at(edges.first, invite)
    edges.at(edges.second, build.cancel(invite))
    assert [message.status for message in edges.alice.inbox if isinstance(message, Response)] == [100, 481]
    assert not edges.world.events_of(CallNews)


def test_an_invite_that_comes_once_more_when_its_transaction_is_over_and_its_call_goes_on_changes_nothing() -> None:
    world = EdgeWorld()
    trunk = world.agent("198.51.100.9", user="trunk")  # known by its address: no nonce tells that it comes again
    world.trunks["198.51.100.9"] = CallerIdentity("office", "traffic-sender", ("+4930",), "", 60, "office")
    carrier = world.carrier()
    invite = trunk.request("INVITE", "sip:+49301234@callwarden.local")
    trunk.send(invite)
    incoming = carrier.got("INVITE")
    carrier.respond(incoming, 200)
    trunk.response(100)
    talk = AnsweredCall(world, trunk, carrier, invite, trunk.response(200), incoming)
    trunk.send(talk.from_caller("ACK", cseq=1))
    world.advance(40)
    assert not world.ended
    calls = len(world.edge.calls)
    asked = len(world.asked)
    trunk.send(invite)
    world.settle()
    assert not [each for each in carrier.inbox if isinstance(each, Request) and each.method == "INVITE"]
    assert not [each for each in world.asked[asked:] if isinstance(each, AdmitCall)]
    assert len(world.edge.calls) == calls


def test_calls_have_the_same_hold_if_their_transactions_and_senders_are_the_same() -> None:
    invite = request_with()
    here, moved = SocketAddress("192.0.2.1", 5060), SocketAddress("192.0.2.1", 40_000)
    hold_id = hold_id_of(invite, here)
    assert hold_id is not None
    assert hold_id_of(request_with(), moved) == hold_id_of(build.cancel(invite), here) == hold_id
    assert hold_id_of(request_with(branch="z9hG4bK"), here) is None, "unique nowhere"
    assert hold_id_of(request_with(branch="1"), here) is None
    others = [request_with(**{name: "2"}) for name in ("call_id", "tag", "cseq", "port")]
    ids = {hold_id_of(other, here) for other in (*others, request_with(branch="z9hG4bK-2"))}
    ids |= {hold_id_of(invite, SocketAddress("192.0.2.2", 5060)), hold_id}
    assert len(ids) == 7


def request_with(
    branch: str = "z9hG4bK-1", call_id: str = "1", tag: str = "1", cseq: str = "1", port: str = "1"
) -> Request:
    return build.request(
        "INVITE",
        "sip:+49301234@callwarden.local",
        via=f"SIP/2.0/UDP 192.0.2.1:{port};branch={branch}",
        from_=f"<sip:alice@callwarden.local>;tag={tag}",
        to="<sip:+49301234@callwarden.local>",
        call_id=call_id,
        cseq=int(cseq),
    )
