"""Each part is away, for 10 s and for longer than a hold lasts, while calls are set up, talk, and have just ended.

Where the edge lived, what is charged is what was talked: the talk's length is known from both ends (a call lasts at
least from the 200 that the caller got to the BYE that was sent, and at most from the 200 that the callee sent to the
answer to the BYE). Where nothing could grant more talk time the edge cuts, and the grace, at most, isn't charged. Where
the edge died, what was granted is charged at most.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.cases, pytest.mark.long, pytest.mark.integration, pytest.mark.timeout(400)]

RING_S, INIT_S, SLICE_S, GRACE_S = 10, 5, 15, 3
MARGIN_S: Final = 10  # call-admission's own
POLICY: Final = f"""
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {{name: outages}}
spec:
  spend: {{slice: {{first: {SLICE_S}s, next: {SLICE_S}s, minimum: 1s}}, grace: {GRACE_S}s}}
  session: {{ringTimeout: {RING_S}s, callInitTimeout: {INIT_S}s}}
"""
LONGER_S: Final = 60  # than a hold of a call that is being set up
assert LONGER_S > RING_S + INIT_S + SLICE_S + GRACE_S + MARGIN_S
PARTS: Final = ("nats", "postgres", "call-admission", "rating", "auth", "rate-guard", "edge-proxy")
CUTTERS: Final = ("postgres", "call-admission")  # without which no more talk time is granted
MICROS_A_SECOND: Final = 1_000


@dataclass(slots=True)
class Place:
    """A system with one of everything, an account, and two carriers: one that answers and one that only rings."""

    system: LocalSystem
    operator: OperatorClient
    phones: Phones
    answering: Phones
    ringing: Phones

    async def talk(self) -> PhoneCall:
        call = self.phones.call("alice", PASSWORD, DEFAULT_REALM, "4930123456")
        assert await call.status == 200
        return call

    async def ring(self) -> PhoneCall:
        call = self.phones.call("alice", PASSWORD, DEFAULT_REALM, "4940123456")

        async def rings() -> bool:
            return self.ringing.rings(call.call_id)

        await eventually(rings, what="the callee's phone rings")
        return call

    async def record_of(self, call: PhoneCall) -> pb.Call:
        async def record() -> pb.Call | bool:
            found = [one for one in await self.operator.calls() if one.call_id == call.call_id]
            return found[0] if found and found[0].state in ("settled", "expired") else False

        found = await eventually(record, timeout_s=90, what="the call has a record")
        assert isinstance(found, pb.Call)
        return found

    def talked_s(self, call: PhoneCall, hung_up_s: float) -> tuple[float, float]:
        """At least, at most. `hung_up_s`: when the BYE was sent; 0: the edge cut the call, no sooner than a second
        before its BYE came."""
        callee = self.answering if call.call_id in self.answering.answers_s else self.ringing
        least_s = (hung_up_s or call.ended_s - 1.0) - call.answered_s
        return max(least_s, 0.0), call.ended_s - callee.answers_s[call.call_id]


@pytest_asyncio.fixture
async def place(state_dir: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(LocalSystem(state_dir))
        answering = await stack.enter_async_context(Phones(system.sip_address))
        ringing = await stack.enter_async_context(Phones(system.sip_address, answer=False))
        phones = await stack.enter_async_context(Phones(system.sip_address))
        operator = await stack.enter_async_context(OperatorClient(system))
        await operator.deck()
        await operator.carrier(answering.address)
        await operator.carrier(ringing.address, name="ringing", prefix="4940")
        await operator.account("alice", lines=20, credit_micros=100_000_000)
        await operator.apply_policy(POLICY)
        found = Place(system, operator, phones, answering, ringing)

        async def works() -> bool:
            call = await found.ring()  # also: the carrier's route is known
            ringing.pick_up(call.call_id)
            return await call.status == 200 and await phones.hang_up(call) == 200

        await eventually(works, what="a call is put through")
        yield found


async def hang_up(place: Place, call: PhoneCall) -> float:
    """When its BYE was sent, by the loop's clock; 0 if it was cut before."""
    if call.cut:
        return 0.0
    sent_s = asyncio.get_running_loop().time()
    status = await place.phones.hang_up(call)
    return 0.0 if call.cut else sent_s if status == 200 else math.nan


