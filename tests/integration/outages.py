"""Calls in every phase while a part of the system is away, and what each was charged. test_outages runs the table.

In: the phases, the policies by which an outage is short or long, one run of a part and a length. Out: what the runs
gave, as a page (outages_report).
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually

MARGIN_S: Final = 10  # call-admission's own (model.calls.EXPIRY_MARGIN_S)
MICROS_A_SECOND: Final = 1_000
CALLS: Final = 3  # in each cell, all at once
TALK_S: Final = 2.5
EDGE: Final = "edge-proxy"
PARTS: Final = ("nats", "postgres", "call-admission", "rating", "auth", "rate-guard", EDGE)
CUTTERS: Final = ("postgres", "call-admission")  # without which no more talk time is granted


@dataclass(frozen=True, slots=True)
class Outage:
    """How long a part is away, and the policy in force."""

    name: str
    away_s: int
    ring_s: int
    init_s: int
    slice_s: int
    grace_s: int

    @property
    def hold_s(self) -> int:
        """How long a hold lasts of whose call nothing is heard after it was admitted."""
        return self.ring_s + self.init_s + self.slice_s + self.grace_s + MARGIN_S

    @property
    def policy(self) -> str:
        return f"""
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {{name: outages}}
spec:
  spend: {{slice: {{first: {self.slice_s}s, next: {self.slice_s}s, minimum: 1s}}, grace: {self.grace_s}s}}
  session: {{ringTimeout: {self.ring_s}s, callInitTimeout: {self.init_s}s}}
"""


OUTAGES: Final = (
    Outage("10 s", 10, ring_s=20, init_s=5, slice_s=30, grace_s=3),
    Outage("60 s", 60, ring_s=20, init_s=5, slice_s=30, grace_s=3),
    Outage("longer than a hold", 26, ring_s=5, init_s=2, slice_s=5, grace_s=2),
)
assert [outage.away_s > outage.hold_s for outage in OUTAGES] == [False, False, True]

# Phases, by where the call is when the part goes away and by what becomes of it.
ASKED: Final = "asked for while it is away"
DECLINED: Final = "rings; declined while it is away"
ANSWERED: Final = "rings; answered and over while it is away"
ANSWERED_ON: Final = "rings; answered while it is away, over after"
TALKS: Final = "talks; over while it is away"
TALKS_ON: Final = "talks; over after"
ENDED: Final = "over just before"
PHASES: Final = {
    "set-up": (ASKED, DECLINED, ANSWERED, ANSWERED_ON),
    "talk": (TALKS, TALKS_ON),
    "after the end": (ENDED,),
}
ALL_PHASES: Final = tuple(phase for phases in PHASES.values() for phase in phases)


@dataclass(slots=True)
class Measured:
    """One call as its phones know it."""

    phase: str
    call: PhoneCall
    hung_up_s: float = 0.0
    """When its BYE was sent, by the loop's clock; 0: it wasn't, or the edge had cut it; NaN: nobody answered it."""
    record: pb.Call | None = None
    """None: it was never admitted, and is charged nothing."""


@dataclass(slots=True)
class Place:
    """A system with one of everything, an account, and two carriers: one that answers and one that only rings."""

    system: LocalSystem
    operator: OperatorClient
    phones: Phones
    answering: Phones
    ringing: Phones
    measured: list[Measured] = field(default_factory=list)

    async def talk(self, phase: str) -> list[Measured]:
        found = [self._call(phase, "4930123456") for _ in range(CALLS)]
        assert [await one.call.status for one in found] == [200] * CALLS
        return found

    async def ring(self, phase: str) -> list[Measured]:
        found = [self._call(phase, "4940123456") for _ in range(CALLS)]

        async def rings() -> bool:
            return all(self.ringing.rings(one.call.call_id) for one in found)

        await eventually(rings, what="the callees' phones ring")
        return found

    def ask(self, phase: str) -> list[Measured]:
        return [self._call(phase, "4930123456") for _ in range(CALLS)]

    def _call(self, phase: str, to: str) -> Measured:
        self.measured.append(Measured(phase, self.phones.call("alice", PASSWORD, DEFAULT_REALM, to)))
        return self.measured[-1]

    async def hang_up(self, measured: list[Measured]) -> None:
        await asyncio.gather(*(self._hang_up(one) for one in measured))

    async def _hang_up(self, one: Measured) -> None:
        if one.call.cut or not one.call.answered_s:
            return
        sent_s = asyncio.get_running_loop().time()
        try:
            status = await self.phones.hang_up(one.call)
        except TimeoutError:
            one.hung_up_s = math.nan
            return
        one.hung_up_s = 0.0 if one.call.cut else sent_s if status == 200 else math.nan

    def talked_s(self, one: Measured) -> tuple[float, float]:
        """At least, at most. Without a BYE of its phone the edge cut the call, no sooner than a second before that
        one's BYE came; where no BYE was answered, there is no most."""
        call = one.call
        if not call.answered_s:
            return 0.0, 0.0
        callee = self.answering if call.call_id in self.answering.answers_s else self.ringing
        if math.isnan(one.hung_up_s):
            return 0.0, math.inf
        least_s = (one.hung_up_s or call.ended_s - 1.0) - call.answered_s
        return max(least_s, 0.0), call.ended_s - callee.answers_s[call.call_id]

    async def find_records(self) -> None:
        """Waits until nothing is held any more, and gives each call its record."""

        async def is_free() -> bool:
            account = await self.operator.get("alice")
            return (account.lines_in_use, account.held_micros) == (0, 0)

        # A phone repeats its INVITE to an edge that is back: that call rings, and nobody answers it.
        await eventually(is_free, timeout_s=120, what="nothing is held any more")

        async def are_over() -> dict[str, pb.Call] | bool:
            found = {one.call_id: one for one in await self.operator.calls()}
            mine = [found[one.call.call_id] for one in self.measured if one.call.call_id in found]
            told = all(one.call.call_id in found for one in self.measured if one.call.answered_s)
            return found if told and all(one.state in ("settled", "expired") for one in mine) else False

        records = await eventually(are_over, timeout_s=120, what="the calls have records")
        assert isinstance(records, dict)
        for one in self.measured:
            one.record = records.get(one.call.call_id)
        audit = await self.operator.audit()
        assert (audit.open_holds, list(audit.mismatched_accounts)) == (0, [])
        assert audit.balance_sum_micros == audit.ledger_sum_micros


