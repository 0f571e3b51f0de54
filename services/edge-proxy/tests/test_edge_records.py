"""Calls that outlive their edge: what is kept of them, and how another one goes on."""

import asyncio
from uuid import UUID

import pytest
from edge_world import START_S, Agent, AnsweredCall, EdgeWorld, account_id

from callwarden.common.bus import Bucket, Bus
from callwarden.common.clock import SystemClock
from callwarden.edge_proxy.adapters import records_nats
from callwarden.edge_proxy.adapters.records_nats import RecordsNats
from callwarden.edge_proxy.core.active_call import RECORD_AFTER_S
from callwarden.edge_proxy.core.effects import (
    CallAdmitted,
    CallExtended,
    CallRefused,
    ExtendCall,
    ForgetRecord,
    StoreRecord,
    Unanswered,
)
from callwarden.edge_proxy.core.records import DialogRecord, Leg
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.local.nats import NatsServer
from callwarden.sip.address import SocketAddress


def recorded(world: EdgeWorld) -> tuple[Agent, Agent, AnsweredCall, DialogRecord]:
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    world.advance(RECORD_AFTER_S + 0.1)
    (stored,) = world.events_of(StoreRecord)
    return alice, bob, talk, stored.record


def adopt(world: EdgeWorld, record: DialogRecord) -> None:
    world.restart()
    world.asked.clear()
    world.edge.adopt(record, world.mono_s, world.unix_s)
    world.settle()


def test_a_call_that_lasts_is_kept_and_forgotten_at_its_end() -> None:
    world = EdgeWorld()
    alice, bob, talk, record = recorded(world)
    assert (record.hold_id, record.account_id) == (talk.hold_id, account_id("alice"))
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.respond(bob.got("BYE"), 200)
    assert [forgotten.hold_id for forgotten in world.events_of(ForgetRecord)] == [record.hold_id]


def test_a_record_holds_what_another_edge_needs_for_as_long_as_the_call_may_last() -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    world.admit = lambda question: CallAdmitted(60, False, 600, world.routes)
    invite = world.invite(alice, "+49301234567")
    incoming = carrier.got("INVITE")
    incoming.push_record_route("sip:198.51.100.1;lr")
    carrier.respond(incoming, 200)
    talk = AnsweredCall(world, alice, carrier, invite, alice.response(200), incoming)
    alice.send(talk.from_caller("ACK", cseq=invite.cseq.number))
    refresh = talk.from_caller("UPDATE", cseq=20)
    refresh.set("Contact", "<sip:moved@192.0.2.1:5060>")
    alice.send(refresh)
    carrier.inbox.popleft()
    carrier.respond(carrier.got("UPDATE"), 200)
    world.advance(RECORD_AFTER_S + 0.1)
    (stored,) = world.events_of(StoreRecord)
    assert 600 - RECORD_AFTER_S + 59 < stored.expires_s <= 600 - RECORD_AFTER_S + 60
    record = stored.record
    assert (record.call_id, record.answered_at_s, record.granted_s) == ("call-1", START_S, 60)
    assert record.caller == Leg(
        invite.get("from") or "",
        "sip:moved@192.0.2.1:5060",
        SocketAddress("192.0.2.1", 5060),
        20,
        (),
        ("192.0.2.1",),
        account_id("alice"),
        "",
        True,
    )
    callee = Leg(
        talk.answer.get("to") or "",
        str(talk.answer.contacts[0].uri),
        SocketAddress("198.51.100.1", 5060),
        0,
        ("<sip:198.51.100.1;lr>",),
        ("198.51.100.1",),
        "",
        "carrier",
        False,
    )
    assert record.callee == callee


