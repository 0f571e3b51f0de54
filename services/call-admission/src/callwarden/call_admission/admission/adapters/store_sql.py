"""The books in PostgreSQL or CockroachDB: one read, one write for a batch, by prepared statements (DESIGN.md D2).

The write goes through only if no account has moved since it was read: each has a version that every change of its holds
raises, and a write that finds another one than was read fails whole and is tried again from the read. So a batch takes
two round trips where a transaction with locks takes five, and what was decided is as exact: docs/decisions tells more.

Each statement writes many rows. CockroachDB lets no statement change one table twice, so new, changed
and ended holds take three; the app makes batches of one kind, and a mixed one is written in an explicit transaction.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

import asyncpg

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.admission.adapters.cache import Memory
from callwarden.call_admission.admission.adapters.contended import Contended
from callwarden.call_admission.admission.core.book import (
    Changes,
    Counter,
    CounterKey,
    Loaded,
    NewHold,
    Note,
    Seen,
    Standing,
)
from callwarden.call_admission.admission.ports import Read
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Expired, Hold
from callwarden.call_admission.model.codecs.hold_bytes import costs_bytes, costs_from, owners_bytes, owners_from
from callwarden.call_admission.model.codecs.messages import decision_bytes, price_bytes, price_from, refuse_from
from callwarden.call_admission.model.codecs.usage_bytes import grants_bytes, grants_from, usage_bytes, usage_from
from callwarden.call_admission.model.settle import Settlement
from callwarden.call_admission.model.usage import Usage
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.sql import HotPool, OutcomeUnknown
from callwarden.kernel.account import AccountType
from callwarden.kernel.errors import Conflict, Unavailable

T = TypeVar("T")

# A batch takes 2 to 10 ms. A caller who has waited this long is better told to try elsewhere than left to ring out.
UPDATE_TIMEOUT_S: Final = 2.0
ATTEMPTS_MAX: Final = 12  # With the pauses below, four processes on one account all got through in six.
# Reads of one batch: attempts, and those that find that more is needed (a reseller's counters, all shards of an owner).
ROUNDS_MAX: Final = 2 * ATTEMPTS_MAX
PAUSE_FIRST_S: Final = 0.001
PAUSE_MAX_S: Final = 0.05

CONFLICTS = Metric(
    "callwarden_admission_conflicts_total",
    "counter",
    "{transactions}",
    "Batches read again because another process had moved an account.",
)

# For the planner of PostgreSQL. These statements look up keys; a plan made while the tables were small would read them
# whole ever after, and a statement that has read a whole table conflicts with all that write to it. One plan serves for
# all arguments: made anew for each execution, as the planner else decides, planning takes longer than running.
SESSION: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

_ACCOUNT_COLUMNS: Final = """id, realm, name, type, status, currency, time_zone, prepaid, deck, balance_micros,
       held_micros, overdraft_micros, max_lines, daily_micros, lists, parent, shards, max_lines_off_peak,
       max_per_second, monthly_micros, monthly_increment_micros, monthly_ceiling_micros, talk_day_s, talk_month_s,
       country, email, phone, email_verified, phone_verified, version, usage"""
_HOLD_NULLS: Final = """NULL::uuid AS hold_id, NULL::uuid AS account_id, NULL::timestamptz AS created_at,
       NULL::timestamptz AS answered_at, NULL::timestamptz AS expires_at, NULL::int4 AS granted_s,
       NULL::int4 AS max_duration_s, NULL::bool AS final, NULL::int8 AS hold_micros, NULL::date AS spend_day,
       NULL::bytea AS price, NULL::text AS trunk, NULL::bytea AS owners, NULL::bytea AS cost, NULL::bool AS settled,
       NULL::bytea AS body"""
# Where an account is sharded its lines are counted in its shards.
_COUNTED: Final = """d.lines, d.until FROM a LEFT JOIN (
  SELECT h.account_id, count(*) AS lines, min(h.expires_at) AS until
  FROM (SELECT id FROM a WHERE shards <= 1 AND id = ANY($5::uuid[])) AS w JOIN hold AS h ON h.account_id = w.id
  WHERE h.expires_at > $4 GROUP BY h.account_id
) AS d ON d.account_id = a.id"""
_UNCOUNTED: Final = "NULL::int8 AS lines, NULL::timestamptz AS until FROM a"
# One statement for accounts (with lines, where they are asked for), those that are only looked at, and holds with what
# is known by their ids; told apart by the first column.
_READ: Final = """
WITH a AS (SELECT {columns} FROM account WHERE id = ANY($1::uuid[]))
SELECT 0 AS kind, a.*, {hold_nulls}, {accounts}
UNION ALL
SELECT 1, {columns}, {hold_nulls}, NULL, NULL
FROM (SELECT parent AS seen FROM a WHERE parent IS NOT NULL UNION SELECT s.seen FROM unnest($3::uuid[]) AS s(seen)) AS s
JOIN account ON account.id = s.seen
UNION ALL
SELECT 2, {account_nulls}, w.id, h.account_id, h.created_at, h.answered_at, h.expires_at, h.granted_s,
       h.max_duration_s, h.final, h.held_micros, h.spend_day, h.price, h.trunk, h.owners, h.cost, c.id IS NOT NULL,
       n.body, NULL, NULL
