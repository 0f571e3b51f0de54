"""Trunks that are known by their address."""

from edge_world import REALM, Agent, EdgeWorld

from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    CallerIdentity,
    Unanswered,
    VerifySource,
)
from callwarden.sip.message import Response

NUMBER = "+49301234567"


def silent(agent: Agent) -> bool:
    return not agent.inbox


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
    assert all([message.status for message in agent.inbox if isinstance(message, Response)] == [407]
               for agent in world.agents.values())  # fmt: skip


def test_strangers_who_wait_for_one_answer_are_all_challenged() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.9", user="v")
    world.hold_answers = True
    for number in range(3):
        stranger.send(stranger.request("INVITE", f"sip:{NUMBER}@{REALM}", call_id=f"c{number}"))
    assert silent(stranger)
    world.release()
    for number in range(3):
        challenged = stranger.response(407)
        assert challenged.call_id == f"c{number}"
        assert "stale" not in (challenged.get("proxy-authenticate") or "")
    (question,) = world.asked
    assert isinstance(question, VerifySource)
    assert question.called == NUMBER


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


def test_of_an_address_that_calls_nobody_auth_is_asked_all_the_same() -> None:
    world = EdgeWorld()
    stranger = world.agent("203.0.113.9", user="v")
    stranger.send(stranger.request("INVITE", f"sip:{REALM}"))
    stranger.response(407)
    (question,) = world.asked
    assert isinstance(question, VerifySource)
    assert question.called == ""


def test_a_trunk_over_the_limit_of_strangers_is_served() -> None:
    world = EdgeWorld({"messages": {"perAddress": {"max": 2, "period": "60s"}}})
    trunk = switch(world)
    trunk.send(trunk.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    trunk.inbox.clear()
    stranger = world.agent("203.0.113.9", user="v")
    for number in range(5):
        for agent in (trunk, stranger):
            agent.send(agent.request("OPTIONS", f"sip:{REALM}", call_id=f"ping-{number}"))
    assert len(trunk.inbox) == 5
    assert len(stranger.inbox) == 2
