"""Cases inside calls on two running edges: the first sets the call up, the second, without memory of it, gets the rest.

Each case has an account of its own. What is asked each time: is the call up at the carrier, or ended and charged?
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.testing.operator import DEFAULT_REALM
from callwarden.testing.waiting import eventually
from tests.integration.two_edges import TwoEdges, two_edges
from tests.integration.wire import SDP, Datagram, WireCall, message, reply, token

pytestmark = [pytest.mark.cases, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

CREDIT_MICROS = 10_000_000
POOR_MICROS = 6_000  # 6 s of talk
RECORDED_S = 4.0  # after the answer, the second edge can know of the call
CSEQ_END = 2**31
POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: cases}
spec:
  fraud: {dynamicList: {enabled: false}, smartList: {enabled: false}}
  firewall: {allow: [127.0.0.0/8]}
"""


@dataclass(frozen=True, slots=True)
class AnsweredDialog:
    """A call that was answered, and acknowledged by the second edge."""

    site: TwoEdges
    call: WireCall
    invite: Datagram
    """As it came to the carrier."""
    tag: str

    def at_carrier(self, method: str) -> list[Datagram]:
        return [
            got for got in self.site.carrier.got if got.method == method and got.get("call-id") == self.call.call_id
        ]

    def at_caller(self, method: str) -> list[Datagram]:
        return [got for got in self.site.caller.got if got.method == method and got.get("call-id") == self.call.call_id]

    async def carrier_answers(self, method: str, status: int) -> Datagram:
        """The next request of that method, once it has come."""
        came = await self.site.carrier.until(
            lambda got: got.method == method and got.get("call-id") == self.call.call_id, f"{method} at the carrier"
        )
        self.site.carrier.send(reply(came, status), came.source)
        return came

    def from_carrier(self, method: str, edge: str, cseq: int = 1, uri: str = "", *, routes: bool = True) -> str:
        lines = [
            f"Via: SIP/2.0/UDP {self.site.carrier.address};branch=z9hG4bK{token()}",
            "Max-Forwards: 70",
            *(f"Route: {route.replace(self.site.first, edge)}" for route in self.invite.all("record-route") if routes),
            f"From: {self.call.to}",
            f"To: {self.invite.get('from')}",
            f"Call-ID: {self.call.call_id}",
            f"CSeq: {cseq} {method}",
        ]
        return message(f"{method} {uri or f'sip:any@{self.site.caller.address}'} SIP/2.0", lines)

    async def hang_up(self, edge: str) -> None:
        asking = asyncio.ensure_future(self.call.ask("BYE", edge))
        await self.carrier_answers("BYE", 200)
        assert await asking == 200

    async def record(self) -> pb.Call:
        async def settled() -> pb.Call | None:
            found = [one for one in await self.site.operator.calls(self.call.user) if one.state == "settled"]
            return found[0] if found else None

        found = await eventually(settled, timeout_s=40, what="the call is settled")
        assert found is not None
        account = await self.site.operator.get(self.call.user)
        assert (account.lines_in_use, account.held_micros) == (0, 0)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[TwoEdges]:
    async with two_edges("127.0.9.1", "127.0.9.2", POLICY) as running:
        yield running


async def invited(
    site: TwoEdges, user: str, *, credit_micros: int = CREDIT_MICROS, contact: str = ""
) -> AnsweredDialog:
    """The INVITE has come to the carrier."""
    await site.operator.account(user, credit_micros=credit_micros)
    call = WireCall(site.caller, site.first, user, user, **({"contact": contact} if contact else {}))
    site.caller.send(await call.start(), site.first)
    came = await site.carrier.until(
        lambda got: got.method == "INVITE" and got.get("call-id") == call.call_id, "the INVITE"
    )
    return AnsweredDialog(site, call, came, token())


async def answered(talk: AnsweredDialog, *, contact: bool = True) -> AnsweredDialog:
    site, call = talk.site, talk.call
    more = [f"Contact: <sip:gw@{site.carrier.address}>"] if contact else []
    site.carrier.send(
        reply(talk.invite, 200, talk.tag, [*more, "Content-Type: application/sdp"], SDP), talk.invite.source
    )
    ok = await site.caller.until(
        lambda got: got.status == 200 and got.get("call-id") == call.call_id and "INVITE" in got.get("cseq"), "the 200"
    )
    call.learn(ok)
    call.target = call.target or f"sip:gw@{site.carrier.address}"
    site.caller.send(call.inside("ACK", site.second), site.second)
    await site.carrier.until(
        lambda got: got.method == "ACK" and got.get("call-id") == call.call_id, "the ACK by the second edge"
    )
    return talk


async def is_served(site: TwoEdges, edge: str) -> bool:
    """Whether that edge answers others."""
    options = WireCall(site.caller, edge, "ping", "somebody", uri=f"sip:{DEFAULT_REALM}")
    ping = message(f"OPTIONS {options.uri} SIP/2.0", options.lines("OPTIONS"))
    return (await site.caller.ask(ping, edge, options.is_answer)).status == 200


async def test_of_two_200s_by_forking_one_is_the_call_and_the_edge_ends_the_other(site: TwoEdges) -> None:
    talk = await answered(await invited(site, "forked"))
    other = reply(talk.invite, 200, "other", [f"Contact: <sip:other@{site.carrier.address}>"], SDP)
    site.carrier.send(other, talk.invite.source)
    for method in ("ACK", "BYE"):
        came = await site.carrier.until(
            lambda got, method=method: (  # type: ignore[misc]
                got.method == method and got.get("call-id") == talk.call.call_id and "tag=other" in got.get("to")
            ),
            f"{method} for the other fork",
        )
    site.carrier.send(reply(came, 200), came.source)
    assert await talk.call.ask("BYE", site.second, to=talk.call.to.replace(talk.tag, "other")) == 481
    assert [one.state for one in await site.operator.calls("forked", running=True)] == ["running"]
    site.carrier.got[:] = [got for got in site.carrier.got if got.method != "BYE"]
    await talk.hang_up(site.second)
    assert (await talk.record()).reason == "caller-bye"
    assert len(await site.operator.calls("forked")) == 1


