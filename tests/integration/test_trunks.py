"""Calls that come in by a trunk, known by its address: they are its account's, and reach what the trunk may reach."""

import pytest

from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Site, Sites

SWITCH: str = "127.0.0.77"


async def command(site: Site, line: str) -> str:
    code, text = await site.operator.command(*line.split())
    assert code == 0, text
    return text


async def rule_of(site: Site, call: PhoneCall) -> str:
    """The rule that refused the call, as `explain` tells it."""

    async def found() -> list[str]:
        reply = await site.operator.explain(call.call_id)
        return [one.refused.rule for one in reply.decisions if one.outcome == "refuse"]

    (rule,) = await eventually(found)
    return rule


@pytest.mark.setting("onlylocalaccess")
async def test_a_trunks_calls_reach_local_users_only_or_its_prefixes_only(site: Sites) -> None:
    async with (
        site() as s,
        Phones(s.system.sip_address, host=SWITCH) as switch,
        Phones(s.system.sip_address) as phones,
    ):
        await s.operator.account("alice", numbers=("+4940123456",))
        assert await phones.register("alice", PASSWORD, DEFAULT_REALM) == 200
        account = await s.operator.account(
            "switch", kind="traffic-sender", prepaid=False, password=None, credit_micros=0
        )
        await command(
            s, f"trunk add pbx --address {SWITCH}:5060 --direction traffic-sender --account {account} --only-local"
        )

        def call(number: str) -> PhoneCall:
            return switch.call("+4930555", "", DEFAULT_REALM, number)

        async def local() -> PhoneCall | None:
            one = call("+4940123456")
            return one if await one.status == 200 else None

        # auth hears of the trunk in a moment; until then its address is a stranger's.
        answered = await eventually(local)
        assert answered is not None
        await switch.hang_up(answered)
        abroad = call("+493012345")
        assert await abroad.status == 403
        assert await rule_of(s, abroad) == "only_local"
        assert s.carrier.incoming == 0

        # The same trunk, changed while it runs.
        await command(s, "trunk set pbx --all-numbers --allow-prefix 4930 --block-prefix 49309")

        async def outside() -> PhoneCall | None:
            one = call("+493012345")
            return one if await one.status == 200 else None

        answered = await eventually(outside)
        assert answered is not None
        await switch.hang_up(answered)
        assert s.carrier.incoming == 1
        for number in ("+4930912345", "+498912345"):
            refused = call(number)
            assert await refused.status == 403, number
            assert await rule_of(s, refused) == "destinations"
        # Another's calls to these numbers are none of the trunk's business.
        await s.operator.account("bob", credit_micros=10_000_000)
        other = phones.call("bob", PASSWORD, DEFAULT_REALM, "498912345")
        assert await other.status == 200
        await phones.hang_up(other)
        (first, *_) = [one for one in await s.operator.calls("switch") if one.destination == "493012345"]
        assert (first.account, first.caller_number) == ("switch", "+4930555")
