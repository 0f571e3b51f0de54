"""Trial's cases of the call path on running edges, over two where the second knows nothing of the call.

The carrier keeps dialogs as RFC 3261 has it. What is asked each time: is the call up there, or ended and charged?
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from callwarden.local.system import LocalSystem
from callwarden.sip import build
from callwarden.sip.digest import parse_challenge
from callwarden.sip.message import Request, Response
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.cases]

NUMBER = "4930123456"


class StrictCarrier(Phones):
    """A carrier whose dialogs are those of RFC 3261 12.2.2: a BYE of another one is answered 481 and ends nothing."""

    def __init__(self, proxy: str) -> None:
        super().__init__(proxy)
        self.up: dict[str, str] = {}  # Call-ID → the caller's tag
        self.byes: list[Request] = []
        self.invites: dict[str, Request] = {}
        self.bye_status = 200
        self.refresh_status = 200

    def _receive_request(self, request: Request, source: tuple[str, int]) -> None:
        if request.method == "INVITE" and not request.is_in_dialog:
            self.invites[request.call_id] = request
            self.up[request.call_id] = request.from_.tag or ""
        if request.method == "INVITE" and request.is_in_dialog:
            self._transport.sendto(build.response(request, self.refresh_status).to_bytes(), source)
        elif request.method == "BYE":
            self.byes.append(request)
            known = self.up.get(request.call_id)
            right = known is not None and (request.from_.tag, request.to.tag) == (known, "callee")
            status = self.bye_status if right else 481
            if status == 200:
                del self.up[request.call_id]
            self._transport.sendto(build.response(request, status).to_bytes(), source)
        else:
            super()._receive_request(request, source)


class WithoutAck(Phones):
    """A phone whose ACKs are of no dialog."""

    def _build(self, method: str, uri: str, call: PhoneCall, headers: list[tuple[str, str]], body: bytes) -> Request:
        request = super()._build(method, uri, call, headers, body)
        if method == "ACK":
            request.set("Call-ID", f"lost-{request.call_id}")
        return request


class AckElsewhere(Phones):
    """A phone whose ACKs reach another edge, as behind a balancer."""

    def __init__(self, proxy: str, other: str) -> None:
        super().__init__(proxy)
        self._first, self._other = proxy, other

    def _build(self, method: str, uri: str, call: PhoneCall, headers: list[tuple[str, str]], body: bytes) -> Request:
        request = super()._build(method, uri, call, headers, body)
        if method == "ACK":
            request.set("Route", (request.get("route") or "").replace(self._first, self._other))
        return request

    def _next_hop(self, request: Request) -> tuple[str, int]:
        host, _, port = (self._other if request.method == "ACK" else self._first).rpartition(":")
        return host, int(port)


class Listener(Phones):
    """A phone that only rings, and keeps what it is sent."""

    def __init__(self, proxy: str, host: str = "127.0.0.1") -> None:
        super().__init__(proxy, host=host, answer=False)
        self.early: asyncio.Queue[Response] = asyncio.Queue()
        self.methods: list[str] = []

    def _receive_response(self, response: Response) -> None:
        if 100 < response.status < 200:
            self.early.put_nowait(response)
        super()._receive_response(response)

    def _receive_request(self, request: Request, source: tuple[str, int]) -> None:
        self.methods.append(request.method)
        super()._receive_request(request, source)


class CaseSite:
    """Two edges, a carrier, and alice."""

    def __init__(self, system: LocalSystem, operator: OperatorClient, carrier: StrictCarrier) -> None:
        self.system, self.operator, self.carrier = system, operator, carrier

    async def call(self, phones: Phones) -> PhoneCall:
        call = phones.call("alice", PASSWORD, DEFAULT_REALM, NUMBER)
        assert await call.status == 200
        return call

    async def settled(self, call: PhoneCall) -> str:
        async def reason() -> str:
            found = [one for one in await self.operator.calls() if one.call_id == call.call_id]
            return found[0].reason if found and found[0].state in ("settled", "expired") else ""

        ended: str = await eventually(reason, timeout_s=40, what="the call is settled")
        return ended

    async def is_running(self, call: PhoneCall) -> bool:
        return any(one.call_id == call.call_id for one in await self.operator.calls(running=True))


@pytest_asyncio.fixture
async def site(state_dir: Path) -> AsyncIterator[CaseSite]:
    async with (
        LocalSystem(state_dir, processes={"edge-proxy": 2}, drain_timeout_s=2.0) as system,
        StrictCarrier(system.sip_address) as carrier,
        OperatorClient(system) as operator,
    ):
        await operator.deck()
        await operator.carrier(carrier.address)
        await operator.account("alice", lines=50, credit_micros=100_000_000)
        yield CaseSite(system, operator, carrier)


def bye(call: PhoneCall, phones: Phones, edge: str, first: str, **change: str) -> Request:
    """The caller's BYE as it would send it to that edge, with what the case changes."""
    assert call.response is not None
    call.cseq += 1
    request = build.request(
        change.get("method", "BYE"),
        call.target,
        via=phones._via(),
        from_=f"<sip:alice@{DEFAULT_REALM}>;tag={change.get('from_tag', call.tag)}",
        to=f"<sip:{NUMBER}@{DEFAULT_REALM}>;tag={change.get('to_tag', call.response.to.tag or '')}",
        call_id=call.call_id,
        cseq=call.cseq,
        routes=[route.replace(first, edge) for route in call.routes],
    )
    if change.get("route") == "none":
        request.remove("route")
    return request


