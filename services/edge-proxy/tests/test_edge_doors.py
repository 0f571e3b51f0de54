"""Who gets in: screening, challenges, callers and called, trunks, and what nobody gets an answer to."""

import pytest
from edge_world import PASSWORD, REALM, SDP, START_S, Agent, EdgeWorld, account_id

from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    CallerIdentity,
    ScannerSeen,
    Unanswered,
    VerifyDigest,
    VerifySource,
)
from callwarden.kernel.verdict import Reason
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.digest import parse_challenge
from callwarden.sip.message import Request, Response

NUMBER = "+49301234567"


def silent(agent: Agent) -> bool:
    return not agent.inbox


# Screening.


@pytest.mark.setting("firewall-static")
def test_a_denied_address_gets_no_answer_and_an_allowed_one_in_it_does() -> None:
    world = EdgeWorld({"firewall": {"deny": ["192.0.2.0/24"], "allow": ["192.0.2.7"]}})
    denied, allowed = world.agent("192.0.2.1", user="a"), world.agent("192.0.2.7", user="b")
    for agent in (denied, allowed):
        agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
    assert silent(denied)
    allowed.response(200)
    assert world.edge.stats.denied_dropped == 1


@pytest.mark.setting("firewall-static")
def test_an_allowed_address_is_neither_banned_nor_limited() -> None:
    world = EdgeWorld({"firewall": {"allow": ["192.0.2.7"]}, "messages": {"perAddress": {"max": 3, "period": "60s"}}})
    agent = world.agent("192.0.2.7", user="b")
    world.edge.source_filter.ban("192.0.2.7", None, 0)
    for _ in range(10):
        agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
        agent.response(200)


def test_the_answers_of_a_carrier_do_not_count_against_it_but_answers_that_nobody_asked_for_do() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    # Only now, so that alice's own messages don't matter.
    world.apply({"messages": {"perAddress": {"max": 3, "period": "60s"}}, "firewall": {"allow": ["192.0.2.1"]}})
    for number in range(5):
        talk = world.talk(alice, carrier, NUMBER, call_id=f"call-{number}")
        alice.send(talk.from_caller("BYE", cseq=9))
        carrier.respond(carrier.got("BYE"), 200)
        alice.response(200)
        carrier.inbox.clear()
    assert (len(world.ended), world.edge.stats.rate_dropped) == (5, 0)

    stray = build.response(carrier.request("OPTIONS", f"sip:{REALM}"), 200)
    for _ in range(5):
        carrier.send(stray)
    assert world.edge.stats.strays == 5
    assert world.edge.stats.rate_dropped == 2
    (report,) = [report for report in world.edge.counters.take_report(world.mono_s) if report.host == "198.51.100.1"]
    assert report.messages == 5


def test_a_ban_holds_until_its_end_and_can_be_lifted() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")

    def answered() -> bool:
        agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
        return not silent(agent) and bool(agent.inbox.pop())

    assert answered()
    world.edge.source_filter.ban("192.0.2.1", None, world.unix_s + 60)
    assert not answered()
    world.advance(61)
    assert answered()
    world.edge.source_filter.ban("192.0.2.1", None, 0)  # for ever
    world.advance(1_000_000)
    assert not answered()
    world.edge.source_filter.unban("192.0.2.1", None)
    assert answered()


@pytest.mark.setting("maxsubsmsgcount")
def test_an_address_over_the_edges_own_limit_is_dropped_and_others_are_not() -> None:
    world = EdgeWorld({"messages": {"perAddress": {"max": 5, "period": "60s"}}})
    loud, calm = world.agent("192.0.2.1", user="a"), world.agent("192.0.2.2", user="b")
    for _ in range(20):
        loud.send(loud.request("OPTIONS", f"sip:{REALM}"))
    calm.send(calm.request("OPTIONS", f"sip:{REALM}"))
    assert len(loud.inbox) == 5
    calm.response(200)
    assert world.edge.stats.rate_dropped == 15


@pytest.mark.setting("scanner-agents")
@pytest.mark.parametrize("agent_name", ["friendly-scanner", "SIPVicious 0.3", "x sipcli/v1.8"])
@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE"])
def test_a_scanner_gets_no_answer_and_is_banned_at_once(agent_name: str, method: str) -> None:
    world = EdgeWorld()
    scanner = world.agent("203.0.113.66", user="100")
    scanner.send(scanner.request(method, f"sip:100@{REALM}", headers=[("User-Agent", agent_name)]))
    scanner.send(scanner.request("OPTIONS", f"sip:{REALM}"))
    assert silent(scanner)
    assert [seen.source for seen in world.told(ScannerSeen)] == ["203.0.113.66"]
    assert [decided.refuse.reason for decided in world.decided] == [Reason.SCANNER]


