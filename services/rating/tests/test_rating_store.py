"""The store keeps decks whole and routes true, in memory and in the database."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, insert, select, update

from callwarden.common.sql import Database
from callwarden.kernel.errors import CallwardenError, Conflict, Exhausted, Invalid, NotFound
from callwarden.kernel.hours import BadPeakHours, parse
from callwarden.kernel.tariff import RateGroup, Rounding, RoundingMethod
from callwarden.rating.adapters import decks_sql
from callwarden.rating.adapters.decks_memory import MemoryDeckStore
from callwarden.rating.adapters.decks_sql import SqlDeckStore
from callwarden.rating.core.deck import AS_THE_ROW, DeckHead, DeckRow, DeckWindow, Tariff, WindowCharges
from callwarden.rating.core.routes import Carrier, RouteRow
from callwarden.rating.ports import DeckStore
from callwarden.schema.tables import account, deck, deck_row, trunk
from callwarden.testing.contracts import ContractSuite, assert_shown_on
from callwarden.testing.servers import as_owner

OWNER = str(uuid.UUID(int=1, version=4))
RETAIL = DeckHead("retail", "EUR", 0, "Mon-Fri 08:00-20:00", "Europe/Berlin", Rounding(RoundingMethod.MIDDLE, 2))
ROWS = [
    DeckRow("49", "Germany", Tariff(19_000)),
    DeckRow("4917", "Germany mobile", Tariff(89_000, 30, 1, 60, 6, 5, 4, 3, 2)),
    DeckRow("1", "NANP", Tariff(10_000, off_peak_rate_micros=0)),
]
STEPS = RateGroup(60, 5_000, 60, 1), RateGroup(600, 0, 1, 30)
WITH_WINDOWS = replace(RETAIL, windows=(DeckWindow("sat", "Sat 09:00-13:00"), DeckWindow("sun", "Sun 09:00-13:00")))
WITH_STEPS = [
    DeckRow("43", "Austria", Tariff(10_000, steps=STEPS, maximum_micros=5_000_000, cuts_at_maximum=True)),
    DeckRow("44", "Britain", Tariff(10_000, steps=STEPS, off_peak_steps=(), maximum_micros=0)),
    DeckRow("45", "Denmark", Tariff(1, windows=(AS_THE_ROW, WindowCharges(2, 3, 4, 5, 6, STEPS[:1])))),
    DeckRow("46", "Sweden", Tariff(1, off_peak_steps=STEPS, windows=(WindowCharges(0, steps=()), AS_THE_ROW))),
]


async def pages(*rows: DeckRow, fails: bool = False) -> AsyncIterator[Sequence[DeckRow]]:
    """One row a page; `fails` after them."""
    for row in rows:
        yield [row]
    if fails:
        raise Unfinished


class Unfinished(Exception):
    """The import's source breaks off."""


async def read(store: DeckStore, name: str = "retail") -> list[DeckRow]:
    """All rows of the version that holds."""
    (head,) = [head for head in await store.heads() if head.name == name]
    return [row async for page in store.rows(name, head.version) for row in page]


def by_prefix(*rows: DeckRow) -> list[DeckRow]:
    return sorted(rows, key=lambda row: row.prefix)


