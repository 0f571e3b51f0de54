"""Cases of how calls begin and end that nobody gave us, on two running edges, the second without memory of the call.

One or more for each numbered line of the list of faults that speaks of calls; a docstring's first word is its line.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from callwarden.testing.operator import DEFAULT_REALM
from callwarden.testing.waiting import eventually
from tests.integration.answered_dialogs import POLICY, RECORDED_S, AnsweredDialog, answered, invited, is_served
from tests.integration.two_edges import TwoEdges, two_edges
from tests.integration.wire import SDP, Datagram, Wire, WireCall, message, reply

pytestmark = [pytest.mark.cases, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

PROBED = POLICY + "  session: {probe: 2s}\n"
TALK_S = 2.0
DATAGRAM = 65_507  # the most that UDP over IPv4 carries
REALM = f'Digest realm="{DEFAULT_REALM}", nonce="abc", algorithm=MD5, qop="auth"'
FOREIGN = 'Digest realm="carrier.example", nonce="abc", algorithm=MD5, qop="auth"'
# The first second at one price, the rest at another, and a fee: 0.002 and 0.001 a second.
STEPS = "prefix,rate,unit_s,connect_fee,steps\n49,0.002,1,0.01,1:0.001\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[TwoEdges]:
    async with two_edges("127.0.10.1", "127.0.10.2", POLICY) as running:
        yield running


def of_call(call: WireCall, test: Callable[[Datagram], bool]) -> Callable[[Datagram], bool]:
    return lambda got: got.get("call-id") == call.call_id and test(got)


async def rings(talk: AnsweredDialog) -> AnsweredDialog:
    """The carrier says 180, by which the caller knows the dialog."""
    talk.site.carrier.send(
        reply(talk.invite, 180, talk.tag, [f"Contact: <sip:gw@{talk.site.carrier.address}>"]), talk.invite.source
    )
    ringing = await talk.site.caller.until(of_call(talk.call, lambda got: got.status == 180), "the 180")
    talk.call.learn(ringing)
    return talk


async def is_running(talk: AnsweredDialog) -> bool:
    return bool(await talk.site.operator.calls(talk.call.user, running=True))


# Ends.


@pytest.mark.parametrize("of", ["first", "second"])
async def test_a_bye_from_before_the_answer_never_leaves_a_talk_free(site: TwoEdges, of: str) -> None:
    """3: the callee answers the INVITE, talks, and then accepts the BYE: the edge ends the call, at its charge."""
    talk = await rings(await invited(site, f"early-{of}"))
    site.caller.send(talk.call.inside("BYE", getattr(site, of)), getattr(site, of))
    bye = await site.carrier.until(of_call(talk.call, lambda got: got.method == "BYE"), "the BYE")
    await answered(talk)
    await asyncio.sleep(TALK_S)
    site.carrier.send(reply(bye, 200), bye.source)
    accepted = of_call(talk.call, lambda got: got.status == 200 and got.get("cseq") == bye.get("cseq"))
    await site.caller.until(accepted, "its 200")
    for side in (site.carrier, site.caller):
        by_edge = of_call(talk.call, lambda got: got.method == "BYE" and got.get("via") != bye.get("via"))
        came = await side.until(by_edge, "the edge's own BYE")
        side.send(reply(came, 200), came.source)
    record = await talk.record()
    assert record.reason == "caller-bye"
    assert record.billed_s >= TALK_S


@pytest.mark.parametrize("talk_s", [0.0, TALK_S])
async def test_a_bye_by_an_edge_that_saw_no_answer_settles_what_was_talked(site: TwoEdges, talk_s: float) -> None:
    """3: after the answer, which only the other edge saw, and in its very moment."""
    talk = await rings(await invited(site, f"unseen-{talk_s:.0f}"))
    more = [f"Contact: <sip:gw@{site.carrier.address}>", "Content-Type: application/sdp"]
    site.carrier.send(reply(talk.invite, 200, talk.tag, more, SDP), talk.invite.source)
    answer = of_call(talk.call, lambda got: got.status == 200 and "INVITE" in got.get("cseq"))
    talk.call.learn(await site.caller.until(answer, "the 200"))
    site.caller.send(talk.call.inside("ACK", site.second), site.second)
    await asyncio.sleep(talk_s)
    await talk.hang_up(site.second)
    record = await talk.record()
    assert record.reason == "caller-bye"
    assert record.billed_s >= max(talk_s, 1.0)
    assert record.price_micros == record.billed_s * 1_000


async def test_a_callee_that_gives_up_a_call_behind_our_back_is_found_and_the_caller_told(site: TwoEdges) -> None:
    """3: its BYE went to the caller's Contact and not by us; asked, it knows no such call."""
    await site.operator.apply_policy(PROBED)
    talk = await answered(await invited(site, "bypassed"))
    await talk.carrier_answers("OPTIONS", 481)
    await site.caller.until(of_call(talk.call, lambda got: got.method == "BYE"), "the edge's BYE")
    record = await talk.record()
    await site.operator.apply_policy(POLICY)
    assert record.reason == "cut-gone"
    assert record.billed_s >= 1


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_bye_as_large_as_a_datagram_passes_or_the_edge_ends_the_call_itself(
    site: TwoEdges, recorded: bool
) -> None:
    """3, 9: with Route it becomes smaller on its way; without, it would become larger than a datagram can be. A head
    that is too long to be read ends nothing, whoever sent it: the call goes on, at its charge, until the carrier ends
    it or a probe finds that a side is gone."""
    talk = await answered(await invited(site, f"huge-{recorded}"))
    if recorded:
        await asyncio.sleep(RECORDED_S)
    for edge in (site.first, site.second):
        assert await talk.call.ask("BYE", edge, ["X-Filler: " + "x" * 20_000]) == 513
        site.caller.send(talk.call.inside("BYE", edge, ["X-Filler: " + "x" * 8_000] * 5), edge)
        assert await is_served(site, edge)
    assert talk.at_carrier("BYE") == []
    assert await is_running(talk)
    if recorded:
        bare = len(talk.call.inside("BYE", site.first, routes=[]))
        assert await talk.call.ask("BYE", site.first, routes=[], body="x" * (DATAGRAM - bare - 4)) == 500
        for side, at in ((site.carrier, talk.at_carrier), (site.caller, talk.at_caller)):
            came = await side.until(of_call(talk.call, lambda got: got.method == "BYE"), "the edge's BYE")
            assert len(came.body) == 0
            assert at("BYE")
            side.send(reply(came, 200), came.source)
        assert (await talk.record()).reason == "cut-bye-unanswered"
    else:
        bare = len(talk.call.inside("BYE", site.second))
        asking = asyncio.ensure_future(talk.call.ask("BYE", site.second, body="x" * (DATAGRAM - bare - 4)))
        came = await talk.carrier_answers("BYE", 200)
        assert len(came.body) > 64_000
        assert await asking == 200
        assert (await talk.record()).reason == "caller-bye"


