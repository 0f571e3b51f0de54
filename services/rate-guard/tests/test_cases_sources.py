"""Cases: who is exempt from bans, where a /64 counts as one source."""

import pytest

from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Reason
from callwarden.rate_guard.core import bans
from callwarden.rate_guard.core.addresses import Networks
from callwarden.rate_guard.core.counters import ExceededLimit


@pytest.mark.cases
def test_a_64_is_exempt_if_any_of_its_addresses_is_and_an_endpoint_by_its_own() -> None:
    never = Networks(["2001:db8:0:1::5"])
    assert "2001:db8:0:1::/64" in never
    assert "2001:db8:0:2::/64" not in never
    excess = ExceededLimit("[2001:db8:0:1::6]:5060", Reason.CREDENTIALS, "")
    assert bans.for_excess(excess, 60, never, UnixS(0.0)) is not None
    for target in ("2001:db8:0:1::/64", "[2001:db8:0:1::5]:5060"):
        assert bans.for_excess(ExceededLimit(target, Reason.CREDENTIALS, ""), 60, never, UnixS(0.0)) is None