def test_who_takes_a_call_over_ends_it_as_its_sides_know_it() -> None:
    """The BYEs name tags, targets and routes of the record, and jump ahead of all numbers that may have been used."""
    world = EdgeWorld()
    phone, switch = world.agent("203.0.113.7", 40_000), world.agent("198.51.100.1", 5070)
    caller = Leg('"A" <sip:a@x>;tag=1', "sip:a@10.0.0.2", SocketAddress("203.0.113.7", 40_000), 5, ("<sip:p;lr>",))
    callee = Leg("<sip:b@x>;tag=2", "sip:gw@198.51.100.1:5070", SocketAddress("198.51.100.1", 5070), 7, ("<sip:q;lr>",))
    record = DialogRecord(UUID(int=9, version=4), "call-9", account_id("a"), START_S - 100, 60, caller, callee)
    adopt(world, record)
    assert not world.ended
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.settle()
    for agent, to, of in ((phone, caller, callee), (switch, callee, caller)):
        bye = agent.got("BYE")
        assert bye.uri_text == to.target
        assert (bye.get("to"), bye.get("from"), bye.call_id) == (to.header, of.header, "call-9")
        assert tuple(bye.get_all("route")) == to.routes
        assert bye.cseq.number == of.cseq + 1_001
    (ended,) = world.ended
    assert (ended.answered_at_s, ended.ended_at_s, ended.account_id) == (START_S - 100, START_S, account_id("a"))


def test_of_a_call_that_was_taken_over_a_phone_is_followed_and_a_switch_is_not() -> None:
    world = EdgeWorld()
    caller = Leg("<sip:a@x>;tag=1", "sip:a@10.0.0.2", SocketAddress("203.0.113.7", 40_000), 5, ())
    callee = Leg("<sip:b@x>;tag=2", "sip:gw@198.51.100.1:5070", SocketAddress("198.51.100.1", 5070), 7, ())
    record = DialogRecord(UUID(int=9, version=4), "call-9", account_id("a"), START_S, 60, caller, callee)
    adopt(world, record)
    phone, switch = world.agent("203.0.113.7", 40_001), world.agent("198.51.100.1", 5071)
    world.agent("198.51.100.1", 5070)
    to_switch = phone.request("INFO", "sip:gw@x", from_=caller.header, to=callee.header, call_id="call-9", cseq=9)
    phone.send(to_switch)
    at_home = world.agents["198.51.100.1", 5070]
    at_home.respond(at_home.got("INFO"), 200)
    phone.response(200)
    to_phone = switch.request("INFO", "sip:a@x", from_=callee.header, to=caller.header, call_id="call-9", cseq=9)
    switch.send(to_phone)
    phone.respond(phone.got("INFO"), 200)
    switch.response(200)
    phone.send(phone.request("INFO", "sip:gw@x", from_=caller.header, to=callee.header, call_id="call-9", cseq=10))
    at_home.got("INFO")


def test_a_short_call_costs_no_record() -> None:
    world = EdgeWorld()
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    talk = world.talk(alice, bob, "bob")
    world.advance(RECORD_AFTER_S - 0.5)
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.respond(bob.got("BYE"), 200)
    world.advance(60)
    assert not world.events_of(StoreRecord)
    assert not world.events_of(ForgetRecord)


def test_who_takes_a_call_over_asks_for_its_slice_and_cuts_it_at_its_end() -> None:
    world = EdgeWorld()
    alice, bob, talk, record = recorded(world)
    world.advance(20)
    adopt(world, record)
    (question,) = [asked for asked in world.asked if isinstance(asked, ExtendCall)]
    assert (question.hold_id, question.granted_s) == (record.hold_id, 60)
    assert question.answered_at_s == START_S
    world.extend = lambda question: CallRefused(Refuse(Reason.CREDIT, "credit"))
    alice.inbox.clear()
    world.advance(120 - RECORD_AFTER_S - 20)
    to_bob, to_alice = bob.got("BYE"), alice.got("BYE")
    assert to_bob.call_id == talk.invite.call_id
    assert to_bob.from_.tag == to_alice.to.tag == "caller"
    assert to_bob.to.tag == to_alice.from_.tag == talk.answer.to.tag
    assert to_bob.cseq.number > talk.invite.cseq.number
    ended = world.ended[-1]
    assert (ended.hold_id, ended.reason, ended.answered_at_s) == (record.hold_id, "cut-credit", START_S)


