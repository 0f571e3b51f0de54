"""The books in PostgreSQL or CockroachDB: one transaction for a batch, by prepared statements (DESIGN.md D2).

Each statement takes arrays and writes many rows: a batch of any size is six to eight round trips. No statement changes
one table twice, which CockroachDB refuses, so new, changed and ended holds are written by three.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.adapters.messages import decision_bytes, price_bytes, price_from, refuse_from
from callwarden.call_admission.core.book import Changes, Loaded, NewHold, Note, Standing
from callwarden.call_admission.core.calls import Expired, Hold
from callwarden.call_admission.core.days import days_around
from callwarden.call_admission.core.settle import Settlement
from callwarden.call_admission.core.snapshot import Account, AccountType
from callwarden.call_admission.ports import Read
from callwarden.common.sql import HotPool
from callwarden.kernel.errors import Internal, Unavailable

T = TypeVar("T")

# A batch takes 2 to 10 ms. A caller who has waited this long is better told to try elsewhere than left to ring out.
TRANSACTION_TIMEOUT_S: Final = 2.0

# For the planner of PostgreSQL. These statements look up keys; a plan made while the tables were small would read them
# whole ever after, and a transaction that has read a whole table conflicts with all that write to it.
SESSION: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}

# One statement for both kinds of row, told apart by the first column: a round trip costs as much as twenty rows.
_READ: Final = """
WITH a AS (
  SELECT id, realm, name, type, status, currency, time_zone, prepaid, deck, balance_micros, held_micros,
         overdraft_micros, max_lines, daily_micros
  FROM account WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE
)
SELECT a.*, d.day, d.lines, d.held, d.spent, NULL::uuid AS hold_account_id, NULL::timestamptz AS created_at,
       NULL::timestamptz AS answered_at, NULL::timestamptz AS expires_at, NULL::int4 AS granted_s,
       NULL::int4 AS max_duration_s, NULL::bool AS final, NULL::bytea AS price, NULL::text AS trunk,
       NULL::bool AS settled, NULL::bytea AS body
FROM a LEFT JOIN (
  SELECT account_id, day, sum(lines)::int8 AS lines, sum(held)::int8 AS held, sum(spent)::int8 AS spent FROM (
    SELECT account_id, spend_day AS day, count(*) FILTER (WHERE expires_at > $3) AS lines,
           sum(held_micros) AS held, 0 AS spent
    FROM hold WHERE account_id = ANY($2::uuid[]) GROUP BY account_id, spend_day
    UNION ALL
    SELECT account_id, day, 0, 0, spent_micros
    FROM spend_day WHERE account_id = ANY($2::uuid[]) AND day BETWEEN $4 AND $5
  ) AS both_kinds GROUP BY account_id, day
) AS d ON d.account_id = a.id
UNION ALL
SELECT w.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, h.held_micros, NULL, NULL, NULL, h.spend_day, NULL,
       NULL, NULL, h.account_id, h.created_at, h.answered_at, h.expires_at, h.granted_s, h.max_duration_s, h.final,
       h.price, h.trunk, c.id IS NOT NULL, n.body
FROM unnest($6::uuid[]) AS w(id)
LEFT JOIN hold AS h ON h.id = w.id
LEFT JOIN cdr AS c ON c.id = w.id
LEFT JOIN decision AS n ON n.id = w.id
WHERE h.id IS NOT NULL OR c.id IS NOT NULL OR n.id IS NOT NULL
"""

# New holds, the money of all accounts, and notes. $23 on: what each account gains, and holds more.
_WRITE: Final = """
WITH holds AS (
  INSERT INTO hold (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, created_at,
                    answered_at, expires_at, granted_s, max_duration_s, final, held_micros, spend_day, price, prefix,
                    trunk, policy_revision, trace_id, decision)
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::int4[], $13::int4[], $14::bool[], $15::int8[],
    $16::date[], $17::bytea[], $18::text[], $19::text[], $20::int8[], $21::text[], $22::bytea[])
), money AS (
  UPDATE account SET balance_micros = account.balance_micros + m.gained, held_micros = account.held_micros + m.held
  FROM unnest($23::uuid[], $24::int8[], $25::int8[]) AS m(id, gained, held) WHERE account.id = m.id
), notes AS (
  INSERT INTO decision (id, call_id, account_id, at, outcome, body)
  SELECT * FROM unnest($26::uuid[], $27::text[], $28::uuid[], $29::timestamptz[], $30::text[], $31::bytea[])
  ON CONFLICT (id) DO NOTHING
)
SELECT 1
"""

_UPDATE_HOLDS: Final = """
UPDATE hold SET answered_at = n.answered_at, expires_at = n.expires_at, granted_s = n.granted_s, final = n.final,
                held_micros = n.held_micros, trunk = n.trunk
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::int4[], $5::bool[], $6::int8[], $7::text[])
  AS n(id, answered_at, expires_at, granted_s, final, held_micros, trunk)
