"""Where a switch's requests go: it may name another place than its INVITE came from, or went to, if that is its own
(DESIGN D14)."""

import pytest
from edge_world import REALM, AnsweredCall, EdgeWorld, parse_request

from callwarden.edge_proxy.core.effects import CallerIdentity, CarrierRoute
from callwarden.sip import build
from callwarden.sip.address import HostName
from callwarden.sip.message import Request

NUMBER = "+49301234567"
SWITCH, KNOWN, STRANGER, CARRIER = "203.0.113.5", "203.0.113.6", "203.0.113.99", "198.51.100.1"

PLAIN: tuple[str, tuple[str, ...]] = ("<sip:gw@OWN>", ())
# What a side says of itself, OWN being its address, and where requests to it go then.
PLACES = [
    ("<sip:gw@OWN:5070>", (), ("OWN", 5070)),
    (f"<sip:gw@{KNOWN}:5070>", (), (KNOWN, 5070)),  # of the same trunk, as auth has said
    (f"<sip:gw@{STRANGER}>", (), ("OWN", 5060)),
    ("<sip:gw@switch.example>", (), ("OWN", 5060)),
    (f"<sip:gw@{STRANGER}>", ("<sip:OWN:5071;lr>",), ("OWN", 5071)),  # its proxy goes before its Contact
    ("<sip:gw@OWN:5070>", (f"<sip:{STRANGER};lr>",), ("OWN", 5060)),
]


class HopScene:
    """A switch that calls a carrier, and somebody at each place that either may name."""

    def __init__(self) -> None:
        self.world = world = EdgeWorld()
        for host in (SWITCH, KNOWN):
            world.trunks[host] = CallerIdentity(f"account-{host}", "traffic-sender", (), "", 60, "trunk")
            for port in (5070, 5071):
                world.agent(host, port)
        for port in (5070, 5071):
            world.agent(CARRIER, port)
        world.agent(STRANGER)
        known = world.agent(KNOWN, user="known")
        known.send(known.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id="to be known"))
        self.switch = world.agent(SWITCH, user="switch")
        self.carrier = world.carrier(CARRIER)

    def talk(self, caller: tuple[str, tuple[str, ...]], callee: tuple[str, tuple[str, ...]]) -> AnsweredCall:
        """`caller`, `callee`: the Contact and the Record-Route that each names."""
        invite = self.switch.request("INVITE", f"sip:{NUMBER}@{REALM}")
        invite.set("Contact", caller[0].replace("OWN", SWITCH))
        for route in caller[1]:
            invite.add("Record-Route", route.replace("OWN", SWITCH))
        self.switch.send(invite)
        self.switch.response(100)
        incoming = self.carrier.got("INVITE")
        answer = build.response(
            incoming, 200, to_tag="callee", headers=[("Contact", callee[0].replace("OWN", CARRIER))]
        )
        ours = answer.get_all("record-route")
        answer.remove("record-route")
        for route in (*(route.replace("OWN", CARRIER) for route in callee[1]), *ours):
            answer.add("Record-Route", route)
        self.carrier.send(answer)
        received = self.switch.response(200)
        received.set(
            "Contact", PLAIN[0].replace("OWN", CARRIER)
        )  # the Request-URI of what follows, which decides nothing
        return AnsweredCall(self.world, self.switch, self.carrier, invite, received, incoming)

    def reached(self, method: str) -> list[tuple[str, int]]:
        """Who has got such a request."""
        assert not self.world.lost
        return [
            place
            for place, agent in self.world.agents.items()
            if any(isinstance(message, Request) and message.method == method for message in agent.inbox)
        ]


@pytest.mark.parametrize(("contact", "routes", "place"), PLACES)
def test_a_calling_switch_is_reached_where_it_says_if_that_is_its_own(
    contact: str, routes: tuple[str, ...], place: tuple[str, int]
) -> None:
    scene = HopScene()
    talk = scene.talk((contact, routes), PLAIN)
    scene.carrier.send(talk.from_callee("INFO"))
    assert scene.reached("INFO") == [(place[0].replace("OWN", SWITCH), place[1])]


@pytest.mark.parametrize(
    ("contact", "routes", "place"),
    [*PLACES, ("<tel:+49301>", (), ("OWN", 5060)), ("<sip:gw@@x>", (), ("OWN", 5060)), ("*", (), ("OWN", 5060))],
)
def test_a_called_switch_is_reached_where_it_says_if_that_is_its_own(
    contact: str, routes: tuple[str, ...], place: tuple[str, int]
) -> None:
    scene = HopScene()
    talk = scene.talk(PLAIN, (contact, routes))
    scene.switch.send(talk.from_caller("INFO", cseq=9))
    if place[0] == KNOWN:
        place = ("OWN", 5060)  # that is another trunk's, and not the carrier's
    assert scene.reached("INFO") == [(place[0].replace("OWN", CARRIER), place[1])]


