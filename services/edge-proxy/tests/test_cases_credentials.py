"""Cases: digests and challenges of our realm stay here, those of others pass; who somebody is, only peers may claim."""

import pytest
from edge_world import REALM, SDP, AnsweredCall, EdgeWorld, account_id

from callwarden.edge_proxy.core.effects import AdmitCall, CallerIdentity, CallRefused, Unanswered, VerifyDigest
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip import build

pytestmark = pytest.mark.cases

NUMBER = "+49301234567"
OTHER = 'Digest username="alice", realm="pbx.example", nonce="n", uri="sip:x", response="' + "0" * 32 + '"'
OURS = f'Digest username="alice", realm="{REALM}", nonce="n", uri="sip:x", response="{"0" * 32}"'
ASKED_BY_OTHER = 'Digest realm="pbx.example", nonce="n", algorithm=MD5'
ASKED_BY_US = f'Digest realm="{REALM}", nonce="n", algorithm=MD5'
IDENTITIES = (
    ("P-Asserted-Identity", "<sip:+49999@x>"),
    ("P-Preferred-Identity", "<sip:+49999@x>"),
    ("Remote-Party-ID", "<sip:+49999@x>;party=calling"),
    ("Diversion", "<sip:+49999@x>;reason=unconditional"),
    ("History-Info", "<sip:+49999@x>;index=1"),
    ("P-Charging-Vector", "icid-value=1"),
    ("Identity", "x.y.z;info=<https://x>;alg=ES256"),
)


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization"])
def test_only_credentials_of_our_realm_stay_here(name: str) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    alice.send(talk.from_caller("INFO", cseq=8, headers=[(name, OURS), (name, OTHER), (name, f"Digest x {REALM}")]))
    assert carrier.got("INFO").get_all(name) == [OTHER]


