"""kill -9 of any one process in the middle of running calls loses no money, no call and no line."""

import asyncio

import pytest

from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Sites
from tests.integration.test_limits import books_are_right

CALLS = 100
SERVICES = [
    "edge-proxy",
    "auth",
    "rate-guard",
    "call-admission",
    "administration",
    "rating",
    "payment",
    "nats",
    "postgres",
]
# Slices are short so that holds, extensions and expiry all happen within the test.
POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: short-slices}
spec:
  spend: {slice: {first: 3s, next: 3s, minimum: 1s}, grace: 2s}
  session: {ringTimeout: 5s, callInitTimeout: 5s}
"""


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("service", SERVICES)
async def test_kill_9_in_the_middle_of_100_calls_changes_no_sum(site: Sites, service: str) -> None:
    async with site() as s, Phones(s.system.sip_address) as phones:
        await s.operator.apply_policy(POLICY)
        for number in range(10):
            await s.operator.account(f"user{number}", lines=20, credit_micros=10_000_000)
        calls = [
            phones.call(f"user{number % 10}", PASSWORD, DEFAULT_REALM, f"4930{number:06d}") for number in range(CALLS)
        ]
        assert await asyncio.gather(*(call.status for call in calls)) == [200] * CALLS

        await s.system.kill(service)
        # Half hang up while it is dead, half after it is back, as callers do.
        early = [asyncio.ensure_future(phones.hang_up(call)) for call in calls[: CALLS // 2]]
        await s.system.restart(service)
        late = [asyncio.ensure_future(phones.hang_up(call)) for call in calls[CALLS // 2 :]]
        # A phone may get no answer, or 481 where the edge has cut its call meanwhile: the books don't depend on it.
        await asyncio.gather(*early, *late, return_exceptions=True)

        await books_are_right(s)

        async def every_call_settled_once() -> bool:
            settled = [call for call in await s.operator.calls() if call.state in ("settled", "expired")]
            assert len(settled) == len({call.hold_id for call in settled})
            return len(settled) == CALLS

        await eventually(every_call_settled_once, timeout_s=60)
        for number in range(10):
            account = await s.operator.get(f"user{number}")
            assert (account.lines_in_use, account.held_micros) == (0, 0)

        async def the_next_call_is_admitted() -> bool:
            # 503 with Retry-After until the edge has found the restarted process again, which takes a second at most.
            call = phones.call("user0", PASSWORD, DEFAULT_REALM, "4930999999")
            if await call.status != 200:
                return False
            await phones.hang_up(call)
            return True

        await eventually(the_next_call_is_admitted)
        await books_are_right(s)
