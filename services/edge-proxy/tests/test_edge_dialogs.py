"""A dialog is its Call-ID, both tags, and where each side speaks from (DESIGN D14; RFC 3261 12)."""

import pytest
from edge_world import REALM, SDP, Agent, AnsweredCall, EdgeWorld, parse_request

from callwarden.edge_proxy.core.active_call import ACK_TIMEOUT_S
from callwarden.edge_proxy.core.effects import AdmitCall, CallerIdentity, CarrierRoute
from callwarden.sip import build
from callwarden.sip.address import HostName
from callwarden.sip.message import Request

pytestmark = pytest.mark.cases

NUMBER = "+49301234567"


def to_a_carrier(world: EdgeWorld) -> tuple[Agent, Agent, AnsweredCall]:
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    return alice, carrier, world.talk(alice, carrier, NUMBER)


def tagged(request: Request, name: str, tag: str) -> Request:
    request.set(name, f"{(request.get(name) or '').partition(';tag=')[0]};tag={tag}")
    return request


def got_bye(*agents: Agent) -> bool:
    """Whether each has had a BYE, and what else it had is gone."""
    found = []
    for agent in agents:
        found.append(any(isinstance(message, Request) and message.method == "BYE" for message in agent.inbox))
        agent.inbox.clear()
    return all(found)


FRESH = pytest.mark.parametrize("restarted", [False, True], ids=["this edge", "an edge without memory"])


# Line 1: both tags.


@FRESH
@pytest.mark.parametrize("header", ["From", "To"])
@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO"])
def test_a_callers_request_with_a_wrong_tag_is_answered_481_and_changes_nothing(
    restarted: bool, header: str, method: str
) -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    if restarted:
        world.restart()
    alice.send(tagged(talk.from_caller(method, cseq=9), header, "bogus"))
    alice.response(481)
    assert not carrier.inbox
    assert not world.ended


@pytest.mark.parametrize("header", ["From", "To"])
def test_a_callees_request_with_a_wrong_tag_is_answered_481(header: str) -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    carrier.send(tagged(talk.from_callee("BYE"), header, "bogus"))
    carrier.response(481)
    assert not alice.inbox
    assert not world.ended


def test_of_a_forked_call_the_first_answer_lives_and_the_others_are_ended_at_once() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    first = carrier.respond(incoming, 200, tag="one", body=SDP)
    second = carrier.respond(incoming, 200, tag="two", body=SDP)
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    assert not alice.inbox  # it hears of one
    ack, bye = carrier.got("ACK"), carrier.got("BYE")
    assert ack.to.tag == bye.to.tag == "two"
    carrier.respond(bye, 200)
    carrier.send(second)
    assert carrier.got("ACK").to_bytes() == ack.to_bytes()
    carrier.send(first)
    alice.response(200)
    assert not world.ended
    alice.send(tagged(talk.from_caller("BYE", cseq=9), "To", "two"))
    alice.response(481)
    alice.send(talk.from_caller("BYE", cseq=10))
    carrier.respond(carrier.got("BYE"), 200)
    assert [ended.reason for ended in world.ended] == ["caller-bye"]


def test_the_callee_of_an_early_dialog_that_was_not_answered_has_no_say() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    carrier.respond(incoming, 180, tag="early")
    alice.response(180)
    carrier.respond(incoming, 200, tag="late")
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    carrier.send(tagged(talk.from_callee("BYE"), "From", "early"))
    carrier.response(481)
    assert not alice.inbox
    assert not world.ended


# Line 2: who may speak.


@FRESH
def test_the_caller_can_not_speak_as_the_callee(restarted: bool) -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    flipped = alice.request(
        "BYE",
        str(talk.invite.contacts[0].uri),
        to=talk.invite.get("from") or "",
        from_=talk.answer.get("to") or "",
        call_id=talk.invite.call_id,
        routes=talk.routes,
    )
    if restarted:
        world.restart()
    alice.send(flipped)
    alice.response(481)
    assert not alice.inbox
    assert not carrier.inbox
    assert not world.ended


@FRESH
@pytest.mark.parametrize("as_caller", [True, False])
@pytest.mark.parametrize("method", ["BYE", "INFO", "INVITE", "UPDATE"])
def test_a_stranger_who_knows_cookie_and_tags_is_refused(restarted: bool, as_caller: bool, method: str) -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    stranger = world.agent("203.0.113.66")
    if restarted:
        world.restart()
    stranger.send(talk.from_caller(method, cseq=9) if as_caller else talk.from_callee(method, cseq=9))
    stranger.response(407 if as_caller and not restarted else 403)  # a phone may have moved, a carrier hasn't
    assert not alice.inbox
    assert not carrier.inbox
    assert not world.ended
    alice.send(talk.from_caller("INFO", cseq=10))
    carrier.respond(carrier.got("INFO"), 200)
    alice.response(200)  # and not the stranger


