"""The ledger credits each payment once, in memory and in the database, however many ask at once."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
import pytest_asyncio
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from callwarden.common.sql import Database
from callwarden.kernel.errors import CallwardenError, Conflict, Invalid, NotFound
from callwarden.kernel.money import AMOUNT_MICROS_MAX
from callwarden.payment.adapters.ledger_memory import MemoryLedgerStore
from callwarden.payment.adapters.ledger_sql import SqlLedgerStore
from callwarden.payment.core.topup import Payee, TopUp
from callwarden.payment.ports import LedgerStore
from callwarden.schema.tables import account, ledger_entry, payment
from callwarden.testing.contracts import ContractSuite, assert_shown_on
from callwarden.testing.servers import as_owner

ALICE, BOB, TWIN, RICH = (str(uuid.UUID(int=number, version=4)) for number in range(1, 5))
ACCOUNTS = [
    ("home", "alice", ALICE, "EUR", 0),
    ("home", "bob", BOB, "USD", 1_000),
    ("home", "twin", TWIN, "EUR", 0),
    ("away", "twin", str(uuid.UUID(int=9, version=4)), "EUR", 0),
    ("home", "rich", RICH, "EUR", AMOUNT_MICROS_MAX - 1),
]


class LedgerSubject(Protocol):
    """The ledger with what a test looks at behind them."""

    @property
    def ledger(self) -> LedgerStore: ...

    async def balance(self, account_id: str) -> int: ...

    async def entries(self) -> list[tuple[str, int]]:
        """Account and amount of all ledger entries."""
        ...


class MemoryLedgerSubject:
    def __init__(self) -> None:
        self.ledger = MemoryLedgerStore()
        for _, name, account_id, currency, balance_micros in ACCOUNTS:
            self.ledger.accounts.setdefault(name, []).append(Payee(account_id, currency, balance_micros))

    async def balance(self, account_id: str) -> int:
        payees = [payee for payees in self.ledger.accounts.values() for payee in payees]
        return next(payee.balance_micros for payee in payees if payee.account_id == account_id)

    async def entries(self) -> list[tuple[str, int]]:
        return self.ledger.entries


class SqlLedgerSubject:
    def __init__(self, database: Database, owner: Database) -> None:
        self.database, self.owner = database, owner
        self.ledger = SqlLedgerStore(database, os.urandom)

    async def fill(self) -> None:
        async with self.owner.engine.begin() as connection:
            await connection.execute(
                insert(account),
                [
                    {
                        "id": uuid.UUID(account_id),
                        "realm": realm,
                        "name": name,
                        "type": "enduser",
                        "currency": currency,
                        "prepaid": True,
                        "balance_micros": balance_micros,
                    }
                    for realm, name, account_id, currency, balance_micros in ACCOUNTS
                ],
            )

    async def balance(self, account_id: str) -> int:
        async with self.owner.engine.begin() as connection:
            found = select(account.c.balance_micros).where(account.c.id == uuid.UUID(account_id))
            return int(await connection.scalar(found) or 0)

    async def entries(self) -> list[tuple[str, int]]:
        async with self.owner.engine.begin() as connection:
            rows = await connection.execute(select(ledger_entry.c.account_id, ledger_entry.c.amount_micros))
            return [(str(account_id), amount) for account_id, amount in rows]


def pay(account: str = "alice", amount_micros: int = 5_000_000, currency: str = "EUR", key: str = "k1") -> TopUp:
    return TopUp(account, amount_micros, currency, key)


Processes = tuple[SqlLedgerSubject, SqlLedgerSubject]


class LedgerStoreContract(ContractSuite[LedgerSubject]):
    """What every ports.LedgerStore promises."""

    async def test_a_payment_is_credited(self, subject: LedgerSubject) -> None:
        credited = await subject.ledger.credit(pay())
        assert (credited.balance_micros, credited.currency, credited.duplicate) == (5_000_000, "EUR", False)
        assert await subject.balance(ALICE) == 5_000_000
        assert await subject.entries() == [(ALICE, 5_000_000)]

    async def test_an_account_is_found_by_id_too(self, subject: LedgerSubject) -> None:
        await subject.ledger.credit(pay(account=ALICE))
        assert await subject.balance(ALICE) == 5_000_000

    async def test_the_same_key_again_adds_nothing_and_answers_the_same_entry(self, subject: LedgerSubject) -> None:
        first = await subject.ledger.credit(pay())
        await subject.ledger.credit(pay(key="k2", amount_micros=1))
        again = await subject.ledger.credit(pay(account=ALICE))
        assert (again.entry_id, again.duplicate) == (first.entry_id, True)
        assert again.balance_micros == 5_000_001
        assert sum(amount for _, amount in await subject.entries()) == 5_000_001

    @pytest.mark.parametrize("other", [pay(amount_micros=1), pay(account="bob", currency="USD"), pay(currency="USD")])
    async def test_the_same_key_for_something_else_is_a_conflict(self, subject: LedgerSubject, other: TopUp) -> None:
        await subject.ledger.credit(pay())
        with pytest.raises(Conflict):
            await subject.ledger.credit(other)
        assert await subject.entries() == [(ALICE, 5_000_000)]

    @pytest.mark.parametrize(
        ("top_up", "error", "field"),
        [
            (pay(account="nobody"), NotFound, "account"),
            (pay(account=str(uuid.UUID(int=77, version=4))), NotFound, "account"),
            (pay(account="twin"), Invalid, "account"),
            (pay(account="bob"), Invalid, "currency"),
            (pay(account="rich", amount_micros=2), Invalid, "amount_micros"),
        ],
    )
    async def test_what_cannot_be_credited_changes_nothing(
        self, subject: LedgerSubject, top_up: TopUp, error: type[CallwardenError], field: str
    ) -> None:
        before = [await subject.balance(row[2]) for row in ACCOUNTS]
        with pytest.raises(error) as caught:
            await subject.ledger.credit(top_up)
        assert caught.value.field == field
        assert [await subject.balance(row[2]) for row in ACCOUNTS] == before
        assert await subject.entries() == []

    async def test_a_key_whose_payment_was_refused_can_be_used(self, subject: LedgerSubject) -> None:
        with pytest.raises(Invalid):
            await subject.ledger.credit(pay(currency="USD"))
        assert not (await subject.ledger.credit(pay())).duplicate


class TestMemoryLedgerStore(LedgerStoreContract):
    @pytest.fixture
    def subject(self) -> LedgerSubject:
        return MemoryLedgerSubject()


class TestSqlLedgerStore(LedgerStoreContract):
    @pytest.fixture
    async def subject(self, database_url: str) -> AsyncIterator[LedgerSubject]:
        async with Database(database_url) as database, Database(as_owner(database_url)) as owner:
            ledger = SqlLedgerSubject(database, owner)
            await ledger.fill()
            yield ledger


def test_the_fake_proves_something() -> None:
    assert_shown_on(LedgerStoreContract, "TestMemoryLedgerStore", "TestSqlLedgerStore")


@pytest_asyncio.fixture
async def two_processes(database_url: str) -> AsyncIterator[Processes]:
    """Two processes' ledger on one database."""
    owner_url = as_owner(database_url)
    async with Database(database_url) as one, Database(database_url) as other, Database(owner_url) as owner:
        ledger = SqlLedgerSubject(one, owner)
        await ledger.fill()
        yield ledger, SqlLedgerSubject(other, owner)


