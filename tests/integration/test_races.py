"""Every limit is exact while many processes race for its last unit: over by none, under by none.

Each row of the table (racing.py) is one limit: the policy and the account that set it, how many calls fit, and what
every other call is told. Three races a row, each of hundreds of requests at once over several processes and
connections:

1. On a fresh account exactly `fits` calls are admitted. They end unanswered.
2. What an unanswered call gives back is there again for exactly as many (`after_unanswered`). They end after having
   talked all that they were granted.
3. What that has left, exactly (`after_talk`).

Calls of a second are there again before a race is over: two races, judged by when each call was decided.

Every row has a realm of its own, so that rows don't meet. Whether money is kept while processes die is in test_kills.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from callwarden.testing.servers import Servers
from tests.integration.races_table import RACES, Race
from tests.integration.racing import Track, in_force, open_accounts, policy_of, run, track_on

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def track(callwarden_servers: Servers) -> AsyncIterator[Track]:
    """One system for all rows, with every row's policy in force."""
    async with track_on(callwarden_servers, "\n---\n".join(policy_of(race) for race in RACES)) as laid:
        yield laid


@pytest.mark.parametrize(
    "race",
    [pytest.param(race, id=race.name, marks=[pytest.mark.setting(row) for row in race.settings]) for race in RACES],
)
async def test_of_hundreds_at_once_exactly_as_many_are_admitted_as_fit(track: Track, race: Race) -> None:
    async with in_force(track, race):
        await run(track, await open_accounts(track, race), race)
