"""Records of calls in SQL for both databases: exported page by page, corrected by reversing entries, forgotten in time.

Cold, so SQLAlchemy Core throughout; and out of the calls' way: what reads many rows does so outside a serializable
transaction, one statement a page, because a reader of whole tables would make the calls' transactions fail.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.call_admission.model.calls import HoldStage
from callwarden.call_admission.model.codecs.usage_bytes import grants_bytes, grants_from, usage_bytes, usage_from
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.scopes import address_scope
from callwarden.call_admission.model.spans import day_spend, month_spend
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.usage_shards import correct, correct_in_all, correct_period
from callwarden.call_admission.records.core.corrections import AccountFunds, Corrected, LedgerLine, Reversal, reversal
from callwarden.call_admission.records.core.records import (
    CallRecord,
    Decisions,
    LedgerEntries,
    LedgerEntry,
    RecordedDecision,
    RecordPlace,
)
from callwarden.call_admission.records.ports import KEPT, Slice
from callwarden.common.sql import Database
from callwarden.common.sql.expressions import total
from callwarden.kernel.errors import Conflict, Invalid, NotFound
from callwarden.schema.tables import account, cdr, counter, decision, hold, ledger_entry, spend_day

EXPORT_PAGE: Final = 1_000  # records, 0.5 KB each
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class SqlRecords:
    """Implements ports.Records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------------ export

    async def export(
        self, account_id: UUID | None, since_s: float, until_s: float
    ) -> AsyncIterator[Sequence[CallRecord]]:
        last: Row[Any] | None = None
        while True:
            rows = await self._rows(_page(account_id, since_s, until_s, last))
            if rows:
                corrected = await self._corrected([row.id for row in rows])
                yield [_record(row, corrected.get(str(row.id), 0)) for row in rows]
                last = rows[-1]
            if len(rows) < EXPORT_PAGE:
                return

    async def _corrected(self, ids: Sequence[UUID]) -> dict[str, int]:
        return {row.reference: corrected_micros(row) for row in await self._rows(corrections(ids))}

    async def _rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[Row[Any]]:
        return await self._database.rows("records", query)

    # ------------------------------------------------------------------ decisions

    async def decisions(
        self, account_id: UUID, since_s: float, outcome: str, after: RecordPlace | None, limit: int
    ) -> Decisions:
        parts: list[Select[Any]] = []
        for table, at, body in (
            (decision, decision.c.at, decision.c.body),
            (hold, hold.c.created_at, hold.c.decision),
            (cdr, cdr.c.started_at, cdr.c.decision),
        ):
            query = select(at.label("at"), table.c.id, table.c.call_id, body.label("body")).where(
                table.c.account_id == account_id, at >= time_at(since_s)
            )
            if table is hold:
                query = query.where(hold.c.stage < HoldStage.RECORDED)  # its record has the decision
            if after is not None:
                query = query.where(_older(at, table.c.id, after))
            if outcome and table is decision:
                query = query.where(decision.c.outcome == outcome)
            if not outcome or outcome == "admit" or table is decision:
                parts.append(query.order_by(at.desc(), table.c.id.desc()).limit(limit + 1))
        both = union_all(*(select(part.subquery()) for part in parts)).subquery()
        newest = select(both).order_by(both.c.at.desc(), both.c.id.desc()).limit(limit + 1)
        rows = await self._rows(newest)
        page = rows[:limit]
        return Decisions(tuple(RecordedDecision(row.call_id, row.body) for row in page), _following(rows, limit))

    # ------------------------------------------------------------------ what was booked

    async def ledger(self, account_id: UUID, since_s: float, after: RecordPlace | None, limit: int) -> LedgerEntries:
        at, id_ = ledger_entry.c.created_at, ledger_entry.c.id
        query = (
            select(
                at.label("at"), id_, ledger_entry.c.kind, ledger_entry.c.reference, ledger_entry.c.amount_micros,
                ledger_entry.c.note, account.c.currency,
            )
            .join(account, account.c.id == ledger_entry.c.account_id)
            .where(ledger_entry.c.account_id == account_id, at >= time_at(since_s))
            .order_by(at.desc(), id_.desc())
            .limit(limit + 1)
        )  # fmt: skip
        rows = await self._rows(query if after is None else query.where(_older(at, id_, after)))
        entries = tuple(
            LedgerEntry(
                row.id, row.at.timestamp(), row.kind, row.reference, row.amount_micros, row.currency, row.note
            )
            for row in rows[:limit]
        )  # fmt: skip
        return LedgerEntries(entries, _following(rows, limit))

    # ------------------------------------------------------------------ corrections

    async def correct_call(self, hold_id: UUID, price_micros: int, note: str, key: str) -> Corrected:
        query = select(cdr.c.account_id, cdr.c.started_at, cdr.c.source_address).where(cdr.c.id == hold_id)
        found = await self._rows(query)
        if not found:
            if await self._rows(select(hold.c.id).where(hold.c.id == hold_id, hold.c.stage < HoldStage.RECORDED)):
                raise Conflict("the call has no record yet: correct it when it is over", field="hold_id")
            raise NotFound("there is no record of this call", field="hold_id")
        row = found[0]
        call = _Call(row.started_at, row.source_address)
        return await self._reverse(row.account_id, str(hold_id), call, -price_micros, note, key)

    async def reverse_entry(self, entry_id: UUID, note: str, key: str) -> Corrected:
        query = select(
            ledger_entry.c.account_id, ledger_entry.c.kind, ledger_entry.c.reference, ledger_entry.c.created_at
        ).where(ledger_entry.c.id == entry_id)
        found = await self._rows(query)
        if not found:
            raise NotFound("there is no such ledger entry", field="entry_id")
        row = found[0]
        if row.kind == "reversal":
            raise Invalid("this entry is a reversal: correct the call, or top up", field="entry_id")
        call = None
        if row.kind == "call":
            record = await self._rows(select(cdr.c.started_at, cdr.c.source_address).where(cdr.c.id == entry_id))
            call = _Call(record[0].started_at, record[0].source_address) if record else _Call(row.created_at, "")
        return await self._reverse(row.account_id, str(entry_id), call, 0, note, key)

    async def _reverse(
        self, account_id: UUID, reference: str, call: "_Call | None", net_micros: int, note: str, key: str
    ) -> Corrected:
        """`call`: the one that has cost something else, by all that counts it."""

        async def work(connection: AsyncConnection) -> Corrected:
            # Locked first, as by whatever changes an account's money; of two corrections the second sees the first.
            locked = select(account).where(account.c.id == account_id).with_for_update()
            owner = (await connection.execute(locked)).one()
            shards = await _counters(connection, account_id) if owner.shards > 1 else ()
            entries = await connection.execute(
                select(ledger_entry.c.id, ledger_entry.c.slice, ledger_entry.c.amount_micros).where(
                    or_(
                        and_(ledger_entry.c.kind.in_(_LATER), ledger_entry.c.reference == reference),
                        ledger_entry.c.id == UUID(reference),
                    )
                )
            )
            purse = AccountFunds(
                owner.name, owner.currency, owner.prepaid,
                owner.balance_micros - sum(row.spent_micros for row in shards),
                owner.held_micros + sum(row.held_micros for row in shards), owner.overdraft_micros,
            )  # fmt: skip
            made = reversal(
                [LedgerLine(row.id, row.slice, row.amount_micros) for row in entries], key, net_micros, purse
            )
            if isinstance(made, Corrected):
                return made
            usage = usage_from(owner.usage)
            if call is not None and made.amount_micros:
                day = day_of(call.started_at.timestamp(), owner.time_zone)
                if shards:
                    await _correct_shards(connection, shards, day, -made.amount_micros)
                else:
                    correct([usage], day, -made.amount_micros)
                await _correct_day(connection, account_id, day, made)
                if owner.parent is not None:
                    await _correct_reseller(connection, owner.parent, day, -made.amount_micros)
                if call.source_address:
                    await _correct_address(connection, owner.realm, call, -made.amount_micros)
            await _write_reversal(connection, account_id, reference, made, note, usage_bytes(usage))
            return Corrected(
                made.id, owner.name, made.amount_micros, owner.currency, purse.balance_micros + made.amount_micros,
                duplicate=False,
            )  # fmt: skip

        try:
            return await self._database.transaction("reverse", work)
        except IntegrityError:
            # The same key for another account at the same moment: no common row to wait for. It exists now.
            try:
                return await self._database.transaction("reverse", work)
            except IntegrityError as error:
                raise Conflict("this key was used for another correction", field="key") from error

    # ------------------------------------------------------------------ retention

    async def forget(self, kind: str, slice_: Slice, before_s: float, limit: int) -> int:
        keys, owner, is_old = _FORGET[kind]
        low, high = slice_
        where = owner >= low
        if high is not None:
            where = and_(where, owner < high)
        elif owner.nullable:
            where = or_(where, owner.is_(None))  # the last slice takes what has no owner, too
        old = is_old(time_at(before_s))
        found = [tuple(row) for row in await self._rows(select(*keys).where(where, old).limit(limit))]
        if not found:
            return 0

        async def work(connection: AsyncConnection) -> int:
            # By keys, so that it touches no other row; another process that has taken some of them leaves us fewer.
            wanted = keys[0].in_([row[0] for row in found]) if len(keys) == 1 else tuple_(*keys).in_(found)
            return int((await connection.execute(delete(keys[0].table).where(wanted, old))).rowcount)

        await self._database.transaction(f"forget-{kind}", work)
        return len(found)


