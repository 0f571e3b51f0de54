"""What two processes tell and are told of on the way: notices of limits on NATS, trunks that change, accounts that get
shards because both call on them."""

import asyncio
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from test_admission_process import Edge, running

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.admission.core.contended import CONFLICTS_PER_S, Contended
from callwarden.call_admission.admission.core.state import AccountState, Loaded
from callwarden.call_admission.model.account import Account
from callwarden.common.bus import Bus
from callwarden.common.rpc.client import unary
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import UnixS
from callwarden.kernel.errors import CallwardenError
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PROCESSES = 2
LINES = 10


async def test_what_two_processes_tell_and_hear(state_dir: Path) -> None:
    """One system for many questions, since it takes seconds to start."""
    async with running(state_dir, PROCESSES) as edge:
        await each_level_of_a_limit_is_told_once_by_whichever_process(edge)
        await what_a_trunk_may_reach_changes_in_all_processes(edge)
        await an_account_that_both_contend_for_gets_shards_and_stays_exact(edge)


async def open_account(edge: Edge, name: str, lines: int) -> str:
    """In a zone where it is about noon, so that no day ends meanwhile."""
    ahead = 12 - time.gmtime().tm_hour
    account = pb.Account(
        name=name,
        realm="callwarden.local",
        type="enduser",
        currency="EUR",
        deck="retail",
        time_zone=f"Etc/GMT{-ahead:+d}" if ahead else "UTC",
        limits=pb.Limits(max_lines=lines),
    )
    return str((await unary(edge.operator.accounts.CreateAccount, pb.CreateAccountRequest(account=account))).id)


async def each_level_of_a_limit_is_told_once_by_whichever_process(edge: Edge) -> None:
    told: list[events_pb2.LimitNotice] = []

    async def hear(message: Msg) -> None:
        told.append(events_pb2.LimitNotice.FromString(message.data))

    async with Bus(edge.system.nats_url, name="listener", declare=False) as bus:
        await bus.subscribe("security.limit", hear)
        account = await open_account(edge, "watched", LINES)
        for turn in range(LINES):
            assert (await edge.admit(account, process=turn)).HasField("admitted")
        replies = await asyncio.gather(*(edge.admit(account, process=turn) for turn in range(20)))
        assert {reply.refused.rule for reply in replies} == {"lines"}
        # What a process tells arrives in order: after the last word of each, nothing more comes of before.
        fences = [await open_account(edge, f"fence-{process}", 0) for process in range(PROCESSES)]
        for process, fence in enumerate(fences):
            await edge.admit(fence, process=process)

        async def fenced() -> bool:
            return {notice.account_id for notice in told} >= set(fences)

        await eventually(fenced, what="the last word of each process")
    levels = Counter(
        (notice.percent or "blocked", notice.value, notice.limit, notice.window)
        for notice in told
        if notice.account_id == account and notice.rule == "lines"
    )
    assert levels == {
        (50, 5, LINES, "now"): 1,
        (80, 8, LINES, "now"): 1,
        (100, LINES, LINES, "now"): 1,
        ("blocked", LINES, LINES, "now"): 1,
    }
    blocks = [notice for notice in told if notice.blocked]
    assert {(notice.account, notice.realm) for notice in blocks} >= {("watched", "callwarden.local")}
    assert all(notice.call_id and notice.at_s for notice in told)


