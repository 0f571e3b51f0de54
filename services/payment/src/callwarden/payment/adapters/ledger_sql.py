"""The ledger in the database: one SERIALIZABLE transaction for each top-up."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.common.sql import Database, RetriesExhausted
from callwarden.common.sql.expressions import total
from callwarden.kernel import ids
from callwarden.kernel.errors import Conflict, Invalid, NotFound
from callwarden.payment.core.topup import Credited, Paid, Payee, TopUp, balance_after, repeated
from callwarden.schema.tables import account, counter, ledger_entry, payment

# How often a top-up that lost all its attempts to other writers of the account starts over. One of those who collide
# always commits, so a payer meets a Conflict only where many processes write one account for seconds.
_ROUNDS_MAX: Final = 8


class SqlLedgerStore:
    """ports.LedgerStore. `random_bytes(n)` returns n random bytes for an entry's id."""

    def __init__(self, database: Database, random_bytes: Callable[[int], bytes]) -> None:
        self._database = database
        self._random_bytes = random_bytes
        # Top-ups are rare and an account has one row: this process runs them one at a time (500/s) instead of letting
        # them collide and retry. Between processes the database decides.
        self._turn = asyncio.Lock()

    async def credit(self, top_up: TopUp) -> Credited:
        account_id = await self._account_id(top_up.account)

        async def work(connection: AsyncConnection) -> Credited:
            # Lock the row before looking for the key, so that of two top-ups with one key the second sees the first.
            payee = await _payee(connection, account_id)
            paid = await _paid(connection, top_up.key)
            if paid is not None:
                return repeated(top_up, payee, paid)
            balance_micros = balance_after(top_up, payee)
            entry_id = ids.from_bytes(self._random_bytes(16))
            await connection.execute(
                insert(ledger_entry).values(
                    id=entry_id,
                    account_id=account_id,
                    kind="top-up",
                    reference=top_up.key,
                    amount_micros=top_up.amount_micros,
                    note=top_up.note,
                )
            )
            await connection.execute(
                insert(payment).values(
                    key=top_up.key,
                    account_id=account_id,
                    amount_micros=top_up.amount_micros,
                    currency=top_up.currency,
                    entry_id=entry_id,
                    note=top_up.note,
                )
            )
            await connection.execute(
                update(account)
                .where(account.c.id == account_id)
                .values(balance_micros=account.c.balance_micros + top_up.amount_micros)
            )
            return Credited(str(entry_id), balance_micros, payee.currency, duplicate=False)

        async with self._turn:
            try:
                return await self._transaction(work)
            except IntegrityError:
                # The same key for another account, at the same moment: no common row to wait for. It is committed
                # now, so the second attempt finds it.
                try:
                    return await self._transaction(work)
                except IntegrityError as error:
                    raise Conflict("this key was used for another payment", field="key") from error

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[Credited]]) -> Credited:
        """Runs `work` until it commits. Raises RetriesExhausted after _ROUNDS_MAX rounds of attempts: each of them was
        rolled back, so nothing is written twice."""
        for _ in range(_ROUNDS_MAX - 1):
            try:
                return await self._database.transaction("top-up", work)
            except RetriesExhausted:
                continue
        return await self._database.transaction("top-up", work)

    async def _account_id(self, name: str) -> uuid.UUID:
        """The account's id. In a transaction of its own: reading the names of all accounts must not conflict with
        transactions that change one. A name's account never changes.
        """
        by_id = ids.parse(name)
        if by_id is not None:
            return by_id

        async def work(connection: AsyncConnection) -> list[uuid.UUID]:
            return list(await connection.scalars(select(account.c.id).where(account.c.name == name).limit(2)))

        found = await self._database.transaction("top-up account", work)
        if not found:
            raise NotFound("there is no such account", field="account")
        if len(found) > 1:
            raise Invalid("several accounts have this name: use the id", field="account")
        return found[0]


async def _payee(connection: AsyncConnection, account_id: uuid.UUID) -> Payee:
    row = (
        await connection.execute(
            select(account.c.currency, account.c.balance_micros, account.c.shards)
            .where(account.c.id == account_id)
            .with_for_update()
        )
    ).one_or_none()
    if row is None:
        raise NotFound("there is no such account", field="account")
    # A sharded account's charges are in its shards until they are merged.
    in_shards = select(func.coalesce(total(counter.c.spent_micros), 0)).where(counter.c.scope == account_id)
    spent_micros = int((await connection.execute(in_shards)).scalar_one()) if row.shards > 1 else 0
    return Payee(str(account_id), row.currency, row.balance_micros - spent_micros)


async def _paid(connection: AsyncConnection, key: str) -> Paid | None:
    columns = (payment.c.account_id, payment.c.amount_micros, payment.c.currency, payment.c.entry_id)
    row = (await connection.execute(select(*columns).where(payment.c.key == key))).one_or_none()
    return None if row is None else Paid(str(row.account_id), row.amount_micros, row.currency, str(row.entry_id))