async def answer(phones: Phones, request: Request, edge: str) -> Response:
    host, _, port = edge.rpartition(":")
    before, phones._proxy = phones._proxy, (host, int(port))
    try:
        return await phones._send(request)
    finally:
        phones._proxy = before


async def test_a_phone_that_changes_its_network_goes_on_at_either_edge_after_a_digest(site: CaseSite) -> None:
    first, second = site.system.sip_addresses
    async with Phones(first) as phones, Phones(first, host="127.0.0.9") as mobile:
        for edge in (first, second):
            call = await site.call(phones)

            asked: list[Response] = []

            async def is_asked() -> bool:
                # The edge that doesn't watch the call knows whom to ask once there is a record.
                asked.append(await answer(mobile, bye(call, mobile, edge, first, method="INFO"), edge))  # noqa: B023
                return asked[-1].status == 407  # noqa: B023

            await eventually(is_asked, timeout_s=20, what="the phone is asked who it is")
            challenged = asked[-1]
            request = bye(call, mobile, edge, first)
            offered = parse_challenge(challenged.get_all("proxy-authenticate")[0])
            request.add("Proxy-Authorization", str(offered.answer("alice", PASSWORD, "BYE", request.uri_text)))
            assert (await answer(mobile, request, edge)).status == 200
            assert await site.settled(call) == "caller-bye"


async def test_the_cases_of_dialogs_over_two_edges(site: CaseSite) -> None:
    """One start of the system for all: each case has a call of its own."""
    first, second = site.system.sip_addresses
    carrier = site.carrier
    async with (
        Phones(first) as phones,
        Phones(first, host="127.0.0.9") as stranger,
    ):
        for edge in (first, second):
            # m01, bye_wrong_to_tag, F1: another tag is answered by the edge itself, and the call goes on at its charge.
            call = await site.call(phones)
            for change in ({"to_tag": "bogus"}, {"from_tag": "bogus"}):
                assert (await answer(phones, bye(call, phones, edge, first, **change), edge)).status == 481
            # F2, F3: a stranger with cookie and tags.
            for method in ("BYE", "INFO"):
                request = bye(call, stranger, edge, first, method=method)
                # As a phone that moved is asked who it is; an edge without the call's record doesn't know whom to ask.
                assert (await answer(stranger, request, edge)).status in ((407,) if edge == first else (403, 407))
            # bye_as_callee: the caller plays the callee.
            assert call.response is not None
            flipped = build.request(
                "BYE",
                f"sip:alice@{phones.address}",
                via=phones._via(),
                from_=call.response.get("to") or "",
                to=f"<sip:alice@{DEFAULT_REALM}>;tag={call.tag}",
                call_id=call.call_id,
                cseq=1,
                routes=[route.replace(first, edge) for route in call.routes],
            )
            assert (await answer(phones, flipped, edge)).status == 481
            assert not carrier.byes
            assert call.call_id in carrier.up
            assert not call.cut
            # And the right one ends it, at that edge.
            assert (await answer(phones, bye(call, phones, edge, first), edge)).status == 200
            assert await site.settled(call) == "caller-bye"
            assert call.call_id not in carrier.up
            carrier.byes.clear()

        # t02: BYE without Route.
        call = await site.call(phones)
        assert (await answer(phones, bye(call, phones, first, first, route="none"), first)).status == 200
        assert await site.settled(call) == "caller-bye"
        assert call.call_id not in carrier.up
        # m03: BYE answered 500; the edge sends its own to both sides.
        carrier.bye_status = 500
        carrier.byes.clear()
        call = await site.call(phones)
        assert (await answer(phones, bye(call, phones, first, first), first)).status == 500
        assert await site.settled(call) == "cut-bye-refused"
        assert call.cut
        assert len(carrier.byes) >= 2
        carrier.bye_status = 200
        # m07: re-INVITE answered 481.
        carrier.refresh_status = 481
        call = await site.call(phones)
        refresh = bye(call, phones, first, first, method="INVITE")
        refresh.add("Contact", f"<sip:alice@{phones.address}>")
        assert (await answer(phones, refresh, first)).status == 481
        assert await site.settled(call) == "cut-dialog-unknown"
        assert call.cut
        assert call.call_id not in carrier.up
        # A doubtful end at the edge without memory leaves the charge with the one that knows the call.
        carrier.bye_status = 500
        call = await site.call(phones)
        assert (await answer(phones, bye(call, phones, second, first), second)).status == 500
        assert await site.is_running(call)
        carrier.bye_status = 200
        assert await phones.hang_up(call) == 200
        assert await site.settled(call) == "caller-bye"