WHERE hold.id = n.id
"""

# The record takes over from the hold what doesn't change, without its coming here first.
_SETTLE: Final = """
WITH gone AS (
  DELETE FROM hold WHERE id = ANY($1::uuid[]) RETURNING *
), entries AS (
  INSERT INTO ledger_entry (id, account_id, kind, reference, amount_micros, note, created_at)
  SELECT e.id, e.account_id, 'call', e.id::text, -e.price, '', $11::timestamptz
  FROM unnest($1::uuid[], $2::uuid[], $6::int8[]) AS e(id, account_id, price) WHERE e.price > 0
), days AS (
  INSERT INTO spend_day (account_id, day, spent_micros)
  SELECT * FROM unnest($12::uuid[], $13::date[], $14::int8[])
  ON CONFLICT (account_id, day) DO UPDATE SET spent_micros = spend_day.spent_micros + excluded.spent_micros
)
INSERT INTO cdr (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, started_at,
                 answered_at, ended_at, duration_s, billed_s, price_micros, currency, prefix, trunk, reason, sip_status,
                 policy_revision, trace_id, decision)
SELECT g.id, g.account_id, g.call_id, g.destination, g.dialled, g.caller_number, g.source_address, g.edge,
       g.created_at, s.answered_at, s.ended_at, s.duration_s, s.billed_s, s.price, s.currency, g.prefix, s.trunk,
       s.reason, s.sip_status, g.policy_revision, g.trace_id, g.decision
FROM unnest($1::uuid[], $3::timestamptz[], $4::timestamptz[], $5::int4[], $15::int4[], $6::int8[], $7::text[],
            $8::text[], $9::text[], $10::int4[])
  AS s(id, answered_at, ended_at, duration_s, billed_s, price, currency, trunk, reason, sip_status)
