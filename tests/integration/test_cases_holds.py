"""Cases: a call that was asked about again, wherever and whatever became of the first question, has one hold and one
charge."""

import asyncio
import contextlib
import time

import pytest

from callwarden.api.admission.v1 import admission_pb2
from callwarden.kernel.errors import Conflict
from callwarden.testing.edges import Edges, TrackedCall
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Sites

pytestmark = pytest.mark.cases

CREDIT_MICROS = 10_000_000


async def test_a_call_whose_invite_comes_to_two_edges_at_once_has_one_hold_and_one_charge(site: Sites) -> None:
    async with site(processes={"edge-proxy": 2, "call-admission": 2}) as s:
        one, other = s.system.sip_addresses
        await s.operator.account("alice", credit_micros=CREDIT_MICROS)
        async with Phones(one, doubled=(other,)) as phones, Phones(other, doubled=(one,)) as others:
            calls = [
                (each, each.call("alice", PASSWORD, DEFAULT_REALM, f"4930123450{number}"))
                for number in range(2)  # an account has five lines
                for each in (phones, others)
            ]
            assert [await call.status for _, call in calls] == [200] * len(calls)
            assert s.carrier.incoming == len(calls)
            alice = await s.operator.get("alice")
            assert alice.lines_in_use == len(calls)
            assert [await each.hang_up(call) for each, call in calls] == [200] * len(calls)

        async def is_settled() -> bool:
            return (await s.operator.get("alice")).lines_in_use == 0

        await eventually(is_settled, timeout_s=30, what="all calls are settled")
        records = await s.operator.calls("alice")
        assert sorted(record.call_id for record in records) == sorted(call.call_id for _, call in calls)
        alice = await s.operator.get("alice")
        assert alice.held_micros == 0
        assert alice.balance_micros == CREDIT_MICROS - sum(record.price_micros for record in records)


async def test_a_call_whose_end_is_told_before_its_hold_is_placed_holds_nothing(site: Sites) -> None:
    async with site(processes={"call-admission": 2}) as s, Edges(s.system) as edges:
        await edges.connected()
        account = await s.operator.account("alice", credit_micros=CREDIT_MICROS)
        late = TrackedCall(account)
        edges.ended(late, "refused-unavailable")
        await edges.flush()
        await eventually(edges.consumed, timeout_s=30, what="its end has been heard")
        for process in (0, 1, 0):
            with pytest.raises(Conflict):
                await edges.admit(late, process)
        alice = await s.operator.get("alice")
        assert (alice.lines_in_use, alice.held_micros, alice.balance_micros) == (0, 0, CREDIT_MICROS)
        assert not await s.operator.calls("alice")
        # Whichever comes first: nothing stays.
        calls = [TrackedCall(account) for _ in range(20)]
        for number, call in enumerate(calls):
            asking = asyncio.ensure_future(edges.admit(call, number))
            edges.ended(call, "refused-unavailable")
            await edges.flush()
            with contextlib.suppress(Conflict):
                await asking

        async def is_settled() -> bool:
            return await edges.consumed() and (await s.operator.get("alice")).lines_in_use == 0

        await eventually(is_settled, timeout_s=30, what="no call holds a line")
        assert (await s.operator.get("alice")).held_micros == 0


async def test_a_call_that_was_retried_has_one_hold_and_one_charge(site: Sites) -> None:
    async with (
        site(processes={"call-admission": 2}) as s,
        Edges(s.system) as edges,
    ):
        await edges.connected()
        account = await s.operator.account("alice", credit_micros=CREDIT_MICROS)

        async def alice() -> admission_pb2.Account:
            return await s.operator.get("alice")

        # Asked of both processes at once, and once more of each.
        at_both = TrackedCall(account)
        replies = [
            reply for _ in range(2) for reply in await asyncio.gather(*(edges.admit(at_both, n) for n in (0, 1)))
        ]
        assert all(reply.HasField("admitted") for reply in replies)
        # To the microsecond, which is what the database keeps.
        granted = {
            (reply.admitted.hold_id, reply.admitted.granted_s, round(reply.admitted.expires_at_s, 6))
            for reply in replies
        }
        assert len(granted) == 1
        one = await alice()
        assert one.lines_in_use == 1
        assert one.held_micros > 0

        # The process that was asked dies with the question: the other one is asked.
        after_death = TrackedCall(account)
        asking = asyncio.ensure_future(edges.admit(after_death, 0))
        await s.system.kill("call-admission")
        assert (await asking).HasField("admitted")
        assert (await edges.admit(after_death, 1)).HasField("admitted")
        two = await alice()
        assert (two.lines_in_use, two.held_micros) == (2, 2 * one.held_micros)

        # Told twice, each of them is charged once: 30 s at 0.06 a minute.
        for call in (at_both, after_death):
            call.ended_at_s = time.time()
            call.answered_at_s = call.ended_at_s - 30
            for told in ("first", "second"):
                edges.started(call, message_id=f"{call.hold_id} started {told}")
                edges.ended(call, message_id=f"{call.hold_id} ended {told}")
        await edges.flush()

        async def is_settled() -> bool:
            return (await alice()).lines_in_use == 0 and await edges.consumed()

        await eventually(is_settled, timeout_s=30, what="both calls are settled")
        assert (await alice()).held_micros == 0
        records = await s.operator.calls("alice")
        assert sorted(record.hold_id for record in records) == sorted([at_both.hold_id, after_death.hold_id])
        charged = sum(record.price_micros for record in records)
        assert charged > 0
        assert (await alice()).balance_micros == CREDIT_MICROS - charged
        audit = await s.operator.audit()
        assert audit.balance_sum_micros == audit.ledger_sum_micros