def test_a_new_call_takes_credentials_for_others_along() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    headers = [("Proxy-Authorization", OTHER), ("Authorization", OURS)]
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}", body=SDP)
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    for name, value in headers:
        again.add(name, value)
    alice.send(again)
    alice.response(100)
    invite = carrier.got("INVITE")
    assert invite.get_all("proxy-authorization") == [OTHER]
    assert "authorization" not in invite


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize(
    ("challenges", "heard", "left"),
    [
        ([ASKED_BY_US], 502, []),
        ([ASKED_BY_OTHER], 0, [ASKED_BY_OTHER]),
        ([ASKED_BY_US, ASKED_BY_OTHER], 0, [ASKED_BY_OTHER]),
        ([ASKED_BY_US.replace(REALM, REALM.upper())], 502, []),
        ([f'Digest realm="{REALM}'], 502, []),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_callee_can_not_ask_for_our_users_digests(
    status: int, challenges: list[str], heard: int, left: list[str], inside: bool
) -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    if inside:
        talk = world.talk(alice, bob, "bob")
        alice.send(talk.from_caller("INFO", cseq=8))
        request = bob.got("INFO")
    else:
        world.invite(alice, "bob")
        request = bob.got("INVITE")
    bob.send(build.response(request, status, to_tag="x", headers=[(name, value) for value in challenges]))
    answer = alice.response(heard or status)
    assert answer.get_all(name) == left


def test_who_somebody_is_no_subscriber_claims_in_any_request() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    world.invite(alice, NUMBER, headers=IDENTITIES)
    invite = carrier.got("INVITE")
    assert [name for name, _ in IDENTITIES if name in invite] == []
    carrier.respond(invite, 486)
    alice.inbox.clear()
    carrier.inbox.clear()
    talk = world.talk(alice, carrier, NUMBER, call_id="call-2")
    for cseq, method in enumerate(("INFO", "UPDATE", "INVITE", "BYE"), start=10):
        alice.send(talk.from_caller(method, cseq=cseq, headers=IDENTITIES))
        request = carrier.got(method)
        assert [name for name, _ in IDENTITIES if name in request] == []
        carrier.respond(request, 200)
        alice.inbox.clear()


def test_what_a_carrier_and_a_trunk_say_passes() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    carrier.send(talk.from_callee("UPDATE", headers=IDENTITIES))
    update = alice.got("UPDATE")
    assert [name for name, _ in IDENTITIES if name in update] == [name for name, _ in IDENTITIES]
    trunk = world.agent("192.0.2.99", user="49111")
    world.trunks["192.0.2.99"] = CallerIdentity("pbx", "traffic-sender", (), "", 60, "pbx")
    trunk.send(trunk.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id="t", headers=IDENTITIES, body=SDP))
    invite = carrier.got("INVITE")
    assert [name for name, _ in IDENTITIES if name in invite] == [name for name, _ in IDENTITIES]


@pytest.mark.parametrize("knows_the_call", [True, False])
def test_a_carrier_is_not_told_to_place_a_call_for_us(knows_the_call: bool) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    if not knows_the_call:
        world.restart()
    alice.send(talk.from_caller("REFER", cseq=9, headers=[("Refer-To", "<sip:+88299999@carrier>")]))
    alice.response(403)
    assert not carrier.inbox


def test_a_phone_may_be_asked_to_call_somebody() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.registered("carol", "192.0.2.3")
    talk = world.talk(alice, bob, "bob")
    alice.send(talk.from_caller("REFER", cseq=9, headers=[("Refer-To", f"<sip:carol@{REALM}>")]))
    bob.got("REFER")


REFER_TO = f"<sip:{NUMBER}@{REALM}>"


@pytest.mark.parametrize(
    ("transfers", "of_phone", "refer_to", "status"),
    [
        (0, True, REFER_TO, 403),
        (1, True, REFER_TO, 0),
        (1, True, f"sip:{NUMBER}@{REALM}", 0),
        (1, True, "<sip:+4912@pbx.example>", 403),
        (1, True, f"<sip:nobody@{REALM}>", 404),
        (1, True, f"<sip:+49-x@{REALM}>", 404),
        (1, True, "<>", 400),
        (1, True, None, 400),
        (1, False, REFER_TO, 403),
        (2, False, REFER_TO, 0),
        (2, False, "<sip:+4912@pbx.example>", 403),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("name", ["Refer-To", "r"])
def test_whom_a_side_is_asked_to_call_is_decided_like_a_new_call(
    name: str, elsewhere: bool, transfers: int, of_phone: bool, refer_to: str | None, status: int
) -> None:
    world = EdgeWorld({"routing": {"transfers": transfers}})
    alice = world.registered("alice", "192.0.2.1")
    other = world.registered("bob", "192.0.2.2") if of_phone else world.carrier()
    talk = world.talk(alice, other, "bob" if of_phone else NUMBER)
    world.advance(4)
    if elsewhere:
        world.restart()
    refer = talk.from_caller("REFER", cseq=9, headers=[] if refer_to is None else [("Refer-To", refer_to)])
    alice.send(refer.to_bytes().replace(b"Refer-To:", f"{name}:".encode()))
    if status:
        alice.response(status)
        assert not other.inbox
    else:
        other.got("REFER")
    assert len([event for event in world.ended if event.reason == "transferred"]) == (transfers == 2 and not status)


def test_a_carrier_is_asked_only_for_what_the_account_may_call() -> None:
    world = EdgeWorld({"routing": {"transfers": 2}})
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    world.admit = lambda question: CallRefused(Refuse(Reason.PREMIUM, "premium"))
    alice.send(talk.from_caller("REFER", cseq=9, headers=[("Refer-To", f"<sip:+49900123456@{REALM}>")]))
    alice.response(403)
    assert not carrier.inbox
    (asked,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)][1:]
    assert (asked.destination, asked.account_id) == ("49900123456", account_id("alice"))
    (refused,) = world.decided
    assert (refused.method, refused.refuse.reason) == ("REFER", Reason.PREMIUM)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("called", ["+4930222", "004930222", "4930777"])
def test_nobody_outside_is_asked_to_call_a_number_of_ours(called: str, elsewhere: bool) -> None:
    """It never leaves; else whoever places that call bills it, and nobody here pays. Not registered, or a name."""
    world = EdgeWorld({"routing": {"transfers": 2}})
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    world.user("bob", "192.0.2.2", numbers=("+4930222",))
    world.user("4930777", "192.0.2.3")
    talk = world.talk(alice, carrier, NUMBER)
    if elsewhere:
        world.restart()
    alice.send(talk.from_caller("REFER", cseq=9, headers=[("Refer-To", f"<sip:{called}@{REALM}>")]))
    alice.response(403)
    assert not carrier.inbox
    assert [refused.refuse.reason for refused in world.decided] == [Reason.TRANSFER]
    assert len([asked for asked in world.asked if isinstance(asked, AdmitCall)]) == 1  # the call's own


def test_a_transfer_is_refused_while_nobody_knows_whose_number_it_is() -> None:
    world = EdgeWorld({"routing": {"transfers": 2}})
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    world.hold_answers = True
    alice.send(talk.from_caller("REFER", cseq=9, headers=[("Refer-To", REFER_TO)]))
    world.release(Unanswered())
    alice.response(503)
    assert not carrier.inbox


def test_a_carrier_does_not_ask_a_phone_to_call_somebody() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, NUMBER)
    carrier.send(talk.from_callee("REFER", headers=[("Refer-To", f"<sip:+49900123456@{REALM}>")]))
    carrier.response(403)
    assert not alice.inbox


# Who answers says who it is, too.


@pytest.mark.parametrize("status", [180, 183, 200, 302, 486, 603])
def test_who_somebody_is_no_phone_claims_in_its_answer(status: int) -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.invite(alice, "bob")
    headers = [("Contact", bob.contact), *IDENTITIES]
    answer = build.response(bob.got("INVITE"), status, to_tag="b", headers=headers)
    bob.send(answer.to_bytes().replace(b"\r\nIdentity:", b"\r\ny:"))
    heard = alice.next()
    assert [name for name, _ in IDENTITIES if name in heard] == []


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("of_phone", [True, False])
@pytest.mark.parametrize("method", ["INFO", "INVITE", "UPDATE"])
def test_nor_inside_a_call_while_a_carrier_does(method: str, of_phone: bool, recorded: bool, elsewhere: bool) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    other = world.registered("bob", "192.0.2.2") if of_phone else world.carrier()
    talk = world.talk(alice, other, "bob" if of_phone else NUMBER)
    carriers = world.edge.context.carriers
    if recorded:
        world.advance(4)
    if elsewhere:
        world.restart()
        world.edge.context.carriers.update(carriers)
    alice.send(talk.from_caller(method, cseq=9))
    if method == "INVITE":
        alice.response(100)
    other.send(build.response(other.got(method), 200, headers=[("Contact", other.contact), *IDENTITIES]))
    answer = alice.response(200)
    names = [name for name, _ in IDENTITIES]
    assert [name for name in names if name in answer] == ([] if of_phone else names)


# Names with their domain, and where a user is at home.


@pytest.mark.parametrize(
    ("username", "is_right"), [("alice", True), (f"alice@{REALM}", True), ("alice@pbx.example", False)]
)
def test_a_user_name_may_have_the_realm_and_no_other_domain(username: str, is_right: bool) -> None:
    world = EdgeWorld()
    alice, bob = world.user("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    register = alice.request("REGISTER", f"sip:{REALM}", to=f"<sip:alice@{REALM}>", call_id="r")
    alice.send(register)
    alice.send(alice.with_credentials(register, alice.response(401), username=username))
    alice.response(200 if is_right else 401)
    if not is_right:
        return
    world.invite(bob, "alice")  # under her name
    alice.respond(alice.got("INVITE"), 486)
    alice.inbox.clear()
    invite = alice.request("INVITE", f"sip:bob@{REALM}", call_id="c", body=SDP)
    alice.send(invite)
    alice.send(alice.with_credentials(invite, alice.response(407), username=username))
    alice.response(100)
    bob.inbox.clear()
    (asked,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)][1:]
    assert (asked.account_id, asked.caller_number) == (account_id("alice"), "alice")


@pytest.mark.parametrize(
    ("host", "is_registered"),
    [("192.0.2.1", True), ("192.0.2.2", False), ("2001:db8::2", True), ("2001:db8:0:1::1", False)],
)
@pytest.mark.parametrize("method", ["REGISTER", "INVITE"])
def test_auth_is_told_whether_a_phone_of_the_user_is_there(method: str, host: str, is_registered: bool) -> None:
    world = EdgeWorld()
    world.registered("alice", "2001:db8::1" if ":" in host else "192.0.2.1")
    world.asked.clear()
    other = world.agent(host, 7_000, "alice")
    request = other.request(method, f"sip:{REALM}" if method == "REGISTER" else f"sip:{NUMBER}@{REALM}", call_id="x")
    request.set("To", f"<sip:alice@{REALM}>")
    other.send(request)
    other.send(other.with_credentials(request, other.response(401 if method == "REGISTER" else 407)))
    (asked,) = [asked for asked in world.asked if isinstance(asked, VerifyDigest)]
    assert asked.is_registered is is_registered


def test_a_phone_that_is_not_registered_claims_nothing_inside_its_call_either() -> None:
    world = EdgeWorld()
    alice, carrier = world.user("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, "+49301234567")
    alice.send(talk.from_caller("INFO", cseq=9, headers=[("P-Asserted-Identity", "<sip:+49110@x>")]))
    assert "p-asserted-identity" not in carrier.got("INFO")
    carrier.send(talk.from_callee("INFO", headers=[("P-Asserted-Identity", "<sip:+49110@x>")]))
    infos = [message for message in alice.inbox if "p-asserted-identity" in message]
    assert len(infos) == 1


def test_credentials_that_can_not_be_read_and_name_one_of_our_realms_stay_here() -> None:
    world = EdgeWorld(realms=(REALM, "second.example"))
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    talk = world.talk(alice, carrier, "+49301234567")
    for cseq, (realm, kept) in enumerate(((REALM, False), ("other.example", True)), start=9):
        text = f'Digest realm="{realm}'
        alice.send(talk.from_caller("INFO", cseq=cseq, headers=[("Proxy-Authorization", text)]))
        assert ("proxy-authorization" in carrier.got("INFO")) == kept


def test_what_a_trunk_says_inside_its_call_passes() -> None:
    world = EdgeWorld()
    world.trunks["203.0.113.5"] = CallerIdentity("account-switch", "traffic-sender", (), "", 60, "trunk")
    switch, carrier = world.agent("203.0.113.5", user="switch"), world.carrier()
    invite = switch.request("INVITE", f"sip:{NUMBER}@{REALM}", from_="<sip:+4940555@x>;tag=caller", body=SDP)
    switch.send(invite)
    switch.response(100)
    incoming = carrier.got("INVITE")
    carrier.respond(incoming, 200)
    talk = AnsweredCall(world, switch, carrier, invite, switch.response(200), incoming)
    switch.send(talk.from_caller("INFO", cseq=9, headers=[("P-Asserted-Identity", "<sip:+49110@x>")]))
    assert "p-asserted-identity" in carrier.got("INFO")
