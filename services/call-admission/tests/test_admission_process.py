"""Real processes of call-admission with rating, PostgreSQL and NATS, asked as the edge asks them."""

import asyncio
import itertools
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.admission.v1 import admission_pb2_grpc
from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.admission.core.rules import RULES
from callwarden.common import trace
from callwarden.common.bus import Bus, Publisher
from callwarden.common.pace import NICENESS
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.stream import StreamPool
from callwarden.kernel.errors import CallwardenError, Invalid, Unavailable
from callwarden.limits.rendezvous import ranking
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import FLAT_DECK, OperatorClient
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SERVICE = "callwarden.api.admission.v1.AdmissionService"
SLICE_MICROS = 60_000  # 0.06 EUR a minute, slices of 60 s
numbers = itertools.count()


class Edge:
    """What the edge does: asks over streams, one to each process, and tells over NATS."""

    def __init__(
        self, system: LocalSystem, operator: OperatorClient, pools: list[StreamPool], events: Publisher
    ) -> None:
        self.system = system
        self.operator = operator
        self._pools = pools
        self._events = events

    async def admit(self, account_id: str, *, process: int = 0, hold_id: str = "", number: str = "") -> pb.AdmitReply:
        count = next(numbers)
        request = pb.AdmitRequest(
            hold_id=hold_id or str(uuid.uuid4()),
            call_id=f"call-{count}",
            account_id=account_id,
            destination=number or f"4930{count:06d}",
            at_s=time.time(),
            edge="edge-0",
            source_address="192.0.2.7",
        )
        return await self._pools[process % len(self._pools)].call(
            account_id, "Admit", request, pb.AdmitReply, timeout_s=20.0
        )

    async def extend(self, hold_id: str, account_id: str, granted_s: int, *, process: int = 0) -> pb.ExtendReply:
        request = pb.ExtendRequest(
            hold_id=hold_id, call_id="call", account_id=account_id, answered_at_s=time.time(), granted_s=granted_s
        )
        return await self._pools[process % len(self._pools)].call(
            account_id, "Extend", request, pb.ExtendReply, timeout_s=20.0
        )

    def end(self, hold_id: str, account_id: str, talked_s: float, *, copies: int = 1) -> None:
        """The end of an answered call; each copy with a message id of its own, so that the stream takes them all."""
        event = _end(hold_id, account_id, talked_s)
        for _ in range(copies):
            self._events.publish("calls.ended", event.SerializeToString(), message_id=str(uuid.uuid4()))

    def start(self, hold_id: str, account_id: str) -> None:
        event = events_pb2.CallStarted(hold_id=hold_id, account_id=account_id, answered_at_s=time.time())
        self._events.publish("calls.started", event.SerializeToString(), message_id=str(uuid.uuid4()))

    def end_together(self, hold_ids: list[str], account_id: str, talked_s: float) -> None:
        """Starts and ends in one message, among them one that nobody can read."""
        batch = events_pb2.CallEvents()
        batch.events.add(ended=events_pb2.CallEnded(hold_id="no hold at all"))
        for hold_id in hold_ids:
            batch.events.add(started=events_pb2.CallStarted(hold_id=hold_id, account_id=account_id))
            batch.events.add(ended=_end(hold_id, account_id, talked_s))
        self._events.publish("calls.batch", batch.SerializeToString(), message_id=str(uuid.uuid4()))

    def decide(self, call_id: str, decision: pb.Decision) -> None:
        event = events_pb2.DecisionMade(call_id=call_id, decision=decision, event_id=str(uuid.uuid4()))
        self._events.publish("security.decision", event.SerializeToString(), message_id=str(uuid.uuid4()))

    async def books_close(self, balance_micros: int) -> None:
        """All calls settled, the sums right."""

        async def closed() -> bool:
            return (await self.operator.audit()).open_holds == 0

        await eventually(closed, timeout_s=40, what="all holds settled")
        audit = await self.operator.audit()
        assert list(audit.mismatched_accounts) == []
        assert audit.balance_sum_micros == audit.ledger_sum_micros == balance_micros
        assert audit.held_sum_micros == 0


def _end(hold_id: str, account_id: str, talked_s: float) -> events_pb2.CallEnded:
    unix_s = time.time()
    return events_pb2.CallEnded(
        hold_id=hold_id,
        account_id=account_id,
        answered_at_s=unix_s - talked_s,
        ended_at_s=unix_s,
        reason="caller-bye",
        trunk="carrier",
    )