def test_a_stranger_behind_the_same_nat_takes_over_nothing_by_a_request_that_is_refused() -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    neighbour = world.agent("192.0.2.1", 7_000)
    neighbour.send(talk.from_caller("INFO", cseq=9))
    carrier.respond(carrier.got("INFO"), 403)
    carrier.send(talk.from_callee("INFO"))
    alice.got("INFO")


def test_a_strangers_ack_goes_nowhere() -> None:
    world = EdgeWorld()
    _, carrier, talk = to_a_carrier(world)
    world.agent("203.0.113.66").send(talk.from_caller("ACK", cseq=talk.invite.cseq.number))
    assert not carrier.inbox


def test_a_trunk_may_speak_from_each_of_its_addresses() -> None:
    world = EdgeWorld()
    alice, _, talk = to_a_carrier(world)
    other = world.agent("198.51.100.77", user="carrier")
    other.send(talk.from_callee("INFO"))
    other.response(403)
    world.trunks["198.51.100.77"] = CallerIdentity("other", "traffic-sender", (), "", 60, "other-trunk")
    world.advance(11)
    other.send(talk.from_callee("INFO", cseq=2))
    other.response(403)  # a trunk of ours, and not this call's
    world.trunks["198.51.100.77"] = CallerIdentity("carrier", "carrier", (), "", 60, "carrier")
    world.advance(11)
    other.send(talk.from_callee("INFO", cseq=3))
    alice.got("INFO")


# Line 3: doubtful ends. Those of a BYE are in the table of `test_edge_hostile`.


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("status", [408, 481])
def test_a_refresh_of_a_dialog_that_the_other_side_does_not_know_ends_it(method: str, status: int) -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    world.advance(5)
    alice.send(talk.from_caller(method, cseq=9))
    carrier.respond(carrier.got(method), status)
    assert got_bye(alice, carrier)
    (ended,) = world.ended
    assert (ended.reason, ended.ended_at_s - ended.answered_at_s) == ("cut-dialog-unknown", 5)


def test_an_answer_that_is_never_acknowledged_is_cut() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    world.invite(alice, NUMBER)
    carrier.respond(carrier.got("INVITE"), 200)
    world.advance(ACK_TIMEOUT_S - 0.1)
    assert not got_bye(alice)
    world.advance(0.2)
    assert got_bye(alice, carrier)
    assert [ended.reason for ended in world.ended] == ["cut-no-ack"]


def test_a_session_that_nobody_refreshes_is_cut_and_one_that_is_refreshed_lives() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    expires = [("Contact", carrier.contact), ("Session-Expires", "90;refresher=uac")]
    carrier.send(build.response(incoming, 200, to_tag="callee", headers=expires))
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
    world.advance(80)
    alice.send(talk.from_caller("UPDATE", cseq=9))
    carrier.inbox.popleft()  # the ACK
    carrier.send(build.response(carrier.got("UPDATE"), 200, headers=expires))
    alice.response(200)
    world.advance(89)
    assert not world.ended
    world.advance(2)
    assert got_bye(alice, carrier)
    assert [ended.reason for ended in world.ended] == ["cut-session-expired"]


@pytest.mark.setting("session-probe")
@pytest.mark.parametrize("answer", [481, 408, None])
@pytest.mark.parametrize("gone", ["caller", "callee"])
def test_a_side_that_is_gone_by_a_way_that_is_not_ours_is_found_by_a_probe(gone: str, answer: int | None) -> None:
    world = EdgeWorld({"session": {"probe": "60s"}})
    alice, carrier, _ = to_a_carrier(world)
    lost, left = (alice, carrier) if gone == "caller" else (carrier, alice)
    world.advance(60.1)
    left.respond(left.got("OPTIONS"), 200)
    if answer is None:
        world.advance(33)
    else:
        lost.respond(lost.got("OPTIONS"), answer)
    assert got_bye(alice, carrier)
    (ended,) = world.ended
    assert ended.reason == "cut-gone"
    assert ended.ended_at_s - ended.answered_at_s < 60 + 34


@pytest.mark.setting("session-probe")
@pytest.mark.parametrize("status", [200, 405, 500, 407])
def test_sides_that_answer_a_probe_with_anything_else_talk_on_with_numbers_of_their_own(status: int) -> None:
    world = EdgeWorld({"session": {"probe": "60s"}})
    alice, carrier, talk = to_a_carrier(world)
    for minutes in range(3):
        world.advance(60.1)
        for agent, used in ((carrier, talk.invite.cseq.number + minutes), (alice, 1)):
            probe = agent.got("OPTIONS")
            assert probe.cseq.number == used  # the real side's next is higher, or the first
            assert probe.to.tag == ("callee" if agent is carrier else "caller")
            agent.respond(probe, status)
        alice.send(talk.from_caller("INFO", cseq=talk.invite.cseq.number + minutes + 1))
        carrier.respond(carrier.got("INFO"), 200)
        alice.response(200)
    assert not world.ended


