"""What calls have cost: settled once whatever is told in what order, corrected, exported and forgotten, sharded or not.

On a real PostgreSQL.
"""

import asyncio
import csv
import io
import json
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from admission_site import Site, policy, running
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, insert, select, update

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.accounts.core.accounts import AccountChange, AccountFilter
from callwarden.call_admission.accounts.core.views import AccountView
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.admission.core.commands import Admitted, Extended, Refused
from callwarden.call_admission.model.calls import ExtendRequest, Route, Started
from callwarden.call_admission.model.usage import ADDRESS, RESELLER, CalendarSpan, Usage, correct
from callwarden.call_admission.records.adapters import records_sql
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.call_admission.records.app.retention import SLICES, Retention
from callwarden.call_admission.records.core import records as records_module
from callwarden.call_admission.records.core.corrections import AccountFunds, Corrected, LedgerLine, Reversal, reversal
from callwarden.call_admission.records.core.records import CallRecord, LedgerEntry
from callwarden.common import trace
from callwarden.kernel.errors import CallwardenError, Conflict, Invalid, NotFound, Unavailable
from callwarden.kernel.money import format_amount, parse_amount
from callwarden.kernel.tariff import Price, RateGroup, Rounding, RoundingMethod, Window
from callwarden.payment.adapters.ledger_sql import SqlLedgerStore
from callwarden.payment.core.topup import TopUp
from callwarden.schema.tables import account, cdr, counter, decision, ledger_entry, metadata, spend_day
from callwarden.testing.clock import FakeClock

SLICE_MICROS = 60_000  # the first 60 s of a call at 0.06 EUR a minute


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


async def settled(site: Site, account_id: UUID, talked_s: float = 60) -> UUID:
    """A call that began, was answered and ended within this moment of the fake clock."""
    hold_id = await site.admit(account_id)
    await site.app.ended(site.ended(hold_id, account_id, talked_s))
    return hold_id


async def view_of(site: Site, account_id: UUID) -> AccountView:
    return await site.accounts.get(account_id, site.clock.unix_s())


async def rows_of(site: Site, table: Any) -> int:
    async with site.owner.engine.connect() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def contents(site: Site) -> dict[str, list[Any]]:
    """All that is in the database: what must be the same when nothing was to change."""
    async with site.owner.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, (await connection.execute(select(table))).all()))
            for table in metadata.sorted_tables
        }


# ------------------------------------------------------------------ sharded or not


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


# ------------------------------------------------------------------ corrections


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


def set_apart(site: Site) -> None:
    """Has the process count in other shards than its neighbour, as chance does."""
    site.app._slot = 1


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


# ------------------------------------------------------------------ settled once


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

        async def tell(kind: str, hold_id: UUID) -> None:
            app = chance.choice((one, other)).app
            if kind == "start":
                await app.started(Started(hold_id, account_id, answered_at_s, "carrier"))
            else:
                await app.ended(one.ended(hold_id, account_id, 30))

        await asyncio.gather(*(tell(*event) for event in events))
        fake_clock.advance(3_600)
        await asyncio.gather(one.app.reap_once(), other.app.reap_once())
        for hold_id in silent:
            await other.app.ended(one.ended(hold_id, account_id, 3_600))  # after the reaper
        calls = await one.history.list(account_id, 0.0, 100, running=False)
        assert sorted((call.hold_id, call.state, call.price_micros) for call in calls) == sorted(
            [(str(hold_id), "settled", 30_000) for hold_id in told]
            + [(str(hold_id), "expired", SLICE_MICROS) for hold_id in silent]
        )
        audit = await one.audit()
        assert (audit.open_holds, audit.held_sum_micros) == (0, 0)
        assert audit.balance_sum_micros == 1_000_000 - 6 * 30_000 - 2 * SLICE_MICROS
        unknown = [each.app.stats.ignored.get("unknown", 0) for each in (one, other)]
        assert sum(unknown) == 2


# ------------------------------------------------------------------ records


