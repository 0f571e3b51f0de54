"""A far side that answers as it likes, in every state of a call on running edges: the call ends at both sides or is
charged, and what is charged is the talk in which a side believed.

The table is generated: each state × what the far side does from then on × which side it is × the edge by which requests
inside the call go: the one that set it up, or another one, which has no memory of it. Each row is a call of an account
of its own; all of them run at once, since they wait for timers of 32 s.
"""

import asyncio
import itertools
import math
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import pytest
import pytest_asyncio

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.kernel.errors import CallwardenError, TimedOut
from callwarden.local.system import LocalSystem
from callwarden.testing.hostile import BEHAVIOURS
from callwarden.testing.operator import OperatorClient
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.hostile_sides import Leg, Side

pytestmark = [pytest.mark.cases, pytest.mark.long, pytest.mark.timeout(900)]

T = TypeVar("T")

INSIST_S: Final = 120.0
RATE: Final = 15  # calls a second; what a row waits for is the same however many run
ASKING: Final = 6  # questions to the operator's services at a time
TALK_MAX_S: Final = 75
CREDIT_MICROS: Final = 10_000_000
CUT_S: Final = 8  # what an account with little credit can talk
MICROS_A_SECOND: Final = 1_000
TOLD_S: Final = 1.0  # after the answer, call-admission knows of it: another edge, which tells of the end, doesn't
RECORDED_S: Final = 4.5  # after the answer, other edges could go on with the call
LATE_S: Final = 5.0  # by which a busy machine lets us see a BYE late
POLICY: Final = f"""
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {{name: hostile}}
spec:
  session: {{callTimeout: {TALK_MAX_S}s, ringTimeout: 10s, callInitTimeout: 5s, probe: 25s}}
  fraud: {{dynamicList: {{enabled: false}}, smartList: {{enabled: false}}}}
  firewall: {{allow: [127.0.0.0/8]}}
"""
SIDES: Final = ("callee", "caller")
EDGES: Final = ("the same edge", "another edge")