def _replaced(name: str, value: str | None) -> Callable[[Request], None]:
    def change(request: Request) -> None:
        request.remove(name.lower())
        if value is not None:
            request.add(name, value)

    return change


CHANGES = {
    "m05 none": _replaced("Contact", None),
    "m05 star": _replaced("Contact", "*"),
    "m05 tel": _replaced("Contact", "<tel:+493055503>"),
    "m05 bad": _replaced("Contact", "<sip:poor@@x>"),
    "m05 bad Record-Route": _replaced("Record-Route", "<sip:x@@y;lr>"),
    "m05, F3 CSeq": _replaced("CSeq", f"{2**31 - 2} INVITE"),
    "F12 Call-ID": _replaced("Call-ID", "A" * 300),
}


async def test_what_could_not_be_ended_is_refused_and_a_missing_ack_is_found(site: CaseSite) -> None:
    first = site.system.sip_address
    async with Phones(first) as phones, WithoutAck(first) as silent:
        for name, change in CHANGES.items():
            request = build.request(
                "INVITE",
                f"sip:{NUMBER}@{DEFAULT_REALM}",
                via=phones._via(),
                from_=f"<sip:alice@{DEFAULT_REALM}>;tag=t",
                to=f"<sip:{NUMBER}@{DEFAULT_REALM}>",
                call_id=name.replace(" ", "-"),
                cseq=1,
                headers=[("Contact", f"<sip:alice@{phones.address}>")],
            )
            change(request)
            assert (await phones._send(request)).status == 400, name
        assert not site.carrier.invites
        # m06: no ACK ever.
        call = await site.call(silent)
        async with asyncio.timeout(50):
            await call.ended.wait()
        assert call.cut
        assert await site.settled(call) == "cut-no-ack"
        assert call.call_id not in site.carrier.up


@pytest.mark.long
async def test_an_ack_that_reaches_another_edge_while_nats_is_away_cuts_nothing(site: CaseSite) -> None:
    first, second = site.system.sip_addresses
    async with AckElsewhere(first, second) as phones:
        await site.system.kill("nats")
        call = await site.call(phones)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(36):
                await call.ended.wait()
        assert call.call_id in site.carrier.up
        await site.system.restart("nats")
        assert await phones.hang_up(call) == 200
        assert await site.settled(call) == "caller-bye"


async def test_a_request_before_the_answer_never_goes_where_its_sender_points_it(site: CaseSite) -> None:
    """m04: PRACK, UPDATE and INFO in an early dialog."""
    first, second = site.system.sip_addresses
    await site.operator.account("bob")
    async with (
        Listener(first) as alice,
        Listener(first, host="127.0.0.12") as bob,
        Listener(first, host="127.0.0.77") as victim,
    ):
        assert await bob.register("bob", PASSWORD, DEFAULT_REALM) == 200
        call = alice.call("alice", PASSWORD, DEFAULT_REALM, "bob")
        async with asyncio.timeout(20):
            call.response = await alice.early.get()
        call.cseq = call.response.cseq.number
        call.routes = tuple(str(route) for route in reversed(call.response.record_routes))
        call.target = f"sip:any@{victim.address}"
        for edge in (first, second):
            for method in ("PRACK", "UPDATE", "INFO"):
                bob.methods.clear()
                assert (await answer(alice, bye(call, alice, edge, first, method=method), edge)).status == 200
                assert bob.methods == [method]
                wrong = bye(call, alice, edge, first, method=method, to_tag="bogus")
                assert (await answer(alice, wrong, edge)).status == 481
        assert not victim.methods
        call.status.cancel()