@pytest.mark.setting("scanner-agents")
def test_a_forged_scanner_does_not_lock_out_a_phone_that_is_registered_there() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    alice.send(alice.request("OPTIONS", f"sip:{REALM}", headers=[("User-Agent", "sipvicious")]))
    assert silent(alice)
    assert not world.told(ScannerSeen)
    alice.send(alice.request("OPTIONS", f"sip:{REALM}"))
    alice.response(200)


@pytest.mark.setting("blockua")
def test_a_blocked_agent_gets_no_answer_and_is_counted_and_not_banned() -> None:
    world = EdgeWorld({"sip": {"blockedUserAgents": ["BadPhone"]}})
    agent = world.agent("192.0.2.1", user="a")
    agent.send(agent.request("OPTIONS", f"sip:{REALM}", headers=[("User-Agent", "the badphone 3")]))
    assert silent(agent)
    agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
    agent.response(200)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert (report.messages, report.wrong) == (2, 1)


# Not SIP.


@pytest.mark.setting("malformed")
@pytest.mark.parametrize(
    "data",
    [b"hello", b"\xff" * 100, b"INVITE sip:a@b SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n", b"A" * 60_000, b" "],
)
def test_what_is_not_sip_is_dropped_and_counted(data: bytes) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1")
    agent.send(data)
    assert silent(agent)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert report.wrong == 1


@pytest.mark.setting("malformed")
def test_a_bad_request_that_says_where_it_came_from_is_answered_once() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    data = agent.request("OPTIONS", f"sip:{REALM}").to_bytes().replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE")
    agent.send(data)
    agent.response(400)
    assert silent(agent)


@pytest.mark.setting("malformed")
def test_a_scanner_that_can_not_write_sip_gets_no_answer() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    request = agent.request("OPTIONS", f"sip:{REALM}", headers=[("User-Agent", "friendly-scanner")])
    agent.send(request.to_bytes().replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE"))
    assert silent(agent)


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"\r\n", b"\0\0\0\0"])
def test_what_keeps_a_nat_open_is_no_fault(data: bytes) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1")
    agent.send(data)
    assert silent(agent)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert (report.messages, report.wrong) == (1, 0)


def test_answers_go_to_the_address_that_was_really_used_and_nowhere_else() -> None:
    """The Via of an attacker names his victim."""
    world = EdgeWorld()
    victim, attacker = world.agent("203.0.113.9", user="v"), world.agent("192.0.2.66", user="m")
    request = attacker.request("OPTIONS", f"sip:{REALM}")
    request.set("Via", "SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKx")
    attacker.send(request)
    assert silent(victim)
    attacker.response(200)


def test_a_stranger_gets_one_answer_a_datagram_and_costs_no_memory() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.9", user="v")
    for number in range(50):
        for method in ("INVITE", "REGISTER", "OPTIONS", "CANCEL", "MESSAGE", "ACK", "BYE"):
            stranger.send(stranger.request(method, f"sip:{REALM}", call_id=f"{method}{number}"))
    assert len(stranger.inbox) == 50 * 6  # ACK has none
    assert len(world.edge.layer) == 0
    assert len(world.edge.calls) == 0


# What a proxy refuses (RFC 3261 16.3).


def check(world: EdgeWorld, agent: Agent, request: Request) -> Response:
    agent.send(request)
    answer = agent.next()
    assert isinstance(answer, Response)
    return answer


def test_requests_that_may_not_go_on() -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    uri = f"sip:bob@{REALM}"
    assert check(world, agent, agent.request("INVITE", uri, max_forwards=0)).status == 483
    answer = check(world, agent, agent.request("INVITE", uri, headers=[("Proxy-Require", "foo, bar")]))
    assert (answer.status, answer.get("unsupported")) == (420, "foo, bar")
    assert check(world, agent, agent.request("INVITE", "mailto:a@b")).status == 416
    assert check(world, agent, agent.request("SUBSCRIBE", uri)).status == 501
    answer = check(world, agent, agent.request("MESSAGE", uri))
    assert (answer.status, "INVITE" in (answer.get("allow") or "")) == (405, True)
    assert check(world, agent, agent.request("CANCEL", uri)).status == 481


