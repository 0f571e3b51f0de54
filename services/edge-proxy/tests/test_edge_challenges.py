"""Digest challenges: what is offered, what is stale, what is wrong (RFC 3261 22, RFC 8760)."""

import pytest
from edge_world import REALM, Agent, EdgeWorld

from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    VerifyDigest,
)
from callwarden.kernel.verdict import Reason
from callwarden.sip import build
from callwarden.sip.digest import parse_challenge
from callwarden.sip.message import Response

NUMBER = "+49301234567"
OLD = "baresip v1.0.0 (x86_64/linux)"


def silent(agent: Agent) -> bool:
    return not agent.inbox


def stale_after(world: EdgeWorld, agent: Agent, seconds: float) -> bool:
    first = agent.request("INVITE", f"sip:{NUMBER}@{REALM}")
    agent.send(first)
    again = agent.with_credentials(first, agent.response(407))
    world.advance(seconds)
    agent.send(again)
    return "stale=true" in (agent.response(407).get("proxy-authenticate") or "")


@pytest.mark.setting("useshadigestauh")
@pytest.mark.parametrize(("algorithms", "offered"), [(0, ["MD5"]), (1, ["MD5", "SHA-256"]), (2, ["SHA-256"])])
def test_policy_says_which_algorithms_are_offered_in_which_order(algorithms: int, offered: list[str]) -> None:
    world = EdgeWorld({"authentication": {"digest": {"algorithms": algorithms}}})
    alice = world.user("alice", "192.0.2.1")
    alice.send(alice.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    challenges = [parse_challenge(text) for text in alice.response(407).get_all("proxy-authenticate")]
    assert [challenge.algorithm.value for challenge in challenges] == offered
    assert {challenge.realm for challenge in challenges} == {REALM}


@pytest.mark.setting("useshadigestauh")
def test_an_algorithm_that_policy_left_is_asked_again() -> None:
    world = EdgeWorld({"authentication": {"digest": {"algorithms": 0}}})
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    world.apply({"authentication": {"digest": {"algorithms": 2}}})
    alice.send(again)
    answer = alice.response(407)
    assert "SHA-256" in (answer.get("proxy-authenticate") or "")
    assert not [asked for asked in world.asked if isinstance(asked, VerifyDigest)]


def test_an_old_nonce_is_stale_and_counts_as_nothing() -> None:
    world = EdgeWorld({"authentication": {"digest": {"nonceLifetime": "60s"}}})
    assert stale_after(world, world.user("alice", "192.0.2.1"), 61)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert sum(sums.failures for *_, sums in report.endpoints) == 0
    assert not world.decided


def test_a_nonce_of_another_address_is_stale() -> None:
    world = EdgeWorld()
    alice, thief = world.user("alice", "192.0.2.1"), world.agent("192.0.2.66", user="alice")
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    thief.send(thief.with_credentials(first, alice.response(407)))
    assert "stale=true" in (thief.response(407).get("proxy-authenticate") or "")


def test_credentials_work_once() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.registered("bob", "192.0.2.2")
    invite = world.invite(alice, "bob")
    replayed = invite.copy()
    replayed.set("Via", alice.via())
    replayed.set("Call-ID", "another")
    alice.send(replayed)
    assert "stale=true" in (alice.response(407).get("proxy-authenticate") or "")
    assert len([asked for asked in world.asked if isinstance(asked, AdmitCall)]) == 1


def test_credentials_for_one_number_do_not_call_another() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    again.set_uri(f"sip:+4990012345@{REALM}")
    alice.send(again)
    alice.response(407)
    assert not [asked for asked in world.asked if isinstance(asked, AdmitCall)]


def test_credentials_for_another_proxy_are_left_alone() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    again.insert(
        0,
        "Proxy-Authorization",
        'Digest username="x", realm="elsewhere", nonce="y", uri="z", response="' + "0" * 32 + '"',
    )
    alice.send(again)
    alice.response(100)


@pytest.mark.parametrize("value", ["Basic YTpi", "Digest", "Digest username=x", 'Digest realm="callwarden.local'])
def test_credentials_that_can_not_be_read_are_asked_again_and_are_a_wrong_message_and_no_guess(value: str) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    agent.send(agent.request("INVITE", f"sip:{NUMBER}@{REALM}", headers=[("Proxy-Authorization", value)]))
    agent.response(407)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert (report.wrong, sum(sums.failures for *_, sums in report.endpoints)) == (1, 0)


def test_another_pod_knows_our_nonces() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(407))
    world.restart()
    alice.send(again)
    alice.response(100)


@pytest.mark.setting("allownoauthcalls")
def test_no_call_goes_on_without_credentials() -> None:
    world = EdgeWorld()
    world.carrier()
    stranger = world.agent("203.0.113.9", user="v")
    for to in (NUMBER, "bob", f"{NUMBER};phone-context=x"):
        stranger.send(stranger.request("INVITE", f"sip:{to}@{REALM}", call_id=to))
        stranger.response(407)
    assert not [asked for asked in world.asked if isinstance(asked, AdmitCall)]


def test_the_ack_to_a_stateless_challenge_is_dropped_and_no_fault() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.9", user="v")
    first = stranger.request("INVITE", f"sip:{NUMBER}@{REALM}")
    stranger.send(first)
    stranger.send(build.ack(first, stranger.response(407)))
    assert silent(stranger)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert report.wrong == 0


