"""Refusals: each with its chain of rules, and bounded; policy and load while calls run."""

from edge_world import PASSWORD, REALM, START_S, Agent, EdgeWorld, account_id

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
    assert len(world.edge.calls) == 0