JOIN gone AS g ON g.id = s.id
"""

_EXPIRED: Final = "SELECT id, account_id FROM hold WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2"

_TYPES: Final = {kind.value: kind for kind in AccountType}


class SqlBooks:
    """Implements ports.Books."""

    def __init__(self, pool: HotPool) -> None:
        self._pool = pool

    async def update(self, read: Read, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        async def attempt(connection: Any) -> T:
            changes, result = work(await _load(connection, read))
            await _write(connection, changes, read.now_s)
            return result

        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S):
                return await self._pool.transaction("admission", attempt)
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        async def attempt(connection: Any) -> list[Expired]:
            rows = await connection.fetch(_EXPIRED, _time(now_s), limit)
            return [Expired(row["id"], row["account_id"]) for row in rows]

        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S):
                return await self._pool.run("expired", attempt)
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error


async def _load(connection: Any, read: Read) -> Loaded:
    loaded = Loaded({}, {})
    if not read.accounts and not read.holds:
        return loaded  # notes only
    first, last = days_around(read.now_s)
    for row in await connection.fetch(_READ, read.accounts, read.counted, _time(read.now_s), first, last, read.holds):
        if row["realm"] is not None:
            _add_standing(loaded.standings, row)
        else:
            _add_hold(loaded, row)
    return loaded


def _add_standing(standings: dict[UUID, Standing], row: Any) -> None:
    # By position, and one Standing for the account's rows (one for each day that has something).
    (
        id_, realm, name, type_, status, currency, time_zone, prepaid, deck, balance, held, overdraft, max_lines, daily,
        day, lines, held_day, spent, *_,
    ) = row  # fmt: skip
    standing = standings.get(id_)
    if standing is None:
        account = Account(
            id_, realm, name, _TYPES[type_], status == "active", currency, time_zone, prepaid, deck, balance, held,
            overdraft, max_lines, daily,
        )  # fmt: skip
        standing = standings[id_] = Standing.of(account)
    if day is not None:
        standing.lines += lines
        standing.held_by_day[day] = held_day
        standing.spent_by_day[day] = spent


def _add_hold(loaded: Loaded, row: Any) -> None:
    id_, held_micros, spend_day = row["id"], row["held_micros"], row["day"]
    (
        account_id, created_at, answered_at, expires_at, granted_s, max_duration_s, final, price, trunk, settled, body,
    ) = row[18:]  # fmt: skip
    if account_id is not None:
        loaded.holds[id_] = Hold(
            id_, account_id, created_at.timestamp(), None if answered_at is None else answered_at.timestamp(),
            expires_at.timestamp(), granted_s, max_duration_s, final, held_micros, spend_day, price_from(price), trunk,
        )  # fmt: skip
    if settled:
        loaded.settled.add(id_)
    if body is not None:
        decision = admission_pb2.Decision.FromString(body)
        if decision.outcome == "refuse":
            loaded.refused[id_] = refuse_from(decision.refused)


async def _write(connection: Any, changes: Changes, now_s: float) -> None:
    if changes.holds or changes.held or changes.balances or changes.notes:
        await connection.fetchval(
            _WRITE, *_hold_columns(changes.holds.values()), *_money_columns(changes), *_note_columns(changes.notes)
        )
    if changes.updated:
        await connection.execute(_UPDATE_HOLDS, *_update_columns(changes.updated.values()))
    if changes.settled:
        status = await connection.execute(_SETTLE, *_settle_columns(changes.settled, changes.spent, now_s))
        if status != f"INSERT 0 {len(changes.settled)}":
            raise Internal(f"{len(changes.settled)} calls to settle, written: {status}")


def _hold_columns(new: Iterable[NewHold]) -> list[list[Any]]:
    rows = [_hold_row(item) for item in new]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(22)]


def _hold_row(new: NewHold) -> tuple[Any, ...]:
    hold, request = new.hold, new.request
    return (
        hold.id, hold.account_id, request.call_id, request.destination, request.dialled, request.caller_number,
        request.source_address, request.edge, _time(hold.created_at_s), _time_or_none(hold.answered_at_s),
        _time(hold.expires_at_s), hold.granted_s, hold.max_duration_s, hold.final, hold.held_micros, hold.spend_day,
        price_bytes(hold.price), new.prefix, hold.trunk, new.decision.policy_revision, request.trace_id,
        decision_bytes(new.decision),
    )  # fmt: skip


def _money_columns(changes: Changes) -> tuple[list[UUID], list[int], list[int]]:
    accounts = sorted({*changes.held, *changes.balances})
    return (
        accounts,
        [changes.balances.get(account, 0) for account in accounts],
        [changes.held.get(account, 0) for account in accounts],
    )


def _note_columns(notes: Sequence[Note]) -> list[list[Any]]:
    return [
        [note.id for note in notes],
        [note.call_id for note in notes],
        [note.account_id for note in notes],
        [_time(note.at_s) for note in notes],
        [note.outcome for note in notes],
        [note.body if note.decision is None else decision_bytes(note.decision) for note in notes],
    ]


def _update_columns(holds: Iterable[Hold]) -> list[list[Any]]:
    rows = [
        (
            hold.id, _time_or_none(hold.answered_at_s), _time(hold.expires_at_s), hold.granted_s, hold.final,
            hold.held_micros, hold.trunk,
        )
        for hold in holds
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]


def _settle_columns(settled: Sequence[Settlement], spent: dict[tuple[UUID, date], int], now_s: float) -> list[Any]:
    return [
        [s.hold_id for s in settled],
        [s.account_id for s in settled],
        [_time_or_none(s.answered_at_s) for s in settled],
        [_time(s.ended_at_s) for s in settled],
        [s.duration_s for s in settled],
        [s.price_micros for s in settled],
        [s.currency for s in settled],
        [s.trunk for s in settled],
        [s.reason for s in settled],
        [s.sip_status for s in settled],
        _time(now_s),
        [account for account, _ in spent],
        [day for _, day in spent],
        list(spent.values()),
        [s.billed_s for s in settled],
    ]


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _time_or_none(at_s: float | None) -> datetime | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC)
