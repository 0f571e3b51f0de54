"""Calls from the INVITE to their end, seen from both sides."""

from callwarden.edge_proxy.core.effects import AdmitCall

from edge_world import REALM, World


def test_a_local_call_is_set_up_acknowledged_and_ended() -> None:
    world = World()
    alice = world.registered("alice", "192.0.2.1")
    bob = world.registered("bob", "192.0.2.2", numbers=("+4930222",))
    talk = world.talk(alice, bob, "bob")
    (question,) = [asked for asked in world.asked if isinstance(asked, AdmitCall)]
    assert question.local
    assert question.destination == "bob"
    assert question.account_id == "account-alice"
    world.advance(10)
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.respond(bob.got("BYE"), 200)
    alice.response(200)
    (started,), (ended,) = world.started, world.ended
    assert started.hold_id == ended.hold_id == question.hold_id
    assert ended.reason == "caller-bye"
    assert ended.ended_at_s - ended.answered_at_s == 10
    assert len(world.edge.calls) == 0
    assert REALM not in talk.incoming.uri_text