@asynccontextmanager
async def running(state_dir: Path, processes: int = 1) -> AsyncIterator[Edge]:
    async with (
        LocalSystem(
            state_dir,
            services={"rating", "call-admission", "administration", "payment", "auth"},
            processes={"call-admission": processes},
        ) as system,
        OperatorClient(system) as operator,
        Bus(system.nats_url, name="edge", declare=False) as bus,
        bus.publisher() as events,
    ):
        await operator.deck()
        await operator.carrier("192.0.2.1:5060")
        credentials = system.credentials("edge-proxy")
        pools = [
            StreamPool(SERVICE, [target], ranking, credentials=credentials)
            for target in system.targets("call-admission")
        ]
        for pool in pools:
            await pool.__aenter__()
        try:
            yield Edge(system, operator, pools, events)
        finally:
            for pool in pools:
                await pool.__aexit__()


def admitted(replies: list[pb.AdmitReply]) -> list[str]:
    return [reply.admitted.hold_id for reply in replies if reply.HasField("admitted")]


def reasons(replies: list[pb.AdmitReply]) -> set[str]:
    return {reply.refused.reason for reply in replies if reply.HasField("refused")}


@pytest.mark.setting("maxlines")
@pytest.mark.setting("credit")
@pytest.mark.parametrize("processes", [1, 2, 4])
async def test_lines_and_credit_are_exact_with_any_number_of_processes(state_dir: Path, processes: int) -> None:
    """Requests for one account go to all processes at once: the worst case, which affinity at the edge avoids."""
    async with running(state_dir, processes) as edge:
        lines = await edge.operator.account("lines", lines=5, password=None, credit_micros=100_000_000)
        replies = await asyncio.gather(*(edge.admit(lines, process=index) for index in range(1000)))
        held = admitted(replies)
        assert len(held) == 5
        assert reasons(replies) == {"lines"}

        credit = await edge.operator.account("credit", lines=500, password=None, credit_micros=7 * SLICE_MICROS)
        replies = await asyncio.gather(*(edge.admit(credit, process=index) for index in range(200)))
        paid = admitted(replies)
        assert len(paid) == 7
        assert reasons(replies) == {"credit"}
        account = await edge.operator.get(credit)
        assert account.held_micros == account.balance_micros == 7 * SLICE_MICROS
        assert account.lines_in_use == 7

        # Each end is told three times, starts come after, and any process may get any of them.
        for hold_id in held:
            edge.end(hold_id, lines, 10.0, copies=3)
        for _ in range(3):
            edge.end_together(paid, credit, 60.0)
        for hold_id in paid:
            edge.start(hold_id, credit)
        await edge.books_close(100_000_000 - 5 * 10_000)
        assert (await edge.operator.get(credit)).balance_micros == 0
        calls = await edge.operator.calls()
        assert len(calls) == len({call.hold_id for call in calls}) == 12
        assert {call.state for call in calls} == {"settled"}


async def test_one_process_from_the_edges_side(state_dir: Path) -> None:
    """One system for many questions, since it takes seconds to start."""
    async with running(state_dir) as edge:
        account = await edge.operator.account("alice", lines=5, password=None, credit_micros=1_000_000)
        await a_bad_request_names_its_field(edge, account)
        await the_trace_of_a_call_is_kept(edge, account)
        await what_the_edge_refused_is_explained(edge)
        await a_new_price_holds_for_the_next_call(edge, account)
        await while_the_database_is_dead_all_is_refused_and_ends_wait(edge, account)
        await without_rating_known_prices_go_on_and_others_are_refused(edge, account)


async def a_bad_request_names_its_field(edge: Edge, account: str) -> None:
    with pytest.raises(Invalid):
        await edge.admit("nobody")
    with pytest.raises(Invalid):
        await edge.admit(account, number="+49 30")
    async with channel(edge.system.targets("call-admission")[0], edge.system.credentials("edge-proxy")) as opened:
        stub = admission_pb2_grpc.AdmissionServiceStub(opened)
        for request, field in (
            (pb.AdmitRequest(hold_id="x", account_id=account, destination="4930"), "hold_id"),
            (pb.AdmitRequest(hold_id=str(uuid.uuid4()), account_id=account, destination="+30"), "destination"),
            (
                pb.AdmitRequest(hold_id=str(uuid.uuid4()), account_id=account, destination="4930", dialled="a\0"),
                "dialled",
            ),
            (
                pb.AdmitRequest(hold_id=str(uuid.uuid4()), account_id=account, destination="4930", at_s=float("nan")),
                "at_s",
            ),
        ):
            with pytest.raises(Invalid) as raised:
                await unary(stub.Admit, request)
            assert raised.value.field == field
    with pytest.raises(Invalid) as raised:
        await edge.operator.account("a b")
    assert raised.value.field == "name"