async def what_a_trunk_may_reach_changes_in_all_processes(edge: Edge) -> None:
    sender = await edge.operator.account("sender", kind="traffic-sender", prepaid=False, password=None)
    trunk = pb.Trunk(
        name="from-sender",
        address="192.0.2.8:5060",
        direction="traffic-sender",
        account=sender,
        enabled=True,
        only_local=True,
    )

    async def answers() -> list[str]:
        """The rule that refuses, by process; empty: admitted."""
        requests = [
            pb.AdmitRequest(
                hold_id=str(uuid.uuid4()),
                call_id="call",
                account_id=sender,
                destination="493012345",
                at_s=time.time(),
                source_address="192.0.2.8",
                trunk=trunk.name,
            )
            for _ in range(PROCESSES)
        ]
        replies = await asyncio.gather(
            *(
                pool.call(sender, "Admit", request, pb.AdmitReply, timeout_s=20.0)
                for pool, request in zip(edge._pools, requests, strict=True)
            )
        )
        return [reply.refused.rule for reply in replies]

    assert await answers() == ["only_local"] * PROCESSES, "one that nobody has heard of may reach local numbers only"
    await unary(edge.operator.accounts.CreateTrunk, trunk)
    assert await answers() == ["only_local"] * PROCESSES
    for change, rule in (
        (pb.UpdateTrunkRequest(name=trunk.name, only_local=False), ""),
        (pb.UpdateTrunkRequest(name=trunk.name, add_allow_prefixes=["44"]), "destinations"),
    ):
        await unary(edge.operator.accounts.UpdateTrunk, change)

        async def heard(rule: str = rule) -> bool:
            return await answers() == [rule] * PROCESSES

        await eventually(heard, what=f"{change}")


async def an_account_that_both_contend_for_gets_shards_and_stays_exact(edge: Edge) -> None:
    account = await open_account(edge, "busy", LINES)
    admitted: list[str] = []
    is_over = False

    async def call(process: int) -> None:
        """One call after another, so that both processes write to the account all the time."""
        while not is_over:
            try:
                reply = await edge.admit(account, process=process)
            except CallwardenError:
                continue  # met too many conflicts
            if reply.HasField("admitted"):
                admitted.append(reply.admitted.hold_id)
                edge.end(reply.admitted.hold_id, account, 0.0)

    async def grown() -> bool:
        return (await edge.operator.get(account)).shards > 1

    callers = [asyncio.create_task(call(number % PROCESSES)) for number in range(2 * PROCESSES)]
    try:
        await eventually(grown, timeout_s=60, what="shards")
    finally:
        is_over = True
        await asyncio.gather(*callers)

    async def all_lines_are_free() -> bool:
        return not (await edge.operator.get(account)).lines_in_use

    await eventually(all_lines_are_free, timeout_s=40, what="ends")
    replies = await asyncio.gather(*(edge.admit(account, process=turn) for turn in range(60)))
    assert sum(reply.HasField("admitted") for reply in replies) == LINES
    audit = await edge.operator.audit(account)
    assert list(audit.mismatched_accounts) == []
    assert (audit.open_holds, audit.held_sum_micros) == (LINES, audit.hold_rows_sum_micros)


def standing(version: int, shards: int = 0) -> Loaded:
    account = Account(
        "busy", "r", AccountType.ENDUSER, True, "EUR", "UTC", True, "", shards=shards,
        id=uuid.UUID(int=1), balance_micros=0, held_micros=0, overdraft_micros=0,
    )  # fmt: skip
    return Loaded({account.id: AccountState.of(account, version)}, {})


@pytest.mark.parametrize(("conflicts", "is_hot"), [(CONFLICTS_PER_S - 1, False), (CONFLICTS_PER_S, True)])
def test_an_account_is_hot_after_so_many_conflicts_within_a_second(conflicts: int, is_hot: bool) -> None:
    contended, key = Contended(), uuid.UUID(int=1)
    for number in range(conflicts):
        contended.compare({key: number}, standing(number + 1), UnixS(100.0 + number / 100))
    contended.compare({key: 7}, standing(7), UnixS(100.9))  # it hasn't moved: something else was in the way
    assert contended.take() == ({key: 1} if is_hot else {})
    assert contended.take() == {}


def test_conflicts_of_different_seconds_do_not_add_up() -> None:
    contended, key = Contended(), uuid.UUID(int=1)
    for number in range(3 * CONFLICTS_PER_S):
        contended.compare({key: number}, standing(number + 1), UnixS(100.0 + number / (CONFLICTS_PER_S - 5)))
    assert contended.take() == {}
