"""What is known of calls, and the sums of the ledger, in SQL for both databases. Cold: SQLAlchemy Core throughout."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, case, func, literal, or_, select, true, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.accounts.adapters.account_rows import in_shards
from callwarden.call_admission.accounts.core.views import MISMATCHED_MAX, CallView, Explanation, LedgerAudit
from callwarden.call_admission.model.calls import HoldStage
from callwarden.call_admission.model.settle import EXPIRED
from callwarden.call_admission.records.adapters.records_sql import corrected_micros, corrections
from callwarden.common.sql import Database
from callwarden.common.sql.expressions import total
from callwarden.schema.tables import account, cdr, counter, decision, hold, ledger_entry

DECISIONS_MAX: Final = 100  # of one Call-ID; a caller that repeats a refused call with it fills no more than a page


class SqlCallHistory:
    """Implements ports.CallHistory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, account_id: UUID | None, since_s: float, limit: int, *, running: bool) -> Sequence[CallView]:
        parts = [_running_calls()] if running else [_running_calls(), _settled_calls()]
        narrowed = []
        for part in parts:
            table = hold if part is parts[0] else cdr
            started = table.c.created_at if table is hold else table.c.started_at
            query = part.order_by(started.desc()).limit(limit)
            if since_s:
                query = query.where(started >= datetime.fromtimestamp(since_s, UTC))
            if account_id is not None:
                query = query.where(table.c.account_id == account_id)
            narrowed.append(query.subquery())
        both = union_all(*(select(part) for part in narrowed)).subquery()
        newest = select(both).order_by(both.c.started_at.desc(), both.c.id).limit(limit)
        rows = await self._database.rows("call-list", newest)
        later = await self._database.rows(
            "call-corrections", corrections([row.id for row in rows if row.state == "settled"])
        )
        corrected = {row.reference: corrected_micros(row) for row in later}
        return [_call_view(row, corrected.get(str(row.id), 0)) for row in rows]

    async def explain(self, call_id: str) -> Explanation:
        async def work(connection: AsyncConnection) -> Explanation:
            rows: list[Row[Any]] = []
            for query, table in ((_running_calls(), hold), (_settled_calls(), cdr)):
                found = await connection.execute(
                    query.add_columns(table.c.decision).where(table.c.call_id == call_id).limit(DECISIONS_MAX)
                )
                rows += found.all()
            rows.sort(key=lambda row: row.started_at)
            noted = select(decision).where(decision.c.call_id == call_id).order_by(decision.c.at).limit(DECISIONS_MAX)
            notes = (await connection.execute(noted)).all()
            bodies = [row.decision for row in rows] + [note.body for note in notes]
            later = (await connection.execute(corrections([row.id for row in rows[-1:]]))).all()
            call = _call_view(rows[-1], sum(map(corrected_micros, later))) if rows else _refused_call(call_id, notes)
            return Explanation(tuple(bodies), call)

        return await self._database.transaction("explain", work)

    async def audit(self, account_id: UUID | None) -> LedgerAudit:
        mine = true() if account_id is None else account.c.id == account_id

        def by_account(table: Any, amount: ColumnElement[int], counted: ColumnElement[bool]) -> Any:
            query = (
                select(table.c.account_id, total(amount).label("micros"), func.count().label("rows"))
                .where(counted)
                .group_by(table.c.account_id)
            )
            return (query if account_id is None else query.where(table.c.account_id == account_id)).subquery()

        entries = by_account(ledger_entry, ledger_entry.c.amount_micros, true())
        running_micros = case((hold.c.stage == HoldStage.RUNNING, hold.c.held_micros), else_=0)
        holds = by_account(hold, running_micros, hold.c.stage < HoldStage.RECORDED)
        of_shards = in_shards() if account_id is None else in_shards().where(counter.c.scope == account_id)
        shards = of_shards.subquery()
        books = (
            account.outerjoin(entries, entries.c.account_id == account.c.id)
            .outerjoin(holds, holds.c.account_id == account.c.id)
            .outerjoin(shards, shards.c.scope == account.c.id)
        )
        balance = account.c.balance_micros - func.coalesce(shards.c.spent, 0)
        in_holds = account.c.held_micros + func.coalesce(shards.c.held, 0)
        ledger, held = func.coalesce(entries.c.micros, 0), func.coalesce(holds.c.micros, 0)
        sums = (
            select(
                func.count(),
                func.coalesce(total(entries.c.rows), 0),
                func.coalesce(total(balance), 0),
                func.coalesce(total(entries.c.micros), 0),
                func.coalesce(total(in_holds), 0),
                func.coalesce(total(holds.c.micros), 0),
                func.coalesce(total(holds.c.rows), 0),
            )
            .select_from(books)
            .where(mine)
        )
        wrong = (
            select(account.c.name)
            .select_from(books)
            .where(mine, or_(balance != ledger, in_holds != held))
            .order_by(account.c.name)
            .limit(MISMATCHED_MAX)
        )
        # One statement sees one moment; a reader of whole tables in a serializable transaction would make the calls'
        # transactions fail.
        (row,) = await self._database.rows("audit", sums)
        names = [found.name for found in await self._database.rows("audit", wrong)]
        accounts, entry_rows, balances, entered, account_held, hold_rows_held, open_holds = (
            int(value) for value in row
        )
        return LedgerAudit(
            accounts, entry_rows, balances, entered, account_held, hold_rows_held, open_holds, tuple(names)
        )