async def test_a_call_is_charged_by_the_steps_of_its_deck_wherever_it_ends(site: TwoEdges) -> None:
    """24: a connect fee, and another price from the second second on."""
    await site.operator.deck("steps", STEPS)
    talk = await answered(await invited(site, "stepped", deck="steps"))
    await asyncio.sleep(TALK_S)
    await talk.hang_up(site.second)
    record = await talk.record()
    assert record.billed_s >= TALK_S
    assert record.price_micros == 10_000 + 2_000 + (record.billed_s - 1) * 1_000


async def test_a_call_id_is_taken_to_its_bound_and_the_events_of_calls_go_on(site: TwoEdges) -> None:
    """17: 256 characters are a call, with its end and its charge; 257 are 400, whatever they are asked."""
    for number, method in enumerate(("INVITE", "REGISTER", "OPTIONS", "MESSAGE", "BYE")):
        call = WireCall(site.caller, site.edge(number), "long", "somebody", call_id="A" * 257)
        if method == "BYE":
            call.to += ";tag=x"
        sent = call.invite() if method == "INVITE" else message(f"{method} {call.uri} SIP/2.0", call.lines(method))
        assert (await site.caller.ask(sent, call.edge, call.is_answer)).status == 400, method
    talk = await answered(await invited(site, "longest", call_id="A" * 256))
    await talk.hang_up(site.second)
    record = await talk.record()
    assert (record.call_id, record.reason) == ("A" * 256, "caller-bye")


async def test_a_carrier_is_asked_to_call_outside_numbers_only_and_nothing_stays_held(site: TwoEdges) -> None:
    """14, 6: by policy it may be asked at all; a number of ours never leaves, whose phone isn't even registered."""
    await site.operator.account("owner", numbers=("+4930222",))
    await site.operator.apply_policy(POLICY + "  routing: {transfers: 2}\n")
    talk = await answered(await invited(site, "transfers"))
    held = (await site.operator.get("transfers")).held_micros
    for edge in (site.first, site.second):
        assert await talk.call.ask("REFER", edge, [f"Refer-To: <sip:+4930222@{DEFAULT_REALM}>"]) == 403
        asking = asyncio.ensure_future(talk.call.ask("REFER", edge, [f"Refer-To: <sip:+4930333@{DEFAULT_REALM}>"]))
        came = await talk.carrier_answers("REFER", 202)
        assert await asking == 202
        assert "+4930333" in came.get("refer-to")
        site.carrier.got.remove(came)

    async def is_released() -> bool:
        return (await site.operator.get("transfers")).held_micros == held

    await eventually(is_released, timeout_s=30, what="what was only asked for is free again")
    await site.operator.apply_policy(POLICY)
    await talk.hang_up(site.second)

    async def prices() -> list[tuple[str, bool]] | None:
        calls = await site.operator.calls("transfers")
        told = sorted((call.reason, call.price_micros > 0) for call in calls if call.state == "settled")
        return told if len(told) == 3 else None

    told = await eventually(prices, timeout_s=40, what="all are settled")
    assert told == [("caller-bye", True), ("transferred", False), ("transferred", False)]