def test_a_call_that_is_taken_over_ends_as_any_other() -> None:
    world = EdgeWorld()
    alice, bob, talk, record = recorded(world)
    adopt(world, record)
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.respond(bob.got("BYE"), 200)
    alice.response(200)
    assert world.ended[-1].reason == "caller-bye"
    assert world.ended[-1].answered_at_s == START_S
    assert world.events_of(ForgetRecord)


def test_a_call_whose_hold_is_gone_is_cut_at_once() -> None:
    world = EdgeWorld()
    alice, _, _, record = recorded(world)
    world.extend = lambda question: CallRefused(Refuse(Reason.ACCOUNT_UNKNOWN, "hold"))
    world.pass_by(600)
    adopt(world, record)
    world.advance(0.2)
    alice.got("BYE")
    assert world.ended[-1].reason == "cut-account-unknown"


def test_a_call_taken_over_while_admission_is_dead_has_the_grace_and_no_more() -> None:
    world = EdgeWorld({"spend": {"grace": "5s"}})
    alice, _, _, record = recorded(world)
    world.extend = lambda question: Unanswered()
    world.pass_by(600)
    adopt(world, record)
    world.advance(4)
    assert not alice.inbox
    world.advance(2)
    alice.got("BYE")


def test_what_was_granted_before_a_call_was_taken_over_may_be_talked() -> None:
    world = EdgeWorld({"spend": {"grace": "5s"}})
    alice, _, _, record = recorded(world)
    world.extend = lambda question: Unanswered()
    world.pass_by(10)
    adopt(world, record)
    world.advance(60 + 4.9 - 10 - RECORD_AFTER_S - 0.1)
    assert not alice.inbox
    world.advance(0.2)
    alice.got("BYE")


def test_a_call_is_taken_once_and_not_after_its_end() -> None:
    world = EdgeWorld()
    alice, bob, talk, record = recorded(world)
    world.edge.adopt(record, world.mono_s, world.unix_s)
    assert len(world.edge.calls) == 1
    assert world.edge.stats.calls_adopted == 0
    alice.send(talk.from_caller("BYE", cseq=9))
    bob.respond(bob.got("BYE"), 200)
    world.edge.adopt(record, world.mono_s, world.unix_s)
    assert len(world.edge.calls) == 0


def test_an_adopted_call_is_extended_beyond_what_its_record_said() -> None:
    world = EdgeWorld()
    alice, _, _, record = recorded(world)
    world.extend = lambda question: CallExtended(360, final=False)
    world.pass_by(200)
    adopt(world, record)
    world.advance(100)
    assert not alice.inbox


# In NATS.


def sample(number: int) -> DialogRecord:
    leg = Leg('"A" <sip:a@x>;tag=1', "sip:a@192.0.2.1", SocketAddress("192.0.2.1", 5060), 3, ("<sip:p;lr>",))
    return DialogRecord(
        UUID(int=number, version=4), f"call-{number}", str(UUID(int=7, version=4)), START_S, 60, leg, leg
    )


