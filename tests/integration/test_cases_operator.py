"""Cases of what an operator does to a running system: hostile and mistaken policies, prices, and an edge on IPv6."""

import time

import pytest

from callwarden.local.system import LocalSystem
from callwarden.testing.edges import Edges, TrackedCall
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Sites
from tests.integration.wire import SDP, Datagram, Wire, WireCall, message, reply

pytestmark = [pytest.mark.cases, pytest.mark.timeout(400)]

HEAD = "apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {name: main}\nspec: "
# r1: first and next increments that differ, and a connect fee.
DECK = (
    "prefix,rate,connect_fee,first_increment_s,next_increment_s\n"
    "49,0.001,0,60,1\n44,0.10,0.0043,1,1\n33,0.001,0,60,60\n"
)
# Destination, seconds of talk, and their price: seconds by increments × rate / 60 + fee, in microunits.
PRICES = [("4930123456", 7, 1_000), ("442071234567", 7, 15_967), ("33123456789", 59, 1_000)]


async def test_a_policy_that_is_nested_without_end_or_denies_everybody_stops_no_call_for_good(site: Sites) -> None:
    """F13, deny0, pol_long"""
    async with site(processes={"edge-proxy": 2}) as s, Phones(s.system.sip_addresses[1]) as phones:
        await s.operator.account("alice", credit_micros=10_000_000)

        async def calls() -> bool:
            call = phones.call("alice", PASSWORD, DEFAULT_REALM, "4930123456")
            return await call.status == 200 and await phones.hang_up(call) == 200

        await eventually(calls, what="a call is put through")
        for opening in ("[", "{a: "):
            code, output = await s.operator.command("policy", "apply", "-f", "-", stdin=HEAD + opening * 25_000)
            assert code == 1
            assert "nested more than" in output
            assert "Traceback" not in output
        assert await calls()
        assert "every IPv4 address" in await s.operator.apply_policy(HEAD + "{firewall: {deny: [0.0.0.0/0]}}")
        async with Wire("127.0.9.3") as stranger:
            call = WireCall(stranger, s.system.sip_addresses[1], "denied", "alice")
            options = message(f"OPTIONS sip:{DEFAULT_REALM} SIP/2.0", call.lines("OPTIONS"))
            with pytest.raises(AssertionError, match="did not come"):
                await stranger.ask(options, call.edge, call.is_answer)
            # Who denied everybody isn't shut out himself.
            await s.operator.apply_policy(HEAD + "{session: {callTimeout: 72h, absoluteTimeout: 72h}}")
            assert (await stranger.ask(options, call.edge, call.is_answer)).status == 200
        assert await calls()


async def test_increments_and_fees_are_charged_as_the_deck_has_them(site: Sites) -> None:
    """r1"""
    async with site() as s, Edges(s.system) as edges:
        await edges.connected()
        await s.operator.deck("r1", DECK)
        account = await s.operator.account("alice", deck="r1", credit_micros=10_000_000)
        calls = [TrackedCall(account, number, at_s=time.time() - talk_s - 1) for number, talk_s, _ in PRICES]
        for call, (_, talk_s, _) in zip(calls, PRICES, strict=True):
            assert (await edges.admit(call, 0)).HasField("admitted")
            call.answered_at_s = call.at_s + 1
            call.ended_at_s = call.answered_at_s + talk_s
            edges.started(call)
            edges.ended(call)
        await edges.flush()

        async def prices() -> dict[str, int]:
            records = await s.operator.calls("alice")
            return {one.destination: one.price_micros for one in records if one.state == "settled"}

        async def all_settled() -> bool:
            return len(await prices()) == len(PRICES)

        await eventually(all_settled, timeout_s=30, what="the calls are settled")
        assert await prices() == {number: price for number, _, price in PRICES}
        audit = await s.operator.audit()
        assert audit.balance_sum_micros == audit.ledger_sum_micros


async def test_a_call_goes_to_a_carrier_on_ipv6_by_an_address_that_can_be_read(site: Sites) -> None:
    """F11"""
    async with (
        LocalSystem(processes={"edge-proxy": 2}, sip_listen="[::1]:0") as system,
        OperatorClient(system) as operator,
        Wire("::1") as caller,
        Wire("::1") as carrier,
    ):
        first, second = system.sip_addresses
        await operator.deck()
        await operator.carrier(carrier.address)
        await operator.account("alice", credit_micros=10_000_000)
        call = WireCall(caller, first, "ipv6", "alice")

        def of_call(got: Datagram) -> bool:
            return got.get("call-id") == call.call_id

        caller.send(await call.start(), first)
        invite = await carrier.until(lambda got: got.method == "INVITE" and of_call(got), "the INVITE")
        assert invite.start == f"INVITE sip:4930123456@{carrier.address} SIP/2.0"
        assert invite.all("via")[0].startswith(f"SIP/2.0/UDP {first};")
        carrier.send(reply(invite, 200, "gw", [f"Contact: <sip:gw@{carrier.address}>"], SDP), invite.source)
        ok = await caller.until(lambda got: got.status == 200 and of_call(got), "the 200")
        call.learn(ok)
        caller.send(call.inside("ACK", second), second)
        await carrier.until(lambda got: got.method == "ACK" and of_call(got), "the ACK")
        bye = call.inside("BYE", second)
        caller.send(bye, second)
        came = await carrier.until(lambda got: got.method == "BYE" and of_call(got), "the BYE")
        carrier.send(reply(came, 200), came.source)
        await caller.until(lambda got: got.status == 200 and "BYE" in got.get("cseq") and of_call(got), "its answer")

        async def reason() -> str:
            return next((one.reason for one in await operator.calls("alice") if one.state == "settled"), "")

        assert await eventually(reason, timeout_s=30) == "caller-bye"