# What is booked about a call that has been settled: by an operator, and by itself when a call's end came late.
_LATER: Final = ("reversal", "correction")
# Counters that are in use stay however old, and those that other rows of their owner or an account's shards rely on.
_UNUSED_COUNTER: Final = and_(
    counter.c.held_micros == 0,
    counter.c.spent_micros == 0,
    counter.c.transfers == b"",
    ~exists().where(account.c.id == counter.c.scope),
)
_FORGET: Final[dict[str, tuple[tuple[Any, ...], Any, Any]]] = {
    "cdr": ((cdr.c.id,), cdr.c.account_id, lambda before: cdr.c.started_at < before),
    "counter": (
        (counter.c.scope, counter.c.shard),
        counter.c.scope,
        lambda before: and_(counter.c.updated_at < before, _UNUSED_COUNTER),
    ),
    "decision": ((decision.c.id,), decision.c.account_id, lambda before: decision.c.at < before),
    "spend_day": (
        (spend_day.c.account_id, spend_day.c.day),
        spend_day.c.account_id,
        lambda before: spend_day.c.day < before.date(),
    ),
}
assert _FORGET.keys() == set(KEPT)


def _older(at: ColumnElement[datetime], id_: ColumnElement[UUID], place: RecordPlace) -> ColumnElement[bool]:
    """What comes after the place where the newest are first."""
    moment = _EPOCH + place.at_us * _MICROSECOND
    return or_(at < moment, and_(at == moment, id_ < place.id))