class RecordsEdge:
    """One edge's records, and the calls it has taken."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.taken: asyncio.Queue[DialogRecord] = asyncio.Queue()
        self.records = RecordsNats(
            bus.kv(Bucket.DIALOGS),
            bus.kv(Bucket.MEMBERS),
            name,
            SystemClock(),
            self.taken.put_nowait,
            alive_ttl_s=1.0,
            patience_s=0.1,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> "RecordsEdge":
        work = (self.records.write(), self.records.stay_alive(), self.records.follow())
        self._tasks = [asyncio.create_task(each) for each in work]
        return self

    async def die(self) -> None:
        # More than once: a cancellation that meets nats-py while it flushes is swallowed there.
        left = set(self._tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)


async def stored(bus: Bus, count: int) -> None:
    kv = bus.kv(Bucket.DIALOGS)
    async for _ in kv.watch():
        if len(await kv.items()) == count:
            return


@pytest.mark.integration
async def test_the_calls_of_a_dead_edge_are_shared_among_the_living_and_each_taken_once(
    nats_server: NatsServer,
) -> None:
    async with Bus(nats_server.url, name="test") as bus:
        dead, one, two = (RecordsEdge(bus, name).start() for name in ("dead", "one", "two"))
        wanted = [sample(number) for number in range(20)]
        for record in wanted:
            dead.records.store(StoreRecord(record, 60))
        await stored(bus, len(wanted))
        await dead.die()
        taken: list[DialogRecord] = []
        async with asyncio.timeout(20):
            while len(taken) < len(wanted):
                done, pending = await asyncio.wait(
                    [asyncio.ensure_future(edge.taken.get()) for edge in (one, two)],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                taken += [task.result() for task in done]
                for task in pending:
                    task.cancel()
        assert sorted(taken, key=lambda record: record.hold_id.int) == sorted(
            wanted, key=lambda record: record.hold_id.int
        )
        await one.die()
        await two.die()


@pytest.mark.integration
async def test_an_edge_that_comes_back_takes_its_own_and_what_has_ended_is_gone(nats_server: NatsServer) -> None:
    async with Bus(nats_server.url, name="test") as bus:
        first = RecordsEdge(bus, "edge").start()
        for number in range(3):
            first.records.store(StoreRecord(sample(number), 60))
        await stored(bus, 3)
        first.records.forget(sample(1).hold_id)
        await stored(bus, 2)
        await first.die()
        again = RecordsEdge(bus, "edge").start()
        async with asyncio.timeout(10):
            taken = {(await again.taken.get()).hold_id for _ in range(2)}
        assert taken == {sample(0).hold_id, sample(2).hold_id}
        await again.die()


@pytest.mark.integration
async def test_an_edge_that_says_goodbye_is_not_brought_back_by_its_own_word(nats_server: NatsServer) -> None:
    async with Bus(nats_server.url, name="test") as bus:
        edge = RecordsEdge(bus, "edge").start()
        members = bus.kv(Bucket.MEMBERS)
        async for _ in members.watch():
            if await members.items():
                break
        await edge.records.say_goodbye()
        assert await members.items() == {}
        await edge.die()


async def serving(bus: Bus, count: int) -> None:
    """Returns when so many edges have said that they live."""
    members = bus.kv(Bucket.MEMBERS)
    async for _ in members.watch():
        if len(await members.items()) >= count:
            return


@pytest.mark.integration
async def test_what_an_edge_hands_over_is_taken_at_once_and_not_by_one_that_is_to_stop(nats_server: NatsServer) -> None:
    async with Bus(nats_server.url, name="test") as bus:
        leaving, stopping, stays = (RecordsEdge(bus, name).start() for name in ("leaving", "stopping", "stays"))
        await serving(bus, 3)
        await stopping.records.say_draining()
        await leaving.records.say_draining()
        wanted = {sample(number).hold_id for number in range(40)}
        kept = await leaving.records.hand_over([StoreRecord(sample(number), 60) for number in range(40)])
        assert kept == wanted
        assert leaving.records.has_successor
        assert await leaving.records.leave(kept) == set()
        assert {stays.taken.get_nowait().hold_id for _ in wanted} == wanted
        assert stopping.taken.empty()
        await leaving.records.say_goodbye()
        for edge in (leaving, stopping, stays):
            await edge.die()


@pytest.mark.integration
async def test_what_nobody_takes_is_told(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_nats, "TAKE_S", 0.5)
    async with Bus(nats_server.url, name="test") as bus:
        alone = RecordsEdge(bus, "alone").start()
        await serving(bus, 1)
        kept = await alone.records.hand_over([StoreRecord(sample(1), 60)])
        assert not alone.records.has_successor
        assert await alone.records.leave(kept) == kept
        await alone.die()


@pytest.mark.integration
async def test_an_edge_that_dies_while_it_drains_has_heirs_as_any_other(nats_server: NatsServer) -> None:
    async with Bus(nats_server.url, name="test") as bus:
        draining, stays = (RecordsEdge(bus, name).start() for name in ("draining", "stays"))
        await serving(bus, 2)
        draining.records.store(StoreRecord(sample(1), 60))
        await stored(bus, 1)
        await draining.records.say_draining()
        await draining.die()
        async with asyncio.timeout(20):
            assert (await stays.taken.get()) == sample(1)
        await stays.die()