def test_a_ping_is_answered_and_nobody_learns_who_is_registered() -> None:
    world = EdgeWorld()
    world.registered("bob", "192.0.2.2")
    agent = world.agent("192.0.2.1", user="a")
    answer = check(world, agent, agent.request("OPTIONS", f"sip:{REALM}"))
    assert answer.status == 200
    assert "INVITE" in (answer.get("allow") or "")
    assert check(world, agent, agent.request("OPTIONS", "sip:192.0.2.10:5060", max_forwards=0)).status == 200
    for user in ("bob", "nobody"):
        assert check(world, agent, agent.request("OPTIONS", f"sip:{user}@{REALM}")).status == 404


def test_a_request_that_comes_back_unchanged_is_a_loop_and_a_changed_one_is_not() -> None:
    """RFC 5393: by what decides where it goes, not by our name in Via alone."""
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    carrier = world.carrier()
    world.invite(alice, NUMBER)
    forwarded = carrier.got("INVITE")
    looped = forwarded.copy()
    looped.set_uri(f"sip:{NUMBER}@{REALM}")
    looped.push_via(carrier.via())
    carrier.send(looped)
    carrier.response(482)
    spiral = forwarded.copy()
    spiral.set_uri(f"sip:+4930999@{REALM}")
    spiral.push_via(carrier.via())
    carrier.send(spiral)
    carrier.response(407)


# Challenges.


@pytest.mark.setting("useshadigestauh")
@pytest.mark.parametrize(("algorithms", "offered"), [(0, ["MD5"]), (1, ["SHA-256", "MD5"]), (2, ["SHA-256"])])
def test_policy_says_which_algorithms_are_offered_best_first(algorithms: int, offered: list[str]) -> None:
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


def stale_after(world: EdgeWorld, agent: Agent, seconds: float) -> bool:
    first = agent.request("INVITE", f"sip:{NUMBER}@{REALM}")
    agent.send(first)
    again = agent.with_credentials(first, agent.response(407))
    world.advance(seconds)
    agent.send(again)
    return "stale=true" in (agent.response(407).get("proxy-authenticate") or "")


def test_an_old_nonce_is_stale_and_counts_as_nothing() -> None:
    world = EdgeWorld({"authentication": {"digest": {"nonceLifetime": "60s"}}})
    assert stale_after(world, world.user("alice", "192.0.2.1"), 61)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert sum(sums.failures for _, _, sums in report.endpoints) == 0
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
def test_credentials_that_can_not_be_right_are_asked_again_and_counted(value: str) -> None:
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", user="a")
    agent.send(agent.request("INVITE", f"sip:{NUMBER}@{REALM}", headers=[("Proxy-Authorization", value)]))
    agent.response(407)
    (report,) = world.edge.counters.take_report(world.mono_s)
    assert sum(sums.failures for _, _, sums in report.endpoints) == 1


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


# Callers and called.


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


# Trunks.


def switch(world: EdgeWorld, tech_prefix: str = "") -> Agent:
    world.trunks["203.0.113.5"] = CallerIdentity(
        "account-switch", "traffic-sender", (), tech_prefix, 60, "switch-trunk"
    )
    return world.agent("203.0.113.5", user="switch")


def test_a_trunk_calls_by_its_address_and_shows_its_customers_numbers() -> None:
    world = EdgeWorld()
    trunk, carrier = switch(world), world.carrier()
    trunk.send(
        trunk.request(
            "INVITE",
            f"sip:{NUMBER}@192.0.2.10:5060",
            from_="<sip:+4940555@customer.example>;tag=t",
            headers=[("P-Asserted-Identity", "<sip:+4940555@customer.example>")],
        )
    )
    trunk.response(100)
    (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
    assert (question.account_id, question.trunk, question.caller_number) == (
        "account-switch", "switch-trunk", "+4940555"
    )  # fmt: skip
    assert "p-asserted-identity" in carrier.got("INVITE")


def test_a_trunks_tech_prefix_is_stripped() -> None:
    world = EdgeWorld()
    trunk = switch(world, tech_prefix="77#")
    trunk.send(trunk.request("INVITE", f"sip:77#{NUMBER}@{REALM}"))
    (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
    assert (question.destination, question.dialled) == (NUMBER[1:], f"77#{NUMBER}")


def test_strangers_are_asked_about_once_and_then_only_challenged() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.9", user="v")
    for number in range(20):
        stranger.send(stranger.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id=f"c{number}"))
        stranger.response(407)
    assert len([asked for asked in world.asked if isinstance(asked, VerifySource)]) == 1
    world.advance(11)
    stranger.send(stranger.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id="later"))
    assert len([asked for asked in world.asked if isinstance(asked, VerifySource)]) == 2