async def test_a_carrier_is_never_asked_to_call_somebody_nor_told_who_calls_by_a_phone(site: TwoEdges) -> None:
    """F8"""
    talk = await answered(await invited(site, "refers"))
    for edge in (site.first, site.second):
        refer_to = "Refer-To: <sip:+4990012345@carrier.example>"
        assert await talk.call.ask("REFER", edge, [refer_to]) == 403
        asking = asyncio.ensure_future(
            talk.call.ask("UPDATE", edge, ["P-Asserted-Identity: <sip:+4930110@x>", "Remote-Party-ID: <sip:1@x>"])
        )
        came = await talk.carrier_answers("UPDATE", 200)
        assert await asking == 200
        assert (came.all("p-asserted-identity"), came.all("remote-party-id")) == ([], [])
        site.carrier.got.remove(came)
    assert talk.at_carrier("REFER") == []
    await talk.hang_up(site.second)
    assert (await talk.record()).reason == "caller-bye"


async def test_no_number_of_a_request_keeps_the_edge_from_ending_the_call(site: TwoEdges) -> None:
    """F3: CSeq at its end, at either edge; the credit of m05 that lasts for seconds."""
    for number, edge in enumerate((site.first, site.second)):
        talk = await answered(await invited(site, f"numbers{number}", credit_micros=POOR_MICROS))
        assert await talk.call.ask("INFO", edge, cseq=CSEQ_END - 1) == 400
        for came in (await talk.carrier_answers("BYE", 200), *talk.at_caller("BYE")):
            assert int(came.get("cseq").split()[0]) < CSEQ_END
        record = await talk.record()
        assert (record.reason, record.billed_s) == ("cut-credit", 6)


async def test_a_callee_without_a_contact_is_told_of_the_cut_where_its_invite_went(site: TwoEdges) -> None:
    """m05, of the 200"""
    talk = await answered(await invited(site, "contactless", credit_micros=POOR_MICROS), contact=False)
    await talk.carrier_answers("BYE", 200)
    assert (await talk.record()).reason == "cut-credit"


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_bye_that_the_carrier_refuses_ends_no_charge(site: TwoEdges, recorded: bool) -> None:
    """bye_wrong_to_tag: a low CSeq, an option that nobody knows, no hops left, by the second edge."""
    talk = await answered(await invited(site, f"refused{recorded}"))
    if recorded:
        await asyncio.sleep(RECORDED_S)
    assert await talk.call.ask("BYE", site.second, max_forwards=0) == 483
    asking = asyncio.ensure_future(talk.call.ask("BYE", site.second, ["Require: foo"]))
    came = await talk.carrier_answers("BYE", 420)
    assert await asking == 420
    site.carrier.got.remove(came)
    assert [one.state for one in await site.operator.calls(talk.call.user, running=True)] == ["running"]
    # The same CSeq once more: the carrier says 500, and nobody knows whether there is a call.
    asking = asyncio.ensure_future(talk.call.ask("BYE", site.second, cseq=talk.call.cseq))
    came = await talk.carrier_answers("BYE", 500)
    assert await asking == 500
    if recorded:
        site.carrier.got.remove(came)
        assert talk.tag in (await talk.carrier_answers("BYE", 200)).get("to")
        assert (await talk.record()).reason in ("caller-bye", "cut-bye-refused")
    else:
        site.carrier.got.remove(came)
        assert [one.state for one in await site.operator.calls(talk.call.user, running=True)] == ["running"]
        await talk.hang_up(site.second)
        assert (await talk.record()).reason == "caller-bye"


async def test_the_carriers_bye_without_route_ends_the_call(site: TwoEdges) -> None:
    """t02, from the other side: by the edge that knows the call; the other one can't know whose it is."""
    talk = await answered(await invited(site, "routeless"))
    bye = talk.from_carrier("BYE", site.second, routes=False)
    refused = await site.carrier.ask(bye, site.second, lambda got: got.status >= 200 and "BYE" in got.get("cseq"))
    assert refused.status == 481
    site.carrier.got.remove(refused)
    bye = talk.from_carrier("BYE", site.first, cseq=2, routes=False)
    site.carrier.send(bye, site.first)
    came = await site.caller.until(
        lambda got: got.method == "BYE" and got.get("call-id") == talk.call.call_id, "the BYE"
    )
    site.caller.send(reply(came, 200), came.source)
    await site.carrier.until(lambda got: got.status == 200 and got.get("cseq") == "2 BYE", "its answer")
    assert (await talk.record()).reason == "callee-bye"


async def test_a_name_that_nobody_answers_for_stops_no_edge_and_ends_no_call(site: TwoEdges) -> None:
    """F7: the Contact is a name, and the carrier's BYE goes to it, by the second edge."""
    talk = await answered(await invited(site, "named", contact="<sip:a@callbox.example.x1:5060>"))
    bye = talk.from_carrier("BYE", site.second, uri="sip:a@callbox.example.x1:5060")
    site.carrier.send(bye, site.second)
    for edge in (site.first, site.second):
        assert await is_served(site, edge)
    came = await site.caller.until(
        lambda got: got.method == "BYE" and got.get("call-id") == talk.call.call_id, "the BYE"
    )
    site.caller.send(reply(came, 200), came.source)
    assert (await talk.record()).reason == "callee-bye"