def test_a_phone_is_reached_where_its_packets_come_from_whatever_it_says() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    others = [world.agent(host, 5070) for host in ("192.0.2.1", "192.0.2.2")]
    first = alice.request("INVITE", f"sip:bob@{REALM}")
    first.set("Contact", "<sip:alice@192.0.2.1:5070>")
    alice.send(first)
    invite = alice.with_credentials(first, alice.response(407))
    alice.send(invite)
    alice.response(100)
    incoming = bob.got("INVITE")
    bob.send(build.response(incoming, 200, to_tag="callee", headers=[("Contact", "<sip:bob@192.0.2.2:5070>")]))
    talk = AnsweredCall(world, alice, bob, invite, alice.response(200), incoming)
    bob.send(talk.from_callee("INFO"))
    alice.got("INFO")
    alice.send(talk.from_caller("INFO", cseq=9))
    bob.got("INFO")
    assert not any(agent.inbox for agent in others)


class NamedScene:
    """A call through a carrier that is known by name, and answers from one of its addresses."""

    def __init__(self, spec: dict[str, object] | None = None) -> None:
        self.world = world = EdgeWorld(spec)
        self.alice = world.registered("alice", "192.0.2.1")
        self.carrier = world.agent("198.51.100.9", user="carrier")
        world.routes = (CarrierRoute("carrier", HostName("sip.carrier.example", 5060), "", 0),)
        invite = world.invite(self.alice, NUMBER)
        (sent,) = world.lost  # to the name, which the adapter looks up
        incoming = parse_request(sent.data)
        answer = build.response(incoming, 200, to_tag="callee", headers=[("Contact", "<sip:gw@198.51.100.9:5070>")])
        self.carrier.send(answer)
        self.talk = AnsweredCall(world, self.alice, self.carrier, invite, self.alice.response(200), incoming)


def test_a_carrier_known_by_name_speaks_from_where_it_answered_and_no_other_place() -> None:
    scene = NamedScene()
    at_contact = scene.world.agent("198.51.100.9", 5070)
    scene.alice.send(scene.talk.from_caller("INFO", cseq=9))
    at_contact.got("INFO")
    scene.carrier.send(scene.talk.from_callee("INFO"))
    scene.alice.got("INFO")
    other = scene.world.agent("198.51.100.10")
    other.send(scene.talk.from_callee("INFO", cseq=2))
    other.response(403)


def test_the_cookie_of_a_call_outlives_its_longest_time_by_some_minutes() -> None:
    """Clocks differ, and the BYE of a call that was cut just now must still pass an edge that doesn't know it."""
    scene = NamedScene({"session": {"absoluteTimeout": "2h"}})
    scene.world.restart()
    scene.world.pass_by(7_200 + 600)
    scene.alice.send(scene.talk.from_caller("BYE", cseq=9))
    scene.carrier.respond(scene.carrier.got("BYE"), 200)
    scene.alice.response(200)


@pytest.mark.parametrize("garbled", [None, "<sip:192.0.2.10:5060;lr;cw=garbled>"])
def test_a_callee_that_drops_or_garbles_record_route_leaves_the_caller_its_own_routes(garbled: str | None) -> None:
    scene = HopScene()
    invite = scene.switch.request("INVITE", f"sip:{NUMBER}@{REALM}")
    invite.add("Record-Route", f"<sip:{SWITCH}:5071;lr>")
    scene.switch.send(invite)
    scene.switch.response(100)
    incoming = scene.carrier.got("INVITE")
    answer = build.response(incoming, 200, to_tag="callee", headers=[("Contact", scene.carrier.contact)])
    answer.remove("record-route")
    if garbled is not None:
        answer.add("Record-Route", garbled)
    scene.carrier.send(answer)
    ours, its_own = scene.switch.response(200).get_all("record-route")
    assert ours.startswith("<sip:192.0.2.10:5060;lr;cw=")
    assert "garbled" not in ours
    assert its_own == f"<sip:{SWITCH}:5071;lr>"


def test_a_carrier_known_by_name_may_speak_at_an_edge_that_does_not_know_the_call() -> None:
    scene = NamedScene()
    scene.world.restart()
    scene.carrier.send(scene.talk.from_callee("BYE"))
    scene.alice.respond(scene.alice.got("BYE"), 200)
    scene.carrier.response(200)


def test_an_answer_from_elsewhere_does_not_move_a_carrier_whose_address_is_known() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier(CARRIER)
    elsewhere = world.agent(STRANGER)
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    elsewhere.send(build.response(incoming, 200, to_tag="callee", headers=[("Contact", "<sip:gw@192.0.2.77>")]))
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    for cseq in (9, 10):
        alice.send(talk.from_caller("INFO", cseq=cseq))
        carrier.got("INFO")
        assert not elsewhere.inbox
        world.restart()


def test_a_trunk_does_not_speak_for_a_phone() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier(CARRIER)
    world.trunks[KNOWN] = CallerIdentity("account-switch", "traffic-sender", (), "", 60, "trunk")
    trunk = world.agent(KNOWN, user="known")
    trunk.send(trunk.request("INVITE", f"sip:{REALM}", call_id="to be known"))
    trunk.inbox.clear()
    talk = world.talk(alice, carrier, NUMBER)
    trunk.send(talk.from_callee("INFO"))
    trunk.response(403)  # nor for another trunk
    trunk.send(talk.from_caller("BYE", cseq=9))
    trunk.response(407)
    assert not alice.inbox
    assert not carrier.inbox
    assert not world.ended
