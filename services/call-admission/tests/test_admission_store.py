"""What ports.AdmissionStore promises, kept by the database and by the store in memory alike."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

import pytest
import pytest_asyncio
from admission_tables import (
    CARRIERS,
    NOW_S,
    POLICY,
    PRICE,
    RETAIL,
    account,
    admission,
    carrier,
    ended,
    extension,
)
from sqlalchemy import insert, select, update

from callwarden.call_admission.admission.adapters.store_memory import MemoryAdmissionStore
from callwarden.call_admission.admission.adapters.store_sql import SESSION, SqlAdmissionStore
from callwarden.call_admission.admission.core.commands import Admitted, Command, DecisionRecord, Done, Ignored, Outcome
from callwarden.call_admission.admission.core.state import Changes, CounterRow, Loaded, ReadSet
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.admission.ports import AdmissionStore, WriteConflict, Written
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Expired, Hold, HoldStage, LimitScope, Quote, Route
from callwarden.call_admission.model.usage import Usage
from callwarden.common.sql import Database
from callwarden.kernel.clock import UnixS
from callwarden.schema import tables
from callwarden.testing.servers import as_owner

FIRST, SECOND = UUID(int=1), UUID(int=2)
ROW = UUID(int=99), 3
"""A row of counters that belongs to nothing else here."""


class Subject(ABC):
    """A store, and the accounts in it."""

    store: AdmissionStore

    @abstractmethod
    async def open(self, opened: Account) -> None:
        """Opens an account with this balance."""

    @abstractmethod
    async def change(self, account_id: UUID) -> None:
        """Changes the account as an operator does: it gets another version."""

    @abstractmethod
    async def money(self, account_id: UUID) -> tuple[int, int]:
        """The account's balance, and what is held of it."""

    @abstractmethod
    async def spent(self, account_id: UUID) -> int:
        """On all days."""


@dataclass
class InMemory(Subject):
    store: MemoryAdmissionStore

    async def open(self, opened: Account) -> None:
        self.store.accounts[opened.id] = opened

    async def change(self, account_id: UUID) -> None:
        self.store.versions[account_id] = self.store.versions.get(account_id, 0) + 1

    async def money(self, account_id: UUID) -> tuple[int, int]:
        found = self.store.accounts[account_id]
        return found.balance_micros, found.held_micros

    async def spent(self, account_id: UUID) -> int:
        return sum(micros for (owner, _), micros in self.store.spent.items() if owner == account_id)


@dataclass
class InDatabase(Subject):
    store: SqlAdmissionStore
    owner: Database

    async def open(self, opened: Account) -> None:
        names = (
            "id", "realm", "name", "currency", "time_zone", "prepaid", "deck", "balance_micros", "max_lines", "shards",
            "daily_micros", "parent", "talk_day_s", "overdraft_micros",
        )  # fmt: skip
        values = {name: getattr(opened, name) for name in names}
        await self._run(insert(tables.account).values(type=opened.type.value, status="active", **values))

    async def change(self, account_id: UUID) -> None:
        row = tables.account.c
        await self._run(update(tables.account).where(row.id == account_id).values(version=row.version + 1))

    async def money(self, account_id: UUID) -> tuple[int, int]:
        row = tables.account.c
        found = await self._run(select(row.balance_micros, row.held_micros).where(row.id == account_id))
        return cast(tuple[int, int], tuple(found[0]))

    async def spent(self, account_id: UUID) -> int:
        row = tables.spend_day.c
        return sum(
            each.spent_micros for each in await self._run(select(row.spent_micros).where(row.account_id == account_id))
        )

    async def _run(self, statement: Any) -> Sequence[Any]:
        async with self.owner.engine.begin() as connection:
            result = await connection.execute(statement)
            return result.all() if result.returns_rows else ()


@pytest_asyncio.fixture(
    params=["memory", pytest.param("database", marks=[pytest.mark.integration, pytest.mark.database])]
)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        opened: Subject = InMemory(MemoryAdmissionStore())
        await _open_all(opened)
        yield opened
        return
    url = request.getfixturevalue("database_url")
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(url))
        pool = await stack.enter_async_context(await database.hot(connections=1, session=SESSION))
        opened = InDatabase(SqlAdmissionStore(pool), await stack.enter_async_context(Database(as_owner(url))))
        await _open_all(opened)
        yield opened


