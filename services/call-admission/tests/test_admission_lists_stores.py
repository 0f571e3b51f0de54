"""Number lists kept, imported and followed: the same promises in memory and in the database, news over NATS."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from callwarden.call_admission.lists.adapters import lists_sql
from callwarden.call_admission.lists.adapters.lists_memory import MemoryListed, MemoryLists
from callwarden.call_admission.lists.adapters.lists_nats import (
    NatsListed,
    NatsListPublisher,
    follow_changes,
    follow_listed,
)
from callwarden.call_admission.lists.adapters.lists_sql import SqlLists
from callwarden.call_admission.lists.app.number_lists import NumberLists
from callwarden.call_admission.lists.ports import ListedStore, ListStore
from callwarden.call_admission.model.lists import DYNAMIC, Listed, ListEntry, ListHead, ListKind, ListSide
from callwarden.common.bus import Bucket, Bus
from callwarden.common.clock import SystemClock
from callwarden.common.sql import Database
from callwarden.kernel.errors import Conflict, Exhausted, Invalid, NotFound, Unavailable
from callwarden.local.nats import NatsServer
from callwarden.testing.clock import FakeClock
from callwarden.testing.contracts import ContractSuite, assert_shown_on
from callwarden.testing.waiting import eventually

NUMBERS = [f"49{number:06}" for number in range(25)]


async def pages(patterns: Sequence[str], size: int = 10) -> AsyncIterator[Sequence[ListEntry]]:
    for start in range(0, len(patterns), size):
        yield [ListEntry(pattern, f"note of {pattern}") for pattern in patterns[start : start + size]]


async def stored(store: ListStore, name: str, version: int) -> list[str]:
    return [pattern async for page in store.patterns(name, version) for pattern in page]


class ListStoreContract(ContractSuite[ListStore]):
    async def test_a_list_is_read_as_it_was_written(self, subject: ListStore) -> None:
        head = ListHead("irsf", 0, ListKind.ALLOW, ListSide.BOTH, "for tests", 0, "file.csv", ("berlin", "paris"))
        written = await subject.replace(head, pages([*NUMBERS, "4990*", "4991?7*", NUMBERS[0], NUMBERS[24]]))
        assert (written.entries, written.duplicates) == (27, 2)
        (kept,) = await subject.heads()
        assert (kept.name, kept.version, kept.entries) == ("irsf", written.version, 27)
        assert (kept.kind, kept.side, kept.description, kept.source) == (
            ListKind.ALLOW,
            ListSide.BOTH,
            "for tests",
            "file.csv",
        )
        assert kept.trunks == ("berlin", "paris")
        assert await stored(subject, "irsf", kept.version) == sorted([*NUMBERS, "4990*", "4991?7*"])
        assert [entry.pattern for entry in await subject.entries("irsf", NUMBERS[20], 3)] == NUMBERS[21:24]
        assert await subject.note("irsf", "4990*") == "note of 4990*"
        assert await subject.note("irsf", "33") == await subject.note("none", "33") == ""

    async def test_another_import_replaces_all_of_it_under_a_higher_version(self, subject: ListStore) -> None:
        first = await subject.replace(ListHead("irsf"), pages(NUMBERS))
        second = await subject.replace(ListHead("irsf"), pages(["33123456"]))
        assert second.version > first.version
        (kept,) = await subject.heads()
        assert (kept.version, kept.entries) == (second.version, 1)
        assert await stored(subject, "irsf", second.version) == ["33123456"]
        assert await stored(subject, "irsf", first.version) == []

    async def test_an_import_that_fails_leaves_the_version_before(self, subject: ListStore) -> None:
        first = await subject.replace(ListHead("irsf"), pages(NUMBERS))

        async def broken() -> AsyncIterator[Sequence[ListEntry]]:
            yield [ListEntry("33123456")]
            raise Unavailable("the line is dead")

        with pytest.raises(Unavailable):
            await subject.replace(ListHead("irsf"), broken())
        (kept,) = await subject.heads()
        assert kept.version == first.version
        assert await stored(subject, "irsf", kept.version) == NUMBERS

    async def test_of_two_imports_of_a_list_at_once_one_is_told_of_the_other(self, subject: ListStore) -> None:
        async def slow(meanwhile: ListStore) -> AsyncIterator[Sequence[ListEntry]]:
            yield [ListEntry("33123456")]
            await meanwhile.replace(ListHead("irsf"), pages(NUMBERS))
            yield [ListEntry("33123457")]

        with pytest.raises(Conflict):
            await subject.replace(ListHead("irsf"), slow(subject))
        (kept,) = await subject.heads()
        assert await stored(subject, "irsf", kept.version) == NUMBERS

    async def test_a_deleted_list_is_gone_and_its_name_free(self, subject: ListStore) -> None:
        first = await subject.replace(ListHead("irsf"), pages(NUMBERS))
        assert await subject.delete("irsf")
        assert not await subject.delete("irsf")
        assert await subject.heads() == []
        assert await stored(subject, "irsf", first.version) == []
        await subject.replace(ListHead("irsf"), pages(["33123456"]))
        assert [head.entries for head in await subject.heads()] == [1]

    async def test_an_account_that_does_not_exist_has_no_realm(self, subject: ListStore) -> None:
        assert await subject.realms([uuid.uuid4()]) == {}


class TestMemoryLists(ListStoreContract):
    @pytest.fixture
    def subject(self) -> ListStore:
        return MemoryLists()


class TestSqlLists(ListStoreContract):
    @pytest_asyncio.fixture
    async def subject(  # type: ignore[override]
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[ListStore]:
        monkeypatch.setattr(lists_sql, "PAGE_PATTERNS", 7)  # several pages of a small list
        monkeypatch.setattr(lists_sql, "DELETED_ROWS", 5)
        async with Database(database_url) as database:
            yield SqlLists(database)


def listed(number: str, until_s: float, *, account: uuid.UUID | None = None) -> Listed:
    side = ListSide.CALLED if account is None else ListSide.CALLING
    return Listed(DYNAMIC, "example.org", side, number, account, "failing", "60 failed calls", until_s - 60, until_s)


class ListedStoreContract(ContractSuite[ListedStore]):
    async def test_the_first_to_list_a_number_has_listed_it(self, subject: ListedStore) -> None:
        unix_s = SystemClock().unix_s()
        first, second = listed("4930", unix_s + 60), listed("4930", unix_s + 600)
        assert await subject.put(first)
        assert not await subject.put(second)
        assert list(await subject.all()) == [first]

    async def test_a_number_may_be_listed_for_several_owners_and_lifted_for_one(self, subject: ListedStore) -> None:
        unix_s = SystemClock().unix_s()
        of_realm, of_account = listed("4930", unix_s + 60), listed("4930", unix_s + 60, account=uuid.uuid4())
        assert await subject.put(of_realm)
        assert await subject.put(of_account)
        await subject.delete(of_realm)
        await subject.delete(of_realm)
        assert list(await subject.all()) == [of_account]
        assert await subject.put(of_realm)


class TestMemoryListed(ListedStoreContract):
    @pytest.fixture
    def subject(self) -> ListedStore:
        return MemoryListed()


class TestNatsListed(ListedStoreContract):
    @pytest_asyncio.fixture
    async def subject(  # type: ignore[override]
        self, nats_server: NatsServer
    ) -> AsyncIterator[ListedStore]:
        async with Bus(nats_server.url, name="test") as bus:
            yield NatsListed(bus.kv(Bucket.LISTED), SystemClock())


def test_the_contracts_are_shown_on_what_runs() -> None:
    assert_shown_on(ListStoreContract, "TestMemoryLists", "TestSqlLists")
    assert_shown_on(ListedStoreContract, "TestMemoryListed", "TestNatsListed")


# ------------------------------------------------------------------ NumberLists


class Silence:
    """lists.ports.ListNews that nobody hears."""

    async def changed(self, name: str, version: int) -> None:
        pass


def number_lists(store: ListStore, listed_store: ListedStore | None = None) -> NumberLists:
    return NumberLists(store, Silence(), listed_store or MemoryListed(), FakeClock())


async def test_a_bad_line_is_said_and_nothing_changes() -> None:
    lists = number_lists(MemoryLists())
    await lists.import_list(ListHead("irsf"), [b"4930123\n"])
    before = lists.current
    errors = await lists.import_list(ListHead("irsf"), [b"4930124\n0301", b"23\n4930125\n"])
    assert isinstance(errors, list)
    assert [error.line for error in errors] == [2]
    assert lists.current is before
    assert await lists.import_list(ListHead("irsf"), [b"# nothing\n"]) != []
    assert [info.head.entries for info in await lists.lists()] == [1]


@pytest.mark.parametrize(
    ("head", "field"),
    [
        (ListHead("dynamic"), "name"),
        (ListHead("a b"), "name"),
        (ListHead("x", description="a\x00b"), "description"),
        (ListHead("x", trunks=("a b",)), "trunks"),
        (ListHead("x", trunks=("t",) * 65), "trunks"),
    ],
)
async def test_what_a_list_may_not_be_is_said(head: ListHead, field: str) -> None:
    with pytest.raises(Invalid) as raised:
        await number_lists(MemoryLists()).import_list(head, [b"4930123\n"])
    assert raised.value.field == field


async def test_calls_are_decided_by_one_version_or_the_next_and_nothing_between() -> None:
    """Each version lists numbers of its own; whoever looks at any moment sees one of them whole."""
    store = MemoryLists()
    lists = number_lists(store)
    await lists.import_list(ListHead("irsf"), [b"490000\n490001\n"])
    seen: set[tuple[str, ...]] = set()
    stop = asyncio.Event()

    async def look() -> None:
        while not stop.is_set():
            one = lists.current.fixed["irsf"]
            seen.add(tuple(number for number in ("490000", "490001", "490002", "490003") if one.match(number)))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    for _ in range(5):
        await lists.import_list(ListHead("irsf"), [b"490002\n490003\n"])
        await lists.import_list(ListHead("irsf"), [b"490000\n490001\n"])
    stop.set()
    await looking
    assert seen == {("490000", "490001"), ("490002", "490003")}


async def test_lists_are_looked_at_checked_and_deleted() -> None:
    lists = number_lists(MemoryLists())
    await lists.import_list(ListHead("irsf"), [b"number,note\n4930123,wangiri\n4990*,premium\n"])
    info, entries = await lists.show("irsf", "4930123")
    assert (info.loaded, [entry.pattern for entry in entries]) == (True, ["4990*"])
    found, _ = await lists.check("+49 90 1234")
    assert [(one.hit.list, one.hit.pattern, one.note) for one in found] == [("irsf", "4990*", "premium")]
    assert await lists.delete("irsf")
    assert not await lists.delete("irsf")
    assert lists.current.fixed == {}
    with pytest.raises(NotFound):
        await lists.show("irsf")
    with pytest.raises(Invalid):
        await lists.check("alice")


async def test_a_lifted_number_is_gone_at_once() -> None:
    store = MemoryListed()
    lists = number_lists(MemoryLists(), store)
    one = listed("4930123", FakeClock().unix_s() + 60)
    await store.put(one)
    lists.listings.put(one)
    assert lists.listed() == [one]
    assert await lists.lift("+4930123") == [one]
    assert lists.listed() == []
    assert await store.all() == []


async def test_all_lists_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callwarden.call_admission.lists.adapters.lists_memory.LISTS_MAX", 1)
    lists = number_lists(MemoryLists())
    await lists.import_list(ListHead("one"), [b"4930123\n"])
    with pytest.raises(Exhausted):
        await lists.import_list(ListHead("two"), [b"4930123\n"])
    assert list(lists.current.fixed) == ["one"]


async def test_every_process_follows_an_import_and_what_is_listed(nats_server: NatsServer) -> None:
    store = MemoryLists()
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(Bus(nats_server.url, name=f"p{number}")) for number in range(2)]
        kvs = [bus.kv(Bucket.LISTED) for bus in buses]
        processes = [
            NumberLists(store, NatsListPublisher(bus), NatsListed(kv, SystemClock()), SystemClock())
            for bus, kv in zip(buses, kvs, strict=True)
        ]
        gone: list[Listed] = []
        tasks = []
        for bus, kv, lists in zip(buses, kvs, processes, strict=True):
            await follow_changes(bus, lists)
            tasks += [
                asyncio.create_task(lists.follow()),
                asyncio.create_task(follow_listed(kv, lists, gone.append)),
            ]
        try:
            await processes[0].import_list(ListHead("irsf"), [b"4930123\n"])
            await eventually(lambda: "irsf" in processes[1].current.fixed)
            one = listed("4930123", SystemClock().unix_s() + 3_600)
            assert await NatsListed(kvs[0], SystemClock()).put(one)
            await eventually(lambda: [lists.listed() for lists in processes] == [[one], [one]])
            assert await processes[1].lift("4930123") == [one]
            await eventually(lambda: len(gone) == 2)
            assert [lists.listed() for lists in processes] == [[], []]
        finally:
            for task in tasks:
                task.cancel()