# Early dialogs.


async def test_a_callee_speaks_before_the_answer_to_the_caller_and_to_nobody_else(site: TwoEdges) -> None:
    """5: its UPDATE names a third party, at either edge."""
    talk = await rings(await invited(site, "early"))
    async with Wire("127.0.10.3") as victim:
        for number, edge in enumerate((site.first, site.second), start=1):
            update = talk.from_carrier("UPDATE", edge, cseq=number, uri=f"sip:x@{victim.address}")
            site.carrier.send(update, edge)
            came = await site.caller.until(
                of_call(talk.call, lambda got, number=number: got.get("cseq") == f"{number} UPDATE"),  # type: ignore[misc]
                "the UPDATE",
            )
            site.caller.send(reply(came, 200), came.source)
            await site.carrier.until(
                of_call(talk.call, lambda got, number=number: got.get("cseq") == f"{number} UPDATE"),  # type: ignore[misc]
                "its answer",
            )
        assert not victim.got
    await answered(talk)
    await talk.hang_up(site.second)
    assert (await talk.record()).reason == "caller-bye"


# Answers.


ODD_ANSWERS = {
    "Latin-1": "Server: J\xfcrgen".encode("latin-1"),
    "no colon": b"this is no header",
    "Content-Length twice": b"Content-Length: %d" % len(SDP),
    "many headers": b"\r\n".join(b"X-H%d: y" % number for number in range(400)),
    "a long header": b"X-Long: " + b"y" * 20_000,
    "a folded line of bytes": b"X-Folded: a\r\n \xff\xfe b",
    "a Contact of another kind, too": b"Contact: <tel:+4930>",
    "an empty name": b": x",
}


async def test_the_200_of_a_carrier_is_never_lost_for_what_is_odd_in_it(site: TwoEdges) -> None:
    """12"""
    await asyncio.gather(*(odd_answer(site, number, line) for number, line in enumerate(ODD_ANSWERS.values())))


async def odd_answer(site: TwoEdges, number: int, line: bytes) -> None:
    talk = await invited(site, f"answer-{number}")
    more = [f"Contact: <sip:gw@{site.carrier.address}>", "X-Odd: here", "Content-Type: application/sdp"]
    odd = reply(talk.invite, 200, talk.tag, more, SDP).encode().replace(b"X-Odd: here", line)
    site.carrier.send(odd, talk.invite.source)
    ok = await site.caller.until(
        of_call(talk.call, lambda got: got.status == 200 and "INVITE" in got.get("cseq")), f"the 200 with {line[:20]!r}"
    )
    talk.call.learn(ok)
    site.caller.send(talk.call.inside("ACK", site.second), site.second)
    await site.carrier.until(of_call(talk.call, lambda got: got.method == "ACK"), "the ACK")
    await talk.hang_up(site.second)
    assert (await talk.record()).reason == "caller-bye"


async def test_a_callee_can_not_ask_for_our_digests_at_any_edge_and_those_of_others_pass(site: TwoEdges) -> None:
    """13: to an INVITE, and inside the call by the second edge."""
    for name, challenge, status in (("ours", REALM, 502), ("theirs", FOREIGN, 407)):
        talk = await invited(site, f"asked-{name}")
        assert not talk.invite.all("proxy-authorization")
        site.carrier.send(reply(talk.invite, 407, "x", [f"Proxy-Authenticate: {challenge}"]), talk.invite.source)
        refused = await site.caller.until(
            of_call(talk.call, lambda got: got.status >= 400 and got.get("cseq").startswith("2 ")), "the refusal"
        )
        talk.call.acknowledge_failure(refused)
        assert (refused.status, refused.all("proxy-authenticate")) == (
            (status, []) if name == "ours" else (status, [challenge])
        )
    talk = await answered(await invited(site, "asked-inside"))
    for challenge, status in ((REALM, 502), (FOREIGN, 401)):
        asking = asyncio.ensure_future(
            talk.call.ask("INFO", site.second, [f"Authorization: {FOREIGN}", f"Proxy-Authorization: {REALM}"])
        )
        came = await site.carrier.until(of_call(talk.call, lambda got: got.method == "INFO"), "the INFO")
        assert (came.all("authorization"), came.all("proxy-authorization")) == ([FOREIGN], [])
        site.carrier.send(reply(came, 401, "", [f"WWW-Authenticate: {challenge}"]), came.source)
        assert await asking == status
        site.carrier.got.remove(came)
    await talk.hang_up(site.second)
    assert (await talk.record()).reason == "caller-bye"