@asynccontextmanager
async def place_for(state_dir: Path, outage: Outage) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(LocalSystem(state_dir))
        answering = await stack.enter_async_context(Phones(system.sip_address))
        ringing = await stack.enter_async_context(Phones(system.sip_address, answer=False))
        phones = await stack.enter_async_context(Phones(system.sip_address))
        operator = await stack.enter_async_context(OperatorClient(system))
        await operator.deck()
        await operator.carrier(answering.address)
        await operator.carrier(ringing.address, name="ringing", prefix="4940")
        await operator.account("alice", lines=100, credit_micros=100_000_000)
        await operator.apply_policy(outage.policy)

        async def works() -> bool:
            call = phones.call("alice", PASSWORD, DEFAULT_REALM, "4940123456")  # also: the carrier's route is known

            async def is_asked() -> bool:
                return ringing.rings(call.call_id) or call.status.done()

            await eventually(is_asked, what="a call rings, or is refused")
            if ringing.rings(call.call_id):
                ringing.pick_up(call.call_id)
            return await call.status == 200 and await phones.hang_up(call) == 200

        await eventually(works, what="a call is put through")
        yield Place(system, operator, phones, answering, ringing)


async def run(place: Place, part: str, outage: Outage) -> float:
    """Calls in all phases, the outage, and what became of them: `place.measured`. When the part went, by the loop's
    clock."""
    loop = asyncio.get_running_loop()
    ended, talks, talks_on = [await place.talk(phase) for phase in (ENDED, TALKS, TALKS_ON)]
    declined, answered, answered_on = [await place.ring(phase) for phase in (DECLINED, ANSWERED, ANSWERED_ON)]
    await asyncio.sleep(TALK_S)  # they talk: that is what is charged
    await place.hang_up(ended)
    await place.system.kill(part)
    killed_s = loop.time()
    back_s = killed_s + outage.away_s
    asked = place.ask(ASKED)
    for one in declined:
        place.ringing.decline(one.call.call_id)
    for one in (*answered, *answered_on):
        place.ringing.pick_up(one.call.call_id)
    if part != EDGE:
        assert [await one.call.status for one in (*answered, *answered_on)] == [200] * 2 * CALLS
        assert [await one.call.status for one in declined] == [486] * CALLS
    await asyncio.sleep(TALK_S)
    ending = asyncio.ensure_future(place.hang_up([*talks, *answered]))  # without an edge, phones try for 32 s
    await asyncio.sleep(max(back_s - loop.time(), 0))  # an outage of that length
    await place.system.restart(part)
    # Where nobody answers, phones give up after 32 s.
    await asyncio.gather(ending, *(one.call.status for one in asked), return_exceptions=True)
    await place.hang_up([*talks_on, *answered_on, *asked])
    await place.find_records()
    return killed_s


def wrong_of(place: Place, one: Measured, part: str, outage: Outage, killed_s: float) -> str:
    """What is wrong with a call's charge; empty: nothing."""
    record = one.record
    least_s, most_s = place.talked_s(one)
    if record is None:
        return "answered and has no record" if one.call.answered_s else ""
    charge = record.price_micros + record.corrected_micros == record.billed_s * MICROS_A_SECOND
    if part == EDGE:
        # Its end was told 20 ms after the BYE at the latest, or it waits in the spool, or it died with the edge.
        # The edge asks for a slice 2 s before it begins, or a tenth of what was granted; a second for the question.
        ahead_s = max(2.0, 0.2 * outage.slice_s) + 1.0
        slices = math.ceil((killed_s - one.call.answered_s + ahead_s) / outage.slice_s) if one.call.answered_s else 0
        talk_s = 0 if math.isinf(most_s) else math.ceil(most_s)
        fits = record.billed_s <= max(talk_s, slices * outage.slice_s)
    else:
        # Past what was granted, a call goes on for the grace while nobody can grant more.
        unpaid_s = outage.grace_s + 1 if part in CUTTERS and record.duration_s > outage.slice_s else 0
        fits = (
            record.state == "settled"
            and least_s <= record.duration_s <= math.ceil(most_s)
            and record.duration_s - unpaid_s <= record.billed_s <= record.duration_s
        )
    return "" if charge and fits else f"talked {least_s:.1f} to {most_s:.1f} s, cut {one.call.cut}: {record}"