class DeckStoreContract(ContractSuite[DeckStore]):
    """What every ports.DeckStore promises. There are two carriers, "berlin" and "london", and a sender "office"."""

    async def test_a_deck_is_read_as_it_was_written(self, subject: DeckStore) -> None:
        version = await subject.replace(RETAIL, pages(*ROWS))
        assert await subject.heads() == [replace(RETAIL, version=version)]
        assert await read(subject) == by_prefix(*ROWS)

    async def test_steps_windows_and_maximum_are_read_as_they_were_written(self, subject: DeckStore) -> None:
        version = await subject.replace(WITH_WINDOWS, pages(*ROWS, *WITH_STEPS))
        assert await subject.heads() == [replace(WITH_WINDOWS, version=version)]
        assert await read(subject) == by_prefix(*ROWS, *WITH_STEPS)

    async def test_a_new_version_replaces_all_rows_and_what_holds_for_the_deck(self, subject: DeckStore) -> None:
        first = await subject.replace(RETAIL, pages(*ROWS))
        changed = DeckHead("retail", "USD")
        second = await subject.replace(changed, pages(ROWS[0]))
        assert second > first
        assert await subject.heads() == [replace(changed, version=second)]
        assert await read(subject) == [ROWS[0]]

    async def test_decks_do_not_touch_each_other(self, subject: DeckStore) -> None:
        await subject.replace(RETAIL, pages(*ROWS))
        await subject.replace(DeckHead("other", "EUR"), pages(ROWS[2]))
        assert [head.name for head in await subject.heads()] == ["other", "retail"]
        assert await read(subject, "other") == [ROWS[2]]
        assert await read(subject) == by_prefix(*ROWS)

    async def test_an_import_that_breaks_off_changes_nothing(self, subject: DeckStore) -> None:
        version = await subject.replace(RETAIL, pages(*ROWS))
        with pytest.raises(Unfinished):
            await subject.replace(DeckHead("retail", "USD"), pages(ROWS[0], fails=True))
        with pytest.raises(Unfinished):
            await subject.replace(DeckHead("new", "USD"), pages(ROWS[0], fails=True))
        assert await subject.heads() == [replace(RETAIL, version=version)]
        assert await read(subject) == by_prefix(*ROWS)
        assert await subject.replace(RETAIL, pages(ROWS[1])) > version
        assert await read(subject) == [ROWS[1]]

    async def test_routes_are_listed_with_their_carriers(self, subject: DeckStore) -> None:
        for row in (RouteRow("49", "london", 2), RouteRow("49", "berlin", 1), RouteRow("", "london")):
            await subject.set_route(row)
        found = await subject.routes()
        assert [route.row for route in found] == [
            RouteRow("", "london"),
            RouteRow("49", "berlin", 1),
            RouteRow("49", "london", 2),
        ]
        assert found[1].carrier == Carrier("berlin", "192.0.2.1:5060", OWNER, 2, "99#0", True)

    async def test_a_route_that_is_set_again_is_changed(self, subject: DeckStore) -> None:
        await subject.replace(RETAIL, pages(*ROWS))
        await subject.set_route(RouteRow("49", "berlin", 1))
        await subject.set_route(RouteRow("49", "berlin", 5, "retail"))
        assert [route.row for route in await subject.routes()] == [RouteRow("49", "berlin", 5, "retail")]

    async def test_a_route_is_taken_away_once(self, subject: DeckStore) -> None:
        await subject.set_route(RouteRow("49", "berlin"))
        assert not await subject.delete_route("4", "berlin")
        assert await subject.delete_route("49", "berlin")
        assert not await subject.delete_route("49", "berlin")
        assert await subject.routes() == []

    @pytest.mark.parametrize(
        ("row", "error", "field"),
        [
            (RouteRow("49", "nowhere"), NotFound, "trunk"),
            (RouteRow("49", "office"), Invalid, "trunk"),
            (RouteRow("49", "berlin", 0, "no such deck"), NotFound, "cost_deck"),
        ],
    )
    async def test_a_route_to_nowhere_is_refused(
        self, subject: DeckStore, row: RouteRow, error: type[CallwardenError], field: str
    ) -> None:
        with pytest.raises(error) as caught:
            await subject.set_route(row)
        assert caught.value.field == field
        assert await subject.routes() == []


class TestMemoryDeckStore(DeckStoreContract):
    @pytest.fixture
    def subject(self) -> DeckStore:
        store = MemoryDeckStore()
        store.senders.add("office")
        store.carriers["berlin"] = Carrier("berlin", "192.0.2.1:5060", OWNER, 2, "99#0")
        store.carriers["london"] = Carrier("london", "192.0.2.2:5060", OWNER)
        return store


async def fill(database: Database) -> None:
    async with database.engine.begin() as connection:
        owner = {"realm": "r", "type": "carrier", "currency": "EUR", "prepaid": False}
        await connection.execute(insert(account).values(id=uuid.UUID(OWNER), name="carrier", **owner))
        for name, number, direction in (("berlin", 1, "carrier"), ("london", 2, "carrier"), ("office", 3, "sender")):
            values = {"direction": "traffic-sender" if direction == "sender" else direction}
            if name == "berlin":
                values |= {"tech_prefix": "99#", "add_prefix": "0", "strip_digits": 2}  # type: ignore[dict-item]
            await connection.execute(
                insert(trunk).values(name=name, account_id=uuid.UUID(OWNER), address=f"192.0.2.{number}:5060", **values)
            )


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Database]:
    """The database as its owner, who furnishes what call-admission writes."""
    async with Database(as_owner(database_url)) as opened:
        yield opened


@pytest.fixture
async def database(database_url: str, owner: Database) -> AsyncIterator[Database]:
    await fill(owner)
    async with Database(database_url) as opened:
        yield opened


class TestSqlDeckStore(DeckStoreContract):
    @pytest.fixture
    def subject(self, database: Database) -> DeckStore:
        return SqlDeckStore(database)


