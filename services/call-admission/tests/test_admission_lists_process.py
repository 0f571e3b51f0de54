"""Number lists and call statistics on real processes: imported by the command, refused within a moment everywhere."""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_admission_process import Edge, running

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.admission.v1 import lists_pb2, lists_pb2_grpc
from callwarden.api.events.v1 import events_pb2
from callwarden.common.rpc.client import channel, unary
from callwarden.kernel.errors import CallwardenError
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: lists}
spec:
  fraud:
    lists: [irsf]
    dynamicList: {failures: 5}
    smartList: {minCalls: 20}
"""
CALLER = "+493055500"


async def admit(
    edge: Edge, account: str, number: str, *, process: int = 0, caller: str = CALLER, source: str = "192.0.2.7"
) -> pb.AdmitReply:
    request = pb.AdmitRequest(
        hold_id=str(uuid.uuid4()),
        call_id=str(uuid.uuid4()),
        account_id=account,
        destination=number,
        caller_number=caller,
        at_s=time.time(),
        source_address=source,
    )
    reply: pb.AdmitReply = await edge._pools[process].call(account, "Admit", request, pb.AdmitReply, timeout_s=20.0)
    if reply.HasField("admitted"):
        end(edge, reply.admitted.hold_id, account, number, caller=caller, source=source)
    return reply


def end(edge: Edge, hold_id: str, account: str, number: str, *, caller: str, source: str = "") -> None:
    """The call was not answered: nobody has that number."""
    event = events_pb2.CallEnded(
        hold_id=hold_id,
        account_id=account,
        ended_at_s=time.time(),
        reason="rejected",
        sip_status=404,
        destination=number,
        caller_number=caller,
        source_address=source,
    )
    edge._events.publish("calls.ended", event.SerializeToString(), message_id=f"{hold_id}.ended")


async def reasons(edge: Edge, account: str, number: str, *, caller: str = CALLER) -> list[str]:
    """What each process says of a call: the reason, or "" where it is admitted."""
    replies = await asyncio.gather(
        *(admit(edge, account, number, process=process, caller=caller) for process in range(len(edge._pools)))
    )
    return [f"{reply.refused.rule}:{reply.refused.reason}" if reply.HasField("refused") else "" for reply in replies]


async def refused(edge: Edge, account: str, numbers: Sequence[str]) -> None:
    async def everywhere() -> bool:
        found = [await reasons(edge, account, number) for number in numbers]
        return all(reason == "lists:destination" for of_number in found for reason in of_number)

    await eventually(everywhere, what=f"{numbers} refused by every process")


@pytest.mark.setting("blacklist-fixed")
@pytest.mark.setting("blocked-destinations")
async def test_a_list_is_imported_replaced_and_followed_by_every_process(state_dir: Path, tmp_path: Path) -> None:
    """One system for many questions, since it takes seconds to start."""
    async with running(state_dir, 2) as edge:
        await edge.operator.apply_policy(POLICY)
        account = await edge.operator.account("alice", lines=100, password=None, credit_micros=1_000_000_000)
        assert await reasons(edge, account, "4930111111") == ["", ""]
        await an_imported_list_refuses_everywhere(edge, account, tmp_path)
        await a_bad_file_changes_nothing(edge, account)
        await while_a_list_is_replaced_what_both_versions_have_stays_refused(edge, account)
        await an_import_that_is_killed_leaves_the_version_before(edge, account, tmp_path)
        await a_deleted_list_holds_no_more(edge, account)


async def an_imported_list_refuses_everywhere(edge: Edge, account: str, tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text('Country;"Test Number"\r\nGermany;+49 30 111111\r\nGermany;4931*\r\nGermany;4932?55\r\n')
    code, output = await edge.operator.command("list", "import", "irsf", str(file))
    assert (code, "3 entries imported" in output) == (0, True), output
    await refused(edge, account, ["4930111111", "493199", "4932755"])
    assert await reasons(edge, account, "493275") == ["", ""]
    reply = await admit(edge, account, "493199")
    assert (reply.refused.counter, reply.refused.window) == ("called", "irsf +4931*")
    code, output = await edge.operator.command("list", "check", "+493199")
    assert (code, "irsf" in output, "Germany" in output) == (0, True, True), output


async def a_bad_file_changes_nothing(edge: Edge, account: str) -> None:
    code, output = await edge.operator.command("list", "import", "irsf", "-", stdin="4930222222\n0301\n")
    assert code == 1
    assert "standard input:2:" in output
    assert "country code" in output
    assert await reasons(edge, account, "4930222222") == ["", ""]
    await refused(edge, account, ["4930111111"])


async def while_a_list_is_replaced_what_both_versions_have_stays_refused(edge: Edge, account: str) -> None:
    done = asyncio.Event()
    seen: set[str] = set()
    calls = 0

    async def call() -> None:
        nonlocal calls
        while not done.is_set():
            seen.update(await reasons(edge, account, "4930111111"))
            calls += 1

    calling = asyncio.create_task(call())
    for other in ("4930222222", "4930333333"):
        code, output = await edge.operator.command("list", "import", "irsf", "-", stdin=f"4930111111\n{other}\n")
        assert code == 0, output
        await refused(edge, account, [other])
    done.set()
    await calling
    assert seen == {"lists:destination"}
    assert calls > 0
    assert await reasons(edge, account, "4930222222") == ["", ""]


async def an_import_that_is_killed_leaves_the_version_before(edge: Edge, account: str, tmp_path: Path) -> None:
    content = "\n".join(f"49{number:09}" for number in range(300_000)).encode()
    parts = [lists_pb2.ImportListRequest(name="irsf", content=content[:1_000_000])]
    parts += [
        lists_pb2.ImportListRequest(content=content[start : start + 1_000_000])
        for start in range(1_000_000, len(content), 1_000_000)
    ]
    target = edge.system.targets("administration")[0]
    async with channel(target, edge.system.credentials("admin")) as opened:
        stub = lists_pb2_grpc.ListServiceStub(opened)
        before = (await unary(stub.ListLists, lists_pb2.ListListsRequest())).lists[0]
        importing = asyncio.ensure_future(unary(stub.ImportList, iter(parts), timeout_s=60))
        await entries_are_being_written(edge, before.version)
        assert not importing.done()
        await edge.system.kill("administration")
        with pytest.raises(CallwardenError):
            await importing
    await edge.system.restart("administration")
    code, output = await edge.operator.command("list", "list", "-o", "json")
    assert code == 0, output
    (now,) = json.loads(output)
    assert (int(now["version"]), now["entries"]) == (before.version, 2)

    async def up() -> bool:
        try:
            return await reasons(edge, account, "4930333333") == ["lists:destination"] * 2
        except CallwardenError:
            return False

    await eventually(up)
    assert await reasons(edge, account, "4900000001") == ["", ""]
    code, output = await edge.operator.command("list", "import", "irsf", "-", stdin="4930333333\n")
    assert code == 0, output


async def entries_are_being_written(edge: Edge, version: int) -> None:
    from sqlalchemy import func, select

    from callwarden.common.sql import Database
    from callwarden.schema.tables import number_list_entry

    async with Database(edge.system.database_url) as database:

        async def written() -> bool:
            rows = await database.transaction(
                "look",
                lambda connection: connection.scalar(select(func.count()).where(number_list_entry.c.version > version)),
            )
            return bool(rows)

        await eventually(written, timeout_s=30)


async def a_deleted_list_holds_no_more(edge: Edge, account: str) -> None:
    code, output = await edge.operator.command("list", "delete", "irsf")
    assert code == 0, output

    async def served() -> bool:
        return await reasons(edge, account, "4930333333") == ["", ""]

    await eventually(served)


@pytest.mark.setting("blacklist-dynamic")
@pytest.mark.setting("blacklist-smart")
async def test_failing_numbers_and_callers_out_of_line_are_listed_in_every_process_until_lifted(
    state_dir: Path,
) -> None:
    async with running(state_dir, 2) as edge:
        await edge.operator.apply_policy(POLICY)
        account = await edge.operator.account("alice", lines=100, password=None, credit_micros=1_000_000_000)
        for call in range(6):  # their ends go to either process
            reply = await admit(edge, account, "4930444444", process=call % 2, caller="")
            assert reply.HasField("admitted")
        await refused(edge, account, ["4930444444"])
        reply = await admit(edge, account, "4930444444")
        assert reply.refused.window == "dynamic +4930444444"
        assert reply.refused.retry_after_s > 3_000
        assert await reasons(edge, account, "4930444445", caller="") == ["", ""]
        code, output = await edge.operator.command("list", "listed", "-o", "json")
        assert (code, "4930444444" in output, "failed calls within 600 s" in output) == (0, True, True), output
        code, output = await edge.operator.command("list", "lift", "+4930444444")
        assert code == 0, output

        async def served() -> bool:
            return await reasons(edge, account, "4930444444", caller="") == ["", ""]

        await eventually(served)

        # A caller who tries number after number, none of which answers.
        for call in range(20):
            await admit(edge, account, f"49305{call:05}", process=call % 2)

        # Another number each time, or that one would be listed, too.
        others = (f"49306{number:05}" for number in itertools.count())

        async def caller_refused() -> bool:
            return await reasons(edge, account, next(others)) == ["lists:caller-listed"] * 2

        await eventually(caller_refused)
        # Others of the account, and of the realm, call on.
        assert await reasons(edge, account, "493066666", caller="+493055501") == ["", ""]
        code, output = await edge.operator.command("list", "listed", "-o", "json")
        assert (code, account in output, "0 % answered" in output) == (0, True, True), output


@pytest.mark.cases
@pytest.mark.setting("blacklist-dynamic")
async def test_one_account_can_not_have_a_number_refused_to_others_and_three_from_two_addresses_can(
    state_dir: Path,
) -> None:
    """The case F6: whoever calls a number again and again shuts himself out, and nobody else."""
    number = "4930444444"
    async with running(state_dir, 2) as edge:
        await edge.operator.apply_policy(POLICY)
        mallory, bob, carol, dave = [
            await edge.operator.account(name, lines=100, password=None, credit_micros=1_000_000_000)
            for name in ("mallory", "bob", "carol", "dave")
        ]
        for call in range(6):
            await admit(edge, mallory, number, process=call % 2, caller="")
        await refused(edge, mallory, [number])
        assert await reasons(edge, bob, number, caller="") == ["", ""]  # two failures of his own
        code, output = await edge.operator.command("list", "listed", "-o", "json")
        assert (code, {one["account_id"] for one in json.loads(output)}) == (0, {mallory})

        for account, source in ((carol, "192.0.2.7"), (dave, "2001:db8::1")):
            for process in range(2):
                await admit(edge, account, number, process=process, caller="", source=source)
        await refused(edge, bob, [number])
        await refused(edge, carol, [number])
        code, output = await edge.operator.command("list", "listed", "-o", "json")
        said = [one["evidence"] for one in json.loads(output) if not one.get("account_id")]
        assert len(said) == 1
        assert "accounts from 2 addresses" in said[0]