FROM unnest($2::uuid[]) AS w(id)
LEFT JOIN hold AS h ON h.id = w.id
LEFT JOIN cdr AS c ON c.id = w.id
LEFT JOIN decision AS n ON n.id = w.id
WHERE h.id IS NOT NULL OR c.id IS NOT NULL OR n.id IS NOT NULL
"""
_ACCOUNT_FIELDS: Final = len(_ACCOUNT_COLUMNS.split(","))


def _read_statement(accounts: str) -> str:
    account_nulls = ", ".join(["NULL"] * _ACCOUNT_FIELDS)
    return _READ.format(
        columns=_ACCOUNT_COLUMNS, hold_nulls=_HOLD_NULLS, account_nulls=account_nulls, accounts=accounts
    )


_READ_COUNTED: Final = _read_statement(_COUNTED)
_READ_UNCOUNTED: Final = _read_statement(_UNCOUNTED)
_READ_COUNTERS: Final = """
SELECT c.scope, c.shard, c.version, c.usage, c.transfers
FROM unnest($1::uuid[], $2::int8[]) AS w(scope, shard) JOIN counter AS c ON c.scope = w.scope AND c.shard = w.shard
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One change of a statement, as a common table expression over rows. `{rows}` stands for them, named as `columns`
    (name and type) says; a part without columns has no rows of its own and reads another part's."""

    name: str
    columns: str
    sql: str
    is_counted: bool = False
    """It must change (or find) as many rows as the write says."""

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Name and type of each column."""
        return [(field.split()[0], field.split()[1]) for field in self.columns.split(",") if field]


MOVED = Part(
    "moved",
    "id uuid, version int8, gained int8, held int8, usage bytea",
    """UPDATE account SET balance_micros = account.balance_micros + m.gained,
    held_micros = account.held_micros + m.held, version = account.version + 1, usage = m.usage
  FROM {rows} AS m WHERE account.id = m.id AND account.version = m.version RETURNING account.id""",
    is_counted=True,
)
# Accounts that don't change, but on which the change of others stands.
CHECKED = Part(
    "checked",
    "id uuid, version int8",
    "SELECT account.id FROM {rows} AS k JOIN account ON account.id = k.id AND account.version = k.version",
    is_counted=True,
)
# A row that isn't there has version 0. One that is there with another version than was read stays, and isn't counted.
COUNTERS = Part(
    "counters",
    "scope uuid, shard int8, version int8, held int8, spent int8, usage bytea, transfers bytea",
    """INSERT INTO counter (scope, shard, version, held_micros, spent_micros, usage, transfers, updated_at)
  SELECT n.scope, n.shard, n.version + 1, n.held, n.spent, n.usage, n.transfers, now() FROM {rows} AS n
  WHERE n.scope IS NOT NULL
  ON CONFLICT (scope, shard) DO UPDATE SET version = excluded.version, held_micros = excluded.held_micros,
    spent_micros = excluded.spent_micros, usage = excluded.usage, transfers = excluded.transfers,
    updated_at = excluded.updated_at
  WHERE counter.version = excluded.version - 1 RETURNING scope""",
    is_counted=True,
)
_HOLD_COLUMNS: Final = """id uuid, account_id uuid, call_id text, destination text, dialled text, caller_number text,
    source_address text, edge text, created_at timestamptz, answered_at timestamptz, expires_at timestamptz,
    granted_s int4, max_duration_s int4, final bool, held_micros int8, spend_day date, price bytea, prefix text,
    trunk text, policy_revision int8, trace_id text, owners bytea, cost bytea, decision bytea"""
HOLDS = Part(
    "holds",
    _HOLD_COLUMNS,
    """INSERT INTO hold (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, created_at,
    answered_at, expires_at, granted_s, max_duration_s, final, held_micros, spend_day, price, prefix, trunk,
    policy_revision, trace_id, owners, cost, decision) SELECT * FROM {rows} AS n WHERE n.id IS NOT NULL""",
)
# An id that has a record or a refusal already must not become a hold again.
ASKED = Part("asked", "id uuid", "SELECT * FROM {rows} AS n WHERE n.id IS NOT NULL")
KNOWN = Part(
    "known",
    "",
    """SELECT c.id FROM asked JOIN cdr AS c ON c.id = asked.id
  UNION ALL SELECT d.id FROM asked JOIN decision AS d ON d.id = asked.id""",
    is_counted=True,
)
UPDATED = Part(
    "updated",
    """id uuid, answered_at timestamptz, expires_at timestamptz, granted_s int4, final bool, held_micros int8,
    trunk text, owners bytea, stood timestamptz""",
    """UPDATE hold SET answered_at = n.answered_at, expires_at = n.expires_at, granted_s = n.granted_s,
    final = n.final, held_micros = n.held_micros, trunk = n.trunk,
    owners = n.owners
  FROM {rows} AS n WHERE hold.id = n.id AND hold.expires_at = n.stood RETURNING hold.id""",
    is_counted=True,
)
ENDS = Part(
    "ends",
    """id uuid, account_id uuid, answered_at timestamptz, ended_at timestamptz, duration_s int4, billed_s int4,
    price int8, currency text, trunk text, reason text, sip_status int4, cost int8,
    carrier uuid, hit text, stood timestamptz""",
    "SELECT * FROM {rows} AS n WHERE n.id IS NOT NULL",
)
GONE = Part(
    "gone", "", "DELETE FROM hold USING ends WHERE hold.id = ends.id AND hold.expires_at = ends.stood RETURNING hold.*"
)
ENTRIES = Part(
    "entries",
    "",
    """INSERT INTO ledger_entry (id, account_id, kind, reference, amount_micros)
  SELECT id, account_id, 'call', id::text, -price FROM ends WHERE price > 0""",
)
# The record takes over from the hold what doesn't change, without its coming here first.
RECORDS = Part(
    "records",
    "",
    """INSERT INTO cdr (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, started_at,
    answered_at, ended_at, duration_s, billed_s, price_micros, currency, prefix, trunk, reason, sip_status,
    policy_revision, trace_id, cost_micros, carrier_account_id, limits_hit, decision)
  SELECT g.id, g.account_id, g.call_id, g.destination, g.dialled, g.caller_number, g.source_address, g.edge,
    g.created_at, s.answered_at, s.ended_at, s.duration_s, s.billed_s, s.price, s.currency, g.prefix, s.trunk, s.reason,
    s.sip_status, g.policy_revision, g.trace_id, s.cost, s.carrier, s.hit, g.decision
  FROM ends AS s JOIN gone AS g ON g.id = s.id RETURNING id""",
    is_counted=True,
)
DAYS = Part(
    "days",
    "account_id uuid, day date, spent int8",
    """INSERT INTO spend_day (account_id, day, spent_micros) SELECT * FROM {rows} AS n WHERE n.account_id IS NOT NULL
  ON CONFLICT (account_id, day) DO UPDATE SET spent_micros = spend_day.spent_micros + excluded.spent_micros""",
)
NOTES = Part(
    "notes",
    "id uuid, call_id text, account_id uuid, at timestamptz, outcome text, body bytea",
    """INSERT INTO decision (id, call_id, account_id, at, outcome, body) SELECT * FROM {rows} AS n
  WHERE n.id IS NOT NULL ON CONFLICT (id) DO NOTHING""",
)

# So many rows are written out as VALUES, the rest of a size filled up with NULLs; more go as arrays. 22 arrays of one
# element cost 30 µs here and 150 in PostgreSQL, 22 values 5 and 20; prepared are four sizes instead of every number.
SIZES: Final = (1, 2, 4, 8)


def size_of(rows: int) -> int:
    """The size that holds so many rows; 0: arrays."""
    return next((size for size in SIZES if rows <= size), 0)


@lru_cache(256)  # A dozen combinations of parts in five sizes.
def statement(size: int, *names: str) -> str:
    """The named parts as one statement, made of this module's texts and nothing else (hence the noqa below).

    Its arguments are the parts' rows (of size 0: columns) in order, then how many rows each counted part must change.
    One that changes fewer fails, by dividing by zero: the portable way to say "all or nothing".
    """
    number = 0
    expressions, conditions = [], []
    for name in names:
        part = PARTS[name]
        fields = part.fields
        rows = []
        for _ in range(size or 1):
            array = "" if size else "[]"
            rows.append(", ".join(f"${number + index}::{kind}{array}" for index, (_, kind) in enumerate(fields, 1)))
            number += len(fields)
        source = f"VALUES ({'), ('.join(rows)})" if size else f"SELECT * FROM unnest({rows[0]})"  # noqa: S608
        columns = ", ".join(column for column, _ in fields)
        source = f"(SELECT * FROM ({source}) AS v({columns}))"  # noqa: S608
        expressions.append(f"{name} AS (\n  {part.sql.format(rows=source)}\n)")
    for name in names:
        if PARTS[name].is_counted:
            number += 1
            conditions.append(f"(SELECT count(*) FROM {name}) = ${number}::int8")  # noqa: S608
    condition = " AND ".join(conditions) or "true"
    return f"WITH {', '.join(expressions)}\nSELECT 1 / (CASE WHEN {condition} THEN 1 ELSE 0 END)"


PARTS: Final = {
    part.name: part
    for part in (MOVED, CHECKED, COUNTERS, HOLDS, ASKED, KNOWN, UPDATED, ENDS, GONE, ENTRIES, RECORDS, DAYS, NOTES)
}

# In the words of ix_hold_expires_at. Which come first doesn't matter: they are asked for until there are no more.
_EXPIRED: Final = """
SELECT id, account_id FROM hold
WHERE substr(CAST(id AS TEXT), 1, 1) = ANY($3::text[]) AND expires_at <= $1 LIMIT $2
"""
_DIGITS: Final = tuple("0123456789abcdef")
_TYPES: Final = {kind.value: kind for kind in AccountType}
# What a write meets when somebody has come between: a version that has moved; money that is gone (a CHECK); a hold that
# is there already. Reading again tells. So it does of a write that may have been committed: every command finds what it
# has done before (a hold, a record, a note by its id; what is granted already), and does it once.
_CameBetween: TypeAlias = Exception
_CAME_BETWEEN: Final = (
    asyncpg.DivisionByZeroError,
    asyncpg.CheckViolationError,
    asyncpg.UniqueViolationError,
    OutcomeUnknown,
)


class SqlBooks:
    """Implements ports.Books."""

    def __init__(self, pool: HotPool, metrics: Metrics | None = None, rng: Callable[[], float] = random.random) -> None:
        self._pool = pool
        self._rng = rng
        self._conflicts = (metrics or Metrics()).counter(CONFLICTS)
        self._memory = Memory()
        self.contended = Contended()
        self.remembered = 0
        """Batches that needed no read."""

    async def update(self, read: Read, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                return await self._update(read, work)
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error

    async def _update(self, read: Read, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        # What else the batch has asked for: read with it from then on.
        wanted: set[CounterKey] = set()
        loaded = self._memory.take(read)
        is_read = loaded is None
        failures = 0
        between: _CameBetween | None = None
        lost: dict[UUID, int] = {}
        for _ in range(ROUNDS_MAX):
            if loaded is None:
                loaded = await self._load(read, wanted)
                self.contended.compare(lost, loaded, read.now_s)
                is_read = True
            attempt, loaded = loaded, None
            changes, result = work(attempt)
            is_known = not is_read
            if changes.missing and not changes.begun:
                # Younger than the rest, or older: on neither anybody is refused.
                is_known = True
                await self._add(attempt, changes.missing, read.now_s, from_memory=not failures)
                wanted |= changes.missing
                changes, result = work(attempt)
            if changes.missing:
                wanted |= changes.missing
                continue
            if is_known and not is_checked(read, changes):
                continue
            between = await self._write(read, attempt, changes, is_read=is_read)
            if between is None:
                self.remembered += is_known and not is_read
                return result
            self._memory.forget(wanted)
            lost = _lost(changes)
            if not is_known:
                failures += 1
                if failures == ATTEMPTS_MAX:
                    break
                # Full jitter: those who collided must not meet again.
                await asyncio.sleep(min(PAUSE_FIRST_S * 2 ** (failures - 1), PAUSE_MAX_S) * self._rng())
        if between is None or isinstance(between, asyncpg.DivisionByZeroError):
            raise Conflict("others have come between too often") from between
        # A CHECK that nobody's coming between explains: our own mistake, found by the database. Or OutcomeUnknown.
        raise between

    async def look(self, read: Read, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                wanted: set[CounterKey] = set()
                for _ in range(ROUNDS_MAX):
                    changes, result = work(await self._load(read, wanted))
                    if not changes.missing:
                        return result
                    wanted |= changes.missing
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error
        raise Conflict("what is looked at changes too often")

    async def _load(self, read: Read, wanted: Collection[CounterKey]) -> Loaded:
        async def both(connection: Any) -> Loaded:
            # Before the holds: who is refused for what a counter says has no hold that was placed in between.
            counters = await _load_counters(connection, wanted) if wanted else {}
            loaded = await _load(connection, read)
            loaded.counters = counters
            return loaded

        return await self._pool.run("admission-read", both)

    async def _add(self, loaded: Loaded, missing: set[CounterKey], now_s: float, *, from_memory: bool) -> None:
        """Adds counters to what was read, from memory where they are known."""
        known = self._memory.counters(missing, now_s) if from_memory else {}
        rest = missing - known.keys()
        if rest:
            read = await self._pool.run("admission-counters", lambda connection: _load_counters(connection, rest))
            loaded.counters.update(read)
        loaded.counters.update(known)

    async def _write(self, read: Read, loaded: Loaded, changes: Changes, *, is_read: bool) -> _CameBetween | None:
        """None when it was written; else what says that somebody has come between since `loaded` was true."""
        try:
            await self._pool.run("admission-write", lambda connection: _write(connection, changes, is_read=is_read))
        except _CAME_BETWEEN as error:
            self._conflicts.value += 1
            between: _CameBetween = error
            return between
        self._memory.keep(read, loaded, changes, is_whole=not is_read or bool(read.counted))
        return None

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        async def attempt(connection: Any) -> list[Expired]:
            rows = await connection.fetch(_EXPIRED, _time(now_s), limit, _DIGITS)
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
    arguments: tuple[Any, ...] = (read.accounts, read.holds, read.looked)
    if read.counted:
        rows = await connection.fetch(_READ_COUNTED, *arguments, _time(read.now_s), read.counted)
    else:
        rows = await connection.fetch(_READ_UNCOUNTED, *arguments)
    for row in rows:
        kind = row[0]
        if kind == 0:
            account, version, usage = _account(row)
            standing = loaded.standings[account.id] = Standing.of(account, version, row[-2] or 0, usage_from(usage))
            if row[-1] is not None:
                standing.lines_until_s = row[-1].timestamp()
        elif kind == 1:
            account, version, _ = _account(row)
            loaded.seen[account.id] = Seen(account, version)
        else:
            _add_hold(loaded, row)
    return loaded


async def _load_counters(connection: Any, wanted: Collection[CounterKey]) -> dict[CounterKey, Counter]:
    keys = sorted(wanted)
    rows = await connection.fetch(_READ_COUNTERS, [scope for scope, _ in keys], [shard for _, shard in keys])
    found = {
        (scope, shard): Counter(version, usage_from(usage), grants_from(grants))
        for scope, shard, version, usage, grants in rows
    }
    return {key: found.get(key) or Counter(0, Usage()) for key in keys}


def _account(row: Any) -> tuple[Account, int, bytes]:
    # By position: 31 look-ups by name take 5 µs.
    (
        _, id_, realm, name, type_, status, currency, time_zone, prepaid, deck, balance, held, overdraft, max_lines,
        daily, lists, parent, shards, off_peak, per_second, monthly, increment, ceiling, talk_day, talk_month, country,
        email, phone, email_verified, phone_verified, version, usage, *_,
    ) = row  # fmt: skip
    account = Account(
        id_, realm, name, _TYPES[type_], status == "active", currency, time_zone, prepaid, deck, balance, held,
        overdraft, max_lines, daily, tuple(lists.split(",")) if lists else (), parent, shards, off_peak, per_second,
        monthly, increment, ceiling, talk_day, talk_month, country, email, phone, email_verified, phone_verified,
    )  # fmt: skip
    return account, version, usage


def _add_hold(loaded: Loaded, row: Any) -> None:
    (
        id_, account_id, created_at, answered_at, expires_at, granted_s, max_duration_s, final, held_micros, spend_day,
        price, trunk, owners, cost, settled, body, _, _,
    ) = row[_ACCOUNT_FIELDS + 1 :]  # fmt: skip
    if account_id is not None:
        counted_in, marks, limits_hit = owners_from(owners)
        loaded.holds[id_] = Hold(
            id_, account_id, created_at.timestamp(), None if answered_at is None else answered_at.timestamp(),
            expires_at.timestamp(), granted_s, max_duration_s, final, held_micros, spend_day, price_from(price), trunk,
            marks, counted_in, costs_from(cost), limits_hit,
        )  # fmt: skip
    if settled:
        loaded.settled.add(id_)
    if body is not None:
        decision = admission_pb2.Decision.FromString(body)
        if decision.outcome == "refuse":
            loaded.refused[id_] = refuse_from(decision.refused)


def is_checked(read: Read, changes: Changes) -> bool:
    """Whether writing the changes shows that all they stand on was true: no account is told no, and each is moved or
    looked at again."""
    return not changes.doubtful and {*changes.versions, *changes.checked}.issuperset(read.accounts)


def _lost(changes: Changes) -> dict[UUID, int]:
    """The versions with which a write has failed: of accounts, and of their shards together."""
    lost = dict(changes.versions)
    for (scope, _), counter in changes.counters.items():
        if scope in changes.own:
            lost[scope] = lost.get(scope, 0) + counter.version
    return lost


_Row = tuple[Any, ...]


@dataclass(slots=True)
class _Write:
    """One statement to be: the names of its parts, the rows of those that have some, and the rows that each counted
    part must change."""

    names: list[str]
    rows: list[tuple[str, list[_Row]]]
    counts: list[int]

    def first(self, name: str, rows: list[_Row]) -> None:
        """A part before the others, each of whose rows must be counted."""
        self.names.insert(0, name)
        self.rows.insert(0, (name, rows))
        self.counts.insert(0, len(rows))

    async def run(self, connection: Any) -> None:
        size = size_of(max(len(rows) for _, rows in self.rows))
        arguments: list[Any] = []
        for name, rows in self.rows:
            width = _WIDTHS[name]
            if size:
                for row in rows:
                    arguments += row
                arguments += [None] * (width * (size - len(rows)))
            else:
                arguments += map(list, zip(*rows, strict=True)) if rows else [[] for _ in range(width)]
        await connection.fetchval(statement(size, *self.names), *arguments, *self.counts)


_WIDTHS: Final = {name: len(part.fields) for name, part in PARTS.items()}


async def _write(connection: Any, changes: Changes, *, is_read: bool) -> None:
    writes = _writes_of(changes, is_read=is_read)
    if len(writes) == 1:
        await writes[0].run(connection)
    elif writes:
        async with connection.transaction():
            for write in writes:
                await write.run(connection)


def _writes_of(changes: Changes, *, is_read: bool) -> list[_Write]:
    """One for each kind of change; money and notes go with the first. `is_read`: the ids of new holds were looked for
    just now; else the write looks for them itself."""
    writes: list[_Write] = []
    if changes.holds:
        writes.append(_Write(["holds"], [("holds", [_hold_row(new) for new in changes.holds.values()])], []))
        if not is_read:
            writes[0].names += ["asked", "known"]
            writes[0].rows.append(("asked", [(hold_id,) for hold_id in changes.holds]))
            writes[0].counts.append(0)
    if changes.updated:
        rows = [_update_row(hold, changes.stood[hold.id]) for hold in changes.updated.values()]
        writes.append(_Write(["updated"], [("updated", rows)], [len(rows)]))
    if changes.settled:
        rows = [_end_row(settlement, changes.stood[settlement.hold_id]) for settlement in changes.settled]
        days = [(account, day, changes.spent[account, day]) for account, day in sorted(changes.spent)]
        names = ["ends", "gone", "entries", "records", "days"]
        writes.append(_Write(names, [("ends", rows), ("days", days)], [len(rows)]))
    if not writes and (changes.notes or changes.versions or changes.counters):
        writes.append(_Write([], [], []))
    if changes.counters:
        writes[0].first("counters", _counter_rows(changes))
    if changes.checked:
        rows = [
            (account, changes.checked[account]) for account in sorted(changes.checked.keys() - changes.versions.keys())
        ]
        if rows:
            writes[0].first("checked", rows)
    if changes.versions:
        # In the order of keys, in which everybody locks them.
        moved = [
            (
                account, changes.versions[account], changes.balances.get(account, 0), changes.held.get(account, 0),
                usage_bytes(changes.usages[account]),
            )
            for account in sorted(changes.versions)
        ]  # fmt: skip
        writes[0].first("moved", moved)
    if changes.notes:
        writes[0].names.append("notes")
        writes[0].rows.append(("notes", [_note_row(note) for note in changes.notes]))
    return writes


def _counter_rows(changes: Changes) -> list[_Row]:
    rows: list[_Row] = []
    for key in sorted(changes.counters):
        scope, shard = key
        counter = changes.counters[key]
        usage = counter.usage
        # Money of accounts' own shards, which the books are audited by; of others' calls it is counted there, too.
        held, spent = (usage.held_micros, usage.spent_micros) if scope in changes.own else (0, 0)
        rows.append((scope, shard, counter.version, held, spent, usage_bytes(usage), grants_bytes(counter.grants)))
    return rows


def _hold_row(new: NewHold) -> _Row:
    hold, request = new.hold, new.request
    return (
        hold.id, hold.account_id, request.call_id, request.destination, request.dialled, request.caller_number,
        request.source_address, request.edge, _time(hold.created_at_s), _time_or_none(hold.answered_at_s),
        _time(hold.expires_at_s), hold.granted_s, hold.max_duration_s, hold.final, hold.held_micros, hold.spend_day,
        price_bytes(hold.price), new.prefix, hold.trunk, new.decision.policy_revision, request.trace_id,
        owners_bytes(hold), costs_bytes(hold.costs), decision_bytes(new.decision),
    )  # fmt: skip


def _update_row(hold: Hold, stood_s: float) -> _Row:
    return (
        hold.id, _time_or_none(hold.answered_at_s), _time(hold.expires_at_s), hold.granted_s, hold.final,
        hold.held_micros, hold.trunk, owners_bytes(hold), _time(stood_s),
    )  # fmt: skip


def _end_row(settlement: Settlement, stood_s: float) -> _Row:
    s = settlement
    return (
        s.hold_id, s.account_id, _time_or_none(s.answered_at_s), _time(s.ended_at_s), s.duration_s, s.billed_s,
        s.price_micros, s.currency, s.trunk, s.reason, s.sip_status, s.cost_micros, s.carrier_account_id,
        ",".join(s.limits_hit), _time(stood_s),
    )  # fmt: skip


def _note_row(note: Note) -> _Row:
    body = note.body if note.decision is None else decision_bytes(note.decision)
    return (note.id, note.call_id, note.account_id, _time(note.at_s), note.outcome, body)


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _time_or_none(at_s: float | None) -> datetime | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC)