async def _open_all(subject: Subject) -> None:
    await subject.open(account(1))
    await subject.open(account(2))
    await subject.open(carrier("carrier", talk_day_s=1_000))


async def load(subject: Subject, commands: Sequence[Command], unix_s: float = NOW_S) -> Loaded:
    return await subject.store.load(ReadSet.of(commands, UnixS(unix_s)), ())


def decide(loaded: Loaded, commands: Sequence[Command], unix_s: float = NOW_S) -> tuple[Changes, list[Outcome]]:
    transaction = AdmissionTransaction(loaded, lambda realm: POLICY, UnixS(unix_s))
    assert not transaction.missing_counters(commands)
    return transaction.changes, [transaction.apply(command) for command in commands]


async def commit(subject: Subject, *commands: Command, unix_s: float = NOW_S) -> list[Outcome]:
    changes, outcomes = decide(await load(subject, commands, unix_s), commands, unix_s)
    assert await subject.store.write(changes) == Written()
    return outcomes


async def admit(subject: Subject, number: int, key: int = 1) -> Hold:
    (outcome,) = await commit(subject, admission(number, key))
    assert isinstance(outcome, Admitted)
    return outcome.hold


def conflicts(written: Written | WriteConflict) -> bool:
    return isinstance(written, WriteConflict)


async def rows(subject: Subject, keys: Collection[tuple[UUID, int]] = (ROW,)) -> list[CounterRow]:
    return list((await subject.store.load(ReadSet(), keys)).counters.values())


# ------------------------------------------------------------------ reading


async def test_what_does_not_exist_is_left_out_but_for_counters(subject: Subject) -> None:
    loaded = await subject.store.load(ReadSet.of([admission(1, 77)], NOW_S), {ROW})
    assert loaded == Loaded({}, {}, counters={ROW: CounterRow(0, Usage())})


async def test_accounts_are_read_with_their_resellers_and_the_carriers_that_were_asked_for(subject: Subject) -> None:
    await subject.open(account(3, parent=SECOND))
    read = ReadSet((FIRST, UUID(int=3)), (), (), NOW_S, (CARRIERS["carrier"], UUID(int=78)))
    loaded = await subject.store.load(read, ())
    assert loaded.accounts.keys() == {FIRST, UUID(int=3)}
    assert loaded.referenced.keys() == {SECOND, CARRIERS["carrier"]}
    assert loaded.referenced[CARRIERS["carrier"]].account.talk_day_s == 1_000


async def test_lines_are_counted_of_the_accounts_that_ask_for_it_until_their_holds_expire(subject: Subject) -> None:
    first, second = await admit(subject, 1), await admit(subject, 2)
    counted = (await load(subject, [admission(9)])).accounts[FIRST]
    assert (counted.lines, counted.lines_until_s) == (2, min(first.expires_at_s, second.expires_at_s))
    uncounted = (await load(subject, [ended(1, None, NOW_S)])).accounts[FIRST]
    assert uncounted.lines == 0
    later = (await load(subject, [admission(9)], first.expires_at_s)).accounts[FIRST]
    assert later.lines == 0


async def test_what_was_read_belongs_to_the_reader(subject: Subject) -> None:
    await subject.store.write(Changes(counters={ROW: CounterRow(0, Usage())}))
    for _ in range(2):
        loaded = await subject.store.load(ReadSet.of([admission(1)], NOW_S), {ROW})
        state, row = loaded.accounts[FIRST], loaded.counters[ROW]
        assert (state.held_micros, state.usage, row.usage) == (0, Usage(), Usage())
        state.held_micros, state.usage.held_micros, row.usage.held_micros = 1, 2, 3


# ------------------------------------------------------------------ writing


async def test_a_new_hold_is_read_as_it_was_written(subject: Subject) -> None:
    """With every field set that a hold may have."""
    command = admission(1)
    loaded = await load(subject, [command])
    changes, _ = decide(loaded, [command])
    (new,) = changes.new_holds.values()
    cost = Quote(RETAIL, "49", PRICE, (Route("carrier", "x:1", carrier_account_id=str(SECOND), cost=PRICE),), 0.0).costs
    full = replace(
        new.hold, answered_at_s=NOW_S + 1, marks=("mobile",), scopes=(LimitScope("realm", SECOND, 2),), costs=cost,
        limits_hit=("credit", "lines"), final=True,
    )  # fmt: skip
    changes.new_holds[full.id] = replace(new, hold=full)
    assert await subject.store.write(changes) == Written()
    loaded = await load(subject, [command])
    assert loaded.holds == {full.id: full}
    state = loaded.accounts[FIRST]
    assert (state.version, state.held_micros, state.lines) == (1, full.held_micros, 1)
    assert state.usage.day(full.spend_day.toordinal()).held_micros == full.held_micros


