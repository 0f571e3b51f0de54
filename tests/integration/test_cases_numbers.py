"""Cases on a running system with two edges: numbers of accounts and trunks stay with us and follow their owner."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Site, Sites

pytestmark = pytest.mark.cases

OTHER_REALM = "other.example"
PBX_HOST = "127.0.0.77"
BOBS, PBXS, OTHERS = "+4930222", "+4930333", "+4930444"


class Called:
    """A system whose second edge is called; everybody else is at the first."""

    def __init__(self, site: Site, alices: Phones) -> None:
        self.site, self.alices = site, alices

    async def command(self, line: str) -> None:
        code, text = await self.site.operator.command(*line.split())
        assert code == 0, text

    async def call(self, number: str) -> tuple[int, PhoneCall]:
        """alice's call; the one that was answered is over."""
        call = self.alices.call("alice", PASSWORD, DEFAULT_REALM, number)
        status = await call.status
        if status == 200:
            assert await self.alices.hang_up(call) == 200
        return status, call

    async def price_micros(self, call: PhoneCall) -> int:
        async def prices() -> list[int]:
            calls = await self.site.operator.calls("alice")
            return [one.price_micros for one in calls if one.call_id == call.call_id and one.state == "settled"]

        (micros,) = await eventually(prices, what="the call is settled")
        return micros

    async def rings(self, phones: Phones, name: str, realm: str = DEFAULT_REALM) -> None:
        """Returns when the second edge knows the phone."""

        async def found() -> bool:
            call = self.alices.call("alice", PASSWORD, realm, name)
            status = await call.status
            return status == 200 and await self.alices.hang_up(call) == 200

        await eventually(found, what=f"the second edge knows {name}")
        assert phones.incoming


@asynccontextmanager
async def called(site: Sites) -> AsyncIterator[Called]:
    env = {"edge-proxy": {"CALLWARDEN_REALMS": f"{DEFAULT_REALM},{OTHER_REALM}"}}
    async with site(processes={"edge-proxy": 2, "auth": 2}, env=env) as s:
        await s.operator.account("alice", credit_micros=10_000_000)
        async with Phones(s.system.sip_addresses[1]) as alices:
            yield Called(s, alices)


async def test_a_number_is_its_owners_from_the_moment_it_is_given_until_it_is_taken_away(site: Sites) -> None:
    async with called(site) as s:
        carrier, operator = s.site.carrier, s.site.operator
        async with Phones(s.site.system.sip_addresses[0]) as bobs, Phones(s.site.system.sip_addresses[0]) as carols:
            for name, phones in (("bob", bobs), ("carol", carols)):
                await operator.account(name)
                assert await phones.register(name, PASSWORD, DEFAULT_REALM) == 200
                await s.rings(phones, name)
            status, outside = await s.call(BOBS)
            assert (status, carrier.incoming) == (200, 1)  # nobody's so far
            rung = bobs.incoming

            # Given while the phone is registered: it doesn't register again.
            await s.command(f"account set bob --add-number {BOBS}")
            status, inside = await s.call(BOBS)
            assert (status, bobs.incoming, carrier.incoming) == (200, rung + 1, 1)

            await s.command(f"account set bob --remove-number {BOBS}")
            await s.command(f"account set carol --add-number {BOBS}")
            rung = carols.incoming
            status, _ = await s.call(BOBS)
            assert (status, carols.incoming, carrier.incoming) == (200, rung + 1, 1)

            # What is known stays known while NATS and the database are away, or one of two auth processes dies.
            await s.site.system.kill("auth")
            assert await carols.register("carol", PASSWORD, DEFAULT_REALM, expires_s=0) == 200

            async def is_gone() -> bool:
                call = s.alices.call("alice", PASSWORD, DEFAULT_REALM, BOBS)
                found = await call.status
                return found == 480 or (found == 200 and not await s.alices.hang_up(call))

            await eventually(is_gone, what="the second edge has forgotten carol")
            await s.site.system.kill("nats")
            assert (await s.call(BOBS))[0] == 480
            await s.site.system.restart("nats")
            assert carrier.incoming == 1

            await s.command(f"account set carol --remove-number {BOBS}")

            async def is_outside() -> bool:
                return (await s.call(BOBS))[0] == 200

            # Its event may have been told while auth was still coming back to NATS; then it reads all of them.
            await eventually(is_outside, what="the number is nobody's")
            assert carrier.incoming == 2
            assert await s.price_micros(inside) == 0
            (record,) = [one for one in await operator.calls("alice") if one.call_id == outside.call_id]
            assert record.trunk == "carrier"


