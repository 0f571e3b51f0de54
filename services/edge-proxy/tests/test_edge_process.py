"""The edge as a process among the others: what happens to it, and to those it needs."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from callwarden.local.files import TemporaryFolder
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EDGES = 2
# Slices are short, so that calls are extended, and holds of calls nobody ends expire, within a test.
POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: short}
spec:
  spend: {slice: {first: 3s, next: 3s, minimum: 1s}, grace: 2s}
  session: {ringTimeout: 5s, callInitTimeout: 5s}
"""


class EdgeSite:
    """A system with two edges, an operator, a carrier, and the callers alice and bob."""

    def __init__(self, system: LocalSystem, operator: OperatorClient, carrier: Phones) -> None:
        self.system, self.operator, self.carrier = system, operator, carrier

    async def call(self, phones: Phones, to: str = "4930123456", user: str = "alice") -> PhoneCall:
        call = phones.call(user, PASSWORD, DEFAULT_REALM, to)
        assert await call.status == 200
        return call

    async def nothing_held(self) -> None:
        """Returns when alice has no line in use and no money held."""

        async def is_free() -> bool:
            account = await self.operator.get("alice")
            return (account.lines_in_use, account.held_micros) == (0, 0)

        await eventually(is_free, timeout_s=30, what="alice's calls are settled")

    async def settled(self, call: PhoneCall) -> str:
        """How the call's record says that it ended."""

        async def record() -> str:
            found = [one for one in await self.operator.calls() if one.call_id == call.call_id]
            return found[0].reason if found and found[0].state in ("settled", "expired") else ""

        reason: str = await eventually(record, timeout_s=30, what="the call is settled")
        return reason


@pytest.fixture
def closed_port() -> int:
    """A UDP port of this host at which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_site() -> AsyncIterator[EdgeSite]:
    """One system for all tests: most of what each would take is its start."""
    folder = TemporaryFolder("state")
    async with (
        LocalSystem(folder.path, processes={"edge-proxy": EDGES}, drain_timeout_s=4.0) as system,
        Phones(system.sip_address) as carrier,
        OperatorClient(system) as operator,
    ):
        await operator.deck()
        await operator.carrier(carrier.address)
        for user, numbers in (("alice", ()), ("bob", ("+4930222",)), ("carol", ())):
            await operator.account(user, lines=20, credit_micros=100_000_000, numbers=numbers)
        yield EdgeSite(system, operator, carrier)
    folder.remove()


@pytest_asyncio.fixture(loop_scope="module")
async def site(shared_site: EdgeSite) -> EdgeSite:
    """The system, in working order whatever the test before did to it, and with nothing of alice's under way."""
    await shared_site.operator.apply_policy(POLICY)
    async with Phones(shared_site.system.sip_address) as phones:

        async def works() -> bool:
            call = phones.call("carol", PASSWORD, DEFAULT_REALM, "4930123456")
            return await call.status == 200 and await phones.hang_up(call) == 200

        await eventually(works, timeout_s=60, what="a call is admitted again")
    await shared_site.nothing_held()
    return shared_site


async def test_who_registers_at_one_edge_is_called_through_the_other_by_name_and_number(site: EdgeSite) -> None:
    first, second = site.system.sip_addresses
    carried = site.carrier.incoming
    async with Phones(first) as bobs, Phones(second) as alices:
        assert await bobs.register("bob", PASSWORD, DEFAULT_REALM) == 200

        async def rings() -> bool:
            call = alices.call("alice", PASSWORD, DEFAULT_REALM, "bob")
            return await call.status == 200 and await alices.hang_up(call) == 200

        await eventually(rings, what="the other edge knows bob")
        by_number = await site.call(alices, "004930222")
        assert await alices.hang_up(by_number) == 200
        assert await site.settled(by_number) == "caller-bye"
        assert bobs.incoming >= 2
        assert site.carrier.incoming == carried
        assert await bobs.register("bob", PASSWORD, DEFAULT_REALM, expires_s=0) == 200

        async def gone() -> bool:
            call = alices.call("alice", PASSWORD, DEFAULT_REALM, "bob")
            status = await call.status
            if status == 200:  # it still knew him: nobody else would end this call
                assert await alices.hang_up(call) == 200
            return status == 404

        await eventually(gone, what="the other edge has forgotten bob")


async def test_an_edge_that_was_killed_lets_its_calls_end_when_it_is_back(site: EdgeSite) -> None:
    async with Phones(site.system.sip_address) as phones:
        call = await site.call(phones)
        await site.system.kill("edge-proxy")
        await site.system.restart("edge-proxy")
        assert await phones.hang_up(call) == 200
        assert await site.settled(call) in ("caller-bye", "expired")
        account = await site.operator.get("alice")
        assert (account.lines_in_use, account.held_micros) == (0, 0)


async def test_a_carrier_whose_host_says_that_nobody_listens_is_left_for_the_next_at_once(
    site: EdgeSite, closed_port: int
) -> None:
    """The system's ICMP error, over the real socket; without it the next route is tried after callInitTimeout."""
    await site.operator.carrier(f"127.0.0.1:{closed_port}", name="gone", prefix="4999", priority=0)
    await site.operator.apply_policy(POLICY.replace("callInitTimeout: 5s", "callInitTimeout: 60s"))
    async with Phones(site.system.sip_address) as phones, Phones(site.system.sip_address) as spare:
        await site.operator.carrier(spare.address, name="spare", prefix="4999", priority=1)

        async def answered() -> bool:
            call = phones.call("alice", PASSWORD, DEFAULT_REALM, "49991234567")
            # The carrier for all numbers answers while the new routes aren't known yet.
            return await call.status == 200 and await phones.hang_up(call) == 200 and spare.incoming == 1

        await eventually(answered, what="the second carrier answers")


