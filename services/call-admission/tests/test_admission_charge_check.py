"""The check of charges: what is right passes, whatever calls went through, and what was tampered with is named."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from admission_admin import EdgeCallList, charge_check_on
from admission_site import PRICE, SLICE_MICROS, Site, running, settled
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert, update

from callwarden.call_admission.model.calls import ExtendRequest, HoldStage, Started
from callwarden.call_admission.model.codecs.messages import price_bytes, price_from
from callwarden.call_admission.model.settle import charge_micros, talk_s
from callwarden.call_admission.records.adapters import charges_sql
from callwarden.call_admission.records.adapters.records_sql import SqlRecords, time_at
from callwarden.call_admission.records.core.charges import (
    KNOWN_AFTER_S,
    LAPSED_LATE_S,
    RUNNING_LATE_S,
    BookedCharge,
    ChargeCount,
    ChargedCall,
    ChargeFinding,
    FindingKind,
    OpenHold,
    check_call,
    check_entry,
    check_hold,
    is_to_be_known,
    unknown_call,
)
from callwarden.kernel.clock import UnixS
from callwarden.kernel.hours import parse_plan
from callwarden.kernel.tariff import Price, RateGroup, Rounding, RoundingMethod, Weekly, WeeklyPeriod, Window
from callwarden.schema.tables import cdr, hold, ledger_entry
from callwarden.testing.clock import FakeClock

WORKING = "Mon-Fri 08:00-20:00"
ACCOUNT, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
CALL = ChargedCall(
    hold_id=uuid.UUID(int=9), account_id=ACCOUNT, account="alice", call_id="call", currency="EUR", started_at_s=999.0,
    answered_at_s=1_000.0, ended_at_s=1_050.0, duration_s=50, price_micros=50_000, corrected_micros=0,
    uncharged_micros=0, price=PRICE, granted_s=60, held_micros=60_000, entry_micros=-50_000, entry_account_id=ACCOUNT,
)  # fmt: skip
HOLD = OpenHold(uuid.UUID(int=9), "alice", "EUR", "call", "edge-0", HoldStage.RUNNING, 0.0, 5.0, 1_000.0, 60_000, None)


def kinds(call: ChargedCall) -> list[str]:
    return [finding.kind.value for finding in check_call(call)]


# ------------------------------------------------------------------ the comparison


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"price_micros": 40_000, "entry_micros": -40_000}, ["undercharged"]),
        ({"price_micros": 40_000}, ["undercharged", "entry-differs"]),
        ({"price_micros": 60_000, "entry_micros": -60_000}, ["overcharged"]),
        ({"corrected_micros": -1}, ["undercharged"]),
        ({"corrected_micros": 1}, ["overcharged"]),
        ({"price_micros": 60_000, "entry_micros": -60_000, "corrected_micros": -10_000}, []),
        ({"price_micros": 20_000, "entry_micros": -20_000, "uncharged_micros": 30_000}, []),
        ({"uncharged_micros": 1}, ["overcharged"]),
        ({"duration_s": 40, "price_micros": 40_000, "entry_micros": -40_000}, ["talk-differs"]),
        ({"duration_s": 0, "answered_at_s": None, "price_micros": 0, "entry_micros": None}, []),
        ({"duration_s": 50, "answered_at_s": None}, ["overcharged", "talk-differs"]),
        ({"granted_s": 30, "price_micros": 30_000, "entry_micros": -30_000}, []),
        ({"held_micros": 30_000, "price_micros": 30_000, "entry_micros": -30_000}, []),
        ({"entry_micros": None}, ["entry-missing"]),
        ({"entry_micros": -50_001}, ["entry-differs"]),
        ({"entry_account_id": OTHER}, ["entry-differs"]),
        ({"price": None, "price_micros": 1, "entry_micros": -1}, []),
        ({"price": None, "price_micros": 1}, ["entry-differs"]),
    ],
)  # fmt: skip
def test_a_record_is_compared_with_its_price_its_talk_and_its_entry(
    changes: dict[str, Any], expected: list[str]
) -> None:
    assert kinds(replace(CALL, **changes)) == expected


# Dearer from the answer on: a moment before it, all of the call's talk costs next to nothing.
DEARER = Price("EUR", (Window(0, (RateGroup(0, 60, 60, 1),)), Window(1_000, (RateGroup(0, 60_000, 60, 1),))))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"price_micros": 40_000, "entry_micros": -40_000, "uncharged_micros": 1_000},
            (FindingKind.UNDERCHARGED, 49_000, 40_000, ""),
        ),
        ({"price": DEARER, "price_micros": 100, "entry_micros": -100}, (FindingKind.UNDERCHARGED, 50_000, 100, "")),
        (
            {"price": DEARER, "ended_at_s": 1_055.0},
            (FindingKind.TALK, 50_000, 50_000, "50 s recorded, 55 s between answer and end"),
        ),
        ({"entry_micros": None}, (FindingKind.ENTRY_MISSING, -50_000, 0, "")),
        ({"entry_micros": -50_001}, (FindingKind.ENTRY_DIFFERS, -50_000, -50_001, "")),
        ({"entry_account_id": OTHER}, (FindingKind.ENTRY_DIFFERS, -50_000, -50_000, "booked on another account")),
    ],
)
def test_a_finding_says_what_should_be_there_and_what_is(
    changes: dict[str, Any], expected: tuple[FindingKind, int, int, str]
) -> None:
    kind, expected_micros, found_micros, note = expected
    found = ChargeFinding(kind, CALL.hold_id, "call", "alice", "EUR", expected_micros, found_micros, note)
    assert list(check_call(replace(CALL, **changes))) == [found]


@st.composite
def prices(draw: st.DrawFn) -> Price:
    amounts = st.integers(0, 10_000_000)

    def window(from_s: int) -> Window:
        group = RateGroup(0, draw(amounts), draw(st.integers(1, 120)), draw(st.integers(1, 60)))
        return Window(from_s, (group,), draw(amounts))

    rounding = Rounding(draw(st.sampled_from(RoundingMethod)), draw(st.integers(0, 6)))
    windows = (window(0), window(draw(st.integers(900, 1_100))))
    return Price("EUR", windows, draw(st.integers(0, 30)), draw(amounts), rounding)


@given(
    prices(), st.floats(950, 1_050), st.floats(0, 500), st.integers(0, 300), st.integers(0, 10**10), st.integers(0, 10)
)
def test_a_call_is_right_by_what_its_row_has_kept(
    price: Price, answered_at_s: float, talked_s: float, granted_s: int, held_micros: int, late: int
) -> None:
    """Moments are stored to the microsecond: a whole second that was before them may be after."""
    ended_at_s = answered_at_s + talked_s
    duration_s = talk_s(answered_at_s, ended_at_s)
    charged = charge_micros(price, answered_at_s, duration_s, granted_s, held_micros) if duration_s else 0
    first, uncharged = charged * late // 10, charged // 3 if late else 0
    stored = [time_at(moment_s).timestamp() for moment_s in (answered_at_s, ended_at_s)]
    call = replace(
        CALL, answered_at_s=stored[0], ended_at_s=stored[1], duration_s=duration_s, granted_s=granted_s,
        held_micros=held_micros, price=price_from(price_bytes(price)), price_micros=first,
        corrected_micros=charged - first - uncharged, uncharged_micros=uncharged,
        entry_micros=-first if first else None,
    )  # fmt: skip
    assert kinds(call) == []


@pytest.mark.parametrize(
    ("is_first", "has_record", "found"), [(True, False, 1), (True, True, 0), (False, False, 0), (False, True, 0)]
)
def test_an_entry_of_a_call_needs_its_record(is_first: bool, has_record: bool, found: int) -> None:
    entry = BookedCharge(CALL.hold_id, CALL.hold_id, "alice", "EUR", -50_000, is_first)
    missing = ChargeFinding(FindingKind.RECORD_MISSING, CALL.hold_id, "", "alice", "EUR", 0, -50_000)
    assert list(check_entry(entry, has_record=has_record)) == [missing] * found


@pytest.mark.parametrize(
    ("changes", "after_s", "expected"),
    [
        ({}, 0, []),
        ({}, RUNNING_LATE_S, []),
        ({}, RUNNING_LATE_S + 1, ["hold-stuck"]),
        ({"stage": HoldStage.LAPSED}, RUNNING_LATE_S + 1, []),
        ({"stage": HoldStage.LAPSED}, LAPSED_LATE_S + 1, ["hold-stuck"]),
        ({"recorded_as": "caller-bye"}, 0, ["hold-left"]),
        ({"stage": HoldStage.LAPSED, "recorded_as": "expired"}, 0, ["hold-left"]),
        ({"stage": HoldStage.RECORDED, "recorded_as": "expired"}, 100_000, []),
        ({"stage": HoldStage.RECORDED, "recorded_as": "caller-bye"}, 0, ["hold-left"]),
        ({"stage": HoldStage.RECORDED}, 0, ["record-missing"]),
        ({"stage": HoldStage.CLOSED}, 100_000, []),
        ({"stage": HoldStage.CLOSED, "recorded_as": "caller-bye"}, 0, ["hold-left"]),
        ({"stage": HoldStage.RECORDED, "created_at_s": -1.0}, 0, []),
    ],
)
def test_a_hold_is_compared_with_what_became_of_its_call(
    changes: dict[str, Any], after_s: float, expected: list[str]
) -> None:
    found = check_hold(replace(HOLD, **changes), UnixS(HOLD.expires_at_s + after_s), 0.0)
    assert [finding.kind.value for finding in found] == expected


def test_what_is_wrong_with_a_hold_is_said_with_what_it_holds() -> None:
    (finding,) = check_hold(replace(HOLD, stage=HoldStage.RECORDED), UnixS(0.0), 0.0)
    told = "its hold says that it was recorded as expired"
    assert finding == ChargeFinding(FindingKind.RECORD_MISSING, HOLD.hold_id, "call", "alice", "EUR", 0, 60_000, told)
    assert unknown_call(HOLD) == replace(finding, kind=FindingKind.CALL_UNKNOWN, note="admitted by edge-0")


def test_an_edge_must_know_a_call_after_a_while_and_as_long_as_its_hold_lasts() -> None:
    assert not is_to_be_known(HOLD, UnixS(5.0 + KNOWN_AFTER_S))
    assert is_to_be_known(HOLD, UnixS(6.0 + KNOWN_AFTER_S))
    assert is_to_be_known(replace(HOLD, answered_at_s=None), UnixS(1.0 + KNOWN_AFTER_S))
    assert not is_to_be_known(replace(HOLD, stage=HoldStage.LAPSED), UnixS(500.0))
    assert not is_to_be_known(replace(HOLD, recorded_as="caller-bye"), UnixS(500.0))
    assert not is_to_be_known(HOLD, UnixS(HOLD.expires_at_s + KNOWN_AFTER_S))


# ------------------------------------------------------------------ on a database


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


async def check(site: Site, since_s: float = 0.0, edges: EdgeCallList | None = None) -> tuple[list[str], ChargeCount]:
    count, found = ChargeCount(), []
    async for page in charge_check_on(site.database, site.clock, edges, kept_days=0).check(None, since_s, count):
        found += [finding.kind.value for finding in page]
    assert sorted(found) == sorted(kind.value for kind in count.found.elements())
    return found, count


async def tamper(site: Site, statement: Any) -> None:
    async with site.owner.engine.begin() as connection:
        assert (await connection.execute(statement)).rowcount == 1


async def late_ends(site: Site, account_id: UUID) -> None:
    """One that is heard before its call is recorded, two that correct the record: cheaper and dearer."""
    calls = [await site.admit(account_id) for _ in range(3)]
    for hold_id in calls[:2]:
        await site.app.started(Started(hold_id, account_id, site.clock.unix_s(), "carrier"))
    site.clock.advance(1_000)
    await site.app.reap_once()
    await site.app.ended(site.ended(calls[0], account_id, 20))
    await site.app.record_once(site.clock.unix_s())
    await site.app.ended(site.ended(calls[1], account_id, 20))
    await site.app.ended(site.ended(calls[2], account_id, 40))


@pytest.mark.parametrize("shards", [0, 4])
async def test_what_ordinary_and_unordinary_calls_leave_is_right(site: Site, shards: int) -> None:
    site.quotes.decks["weekly"] = _weekly(site.clock.unix_s())
    account_id, weekly = [await site.account(shards=shards, deck=deck, max_lines=9) for deck in ("retail", "weekly")]
    for talked_s in (None, 0, 0.2, 33.3333333, 60, 75):
        for each in (account_id, weekly):
            hold_id = await site.admit(each)
            await site.app.ended(site.ended(hold_id, each, talked_s))
    extended = await site.admit(weekly)
    await site.app.started(Started(extended, weekly, site.clock.unix_s(), "carrier"))
    site.clock.advance(50)
    await site.app.extend(ExtendRequest(extended, "call", weekly, site.clock.unix_s() - 50, 60))
    site.clock.advance(49)
    await site.app.ended(site.ended(extended, weekly, 99))
    await late_ends(site, account_id)
    corrected = await settled(site, account_id)
    await SqlRecords(site.database).correct_call(corrected, 0, "bad line", "k")
    found, count = await check(site)
    assert found == []
    assert (count.records, count.unpriced, count.uncharged, count.holds) == (17, 0, 0, 0)
    assert count.entries == 14, "of each call that cost something, and of two late ends"


def _weekly(unix_s: UnixS) -> Price:
    """One whose windows change while the test's calls run."""
    low, high = (Window(0, (RateGroup(0, rate, 60, 7),), 1_000) for rate in (30_000, 90_001))
    start_s = int(unix_s)
    plan = parse_plan([WORKING], UTC)
    weekly = Weekly(start_s + 200, "UTC", (WeeklyPeriod(WORKING, high),), low, plan)
    windows = (low, replace(high, from_s=start_s - 20), replace(low, from_s=start_s + 30))
    return Price("EUR", windows, 3, 500, Rounding(RoundingMethod.MIDDLE, 4), weekly=weekly)


