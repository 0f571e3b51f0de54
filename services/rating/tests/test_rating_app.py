"""Rating follows its store, imports all or nothing, and goes on with what it has while the store is away."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.errors import CallwardenError, Invalid, NotFound, Unavailable
from callwarden.kernel.tariff import cost
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.policy.bundle import Document, default_set
from callwarden.policy.model import PolicySpec
from callwarden.rating.adapters.decks_memory import MemoryDeckStore
from callwarden.rating.app import deck_work
from callwarden.rating.app.deck_work import ERRORS_MAX, StoreDeckWork
from callwarden.rating.app.rating import Rating
from callwarden.rating.core import deck_csv
from callwarden.rating.core.deck import DeckHead, DeckRow, ImportedDeck, Tariff
from callwarden.rating.core.quotes import RatingQuote
from callwarden.rating.core.routes import Carrier, RouteRow
from callwarden.rating.core.unbilled import Unbilled, UnbilledSeverity
from callwarden.testing.clock import FakeClock

RETAIL = DeckHead("retail", "EUR")
HEADER = b"prefix,description,rate\n"
GERMANY = HEADER + b"49,Germany,0.06\n"


class RecordedDeckChanges:
    """ports.DeckNotifier that remembers."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, int]] = []

    async def changed(self, deck: str, version: int) -> None:
        self.changes.append((deck, version))


class RecordedUnbilled:
    """ports.UnbilledEventPublisher that remembers."""

    def __init__(self) -> None:
        self.events: list[Unbilled] = []

    def unbilled(self, event: Unbilled) -> None:
        self.events.append(event)


class RatingUnderTest:
    """One process on a store that others may share."""

    def __init__(self, store: MemoryDeckStore, clock: FakeClock, refresh_every_s: float = 3_600.0) -> None:
        self.store = store
        self.announced = RecordedDeckChanges()
        self.raised = RecordedUnbilled()
        self.policies = default_set()
        self.app = Rating(
            store,
            StoreDeckWork(store, clock),
            self.announced,
            self.raised,
            self,
            clock,
            quote_valid_s=300.0,
            refresh_every_s=refresh_every_s,
        )

    async def import_deck(self, head: DeckHead, content: bytes) -> ImportedDeck | list[LineError]:
        async def parts() -> AsyncIterator[bytes]:
            yield content[:7]
            yield content[7:]

        return await self.app.import_deck(head, parts())

    def for_realm(self, realm: str) -> PolicySpec:
        """ports.RatingPolicies, of a set that the test may swap."""
        return self.policies.for_realm(realm)

    def apply(self, billing: dict[str, int], realm: str = "") -> None:
        spec = {"billing": billing, "realm": realm}
        self.policies = self.policies.with_applied([Document(f"billing-{realm or 'all'}", spec)])

    def price_of_a_minute(self, number: str = "493012345") -> int | Reason:
        found = self.app.quote("retail", number, 0)
        return found.reason if isinstance(found, Refuse) else cost(found.price, 0, 60)


@pytest.fixture
def store() -> MemoryDeckStore:
    store = MemoryDeckStore()
    store.carriers["world"] = Carrier("world", "192.0.2.1:5060", "account")
    return store


@pytest.fixture
async def rig(store: MemoryDeckStore, fake_clock: FakeClock) -> RatingUnderTest:
    """With a route to everywhere and no deck."""
    rig = RatingUnderTest(store, fake_clock)
    await rig.app.refresh()
    await rig.app.set_route(RouteRow("", "world"))
    rig.announced.changes.clear()
    return rig


async def test_an_imported_deck_prices_the_next_call(rig: RatingUnderTest) -> None:
    assert rig.price_of_a_minute() is Reason.NO_RATE
    assert await rig.import_deck(RETAIL, GERMANY) == ImportedDeck(1, 1)
    assert rig.price_of_a_minute() == 60_000
    assert await rig.import_deck(RETAIL, HEADER + b"49,Germany,0.03\n44,UK,0.02\n") == ImportedDeck(2, 2)
    assert rig.price_of_a_minute() == 30_000
    assert rig.announced.changes == [("retail", 1), ("retail", 2)]
    assert [(deck.head.name, deck.head.version, deck.rows) for deck in rig.app.decks()] == [("retail", 2, 2)]