@pytest.mark.cases
@pytest.mark.parametrize(
    ("agent", "algorithms", "offered"),
    [
        ("baresip v1.0.0 (x86_64/linux)", 1, ["MD5"]),
        ("baresip v2.8.1 (x86_64/linux)", 1, ["MD5", "SHA-256"]),
        ("baresip v1.0.0 (x86_64/linux)", 2, ["SHA-256"]),
        ("Linphone/5.1", 1, ["MD5", "SHA-256"]),
    ],
)
def test_a_phone_that_gives_up_at_sha_256_is_not_offered_it_unless_policy_insists(
    agent: str, algorithms: int, offered: list[str]
) -> None:
    world = EdgeWorld({"authentication": {"digest": {"algorithms": algorithms}}})
    phone = world.user("alice", "192.0.2.1")
    phone.send(phone.request("REGISTER", f"sip:{REALM}", headers=[("User-Agent", agent)]))
    challenges = phone.response(401).get_all("www-authenticate")
    assert [parse_challenge(text).algorithm for text in challenges] == offered


@pytest.mark.parametrize("method", ["INVITE", "REGISTER"])
def test_credentials_that_can_not_be_right_are_a_failure_of_nobody_in_particular(method: str) -> None:
    """A fresh nonce, and another number: whoever it is, the name in them proves nothing."""
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    first = alice.request(method, f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    challenged = alice.next()
    assert isinstance(challenged, Response)
    again = alice.with_credentials(first, challenged)
    again.set_uri(f"sip:+49309999@{REALM}")
    alice.send(again)
    alice.response(challenged.status)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert [(port, name, sums.failures) for _, port, name, sums in report.endpoints] == [(5060, "", 1)]
    assert [sums.challenges for *_, sums in report.endpoints] == [2]
    assert not [asked for asked in world.asked if isinstance(asked, VerifyDigest)]


@pytest.mark.parametrize(
    ("sender", "realm"), [(REALM, REALM), ("second.example", "second.example"), ("elsewhere.example", REALM)]
)
def test_a_wrong_password_is_asked_again_in_the_senders_realm_or_our_first(sender: str, realm: str) -> None:
    world = EdgeWorld(realms=(REALM, "second.example"))
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}", from_=f"<sip:alice@{sender}>;tag=caller")
    alice.send(first)
    challenged = alice.response(407)
    alice.send(alice.with_credentials(first, challenged, "guess"))
    alice.response(100)
    for answer in (challenged, alice.response(407)):
        assert parse_challenge(answer.get_all("proxy-authenticate")[0]).realm == realm


@pytest.mark.cases
@pytest.mark.parametrize("method", ["REGISTER", "INVITE"])
def test_why_a_phone_of_another_algorithm_is_refused_is_explained(method: str) -> None:
    world = EdgeWorld({"authentication": {"digest": {"algorithms": 1}}})
    alice = world.user("alice", "192.0.2.1")
    first = alice.request(method, f"sip:alice@{REALM}")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(401 if method == "REGISTER" else 407))
    world.apply({"authentication": {"digest": {"algorithms": 2}}})
    alice.send(again)
    (decided,) = world.decided
    assert (decided.method, decided.refuse.reason, decided.refuse.rule) == (
        method,
        Reason.CREDENTIALS,
        "digest-algorithm",
    )
    assert (
        decided.refuse.text
        == "the phone answers by another digest algorithm; the policy accepts SHA-256 or SHA-512-256"
    )
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert sum(sums.failures for *_, sums in report.endpoints) == 1


@pytest.mark.cases
@pytest.mark.parametrize(("agent", "algorithms", "notes"), [(OLD, 2, 1), (OLD, 1, 0), ("Linphone/5.1", 2, 0)])
def test_a_phone_that_gives_up_at_the_challenge_is_explained(agent: str, algorithms: int, notes: int) -> None:
    world = EdgeWorld({"authentication": {"digest": {"algorithms": algorithms}}})
    alice = world.user("alice", "192.0.2.1")
    request = alice.request("REGISTER", f"sip:{REALM}")
    request.set("User-Agent", agent)
    alice.send(request)
    alice.response(401)
    assert [decided.refuse.text for decided in world.decided] == [
        "this kind of phone knows MD5 only; the policy accepts SHA-256 or SHA-512-256"
    ] * notes


def test_notes_of_such_phones_are_bounded_since_anybody_can_forge_them() -> None:
    world = EdgeWorld({"authentication": {"digest": {"algorithms": 2}}})
    alice = world.user("alice", "192.0.2.1")
    for number in range(30):
        request = alice.request("REGISTER", f"sip:{REALM}", call_id=f"forged-{number}")
        request.set("User-Agent", OLD)
        alice.send(request)
    assert len(world.decided) == 10


@pytest.mark.cases
def test_of_several_answers_one_by_an_accepted_algorithm_is_taken() -> None:
    """linphone answers all challenges of a response at once."""
    world = EdgeWorld({"authentication": {"digest": {"algorithms": 2}}})
    alice = world.user("alice", "192.0.2.1")
    first = alice.request("REGISTER", f"sip:{REALM}", to=f"<sip:alice@{REALM}>")
    alice.send(first)
    again = alice.with_credentials(first, alice.response(401))
    good = again.get("authorization") or ""
    again.set("Authorization", good.replace("algorithm=SHA-256", "algorithm=MD5"))
    again.add("Authorization", good)
    alice.send(again)
    alice.response(200)
    assert not world.decided
