"""Cases inside calls on two running edges: the first sets the call up, the second, without memory of it, gets the rest.

Each case has an account of its own. What is asked each time: is the call up at the carrier, or ended and charged?
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.answered_dialogs import POLICY, RECORDED_S, answered, invited, is_served
from tests.integration.two_edges import TwoEdges, two_edges
from tests.integration.wire import SDP, reply

pytestmark = [pytest.mark.cases, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

POOR_MICROS = 6_000  # 6 s of talk
CSEQ_END = 2**31


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[TwoEdges]:
    async with two_edges("127.0.9.1", "127.0.9.2", POLICY) as running:
        yield running


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
