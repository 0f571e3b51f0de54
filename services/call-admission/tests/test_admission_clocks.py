"""An edge's clock may be ahead or behind: a call is charged for the talk that the edge measured."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from admission_site import Site, running

from callwarden.call_admission.model.calls import Ended, Started
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
