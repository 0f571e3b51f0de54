"""Cases: a number that belongs to an account or trunk stays with us, whether or not anybody is registered for it."""

from collections.abc import Callable

import pytest
from edge_world import REALM, SDP, Agent, EdgeWorld, account_id

from callwarden.edge_proxy.core.effects import AdmitCall, CallerIdentity, CarrierRoute, NumberOwner, VerifyDigest
from callwarden.edge_proxy.core.locations import Binding, Location, Locations
from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Reason
from callwarden.sip.address import SocketAddress

pytestmark = pytest.mark.cases

BOBS = "+4930222"
PBX = NumberOwner(account_id("office"), (CarrierRoute("office-pbx", SocketAddress("203.0.113.5", 5062), "", 0),))


def admitted(world: EdgeWorld) -> list[AdmitCall]:
    return [asked for asked in world.asked if isinstance(asked, AdmitCall)]


def by_phone(world: EdgeWorld) -> Agent:
    alice = world.registered("alice", "192.0.2.1")
    world.invite(alice, BOBS)
    return alice


def by_trunk(world: EdgeWorld) -> Agent:
    world.trunks["203.0.113.9"] = CallerIdentity("account-switch", "traffic-sender", (), "77#", 60, "switch")
    switch = world.agent("203.0.113.9", user="switch")
    switch.send(switch.request("INVITE", f"sip:77#{BOBS}@{REALM}"))
    switch.response(100)
    return switch


@pytest.mark.parametrize("caller", [by_phone, by_trunk])
def test_the_number_of_somebody_who_is_not_registered_never_leaves_to_a_carrier(
    caller: Callable[[EdgeWorld], Agent],
) -> None:
    world = EdgeWorld()
    carrier = world.carrier()
    world.user("bob", "192.0.2.2", numbers=(BOBS,))
    caller(world).response(480)
    assert not carrier.inbox
    assert not admitted(world)  # neither priced nor held
    (decided,) = world.decided
    assert (decided.refuse.reason, decided.refuse.rule) == (Reason.NOT_REGISTERED, "called")


def test_a_registration_that_has_run_out_is_none() -> None:
    world = EdgeWorld()
    carrier = world.carrier()
    alice = world.registered("alice", "192.0.2.1")
    world.registered("bob", "192.0.2.2", numbers=(BOBS,))
    world.pass_by(7_201)
    world.invite(alice, BOBS)
    alice.response(480)
    assert not carrier.inbox


@pytest.mark.parametrize("was_registered", [True, False])
def test_a_number_that_was_given_to_a_registered_phone_rings_there_at_once(was_registered: bool) -> None:
    world = EdgeWorld()
    carrier = world.carrier()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.owners[BOBS] = NumberOwner(account_id("bob" if was_registered else "carol"))
    world.invite(alice, BOBS)
    assert not carrier.inbox
    if was_registered:
        assert bob.got("INVITE").uri_text == "sip:bob@192.0.2.2:5060"
        (question,) = admitted(world)
        assert (question.local, question.destination) == (True, "bob")
    else:
        assert not bob.inbox
        alice.response(480)


def test_a_number_that_moved_rings_at_its_new_owner_and_one_that_was_taken_away_leaves_to_the_carrier() -> None:
    world = EdgeWorld()
    carrier = world.carrier()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2", numbers=(BOBS,))
    carol = world.registered("carol", "192.0.2.3")
    world.invite(alice, BOBS, call_id="before")
    bob.got("INVITE")
    world.owners[BOBS] = NumberOwner(account_id("carol"))
    world.invite(alice, BOBS, call_id="moved")
    carol.got("INVITE")
    assert not bob.inbox
    del world.owners[BOBS]
    world.users["bob"] = world.users["bob"]._replace(numbers=())
    world.invite(alice, BOBS, call_id="gone")
    carrier.got("INVITE")
    assert not bob.inbox
    assert not carol.inbox


def test_a_trunk_gets_its_numbers_at_its_address_free_of_charge() -> None:
    world = EdgeWorld()
    carrier = world.carrier()
    world.owners[BOBS] = PBX
    alice, pbx = world.registered("alice", "192.0.2.1"), world.agent("203.0.113.5", 5062, "pbx")
    talk = world.talk(alice, pbx, BOBS)
    assert talk.incoming.uri_text == "sip:4930222@203.0.113.5:5062"
    assert "proxy-authorization" not in talk.incoming
    assert not carrier.inbox
    (question,) = admitted(world)
    assert (question.local, question.destination, question.dialled) == (True, "4930222", BOBS)
    alice.send(talk.from_caller("BYE", cseq=9))
    pbx.respond(pbx.got("BYE"), 200)
    alice.response(200)
    (ended,) = world.ended
    assert (ended.reason, ended.local, ended.trunk) == ("caller-bye", True, "office-pbx")


def test_digits_are_as_the_trunk_wants_them() -> None:
    world = EdgeWorld()
    world.owners[BOBS] = PBX._replace(trunks=(PBX.trunks[0]._replace(add_prefix="0", strip_digits=2),))
    alice, pbx = world.registered("alice", "192.0.2.1"), world.agent("203.0.113.5", 5062, "pbx")
    world.invite(alice, BOBS)
    assert pbx.got("INVITE").uri_text == "sip:030222@203.0.113.5:5062"