def test_the_fake_proves_something() -> None:
    assert_shown_on(DeckStoreContract, "TestMemoryDeckStore", "TestSqlDeckStore")


async def written(database: Database) -> int:
    async with database.engine.begin() as connection:
        return await connection.scalar(select(func.count()).select_from(deck_row)) or 0


async def test_no_rows_are_left_of_versions_before_and_of_broken_imports(database: Database) -> None:
    store = SqlDeckStore(database)
    await store.replace(RETAIL, pages(*ROWS))
    with pytest.raises(Unfinished):
        await store.replace(RETAIL, pages(*ROWS, fails=True))
    assert await written(database) == 3
    # One that was killed leaves its rows; the next import takes them away.
    async with database.engine.begin() as connection:
        orphan = {"deck": "retail", "version": 7, "prefix": "1", "rate_micros": 1}
        await connection.execute(insert(deck_row).values(**orphan))
    assert await store.replace(RETAIL, pages(*ROWS)) == 8
    assert await written(database) == 3


@pytest.mark.parametrize(
    ("head", "rows", "is_marked"),
    [
        (RETAIL, ROWS, False),
        (WITH_WINDOWS, ROWS, True),
        *((RETAIL, [*ROWS, row], True) for row in WITH_STEPS),
        (DeckHead("retail", "EUR"), [DeckRow("1", "", Tariff(1, maximum_micros=0))], True),
    ],
)
async def test_a_process_that_does_not_know_steps_windows_or_maximum_cannot_read_a_deck_that_has_them(
    database: Database, head: DeckHead, rows: list[DeckRow], is_marked: bool
) -> None:
    await SqlDeckStore(database).replace(head, pages(*rows))
    async with database.engine.begin() as connection:
        stored = await connection.scalar(select(deck.c.peak_hours)) or ""
    # It parses the hours before it reads a row, and keeps the version that it had where it can't.
    if is_marked:
        with pytest.raises(BadPeakHours):
            parse(stored, ZoneInfo("UTC"))
    else:
        assert stored == head.peak_hours


async def test_a_deck_of_many_pages_is_written_read_and_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decks_sql, "PAGE_ROWS", 10)
    monkeypatch.setattr(decks_sql, "DELETED_ROWS", 7)
    store = SqlDeckStore(database)
    rows = [DeckRow(str(number), "", Tariff(number)) for number in range(100, 200)]  # ten full pages
    await store.replace(RETAIL, pages(*rows))
    assert await read(store) == rows
    await store.replace(RETAIL, pages(*ROWS))
    assert await read(store) == by_prefix(*ROWS)
    assert await written(database) == 3


async def test_of_imports_at_the_same_time_one_wins_whole(database: Database) -> None:
    store = SqlDeckStore(database)
    await store.replace(RETAIL, pages(ROWS[0]))
    for round_ in range(5):
        decks = [[DeckRow(f"{n}{i}", str(n), Tariff(round_)) for i in range(1, 9)] for n in (1, 2, 3)]
        results = await asyncio.gather(*(store.replace(RETAIL, pages(*rows)) for rows in decks), return_exceptions=True)
        won = [rows for rows, result in zip(decks, results, strict=True) if isinstance(result, int)]
        assert won
        assert all(isinstance(result, int | Conflict) for result in results), results
        assert await read(store) in won
        assert await written(database) == 8


async def test_a_carrier_that_is_disabled_or_turned_around_is_not_usable(database: Database, owner: Database) -> None:
    store = SqlDeckStore(database)
    await store.set_route(RouteRow("49", "berlin"))

    async def is_usable() -> bool:
        (route,) = await store.routes()
        return route.carrier.is_usable

    async def change(statement: object) -> None:
        async with owner.engine.begin() as connection:
            await connection.execute(statement)  # type: ignore[call-overload]

    assert await is_usable()
    await change(update(trunk).where(trunk.c.name == "berlin").values(enabled=False))
    assert not await is_usable()
    await change(update(trunk).values(enabled=True, direction="traffic-sender"))
    assert not await is_usable()
    await change(update(trunk).values(direction="carrier"))
    await change(update(account).values(status="disabled"))
    assert not await is_usable()


async def test_there_is_an_end_to_the_routes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decks_sql, "ROUTE_ROWS_MAX", 2)
    store = SqlDeckStore(database)
    await store.set_route(RouteRow("1", "berlin"))
    await store.set_route(RouteRow("2", "berlin"))
    with pytest.raises(Exhausted):
        await store.set_route(RouteRow("3", "berlin"))
    await store.set_route(RouteRow("2", "berlin", 9))
    assert [route.row.priority for route in await store.routes()] == [0, 9]
