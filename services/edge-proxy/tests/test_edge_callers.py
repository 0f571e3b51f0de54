"""Who may call as whom, and whom."""

import pytest
from edge_world import REALM, SDP, Agent, EdgeWorld

from callwarden.edge_proxy.core.effects import (
    AdmitCall,
)
from callwarden.kernel.verdict import Reason

NUMBER = "+49301234567"


def silent(agent: Agent) -> bool:
    return not agent.inbox


@pytest.mark.setting("allowcalleridchange")
@pytest.mark.parametrize(
    ("shown", "status"), [("alice", 100), ("+4930111", 100), ("004930111", 100), ("+4930999", 403), ("bob", 403)]
)
def test_a_subscriber_shows_itself_or_a_number_of_its_own(shown: str, status: int) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1", numbers=("+4930111",))
    world.carrier()
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}", from_=f"<sip:{shown}@{REALM}>;tag=caller")
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407)))
    alice.response(100)
    if status == 403:
        alice.response(403)
        assert [decided.refuse.reason for decided in world.decided] == [Reason.CALLER_ID]
        assert [rule.rule for rule in world.decided[0].rules][-1] == "caller-id"
    else:
        (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
        assert question.caller_number == "+4930111"


@pytest.mark.cases
@pytest.mark.parametrize(
    ("preferred", "status", "number"),
    [
        (None, 100, "+4930111"),
        (f"<sip:alice@{REALM}>", 100, "+4930111"),
        (f'"A" <sip:+4930112@{REALM}>, <tel:+4930112>', 100, "+4930112"),
        ("<tel:+4930112>", 100, "+4930112"),
        (f"<sip:bob@{REALM}>", 403, ""),
        ("<sip:alice@example.org>", 403, ""),
        ("<sip:alice@anonymous.invalid>", 403, ""),
        ("<sip:@@>", 400, ""),
    ],
)
def test_a_subscriber_may_be_anonymous_to_the_callee_and_is_known_here(
    preferred: str | None, status: int, number: str
) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1", numbers=("+4930111", "+4930112"))
    carrier = world.carrier()
    first = alice.request(
        "INVITE",
        f"sip:{NUMBER}@{REALM}",
        from_='"Anonymous" <sip:anonymous@anonymous.invalid>;tag=caller',
        headers=[] if preferred is None else [("P-Preferred-Identity", preferred)],
        body=SDP,
    )
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407)))
    alice.response(100)
    if status != 100:
        alice.response(status)
        return
    (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
    assert question.caller_number == number
    invite = carrier.got("INVITE")
    assert invite.from_.uri.host == "anonymous.invalid"
    assert "p-preferred-identity" not in invite


def test_a_subscriber_can_not_assert_an_identity() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    carrier = world.carrier()
    world.invite(alice, NUMBER, headers=[("P-Asserted-Identity", "<sip:+1900@x>"), ("Remote-Party-ID", "<sip:1@x>")])
    invite = carrier.got("INVITE")
    assert "p-asserted-identity" not in invite
    assert "remote-party-id" not in invite


@pytest.mark.setting("blockotherdomains")
@pytest.mark.setting("fwdtootherdomains")
@pytest.mark.parametrize(
    ("uri", "from_"),
    [
        ("sip:bob@example.org", f"<sip:alice@{REALM}>;tag=caller"),
        (f"sip:{NUMBER}@203.0.113.1", f"<sip:alice@{REALM}>;tag=caller"),
        (f"sip:{NUMBER}@192.0.2.10:6666", f"<sip:alice@{REALM}>;tag=caller"),
        (f"sip:{NUMBER}@{REALM}", "<sip:alice@example.org>;tag=caller"),
    ],
)
def test_requests_from_or_for_foreign_domains_are_refused(uri: str, from_: str) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    other = world.agent("203.0.113.1")
    first = alice.request("INVITE", uri, to=f"<{uri}>", from_=from_)
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407)))
    alice.response(100)
    alice.response(403)
    assert silent(other)
    assert [decided.refuse.reason for decided in world.decided] == [Reason.FOREIGN_DOMAIN]


@pytest.mark.setting("fwdtootherdomains")
def test_a_route_of_the_callers_leads_nowhere() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    other = world.agent("203.0.113.1")
    world.invite(alice, "bob", routes=["<sip:192.0.2.10:5060;lr>", "<sip:203.0.113.1;lr>"])
    assert "route" not in bob.got("INVITE")
    assert silent(other)


def test_our_own_address_means_our_first_domain() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    first = alice.request("INVITE", "sip:bob@192.0.2.10:5060", body=SDP)
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407)))
    alice.response(100)
    bob.got("INVITE")


@pytest.mark.parametrize(
    ("to", "status"),
    [("nobody", 404), ("+12", 100), ("+1234567890123456", 484), ("0", 484), ("x" * 65, 404), ("%ff", 400)],
)
def test_who_can_be_called(to: str, status: int) -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.carrier()
    first = alice.request("INVITE", f"sip:{to}@{REALM}", to="<sip:x@callwarden.local>")
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407)))
    alice.response(100)
    if status != 100:
        alice.response(status)
