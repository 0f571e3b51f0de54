"""The books in PostgreSQL or CockroachDB: one read, one write for a batch, by prepared statements (DESIGN.md D2).

The write goes through only if no account has moved since it was read: each has a version that every change of its holds
raises, and a write that finds another one than was read fails whole and is tried again from the read. So a batch takes
two round trips where a transaction with locks takes five, and what was decided is as exact: docs/decisions tells more.

Each statement takes arrays and writes many rows. CockroachDB lets no statement change one table twice, so new, changed
and ended holds take three; the app makes batches of one kind, and a mixed one is written in an explicit transaction.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.adapters.messages import decision_bytes, price_bytes, price_from, refuse_from
from callwarden.call_admission.core.book import Changes, Loaded, NewHold, Note, Standing
from callwarden.call_admission.core.calls import Expired, Hold
from callwarden.call_admission.core.days import days_around
from callwarden.call_admission.core.settle import Settlement
from callwarden.call_admission.core.snapshot import Account, AccountType
from callwarden.call_admission.ports import Read
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.sql import HotPool
from callwarden.kernel.errors import Conflict, Unavailable

T = TypeVar("T")

# A batch takes 2 to 10 ms. A caller who has waited this long is better told to try elsewhere than left to ring out.
UPDATE_TIMEOUT_S: Final = 2.0
ATTEMPTS_MAX: Final = 12  # With the pauses below, four processes on one account all got through in six.
PAUSE_FIRST_S: Final = 0.001
PAUSE_MAX_S: Final = 0.05

CONFLICTS = Metric(
    "callwarden_admission_conflicts_total",
    "counter",
    "{transactions}",
    "Batches read again because another process had moved an account.",
)

# For the planner of PostgreSQL. These statements look up keys; a plan made while the tables were small would read them
# whole ever after, and a statement that has read a whole table conflicts with all that write to it.
SESSION: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}

# Accounts with lines and days, and holds with what is known by their ids; told apart by the second column.
_READ: Final = """
WITH a AS (
  SELECT id, realm, name, type, status, currency, time_zone, prepaid, deck, balance_micros, held_micros,
         overdraft_micros, max_lines, daily_micros, version
  FROM account WHERE id = ANY($1::uuid[])
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
SELECT w.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, h.held_micros, NULL, NULL, NULL, NULL, h.spend_day,
       NULL, NULL, NULL, h.account_id, h.created_at, h.answered_at, h.expires_at, h.granted_s, h.max_duration_s,
       h.final, h.price, h.trunk, c.id IS NOT NULL, n.body
FROM unnest($6::uuid[]) AS w(id)
LEFT JOIN hold AS h ON h.id = w.id
LEFT JOIN cdr AS c ON c.id = w.id
LEFT JOIN decision AS n ON n.id = w.id
WHERE h.id IS NOT NULL OR c.id IS NOT NULL OR n.id IS NOT NULL
"""
_HOLD_COLUMNS_FROM: Final = 19


@dataclass(frozen=True, slots=True)
class Part:
    """One change of a statement, as a common table expression over rows that come as arrays. `{rows}` stands for them;
    a part without types has none of its own and reads another part's."""

    name: str
    types: tuple[str, ...]
    sql: str
    is_counted: bool = False
    """It must change as many rows as it was given."""


MOVED = Part(
    "moved",
    ("uuid", "int8", "int8", "int8"),
    """UPDATE account SET balance_micros = account.balance_micros + m.gained,
    held_micros = account.held_micros + m.held, version = account.version + 1
  FROM {rows} AS m(id, version, gained, held)
  WHERE account.id = m.id AND account.version = m.version RETURNING account.id""",
    is_counted=True,
)
HOLDS = Part(
    "holds",
    ("uuid", "uuid", *["text"] * 6, *["timestamptz"] * 3, "int4", "int4", "bool", "int8", "date", "bytea", "text",
     "text", "int8", "text", "bytea"),
    """INSERT INTO hold (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, created_at,
    answered_at, expires_at, granted_s, max_duration_s, final, held_micros, spend_day, price, prefix, trunk,
    policy_revision, trace_id, decision) SELECT * FROM {rows} AS n""",
)  # fmt: skip
UPDATED = Part(
    "updated",
    ("uuid", "timestamptz", "timestamptz", "int4", "bool", "int8", "text"),
    """UPDATE hold SET answered_at = n.answered_at, expires_at = n.expires_at, granted_s = n.granted_s,
    final = n.final, held_micros = n.held_micros, trunk = n.trunk
  FROM {rows} AS n(id, answered_at, expires_at, granted_s, final, held_micros, trunk)
  WHERE hold.id = n.id RETURNING hold.id""",
    is_counted=True,
)
ENDS = Part(
    "ends",
    ("uuid", "uuid", "timestamptz", "timestamptz", "int4", "int4", "int8", "text", "text", "text", "int4"),
    """SELECT * FROM {rows} AS s(id, account_id, answered_at, ended_at, duration_s, billed_s, price, currency, trunk,
    reason, sip_status)""",
)
GONE = Part("gone", (), "DELETE FROM hold USING ends WHERE hold.id = ends.id RETURNING hold.*")
ENTRIES = Part(
    "entries",
    (),
    """INSERT INTO ledger_entry (id, account_id, kind, reference, amount_micros)
  SELECT id, account_id, 'call', id::text, -price FROM ends WHERE price > 0""",
)
# The record takes over from the hold what doesn't change, without its coming here first.
RECORDS = Part(
    "records",
    (),
    """INSERT INTO cdr (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, started_at,
    answered_at, ended_at, duration_s, billed_s, price_micros, currency, prefix, trunk, reason, sip_status,
    policy_revision, trace_id, decision)
  SELECT g.id, g.account_id, g.call_id, g.destination, g.dialled, g.caller_number, g.source_address, g.edge,
    g.created_at, s.answered_at, s.ended_at, s.duration_s, s.billed_s, s.price, s.currency, g.prefix, s.trunk, s.reason,
    s.sip_status, g.policy_revision, g.trace_id, g.decision
  FROM ends AS s JOIN gone AS g ON g.id = s.id RETURNING id""",
    is_counted=True,
)
DAYS = Part(
    "days",
    ("uuid", "date", "int8"),
    """INSERT INTO spend_day (account_id, day, spent_micros) SELECT * FROM {rows} AS n
  ON CONFLICT (account_id, day) DO UPDATE SET spent_micros = spend_day.spent_micros + excluded.spent_micros""",
)
NOTES = Part(
    "notes",
    ("uuid", "text", "uuid", "timestamptz", "text", "bytea"),
    """INSERT INTO decision (id, call_id, account_id, at, outcome, body) SELECT * FROM {rows} AS n
  ON CONFLICT (id) DO NOTHING""",
)


@lru_cache(64)  # There are eight combinations.
def statement(*names: str) -> str:
    """The named parts as one statement; its arguments are the parts' arrays in order, then how many rows each counted
    part must change. One that changes fewer fails, by dividing by zero: the portable way to say "all or nothing"."""
    number = 0
    expressions, conditions = [], []
    for name in names:
        part = PARTS[name]
        arrays = ", ".join(f"${number + index}::{kind}[]" for index, kind in enumerate(part.types, 1))
        number += len(part.types)
        expressions.append(f"{name} AS (\n  {part.sql.format(rows=f'unnest({arrays})')}\n)")
    for name in names:
        if PARTS[name].is_counted:
            number += 1
            conditions.append(f"(SELECT count(*) FROM {name}) = ${number}::int8")  # noqa: S608 - a name of PARTS
    condition = " AND ".join(conditions) or "true"
    return f"WITH {', '.join(expressions)}\nSELECT 1 / (CASE WHEN {condition} THEN 1 ELSE 0 END)"


PARTS: Final = {part.name: part for part in (MOVED, HOLDS, UPDATED, ENDS, GONE, ENTRIES, RECORDS, DAYS, NOTES)}

_EXPIRED: Final = "SELECT id, account_id FROM hold WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2"
_TYPES: Final = {kind.value: kind for kind in AccountType}
# What a write meets when somebody has come between: a version that has moved; money that is gone (a CHECK); a hold that
# is there already. Reading again tells.
_CAME_BETWEEN: Final = (asyncpg.DivisionByZeroError, asyncpg.CheckViolationError, asyncpg.UniqueViolationError)


class SqlBooks:
    """Implements ports.Books."""

    def __init__(self, pool: HotPool, metrics: Metrics | None = None, rng: Callable[[], float] = random.random) -> None:
        self._pool = pool
        self._rng = rng
        self._conflicts = (metrics or Metrics()).counter(CONFLICTS)

    async def update(self, read: Read, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        async def attempt(connection: Any) -> T:
            changes, result = work(await _load(connection, read))
            await _write(connection, changes)
            return result

        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                for number in range(ATTEMPTS_MAX):
                    try:
                        return await self._pool.run("admission", attempt)
                    except _CAME_BETWEEN as error:
                        self._conflicts.value += 1
                        between = error
                    # Full jitter: those who collided must not meet again.
                    await asyncio.sleep(min(PAUSE_FIRST_S * 2**number, PAUSE_MAX_S) * self._rng())
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error
        if isinstance(between, asyncpg.DivisionByZeroError):
            raise Conflict("others have come between too often") from between
        raise between  # a CHECK that nobody's coming between explains: our own mistake, found by the database

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        async def attempt(connection: Any) -> list[Expired]:
            rows = await connection.fetch(_EXPIRED, _time(now_s), limit)
            return [Expired(row["id"], row["account_id"]) for row in rows]

        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                return await self._pool.run("expired", attempt)
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error


async def _load(connection: Any, read: Read) -> Loaded:
    loaded = Loaded({}, {})
    if not read.accounts and not read.holds:
        return loaded  # notes only
    first, last = days_around(read.now_s)
    arguments = (read.accounts, read.counted, _time(read.now_s), first, last, read.holds)
    for row in await connection.fetch(_READ, *arguments):
        if row[1] is not None:
            _add_standing(loaded.standings, row)
        else:
            _add_hold(loaded, row)
    return loaded


def _add_standing(standings: dict[UUID, Standing], row: Any) -> None:
    # By position, and one Standing for the account's rows (one for each day that has something).
    (
        id_, realm, name, type_, status, currency, time_zone, prepaid, deck, balance, held, overdraft, max_lines, daily,
        version, day, lines, held_day, spent, *_,
    ) = row  # fmt: skip
    standing = standings.get(id_)
    if standing is None:
        account = Account(
            id_, realm, name, _TYPES[type_], status == "active", currency, time_zone, prepaid, deck, balance, held,
            overdraft, max_lines, daily,
        )  # fmt: skip
        standing = standings[id_] = Standing.of(account, version)
    if day is not None:
        standing.lines += lines
        standing.held_by_day[day] = held_day
        standing.spent_by_day[day] = spent


def _add_hold(loaded: Loaded, row: Any) -> None:
    id_, held_micros, spend_day = row["id"], row["held_micros"], row["day"]
    (
        account_id, created_at, answered_at, expires_at, granted_s, max_duration_s, final, price, trunk, settled, body,
    ) = row[_HOLD_COLUMNS_FROM:]  # fmt: skip
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


_Columns = list[Any]
# The names of a write's parts, their arrays, and how many rows each counted one must change.
_Write = tuple[tuple[str, ...], _Columns, tuple[int, ...]]


async def _write(connection: Any, changes: Changes) -> None:
    writes = _writes_of(changes)
    if not writes:
        return
    if len(writes) == 1:
        names, columns, counts = writes[0]
        await connection.fetchval(statement(*names), *columns, *counts)
        return
    async with connection.transaction():
        for names, columns, counts in writes:
            await connection.fetchval(statement(*names), *columns, *counts)


def _writes_of(changes: Changes) -> list[_Write]:
    """One for each kind of change; money and notes go with the first."""
    writes: list[_Write] = []
    if changes.holds:
        writes.append((("holds",), _hold_columns(changes.holds.values()), ()))
    if changes.updated:
        writes.append((("updated",), _update_columns(changes.updated.values()), (len(changes.updated),)))
    if changes.settled:
        columns = _end_columns(changes.settled) + _day_columns(changes)
        writes.append((("ends", "gone", "entries", "records", "days"), columns, (len(changes.settled),)))
    if changes.versions:
        names, columns, counts = writes[0]
        writes[0] = ("moved", *names), _moved_columns(changes) + columns, (len(changes.versions), *counts)
    if changes.notes:
        names, columns, counts = writes[0] if writes else ((), [], ())
        writes[:1] = [((*names, "notes"), columns + _note_columns(changes.notes), counts)]
    return writes


def _moved_columns(changes: Changes) -> _Columns:
    # In the order of keys, in which everybody locks them.
    accounts = sorted(changes.versions)
    return [
        accounts,
        [changes.versions[account] for account in accounts],
        [changes.balances.get(account, 0) for account in accounts],
        [changes.held.get(account, 0) for account in accounts],
    ]


def _hold_columns(new: Iterable[NewHold]) -> _Columns:
    return [list(column) for column in zip(*map(_hold_row, new), strict=True)]


def _hold_row(new: NewHold) -> tuple[Any, ...]:
    hold, request = new.hold, new.request
    return (
        hold.id, hold.account_id, request.call_id, request.destination, request.dialled, request.caller_number,
        request.source_address, request.edge, _time(hold.created_at_s), _time_or_none(hold.answered_at_s),
        _time(hold.expires_at_s), hold.granted_s, hold.max_duration_s, hold.final, hold.held_micros, hold.spend_day,
        price_bytes(hold.price), new.prefix, hold.trunk, new.decision.policy_revision, request.trace_id,
        decision_bytes(new.decision),
    )  # fmt: skip


def _update_columns(holds: Iterable[Hold]) -> _Columns:
    rows = [
        (
            hold.id, _time_or_none(hold.answered_at_s), _time(hold.expires_at_s), hold.granted_s, hold.final,
            hold.held_micros, hold.trunk,
        )
        for hold in holds
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]


def _end_columns(settled: Sequence[Settlement]) -> _Columns:
    rows = [
        (
            s.hold_id, s.account_id, _time_or_none(s.answered_at_s), _time(s.ended_at_s), s.duration_s, s.billed_s,
            s.price_micros, s.currency, s.trunk, s.reason, s.sip_status,
        )
        for s in settled
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]


def _day_columns(changes: Changes) -> _Columns:
    days = sorted(changes.spent)
    return [[account for account, _ in days], [day for _, day in days], [changes.spent[day] for day in days]]


def _note_columns(notes: Sequence[Note]) -> _Columns:
    rows = [
        (
            note.id, note.call_id, note.account_id, _time(note.at_s), note.outcome,
            note.body if note.decision is None else decision_bytes(note.decision),
        )
        for note in notes
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _time_or_none(at_s: float | None) -> datetime | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC)
