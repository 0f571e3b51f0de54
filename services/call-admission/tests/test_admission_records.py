"""Call records: what they contain, how they are exported, and how long they are kept."""

import csv
import io
import json
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from admission_site import SLICE_MICROS, Site, policy, rows_of, running, settled, view_of
from sqlalchemy import insert, select, update

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.admission.core.commands import Admitted, Extended, Refused
from callwarden.call_admission.model.calls import ExtendRequest, Route
from callwarden.call_admission.records.adapters import records_sql
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.call_admission.records.app.retention import SLICES, Retention
from callwarden.call_admission.records.core import records as records_module
from callwarden.call_admission.records.core.records import CallRecord
from callwarden.common import trace
from callwarden.kernel.errors import NotFound
from callwarden.kernel.money import format_amount, parse_amount
from callwarden.kernel.tariff import Price, RateGroup, Rounding, RoundingMethod, Window
from callwarden.schema.tables import cdr, counter, decision, ledger_entry, spend_day
from callwarden.testing.clock import FakeClock


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


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
    await site.audit(kept_days=30)
    await site.app.ended(site.ended(old, account_id, 60))  # told once more, a month later
    assert await rows_of(site, cdr) == 1
    assert await rows_of(site, ledger_entry) == entries
    with pytest.raises(NotFound):
        await SqlRecords(site.database).correct_call(old, 0, "too late", "k")
    done = await SqlRecords(site.database).reverse_entry(old, "but its entry is there", "k")
    assert done.amount_micros == SLICE_MICROS
    await site.audit(kept_days=30)
    assert await SqlShards(site.database).grow(account_id, 2, 4)