async def test_a_call_to_a_carrier_that_is_gone_fails_at_once(site: EdgeSite, closed_port: int) -> None:
    await site.operator.carrier(f"127.0.0.1:{closed_port}", name="unreachable", prefix="4988")
    async with Phones(site.system.sip_address) as phones:

        async def refused() -> bool:
            # 503 while the new route isn't known yet; 408 would mean that timer B or callInitTimeout was waited for.
            call = phones.call("alice", PASSWORD, DEFAULT_REALM, "49881234567")
            status = await call.status
            assert status in (500, 200, 503)
            if status == 200:  # by the carrier for all numbers
                assert await phones.hang_up(call) == 200
            return status == 500

        await eventually(refused, what="the call is refused with 500")


async def test_another_edge_passes_and_settles_a_bye_by_its_cookie(site: EdgeSite) -> None:
    """As behind a load balancer that moves a phone, or when an edge is gone for good."""
    first, second = site.system.sip_addresses
    async with Phones(first) as phones:
        call = await site.call(phones)
        host, _, port = second.rpartition(":")
        phones._proxy = (host, int(port))
        # Its Route names the first edge, which is what a phone would send; the second one isn't that.
        call.routes = tuple(route.replace(first, second) for route in call.routes)
        assert await phones.hang_up(call) == 200
        assert await site.settled(call) == "caller-bye"


async def test_calls_come_about_and_end_while_nats_is_away_and_are_settled_after(site: EdgeSite) -> None:
    async with Phones(site.system.sip_address) as phones:
        running = await site.call(phones)
        await site.system.kill("nats")
        assert await phones.hang_up(running) == 200
        during = await site.call(phones)
        assert await phones.hang_up(during) == 200
        await site.system.restart("nats")
        assert await site.settled(running) == "caller-bye"
        assert await site.settled(during) == "caller-bye"
        account = await site.operator.get("alice")
        assert (account.lines_in_use, account.held_micros) == (0, 0)


async def test_a_call_goes_on_through_a_restart_of_admission(site: EdgeSite) -> None:
    # However long a start takes on a busy machine.
    await site.operator.apply_policy(POLICY.replace("grace: 2s", "grace: 60s"))
    async with Phones(site.system.sip_address) as phones:
        call = await site.call(phones)
        await site.system.kill("call-admission")
        await site.system.restart("call-admission")

        async def extended() -> bool:
            (one,) = [one for one in await site.operator.calls(running=True) if one.call_id == call.call_id]
            return one.duration_s >= 0 and not call.cut and await held() > first_held

        async def held() -> int:
            return int((await site.operator.get("alice")).held_micros)

        first_held = await held()
        await eventually(extended, timeout_s=60, what="the call has its next slice")
        assert await phones.hang_up(call) == 200
        assert await site.settled(call) == "caller-bye"


async def test_without_admission_a_call_is_cut_after_its_grace_and_the_next_is_refused(site: EdgeSite) -> None:
    async with Phones(site.system.sip_address) as phones:
        call = await site.call(phones)
        await site.system.kill("call-admission")
        assert await phones.call("alice", PASSWORD, DEFAULT_REALM, "4930999").status == 503
        async with asyncio.timeout(30):
            await call.ended.wait()
        assert call.cut
        await site.system.restart("call-admission")
        assert await site.settled(call) in ("cut-unavailable", "expired")


async def test_an_edge_that_is_told_to_stop_hands_its_calls_to_the_other(site: EdgeSite) -> None:
    async with Phones(site.system.sip_address) as phones:
        ends, stays = await site.call(phones), await site.call(phones, "4930777")
        stopping = asyncio.ensure_future(site.system.stop("edge-proxy"))
        assert await phones.hang_up(ends) == 200
        await stopping  # with exit code 0
        assert not stays.ended.is_set()
        await site.system.restart("edge-proxy")
        assert await phones.hang_up(stays) == 200
        assert [await site.settled(call) for call in (ends, stays)] == ["caller-bye"] * 2


async def test_edges_that_are_all_told_to_stop_drain(site: EdgeSite) -> None:
    """No new calls, running ones may end; what doesn't is cut, and nothing is lost."""
    async with Phones(site.system.sip_address) as phones:
        ends, stays = await site.call(phones), await site.call(phones, "4930777")
        stopping = [asyncio.ensure_future(site.system.stop("edge-proxy", number)) for number in range(EDGES)]

        async def refuses() -> bool:
            return await phones.call("alice", PASSWORD, DEFAULT_REALM, "4930888").status == 503

        await eventually(refuses, what="the edge refuses new calls")
        assert await phones.hang_up(ends) == 200
        async with asyncio.timeout(20):
            await stays.ended.wait()
        await asyncio.gather(*stopping)  # with exit code 0
        for number in range(EDGES):
            await site.system.restart("edge-proxy", number)
        assert stays.cut
        assert await site.settled(ends) == "caller-bye"
        assert await site.settled(stays) == "edge-drain"


async def test_wrong_settings_are_one_clear_line() -> None:
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "callwarden.edge_proxy.main",
        env={"PATH": "/usr/bin", "CALLWARDEN_NONCE_KEY": "5ec2e7", "CALLWARDEN_SIP_LISTEN": "127.0.0.1:0"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, shown = await process.communicate()
    assert process.returncode == 2
    assert shown.count(b"\n") == 1
    assert b"nonce_key" in shown
    assert b"5ec2e7" not in shown