async def test_a_call_that_a_prepaid_account_could_not_pay_is_right_and_counted(site: Site) -> None:
    account_id = await site.account(credit_micros=SLICE_MICROS)
    lapsed = await site.admit(account_id)
    await site.app.started(Started(lapsed, account_id, site.clock.unix_s(), "carrier"))
    site.clock.advance(1_000)
    await site.app.reap_once()
    await settled(site, account_id, 50)
    await site.app.record_once(site.clock.unix_s())
    assert site.app.stats.uncharged_micros == 50_000
    assert await check(site) == ([], ChargeCount(2, 0, 1, 2, 1))
    await site.app.ended(site.ended(lapsed, account_id, 30))
    found, count = await check(site)
    assert (found, count.uncharged) == ([], 1)
    await tamper(site, update(cdr).where(cdr.c.id == lapsed).values(uncharged_micros=0))
    assert (await check(site))[0] == ["undercharged"]


def _tampering(call: UUID, account_id: UUID) -> list[tuple[Any, list[str]]]:
    """Each for a call of its own, which is `call`."""
    record, entry = update(cdr).where(cdr.c.id == call), update(ledger_entry).where(ledger_entry.c.id == call)
    correction = insert(ledger_entry).values(
        id=uuid.uuid4(), account_id=account_id, kind="correction", reference=str(call), amount_micros=5
    )
    return [
        (record.values(price_micros=1), ["undercharged", "entry-differs"]),
        (record.values(price_micros=10**6), ["overcharged", "entry-differs"]),
        (record.values(duration_s=10), ["overcharged", "talk-differs"]),
        (record.values(held_micros=10), ["overcharged"]),
        (delete(cdr).where(cdr.c.id == call), ["record-missing"]),
        (delete(ledger_entry).where(ledger_entry.c.id == call), ["entry-missing"]),
        (entry.values(amount_micros=-1), ["entry-differs"]),
        (correction, ["undercharged"]),
        # As a release before left it: what isn't known isn't compared.
        (record.values(price=None, duration_s=10), []),
    ]


