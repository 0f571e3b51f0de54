"""Counters on a real PostgreSQL: resellers, realm, system and address; simulations; accounts that are sharded."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio
from admission_site import Site, numbers, policy, running

from callwarden.call_admission.accounts.core.accounts import AccountChange
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.admission.core.commands import (
    Refused,
)
from callwarden.call_admission.admission.core.decide import Admit
from callwarden.call_admission.model.scopes import ADDRESS, REALM, RESELLER, SYSTEM
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.errors import NotFound
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.testing.clock import FakeClock


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


async def counted(site: Site, account_id: UUID, kind: str) -> Usage:
    """What one of the account's owners has counted."""
    return (await site.app.snapshot_of(account_id, site.clock.unix_s())).counted[kind].usage


async def test_a_resellers_accounts_are_counted_together_by_all_processes(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        number = next(numbers)
        await one.account(type="reseller", name=f"reseller-{number}", max_lines=8)
        first = await one.account(parent=f"reseller-{number}")
        second = await one.account(parent=f"reseller-{number}")
        calls = await asyncio.gather(*(site.admit(each) for each in (first, second) for site in (one, other) * 2))
        usage = await counted(one, first, RESELLER)
        assert (usage.held_micros, usage.used("calls", fake_clock.unix_s())) == (8 * 60_000, 8)
        ninth = await one.app.admit(one.request(second))
        assert isinstance(ninth, Refused)
        assert (ninth.refuse.reason, ninth.sip_status) == (Reason.RESELLER_QUOTA, 0)
        fake_clock.advance(10)
        await asyncio.gather(*(other.app.ended(other.ended(hold_id, first, 10)) for hold_id in calls[:4]))
        usage = await counted(other, second, RESELLER)
        assert (usage.held_micros, usage.spent_micros) == (4 * 60_000, 4 * 10_000)
        assert usage.used("calls", fake_clock.unix_s()) == 4
        await one.audit()


async def test_realm_system_and_address_are_counted_where_policy_limits_them(
    database_url: str, fake_clock: FakeClock
) -> None:
    wanted = policy(
        system={"maxCalls": 50, "perRealm": {"maxCalls": 40}}, callsPerAddress={"maxCalls": 100, "period": 1}
    )
    async with running(database_url, fake_clock, policy=wanted) as site:
        account_id = await site.account()
        calls = [await site.admit(account_id) for _ in range(3)]
        request = site.request(account_id)
        _, snapshot = await site.app.simulate(request)
        unix_s = fake_clock.unix_s()
        assert {kind: snapshot.counted[kind].usage.used("calls", unix_s) for kind in (REALM, SYSTEM)} == {
            REALM: 3, SYSTEM: 3,
        }  # fmt: skip
        assert snapshot.counted[ADDRESS].usage.used("period_calls", unix_s) == 3
        await site.app.ended(site.ended(calls[0], account_id, None))
        assert (await counted(site, account_id, SYSTEM)).used("calls", unix_s) == 2
        # In the usual run of things what this process alone has counted needn't be read.
        assert site.attempts.unread > 0


async def test_a_simulation_changes_nothing(site: Site) -> None:
    account_id = await site.account(max_lines=1)
    for _ in range(3):
        decided, snapshot = await site.app.simulate(site.request(account_id))
        assert isinstance(decided.verdict, Admit)
        assert (snapshot.lines, snapshot.held_micros) == (0, 0)
    await site.admit(account_id)
    decided, snapshot = await site.app.simulate(site.request(account_id))
    assert isinstance(decided.verdict, Refuse)
    assert decided.verdict.reason is Reason.LINES
    assert (snapshot.lines, snapshot.held_micros) == (1, 60_000)
    assert (await site.audit()).open_holds == 1
    with pytest.raises(NotFound):
        await site.app.simulate(site.request(uuid.uuid4()))


async def test_calls_that_run_while_their_account_is_sharded_and_joined_again_end_to_the_micro(site: Site) -> None:
    account_id = await site.account(max_lines=10)
    calls = [await site.admit(account_id) for _ in range(4)]
    shards = SqlShards(site.database)
    assert await shards.grow(account_id, 1, 4)
    assert not await shards.grow(account_id, 1, 4), "it has been done"
    assert (await site.audit(account_id)).held_sum_micros == 4 * 60_000
    await site.app.ended(site.ended(calls[0], account_id, 10))
    view = await site.accounts.get(account_id, site.clock.unix_s())
    assert (view.balance_micros, view.held_micros) == (1_000_000 - 10_000, 3 * 60_000)
    assert await shards.grow(account_id, 4, 8)
    await site.app.ended(site.ended(calls[1], account_id, 10))
    await site.accounts.update(account_id, AccountChange({"shards": 0}))
    await site.app.ended(site.ended(calls[2], account_id, 10))
    audit = await site.audit(account_id)
    assert (audit.balance_sum_micros, audit.held_sum_micros) == (1_000_000 - 30_000, 60_000)
    await site.accounts.update(account_id, AccountChange({"shards": 3}))
    await site.app.ended(site.ended(calls[3], account_id, None))
    audit = await site.audit(account_id)
    assert (audit.balance_sum_micros, audit.held_sum_micros, audit.open_holds) == (1_000_000 - 30_000, 0, 0)