async def test_a_hundred_at_once_with_one_key_credit_once(
    two_processes: Processes,
) -> None:
    results = await asyncio.gather(*(two_processes[number % 2].ledger.credit(pay()) for number in range(100)))
    assert sum(not result.duplicate for result in results) == 1
    assert len({result.entry_id for result in results}) == 1
    assert {result.balance_micros for result in results} == {5_000_000}
    assert await two_processes[0].entries() == [(ALICE, 5_000_000)]
    assert await two_processes[0].balance(ALICE) == 5_000_000


async def test_many_payments_at_once_all_count(two_processes: Processes) -> None:
    payments = [pay(key=f"key-{number}", amount_micros=number) for number in range(1, 41)]

    results = await asyncio.gather(*(two_processes[i % 2].ledger.credit(top_up) for i, top_up in enumerate(payments)))
    assert len({result.entry_id for result in results}) == 40
    assert await two_processes[0].balance(ALICE) == sum(range(1, 41))
    assert sum(amount for _, amount in await two_processes[0].entries()) == sum(range(1, 41))


async def test_one_key_for_two_accounts_at_once_credits_one(
    two_processes: Processes,
) -> None:
    for round_ in range(5):
        wanted = (pay(key=f"r{round_}"), pay(key=f"r{round_}", account=TWIN))
        results = await asyncio.gather(
            *(ledger.ledger.credit(top_up) for ledger, top_up in zip(two_processes, wanted, strict=True)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Conflict) for result in results) == 1, results
        assert len(await two_processes[0].entries()) == round_ + 1


async def test_entry_and_payment_say_the_same(two_processes: Processes) -> None:
    credited = await two_processes[0].ledger.credit(TopUp("alice", 5, "EUR", "k", "cash, 3 May"))
    async with two_processes[0].owner.engine.begin() as connection:
        row = (
            await connection.execute(
                select(payment.c.key, payment.c.note, ledger_entry.c.kind, ledger_entry.c.reference)
                .join(ledger_entry, ledger_entry.c.id == payment.c.entry_id)
                .where(ledger_entry.c.id == uuid.UUID(credited.entry_id))
            )
        ).one()
        assert tuple(row) == ("k", "cash, 3 May", "top-up", "k")
        assert await connection.scalar(select(func.count()).select_from(ledger_entry)) == 1


@pytest.mark.setting("db-roles")
async def test_the_service_cannot_change_what_it_booked(
    two_processes: Processes,
) -> None:
    """These tests run as the service does where it has a role of its own."""
    ledger, database = two_processes[0].ledger, two_processes[0].database
    await ledger.credit(pay())
    for statement in (delete(ledger_entry), update(ledger_entry).values(amount_micros=1), select(ledger_entry)):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with database.engine.begin() as connection:
                await connection.execute(statement)
    assert await two_processes[0].entries() == [(ALICE, 5_000_000)]
