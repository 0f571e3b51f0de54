"""Cases of single messages on two running edges: what devices send, and what is tried, each with its right outcome.

The rows of a table are tried at once, at one edge and the other in turn.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence

import pytest
import pytest_asyncio

from callwarden.testing.operator import DEFAULT_REALM
from tests.integration.odd_messages import (
    DIALLED,
    DIGESTS,
    ODD_INVITES,
    OWN,
    REGISTRATIONS,
    Dialled,
    Edit,
    Registration,
)
from tests.integration.two_edges import TwoEdges, two_edges
from tests.integration.wire import ANSWER_S, WireCall, credentials, message, reply, token

pytestmark = [pytest.mark.cases, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

# Everything comes from few addresses here, and much of it is what gets an address shut out.
POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: cases}
spec:
  lines: {max: 200}
  fraud: {dynamicList: {enabled: false}, smartList: {enabled: false}}
  firewall: {allow: [127.0.0.0/8]}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wires() -> AsyncIterator[TwoEdges]:
    async with two_edges("127.0.8.1", "127.0.8.2", POLICY) as running:
        await running.operator.account("alice", lines=200, credit_micros=100_000_000, numbers=(OWN,))
        await running.operator.account("bob", numbers=("+4930110",))
        yield running


async def all_at_once(rows: Sequence[tuple[str, Coroutine[None, None, str]]]) -> None:
    """Each row's coroutine says what is wrong; empty: nothing."""
    wrong = dict(zip([name for name, _ in rows], await asyncio.gather(*(row for _, row in rows)), strict=True))
    assert {name: fault for name, fault in wrong.items() if fault} == {}


async def nothing_is_held(wires: TwoEdges) -> None:
    account = await wires.operator.get("alice")
    assert account.balance_micros == 100_000_000


async def through_and_back(wires: TwoEdges, number: int, name: str, edit: Edit) -> str:
    call = WireCall(wires.caller, wires.edge(number), f"odd-{number}", "alice")
    invite = await call.start(edit)
    wires.caller.send(invite, call.edge)
    came = await wires.carrier.maybe(lambda got: got.method == "INVITE" and got.get("x-case") == call.case, ANSWER_S)
    if came is None:
        answers = [got.start for got in wires.caller.got if call.is_answer(got)]
        return f"did not reach the carrier: {answers}"
    if name == "two hops on one line" and "z9hG4bKinner" not in came.text:
        return "the inner hop is lost"
    wires.carrier.send(reply(came, 486, "zz"), came.source)
    busy = await wires.caller.maybe(
        lambda got: got.status == 486 and got.get("cseq").startswith("2 ") and call.branch in got.text, 20
    )
    if busy is None:
        return "its answer did not come back"
    call.acknowledge_failure(busy)
    return ""


async def test_odd_invites_reach_the_carrier_and_its_answer_the_caller(wires: TwoEdges) -> None:
    """p01"""
    rows = enumerate(ODD_INVITES.items())
    await all_at_once([(name, through_and_back(wires, number, name, edit)) for number, (name, edit) in rows])
    await nothing_is_held(wires)


async def dialled(wires: TwoEdges, number: int, row: Dialled) -> str:
    edge = wires.edge(number)
    odd = dict(row.call)
    if "more" in odd:
        odd["more"] = [each.replace("EDGE", edge) for each in odd["more"]]
    call = WireCall(wires.caller, edge, f"dialled-{number}", "alice", uri=row.uri.replace("EDGE", edge), **odd)
    first = await wires.caller.ask(call.invite(), edge, call.is_answer)
    if first.status == 407:
        call.acknowledge_failure(first)
        call.cseq += 1
        invite = call.invite([f"Proxy-Authorization: {credentials(first, 'alice', 'INVITE', call.uri)}"])
        if not row.number:
            first = await wires.caller.ask(invite, edge, call.is_answer)
        else:
            wires.caller.send(invite, edge)
            came = await wires.carrier.maybe(
                lambda got: got.method == "INVITE" and got.get("x-case") == call.case, ANSWER_S
            )
            if came is None:
                return f"refused: {[got.start for got in wires.caller.got if call.is_answer(got)]}"
            wires.carrier.send(reply(came, 486, "zz"), came.source)
            first = await wires.caller.until(call.is_answer, f"the answer to {row.name}")
            asked_for = came.start.split()[1]
            if not asked_for.startswith(f"sip:{row.number}@"):
                return f"went out as {asked_for}"
    call.acknowledge_failure(first)
    if row.number:
        return "" if first.status == 486 else first.start
    return "" if first.status == row.refused or (not row.refused and 400 <= first.status < 500) else first.start


async def test_a_number_is_called_however_it_is_written_and_nothing_else_is(wires: TwoEdges) -> None:
    """n01, and the strings of F6"""
    await all_at_once([(row.name, dialled(wires, number, row)) for number, row in enumerate(DIALLED)])
    refused = {f"dialled-{number}" for number, row in enumerate(DIALLED) if not row.number}
    assert not [got.start for got in wires.carrier.got if got.get("x-case") in refused]
    await nothing_is_held(wires)


async def registered(wires: TwoEdges, edge: str, user: str, row: Registration) -> str:
    uri, call_id = f"sip:{DEFAULT_REALM}", token()
    branch = ""

    def register(cseq: int, more: Sequence[str] = ()) -> str:
        nonlocal branch
        branch = token()
        lines = [
            f"Via: SIP/2.0/UDP {wires.caller.address};rport;branch=z9hG4bK{branch}",
            "Max-Forwards: 70",
            f"From: <sip:{user}@{DEFAULT_REALM}>;tag=1",
            f"To: <sip:{user}@{DEFAULT_REALM}>",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} REGISTER",
            f"Contact: <sip:{user}@{wires.caller.address}>",
            "Expires: 600",
        ]
        return message(f"REGISTER {uri} SIP/2.0", [*lines, *more])

    challenged = await wires.caller.ask(register(1), edge, lambda got: branch in got.text)
    value = row.digest(credentials(challenged, user, "REGISTER", uri, row.algorithm))
    answer = await wires.caller.ask(
        row.edit(register(2, [f"Authorization: {value}"])), edge, lambda got: branch in got.text
    )
    return "" if answer.status in row.statuses and row.check(answer) else answer.text


@pytest.mark.parametrize("rows", [REGISTRATIONS, DIGESTS], ids=["r01", "d01"])
async def test_a_phone_registers_however_it_writes_it_and_with_right_credentials_only(
    wires: TwoEdges, rows: list[Registration]
) -> None:
    """r01; d01, and the user names of F6"""
    prefix = "r" if rows is REGISTRATIONS else "d"
    for number, _ in enumerate(rows):
        await wires.operator.account(f"{prefix}{number}")
    await all_at_once(
        [(row.name, registered(wires, wires.edge(number), f"{prefix}{number}", row)) for number, row in enumerate(rows)]
    )