@pytest.mark.parametrize("away_s", [10, LONGER_S])
@pytest.mark.parametrize("part", [part for part in PARTS if part != "edge-proxy"])
async def test_talked_seconds_are_charged_whatever_is_away(place: Place, part: str, away_s: int) -> None:
    loop = asyncio.get_running_loop()
    calls: dict[str, tuple[PhoneCall, float]] = {}
    ended, talks, goes_on = await place.talk(), await place.talk(), await place.talk()
    rings, rings_on = await place.ring(), await place.ring()
    await asyncio.sleep(2.5)  # they talk: that is what is charged
    calls["ended before"] = ended, await hang_up(place, ended)
    await place.system.kill(part)
    away_until_s = loop.time() + away_s
    for call in (rings, rings_on):
        place.ringing.pick_up(call.call_id)
    assert [await call.status for call in (rings, rings_on)] == [200, 200]
    await asyncio.sleep(2.5)
    calls["ends while it is away"] = talks, await hang_up(place, talks)
    calls["is answered and ends while it is away"] = rings, await hang_up(place, rings)
    await asyncio.sleep(max(away_until_s - loop.time(), 0))  # an outage of that length
    await place.system.restart(part)
    calls["ends after"] = goes_on, await hang_up(place, goes_on)
    calls["is answered while it is away and ends after"] = rings_on, await hang_up(place, rings_on)
    wrong: dict[str, str] = {}
    for name, (call, hung_up_s) in calls.items():
        record = await place.record_of(call)
        least_s, most_s = place.talked_s(call, hung_up_s)
        # Past what was granted, a call goes on for the grace while nobody can grant more.
        unpaid_s = GRACE_S + 1 if part in CUTTERS and record.duration_s > SLICE_S else 0
        if not (
            record.state == "settled"
            and least_s <= record.duration_s <= math.ceil(most_s)
            and record.duration_s - unpaid_s <= record.billed_s <= record.duration_s
            and record.price_micros + record.corrected_micros == record.billed_s * MICROS_A_SECOND
        ):
            wrong[name] = f"talked {least_s:.1f} to {most_s:.1f} s, cut {call.cut}: {record}"
    assert wrong == {}
    await nothing_is_left(place)


@pytest.mark.parametrize("away_s", [10, LONGER_S])
async def test_a_call_whose_edge_has_died_is_charged_what_was_granted_at_most(place: Place, away_s: int) -> None:
    loop = asyncio.get_running_loop()
    ended, goes_on, rings = await place.talk(), await place.talk(), await place.ring()
    await asyncio.sleep(2.5)
    sent_s = await hang_up(place, ended)
    await place.system.kill("edge-proxy")
    killed_s = loop.time()
    await asyncio.sleep(away_s)
    await place.system.restart("edge-proxy")
    hung_up_s = await hang_up(place, goes_on)
    assert not math.isnan(hung_up_s), "its cookie says enough for any edge"
    record = await place.record_of(ended)
    least_s, most_s = place.talked_s(ended, sent_s)
    # Its end was told 20 ms after the BYE at the latest, or it waits in the spool, or it died with the edge.
    assert record.state == "expired" or least_s <= record.duration_s <= math.ceil(most_s)
    assert record.billed_s <= max(math.ceil(most_s), SLICE_S)
    record = await place.record_of(goes_on)
    granted_s = SLICE_S * math.ceil((killed_s - goes_on.answered_s + 1) / SLICE_S)
    assert 1 <= record.billed_s <= granted_s, record
    record = await place.record_of(rings)
    assert (record.billed_s, record.price_micros) == (0, 0)
    await nothing_is_left(place)


async def nothing_is_left(place: Place) -> None:
    async def is_free() -> bool:
        account = await place.operator.get("alice")
        return (account.lines_in_use, account.held_micros) == (0, 0)

    # A phone repeats its INVITE to an edge that is back: that call rings, and nobody answers it.
    await eventually(is_free, timeout_s=90, what="nothing is held any more")
    audit = await place.operator.audit()
    assert (audit.open_holds, list(audit.mismatched_accounts)) == (0, [])
    assert audit.balance_sum_micros == audit.ledger_sum_micros
