"""Refusals: each with its chain of rules, and bounded; policy and load while calls run."""

import pytest
from edge_world import PASSWORD, REALM, START_S, Agent, EdgeWorld, account_id

from callwarden.edge_proxy.core.effects import Answer, CallerIdentity, Rejected, Unanswered
from callwarden.kernel.verdict import Reason

NUMBER = "+49301234567"


def silent(agent: Agent) -> bool:
    return not agent.inbox


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
    assert world.edge.stats.unavailable == 1
    assert len(world.edge.calls) == 0


PASSED = ["banned", "rate", "scanner", "credentials", "caller-id", "called"]


@pytest.mark.parametrize(
    ("reason", "chain", "status"),
    [
        (Reason.CREDENTIALS, [*PASSED[:3], "credentials"], 407),
        (Reason.ACCOUNT_DISABLED, [*PASSED[:3], "credentials"], 403),
        (Reason.UNAVAILABLE, [*PASSED[:3], "auth"], 503),
        (Reason.OVERLOAD, [*PASSED[:3], "auth"], 503),
        (Reason.CALLER_ID, [*PASSED[:4], "caller-id"], 403),
        (Reason.FOREIGN_DOMAIN, [*PASSED[:4], "foreign-domain"], 403),
        (Reason.BAD_NUMBER, [*PASSED[:5], "called"], 484),
        (Reason.FOREIGN_DOMAIN, [*PASSED[:5], "foreign-domain"], 403),
    ],
)
def test_each_refusal_names_the_rules_that_let_the_call_pass_before(
    reason: Reason, chain: list[str], status: int
) -> None:
    world = EdgeWorld()
    alice = world.user("alice", "192.0.2.1")
    shown = "+4930999" if reason is Reason.CALLER_ID else "alice"
    home = "elsewhere.example" if chain == [*PASSED[:4], "foreign-domain"] else REALM
    called = {Reason.BAD_NUMBER: f"0301234@{REALM}", Reason.FOREIGN_DOMAIN: "+49301@elsewhere.example"}
    first = alice.request(
        "INVITE", f"sip:{called.get(reason, f'{NUMBER}@{REALM}')}", from_=f"<sip:{shown}@{home}>;tag=caller"
    )
    alice.send(first)
    world.hold_answers = True
    alice.send(alice.with_credentials(first, alice.response(407)))
    alice.response(100)
    answers: dict[Reason, Answer] = {
        Reason.CREDENTIALS: Rejected(Reason.CREDENTIALS),
        Reason.ACCOUNT_DISABLED: Rejected(Reason.ACCOUNT_DISABLED),
        Reason.UNAVAILABLE: Unanswered(),
        Reason.OVERLOAD: Unanswered(overloaded=True),
    }
    world.release(answers.get(reason))
    answer = alice.response(status)
    assert (answer.reason == "Caller ID Not Allowed") == (reason is Reason.CALLER_ID)
    (decided,) = world.decided
    assert decided.refuse.reason is reason
    assert [rule.rule for rule in decided.rules] == chain
    assert [rule.refused is None for rule in decided.rules] == [True] * (len(chain) - 1) + [False]
    assert (decided.method, decided.source) == ("INVITE", "192.0.2.1")
    assert decided.account_id == (account_id("alice") if "credentials" in chain[:-1] else "")
    assert not world.ended  # call-admission was never asked


@pytest.mark.parametrize("overloaded", [False, True])
def test_a_refusal_for_want_of_an_answer_ends_the_hold_that_may_be_there(overloaded: bool) -> None:
    world = EdgeWorld()
    world.trunks["203.0.113.5"] = CallerIdentity("account-switch", "traffic-sender", (), "", 60, "trunk")
    world.admit = lambda question: Unanswered(overloaded=overloaded)
    switch = world.agent("203.0.113.5", user="switch")
    switch.send(switch.request("INVITE", f"sip:{NUMBER}@{REALM}", from_="<sip:+4940555@x>;tag=caller"))
    switch.response(100)
    answer = switch.response(503)
    reason = "overload" if overloaded else "unavailable"
    assert (answer.get("reason") or "").startswith(f'SIP;cause=503;text="{reason}: call-admission')
    (decided,) = world.decided
    assert [rule.rule for rule in decided.rules] == [
        "banned", "rate", "scanner", "trunk-address", "caller-id", "called", "call-admission"
    ]  # fmt: skip
    (ended,) = world.ended
    assert (ended.reason, ended.sip_status, ended.ended_at_s) == (f"refused-{reason}", 503, START_S)
    assert (ended.destination, ended.caller_number, ended.source) == (NUMBER[1:], "+4940555", "203.0.113.5")
