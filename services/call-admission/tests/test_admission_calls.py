"""Calls on a real PostgreSQL: admitted, extended, settled, whatever is repeated, late or never reported."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio
from admission_site import LATER_PRICE, PRICE, PassingStore, Site, policy, running
from sqlalchemy import select

from callwarden.call_admission.accounts.core.accounts import AccountChange
from callwarden.call_admission.admission.core.commands import (
    Admitted,
    DecisionRecord,
    Extended,
    Refused,
)
from callwarden.call_admission.model.calls import (
    Expired,
    ExtendRequest,
    Pricing,
    Route,
    Started,
)
from callwarden.kernel.errors import Conflict, NotFound
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Reason
from callwarden.schema.tables import cdr
from callwarden.testing.clock import NOON_S, FakeClock


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


@pytest.mark.setting("credit")
async def test_a_call_is_admitted_extended_and_settled_to_the_micro(site: Site) -> None:
    account_id = await site.account()
    admitted = await site.app.admit(site.request(account_id))
    assert isinstance(admitted, Admitted)
    assert admitted.routes[0].trunk == "carrier"
    hold_id = admitted.hold.id
    answered_at_s = site.clock.unix_s()
    await site.app.started(Started(hold_id, account_id, answered_at_s, "carrier"))
    site.clock.advance(55)
    extended = await site.app.extend(ExtendRequest(hold_id, "call", account_id, answered_at_s, 60))
    assert isinstance(extended, Extended)
    assert extended.hold.granted_s == 120
    assert (await site.audit()).held_sum_micros == 120_000
    site.clock.advance(20)
    await site.app.ended(site.ended(hold_id, account_id, 75))
    audit = await site.audit()
    assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (0, 0, 1_000_000 - 75_000)
    (record,) = await site.history.list(account_id, 0.0, 10, running=False)
    assert (record.state, record.duration_s, record.price_micros) == ("settled", 75, 75_000)
    view = await site.accounts.get(account_id, site.clock.unix_s())
    assert (view.spent_today_micros, view.lines_in_use) == (75_000, 0)


@pytest.mark.setting("maxlines")
async def test_of_a_thousand_at_once_five_are_admitted_and_all_refusals_are_kept(site: Site) -> None:
    account_id = await site.account()
    requests = [site.request(account_id) for _ in range(1000)]
    outcomes = await asyncio.gather(*(site.app.admit(request) for request in requests))
    refused = [(r, o) for r, o in zip(requests, outcomes, strict=True) if isinstance(o, Refused)]
    assert len(refused) == 995
    assert {outcome.refuse.reason for _, outcome in refused} == {Reason.LINES}
    explained = await site.history.explain(refused[500][0].call_id)
    assert explained.call is not None
    assert (explained.call.state, explained.call.reason) == ("refused", "lines")
    # Few transactions, since what waits is decided together.
    assert site.app.commit_stats.batches < 50


@pytest.mark.setting("maxlines")
@pytest.mark.parametrize("processes", [2, 4])
async def test_processes_on_one_database_admit_no_more_than_one_would(
    database_url: str, fake_clock: FakeClock, processes: int
) -> None:
    opened = [running(database_url, fake_clock) for _ in range(processes)]
    sites = [await each.__aenter__() for each in opened]
    try:
        account_id = await sites[0].account(credit_micros=7 * 60_000, max_lines=100)
        other_id = await sites[0].account(max_lines=5)
        asked = [
            site.app.admit(site.request(each)) for site, each in itertools.product(sites, [account_id, other_id] * 60)
        ]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        admitted = [o.hold.account_id for o in outcomes if isinstance(o, Admitted)]
        assert [admitted.count(each) for each in (account_id, other_id)] == [7, 5]
        assert {type(outcome) for outcome in outcomes} <= {Admitted, Refused}
        assert (await sites[0].audit(account_id)).held_sum_micros == 7 * 60_000
    finally:
        for each in opened:
            await each.__aexit__()


async def test_the_price_list_that_holds_is_the_one_in_the_database(site: Site) -> None:
    account_id = await site.account()
    await site.admit(account_id)
    change = AccountChange({"deck": "later"})
    await site.accounts.update(account_id, change)
    outcome = await site.app.admit(site.request(account_id))
    assert isinstance(outcome, Admitted)
    assert outcome.hold.price == LATER_PRICE
    assert [pricing.deck for pricing, _ in site.quotes.asked] == ["retail", "retail", "later"]


async def test_an_account_not_seen_before_is_first_taken_to_be_priced_like_the_last_one(site: Site) -> None:
    site.quotes.keeps = True
    first, alike, other = await site.account(), await site.account(), await site.account(deck="later")
    await site.app.admit(site.request(first))
    before = site.app.commit_stats.commands
    admitted = await site.app.admit(site.request(alike))
    assert isinstance(admitted, Admitted)
    assert admitted.hold.price == PRICE
    assert site.app.commit_stats.commands == before + 1  # the guess was right: one round trip to the database
    dearer = await site.app.admit(site.request(other))
    assert isinstance(dearer, Admitted)
    assert dearer.hold.price == LATER_PRICE  # a wrong guess prices nothing
    assert [pricing.deck for pricing, _ in site.quotes.asked] == ["retail", "later"]


async def test_an_account_without_a_price_list_is_priced_by_its_resellers_of_the_moment(site: Site) -> None:
    reseller = await site.account(type="reseller", name="north", deck="retail")
    account_id = await site.account(deck="", parent="north")
    own_id = await site.account(deck="retail", parent="north")
    assert await site.price(account_id) == PRICE
    assert site.quotes.asked[-1][0] == Pricing("retail", "retail", "example.org", is_resellers=True)
    await site.accounts.update(reseller, AccountChange({"deck": "later"}))
    assert await site.price(account_id) == LATER_PRICE
    assert await site.price(own_id) == PRICE
    assert site.quotes.asked[-1][0] == Pricing("retail", "later", "example.org", is_resellers=True)


async def test_an_account_without_a_price_list_has_no_rate(site: Site) -> None:
    outcome = await site.app.admit(site.request(await site.account(deck="")))
    assert isinstance(outcome, Refused)
    assert outcome.refuse.reason is Reason.NO_RATE
    assert site.quotes.asked == []


async def test_a_local_call_asks_nobody_for_a_price(site: Site) -> None:
    account_id = await site.account(credit_micros=0)
    await site.admit(account_id, local=True, destination="bob")
    assert site.quotes.asked == []


async def test_nobodys_call_is_refused(site: Site) -> None:
    outcome = await site.app.admit(site.request(uuid.uuid4()))
    assert isinstance(outcome, Refused)
    assert outcome.refuse.reason is Reason.ACCOUNT_UNKNOWN


@pytest.mark.setting("quotadiscreason")
async def test_a_refusal_for_money_carries_the_status_that_policy_wants(
    database_url: str, fake_clock: FakeClock
) -> None:
    wanted = policy(spend={"rejectStatus": 402}, lines={"max": 1})
    async with running(database_url, fake_clock, policy=wanted) as site:
        outcome = await site.app.admit(site.request(await site.account(credit_micros=0)))
        assert isinstance(outcome, Refused)
        assert (outcome.refuse.reason, outcome.sip_status, outcome.policy_revision) == (Reason.CREDIT, 402, 3)
        no_lines = await site.app.admit(site.request(await site.account(max_lines=0)))
        assert isinstance(no_lines, Refused)
        assert no_lines.sip_status == 0


async def test_a_reported_rule_is_counted(database_url: str, fake_clock: FakeClock) -> None:
    async with running(database_url, fake_clock, policy=policy(modes={"lines": "Report"})) as site:
        account_id = await site.account(max_lines=1)
        for _ in range(3):
            await site.admit(account_id)
        assert site.app.commit_stats.reported == {"lines": 2}


async def test_asked_again_by_another_process_the_answer_is_the_same(database_url: str, fake_clock: FakeClock) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        account_id = await one.account(max_lines=1)
        request = one.request(account_id)
        first = await one.app.admit(request)
        again = await other.app.admit(replace(request))
        assert isinstance(first, Admitted)
        assert isinstance(again, Admitted)
        assert (first.hold, first.routes) == (again.hold, again.routes)
        second = one.request(account_id)
        refused = await one.app.admit(second)
        await one.app.ended(one.ended(first.hold.id, account_id, None))
        assert await other.app.admit(replace(second)) == refused
        with pytest.raises(Conflict):
            await other.app.admit(replace(request))
        assert (await one.audit()).open_holds == 0


async def test_an_extension_asked_again_by_another_process_grants_once(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        account_id = await one.account()
        hold_id = await one.admit(account_id)
        request = ExtendRequest(hold_id, "call", account_id, fake_clock.unix_s(), 60)
        outcomes = await asyncio.gather(one.app.extend(replace(request)), other.app.extend(replace(request)))
        assert [o.hold.granted_s for o in outcomes if isinstance(o, Extended)] == [120, 120]
        assert (await one.audit()).held_sum_micros == 120_000


@pytest.mark.parametrize("processes", [1, 2])
async def test_an_end_delivered_many_times_to_many_processes_is_settled_once(
    database_url: str, fake_clock: FakeClock, processes: int
) -> None:
    opened = [running(database_url, fake_clock) for _ in range(processes)]
    sites = [await each.__aenter__() for each in opened]
    try:
        account_id = await sites[0].account()
        hold_id = await sites[0].admit(account_id)
        event = sites[0].ended(hold_id, account_id, 30)
        await asyncio.gather(*(site.app.ended(replace(event)) for site in sites for _ in range(5)))
        await sites[-1].app.ended(replace(event))
        audit = await sites[0].audit()
        assert (audit.balance_sum_micros, audit.entries, audit.open_holds) == (1_000_000 - 30_000, 2, 0)
        assert sum(site.app.stats.settled for site in sites) == 1
        assert sum(site.app.stats.ignored.get("settled", 0) for site in sites) == 5 * processes
    finally:
        for each in opened:
            await each.__aexit__()


async def test_an_end_before_its_start_settles_and_the_start_is_ignored(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    await site.app.ended(site.ended(hold_id, account_id, 12))
    await site.app.started(Started(hold_id, account_id, site.clock.unix_s() - 12, "carrier"))
    assert site.app.stats.ignored == {"settled": 1}
    assert (await site.audit()).balance_sum_micros == 1_000_000 - 12_000


async def test_an_end_of_a_call_that_nobody_knows_is_counted(site: Site) -> None:
    await site.app.ended(site.ended(uuid.uuid4(), await site.account(), 12))
    assert site.app.stats.ignored == {"unknown": 1}


async def test_the_reaper_frees_what_nobody_ends_records_it_once_all_is_heard_and_a_late_end_corrects_it(
    site: Site,
) -> None:
    account_id = await site.account()
    answered, ringing = await site.admit(account_id), await site.admit(account_id)
    await site.app.started(Started(answered, account_id, site.clock.unix_s(), "carrier"))
    site.clock.advance(74)
    assert await site.app.reap_once() == 0
    site.clock.advance(1)
    assert await site.app.reap_once() == 1
    site.clock.advance(400)
    assert await site.app.reap_once() == 1
    audit = await site.audit()
    assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (2, 0, 1_000_000)
    found = await site.history.list(account_id, 0.0, 10, running=True)
    assert {call.state for call in found} == {"lapsed"}
    assert await site.app.record_once(NOON_S) == 0, "nothing had expired then"
    assert await site.app.record_once(site.clock.unix_s()) == 2
    assert await site.app.record_once(site.clock.unix_s()) == 0
    audit = await site.audit()
    assert (audit.open_holds, audit.balance_sum_micros) == (0, 1_000_000 - 60_000)
    records = await site.history.list(account_id, 0.0, 10, running=False)
    assert {(record.state, record.reason) for record in records} == {("expired", "expired")}
    for _ in range(2):
        await site.app.ended(site.ended(answered, account_id, 20))
        await site.app.ended(site.ended(ringing, account_id, None))
    audit = await site.audit()
    assert (audit.balance_sum_micros, audit.ledger_sum_micros) == (1_000_000 - 20_000,) * 2
    records = await site.history.list(account_id, 0.0, 10, running=False)
    assert {(record.state, record.duration_s, record.price_micros + record.corrected_micros) for record in records} == {
        ("settled", 20, 20_000),
        ("settled", 0, 0),
    }
    stats = site.app.stats
    assert (stats.lapsed, stats.expired, stats.ended_late) == (2, 2, {"corrected": 2})


async def test_an_end_that_is_heard_before_its_call_is_recorded_is_charged_as_any_other(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    site.clock.advance(3_600)
    assert await site.app.reap_once() == 1
    assert await site.app.ended(site.ended(hold_id, account_id, 20))
    assert await site.app.record_once(site.clock.unix_s()) == 0
    (record,) = await site.history.list(account_id, 0.0, 10, running=False)
    assert (record.state, record.price_micros, record.corrected_micros) == ("settled", 20_000, 0)
    assert site.app.stats.ended_late == {"in-time": 1}


async def test_holds_of_recorded_calls_are_forgotten_after_a_week(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    site.clock.advance(3_600)
    await site.app.reap_once()
    await site.app.record_once(site.clock.unix_s())
    await site.attempts.forget_recorded(site.clock.unix_s())
    assert not await site.app.ended(site.ended(hold_id, account_id, 20))
    assert site.app.stats.ignored == {"settled": 1}


async def test_an_extension_between_the_reapers_look_and_its_commit_saves_the_call(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock, around=LateLook) as site:
        account_id = await site.account()
        hold_id = await site.admit(account_id)
        await site.app.started(Started(hold_id, account_id, fake_clock.unix_s(), "carrier"))
        fake_clock.advance(50)
        await site.app.extend(ExtendRequest(hold_id, "call", account_id, fake_clock.unix_s() - 50, 60))
        assert await site.app.reap_once() == 1
        assert site.app.stats.ignored == {"not-expired": 1}
        assert (await site.audit()).open_holds == 1


class LateLook(PassingStore):
    """The store as a reaper sees it whose look was a while ago: it finds holds that expire within the hour."""

    async def expired(self, unix_s: float, limit: int) -> Sequence[Expired]:
        return await super().expired(unix_s + 3_600, limit)


async def test_a_clock_that_is_ahead_makes_no_hold_last_for_ever(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id, start_s=site.clock.unix_s() + 10_000)
    ahead_s = site.clock.unix_s() + 10_000
    await site.app.started(Started(hold_id, account_id, ahead_s, "carrier"))
    (running_call,) = await site.history.list(account_id, 0.0, 10, running=True)
    assert running_call.started_at_s == site.clock.unix_s()
    assert running_call.answered_at_s == site.clock.unix_s()


async def test_an_extension_of_a_call_that_is_over_is_not_found(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    await site.app.ended(site.ended(hold_id, account_id, 1))
    with pytest.raises(NotFound):
        await site.app.extend(ExtendRequest(hold_id, "call", account_id, site.clock.unix_s(), 60))


async def test_another_services_decision_is_kept_once_and_explained(site: Site) -> None:
    note = DecisionRecord(
        uuid.uuid4(), "call-from-the-edge", None, site.clock.unix_s(), "refuse", None, b"\x12\x04edge"
    )
    await asyncio.gather(site.app.record(note), site.app.record(note))
    explained = await site.history.explain("call-from-the-edge")
    assert explained.decisions == (b"\x12\x04edge",)


async def test_the_record_says_what_the_carrier_that_took_the_call_charges(site: Site) -> None:
    carrier = await site.account(type="carrier", credit_micros=0, talk_day_s=1_000)
    other = await site.account(type="carrier", credit_micros=0)
    cheap = Price("EUR", (Window(0, (RateGroup(0, 30_000, 60, 1),)),))
    foreign = Price("USD", (Window(0, (RateGroup(0, 30_000, 60, 1),)),))
    site.quotes.routes = (
        Route("first", "192.0.2.1:5060", carrier_account_id=str(carrier), cost=cheap),
        Route("second", "192.0.2.2:5060", carrier_account_id=str(other), cost=foreign),
    )
    account_id = await site.account()
    for trunk, cost_micros, paid in (("first", 10_000, carrier), ("second", None, other)):
        hold_id = await site.admit(account_id)
        await site.app.ended(replace(site.ended(hold_id, account_id, 20), trunk=trunk))
        async with site.database.engine.connect() as connection:
            row = (await connection.execute(select(cdr).where(cdr.c.id == hold_id))).one()
        assert (row.price_micros, row.cost_micros, row.carrier_account_id) == (20_000, cost_micros, paid)
    _, snapshot = await site.app.simulate(site.request(account_id))
    assert snapshot.carriers.keys() == {str(carrier)}, "only carriers with limits are counted"
    assert snapshot.carriers[str(carrier)].usage.day(snapshot.day.toordinal()).talk_s == 20
