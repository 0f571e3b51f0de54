"""Two processes of rating on a real NATS and PostgreSQL: what one imports the other quotes; killed in the middle."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import nats
import pytest

from callwarden.api.events.v1 import events_pb2
from callwarden.api.policy.v1 import policy_pb2
from callwarden.api.rating.v1 import rating_pb2, rating_pb2_grpc
from callwarden.common.bus import Bucket, Bus, Delivery, Stream
from callwarden.common.prices import price_of
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.stream import StreamClient
from callwarden.kernel.errors import CallwardenError, Invalid, NotFound, Unavailable
from callwarden.kernel.tariff import cost
from callwarden.local.system import LocalSystem
from callwarden.policy.bundle import Document
from callwarden.testing import databases
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration

StartSystem = Callable[..., Awaitable[LocalSystem]]
SERVICE = "callwarden.api.rating.v1.RatingService"
HEADER = "prefix,description,rate,off_peak_rate\n"
# 2026-01-05, a Monday: noon and 21:00 in Berlin.
NOON_S, EVENING_S = 1_767_610_800.0, 1_767_643_200.0


class RatingProcesses:
    """Two rating processes, a carrier's trunk "world" and a sender's "office"."""

    def __init__(self, system: LocalSystem, database: asyncpg.Connection) -> None:
        self.system = system
        self.database = database
        self.stubs: list[rating_pb2_grpc.RatingServiceStub] = []
        self.callers: list[rating_pb2_grpc.RatingServiceStub] = []  # as call-admission, which asks for prices
        self.streams: list[StreamClient] = []

    async def import_(self, csv: str, *, name: str = "retail", process: int = 0) -> rating_pb2.ImportDeckReply:
        request = rating_pb2.ImportDeckRequest(
            name=name,
            currency="EUR",
            csv=csv.encode(),
            peak_hours="Mon-Fri 08:00-20:00",
            time_zone="Europe/Berlin",
            rounding=rating_pb2.Rounding(method=rating_pb2.Rounding.DOWN, decimals=4),
        )
        reply: rating_pb2.ImportDeckReply = await unary(self.stubs[process].ImportDeck, request, timeout_s=60)
        return reply

    async def route(self, prefix: str, trunk: str = "world", *, process: int = 0, cost_deck: str = "") -> None:
        request = rating_pb2.SetRouteRequest(prefix=prefix, trunk=trunk, cost_deck=cost_deck)
        await unary(self.stubs[process].SetRoute, request)

    async def quote(
        self, number: str, *, process: int = 0, deck: str = "retail", at_s: float = NOON_S
    ) -> rating_pb2.QuoteReply:
        """On the stream."""
        request = rating_pb2.QuoteRequest(deck=deck, destination=number, at_s=at_s)
        return await self.streams[process].call("Quote", request, rating_pb2.QuoteReply, timeout_s=10)

    async def rate(self, number: str, *, process: int = 0) -> int | str:
        """The rate of the first window, or why there is none."""
        reply = await self.quote(number, process=process)
        return reply.refused or int(reply.quote.price.windows[0].groups[0].rate_micros)


@pytest.fixture
async def rig(local_system: StartSystem) -> AsyncIterator[RatingProcesses]:
    system = await local_system(services={"rating"}, processes={"rating": 2})
    async with AsyncExitStack() as stack:
        database = await databases.connect(system.database_url)
        stack.push_async_callback(database.close)
        found = RatingProcesses(system, database)
        for target in system.targets("rating"):
            admin = await stack.enter_async_context(channel(target, system.credentials("admin")))
            found.stubs.append(rating_pb2_grpc.RatingServiceStub(admin))
            asking = await stack.enter_async_context(channel(target, system.credentials("call-admission")))
            found.callers.append(rating_pb2_grpc.RatingServiceStub(asking))
            found.streams.append(await stack.enter_async_context(StreamClient(asking, SERVICE, target=target)))
        owner = uuid.uuid4()
        await database.execute(
            "INSERT INTO account (id, realm, name, type, currency, prepaid)"
            " VALUES ($1, 'r', 'c', 'carrier', 'EUR', false)",
            owner,
        )
        for name, direction in (("world", "carrier"), ("office", "traffic-sender")):
            await database.execute(
                "INSERT INTO trunk (name, direction, account_id, address, tech_prefix, add_prefix, strip_digits)"
                " VALUES ($1, $2, $3, '192.0.2.1:5060', '77#', '00', 0)",
                name,
                direction,
                owner,
            )
        yield found


async def test_what_one_process_imports_the_other_quotes(rig: RatingProcesses) -> None:
    assert await rig.rate("4930", process=1) == "no-rate"
    reply = await rig.import_(HEADER + "49,Germany,0.06,0.03\n")
    assert (reply.rows, reply.version, list(reply.errors)) == (1, 1, [])
    assert await rig.rate("4930") == "no-route"
    await rig.route("")

    async def other(expected: int) -> bool:
        return await rig.rate("4930", process=1) == expected

    assert await rig.rate("4930") == 60_000
    await eventually(lambda: other(60_000))
    await rig.import_(HEADER + "49,Germany,0.05,\n", process=1)
    assert await rig.rate("4930", process=1) == 50_000

    async def first(expected: int) -> bool:
        return await rig.rate("4930") == expected

    await eventually(lambda: first(50_000))


async def test_a_quote_says_everything_about_price_and_route(rig: RatingProcesses) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,0.03\n")
    await rig.import_(HEADER + "4,Europe,0.01,\n", name="wholesale")
    await rig.route("49", cost_deck="wholesale")
    quote = (await rig.quote("4930", at_s=EVENING_S)).quote
    assert (quote.prefix, quote.description, quote.deck, quote.deck_version) == ("49", "Germany", "retail", 1)
    assert quote.valid_until_s == EVENING_S + 300
    assert (quote.price.currency, quote.price.rounding.method) == ("EUR", rating_pb2.Rounding.DOWN)
    assert quote.price.rounding.decimals == 4
    assert [window.name for window in quote.price.windows] == ["off-peak", "peak", "off-peak"]
    assert [window.groups[0].rate_micros for window in quote.price.windows] == [30_000, 60_000, 30_000]
    (route,) = quote.routes
    assert (route.trunk, route.address, route.add_prefix) == ("world", "192.0.2.1:5060", "77#00")
    assert route.cost.windows[0].groups[0].rate_micros == 10_000
    unary_reply = await unary(
        rig.callers[0].Quote, rating_pb2.QuoteRequest(deck="retail", destination="4930", at_s=EVENING_S)
    )
    assert unary_reply.quote == quote


@pytest.mark.setting("blocknotbilledcalls", "blocknotprofitablecalls", "vgetpriceexactmatch")
async def test_a_quote_says_how_exact_it_is_what_the_parent_charges_and_for_which_numbers_it_holds(
    rig: RatingProcesses,
) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,\n")
    await rig.import_(HEADER + "49,Germany,0.01,\n4930,Berlin,0.02,\n", name="wholesale")
    await rig.import_(HEADER + "491,Germany mobile,0.05,0.04\n", name="parent")
    await rig.route("", cost_deck="wholesale")

    async def ask(number: str, parent: str = "parent") -> rating_pb2.Quote:
        request = rating_pb2.QuoteRequest(deck="retail", destination=number, at_s=NOON_S, parent_deck=parent)
        return (await rig.streams[0].call("Quote", request, rating_pb2.QuoteReply, timeout_s=10)).quote

    berlin = await ask("493012345")
    assert (berlin.exact, berlin.parent_priced, berlin.parent_prefix) == (False, False, "")
    assert not berlin.HasField("parent_price")
    assert berlin.valid_prefix_length == 4
    mobile = await ask("4917012345")
    assert (mobile.exact, mobile.parent_priced, mobile.parent_prefix) == (True, True, "491")
    assert [window.groups[0].rate_micros for window in mobile.parent_price.windows] == [50_000, 40_000, 50_000]
    assert mobile.valid_prefix_length == 3
    assert (await ask("4917", parent="")).valid_prefix_length == 3  # "4930" goes on after "49", whatever the parent
    assert (await ask("493")).valid_prefix_length == 0
    assert await ask("4930999") == berlin
    for quote in (berlin, mobile):
        assert quote.valid_until_s == NOON_S + 300


@pytest.mark.setting("vgetpriceexactmatch", "notbilledcallerr")
async def test_the_policy_demands_exact_prices_and_gives_calls_without_one_their_severity(rig: RatingProcesses) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,\n")
    await rig.route("493")
    request = rating_pb2.QuoteRequest(deck="retail", destination="493012345", at_s=NOON_S, account_realm="sip.example")
    assert (await unary(rig.callers[0].Quote, request)).quote.exact is False
    async with Bus(rig.system.nats_url, name="test", declare=False) as bus:
        events: asyncio.Queue[events_pb2.Unbilled] = asyncio.Queue()

        async def heard(delivery: Delivery) -> None:
            events.put_nowait(events_pb2.Unbilled.FromString(delivery.payload))

        consuming = asyncio.create_task(bus.consume(Stream.SECURITY, "test", "security.unbilled", heard))
        spec = {"realm": "sip.example", "billing": {"exactMatch": 1, "notBilledSeverity": 2}}
        bundle = policy_pb2.Bundle(revision=7)
        bundle.documents.add(name="strict", json=Document("strict", spec).to_json())
        await bus.kv(Bucket.POLICY).put("bundle", bundle.SerializeToString())

        async def acknowledged() -> bool:
            acks = [policy_pb2.Ack.FromString(ack.value) for ack in (await bus.kv(Bucket.POLICY_ACKS).items()).values()]
            return [(ack.service, ack.revision) for ack in acks] == [("rating", 7)] * 2

        await eventually(acknowledged)
        assert (await unary(rig.callers[0].Quote, request)).quote.prefix == "49"
        request.reseller = True
        reply = await unary(rig.callers[0].Quote, request)
        assert reply.refused == "no-rate"
        assert "routed by 493" in reply.text
        event = await asyncio.wait_for(events.get(), 10)
        assert (event.deck, event.prefix, event.count, event.text) == ("retail", "493012", 1, reply.text)
        assert event.severity == events_pb2.Unbilled.CRITICAL
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)


async def test_a_simulation_adds_it_up(rig: RatingProcesses) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,0.03\n")
    request = rating_pb2.SimulateRequest(deck="retail", destination="4930", at_s=NOON_S, duration_s=61)
    simulated = (await unary(rig.stubs[0].Simulate, request)).simulation
    assert (simulated.cost_micros, simulated.billed_s) == (61_000, 61)
    request.destination = "33123"
    assert (await unary(rig.stubs[0].Simulate, request)).refused == "no-rate"


@pytest.mark.cases
async def test_a_call_of_three_days_pays_the_weekend_as_the_weekend(rig: RatingProcesses) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,0.03\n")
    await rig.route("49")
    friday_s = NOON_S + 4 * 86_400
    request = rating_pb2.SimulateRequest(deck="retail", destination="4930", at_s=friday_s, duration_s=72 * 3_600)
    simulated = (await unary(rig.stubs[0].Simulate, request)).simulation
    # Friday noon to 20:00 and Monday 8:00 to noon are dear.
    assert simulated.cost_micros == 12 * 60 * 60_000 + 60 * 60 * 30_000
    weekly = (await rig.quote("4930", at_s=friday_s)).quote.price.weekly
    assert (weekly.peak_hours, weekly.time_zone) == ("Mon-Fri 08:00-20:00", "Europe/Berlin")
    assert [window.groups[0].rate_micros for window in (weekly.peak, weekly.off_peak)] == [60_000, 30_000]
    assert [window.name for window in (weekly.peak, weekly.off_peak)] == ["peak", "off-peak"]


async def test_a_deck_with_steps_windows_and_a_maximum_is_charged_by_all_of_them(rig: RatingProcesses) -> None:
    columns = "prefix,rate,off_peak_rate,rate.sat,steps,off_peak_steps,steps.sat,maximum,at_maximum"
    request = rating_pb2.ImportDeckRequest(
        name="retail",
        currency="EUR",
        csv=f"{columns}\n49,0.60,0.30,0.12,60:0.06:60,none,2:0.06,2.5,free\n".encode(),
        peak_hours="Mon-Fri 08:00-19:00",
        time_zone="Europe/Berlin",
        windows=[rating_pb2.DeckWindow(name="sat", hours="Sat 09:00-13:00")],
    )
    assert (await unary(rig.stubs[0].ImportDeck, request, timeout_s=60)).rows == 1
    await rig.route("49")
    saturday_s = NOON_S + 5 * 86_400

    async def costs(at_s: float, duration_s: int) -> int:
        wanted = rating_pb2.SimulateRequest(deck="retail", destination="4930", at_s=at_s, duration_s=duration_s)
        return int((await unary(rig.stubs[0].Simulate, wanted)).simulation.cost_micros)

    assert [await costs(NOON_S, seconds) for seconds in (60, 61, 121)] == [600_000, 660_000, 720_000]
    assert await costs(EVENING_S, 61) == 305_000
    assert [await costs(saturday_s, seconds) for seconds in (2, 62)] == [4_000, 64_000]
    assert await costs(NOON_S, 86_400) == 2_500_000
    # Saturday from 12:59:30: half a minute of the window, then the rest is off-peak.
    assert await costs(saturday_s + 3_570, 60) == 4_000 + 28_000 + 150_000
    for process in (0, 1):

        async def arrived(process: int = process) -> bool:
            return bool(await rig.rate("4930", process=process) == 600_000)

        await eventually(arrived)
        price = price_of((await rig.quote("4930", process=process, at_s=saturday_s)).quote.price)
        assert (price.maximum_micros, price.cuts_at_maximum) == (2_500_000, False)
        assert price.weekly is not None
        assert [period.hours for period in price.weekly.periods] == ["Sat 09:00-13:00", "Mon-Fri 08:00-19:00"]
        assert [window.name for window in price.weekly.kinds] == ["sat", "peak", "off-peak"]
        assert cost(price, saturday_s, 62) == 64_000
    request.windows.add(name="peak", hours="Sun 00:00-24:00")
    with pytest.raises(Invalid) as caught:
        await unary(rig.stubs[0].ImportDeck, request, timeout_s=60)
    assert caught.value.field == "windows"


async def test_bad_requests_name_their_field(rig: RatingProcesses) -> None:
    reply = await rig.import_(HEADER + "49,Germany,dear,\n44,UK,0.01,\nxx,,1,\n")
    assert [(error.line, error.field) for error in reply.errors] == [(2, "rate"), (4, "prefix")]
    assert (reply.rows, reply.version) == (0, 0)
    stub = rig.stubs[0]
    calls: list[tuple[Awaitable[object], type[CallwardenError], str]] = [
        (rig.import_(HEADER, name="a deck"), Invalid, "name"),
        (rig.route("49", "office"), Invalid, "trunk"),
        (rig.route("49", "nowhere"), NotFound, "trunk"),
        (rig.route("+49"), Invalid, "prefix"),
        (rig.route("49", cost_deck="none"), NotFound, "cost_deck"),
        (
            unary(rig.callers[0].Quote, rating_pb2.QuoteRequest(deck="retail", destination="+49")),
            Invalid,
            "destination",
        ),
        (unary(stub.Simulate, rating_pb2.SimulateRequest(destination="49", duration_s=2**31)), Invalid, "duration_s"),
        (
            unary(
                stub.ImportDeck,
                rating_pb2.ImportDeckRequest(name="x", currency="EUR", rounding=rating_pb2.Rounding(decimals=7)),
            ),
            Invalid,
            "rounding.decimals",
        ),
    ]
    for call, error, field in calls:
        with pytest.raises(error) as caught:
            await call
        assert caught.value.field == field
    assert (await unary(stub.ListDecks, rating_pb2.ListDecksRequest())).decks == []
    assert (await unary(stub.ListRoutes, rating_pb2.ListRoutesRequest())).routes == []


async def test_a_carrier_that_is_disabled_gets_no_more_calls(rig: RatingProcesses) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,\n")
    await rig.route("")
    await rig.database.execute("UPDATE trunk SET enabled = false")
    connection = await nats.connect(rig.system.nats_url)
    # What call-admission says when a trunk was changed.
    changed = events_pb2.AccountChanged(account_id="x", what="trunk")
    await connection.publish("security.account_changed", changed.SerializeToString())
    await connection.publish("security.account_changed", b"\xff\xff")  # a bad one ends nothing
    await connection.flush()

    async def nowhere() -> bool:
        return [await rig.rate("4930", process=process) for process in (0, 1)] == ["no-route", "no-route"]

    await eventually(nowhere)
    await rig.database.execute("UPDATE trunk SET enabled = true")
    await connection.publish("security.account_changed", changed.SerializeToString())
    await connection.flush()

    async def back() -> bool:
        return [await rig.rate("4930", process=process) for process in (0, 1)] == [60_000, 60_000]

    await eventually(back)
    await connection.close()
    request = rating_pb2.DeleteRouteRequest(prefix="", trunk="world")
    assert (await unary(rig.stubs[0].DeleteRoute, request)).deleted
    assert await rig.rate("4930") == "no-route"


def large(rows: int, rate: str) -> str:
    return HEADER + "".join(
        f"{10_000_000 + number},{'Somewhere in the far north' * 4} {number % 97},{rate},\n" for number in range(rows)
    )


def parts(csv: str, size: int = 1_000_000) -> Iterator[rating_pb2.ImportDeckRequest]:
    content = csv.encode()
    for start in range(0, len(content), size):
        part = rating_pb2.ImportDeckRequest(csv=content[start : start + size])
        if start == 0:
            part.name, part.currency, part.peak_hours = "retail", "EUR", "Mon-Fri 08:00-20:00"
        yield part


async def test_a_list_larger_than_a_message_comes_in_parts(rig: RatingProcesses) -> None:
    csv = large(40_000, "0.01")
    assert len(csv) > 4 * 1024 * 1024
    reply = await unary(rig.stubs[0].ImportDeckParts, parts(csv), timeout_s=60)
    assert (reply.rows, list(reply.errors)) == (40_000, [])
    await rig.route("")
    assert await rig.rate("10020000123") == 10_000

    async def other() -> bool:
        decks = (await unary(rig.stubs[1].ListDecks, rating_pb2.ListDecksRequest())).decks
        return [deck.rows for deck in decks] == [40_000]

    await eventually(other, timeout_s=30)
    with pytest.raises(Invalid):
        await unary(rig.stubs[0].ImportDeckParts, iter(()))


async def test_a_process_killed_in_the_middle_of_an_import_leaves_the_deck_as_it_was(rig: RatingProcesses) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,\n")
    await rig.route("")
    importing = asyncio.ensure_future(rig.import_(large(20_000, "0.01")))

    async def rows() -> int:
        return int(await rig.database.fetchval("SELECT count(*) FROM deck_row"))

    async def half_written() -> bool:
        return 1 < await rows() < 20_000

    await eventually(half_written, interval_s=0.001)
    await rig.system.kill("rating", 0)
    with pytest.raises(CallwardenError):
        await importing

    async def given_up() -> bool:
        return await rows() == 1

    await eventually(given_up, timeout_s=30)
    await rig.system.restart("rating", 0)

    async def as_before() -> bool:
        try:
            return await rig.rate("4930") == 60_000
        except Unavailable:  # The stream is connecting again.
            return False

    await eventually(as_before)
    assert (await rig.import_(HEADER + "49,Germany,0.05,\n", process=1)).rows == 1
    assert await rows() == 1


def deck_processes(rig: RatingProcesses) -> list[int]:
    """The processes that the first rating process has started."""
    pid = rig.system.process("rating").child.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("end", ["killed", "cancelled"])
async def test_an_import_that_breaks_off_leaves_deck_and_quotes_as_they_were(rig: RatingProcesses, end: str) -> None:
    await rig.import_(HEADER + "49,Germany,0.06,\n")
    await rig.route("")
    importing = asyncio.ensure_future(rig.import_(large(20_000, "0.01")))

    async def rows() -> int:
        return int(await rig.database.fetchval("SELECT count(*) FROM deck_row"))

    async def half_written() -> bool:
        return 1 < await rows() < 20_000

    await eventually(half_written, timeout_s=60, interval_s=0.001)
    assert await rig.rate("4930") == 60_000
    (process,) = deck_processes(rig)
    if end == "killed":
        os.kill(process, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await importing
    else:
        importing.cancel()

        async def deleted() -> bool:
            return await rows() == 1 and not deck_processes(rig)

        await eventually(deleted, timeout_s=30)
    assert await rig.rate("4930") == 60_000
    assert (await rig.import_(HEADER + "49,Germany,0.05,\n")).rows == 1
    assert (await rows(), await rig.rate("4930")) == (1, 50_000)


async def test_a_large_deck_with_wrong_lines_names_them(rig: RatingProcesses) -> None:
    reply = await rig.import_(large(1_000, "0.01") + "49,,dear,\n")
    assert [(error.line, error.field) for error in reply.errors] == [(1_002, "rate")]


async def test_without_a_database_what_is_known_goes_on(local_system: StartSystem) -> None:
    system = await local_system(services={"rating"}, own_postgres=True)
    async with channel(system.targets("rating")[0], system.credentials("admin")) as opened:
        stub = rating_pb2_grpc.RatingServiceStub(opened)
        request = rating_pb2.ImportDeckRequest(name="retail", currency="EUR", csv=b"prefix,rate\n49,0.06\n")
        await unary(stub.ImportDeck, request, timeout_s=30)
        await system.kill("postgres")
        simulate = rating_pb2.SimulateRequest(deck="retail", destination="4930", at_s=NOON_S, duration_s=60)
        assert (await unary(stub.Simulate, simulate)).simulation.cost_micros == 60_000
        with pytest.raises(CallwardenError):
            await unary(stub.ImportDeck, request, timeout_s=10)
        await system.restart("postgres")

        async def imported() -> bool:
            try:
                reply = await unary(stub.ImportDeck, request, timeout_s=10)
            except CallwardenError:
                return False
            return bool(reply.rows == 1)

        await eventually(imported, timeout_s=30)