async def test_what_was_tampered_with_is_found_and_nothing_else(site: Site) -> None:
    account_id = await site.account()
    expected: dict[UUID, list[str]] = {}
    for number in range(len(_tampering(account_id, account_id))):
        call, _ = [await settled(site, account_id, 50) for _ in range(2)]
        statement, expected[call] = _tampering(call, account_id)[number]
        await tamper(site, statement)
    found: dict[UUID, list[str]] = {call: [] for call in expected}
    for finding in await site.wrong_charges():
        found[finding.hold_id].append(finding.kind.value)
    assert found == expected
    assert (await check(site))[1].unpriced == 1


async def test_a_check_since_then_sees_what_was_charged_since_of_calls_that_began_before(site: Site) -> None:
    """By the ledger's time, which is the database's."""
    account_id = await site.account()
    old = await settled(site, account_id, 50)
    site.clock.advance(100)
    await tamper(site, update(cdr).where(cdr.c.id == old).values(price_micros=1))
    since_s = site.clock.unix_s() - 50
    entry = update(ledger_entry).where(ledger_entry.c.id == old)
    await tamper(site, entry.values(created_at=time_at(since_s + 1)))
    assert (await check(site, since_s))[0] == ["undercharged", "entry-differs"]
    await tamper(site, entry.values(created_at=time_at(since_s - 1)))
    found, count = await check(site, since_s)
    assert (found, count.records, count.entries) == ([], 0, 0)