@pytest.mark.parametrize(
    ("currency", "rate", "decimals", "price", "shown"),
    [
        ("JPY", "12", 0, "18", "18 JPY"),
        ("EUR", "0.0725", 2, "0.11", "0.11 EUR"),
        ("KWD", "0.0105", 3, "0.016", "0.016 KWD"),
    ],
)
async def test_a_currency_keeps_its_decimals_from_price_to_record_and_export(
    site: Site, currency: str, rate: str, decimals: int, price: str, shown: str
) -> None:
    group = RateGroup(0, parse_amount(rate), 60, 1)
    site.quotes.decks["retail"] = Price(
        currency, (Window(0, (group,)),), rounding=Rounding(RoundingMethod.UP, decimals)
    )
    account_id = await site.account(currency=currency, credit_micros=1_000_000_000)
    hold_id = await site.admit(account_id)
    answered_at_s = site.clock.unix_s()
    site.clock.advance(55)
    await site.app.extend(ExtendRequest(hold_id, "call", account_id, answered_at_s, 60))
    site.clock.advance(35)
    await site.app.ended(site.ended(hold_id, account_id, 90))
    micros = parse_amount(price)
    ((record,),) = [page async for page in SqlRecords(site.database).export(account_id, 0.0, site.clock.unix_s())]
    assert (record.price_micros, record.currency) == (micros, currency)
    text = records_module.header("csv") + records_module.write([record], "csv")
    (line,) = csv.DictReader(io.StringIO(text))
    assert (line["price"], line["currency"]) == (price, currency)
    assert parse_amount(line["price"]) == micros
    (plain,) = map(json.loads, records_module.write([record], "jsonl").splitlines())
    assert (plain["price_micros"], plain["currency"]) == (micros, currency)
    view = await view_of(site, account_id)
    assert view.balance_micros == 1_000_000_000 - micros
    assert format_amount(micros, currency) == shown
    await site.audit()


async def test_a_record_says_who_where_when_how_much_and_why(site: Site) -> None:
    carrier = await site.account(type="carrier", prepaid=False, credit_micros=0)
    cost = Price("EUR", (Window(0, (RateGroup(0, 30_000, 60, 1),)),))
    site.quotes.routes = (Route("carrier", "192.0.2.1:5060", carrier_account_id=str(carrier), cost=cost),)
    account_id = await site.account(name="alice")
    started_at_s = site.clock.unix_s()
    trace_id = uuid.uuid4().hex
    with trace.scope(traceparent=f"00-{trace_id}-00f067aa0ba902b7-01", call_id="c"):
        request = replace(site.request(account_id, call_id="c1", caller_number="=4930"), trace_id=trace_id)
        outcome = await site.app.admit(request)
    assert isinstance(outcome, Admitted)
    site.clock.advance(35)
    await site.app.ended(replace(site.ended(outcome.hold.id, account_id, 30), reason="callee-bye"))
    records = SqlRecords(site.database)
    await records.correct_call(outcome.hold.id, 10_000, "bad line", "k")
    ((record,),) = [page async for page in records.export(account_id, started_at_s, site.clock.unix_s())]
    assert record == CallRecord(
        hold_id=str(outcome.hold.id), call_id="c1", account_id=str(account_id), account="alice", realm="example.org",
        destination="493012345678", dialled="030", caller_number="=4930", source_address="192.0.2.7", edge="edge-0",
        started_at_s=started_at_s, answered_at_s=started_at_s + 5, ended_at_s=started_at_s + 35, duration_s=30,
        billed_s=30, price_micros=30_000, corrected_micros=-20_000, cost_micros=15_000, margin_micros=-5_000,
        currency="EUR", prefix="49", trunk="carrier", carrier_account_id=str(carrier), reason="callee-bye",
        sip_status=200, limits_hit="", policy_revision=outcome.policy_revision, trace_id=trace_id,
    )  # fmt: skip
    (line,) = csv.DictReader(io.StringIO(records_module.header("csv") + records_module.write([record], "csv")))
    assert (line["started_at"], line["margin"]) == ("2026-01-05T12:00:00.000+00:00", "-0.005")
    assert line["caller_number"] == "'=4930", "no spreadsheet takes it for a formula"
    (plain,) = map(json.loads, records_module.write([record], "jsonl").splitlines())
    assert (plain["margin_micros"], plain["caller_number"]) == (-5_000, "=4930")


