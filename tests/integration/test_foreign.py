"""A SIP stack that isn't ours, on both sides of the edge."""

from collections.abc import Callable
from pathlib import Path

import pytest

from callwarden.testing import sipp
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.programs import needs_program
from tests.integration.conftest import Sites
from tests.integration.test_limits import books_are_right

CALLS = 200


@needs_program("sipp", "sip-tester")
@pytest.mark.timeout(120)
async def test_sipp_is_challenged_admitted_relayed_and_settled(
    site: Sites, tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    async with site() as s, sipp.Answerer("answerer.xml", tmp_path / "carrier", free_udp_port()) as carrier:
        # A longer prefix than the site's own carrier: these calls go to SIPp.
        await s.operator.carrier(carrier.address, name="sipp", prefix="49301")
        await s.operator.apply_policy(sipp.POLICY)
        users = [f"user{number}" for number in range(10)]
        for user in users:
            await s.operator.account(user, lines=100, credit_micros=100_000_000)
        injection = sipp.users_file(tmp_path / "users.csv", [(user, PASSWORD) for user in users])
        result = await sipp.run(
            "caller.xml",
            s.system.sip_address,
            folder=tmp_path / "caller",
            local_port=free_udp_port(),
            injection=injection,
            called="493012345",
            realm=DEFAULT_REALM,
            calls=CALLS,
            rate=50,
            hold_ms=500,
        )
        assert (result.successful, result.failed) == (CALLS, 0), result.errors
        await books_are_right(s)
        settled = [call for call in await s.operator.calls() if call.state == "settled"]
        assert len(settled) == CALLS
        assert {call.trunk for call in settled} == {"sipp"}
        assert {call.reason for call in settled} == {"caller-bye"}
        assert s.carrier.incoming == 0