@pytest.mark.parametrize("from_caller", [True, False])
def test_a_bye_without_route_but_with_the_right_tags_and_source_ends_the_call(from_caller: bool) -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    bye = talk.from_caller("BYE", cseq=9) if from_caller else talk.from_callee("BYE")
    bye.remove("route")
    sender, receiver = (alice, carrier) if from_caller else (carrier, alice)
    stranger = world.agent("203.0.113.66")
    stranger.send(bye.copy())
    stranger.response(407 if from_caller else 403)
    sender.send(bye)
    receiver.respond(receiver.got("BYE"), 200)
    sender.response(200)
    assert len(world.ended) == 1


def test_a_callee_that_drops_record_route_does_not_take_the_callers_bye_past_us() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    answer = build.response(incoming, 200, to_tag="callee", headers=[("Contact", carrier.contact)])
    answer.remove("record-route")
    carrier.send(answer)
    (first,) = alice.response(200).get_all("record-route")
    carrier.send(answer)  # again: it has had no ACK yet (RFC 3261 13.3.1.4)
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    (route,) = talk.routes
    assert "192.0.2.10:5060" in route
    assert route == first
    alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
    carrier.got("ACK")
    alice.send(talk.from_caller("BYE", cseq=9))
    carrier.respond(carrier.got("BYE"), 200)
    assert len(world.ended) == 1


def test_a_bye_that_is_refused_for_its_number_is_sent_again_with_a_higher_one() -> None:
    world = EdgeWorld()
    _, carrier, _ = to_a_carrier(world)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    first = carrier.got("BYE")
    carrier.respond(first, 500)
    second = carrier.got("BYE")
    assert second.cseq.number > first.cseq.number + 999
    carrier.respond(second, 500)
    assert not carrier.inbox


# Line 4: what can't be ended isn't begun.


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Contact", None),
        ("Contact", "*"),
        ("Contact", "<tel:+493055503>"),
        ("Contact", "<sip:poor@@x>"),
        ("Contact", "<sip:a@192.0.2.1>, <sip:b@192.0.2.1>"),
        ("Record-Route", "<sip:x@@y;lr>"),
        ("Record-Route", "<tel:+49301>"),
        ("CSeq", f"{2**31 - 2} INVITE"),
    ],
)
def test_an_invite_whose_call_could_not_be_cut_is_refused(header: str, value: str | None) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = alice.request("INVITE", f"sip:{NUMBER}@{REALM}", body=SDP)
    invite.remove(header.lower())
    if value is not None:
        invite.add(header, value)
    alice.send(invite)
    alice.response(400)
    assert not carrier.inbox
    assert not [asked for asked in world.asked if isinstance(asked, AdmitCall)]


@pytest.mark.parametrize(
    "contact",
    ["<sip:a@192.0.2.1>", '"A" <sips:a@[2001:db8::1]:5061;transport=tcp>;q=0.5', "sip:a@host.example", "<sip:%40@h>"],
)
def test_a_contact_in_any_spelling_is_good_enough(contact: str) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    invite = alice.request("INVITE", f"sip:{NUMBER}@{REALM}", body=SDP)
    invite.set("Contact", contact)
    alice.send(invite)
    alice.response(407)


@pytest.mark.parametrize("contact", [None, "*", "<sip:x@@y>"])
def test_a_side_that_gave_no_contact_is_told_all_the_same(contact: str | None) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    invite = world.invite(alice, NUMBER)
    incoming = carrier.got("INVITE")
    headers = [] if contact is None else [("Contact", contact)]
    carrier.send(build.response(incoming, 200, to_tag="callee", headers=headers))
    alice.response(200)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    to_carrier, to_alice = carrier.got("BYE"), alice.got("BYE")
    assert to_carrier.uri_text == incoming.uri_text
    assert to_carrier.to.tag == to_alice.from_.tag == "callee"
    assert to_alice.uri_text == str(invite.contacts[0].uri)


@pytest.mark.parametrize("method", ["INFO", "BYE", "UPDATE"])
def test_a_number_that_leaves_none_for_our_own_bye_is_refused(method: str) -> None:
    world = EdgeWorld()
    alice, carrier, talk = to_a_carrier(world)
    alice.send(talk.from_caller(method, cseq=2**31 - 1))
    alice.response(400)
    assert not carrier.inbox
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    assert carrier.got("BYE").cseq.number < 2**31


# Line 5: early dialogs have sides.