async def test_a_record_names_the_limits_that_its_call_met(database_url: str, fake_clock: FakeClock) -> None:
    watched = policy(modes={"lines": "Report"})
    async with running(database_url, fake_clock, policy=watched) as site:
        account_id = await site.account(max_lines=1, credit_micros=SLICE_MICROS * 2)
        first, second = [await site.admit(account_id) for _ in range(2)]
        with_less = await site.app.extend(ExtendRequest(first, "call", account_id, fake_clock.unix_s(), 60))
        assert isinstance(with_less, Refused)
        for hold_id in (first, second):
            await site.app.ended(site.ended(hold_id, account_id, 60))
        pages = [page async for page in SqlRecords(site.database).export(account_id, 0.0, fake_clock.unix_s() + 1)]
        hit = {record.hold_id: record.limits_hit for page in pages for record in page}
        assert hit == {str(first): "credit", str(second): "lines"}
        assert {record.policy_revision for page in pages for record in page} == {3}


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ({"credit_micros": SLICE_MICROS * 3 // 2}, "credit"),
        ({"daily_micros": SLICE_MICROS * 3 // 2}, "daily_spend"),
    ],
)
async def test_a_rule_that_leaves_less_than_a_slice_is_named_by_the_record_and_the_explanation(
    site: Site, limits: dict[str, int], rule: str
) -> None:
    account_id = await site.account(**limits)
    outcome = await site.app.admit(request := site.request(account_id))
    assert isinstance(outcome, Admitted)
    hold_id = outcome.hold.id
    extended = await site.app.extend(ExtendRequest(hold_id, request.call_id, account_id, site.clock.unix_s(), 60))
    assert isinstance(extended, Extended)
    assert (extended.hold.granted_s, extended.hold.final) == (90, True)
    await site.app.ended(site.ended(hold_id, account_id, 90))
    (record,) = [
        r async for page in SqlRecords(site.database).export(account_id, 0.0, site.clock.unix_s() + 1) for r in page
    ]
    assert record.limits_hit == rule
    explained = await site.history.explain(request.call_id)
    made = [admission_pb2.Decision.FromString(body) for body in explained.decisions]
    assert {decision.outcome: decision.cut_by for decision in made} == {"admit": "", "cut": rule}


async def test_a_first_slice_that_is_short_names_the_rule(site: Site) -> None:
    account_id = await site.account(credit_micros=SLICE_MICROS // 2)
    outcome = await site.app.admit(site.request(account_id))
    assert isinstance(outcome, Admitted)
    assert (outcome.hold.granted_s, outcome.hold.limits_hit) == (30, ("credit",))


async def test_an_export_gives_each_call_once_while_others_are_settled(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_sql, "EXPORT_PAGE", 3)
    accounts = [await site.account() for _ in range(2)]
    before: set[str] = set()
    for account_id in accounts:
        for _ in range(4):
            before.add(str(await settled(site, account_id, 1)))  # all of one moment: only their ids tell them apart
    found: list[str] = []
    async for page in SqlRecords(site.database).export(None, 0.0, site.clock.unix_s() + 1):
        assert len(page) <= 3
        found += [record.hold_id for record in page]
        for account_id in accounts:
            if len(found) < 8:
                await settled(site, account_id, 1)
    assert len(found) == len(set(found))
    assert before <= set(found)


# ------------------------------------------------------------------ retention


async def test_what_is_old_is_forgotten_and_the_books_never(site: Site) -> None:
    account_id = await site.account(shards=2)
    old, new = [await settled(site, account_id) for _ in range(2)]
    now = datetime.fromtimestamp(site.clock.unix_s(), UTC)
    long_ago = now - timedelta(days=31)
    stray, used = uuid.uuid4(), uuid.uuid4()
    async with site.owner.engine.begin() as connection:
        await connection.execute(update(cdr).where(cdr.c.id == old).values(started_at=long_ago))
        await connection.execute(update(ledger_entry).values(created_at=long_ago))
        await connection.execute(update(counter).values(updated_at=long_ago))
        for scope, held in ((stray, 0), (used, 1)):
            row = {"scope": scope, "shard": 0, "held_micros": held, "updated_at": long_ago}
            await connection.execute(insert(counter).values(**row))
        for owner, at in ((account_id, long_ago), (None, long_ago), (account_id, now), (None, now)):
            row = {"id": uuid.uuid4(), "call_id": "c", "account_id": owner, "at": at, "outcome": "refuse", "body": b""}
            await connection.execute(insert(decision).values(**row))
        await connection.execute(insert(spend_day).values(account_id=account_id, day=long_ago.date(), spent_micros=1))
    entries = await rows_of(site, ledger_entry)
    retention = Retention(
        SqlRecords(site.database), dict.fromkeys(("cdr", "decision", "counter", "spend_day"), 30), site.clock,
        random.Random(1).random,
    )  # fmt: skip
    for number in range(SLICES):
        await retention.forget_slice(number)
    assert retention.forgotten == {"cdr": 1, "decision": 2, "counter": 1, "spend_day": 1}
    async with site.owner.engine.connect() as connection:
        scopes = set((await connection.execute(select(counter.c.scope))).scalars())
        kept = (await connection.execute(select(cdr.c.id))).scalars().all()
        days = (await connection.execute(select(spend_day.c.day))).scalars().all()
    assert scopes == {account_id, used}, "an account's shards and what is in use stay, however old"
    assert kept == [new]
    assert days == [now.date()]
    assert await rows_of(site, ledger_entry) == entries
    await site.audit()
    await site.app.ended(site.ended(old, account_id, 60))  # told once more, a month later
    assert await rows_of(site, cdr) == 1
    assert await rows_of(site, ledger_entry) == entries
    with pytest.raises(NotFound):
        await SqlRecords(site.database).correct_call(old, 0, "too late", "k")
    done = await SqlRecords(site.database).reverse_entry(old, "but its entry is there", "k")
    assert done.amount_micros == SLICE_MICROS
    await site.audit()
    assert await SqlShards(site.database).grow(account_id, 2, 4)
