"""Corrections: reversing entries, what they move, and what they must not take."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from admission_site import SLICE_MICROS, Site, contents, policy, rows_of, running, set_apart, settled, view_of
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from callwarden.call_admission.admission.core.commands import Admitted, Refused
from callwarden.call_admission.model.scopes import ADDRESS, RESELLER
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.usage_shards import correct
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.call_admission.records.core.corrections import AccountFunds, Corrected, LedgerLine, Reversal, reversal
from callwarden.call_admission.records.core.records import LedgerEntry
from callwarden.kernel.errors import CallwardenError, Conflict, Invalid, NotFound, Unavailable
from callwarden.schema.tables import ledger_entry
from callwarden.testing.clock import FakeClock


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


@pytest.mark.parametrize("shards", [0, 4])
async def test_a_correction_is_booked_beside_the_charge_and_moves_balance_day_and_record(
    site: Site, shards: int
) -> None:
    account_id = await site.account(shards=shards)
    records = SqlRecords(site.database)
    hold_id = await settled(site, account_id, 50)
    for price_micros, amount_micros, key in ((20_000, 30_000, "a"), (0, 20_000, "b"), (40_000, -40_000, "c")):
        done = await records.correct_call(hold_id, price_micros, "bad line", key)
        balance_micros = 1_000_000 - price_micros
        assert (done.amount_micros, done.balance_micros, done.duplicate) == (amount_micros, balance_micros, False)
        view = await view_of(site, account_id)
        assert (view.balance_micros, view.spent_today_micros) == (balance_micros, price_micros)
        snapshot = await site.app.snapshot_of(account_id, site.clock.unix_s())
        assert snapshot.spent_micros == price_micros
        ((record,),) = [page async for page in records.export(account_id, 0.0, site.clock.unix_s() + 1)]
        assert (record.price_micros, record.corrected_micros) == (50_000, price_micros - 50_000)
        (shown,) = await site.history.list(account_id, 0.0, 10, running=False)
        assert (shown.price_micros, shown.corrected_micros) == (50_000, price_micros - 50_000)
        explained = (await site.history.explain(record.call_id)).call
        assert explained is not None
        assert explained.corrected_micros == price_micros - 50_000
        await site.audit()
    async with site.owner.engine.connect() as connection:
        entries = (await connection.execute(select(ledger_entry).where(ledger_entry.c.id == hold_id))).all()
    assert [entry.amount_micros for entry in entries] == [-50_000], "what was booked stays"
    assert await rows_of(site, ledger_entry) == 5


@pytest.mark.parametrize("shards", [0, 4])
async def test_a_correction_counts_with_the_reseller_and_the_address_too(
    database_url: str, fake_clock: FakeClock, shards: int
) -> None:
    counted = policy(callsPerAddress={"maxCost": 10})
    async with running(database_url, fake_clock, policy=counted) as site:
        shop = await site.account(type="reseller", prepaid=True, credit_micros=10 * SLICE_MICROS, shards=shards)
        account_id = await site.account(parent=str(shop))
        first, second = [await settled(site, account_id, 50) for _ in range(2)]

        async def counts() -> tuple[int, int, int, int]:
            snapshot = await site.app.snapshot_of(account_id, site.clock.unix_s())
            if RESELLER not in snapshot.counted or ADDRESS not in snapshot.counted:
                _, snapshot = await site.app.simulate(site.request(account_id))
            resellers, address = snapshot.counted[RESELLER].usage, snapshot.counted[ADDRESS].usage
            span = resellers.day(snapshot.day.toordinal())
            month = resellers.month(snapshot.day.year * 12 + snapshot.day.month - 1)
            cost = address.used("period_cost", site.clock.unix_s())
            return span.spent_micros, month.spent_micros, resellers.spent_micros, cost

        assert await counts() == (100_000,) * 4
        records = SqlRecords(site.database)
        await records.correct_call(first, 20_000, "bad line", "a")
        assert await counts() == (70_000,) * 4
        await records.correct_call(first, 20_000, "bad line", "a")
        assert await counts() == (70_000,) * 4, "once for each key"
        await records.reverse_entry(second, "never", "b")
        assert await counts() == (20_000,) * 4
        await records.correct_call(first, 90_000, "more", "c")
        assert await counts() == (90_000,) * 4
        site.clock.advance(2 * 86_400)
        await records.correct_call(first, 0, "none", "d")
        assert (await counts())[2:] == (0, 0)
        await site.audit()


async def test_the_ledger_is_listed_page_by_page_the_newest_first_and_of_one_account(site: Site) -> None:
    account_id, other = await site.account(), await site.account()
    records = SqlRecords(site.database)
    calls = [await settled(site, account_id, 10) for _ in range(5)]
    await settled(site, other, 10)
    await records.correct_call(calls[0], 4_000, "bad line", "k")
    found: list[LedgerEntry] = []
    place = None
    while True:
        page = await records.ledger(account_id, 0.0, place, 2)
        assert len(page.entries) <= 2
        found += page.entries
        place = page.next
        if place is None:
            break
    assert len(found) == len({entry.id for entry in found}) == 7
    assert [entry.at_s for entry in found] == sorted((entry.at_s for entry in found), reverse=True)
    by_kind = {kind: [entry for entry in found if entry.kind == kind] for kind in ("top-up", "call", "reversal")}
    assert [entry.amount_micros for entry in by_kind["top-up"]] == [1_000_000]
    assert {entry.reference for entry in by_kind["call"]} == {str(hold_id) for hold_id in calls}
    (correction,) = by_kind["reversal"]
    assert (correction.reference, correction.amount_micros, correction.note, correction.currency) == (
        str(calls[0]), 6_000, "bad line", "EUR"
    )  # fmt: skip
    assert (await records.ledger(account_id, found[0].at_s + 1, None, 2)).entries == ()


async def test_a_dearer_call_takes_of_its_resellers_credit_in_whatever_shard(site: Site) -> None:
    shop = await site.account(type="reseller", prepaid=True, credit_micros=4 * SLICE_MICROS, shards=4)
    account_id = await site.account(parent=str(shop), max_lines=100)
    hold_id = await settled(site, account_id, 60)
    await site.admit(account_id)
    await SqlRecords(site.database).correct_call(hold_id, 2 * SLICE_MICROS, "more", "k")
    await site.admit(account_id)
    refused = await site.app.admit(site.request(account_id))
    assert isinstance(refused, Refused)
    assert (refused.refuse.rule, refused.refuse.value) == ("reseller_spend", 4 * SLICE_MICROS)


@pytest.mark.parametrize("shards", [0, 4])
async def test_a_correction_takes_no_money_that_running_calls_hold_in_whatever_shard(
    database_url: str, fake_clock: FakeClock, shards: int
) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        set_apart(other)
        account_id = await one.account(shards=shards, credit_micros=4 * SLICE_MICROS, max_lines=100)
        records = SqlRecords(one.database)
        hold_id = await settled(one, account_id)
        await one.admit(account_id)
        await other.admit(account_id)
        before = await contents(one)
        with pytest.raises(Conflict, match=r"0\.06 EUR"):
            await records.correct_call(hold_id, 2 * SLICE_MICROS + 1, "more", "k")
        assert await contents(one) == before
        await records.correct_call(hold_id, 2 * SLICE_MICROS, "more", "k")
        for site in (one, other):
            outcome = await site.app.admit(site.request(account_id))
            assert not isinstance(outcome, Admitted), "what shards were granted of the credit before is void"
        await records.correct_call(hold_id, SLICE_MICROS, "less", "l")
        assert isinstance(await other.app.admit(other.request(account_id)), Admitted)
        assert not isinstance(await one.app.admit(one.request(account_id)), Admitted)
        await one.audit()


@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize("seed", range(3))
async def test_a_correction_that_races_with_admissions_never_overdraws(
    database_url: str, fake_clock: FakeClock, shards: int, seed: int
) -> None:
    chance = random.Random(seed)
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        set_apart(other)
        account_id = await one.account(shards=shards, credit_micros=12 * SLICE_MICROS, max_lines=100)
        records = SqlRecords(one.database)
        hold_id = await settled(one, account_id, 0)

        async def take() -> int:
            await asyncio.sleep(chance.random() / 50)
            try:
                return -(await records.correct_call(hold_id, 5 * SLICE_MICROS, "taken", "k")).amount_micros
            except Conflict:
                return 0

        async def admit(site: Site) -> int:
            await asyncio.sleep(chance.random() / 50)
            request = site.request(account_id)
            while True:
                try:
                    return isinstance(await site.app.admit(request), Admitted)
                except Unavailable:  # Others came between too often: asked again with the same id, as an edge may.
                    await asyncio.sleep(0.01)

        outcomes = await asyncio.gather(take(), *(admit(site) for site in (one, other) for _ in range(12)))
        taken, admitted = outcomes[0], sum(outcomes[1:])
        assert taken in (0, 5 * SLICE_MICROS)
        assert taken + admitted * SLICE_MICROS <= 12 * SLICE_MICROS
        # Who came while room was only in other processes' shards has got it, so none is left over.
        assert admitted == (12 if not taken else 7)
        view = await view_of(one, account_id)
        assert (view.balance_micros, view.held_micros) == (12 * SLICE_MICROS - taken, admitted * SLICE_MICROS)
        await one.audit()


@pytest.mark.parametrize("shards", [0, 4])
async def test_a_key_does_one_thing_once_whoever_asks_at_the_same_moment(site: Site, shards: int) -> None:
    account_id = await site.account(shards=shards)
    first, second = [await settled(site, account_id) for _ in range(2)]
    records = SqlRecords(site.database)
    done = await asyncio.gather(*(records.correct_call(first, 10_000, "x", "key") for _ in range(6)))
    assert sorted(each.duplicate for each in done) == [False] + 5 * [True]
    assert {(each.amount_micros, each.entry_id) for each in done} == {(50_000, done[0].entry_id)}
    for wrong in (
        records.correct_call(first, 20_000, "x", "key"),
        records.correct_call(second, 10_000, "x", "key"),
        records.reverse_entry(second, "x", "key"),
    ):
        with pytest.raises(Conflict) as raised:
            await wrong
        assert raised.value.field == "key"
    await records.correct_call(first, 30_000, "y", "later")
    again = await records.correct_call(first, 10_000, "x", "key")
    assert again.duplicate, "what it did then stands, and what came later, too"
    assert (await view_of(site, account_id)).balance_micros == 1_000_000 - 30_000 - SLICE_MICROS
    await site.audit()


async def test_what_can_not_be_corrected_is_said_and_changes_nothing(site: Site) -> None:
    account_id = await site.account()
    running_call = await site.admit(account_id)
    free = await settled(site, account_id, 0)
    records = SqlRecords(site.database)
    reversed_ = await records.correct_call(free, 1, "x", "key")
    before = await contents(site)
    cases: Sequence[tuple[Any, type[CallwardenError], str]] = (
        (records.correct_call(running_call, 0, "x", "k"), Conflict, "hold_id"),
        (records.correct_call(uuid.uuid4(), 0, "x", "k"), NotFound, "hold_id"),
        (records.reverse_entry(uuid.uuid4(), "x", "k"), NotFound, "entry_id"),
        (records.reverse_entry(reversed_.entry_id, "x", "k"), Invalid, "entry_id"),
    )
    for wrong, error, field in cases:
        with pytest.raises(error) as raised:
            await wrong
        assert raised.value.field == field
    assert await contents(site) == before


async def test_a_top_up_is_taken_back_as_far_as_it_is_there(site: Site) -> None:
    account_id = await site.account(credit_micros=2 * SLICE_MICROS, shards=3)
    async with site.owner.engine.connect() as connection:
        entry_id = (await connection.execute(select(ledger_entry.c.id))).scalar_one()
    records = SqlRecords(site.database)
    hold_id = await site.admit(account_id)
    with pytest.raises(Conflict):
        await records.reverse_entry(entry_id, "bounced", "k")
    await site.app.ended(site.ended(hold_id, account_id, None))
    assert (await records.reverse_entry(entry_id, "bounced", "k")).balance_micros == 0
    assert not isinstance(await site.app.admit(site.request(account_id)), Admitted)
    await site.audit()


@given(
    charged=st.integers(0, 10**6),
    prices=st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("abcdef")), max_size=12),
)
def test_however_a_call_is_corrected_its_entries_come_to_its_last_price(
    charged: int, prices: list[tuple[int, str]]
) -> None:
    entries, balance = [LedgerLine(UUID(int=1), 0, -charged)], 10**9 - charged
    price = charged
    for wanted, key in prices:
        purse = AccountFunds("alice", "EUR", True, balance, 0, 0)
        try:
            made = reversal(entries, key, -wanted, purse)
        except Conflict:
            continue
        if isinstance(made, Corrected):
            assert made.duplicate
            continue
        assert isinstance(made, Reversal)
        entries.append(LedgerLine(made.id, made.slice, made.amount_micros))
        balance, price = balance + made.amount_micros, wanted
    assert sum(entry.amount_micros for entry in entries) == -price
    assert balance == 10**9 - price
    assert len({entry.slice for entry in entries}) == len(entries)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4), st.integers(-500, 500))
def test_a_days_spend_is_corrected_over_all_shards_and_never_below_nothing(spent: list[int], micros: int) -> None:
    day = datetime(2026, 1, 5, tzinfo=UTC).date()
    usages = [Usage(days=[CalendarSpan(key=day.toordinal(), spent_micros=each)]) for each in spent]
    correct(usages, day, micros)
    after = [usage.days[0].spent_micros for usage in usages]
    assert sum(after) == max(sum(spent) + micros, 0)
    assert min(after) >= 0
