"""In how many rows an account is counted: changed in one transaction with all that moves (core.resharding)."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.call_admission.admission.core.resharding import AccountCounts, moves, resharded, scopes_after
from callwarden.call_admission.model.calls import HoldStage
from callwarden.call_admission.model.codecs.hold_bytes import scopes_bytes_of, scopes_from
from callwarden.call_admission.model.codecs.usage_bytes import usage_bytes, usage_from
from callwarden.call_admission.model.usage import Usage
from callwarden.common.sql import Database
from callwarden.kernel.account import AccountType
from callwarden.kernel.errors import Invalid
from callwarden.schema.tables import account, counter, hold

_RESELLER: Final = AccountType.RESELLER.value


class SqlShards:
    """Implements ports.Shards."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grow(self, account_id: UUID, before: int, shards: int) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            locked = select(account).where(account.c.id == account_id).with_for_update()
            row = (await connection.execute(locked)).one_or_none()
            if row is None or row.type == _RESELLER or max(row.shards, 1) != before:
                return False
            values = await reshard(connection, row, shards)
            values |= {"shards": shards, "version": account.c.version + 1}
            await connection.execute(update(account).where(account.c.id == account_id).values(**values))
            return True

        return await self._database.transaction("reshard", work)


async def reshard(connection: AsyncConnection, row: Any, shards: int) -> dict[str, Any]:
    """Moves the counts of an account (its locked row) into so many shards; what else its row changes by.

    Who calls this sets `shards` and raises the version in the same transaction. Raises Invalid for a reseller that is
    to have fewer: all calls of all its accounts would have to be rewritten.
    """
    before, after = max(row.shards, 1), max(shards, 1)
    if row.type == _RESELLER:
        if after < before:
            raise Invalid("a reseller's shards can't be taken away", field="shards")
        return {}
    if not moves(before, after):
        return {}
    query = select(counter).where(counter.c.scope == row.id).order_by(counter.c.shard).with_for_update()
    rows = {each.shard: usage_from(each.usage) for each in await connection.execute(query)}
    holds = (
        await connection.execute(
            select(hold.c.id, hold.c.expires_at, hold.c.owners, hold.c.stage).where(hold.c.account_id == row.id)
        )
    ).all()
    counts = AccountCounts(row.balance_micros, row.held_micros, usage_from(row.usage), rows)
    moved = resharded(
        counts, before, after, [each.expires_at.timestamp() for each in holds if each.stage == HoldStage.RUNNING]
    )
    if gone := rows.keys() - moved.shards.keys():
        await connection.execute(delete(counter).where(counter.c.scope == row.id, counter.c.shard.in_(gone)))
    if 0 in moved.shards:
        await _write_first(connection, row.id, moved.shards[0])
    rewritten = []
    for each in holds:
        owners, marks, limits_hit = scopes_from(each.owners)
        following = scopes_after(owners, after)
        if following != owners:
            rewritten.append({"hold_id": each.id, "new": scopes_bytes_of(following, marks, limits_hit)})
    if rewritten:
        changed = update(hold).where(hold.c.id == bindparam("hold_id")).values(owners=bindparam("new"))
        await connection.execute(changed, rewritten)
    return {
        "balance_micros": moved.balance_micros,
        "held_micros": moved.held_micros,
        "usage": usage_bytes(moved.own),
    }


async def _write_first(connection: AsyncConnection, account_id: UUID, usage: Usage) -> None:
    values = {
        "held_micros": usage.held_micros,
        "spent_micros": usage.spent_micros,
        "usage": usage_bytes(usage),
        "transfers": b"",
    }
    statement = upsert(counter).values(scope=account_id, shard=0, version=1, **values)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[counter.c.scope, counter.c.shard],
            set_={**values, "version": counter.c.version + 1, "updated_at": func.now()},
        )
    )