def _running_calls() -> Select[Any]:
    state = case((hold.c.stage == HoldStage.RUNNING, literal("running")), else_=literal("lapsed"))
    return select(
        hold.c.id, hold.c.call_id, account.c.name.label("account"), hold.c.destination,
        state.label("state"), hold.c.created_at.label("started_at"), hold.c.answered_at,
        hold.c.expires_at.label("ended_at"),
        literal(0).label("duration_s"), literal(0).label("billed_s"), literal(0).label("price_micros"),
        account.c.currency, literal("").label("reason"), hold.c.trunk, hold.c.policy_revision, hold.c.trace_id,
        hold.c.caller_number, literal(0).label("cost_micros"),
    ).join(account, account.c.id == hold.c.account_id).where(hold.c.stage < HoldStage.RECORDED)  # fmt: skip


def _settled_calls() -> Select[Any]:
    return select(
        cdr.c.id, cdr.c.call_id, account.c.name.label("account"), cdr.c.destination, literal("settled").label("state"),
        cdr.c.started_at, cdr.c.answered_at, cdr.c.ended_at, cdr.c.duration_s, cdr.c.billed_s, cdr.c.price_micros,
        cdr.c.currency, cdr.c.reason, cdr.c.trunk, cdr.c.policy_revision, cdr.c.trace_id, cdr.c.caller_number,
        func.coalesce(cdr.c.cost_micros, 0).label("cost_micros"),
    ).join(account, account.c.id == cdr.c.account_id)  # fmt: skip


def _call_view(row: Any, corrected: int) -> CallView:
    state = "expired" if row.reason == EXPIRED else row.state
    return CallView(
        hold_id=str(row.id),
        call_id=row.call_id,
        account=row.account,
        destination=row.destination,
        state=state,
        started_at_s=row.started_at.timestamp(),
        answered_at_s=0.0 if row.answered_at is None else row.answered_at.timestamp(),
        ended_at_s=0.0 if state in ("running", "lapsed") else row.ended_at.timestamp(),
        duration_s=row.duration_s,
        billed_s=row.billed_s,
        price_micros=row.price_micros,
        currency=row.currency,
        reason=row.reason,
        trunk=row.trunk,
        policy_revision=row.policy_revision,
        trace_id=row.trace_id,
        caller_number=row.caller_number,
        cost_micros=row.cost_micros,
        corrected_micros=corrected,
    )


def _refused_call(call_id: str, notes: Sequence[Any]) -> CallView | None:
    refusals = [note for note in notes if note.outcome == "refuse"]
    if not refusals:
        return None
    note = refusals[-1]
    made = admission_pb2.Decision.FromString(note.body)
    at_s = note.at.timestamp()
    return CallView(
        hold_id="",
        call_id=call_id,
        account=made.account,
        destination="",
        state="refused",
        started_at_s=at_s,
        ended_at_s=at_s,
        reason=made.refused.reason,
        policy_revision=made.policy_revision,
        trace_id=made.trace_id,
    )