async def test_a_bad_line_imports_nothing(rig: RatingUnderTest) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    result = await rig.import_deck(RETAIL, HEADER + b"49,Germany,0.01\n44,UK,free\n44,UK,0.01\n44,UK,0.01\n")
    assert isinstance(result, list)
    assert [(error.line, error.field) for error in result] == [(3, "rate"), (5, "prefix")]
    assert rig.price_of_a_minute() == 60_000
    assert rig.announced.changes == [("retail", 1)]


async def test_a_file_of_bad_lines_names_the_first_of_them(rig: RatingUnderTest) -> None:
    result = await rig.import_deck(RETAIL, HEADER + b"x,,\n" * 10_000)
    assert isinstance(result, list)
    assert len(result) == ERRORS_MAX
    assert await rig.import_deck(RETAIL, b"\xff") == [LineError(1, "", "is not UTF-8")]


async def test_a_deck_of_many_pages_is_imported_whole(rig: RatingUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck_work, "PAGE_ROWS", 7)
    rows = b"".join(b"%d,,0.01\n" % number for number in range(1_000, 1_500))
    assert await rig.import_deck(RETAIL, HEADER + rows) == ImportedDeck(500, 1)
    assert rig.app.decks()[0].rows == 500


@pytest.mark.parametrize(
    ("head", "field"),
    [
        (DeckHead("", "EUR"), "name"),
        (DeckHead("a b", "EUR"), "name"),
        (DeckHead("a" * 65, "EUR"), "name"),
        (DeckHead("../retail", "EUR\n"), "name"),
        (DeckHead("retail", "euro"), "currency"),
        (DeckHead("retail", "EUR", time_zone="Mars/Olympus"), "time_zone"),
        (DeckHead("retail", "EUR", time_zone="../../etc/passwd"), "time_zone"),
        (DeckHead("retail", "EUR", time_zone="x" * 10_000), "time_zone"),
        (DeckHead("retail", "EUR", time_zone="a\0b"), "time_zone"),
        (DeckHead("retail", "EUR", peak_hours="at noon"), "peak_hours"),
    ],
)
async def test_a_deck_that_cannot_be_is_refused(rig: RatingUnderTest, head: DeckHead, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        await rig.import_deck(head, GERMANY)
    assert caught.value.field == field
    assert rig.app.decks() == []


async def test_a_file_too_large_is_not_looked_at(rig: RatingUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck_csv, "BYTES_MAX", len(GERMANY) - 1)
    with pytest.raises(Invalid) as caught:
        await rig.import_deck(RETAIL, GERMANY)
    assert caught.value.field == "csv"


@pytest.mark.parametrize("number", ["", "4", "+4930", "049", "49 30", "4930x", "1" * 16, "٤٩٣٠"])
async def test_what_is_no_number_is_an_error_and_not_a_refusal(rig: RatingUnderTest, number: str) -> None:
    with pytest.raises(Invalid) as caught:
        rig.app.quote("retail", number, 0)
    assert caught.value.field == "destination"


@pytest.mark.parametrize("at_s", [float("nan"), float("inf"), -1.0, 1e18])
async def test_what_is_no_moment_is_an_error(rig: RatingUnderTest, at_s: float) -> None:
    with pytest.raises(Invalid) as caught:
        rig.app.quote("retail", "4930", at_s)
    assert caught.value.field == "at_s"


async def test_no_moment_means_now(rig: RatingUnderTest, fake_clock: FakeClock) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    found = rig.app.quote("retail", "4930", 0)
    assert isinstance(found, RatingQuote)
    assert rig.app.good_until_s(0) == fake_clock.unix_s() + 300.0


async def test_a_simulated_call_is_of_a_possible_length(rig: RatingUnderTest) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    found = rig.app.simulate("retail", "4930", 0, 86_400)
    assert not isinstance(found, Refuse)
    assert found.cost_micros == 86_400_000
    with pytest.raises(Invalid):
        rig.app.simulate("retail", "4930", 0, 366 * 86_400 + 1)


@pytest.mark.parametrize(
    ("row", "error", "field"),
    [
        (RouteRow("+49", "world"), Invalid, "prefix"),
        (RouteRow("0", "world"), Invalid, "prefix"),
        (RouteRow("49", "world", 65_536), Invalid, "priority"),
        (RouteRow("49", "moon"), NotFound, "trunk"),
        (RouteRow("49", "world", 0, "no such deck"), NotFound, "cost_deck"),
    ],
)
async def test_a_route_that_cannot_be_is_refused(
    rig: RatingUnderTest, row: RouteRow, error: type[CallwardenError], field: str
) -> None:
    with pytest.raises(error) as caught:
        await rig.app.set_route(row)
    assert caught.value.field == field
    assert rig.announced.changes == []


async def test_a_route_is_used_at_once_and_gone_at_once(rig: RatingUnderTest) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    assert await rig.app.delete_route("", "world")
    assert rig.price_of_a_minute() is Reason.NO_ROUTE
    await rig.app.set_route(RouteRow("49", "world"))
    assert rig.price_of_a_minute() == 60_000
    assert await rig.app.list_routes() == [RouteRow("49", "world")]
    assert rig.announced.changes == [("retail", 1), ("", 0), ("", 0)]
    assert not await rig.app.delete_route("", "world")
    assert rig.announced.changes == [("retail", 1), ("", 0), ("", 0)]


@asynccontextmanager
async def following(rig: RatingUnderTest) -> AsyncIterator[None]:
    task = asyncio.create_task(rig.app.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def turns() -> None:
    """Let everything that is due run."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_another_process_follows_when_it_is_told(rig: RatingUnderTest, fake_clock: FakeClock) -> None:
    other = RatingUnderTest(rig.store, fake_clock)
    await other.app.refresh()
    async with following(other):
        await rig.import_deck(RETAIL, GERMANY)
        await turns()
        assert other.price_of_a_minute() is Reason.NO_RATE
        other.app.changed()
        await turns()
        assert other.price_of_a_minute() == 60_000


async def test_another_process_follows_when_a_notification_was_lost(
    rig: RatingUnderTest, fake_clock: FakeClock
) -> None:
    other = RatingUnderTest(rig.store, fake_clock, refresh_every_s=0.001)
    await other.app.refresh()
    await rig.import_deck(RETAIL, GERMANY)
    refreshed = asyncio.Event()
    read = other.store.routes

    async def routes() -> Sequence[object]:
        refreshed.set()
        return await read()

    other.store.routes = routes  # type: ignore[method-assign, assignment]
    async with following(other), asyncio.timeout(10):
        await refreshed.wait()
        await turns()
    assert other.price_of_a_minute() == 60_000


async def test_while_the_store_is_away_the_last_prices_go_on(rig: RatingUnderTest) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    rig.store.down = True
    with pytest.raises(Unavailable):
        await rig.import_deck(RETAIL, HEADER + b"49,,0.01\n")
    with pytest.raises(Unavailable):
        await rig.app.set_route(RouteRow("49", "world"))
    async with following(rig):
        rig.app.changed()
        await turns()
        assert rig.app.refresh_failures == 1
        assert rig.price_of_a_minute() == 60_000
        rig.store.down = False
        await rig.store.replace(RETAIL, _page(DeckRow("49", "", Tariff(10_000))))
        rig.app.changed()
        await turns()
    assert rig.price_of_a_minute() == 10_000


async def test_an_import_that_cannot_be_read_back_is_done_all_the_same(rig: RatingUnderTest) -> None:
    write = rig.store.replace

    async def replace_then_die(head: DeckHead, pages: AsyncIterator[Sequence[DeckRow]]) -> int:
        version = await write(head, pages)
        rig.store.down = True
        return version

    rig.store.replace = replace_then_die  # type: ignore[method-assign]
    assert await rig.import_deck(RETAIL, GERMANY) == ImportedDeck(1, 1)
    assert rig.announced.changes == [("retail", 1)]
    rig.store.down = False
    async with following(rig):
        await turns()
    assert rig.price_of_a_minute() == 60_000


async def test_a_deck_replaced_while_it_is_read_is_read_again(rig: RatingUnderTest) -> None:
    await rig.store.replace(RETAIL, _page(DeckRow("49", "", Tariff(1)), DeckRow("44", "", Tariff(1))))
    read = rig.store.rows

    async def rows(name: str, version: int) -> AsyncIterator[Sequence[DeckRow]]:
        rig.store.rows = read  # type: ignore[method-assign]
        await rig.store.replace(RETAIL, _page(DeckRow("49", "", Tariff(2))))
        async for page in read(name, version):  # Nothing is left of the version that was asked for.
            yield page

    rig.store.rows = rows  # type: ignore[method-assign]
    await rig.app.refresh()
    assert rig.price_of_a_minute() == 2
    assert rig.app.decks()[0].head.version == 2


async def test_a_kept_deck_that_makes_no_sense_does_not_end_the_others(rig: RatingUnderTest) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    await rig.store.replace(DeckHead("broken", "EUR", time_zone="Mars/Olympus"), _page(DeckRow("1", "", Tariff(1))))
    await rig.store.replace(RETAIL, _page(DeckRow("49", "", Tariff(5))))
    await rig.app.refresh()
    assert [deck.head.name for deck in rig.app.decks()] == ["retail"]
    assert rig.price_of_a_minute() == 5


async def _page(*rows: DeckRow) -> AsyncIterator[Sequence[DeckRow]]:
    yield rows


@pytest.mark.setting("vgetpriceexactmatch")
async def test_the_realm_s_policy_says_for_whom_a_price_must_be_exact(rig: RatingUnderTest) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    await rig.app.set_route(RouteRow("4930", "world"))

    def reason(*, is_resellers: bool, realm: str = "a.example") -> Reason | None:
        found = rig.app.quote("retail", "493012345", 0, realm=realm, is_resellers=is_resellers)
        if isinstance(found, Refuse):
            assert "4930" in found.text
            return found.reason
        return None

    assert (reason(is_resellers=False), reason(is_resellers=True)) == (None, None)
    rig.apply({"exactMatch": 1})
    assert (reason(is_resellers=False), reason(is_resellers=True)) == (None, Reason.NO_RATE)
    rig.apply({"exactMatch": 2})
    assert (reason(is_resellers=False), reason(is_resellers=True)) == (Reason.NO_RATE, Reason.NO_RATE)
    rig.apply({"exactMatch": 0}, realm="b.example")
    assert reason(is_resellers=True, realm="b.example") is None
    assert reason(is_resellers=False) is Reason.NO_RATE
    await rig.import_deck(RETAIL, GERMANY + b"4930,Berlin,0.05\n")
    assert reason(is_resellers=True) is None


@pytest.mark.setting("notbilledcallerr")
async def test_a_call_without_a_price_is_told_with_the_realm_s_severity(
    rig: RatingUnderTest, fake_clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await rig.import_deck(RETAIL, GERMANY)
    rig.apply({"notBilledSeverity": 1}, realm="b.example")
    rig.apply({"notBilledSeverity": 2}, realm="c.example")
    for realm, number in (("a.example", "33123456789"), ("b.example", "44123456789"), ("c.example", "34123456789")):
        rig.app.quote("retail", number, 0, realm=realm)
    first, second, third = rig.raised.events
    assert (first.deck, first.prefix, first.severity, first.count) == ("retail", "331234", UnbilledSeverity.LOW, 1)
    assert first.text == "the price list has no price for this number"
    assert [second.severity, third.severity] == [UnbilledSeverity.ERROR, UnbilledSeverity.CRITICAL]
    lines = [record for record in caplog.records if record.message == "billing.unbilled"]
    assert [line.levelname for line in lines] == ["INFO", "ERROR", "ERROR"]
    assert not any("33123456789" in str(line.__dict__) for line in lines)
    for _ in range(9):
        rig.app.quote("retail", "33123499999", 0, realm="c.example")
    rig.app.quote("no deck!", "33123499999", 0)  # A name that no deck can have isn't repeated.
    assert [event.deck for event in rig.raised.events[3:]] == [""]
    fake_clock.advance(60)
    rig.app.raise_due(fake_clock.unix_s())
    (event,) = rig.raised.events[4:]
    assert (event.deck, event.prefix, event.severity, event.count) == ("retail", "331234", UnbilledSeverity.CRITICAL, 9)
    assert rig.app.unbilled == {UnbilledSeverity.LOW: 2, UnbilledSeverity.ERROR: 1, UnbilledSeverity.CRITICAL: 10}


@pytest.mark.setting("notbilledcallerr")
async def test_a_call_with_a_price_but_no_route_is_not_unbilled(rig: RatingUnderTest) -> None:
    await rig.import_deck(RETAIL, GERMANY)
    await rig.app.delete_route("", "world")
    found = rig.app.quote("retail", "493012345", 0)
    assert isinstance(found, Refuse)
    assert found.reason is Reason.NO_ROUTE
    rig.app.simulate("retail", "33123456789", 0, 60)  # Nobody calls.
    assert rig.raised.events == []


@pytest.mark.setting("notbilledcallerr")
async def test_what_was_counted_is_told_when_the_process_ends(rig: RatingUnderTest) -> None:
    reporting = asyncio.create_task(rig.app.report_unbilled())
    await asyncio.sleep(0)
    for _ in range(3):
        rig.app.quote("retail", "33123456789", 0)
    reporting.cancel()
    await asyncio.gather(reporting, return_exceptions=True)
    assert [event.count for event in rig.raised.events] == [1, 2]