async def test_a_settled_call_is_charged_and_its_hold_gone(subject: Subject) -> None:
    await admit(subject, 1)
    await commit(subject, ended(1, NOW_S, NOW_S + 10), unix_s=NOW_S + 10)
    loaded = await load(subject, [admission(1)])
    assert (loaded.holds, loaded.settled) == ({}, {UUID(int=1): 10_000})
    assert await subject.money(FIRST) == (1_000_000 - 10_000, 0)
    assert await subject.spent(FIRST) == 10_000


async def test_calls_of_several_accounts_that_begin_go_on_and_end_are_written_together(subject: Subject) -> None:
    await admit(subject, 1)
    await admit(subject, 2, 2)
    await commit(subject, admission(3), extension(1, 60), ended(2, NOW_S, NOW_S + 10, 2), unix_s=NOW_S + 10)
    assert (await subject.money(FIRST), await subject.money(SECOND)) == ((1_000_000, 180_000), (990_000, 0))


async def test_a_refusal_is_found_by_its_id_and_another_services_decision_is_kept_once(subject: Subject) -> None:
    outcomes = await commit(subject, *(admission(number) for number in range(1, 7)))
    other = DecisionRecord(uuid.uuid4(), "call", None, NOW_S, "refuse", None, b"\x12\x04edge")
    for _ in range(2):
        assert await subject.store.write(Changes(decisions=[other])) == Written()
    loaded = await load(subject, [admission(5), admission(6)])
    assert loaded.refused.keys() == {UUID(int=6)}
    assert loaded.refused[UUID(int=6)] == getattr(outcomes[5], "refuse", None)


async def test_counters_are_written_with_their_grants_and_a_version_one_higher(subject: Subject) -> None:
    usage = Usage(held_micros=5)
    for version in (0, 1):
        assert await subject.store.write(Changes(counters={ROW: CounterRow(version, usage)})) == Written()
        assert await rows(subject) == [CounterRow(version + 1, usage)]


async def test_holds_that_have_expired_are_found(subject: Subject) -> None:
    holds = [await admit(subject, number) for number in (1, 2)]
    last_s = max(hold.expires_at_s for hold in holds)
    assert list(await subject.store.expired(UnixS(last_s - 1), 10)) == []
    found = await subject.store.expired(UnixS(last_s), 10)
    assert sorted(each.hold_id for each in found) == [UUID(int=1), UUID(int=2)]
    assert found[0] == Expired(found[0].hold_id, FIRST)
    assert len(await subject.store.expired(UnixS(last_s), 1)) == 1


# ------------------------------------------------------------------ conflicts


async def test_of_two_that_have_read_the_same_account_one_is_written(subject: Subject) -> None:
    one, other = [admission(1), admission(2, 2)], [admission(3), admission(4, 2)]
    loaded = [await load(subject, one), await load(subject, other)]
    changes = [decide(loaded[0], one)[0], decide(loaded[1], other)[0]]
    assert await subject.store.write(changes[0]) == Written()
    assert await subject.store.write(changes[1]) == WriteConflict()
    after = await load(subject, [*one, *other])
    assert after.holds.keys() == {UUID(int=1), UUID(int=2)}
    assert [after.accounts[key].held_micros for key in (FIRST, SECOND)] == [60_000, 60_000]


async def test_a_change_stands_on_accounts_that_it_only_checks(subject: Subject) -> None:
    command = admission(1)
    changes, _ = decide(await load(subject, [command]), [command])
    changes.checked[SECOND] = 0
    await subject.change(SECOND)
    assert await subject.store.write(changes) == WriteConflict()
    assert not (await load(subject, [command])).holds
    changes.checked[SECOND] = 1
    assert await subject.store.write(changes) == Written()


@pytest.mark.parametrize("read", [0, 1])
async def test_a_counter_is_written_on_the_version_that_was_read(subject: Subject, read: int) -> None:
    await subject.store.write(Changes(counters={ROW: CounterRow(0, Usage())}))
    written = await subject.store.write(Changes(counters={ROW: CounterRow(read, Usage(held_micros=1))}))
    assert written == (Written() if read == 1 else WriteConflict())
    assert (await rows(subject))[0].usage.held_micros == read