def test_a_trunk_that_fails_is_not_replaced_by_a_carrier() -> None:
    world = EdgeWorld()
    carrier = world.carrier()
    world.owners[BOBS] = PBX
    alice, pbx = world.registered("alice", "192.0.2.1"), world.agent("203.0.113.5", 5062, "pbx")
    world.invite(alice, BOBS)
    pbx.respond(pbx.got("INVITE"), 503)
    alice.response(500)
    assert not carrier.inbox


def test_phones_of_a_trunks_account_come_before_the_trunk() -> None:
    world = EdgeWorld()
    world.owners[BOBS] = PBX._replace(account_id=account_id("office"))
    alice, office = world.registered("alice", "192.0.2.1"), world.registered("office", "192.0.2.4")
    pbx = world.agent("203.0.113.5", 5062, "pbx")
    world.invite(alice, BOBS)
    office.got("INVITE")
    assert not pbx.inbox


def test_a_number_is_its_owners_and_not_a_user_of_that_name_s() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    bob, thief = world.registered("bob", "192.0.2.2", numbers=(BOBS,)), world.registered(BOBS[1:], "192.0.2.66")
    world.invite(alice, BOBS[1:])
    bob.got("INVITE")
    assert not thief.inbox


def test_whose_number_it_is_says_the_account_and_not_a_name_that_two_realms_have() -> None:
    other = "other.example"
    world = EdgeWorld(realms=(REALM, other))
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    namesake = world.agent("192.0.2.9", 5060, "bob")
    world.edge.locations.put(
        Location(
            other, "bob",
            (Binding("sip:bob@192.0.2.9:5060", SocketAddress("192.0.2.9", 5060), world.unix_s + 600, "r", 1, "other"),),
        )
    )  # fmt: skip
    world.owners[BOBS] = NumberOwner("other")
    world.invite(alice, BOBS)
    namesake.got("INVITE")
    assert not bob.inbox
    # And without a phone of his, nobody else's rings, whatever the realm that was called.
    world.edge.locations.remove((other, "bob"))
    world.invite(alice, BOBS, call_id="again")
    alice.response(480)
    assert not bob.inbox


def test_auth_is_asked_whose_number_it_is_together_with_who_calls() -> None:
    world = EdgeWorld()
    world.carrier()
    alice = world.registered("alice", "192.0.2.1")
    world.asked.clear()
    first = alice.request("INVITE", "tel:30222;phone-context=+49", to="<sip:x@callwarden.local>", body=SDP)
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407)))
    verify, admit = world.asked
    assert isinstance(verify, VerifyDigest)
    assert verify.called == "+4930222"
    assert isinstance(admit, AdmitCall)


def test_where_an_account_is_registered_follows_its_bindings() -> None:
    def location(user: str, *accounts: str) -> Location:
        return Location(
            REALM,
            user,
            tuple(
                Binding(f"sip:{user}@192.0.2.{n}", SocketAddress(f"192.0.2.{n}", 5060), 100.0, "r", 1, account)
                for n, account in enumerate(accounts, 1)
            ),
        )

    unix_s = UnixS(50.0)
    table = Locations()
    table.put(location("desk", "office", "office"))
    table.put(location("mobile", "office"))
    assert [found.username for found in table.find_account("office", unix_s)] == ["mobile", "desk"]
    assert table.find_account("office", UnixS(100.0)) == []
    table.remove((REALM, "mobile"))
    table.put(location("desk", "home"))
    assert table.find_account("office", unix_s) == []
    assert [found.username for found in table.find_account("home", unix_s)] == ["desk"]
    table.put(location("desk"))
    assert table.find_account("home", unix_s) == []


@pytest.mark.parametrize(
    ("dialled", "status"),
    [("101", 480), ("493012345", 480), ("+493012345", 200), ("00493012345", 200), ("102", 200)],
)
@pytest.mark.parametrize("is_trunk", [False, True])
def test_a_user_whose_name_is_of_digits_is_local_and_a_number_with_plus_is_a_number(
    dialled: str, status: int, is_trunk: bool
) -> None:
    world = EdgeWorld()
    for name in ("101", "493012345"):
        world.user(name, "192.0.2.9")
    carrier = world.carrier()
    if is_trunk:
        caller = world.agent("198.51.100.9", user="trunk")
        world.trunks["198.51.100.9"] = CallerIdentity("office", "traffic-sender", ("+4930",), "", 60, "office")
        caller.send(caller.request("INVITE", f"sip:{dialled}@{REALM}"))
        caller.response(100)
    else:
        caller = world.registered("alice", "192.0.2.1")
        world.invite(caller, dialled)
    if status == 200:
        carrier.respond(carrier.got("INVITE"), 200)
    assert caller.response(status)
    assert not carrier.inbox
    admitted = [question for question in world.asked if isinstance(question, AdmitCall)]
    assert len(admitted) == (status == 200)
    assert [decision.refuse.reason for decision in world.decided] == [Reason.NOT_REGISTERED] * (status == 480)


def test_a_user_whose_name_is_of_digits_is_rung_once_it_is_registered() -> None:
    world = EdgeWorld()
    alice, phone = world.registered("alice", "192.0.2.1"), world.registered("101", "192.0.2.9")
    world.carrier()
    world.invite(alice, "101")
    phone.respond(phone.got("INVITE"), 200)
    alice.response(200)