@dataclass(frozen=True, slots=True)
class Place:
    system: LocalSystem
    operator: OperatorClient
    callers: Side
    callees: Side
    asking: asyncio.Semaphore

    async def insist(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer of administration, which works at a low priority and finds little time while all rows call."""
        since_s = 0.0
        while True:
            try:
                async with self.asking:
                    since_s = since_s or time.monotonic()
                    return await question()
            except TimedOut:
                if time.monotonic() > since_s + INSIST_S:
                    raise


class Row(NamedTuple):
    """One call: its state, by name, when the far side begins to behave like that."""

    state: str
    behaviour: str
    far: str
    edge: str


class HostileCall:
    """A row that is tried."""

    def __init__(self, place: Place, row: Row, number: int) -> None:
        self.place, self.row, self.number = place, row, number
        self.user = self.account = ""
        call_id = uuid.uuid4().hex
        self.caller, self.callee = Leg(call_id, "caller"), Leg(call_id, "callee")
        place.callers.legs[call_id], place.callees.legs[call_id] = self.caller, self.callee
        self.is_callee = row.far == "callee"
        self.far, self.near = (self.callee, self.caller) if self.is_callee else (self.caller, self.callee)
        self.behaviour = BEHAVIOURS[row.behaviour]
        is_short = row.state in (cut.__name__, cut_while_hanging_up.__name__)
        self.granted_s = CUT_S if is_short else TALK_MAX_S
        self.credit_micros = CUT_S * MICROS_A_SECOND if is_short else CREDIT_MICROS
        self.edge = place.system.sip_addresses[EDGES.index(row.edge)]

    async def open(self) -> None:
        """Its account; another one where nobody said whether the first was made."""
        names = (f"user-{self.number}-{attempt}" for attempt in itertools.count())

        async def opened() -> str:
            self.user = next(names)
            return await self.place.operator.account(self.user, lines=1, credit_micros=self.credit_micros)

        self.account = await self.place.insist(opened)

    async def place_call(self) -> None:
        await self.place.callers.place(self.caller, self.user, f"4930{self.number:07d}")

    async def connect(self, *, acknowledge: bool = True) -> None:
        calling = asyncio.ensure_future(self.place_call())
        await self.callee.invited.wait()
        self.place.callees.reply_to_invite(self.callee, BEHAVIOURS["accepts"])
        await calling
        if self.caller.failed:
            raise AssertionError(f"{self.row}: {self.caller.failed}")
        if acknowledge:
            self.acknowledge()

    def acknowledge(self) -> None:
        self.place.callers.acknowledge(self.caller, self.edge)

    def misbehave(self) -> None:
        self.far.behaviour = self.behaviour

    async def from_near(self, method: str) -> None:
        await self._ask(self.near, method)

    async def from_far(self, method: str) -> None:
        await self._ask(self.far, method)

    async def _ask(self, leg: Leg, method: str) -> None:
        side = self.place.callers if leg is self.caller else self.place.callees
        await side.ask(leg, method, self.edge)

    @property
    def is_over(self) -> bool:
        return self.caller.is_over and self.callee.is_over

    async def outcome(self) -> str:
        """How it ended. AssertionError: one side still believes in it, or the charge is wrong."""
        operator = self.place.operator
        await eventually(lambda: self.is_over, timeout_s=300, interval_s=0.5, what="each side has seen its end")

        async def account_without_hold() -> pb.Account | None:
            account = await self.place.insist(lambda: operator.get(self.account))
            return account if (account.lines_in_use, account.held_micros) == (0, 0) else None

        account = await eventually(account_without_hold, timeout_s=150, interval_s=2.0, what="its hold is gone")
        assert account is not None
        calls = await self.place.insist(lambda: operator.calls(self.account))
        records = [one for one in calls if one.call_id == self.caller.call_id]
        if not self.caller.up_s:
            assert sum(one.price_micros for one in records) == 0, records
            return f"failed, {self.caller.failed}"
        (record,) = records
        assert record.state == "settled", record
        self._check_charge(record)
        opened_with = (
            CUT_S * MICROS_A_SECOND if STATES[self.row.state] in (cut, cut_while_hanging_up) else CREDIT_MICROS
        )
        assert account.balance_micros == opened_with - record.price_micros, record
        return str(record.reason)

    def _check_charge(self, record: pb.Call) -> None:
        """Charged from the answer until the edge told the sides, or until the BYE of the one that hung up."""
        # Seconds past what was granted aren't charged: a cut comes when they have begun.
        assert record.billed_s == min(record.duration_s, self.granted_s), record
        assert record.price_micros == record.billed_s * MICROS_A_SECOND, record
        by_bye = {"caller-bye": self.caller.hung_up_s, "callee-bye": self.callee.hung_up_s}.get(record.reason)
        ended_s = by_bye or max(self.caller.told_s, self.callee.told_s)
        assert ended_s, record
        most_s = ended_s - self.callee.up_s + (LATE_S if by_bye else 0)
        least_s = ended_s - self.caller.up_s - (0 if by_bye else LATE_S)
        assert least_s <= record.duration_s <= math.ceil(most_s), f"{least_s:.1f} to {most_s:.1f} s of talk: {record}"


# How the call gets into each state. From a moment on, the far side misbehaves.


async def calling(call: HostileCall) -> None:
    """The far callee answers the INVITE as it likes; the far caller vanishes after it."""
    call.misbehave()
    if call.is_callee:
        call.callee.invite_answer = call.behaviour
        await call.place_call()
        await answered(call)
    else:
        await call.connect(acknowledge=False)


async def ringing(call: HostileCall) -> None:
    placing = asyncio.ensure_future(call.place_call())
    await asyncio.gather(call.callee.invited.wait(), call.caller.rung.wait())
    call.misbehave()
    if call.is_callee:
        call.place.callees.reply_to_invite(call.callee, call.behaviour)
        await placing
        await answered(call)
    else:
        call.place.callees.reply_to_invite(call.callee, BEHAVIOURS["accepts"])
        await placing


async def cancelling(call: HostileCall) -> None:
    """The far callee answers CANCEL, then INVITE, as it likes. The near one's 200 crosses the far caller's CANCEL."""
    placing = asyncio.ensure_future(call.place_call())
    await asyncio.gather(call.callee.invited.wait(), call.caller.rung.wait())
    call.misbehave()
    if call.is_callee:
        call.place.callers.cancel(call.caller)
        await call.callee.cancelled.wait()
        call.place.callees.reply_to_invite(call.callee, call.behaviour)
        await placing
        await answered(call)
    else:
        call.place.callees.reply_to_invite(call.callee, BEHAVIOURS["accepts"])
        call.place.callers.cancel(call.caller)
        await placing


async def answered(call: HostileCall) -> None:
    """The near caller goes on with what it got."""
    if call.caller.up_s:
        call.acknowledge()
        await asyncio.sleep(TOLD_S)
        await call.from_near("BYE")


async def unacknowledged(call: HostileCall) -> None:
    await call.connect(acknowledge=False)
    call.misbehave()


async def talking(call: HostileCall) -> None:
    await call.connect()
    call.misbehave()
    await asyncio.sleep(TOLD_S)


async def recorded(call: HostileCall) -> None:
    await talking(call)
    await asyncio.sleep(RECORDED_S)


async def near_hangs_up(call: HostileCall) -> None:
    await talking(call)
    await call.from_near("BYE")


async def near_hangs_up_recorded(call: HostileCall) -> None:
    await recorded(call)
    await call.from_near("BYE")


async def near_hangs_up_twice(call: HostileCall) -> None:
    await talking(call)
    await asyncio.gather(call.from_near("BYE"), call.from_near("BYE"))


async def far_hangs_up(call: HostileCall) -> None:
    await talking(call)
    await call.from_far("BYE")


async def both_hang_up(call: HostileCall) -> None:
    await talking(call)
    await asyncio.gather(call.from_near("BYE"), call.from_far("BYE"))


async def refreshed_by_invite(call: HostileCall) -> None:
    await talking(call)
    await call.from_near("INVITE")


async def refreshed_by_update(call: HostileCall) -> None:
    await talking(call)
    await call.from_near("UPDATE")


async def informed(call: HostileCall) -> None:
    await talking(call)
    await call.from_near("INFO")


async def cut(call: HostileCall) -> None:
    """Its credit ends."""
    await talking(call)


async def cut_while_hanging_up(call: HostileCall) -> None:
    await recorded(call)
    await call.from_near("BYE")


STATES: Final[dict[str, Callable[[HostileCall], Awaitable[None]]]] = {
    each.__name__: each
    for each in (
        calling, ringing, cancelling, unacknowledged, talking, recorded, near_hangs_up, near_hangs_up_recorded,
        near_hangs_up_twice, far_hangs_up, both_hang_up, refreshed_by_invite, refreshed_by_update, informed, cut,
        cut_while_hanging_up,
    )
}  # fmt: skip
ROWS: Final = [Row(*each) for each in product(STATES, BEHAVIOURS, SIDES, EDGES)]


@pytest_asyncio.fixture
async def place(state_dir: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(LocalSystem(state_dir, processes={"edge-proxy": 2}))
        first = system.sip_address
        callers = await stack.enter_async_context(Side(first, "127.0.6.1"))
        callees = await stack.enter_async_context(Side(first, "127.0.6.2"))
        callers.elsewhere = callees.elsewhere = await stack.enter_async_context(Phones(first, host="127.0.6.66"))
        operator = await stack.enter_async_context(OperatorClient(system))
        await operator.deck()
        await operator.carrier(callees.address)
        await operator.apply_policy(POLICY)
        yield Place(system, operator, callers, callees, asyncio.Semaphore(ASKING))


async def test_whatever_a_far_side_does_the_call_ends_at_both_sides_or_is_charged(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [HostileCall(place, row, number) for number, row in enumerate(ROWS)]
    outcomes: dict[Row, str] = {}
    faults: dict[Row, str] = {}

    await asyncio.gather(*(call.open() for call in calls))

    async def run(call: HostileCall, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            async with asyncio.timeout(600):
                await STATES[call.row.state](call)
                outcomes[call.row] = await call.outcome()
        except (AssertionError, TimeoutError, ValueError, CallwardenError) as error:
            faults[call.row] = f"{error!r} {call.caller.moments} {call.callee.moments}"

    await asyncio.gather(*(run(call, call.number / RATE) for call in calls))
    with capsys.disabled():
        sys.stdout.write(table(outcomes, faults))
    assert faults == {}
    assert set(outcomes) == set(ROWS)
    audit = await place.operator.audit()
    assert (audit.open_holds, list(audit.mismatched_accounts)) == (0, [])
    assert audit.balance_sum_micros == audit.ledger_sum_micros


def table(outcomes: dict[Row, str], faults: dict[Row, str]) -> str:
    """How many pairs there are, and by state how their calls ended."""
    pairs = f"{len(STATES)} states × {len(BEHAVIOURS)} behaviours × {len(SIDES)} sides × {len(EDGES)} edges"
    lines = [f"\n{pairs} = {len(ROWS)}: {len(outcomes)} as they should be, {len(faults)} not"]
    for state in STATES:
        ended = Counter(outcome for row, outcome in outcomes.items() if row.state == state)
        lines.append(f"  {state:24} " + ", ".join(f"{count} {why}" for why, count in sorted(ended.items())))
    lines += [f"  {' × '.join(row)}: {fault}" for row, fault in faults.items()]
    return "\n".join(lines) + "\n"


def test_the_table_leaves_no_pair_out() -> None:
    assert len(set(ROWS)) == len(STATES) * len(BEHAVIOURS) * len(SIDES) * len(EDGES) == len(ROWS)