def test_a_registered_phone_is_never_taken_for_a_trunk() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    alice.send(alice.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    alice.response(407)
    assert not [asked for asked in world.asked if isinstance(asked, VerifySource)]


def test_calls_that_come_while_an_address_is_asked_about_wait_for_the_answer() -> None:
    world = EdgeWorld()
    trunk = switch(world)
    world.carrier()
    world.hold_answers = True
    for number in range(3):
        trunk.send(trunk.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id=f"c{number}"))
    assert silent(trunk)
    world.hold_answers = False
    world.release()
    assert [message.status for message in trunk.inbox if isinstance(message, Response)] == [100, 100, 100]


def test_with_auth_dead_strangers_are_challenged_as_ever() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.9", user="v")
    world.hold_answers = True
    stranger.send(stranger.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    world.release(Unanswered())
    stranger.response(407)


def test_a_flood_of_forged_addresses_asks_auth_only_so_often() -> None:
    world = EdgeWorld()
    for number in range(1_000):
        request = world.agent(f"203.0.{number // 250}.{number % 250}", user="v").request("INVITE", f"sip:1@{REALM}")
        world.receive(request.to_bytes(), f"203.0.{number // 250}.{number % 250}", 5060)
    assert len([asked for asked in world.asked if isinstance(asked, VerifySource)]) <= 200


def test_a_new_trunk_is_known_at_once_when_auth_tells_of_it() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.5", user="switch")
    stranger.send(stranger.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id="before"))
    stranger.response(407)
    switch(world)
    world.edge.sources.forget()
    trunk = world.agents["203.0.113.5", 5060]
    trunk.send(trunk.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id="after"))
    trunk.response(100)


# Decisions are told, and bounded.


def test_a_refusal_tells_its_whole_chain() -> None:
    world = EdgeWorld()
    alice = world.registered("alice", "192.0.2.1")
    world.invite(alice, "nobody", call_id="lost")
    alice.response(404)
    (decided,) = world.decided
    assert decided.call_id == "lost"
    assert [(rule.rule, rule.refused is None) for rule in decided.rules] == [
        ("banned", True),
        ("rate", True),
        ("scanner", True),
        ("credentials", True),
        ("caller-id", True),
        ("called", False),
    ]
    assert decided.account_id == account_id("alice")
    assert decided.at_s == START_S
    assert decided.traceparent.startswith("00-")


def test_an_attacker_can_not_fill_the_database_with_refusals() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    for number in range(400):
        first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id=f"c{number}")
        alice.send(first)
        alice.send(alice.with_credentials(first, alice.response(407), "guess"))
        alice.inbox.clear()
    assert len(world.decided) == 200
    assert world.edge.stats.decisions_dropped == 200


def test_policy_is_swapped_whole_while_calls_run() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.talk(alice, bob, "bob")
    world.apply({"firewall": {"deny": ["192.0.2.1"]}}, revision=7)
    alice.send(alice.request("OPTIONS", f"sip:{REALM}"))
    assert silent(alice)
    assert len(world.edge.calls) == 1
    assert world.edge.context.book.revision == 7


def test_a_full_edge_says_so_and_keeps_what_it_has() -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    world.edge.layer._transactions_max = 0
    first = alice.request("INVITE", f"sip:{NUMBER}@{REALM}")
    alice.send(first)
    alice.send(alice.with_credentials(first, alice.response(407), PASSWORD))
    assert alice.response(503).get("retry-after") == "5"
    assert len(world.edge.calls) == 0


def test_peers_without_rport_are_answered_at_the_port_they_name() -> None:
    """RFC 3261 18.2.2."""
    world = EdgeWorld()
    agent = world.agent("192.0.2.1", 5060, user="a")
    request = agent.request("OPTIONS", f"sip:{REALM}")
    request.set("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx")
    world.edge.receive(request.to_bytes(), SocketAddress("192.0.2.1", 40_000), world.mono_s, world.unix_s)
    world.settle()
    agent.response(200)
