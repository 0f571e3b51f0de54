"""The SQL of admission's hot path: one statement to read a batch, one to write it, put together of clauses.

Each statement writes many rows. CockroachDB lets no statement change one table twice, so new, changed and ended holds
take three; the app makes batches of one kind, and a mixed one is written in an explicit transaction.

Out: rows and their values (rows), running them (store_sql).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from callwarden.kernel.account import SHARED_FIELDS

# What an operator sets, in the order in which an Account takes it, and what the account has.
SHARED_COLUMNS: Final = tuple(field.column for field in SHARED_FIELDS)
_ACCOUNT_COLUMNS: Final = ", ".join(
    (*SHARED_COLUMNS, "id", "parent", "balance_micros", "held_micros", "overdraft_micros", "version", "usage")
)


_HOLD_NULLS: Final = """NULL::uuid AS hold_id, NULL::uuid AS account_id, NULL::timestamptz AS created_at,
       NULL::timestamptz AS answered_at, NULL::timestamptz AS expires_at, NULL::int4 AS granted_s,
       NULL::int4 AS max_duration_s, NULL::bool AS final, NULL::int8 AS hold_micros, NULL::date AS spend_day,
       NULL::bytea AS price, NULL::text AS trunk, NULL::bytea AS owners, NULL::bytea AS cost, NULL::int4 AS stage,
       NULL::text AS edge, NULL::int8 AS booked, NULL::bytea AS body"""


# Where an account is sharded its lines are counted in its shards.
_COUNTED: Final = """d.lines, d.until FROM a LEFT JOIN (
  SELECT h.account_id, count(*) AS lines, min(h.expires_at) AS until
  FROM (SELECT id FROM a WHERE shards <= 1 AND id = ANY($5::uuid[])) AS w JOIN hold AS h ON h.account_id = w.id
  WHERE h.expires_at > $4 AND h.stage = 0 GROUP BY h.account_id
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
       h.max_duration_s, h.final, h.held_micros, h.spend_day, h.price, h.trunk, h.owners, h.cost, h.stage, h.edge,
       c.price_micros, n.body, NULL, NULL
FROM unnest($2::uuid[]) AS w(id)
LEFT JOIN hold AS h ON h.id = w.id
LEFT JOIN cdr AS c ON c.id = w.id
LEFT JOIN decision AS n ON n.id = w.id
WHERE h.id IS NOT NULL OR c.id IS NOT NULL OR n.id IS NOT NULL
"""


ACCOUNT_FIELDS: Final = len(_ACCOUNT_COLUMNS.split(","))


def _read_statement(accounts: str) -> str:
    account_nulls = ", ".join(["NULL"] * ACCOUNT_FIELDS)
    return _READ.format(
        columns=_ACCOUNT_COLUMNS, hold_nulls=_HOLD_NULLS, account_nulls=account_nulls, accounts=accounts
    )


READ_COUNTED: Final = _read_statement(_COUNTED)


READ_UNCOUNTED: Final = _read_statement(_UNCOUNTED)


READ_COUNTERS: Final = """
SELECT c.scope, c.shard, c.version, c.usage, c.transfers
FROM unnest($1::uuid[], $2::int8[]) AS w(scope, shard) JOIN counter AS c ON c.scope = w.scope AND c.shard = w.shard
"""


@dataclass(frozen=True, slots=True)
class CteClause:
    """One change of a statement, as a common table expression over rows. `{rows}` stands for them, named as `columns`
    (name and type) says; a clause without columns has no rows of its own and reads another clause's."""

    name: str
    columns: str
    sql: str
    is_counted: bool = False
    """It must change (or find) as many rows as the write says."""

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Name and type of each column."""
        return [(field.split()[0], field.split()[1]) for field in self.columns.split(",") if field]


MOVED = CteClause(
    "moved",
    "id uuid, version int8, gained int8, held int8, usage bytea",
    """UPDATE account SET balance_micros = account.balance_micros + m.gained,
    held_micros = account.held_micros + m.held, version = account.version + 1, usage = m.usage
  FROM {rows} AS m WHERE account.id = m.id AND account.version = m.version RETURNING account.id""",
    is_counted=True,
)


# Accounts that don't change, but that the changes of others depend on.
CHECKED = CteClause(
    "checked",
    "id uuid, version int8",
    "SELECT account.id FROM {rows} AS k JOIN account ON account.id = k.id AND account.version = k.version",
    is_counted=True,
)


# A row that isn't there has version 0. One that is there with another version than was read stays, and isn't counted.
COUNTERS = CteClause(
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


HOLDS = CteClause(
    "holds",
    _HOLD_COLUMNS,
    """INSERT INTO hold (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, created_at,
    answered_at, expires_at, granted_s, max_duration_s, final, held_micros, spend_day, price, prefix, trunk,
    policy_revision, trace_id, owners, cost, decision) SELECT * FROM {rows} AS n WHERE n.id IS NOT NULL""",
)


# Of calls that were over before their holds were placed: only the ids matter, each of which is in the table once. In
# stage 3 (HoldStage.CLOSED).
CLOSED = CteClause(
    "closed",
    "id uuid, account_id uuid, at timestamptz, spend_day date, price bytea",
    """INSERT INTO hold (id, account_id, call_id, destination, dialled, caller_number, source_address, edge, created_at,
    expires_at, stage, granted_s, max_duration_s, final, held_micros, spend_day, price, prefix, trunk, policy_revision,
    trace_id, decision)
  SELECT n.id, n.account_id, '', '', '', '', '', '', n.at, n.at, 3, 0, 0, true, 0, n.spend_day, n.price, '', '', 0, '',
    ''::bytea FROM {rows} AS n WHERE n.id IS NOT NULL""",
)


# An id that has a record or a refusal already must not become a hold again.
ASKED = CteClause("asked", "id uuid", "SELECT * FROM {rows} AS n WHERE n.id IS NOT NULL")


KNOWN = CteClause(
    "known",
    "",
    """SELECT c.id FROM asked JOIN cdr AS c ON c.id = asked.id
  UNION ALL SELECT d.id FROM asked JOIN decision AS d ON d.id = asked.id""",
    is_counted=True,
)


UPDATED = CteClause(
    "updated",
    """id uuid, answered_at timestamptz, expires_at timestamptz, granted_s int4, final bool, held_micros int8,
    trunk text, owners bytea, stage int4, expiry timestamptz""",
    """UPDATE hold SET answered_at = n.answered_at, expires_at = n.expires_at, granted_s = n.granted_s,
    final = n.final, held_micros = n.held_micros, trunk = n.trunk,
    owners = n.owners, stage = n.stage
  FROM {rows} AS n WHERE hold.id = n.id AND hold.expires_at = n.expiry AND hold.stage <= n.stage RETURNING hold.id""",
    is_counted=True,
)


ENDS = CteClause(
    "ends",
    """id uuid, account_id uuid, answered_at timestamptz, ended_at timestamptz, duration_s int4, billed_s int4,
    price int8, currency text, trunk text, reason text, sip_status int4, cost int8,
    carrier uuid, hit text, granted int4, held int8, uncharged int8, expiry timestamptz""",
    "SELECT * FROM {rows} AS n WHERE n.id IS NOT NULL",
)


GONE = CteClause(
    "gone", "", "DELETE FROM hold USING ends WHERE hold.id = ends.id AND hold.expires_at = ends.expiry RETURNING hold.*"
)


ENTRIES = CteClause(
    "entries",
    "",
    """INSERT INTO ledger_entry (id, account_id, kind, reference, amount_micros)
  SELECT id, account_id, 'call', id::text, -price FROM ends WHERE price > 0""",
)


# The record takes over from the hold what doesn't change, without its coming here first.
_RECORD: Final = """INSERT INTO cdr (id, account_id, call_id, destination, dialled, caller_number, source_address, edge,
    started_at, answered_at, ended_at, duration_s, billed_s, price_micros, currency, prefix, trunk, reason, sip_status,
    policy_revision, trace_id, cost_micros, carrier_account_id, limits_hit, decision, price, granted_s, held_micros,
    uncharged_micros)
  SELECT g.id, g.account_id, g.call_id, g.destination, g.dialled, g.caller_number, g.source_address, g.edge,
    g.created_at, s.answered_at, s.ended_at, s.duration_s, s.billed_s, s.price, s.currency, g.prefix, s.trunk, s.reason,
    s.sip_status, g.policy_revision, g.trace_id, s.cost, s.carrier, s.hit, g.decision, g.price, s.granted,
    s.held, s.uncharged
  FROM ends AS s JOIN {} AS g ON g.id = s.id RETURNING id"""


RECORDS = CteClause("records", "", _RECORD.format("gone"), is_counted=True)


# Of calls whose end is unknown: their holds stay.
RECORDS_OF_KEPT = CteClause("kept_records", "", _RECORD.format("hold"), is_counted=True)


LATE = CteClause(
    "late",
    f"{ENDS.columns}, more int8, entry uuid",
    "SELECT * FROM {rows} AS n WHERE n.id IS NOT NULL",
)


LATE_GONE = CteClause(
    "late_gone",
    "",
    """DELETE FROM hold USING late WHERE hold.id = late.id AND hold.expires_at = late.expiry AND hold.stage = 2
  RETURNING hold.id""",
)


LATE_ENTRIES = CteClause(
    "late_entries",
    "",
    """INSERT INTO ledger_entry (id, account_id, kind, reference, amount_micros, note)
  SELECT entry, account_id, 'correction', id::text, -more, 'its end came late' FROM late WHERE more <> 0""",
)


# What was charged first stays in the record, as after any correction; the ledger has the rest.
LATE_RECORDS = CteClause(
    "late_records",
    "",
    """UPDATE cdr SET answered_at = s.answered_at, ended_at = s.ended_at, duration_s = s.duration_s,
    billed_s = s.billed_s, trunk = s.trunk, reason = s.reason, sip_status = s.sip_status, cost_micros = s.cost,
    carrier_account_id = s.carrier, uncharged_micros = s.uncharged
  FROM late AS s JOIN late_gone AS g ON g.id = s.id WHERE cdr.id = s.id RETURNING cdr.id""",
    is_counted=True,
)


DAYS = CteClause(
    "days",
    "account_id uuid, day date, spent int8",
    """INSERT INTO spend_day (account_id, day, spent_micros) SELECT * FROM {rows} AS n WHERE n.account_id IS NOT NULL
  ON CONFLICT (account_id, day) DO UPDATE SET spent_micros = spend_day.spent_micros + excluded.spent_micros""",
)


# Not below nothing: retention may have taken the day.
LOWERED_DAYS = CteClause(
    "lowered_days",
    "account_id uuid, day date, spent int8",
    """UPDATE spend_day SET spent_micros = greatest(spend_day.spent_micros + n.spent, 0) FROM {rows} AS n
  WHERE spend_day.account_id = n.account_id AND spend_day.day = n.day""",
)


DECISIONS = CteClause(
    "decisions",
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


@lru_cache(256)  # A dozen combinations of clauses in five sizes.
def statement(size: int, *names: str) -> str:
    """The named clauses as one statement, made of this module's texts and nothing else (hence the noqa below).

    Its arguments are the clauses' rows (of size 0: columns) in order, then how many rows each counted clause must
    change. One that changes fewer fails, by dividing by zero: the portable way to say "all or nothing".
    """
    number = 0
    expressions, conditions = [], []
    for name in names:
        clause = CLAUSES[name]
        fields = clause.fields
        rows = []
        for _ in range(size or 1):
            array = "" if size else "[]"
            rows.append(", ".join(f"${number + index}::{kind}{array}" for index, (_, kind) in enumerate(fields, 1)))
            number += len(fields)
        source = f"VALUES ({'), ('.join(rows)})" if size else f"SELECT * FROM unnest({rows[0]})"  # noqa: S608
        columns = ", ".join(column for column, _ in fields)
        source = f"(SELECT * FROM ({source}) AS v({columns}))"  # noqa: S608
        expressions.append(f"{name} AS (\n  {clause.sql.format(rows=source)}\n)")
    for name in names:
        if CLAUSES[name].is_counted:
            number += 1
            conditions.append(f"(SELECT count(*) FROM {name}) = ${number}::int8")  # noqa: S608
    condition = " AND ".join(conditions) or "true"
    return f"WITH {', '.join(expressions)}\nSELECT 1 / (CASE WHEN {condition} THEN 1 ELSE 0 END)"


CLAUSES: Final = {
    clause.name: clause
    for clause in (
        MOVED, CHECKED, COUNTERS, HOLDS, CLOSED, ASKED, KNOWN, UPDATED, ENDS, GONE, ENTRIES, RECORDS, RECORDS_OF_KEPT,
        LATE, LATE_GONE, LATE_ENTRIES, LATE_RECORDS, DAYS, LOWERED_DAYS, DECISIONS,
    )
}  # fmt: skip


# In the words of ix_hold_expires_at. Which come first doesn't matter: they are asked for until there are no more.
READ_EXPIRED: Final = """
SELECT id, account_id FROM hold
WHERE substr(CAST(id AS TEXT), 1, 1) = ANY($3::text[]) AND expires_at <= $1 AND stage = $4 LIMIT $2
"""


FORGET_RECORDED: Final = """
DELETE FROM hold WHERE substr(CAST(id AS TEXT), 1, 1) = ANY($2::text[]) AND expires_at <= $1 AND stage >= 2
"""
