"""Limits are exact under any concurrency and with any number of call-admission processes, seen from the phone."""

import asyncio
from collections import Counter

import pytest

from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Site, Sites

FIRST_SLICE_MICROS = 60_000  # 0.06 EUR a minute, slices of 60 s.


async def statuses(calls: list[PhoneCall]) -> Counter[int]:
    return Counter(await asyncio.gather(*(call.status for call in calls)))


async def hang_up_all(phones: Phones, calls: list[PhoneCall]) -> None:
    await asyncio.gather(*(phones.hang_up(call) for call in calls if call.status.result() == 200))


async def books_are_right(site: Site) -> None:
    """All holds settled, and the ledger's sum is the balances'."""

    async def closed() -> bool:
        return (await site.operator.audit()).open_holds == 0

    await eventually(closed, timeout_s=30, what="all holds settled")
    audit = await site.operator.audit()
    assert list(audit.mismatched_accounts) == []
    assert audit.balance_sum_micros == audit.ledger_sum_micros
    assert audit.held_sum_micros == audit.hold_rows_sum_micros == 0


@pytest.mark.setting("maxlines")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("processes", [1, 2, 4])
async def test_of_1000_invites_at_once_on_a_five_line_account_exactly_five_are_admitted(
    site: Sites, processes: int
) -> None:
    async with site(processes={"call-admission": processes}) as s, Phones(s.system.sip_address) as phones:
        await s.operator.account("alice", lines=5, credit_micros=1_000_000_000)
        calls = [phones.call("alice", PASSWORD, DEFAULT_REALM, f"4930{number:06d}") for number in range(1000)]
        counts = await statuses(calls)
        assert counts == {200: 5, 486: 995}
        assert len(await s.operator.calls("alice", running=True)) == 5
        await hang_up_all(phones, calls)
        await books_are_right(s)


@pytest.mark.setting("credit")
@pytest.mark.timeout(120)
async def test_credit_for_seven_first_slices_admits_seven_of_200_calls_at_once(site: Sites) -> None:
    async with site(processes={"call-admission": 2}) as s, Phones(s.system.sip_address) as phones:
        account = await s.operator.account("alice", lines=500, credit_micros=7 * FIRST_SLICE_MICROS)
        calls = [phones.call("alice", PASSWORD, DEFAULT_REALM, f"4930{number:06d}") for number in range(200)]
        counts = await statuses(calls)
        assert counts == {200: 7, 403: 193}
        now = await s.operator.get(account)
        assert now.held_micros == now.balance_micros == 7 * FIRST_SLICE_MICROS
        await hang_up_all(phones, calls)
        await books_are_right(s)
        assert (await s.operator.get(account)).balance_micros >= 0