async def test_a_user_whose_name_is_of_digits_is_local_from_the_moment_there_is_one(site: Sites) -> None:
    async with called(site) as s:
        assert (await s.call("4930444"))[0] == 200
        assert s.site.carrier.incoming == 1
        await s.site.operator.account("4930444")

        async def is_local() -> bool:
            return (await s.call("4930444"))[0] == 480

        await eventually(is_local, what="auth knows the user")
        before = s.site.carrier.incoming
        assert (await s.call("+4930444"))[0] == 200
        assert s.site.carrier.incoming == before + 1
        async with Phones(s.site.system.sip_addresses[0]) as desks:
            assert await desks.register("4930444", PASSWORD, DEFAULT_REALM) == 200
            await s.rings(desks, "4930444")
        assert s.site.carrier.incoming == before + 1


async def test_a_number_whose_owner_is_away_is_480_and_costs_nothing(site: Sites) -> None:
    async with called(site) as s:
        await s.site.operator.account("bob", numbers=(BOBS,))
        status, call = await s.call(BOBS)
        assert status == 480

        async def reasons() -> list[str]:
            reply = await s.site.operator.explain(call.call_id)
            return [one.refused.reason for one in reply.decisions]

        assert await eventually(reasons, what="the refusal is recorded") == ["not-registered"]
        alice = await s.site.operator.get("alice")
        assert (alice.balance_micros, alice.held_micros, alice.lines_in_use) == (10_000_000, 0, 0)
        assert s.site.carrier.incoming == 0


async def test_a_pbx_gets_its_numbers_at_its_address_and_no_carrier_does_while_it_is_away(site: Sites) -> None:
    async with called(site) as s, Phones(s.site.system.sip_addresses[0], host=PBX_HOST) as pbx:
        account = await s.site.operator.account("office", kind="traffic-sender", prepaid=False, password=None)
        await s.command(f"trunk add office-pbx --address {pbx.address} --direction traffic-sender --account {account}")
        await s.command(f"account set office --add-number {PBXS}")
        status, call = await s.call(PBXS)
        assert (status, pbx.incoming, s.site.carrier.incoming) == (200, 1, 0)
        assert await s.price_micros(call) == 0
        await s.command("trunk set office-pbx --disable")
        assert (await s.call(PBXS))[0] == 480
        assert (pbx.incoming, s.site.carrier.incoming) == (1, 0)


async def test_a_number_of_another_realms_account_rings_there_and_at_no_namesake(site: Sites) -> None:
    async with called(site) as s:
        first = s.site.system.sip_addresses[0]
        async with Phones(first) as bobs, Phones(first) as namesakes:
            await s.site.operator.account("bob")
            await s.site.operator.account("bob", realm=OTHER_REALM, numbers=(OTHERS,))
            assert await bobs.register("bob", PASSWORD, DEFAULT_REALM) == 200
            assert (await s.call(OTHERS))[0] == 480  # its owner is another bob, who isn't registered
            assert await namesakes.register("bob", PASSWORD, OTHER_REALM) == 200

            async def rings() -> bool:
                return (await s.call(OTHERS))[0] == 200

            await eventually(rings, what="the second edge knows the other bob")
            assert (bobs.incoming, s.site.carrier.incoming) == (0, 0)
            assert namesakes.incoming == 1
