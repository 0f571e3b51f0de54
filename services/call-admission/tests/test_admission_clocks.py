"""Clocks of edges, and our own, may be wrong and may be set: a call is charged for the talk that the edge measured."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from admission_site import Site, running

from callwarden.call_admission.admission.core.commands import Extended
from callwarden.call_admission.admission.core.expiry_clock import REMEMBERED_S, STEP_S, ExpiryClock
from callwarden.call_admission.model.calls import Ended, ExtendRequest, Started
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.testing.clock import FakeClock

SKEWS_S = [-3_600.0, -5.0, -2.0, 0.0, 2.0, 5.0, 3_600.0]
RING_S = 8.0
TALK_S = 5.0


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


@pytest.mark.cases
@pytest.mark.parametrize("skew_s", SKEWS_S)
async def test_talked_seconds_are_charged_whatever_the_edges_clock_says(site: Site, skew_s: float) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id, start_s=site.clock.unix_s() + skew_s)
    site.clock.advance(RING_S)
    answered_at_s = site.clock.unix_s() + skew_s
    await site.app.started(Started(hold_id, account_id, answered_at_s, "carrier"))
    site.clock.advance(TALK_S)
    # Nobody asked for more yet: the hold must outlive what was granted, by our clock.
    await site.app.reap_once()
    ended_at_s = answered_at_s + TALK_S
    assert await site.app.ended(Ended(hold_id, account_id, answered_at_s, ended_at_s, "caller-bye", 200, "carrier"))
    (call,) = await site.history.list(account_id, 0.0, 10, running=False)
    assert (call.state, call.duration_s, call.price_micros) == ("settled", 5, 5_000)
    assert site.app.edge_clocks.skew_s == {"edge-0": skew_s}
    assert call.started_at_s <= call.answered_at_s <= call.ended_at_s <= site.clock.unix_s()


@pytest.mark.cases
@pytest.mark.parametrize("skew_s", [-3_600.0, -5.0, 5.0, 3_600.0])
async def test_an_end_told_before_its_start_is_charged_alike(site: Site, skew_s: float) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id, start_s=site.clock.unix_s() + skew_s)
    site.clock.advance(RING_S + TALK_S)
    ended_at_s = site.clock.unix_s() + skew_s
    await site.app.ended(Ended(hold_id, account_id, ended_at_s - TALK_S, ended_at_s, "caller-bye", 200, "carrier"))
    (call,) = await site.history.list(account_id, 0.0, 10, running=False)
    assert (call.duration_s, call.price_micros) == (5, 5_000)


async def test_an_end_from_an_edge_that_knows_no_answer_and_whose_clock_is_behind_is_not_free(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    await site.app.started(Started(hold_id, account_id, site.clock.unix_s(), "carrier"))
    site.clock.advance(TALK_S)
    await site.app.ended(
        Ended(hold_id, account_id, None, site.clock.unix_s() - 3_600, "callee-bye", 200, "carrier"),
    )
    (call,) = await site.history.list(account_id, 0.0, 10, running=False)
    assert (call.duration_s, call.price_micros) == (5, 5_000)


@pytest.mark.cases
@pytest.mark.parametrize("is_told", [False, True])
async def test_an_end_from_an_edge_that_knows_no_answer_waits_for_the_one_that_does(site: Site, is_told: bool) -> None:
    """The BYE went by an edge without memory of the call, before the answer was told or even came."""
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    answered_at_s = site.clock.unix_s()
    bye_s = answered_at_s + TALK_S
    site.clock.advance(TALK_S)
    assert await site.app.ended(Ended(hold_id, account_id, None, bye_s, "caller-bye", 0, ""))
    if is_told:
        await site.app.started(Started(hold_id, account_id, answered_at_s, "carrier"))
    await site.app.ended(Ended(hold_id, account_id, answered_at_s, bye_s, "caller-bye", 0, "carrier"))
    (call,) = await site.history.list(account_id, 0.0, 10, running=False)
    assert (call.state, call.reason, call.duration_s, call.price_micros) == ("settled", "caller-bye", 5, 5_000)


@pytest.mark.cases
@pytest.mark.parametrize("step_s", [-3_600.0, -5.0, 5.0, 3_600.0, 86_400.0])
async def test_a_call_goes_on_when_our_clock_is_set_and_is_charged_for_its_talk(site: Site, step_s: float) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    answered_at_s = site.clock.unix_s()  # as its edge knows it, whose clock is right
    await site.app.started(Started(hold_id, account_id, answered_at_s, "carrier"))
    site.clock.step_wall(step_s)
    granted_s = 60
    for passed_s in (55.0, 60.0, 60.0):
        site.clock.advance(passed_s)
        await site.app.reap_once()
        extended = await site.app.extend(ExtendRequest(hold_id, "call", account_id, answered_at_s, granted_s))
        assert isinstance(extended, Extended)
        granted_s = extended.hold.granted_s
    await site.app.ended(Ended(hold_id, account_id, answered_at_s, answered_at_s + 175.0, "caller-bye", 200, "carrier"))
    (call,) = await site.history.list(account_id, 0.0, 10, running=False)
    assert (call.state, call.duration_s, call.price_micros) == ("settled", 175, 175_000)
    account = await site.accounts.get(account_id, site.clock.unix_s())
    assert (account.held_micros, account.lines_in_use) == (0, 0)


async def test_after_a_step_ahead_a_hold_whose_end_is_never_told_lapses_later_by_the_step(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    await site.app.started(Started(hold_id, account_id, site.clock.unix_s(), "carrier"))
    site.clock.step_wall(3_600.0)
    site.clock.advance(600.0)
    assert await site.app.reap_once() == 1, "it was written before"
    await site.admit(account_id)
    site.clock.advance(600.0)
    assert await site.app.reap_once() == 0
    site.clock.advance(3_600.0)
    assert await site.app.reap_once() == 1


def at(clock: ExpiryClock, mono_s: float, ahead_s: float) -> float:
    """How far ahead of the monotonic clock it is."""
    return clock.at(MonoS(mono_s), UnixS(mono_s + ahead_s)) - mono_s


def test_a_step_ahead_is_followed_when_it_is_long_ago_and_a_step_back_at_once() -> None:
    clock = ExpiryClock()
    assert at(clock, 0, 1_000) == 1_000
    assert at(clock, 10, 4_600) == 1_000
    assert at(clock, 20, 4_000) == 1_000
    assert at(clock, 30, 500) == 500
    assert at(clock, 40, 1_000) == 500
    assert at(clock, 30 + REMEMBERED_S, 1_000) == 500
    assert at(clock, 31 + REMEMBERED_S, 1_000) == 1_000


@pytest.mark.parametrize(("step_s", "behind_s"), [(0.5, 0.5), (STEP_S, STEP_S), (STEP_S + 0.5, 0.0)])
def test_a_step_that_may_be_a_pause_is_none_and_a_longer_one_is_followed_in_time(
    step_s: float, behind_s: float
) -> None:
    clock = ExpiryClock()
    ahead_s = 1_000.0
    assert at(clock, 10, ahead_s) == ahead_s
    assert at(clock, 20, ahead_s + step_s) == ahead_s
    for mono_s in (20 + REMEMBERED_S, 30 + REMEMBERED_S):
        assert at(clock, mono_s, ahead_s + step_s) == ahead_s + step_s - behind_s


def test_a_clock_that_is_slewed_ahead_is_followed_to_a_second_or_two() -> None:
    clock = ExpiryClock()
    behind_s = 0.0
    for minute in range(3_000):
        ahead_s = minute * 0.06  # 1,000 ppm: twice what NTP does
        behind_s = max(behind_s, ahead_s - at(clock, minute * 60.0, ahead_s))
    assert behind_s <= 2.0 + REMEMBERED_S * 0.001