@pytest.mark.parametrize("method", ["PRACK", "UPDATE", "INFO"])
def test_a_request_before_the_answer_goes_to_the_legs_own_address(method: str) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    nat = world.user("bob", "203.0.113.7", 40_000)
    victim = world.agent("203.0.113.99")
    register = nat.request("REGISTER", f"sip:{REALM}", to=f"<sip:bob@{REALM}>")
    register.set("Contact", "<sip:bob@10.0.0.2:5060>")
    nat.send(register)
    nat.send(nat.with_credentials(register, nat.response(401)))
    nat.response(200)
    invite = world.invite(alice, "bob")
    incoming = nat.got("INVITE")
    headers = [("Contact", "<sip:bob@10.0.0.2:5060>"), ("Require", "100rel"), ("RSeq", "1")]
    nat.send(build.response(incoming, 183, to_tag="callee", headers=headers))
    talk = AnsweredCall(world, alice, nat, invite, alice.response(183), incoming)
    alice.send(talk.from_caller(method, cseq=9))
    nat.respond(nat.got(method), 200)
    alice.response(200)
    chosen = talk.from_caller(method, cseq=10)
    chosen.set_uri("sip:any@203.0.113.99")
    alice.send(chosen)
    assert not victim.inbox
    nat.got(method)
    nat.send(talk.from_callee(method, cseq=1))
    alice.got(method)
    stranger = world.agent("203.0.113.66")
    stranger.send(talk.from_caller(method, cseq=11))
    stranger.response(407)
    alice.send(tagged(talk.from_caller(method, cseq=12), "To", "bogus"))
    alice.response(481)
    assert not nat.inbox


# Line 9: names.


@FRESH
@pytest.mark.parametrize("contact", ["callbox.example.x1:5060", "127.1:29999", "0x7f.1", "10.9.8.7", "victim.example"])
def test_no_request_goes_to_a_name_or_an_address_that_a_contact_chose(restarted: bool, contact: str) -> None:
    world = EdgeWorld()
    world.trunks["203.0.113.5"] = CallerIdentity("account-switch", "traffic-sender", (), "", 60, "switch-trunk")
    switch, carrier = world.agent("203.0.113.5", user="switch"), world.carrier()
    invite = switch.request("INVITE", f"sip:{NUMBER}@192.0.2.10:5060", from_="<sip:+4940555@x>;tag=caller")
    invite.set("Contact", f"<sip:a@{contact}>")
    switch.send(invite)
    if switch.next().to_bytes().startswith(b"SIP/2.0 400"):
        return  # not even a name
    incoming = carrier.got("INVITE")
    answer = build.response(incoming, 200, to_tag="callee", headers=[("Contact", f"<sip:gw@{contact}>")])
    carrier.send(answer)
    talk = AnsweredCall(world, switch, carrier, invite, switch.response(200), incoming)
    if restarted:
        world.restart()
    carrier.send(talk.from_callee("INFO"))
    switch.got("INFO")
    switch.send(talk.from_caller("INFO", cseq=9))
    carrier.got("INFO")
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    assert not world.lost


@FRESH
def test_a_carrier_that_is_known_by_name_is_reached_where_it_answered_from(restarted: bool) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    carrier = world.agent("198.51.100.9", user="carrier")
    world.routes = (CarrierRoute("carrier", HostName("sip.carrier.example", 5060), "", 0),)
    invite = world.invite(alice, NUMBER)
    (sent,) = world.lost  # to the name, which the adapter looks up
    world.lost.clear()
    incoming = parse_request(sent.data)
    carrier.respond(incoming, 200)
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    if restarted:
        world.restart()
    alice.send(talk.from_caller("BYE", cseq=9))
    carrier.respond(carrier.got("BYE"), 200)
    assert not world.lost
    assert len(world.ended) == 1


# Line 17: long Call-IDs.


@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "OPTIONS", "BYE"])
def test_a_long_call_id_is_refused_before_anything(method: str) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    to = f"<sip:bob@{REALM}>" + (";tag=x" if method == "BYE" else "")
    alice.send(alice.request(method, f"sip:{REALM}", to=to, call_id="A" * 257))
    alice.response(400)
    alice.send(alice.request(method, f"sip:{REALM}", to=to, call_id="A" * 256))
    assert alice.next().call_id == "A" * 256


def test_a_scanners_long_call_id_is_cut_in_its_event() -> None:
    world = EdgeWorld({"sip": {"scanners": ["sipvicious"]}})
    scanner = world.agent("203.0.113.66", user="x")
    scanner.send(scanner.request("OPTIONS", f"sip:{REALM}", call_id="A" * 300, headers=[("User-Agent", "sipvicious")]))
    assert not scanner.inbox
    assert [decided.call_id for decided in world.decided] == ["A" * 256]
