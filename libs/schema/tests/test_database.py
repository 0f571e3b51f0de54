"""The migrations make the tables, and the database itself refuses what must never be."""

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from callwarden.schema.tables import account, ledger_entry, metadata
from callwarden.testing.databases import needs_postgres

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(database_url)
    async with engine.connect() as opened:
        yield opened
    await engine.dispose()


def new_account(**values: Any) -> Mapping[str, Any]:
    return {
        "id": uuid.uuid4(),
        "realm": "r",
        "name": uuid.uuid4().hex,
        "type": "enduser",
        "currency": "EUR",
        "prepaid": True,
        **values,
    }


@needs_postgres
async def test_the_migrations_make_exactly_the_tables_of_the_models(connection: AsyncConnection) -> None:
    def differences(sync: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(sync), metadata))

    assert await connection.run_sync(differences) == []


async def test_a_prepaid_account_can_not_be_overdrawn_by_holds_or_by_balance(connection: AsyncConnection) -> None:
    row = new_account(balance_micros=1_000)
    await connection.execute(insert(account).values(row))
    this = update(account).where(account.c.id == row["id"])
    await connection.execute(this.values(held_micros=1_000))
    for values in ({"held_micros": 1_001}, {"balance_micros": 999}, {"held_micros": -1}):
        with pytest.raises(IntegrityError, match="account_"):
            async with connection.begin_nested():
                await connection.execute(this.values(values))


async def test_a_postpaid_account_may_owe(connection: AsyncConnection) -> None:
    await connection.execute(insert(account).values(new_account(prepaid=False, balance_micros=-5_000)))


async def test_the_ledger_takes_an_entry_once(connection: AsyncConnection) -> None:
    row = new_account()
    await connection.execute(insert(account).values(row))
    entry = {"account_id": row["id"], "kind": "top-up", "reference": "key", "amount_micros": 5}
    await connection.execute(insert(ledger_entry).values(id=uuid.uuid4(), **entry))
    with pytest.raises(IntegrityError, match="kind_reference_slice"):
        await connection.execute(insert(ledger_entry).values(id=uuid.uuid4(), **entry))


@pytest.mark.parametrize(
    ("kind", "amount"),
    [("top-up", 0), ("top-up", -1), ("call", 1), ("gift", 5)],
    ids=["zero", "negative", "paid", "kind"],
)
async def test_the_ledger_refuses_entries_of_the_wrong_sign_or_kind(
    connection: AsyncConnection, kind: str, amount: int
) -> None:
    row = new_account()
    await connection.execute(insert(account).values(row))
    entry = {"id": uuid.uuid4(), "account_id": row["id"], "kind": kind, "reference": "r", "amount_micros": amount}
    with pytest.raises(IntegrityError, match="ledger_entry_"):
        await connection.execute(insert(ledger_entry).values(entry))