async def the_trace_of_a_call_is_kept(edge: Edge, account: str) -> None:
    trace_id = uuid.uuid4().hex
    with trace.scope(traceparent=f"00-{trace_id}-00f067aa0ba902b7-01", call_id="c"):
        reply = await edge.admit(account)
    (call,) = await edge.operator.calls("alice", running=True)
    assert (call.hold_id, call.trace_id) == (reply.admitted.hold_id, trace_id)
    explained = await edge.operator.explain(call.call_id)
    (decision,) = explained.decisions
    assert (decision.outcome, decision.trace_id, decision.account) == ("admit", trace_id, "alice")
    assert [rule.rule for rule in decision.rules] == [rule.name for rule in RULES]
    edge.end(reply.admitted.hold_id, account, 1.0)
    await edge.books_close(999_000)


async def what_the_edge_refused_is_explained(edge: Edge) -> None:
    refused = pb.Decision(
        at_s=time.time(),
        service="edge-proxy",
        outcome="refuse",
        refused=pb.Refused(reason="foreign-domain", rule="domain"),
        source_address="192.0.2.9",
    )
    edge.decide("call-refused-by-the-edge", refused)

    async def known() -> bool:
        return bool((await edge.operator.explain("call-refused-by-the-edge")).decisions)

    await eventually(known)
    explained = await edge.operator.explain("call-refused-by-the-edge")
    assert list(explained.decisions) == [refused]
    assert (explained.call.state, explained.call.reason) == ("refused", "foreign-domain")


async def a_new_price_holds_for_the_next_call(edge: Edge, account: str) -> None:
    number = "493055555"
    first = await edge.admit(account, number=number)
    assert (await edge.operator.get(account)).held_micros == 60_000
    edge.end(first.admitted.hold_id, account, 0.0)
    await edge.operator.deck(csv=FLAT_DECK.replace("0.06", "0.30"))

    async def dearer() -> bool:
        reply = await edge.admit(account, number=number)
        held = (await edge.operator.get(account)).held_micros
        edge.end(reply.admitted.hold_id, account, 0.0)
        await edge.books_close(999_000)
        return held == 300_000

    await eventually(dearer)
    await edge.operator.deck()


async def while_the_database_is_dead_all_is_refused_and_ends_wait(edge: Edge, account: str) -> None:
    before = (await edge.operator.get(account)).balance_micros
    running_call = await edge.admit(account)
    hold_id = running_call.admitted.hold_id
    await edge.system.kill("postgres")
    outcomes = await asyncio.gather(*(edge.admit(account) for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {Unavailable}
    with pytest.raises(CallwardenError):
        await edge.extend(hold_id, account, 60)
    edge.end(hold_id, account, 10.0)
    await edge.system.restart("postgres")

    async def answers() -> bool:
        try:
            reply = await edge.admit(account)
        except Unavailable:
            return False
        edge.end(reply.admitted.hold_id, account, 0.0)
        return True

    await eventually(answers, timeout_s=20)
    # What was asked while it died may have been committed unheard; the reaper would take it. Here nothing was.
    await edge.books_close(before - 10_000)


async def without_rating_known_prices_go_on_and_others_are_refused(edge: Edge, account: str) -> None:
    known = await edge.admit(account, number="493077777")
    edge.end(known.admitted.hold_id, account, 0.0)
    await edge.system.kill("rating")
    again = await edge.admit(account, number="493066666")  # What was said of the other holds for all of its prefix.
    assert again.HasField("admitted")
    edge.end(again.admitted.hold_id, account, 0.0)
    other = await edge.admit(account, number="443088888")
    assert (other.refused.reason, other.refused.rule) == ("unavailable", "rate")
    assert other.refused.retry_after_s > 0
    await edge.system.restart("rating")


def autogroup_niceness(pid: int) -> int | None:
    """Of the process's session; None where the kernel doesn't group by session."""
    group = Path(f"/proc/{pid}/autogroup")
    return int(group.read_text().split()[-1]) if group.exists() else None


async def test_administration_lets_calls_go_first(state_dir: Path) -> None:
    async with running(state_dir) as edge:
        pid = edge.system.process("administration").child.pid
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(ours + NICENESS, 19)
        assert autogroup_niceness(pid) in (NICENESS, None)
        calls = edge.system.process("call-admission").child.pid
        assert os.getpriority(os.PRIO_PROCESS, calls) == ours