async def test_a_page_ends_anywhere(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for _ in range(5):
        account_id = await site.account()
        calls += [await settled(site, account_id, 10) for _ in range(3)]
        await site.admit(account_id)
    await tamper(site, update(cdr).where(cdr.c.id == calls[7]).values(price_micros=1))
    for page in (1, 2, 7, 100):
        monkeypatch.setattr(charges_sql, "PAGE", page)
        monkeypatch.setattr(charges_sql, "ACCOUNTS_PAGE", page)
        found, count = await check(site)
        assert found == ["undercharged", "entry-differs"]
        assert (count.records, count.entries, count.holds) == (15, 15, 5)


async def test_one_accounts_check_looks_at_its_calls_only(site: Site) -> None:
    accounts = [await site.account(), await site.account()]
    calls = [await settled(site, account_id, 50) for account_id in accounts]
    await tamper(site, update(cdr).where(cdr.c.id == calls[0]).values(price_micros=1))
    assert len(await site.wrong_charges(accounts[0])) == 2
    assert await site.wrong_charges(accounts[1]) == []


async def test_records_that_are_no_longer_kept_are_not_missed(site: Site) -> None:
    call = await settled(site, await site.account(), 50)
    await tamper(site, delete(cdr).where(cdr.c.id == call))
    booked = update(ledger_entry).where(ledger_entry.c.id == call)
    await tamper(site, booked.values(created_at=time_at(site.clock.unix_s() - 10 * 86_400)))
    for kept_days, missing in ((9, 0), (30, 1), (0, 1)):
        checking = charge_check_on(site.database, site.clock, kept_days=kept_days)
        count = ChargeCount()
        assert [len(page) async for page in checking.check(None, 0.0, count)] == [missing] * (missing or kept_days > 10)


async def test_a_call_that_no_edge_knows_is_found_unless_it_ended_or_the_edges_cannot_be_asked(site: Site) -> None:
    account_id = await site.account()
    edges = EdgeCallList()
    call = await site.admit(account_id)
    edges.missing = {call}
    assert (await check(site, edges=edges))[0] == [], "it is too young"
    site.clock.advance(KNOWN_AFTER_S + 1)
    assert (await check(site, edges=edges))[0] == ["call-unknown"]
    edges.missing = None
    found, count = await check(site, edges=edges)
    assert (found, count.edges_asked) == ([], False)
    edges.missing = {call}
    await site.app.ended(site.ended(call, account_id, 5))
    assert (await check(site, edges=edges))[0] == []


async def test_a_hold_beside_its_record_and_one_that_nobody_reaps_are_found(site: Site) -> None:
    account_id = await site.account()
    call = await site.admit(account_id)
    site.clock.advance(5_000)
    assert (await check(site))[0] == ["hold-stuck"]
    await site.app.reap_once()
    assert (await check(site))[0] == ["hold-stuck"]
    await site.app.record_once(site.clock.unix_s())
    assert (await check(site))[0] == []
    await tamper(site, update(hold).where(hold.c.id == call).values(stage=1))
    assert (await check(site))[0] == ["hold-left"]


async def test_a_check_by_itself_leaves_numbers_of_all_kinds(site: Site) -> None:
    call = await settled(site, await site.account(), 50)
    checking = charge_check_on(site.database, site.clock)
    assert (checking.found, checking.checked_at_s) == ({}, 0.0)
    await checking.run_once()
    assert checking.found == dict.fromkeys(FindingKind, 0)
    await tamper(site, update(cdr).where(cdr.c.id == call).values(price_micros=1))
    await checking.run_once()
    assert {kind for kind, n in checking.found.items() if n} == {FindingKind.UNDERCHARGED, FindingKind.ENTRY_DIFFERS}
    assert checking.checked_at_s == site.clock.unix_s()