def _following(rows: Sequence[Row[Any]], limit: int) -> RecordPlace | None:
    """Where the next page begins, if one more row was found than are wanted."""
    if len(rows) <= limit:
        return None
    last = rows[limit - 1]
    return RecordPlace((last.at - _EPOCH) // _MICROSECOND, last.id)


def corrections(ids: Sequence[UUID]) -> Select[Any]:
    """What has been booked about these calls since they were settled: `reference` (the call's id) and `micros`."""
    return (
        select(ledger_entry.c.reference, total(ledger_entry.c.amount_micros).label("micros"))
        .where(ledger_entry.c.kind.in_(_LATER), ledger_entry.c.reference.in_([str(id_) for id_ in ids]))
        .group_by(ledger_entry.c.reference)
    )


def corrected_micros(row: Any) -> int:
    """What corrections have added to a call's price: an entry takes from the balance what it adds to the price."""
    return -int(row.micros)


class _Call(NamedTuple):
    """A settled call, as far as it says who counts it."""

    started_at: datetime
    source_address: str
    """Empty: no longer known."""


async def _counters(connection: AsyncConnection, scope: UUID) -> Sequence[Row[Any]]:
    # Locked: a call that was written to one of them since would make this transaction fail in the end.
    query = select(counter).where(counter.c.scope == scope).order_by(counter.c.shard).with_for_update()
    return (await connection.execute(query)).all()


async def _correct_shards(connection: AsyncConnection, shards: Sequence[Row[Any]], day: date, micros: int) -> None:
    """The day's spend as its shards count it. What was charged stays where it is: the balance, which the shards' parts
    of the credit are made for, has changed, and so those parts are void (limits.shards)."""
    usages = [usage_from(row.usage) for row in shards]
    correct(usages, day, micros)
    await _write_counters(connection, shards, usages, _spends(day) if micros > 0 else frozenset())


async def _correct_reseller(connection: AsyncConnection, reseller_id: UUID, day: date, micros: int) -> None:
    """What the reseller's accounts have spent: that of the account's present reseller, even if it
    had another one then. Its credit is no balance that changes; what all calls have cost counts against it."""
    rows = await _counters(connection, reseller_id)
    usages = [usage_from(row.usage) for row in rows]
    correct(usages, day, micros)
    correct_in_all(usages, micros)
    await _write_counters(connection, rows, usages, _spends(day) | {"credit"} if micros > 0 else frozenset())


async def _correct_address(connection: AsyncConnection, realm: str, call: _Call, micros: int) -> None:
    for row in await _counters(connection, address_scope(realm, call.source_address)):
        usage = usage_from(row.usage)
        correct_period(usage, call.started_at.timestamp(), micros)
        await _write_counters(connection, [row], [usage], frozenset())


def _spends(day: date) -> frozenset[str]:
    """What is counted of the day's and the month's spend."""
    return frozenset((day_spend(day.toordinal()), month_spend(day.year * 12 + day.month - 1)))


async def _write_counters(
    connection: AsyncConnection, rows: Sequence[Row[Any]], usages: Sequence[Usage], void: frozenset[str]
) -> None:
    """With a new version, those that change. `void`: of these quantities more is used than a shard's part of a limit
    allows it, and so no part is what it was."""
    for row, usage in zip(rows, usages, strict=True):
        grants = grants_from(row.transfers)
        values = {
            "usage": usage_bytes(usage),
            "transfers": grants_bytes({name: grant for name, grant in grants.items() if name not in void}),
        }
        if values != {"usage": row.usage, "transfers": row.transfers}:
            changed = update(counter).where(counter.c.scope == row.scope, counter.c.shard == row.shard)
            await connection.execute(changed.values(**values, version=counter.c.version + 1, updated_at=func.now()))


async def _write_reversal(
    connection: AsyncConnection, account_id: UUID, reference: str, made: Reversal, note: str, usage: bytes
) -> None:
    await connection.execute(
        insert(ledger_entry).values(
            id=made.id,
            account_id=account_id,
            kind="reversal",
            reference=reference,
            slice=made.slice,
            amount_micros=made.amount_micros,
            note=note,
        )
    )
    # With a new version: who decides on what it remembers of the account must find out.
    moved = {
        "balance_micros": account.c.balance_micros + made.amount_micros,
        "version": account.c.version + 1,
        "usage": usage,
    }
    await connection.execute(update(account).where(account.c.id == account_id).values(**moved))


async def _correct_day(connection: AsyncConnection, account_id: UUID, day: Any, made: Reversal) -> None:
    more_micros = -made.amount_micros
    values = {"account_id": account_id, "day": day, "spent_micros": max(more_micros, 0)}
    # Not below nothing: the account's zone may have changed since, and the call been counted on a neighbouring day.
    spent = func.greatest(spend_day.c.spent_micros + literal(more_micros), 0)
    await connection.execute(
        upsert(spend_day)
        .values(**values)
        .on_conflict_do_update(index_elements=[spend_day.c.account_id, spend_day.c.day], set_={"spent_micros": spent})
    )


def _page(account_id: UUID | None, since_s: float, until_s: float, last: Row[Any] | None) -> Select[Any]:
    """In the order of the index on account and start: a page begins where the last one ended, at whatever depth."""
    query = (
        select(cdr, account.c.name.label("account"), account.c.realm)
        .join(account, account.c.id == cdr.c.account_id)
        .where(cdr.c.started_at >= time_at(since_s), cdr.c.started_at < time_at(until_s))
        .where(true() if account_id is None else cdr.c.account_id == account_id)
        .order_by(cdr.c.account_id, cdr.c.started_at, cdr.c.id)
        .limit(EXPORT_PAGE)
    )
    if last is None:
        return query
    place = tuple_(literal(last.account_id), literal(last.started_at), literal(last.id))
    return query.where(tuple_(cdr.c.account_id, cdr.c.started_at, cdr.c.id) > place)


def _record(row: Row[Any], corrected_micros: int) -> CallRecord:
    cost = row.cost_micros
    return CallRecord(
        hold_id=str(row.id),
        call_id=row.call_id,
        account_id=str(row.account_id),
        account=row.account,
        realm=row.realm,
        destination=row.destination,
        dialled=row.dialled,
        caller_number=row.caller_number,
        source_address=row.source_address,
        edge=row.edge,
        started_at_s=row.started_at.timestamp(),
        answered_at_s=0.0 if row.answered_at is None else row.answered_at.timestamp(),
        ended_at_s=row.ended_at.timestamp(),
        duration_s=row.duration_s,
        billed_s=row.billed_s,
        price_micros=row.price_micros,
        corrected_micros=corrected_micros,
        cost_micros=cost,
        margin_micros=None if cost is None else row.price_micros + corrected_micros - cost,
        currency=row.currency,
        prefix=row.prefix,
        trunk=row.trunk,
        carrier_account_id="" if row.carrier_account_id is None else str(row.carrier_account_id),
        reason=row.reason,
        sip_status=row.sip_status,
        limits_hit=row.limits_hit,
        policy_revision=row.policy_revision,
        trace_id=row.trace_id,
    )


def time_at(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
