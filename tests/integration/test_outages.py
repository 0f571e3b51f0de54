"""Each part is away, shortly and for longer than a hold lasts, while calls are set up, talk, and have just ended.

Where the edge lived, what is charged is what was talked: the talk's length is known from both ends (a call lasts at
least from the 200 that the caller got to the BYE that was sent, and at most from the 200 that the callee sent to the
answer to the BYE). Where nothing could grant more talk time the edge cuts, and the grace, at most, isn't charged. Where
the edge died, what was granted is charged at most.

With CALLWARDEN_OUTAGES each run leaves what it measured in that folder: `make outages` makes docs/outages.md of it.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.integration import outages_report
from tests.integration.outages import ALL_PHASES, CALLS, OUTAGES, PARTS, Outage, place_for, run, wrong_of

pytestmark = [pytest.mark.cases, pytest.mark.long, pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.mark.parametrize("outage", [pytest.param(outage, id=outage.name.replace(" ", "-")) for outage in OUTAGES])
@pytest.mark.parametrize("part", PARTS)
async def test_talked_seconds_are_charged_whatever_is_away(state_dir: Path, part: str, outage: Outage) -> None:
    async with place_for(state_dir, outage) as place:
        killed_s = await run(place, part, outage)
        wrong = {
            f"{one.phase} ({number})": said
            for number, one in enumerate(place.measured)
            if (said := wrong_of(place, one, part, outage, killed_s))
        }
        assert wrong == {}
        cells = outages_report.cells_of(place, part, outage)
        assert [(cell.phase, cell.calls) for cell in cells] == [(phase, CALLS) for phase in ALL_PHASES]
        sys.stdout.write(f"{part} away for {outage.away_s} s: {len(cells)} cells, {len(place.measured)} calls\n")
        if folder := os.environ.get("CALLWARDEN_OUTAGES"):
            outages_report.write(Path(folder), cells)
