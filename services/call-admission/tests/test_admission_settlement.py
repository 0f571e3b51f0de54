"""Calls are settled once, whatever is reported in what order, and money is the same however many rows carry it."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio
from admission_site import SLICE_MICROS, Site, running, set_apart, settled, view_of
from sqlalchemy import select

from callwarden.call_admission.accounts.core.accounts import AccountChange, AccountFilter
from callwarden.call_admission.model.calls import Started
from callwarden.kernel.errors import Conflict
from callwarden.payment.adapters.ledger_sql import SqlLedgerStore
from callwarden.payment.core.topup import TopUp
from callwarden.schema.tables import account
from callwarden.testing.clock import FakeClock


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


@pytest.mark.parametrize("shards", [0, 4])
async def test_an_account_shows_the_same_money_however_many_rows_carry_it(site: Site, shards: int) -> None:
    account_id = await site.account(shards=shards)
    for _ in range(2):
        await settled(site, account_id, 10)
    await site.admit(account_id)
    for view in (
        await view_of(site, account_id),
        (await site.accounts.list("", 10, site.clock.unix_s(), AccountFilter()))[0],
    ):
        assert (view.balance_micros, view.held_micros) == (980_000, SLICE_MICROS)
        assert (view.spent_today_micros, view.lines_in_use) == (20_000 + SLICE_MICROS, 1)
    audit = await site.audit(account_id)
    assert (audit.balance_sum_micros, audit.held_sum_micros, audit.entries) == (980_000, SLICE_MICROS, 3)
    async with site.owner.engine.connect() as connection:
        row = (await connection.execute(select(account).where(account.c.id == account_id))).one()
    assert (row.balance_micros, row.held_micros) == ((1_000_000, 0) if shards else (980_000, SLICE_MICROS))


@pytest.mark.setting("credit")
@pytest.mark.parametrize("shards", [0, 4])
async def test_a_top_up_answers_with_the_balance_that_is_shown(site: Site, shards: int) -> None:
    account_id = await site.account(shards=shards, credit_micros=SLICE_MICROS)
    await settled(site, account_id)
    payments = SqlLedgerStore(site.owner, random.Random(1).randbytes)
    top_up = TopUp(str(account_id), SLICE_MICROS, "EUR", "invoice-1")
    for duplicate in (False, True):
        credited = await payments.credit(top_up)
        assert (credited.balance_micros, credited.duplicate) == (SLICE_MICROS, duplicate)
    assert (await view_of(site, account_id)).balance_micros == SLICE_MICROS
    await site.admit(account_id)
    await site.audit()


@pytest.mark.parametrize("shards", [0, 4])
async def test_an_account_that_owes_money_does_not_become_prepaid(site: Site, shards: int) -> None:
    account_id = await site.account(shards=shards, prepaid=False, credit_micros=SLICE_MICROS)
    hold_id = await site.admit(account_id)
    await site.admit(account_id)
    with pytest.raises(Conflict) as raised:
        await site.accounts.update(account_id, AccountChange({"prepaid": True}))
    assert raised.value.field == "prepaid"
    await site.app.ended(site.ended(hold_id, account_id, None))
    await site.accounts.update(account_id, AccountChange({"prepaid": True}))
    assert (await view_of(site, account_id)).account.prepaid


@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize("seed", range(3))
async def test_events_told_twice_late_and_in_any_order_settle_each_call_once(
    database_url: str, fake_clock: FakeClock, shards: int, seed: int
) -> None:
    chance = random.Random(seed)
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        set_apart(other)
        account_id = await one.account(shards=shards, max_lines=20)
        told = [await site.admit(account_id) for site in (one, other) for _ in range(3)]
        silent = [await one.admit(account_id) for _ in range(2)]
        answered_at_s = fake_clock.unix_s()
        await asyncio.gather(
            *(one.app.started(Started(hold_id, account_id, answered_at_s, "carrier")) for hold_id in silent)
        )
        fake_clock.advance(30)
        events: list[tuple[str, UUID]] = [(kind, hold_id) for kind in ("start", "end", "end") for hold_id in told]
        events += [("end", uuid.uuid4()), ("start", uuid.uuid4())]
        chance.shuffle(events)

        async def report(kind: str, hold_id: UUID) -> None:
            app = chance.choice((one, other)).app
            if kind == "start":
                await app.started(Started(hold_id, account_id, answered_at_s, "carrier"))
            else:
                await app.ended(one.ended(hold_id, account_id, 30))

        await asyncio.gather(*(report(*event) for event in events))
        fake_clock.advance(3_600)
        await asyncio.gather(one.app.reap_once(), other.app.reap_once())
        await asyncio.gather(*(site.app.record_once(fake_clock.unix_s()) for site in (one, other)))
        for hold_id in silent:
            await other.app.ended(one.ended(hold_id, account_id, 3_600))  # after all
        calls = await one.history.list(account_id, 0.0, 100, running=False)
        assert sorted((call.hold_id, call.state, call.price_micros) for call in calls) == sorted(
            [(str(hold_id), "settled", 30_000) for hold_id in told]
            + [(str(hold_id), "settled", SLICE_MICROS) for hold_id in silent]
        )
        audit = await one.audit()
        assert (audit.open_holds, audit.held_sum_micros) == (0, 0)
        assert audit.balance_sum_micros == 1_000_000 - 6 * 30_000 - 2 * SLICE_MICROS
        unknown = [each.app.stats.ignored.get("unknown", 0) for each in (one, other)]
        assert sum(unknown) == 2