async def test_a_counter_that_was_dropped_meanwhile_is_written_again(subject: Subject) -> None:
    assert await subject.store.write(Changes(counters={ROW: CounterRow(7, Usage())})) == Written()
    assert await rows(subject) == [CounterRow(8, Usage())]


@pytest.mark.parametrize("change", [extension(1, 60), ended(1, NOW_S, NOW_S + 10)], ids=["extended", "settled"])
async def test_a_hold_that_has_moved_is_neither_updated_nor_settled(subject: Subject, change: Command) -> None:
    hold = await admit(subject, 1)
    changes, _ = decide(await load(subject, [change]), [change])
    changes.expiries[hold.id] += 1.0
    assert conflicts(await subject.store.write(changes))
    loaded = await load(subject, [change])
    assert (loaded.holds, loaded.settled) == ({hold.id: hold}, {})
    changes.expiries[hold.id] -= 1.0
    assert await subject.store.write(changes) == Written()


async def test_a_hold_is_placed_once_whoever_has_read_that_there_is_none(subject: Subject) -> None:
    before = await load(subject, [admission(1)])
    await admit(subject, 1)
    before.accounts[FIRST].version = 1
    changes, _ = decide(before, [admission(1)])
    assert conflicts(await subject.store.write(changes))
    assert await subject.money(FIRST) == (1_000_000, 60_000)


@pytest.mark.parametrize("over", ["settled", "refused"])
async def test_an_id_that_was_not_read_must_not_become_a_hold_again(subject: Subject, over: str) -> None:
    number = 1 if over == "settled" else 6
    await commit(subject, *(admission(each) for each in range(1, 7)))
    await commit(subject, ended(1, NOW_S, NOW_S))
    unread = await subject.store.load(ReadSet((FIRST,), (FIRST,), (), NOW_S), ())
    changes, outcomes = decide(unread, [admission(number)])
    assert isinstance(outcomes[0], Admitted)
    changes.check_hold_ids = True
    assert conflicts(await subject.store.write(changes))
    assert not (await load(subject, [admission(number)])).holds


async def test_a_call_that_was_over_before_its_hold_was_placed_never_gets_one(subject: Subject) -> None:
    before = await load(subject, [admission(1)])
    await commit(subject, ended(1, None, NOW_S))
    changes, outcomes = decide(before, [admission(1)])
    assert isinstance(outcomes[0], Admitted), "it had read before the end was written"
    assert conflicts(await subject.store.write(changes))
    loaded = await load(subject, [admission(1)])
    assert (loaded.holds[UUID(int=1)].stage, loaded.accounts[FIRST].lines) == (HoldStage.CLOSED, 0)
    assert decide(loaded, [admission(1)])[1] == [Ignored("settled")]
    assert await subject.money(FIRST) == (1_000_000, 0)
    assert not await subject.store.expired(UnixS(NOW_S + 1e6), 10)
    assert not await subject.store.lapsed(UnixS(NOW_S + 1e6), 10)
    await subject.store.forget_recorded(UnixS(NOW_S - 1))
    assert (await load(subject, [admission(1)])).holds
    await subject.store.forget_recorded(NOW_S)
    assert not (await load(subject, [admission(1)])).holds


async def test_an_end_that_has_read_no_hold_settles_the_one_that_was_placed_meanwhile(subject: Subject) -> None:
    before = await load(subject, [ended(1, None, NOW_S)])
    await admit(subject, 1)
    changes, outcomes = decide(before, [ended(1, None, NOW_S)])
    assert outcomes == [Ignored("unknown")]
    assert conflicts(await subject.store.write(changes))
    assert await commit(subject, ended(1, None, NOW_S)) == [Done()]
    assert not (await load(subject, [admission(1)])).holds
    assert await subject.money(FIRST) == (1_000_000, 0)


async def test_money_that_is_not_there_is_not_held(subject: Subject) -> None:
    command = admission(1)
    changes, _ = decide(await load(subject, [command]), [command])
    changes.held[FIRST] = 1_000_001
    written = await subject.store.write(changes)
    assert isinstance(written, WriteConflict)
    assert written.error is not None, "no other process explains it"
    assert await subject.money(FIRST) == (1_000_000, 0)
