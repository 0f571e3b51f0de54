"""Charges in SQL for both databases, as they are checked: page by page, a record and what the ledger has of it in one
statement, because a late end changes both at once. See ports.Charges.

Never in a serializable transaction, as in records_sql; and by accounts and time, as the indexes are.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, Text, and_, cast, literal, select, true, tuple_

from callwarden.call_admission.model.calls import HoldStage
from callwarden.call_admission.model.codecs.messages import price_from
from callwarden.call_admission.records.adapters.records_sql import time_at
from callwarden.call_admission.records.core.charges import BookedCharge, ChargedCall, OpenHold
from callwarden.common.sql import Database
from callwarden.kernel import ids
from callwarden.schema.tables import account, cdr, hold, ledger_entry

ACCOUNTS_PAGE: Final = 100
PAGE: Final = 1_000  # rows, 0.5 KB each

_FIRST = ledger_entry.alias("first_entry")
_LATE = ledger_entry.alias("late_entry")
_CALLS: Final = (
    select(
        cdr.c.id, cdr.c.account_id, account.c.name.label("account"), cdr.c.call_id, cdr.c.currency, cdr.c.started_at,
        cdr.c.answered_at, cdr.c.ended_at, cdr.c.duration_s, cdr.c.price_micros, cdr.c.uncharged_micros, cdr.c.price,
        cdr.c.granted_s, cdr.c.held_micros, _FIRST.c.amount_micros.label("entry_micros"),
        _FIRST.c.account_id.label("entry_account_id"), _LATE.c.amount_micros.label("late_micros"),
    )
    .join(account, account.c.id == cdr.c.account_id)
    .outerjoin(_FIRST, and_(_FIRST.c.id == cdr.c.id, _FIRST.c.kind == "call"))
    # By the unique key of entries: a call is corrected by its late end once.
    .outerjoin(
        _LATE, and_(_LATE.c.kind == "correction", _LATE.c.reference == cast(cdr.c.id, Text), _LATE.c.slice == 0)
    )
)  # fmt: skip


class SqlCharges:
    """Implements ports.Charges."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def calls(
        self, account_id: UUID | None, since_s: float, until_s: float
    ) -> AsyncIterator[Sequence[ChargedCall]]:
        at, id_ = cdr.c.started_at, cdr.c.id
        during = and_(at >= time_at(since_s), at <= time_at(until_s))
        async for accounts in self._accounts(account_id):
            query = _CALLS.where(cdr.c.account_id.in_(accounts), during)
            query = query.order_by(cdr.c.account_id, at, id_).limit(PAGE)
            async for rows in self._pages(query, (cdr.c.account_id, at, id_), ("account_id", "started_at", "id"), PAGE):
                yield [_call(row) for row in rows]

    async def calls_of(self, hold_ids: Sequence[UUID]) -> Sequence[ChargedCall]:
        return [_call(row) for row in await self._database.rows("charges", _CALLS.where(cdr.c.id.in_(hold_ids)))]

    async def entries(self, account_id: UUID | None, since_s: float) -> AsyncIterator[Sequence[BookedCharge]]:
        at, id_, owner = ledger_entry.c.created_at, ledger_entry.c.id, ledger_entry.c.account_id
        query = (
            select(
                id_, owner, at, ledger_entry.c.kind, ledger_entry.c.reference, ledger_entry.c.amount_micros,
                account.c.name.label("account"), account.c.currency,
            )
            .join(account, account.c.id == owner)
            .where(ledger_entry.c.kind.in_(("call", "correction")), at >= time_at(since_s))
            .order_by(owner, at, id_)
            .limit(PAGE)
        )  # fmt: skip
        async for accounts in self._accounts(account_id):
            mine = query.where(owner.in_(accounts))
            async for rows in self._pages(mine, (owner, at, id_), ("account_id", "created_at", "id"), PAGE):
                yield [_entry(row) for row in rows]

    async def holds(self, account_id: UUID | None) -> AsyncIterator[Sequence[OpenHold]]:
        query = (
            select(
                hold.c.id, account.c.name.label("account"), account.c.currency, hold.c.call_id, hold.c.edge,
                hold.c.stage, hold.c.created_at, hold.c.answered_at, hold.c.expires_at, hold.c.held_micros,
                cdr.c.reason,
            )
            .join(account, account.c.id == hold.c.account_id)
            .outerjoin(cdr, cdr.c.id == hold.c.id)
            .where(true() if account_id is None else hold.c.account_id == account_id)
            .order_by(hold.c.id)
            .limit(PAGE)
        )  # fmt: skip
        async for rows in self._pages(query, (hold.c.id,), ("id",), PAGE):
            yield [_hold(row) for row in rows]

    async def _accounts(self, account_id: UUID | None) -> AsyncIterator[Sequence[UUID]]:
        if account_id is not None:
            yield [account_id]
            return
        query = select(account.c.id).order_by(account.c.id).limit(ACCOUNTS_PAGE)
        async for rows in self._pages(query, (account.c.id,), ("id",), ACCOUNTS_PAGE):
            yield [row.id for row in rows]

    async def _pages(
        self, query: Select[Any], key: Sequence[Any], names: Sequence[str], size: int
    ) -> AsyncIterator[Sequence[Row[Any]]]:
        """`query` has the order of `key`, and `size` as its limit: a page begins where the last one ended."""
        page = query
        while True:
            rows = await self._database.rows("charges", page)
            if rows:
                yield rows
            if len(rows) < size:
                return
            place = [literal(getattr(rows[-1], name)) for name in names]
            page = query.where(key[0] > place[0] if len(key) == 1 else tuple_(*key) > tuple_(*place))


def _call(row: Any) -> ChargedCall:
    price = None
    if row.price is not None and row.granted_s is not None and row.held_micros is not None:
        price = price_from(row.price)
    return ChargedCall(
        row.id, row.account_id, row.account, row.call_id, row.currency, row.started_at.timestamp(),
        None if row.answered_at is None else row.answered_at.timestamp(), row.ended_at.timestamp(), row.duration_s,
        row.price_micros, -(row.late_micros or 0), row.uncharged_micros, price, row.granted_s or 0,
        row.held_micros or 0, row.entry_micros, row.entry_account_id,
    )  # fmt: skip


def _entry(row: Any) -> BookedCharge:
    is_first = row.kind == "call"
    hold_id = row.id if is_first else ids.parse(row.reference) or row.id
    return BookedCharge(row.id, hold_id, row.account, row.currency, row.amount_micros, is_first)


def _hold(row: Any) -> OpenHold:
    return OpenHold(
        row.id, row.account, row.currency, row.call_id, row.edge, HoldStage(row.stage), row.created_at.timestamp(),
        None if row.answered_at is None else row.answered_at.timestamp(), row.expires_at.timestamp(), row.held_micros,
        row.reason,
    )  # fmt: skip
