"""What CockroachDB lacks of PostgreSQL's SQL, or does otherwise, as a table; and statements held against it.

In: one row for each difference, with why and where CockroachDB's documentation says so, and a statement that shows it.
Out: which statements our services run (recorded_sql), and the tests. What both have needs no row: FILTER, ORDER BY in
array_agg, UPDATE … FROM, DELETE … USING, unnest of several arrays, ARRAY(SELECT …), ON CONFLICT … WHERE, RETURNING in
common table expressions, comparisons of rows, FOR UPDATE OF.
"""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import sqlglot
from sqlglot import exp

from callwarden.schema.tables import metadata
from tests.architecture import sql_types

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # What it doesn't know we refuse; it needn't say so, too.

DOCS: Final = "https://www.cockroachlabs.com/docs/stable/"

Modification = exp.Insert | exp.Update | exp.Delete


@dataclass(frozen=True)
class Statement:
    """A statement as text without literals and comments, in capitals, and as a tree."""

    words: str
    tree: exp.Expr

    @classmethod
    def parse(cls, text: str) -> "Statement":
        """Raises sqlglot.errors.SqlglotError for what isn't one statement of PostgreSQL."""
        tree = sqlglot.parse_one(text, read="postgres")
        bare = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", "''", text, flags=re.DOTALL)
        return cls(bare.upper(), tree)


@dataclass(frozen=True)
class Lack:
    """One difference. `found` says whether a statement has it; `example` has it."""

    name: str
    why: str
    page: str
    found: Callable[[Statement], bool]
    example: str

    @property
    def reference(self) -> str:
        return DOCS + self.page


def words(pattern: str) -> Callable[[Statement], bool]:
    compiled = re.compile(rf"\b(?:{pattern})\b" if pattern[-1] not in "(]" else pattern)
    return lambda statement: compiled.search(statement.words) is not None


def rights_for(text: str) -> set[tuple[str, str]]:
    """(table, right) that who runs the statement must have."""
    tree = Statement.parse(text).tree
    parts = {part.alias for part in tree.find_all(exp.CTE)}
    targets: dict[int, str] = {}
    found: set[tuple[str, str]] = set()
    for node in tree.find_all(exp.Insert, exp.Update, exp.Delete):
        target = node.this.find(exp.Table)
        targets[id(target)] = target.name
        found.add((target.name, node.key.upper()))
        conflict = node.args.get("conflict")
        if conflict is not None and conflict.expressions:
            found.add((target.name, "UPDATE"))
        if not isinstance(node, exp.Insert) or node.args.get("returning") or conflict is not None:
            found.add((target.name, "SELECT"))
    for table in tree.find_all(exp.Table):
        if id(table) in targets or table.db or (table.name in parts and table.name not in metadata.tables):
            continue
        found.add((table.name, "SELECT"))
    for select in tree.find_all(exp.Select):
        for lock in select.args.get("locks") or ():
            named = {one.name for one in lock.expressions}
            for table in select.find_all(exp.Table):
                if not named or table.alias_or_name in named:
                    found.add((table.name, "UPDATE"))
    return {(table, right) for table, right in found if table in metadata.tables}


# ------------------------------------------------------------------ what only the tree tells


def _modified(statement: Statement) -> list[tuple[str, Modification]]:
    """Each part of the statement that changes a table, with the table's name."""
    found = []
    for node in statement.tree.find_all(exp.Insert, exp.Update, exp.Delete):
        assert isinstance(node, Modification)
        table = node.this.find(exp.Table)
        found.append((str(table.name), node))
    return found


def _changes_a_table_twice(statement: Statement) -> bool:
    by_table: dict[str, list[Modification]] = {}
    for table, node in _modified(statement):
        by_table.setdefault(table, []).append(node)
    return any(
        len(nodes) > 1 and not all(isinstance(node, exp.Insert) and not node.args.get("conflict") for node in nodes)
        for nodes in by_table.values()
    )


# Common table expressions that read a table which another part of their statement changes, and want what was there
# before: that an account's version hasn't moved (other accounts than those that move), that no record of this id was
# there (the one that is being written has another id).
# Roles and rights in the words that both have (CREATE ROLE, GRANT, REVOKE in CockroachDB's reference): the parser has
# none of its own for them.
ROLES: Final = re.compile(
    r"(CREATE|ALTER) ROLE '' WITH LOGIN PASSWORD ''|(GRANT [A-Z, ]+|REVOKE ALL) ON TABLE ''(, '')* (TO|FROM) ''"
)
BEFORE: Final = frozenset({("checked", "account"), ("known", "decision"), ("known", "cdr")})


def _reads_what_it_changes(statement: Statement) -> bool:
    changed = _modified(statement)
    names = {table for table, _ in changed}
    inside = {id(each) for _, node in changed for each in node.find_all(exp.Table)}
    for table in statement.tree.find_all(exp.Table):
        if table.name in names and id(table) not in inside:
            reader = table.find_ancestor(exp.CTE)
            if ((reader.alias if reader is not None else ""), table.name) not in BEFORE:
                return True
    return False


def _targets_an_expression(statement: Statement) -> bool:
    for conflict in statement.tree.find_all(exp.OnConflict):
        for key in conflict.args.get("conflict_keys") or ():
            if key.find(exp.Func, exp.Binary) is not None:
                return True
    return False


def _divides(statement: Statement) -> bool:
    """But for 1 / CASE …, which nobody reads: it fails a write of which a part didn't meet what it had to."""
    return any(
        not (division.this.name == "1" and isinstance(division.expression.unnest(), exp.Case))
        for division in statement.tree.find_all(exp.Div)
    )


_ROWS_OUT: Final = re.compile(
    r"^(unnest|generate_series|generate_subscripts|jsonb?_\w+|regexp_split_to_table|explode)$"
)


def _makes_rows_in_the_select_list(statement: Statement) -> bool:
    for select in statement.tree.find_all(exp.Select):
        for column in select.expressions:
            for call in column.find_all(exp.Func):
                if (
                    isinstance(call.find_ancestor(exp.Select), exp.Select)
                    and call.find_ancestor(exp.Select) is not select
                ):
                    continue  # of a subquery
                name = call.name if isinstance(call, exp.Anonymous) else call.sql_name()
                if _ROWS_OUT.match(name.lower()) or isinstance(call, exp.Unnest | exp.Explode | exp.GenerateSeries):
                    return True
    return False


@lru_cache(1)
def _nullable() -> frozenset[tuple[str, str]]:
    """Table and column, in our schema."""
    return frozenset(
        (table.name, column.name) for table in metadata.tables.values() for column in table.columns if column.nullable
    )


def _sorts_nulls(statement: Statement) -> bool:
    tables = {table.name for table in statement.tree.find_all(exp.Table)}
    for ordered in statement.tree.find_all(exp.Ordered):
        if not isinstance(ordered.parent, exp.Order):
            continue  # The parser takes columns of an index, or an ON CONFLICT's, for ordered, too.
        column = ordered.this.unnest()
        is_nullable = isinstance(column, exp.Column) and any((table, column.name) in _nullable() for table in tables)
        if is_nullable and "NULLS" not in statement.words:
            return True
    return False


def _slices_an_array(statement: Statement) -> bool:
    return statement.tree.find(exp.Slice) is not None


def _names_a_system_column(statement: Statement) -> bool:
    hidden = {"xmin", "xmax", "cmin", "cmax", "ctid", "tableoid", "oid"}
    return any(column.name.lower() in hidden for column in statement.tree.find_all(exp.Column))


def _is_not_a_query(statement: Statement) -> bool:
    """What the parser takes for some command it doesn't look into; then neither can we."""
    known = exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Alter, exp.Drop
    return not isinstance(statement.tree, known) and not ROLES.fullmatch(statement.words)


def _shifts_or_inverts(statement: Statement) -> bool:
    nodes = exp.BitwiseLeftShift, exp.BitwiseRightShift, exp.BitwiseNot, exp.BitwiseXor, exp.BitwiseAnd, exp.BitwiseOr
    return statement.tree.find(*nodes, exp.Pow) is not None


_RANGES: Final = r"(?:INT4|INT8|NUM|TS|TSTZ|DATE)(?:MULTI)?RANGE"

LACKS: Final = (
    Lack(
        "sequences",
        "a key that grows sends all inserts to one range; SERIAL isn't a sequence there, nor IDENTITY the same",
        "serial.html",
        words("(?:BIG|SMALL)?SERIAL[248]?|SEQUENCE|NEXTVAL|CURRVAL|SETVAL|LASTVAL|IDENTITY"),
        "CREATE TABLE t (id BIGSERIAL PRIMARY KEY)",
    ),
    Lack(
        "advisory locks",
        "the functions exist and do nothing",
        "postgresql-compatibility.html",
        words(r"PG_(?:TRY_)?ADVISORY_\w+"),
        "SELECT pg_advisory_xact_lock($1)",
    ),
    Lack(
        "LISTEN and NOTIFY",
        "not there",
        "postgresql-compatibility.html",
        words("LISTEN|UNLISTEN|NOTIFY|PG_NOTIFY"),
        "LISTEN account_changed",
    ),
    Lack(
        "code in the database",
        "triggers since 24.3 and procedures since 23.2 only, with limitations; DO, events and rules partly or not",
        "known-limitations.html",
        words(r"TRIGGER|FUNCTION|PROCEDURE|RULE|DO\s+(?:LANGUAGE|''|\$)|CALL"),
        "CREATE TRIGGER t BEFORE INSERT ON hold EXECUTE FUNCTION f()",
    ),
    Lack(
        "system columns",
        "xmin, ctid and their like say how PostgreSQL stores rows",
        "postgresql-compatibility.html",
        _names_a_system_column,
        "SELECT id FROM account WHERE xmin = $1",
    ),
    Lack(
        "two changes of one table in a statement",
        "refused (0A000), as rows changed twice were corrupted; only INSERTs without ON CONFLICT may come together",
        "known-limitations.html#statements-containing-multiple-modification-subqueries-of-the-same-table-are-disallowed",
        _changes_a_table_twice,
        "WITH a AS (UPDATE hold SET final = true WHERE id = $1 RETURNING id) DELETE FROM hold WHERE id = $2",
    ),
    Lack(
        "a statement that reads what it changes",
        "in both it sees what was there before: who writes that expects something else, or must say so (BEFORE)",
        "common-table-expressions.html",
        _reads_what_it_changes,
        "WITH a AS (INSERT INTO payment (key) VALUES ($1) RETURNING key) SELECT count(*) FROM payment",
    ),
    Lack("MERGE", "not there", "sql-statements.html", words("MERGE"),
         "MERGE INTO account USING hold ON account.id = hold.account_id WHEN MATCHED THEN DELETE"),
    Lack(
        "locks but FOR UPDATE",
        "shared locks do nothing under SERIALIZABLE by default; SKIP LOCKED and NOWAIT don't see all locks",
        "select-for-update.html",
        words(r"FOR\s+(?:NO\s+KEY\s+UPDATE|SHARE|KEY\s+SHARE)|SKIP\s+LOCKED|NOWAIT|LOCK\s+TABLE"),
        "SELECT id FROM hold WHERE expires_at <= $1 FOR UPDATE SKIP LOCKED",
    ),
    Lack(
        "LATERAL",
        "what the optimizer can't make a plain join of runs row by row, or is refused",
        "subqueries.html#correlated-subqueries",
        words("LATERAL"),
        "SELECT a.id, h.id FROM account a, LATERAL (SELECT id FROM hold WHERE account_id = a.id LIMIT 1) AS h",
    ),
    Lack(
        "ON CONFLICT on an expression",
        "only columns may be its target, and one unique index must match",
        "known-limitations.html#multiple-arbiter-indexes-for-insert-on-conflict-do-update",
        _targets_an_expression,
        "INSERT INTO account (name) VALUES ($1) ON CONFLICT (lower(name)) DO NOTHING",
    ),
    Lack(
        "ON CONFLICT ON CONSTRAINT",
        "a name of PostgreSQL's constraint, which isn't the name of CockroachDB's index everywhere",
        "insert.html#on-conflict-clause",
        words(r"ON\s+CONSTRAINT"),
        "INSERT INTO account (name) VALUES ($1) ON CONFLICT ON CONSTRAINT uq_account DO NOTHING",
    ),
    Lack(
        "kinds of tables",
        "UNLOGGED is ignored; no INHERITS, no table spaces; partitions are declared otherwise",
        "create-table.html",
        words(r"UNLOGGED|INHERITS|TABLESPACE|PARTITION\s+(?:BY\s+(?:RANGE|LIST|HASH)|OF)|FOREIGN\s+TABLE"),
        "CREATE TABLE t (at TIMESTAMPTZ) PARTITION BY RANGE (at)",
    ),
    Lack(
        "exclusion constraints",
        "not there",
        "postgresql-compatibility.html",
        words("EXCLUDE"),
        "ALTER TABLE t ADD CONSTRAINT c EXCLUDE USING gist (a WITH =)",
    ),
    Lack(
        "types",
        "no money, xml, ranges, geometric points, MAC or CIDR addresses; extensions' types partly",
        "data-types.html",
        words(rf"MONEY|XML|{_RANGES}|MACADDR8?|CIDR|HSTORE|CITEXT|POLYGON|CIRCLE|TXID_SNAPSHOT|PG_LSN"),
        "SELECT $1::tstzrange",
    ),
    Lack(
        "char(n)",
        "PostgreSQL pads it with blanks, there it is a name of STRING",
        "string.html",
        words(r"(?:CHAR|CHARACTER)\s*\(\s*\d+|BPCHAR"),
        "SELECT CAST($1 AS char(3))",
    ),
    Lack(
        "floats",
        "a value out of range is infinite there and an error in PostgreSQL; money and counts are integers here",
        "postgresql-compatibility.html#overflow-of-float",
        words(r"FLOAT[48]?|REAL|DOUBLE\s+PRECISION"),
        "SELECT $1::float8 * 2",
    ),
    Lack(
        "deferred constraints",
        "not there: each statement meets all of them",
        "postgresql-compatibility.html",
        words(r"DEFERRABLE|DEFERRED|SET\s+CONSTRAINTS"),
        "ALTER TABLE t ADD CONSTRAINT c UNIQUE (a) DEFERRABLE INITIALLY DEFERRED",
    ),
    Lack(
        "cascades",
        "with several changes in one statement they give other results than in PostgreSQL",
        "known-limitations.html#statements-containing-multiple-modification-subqueries-of-the-same-table-are-disallowed",
        words(r"ON\s+(?:DELETE|UPDATE)\s+(?:CASCADE|SET)"),
        "CREATE TABLE t (a UUID REFERENCES account (id) ON DELETE CASCADE)",
    ),
    Lack(
        "temporary tables",
        "an experiment there, and slow: each is a change of the schema",
        "temporary-tables.html",
        words("TEMP|TEMPORARY"),
        "CREATE TEMPORARY TABLE t (a INT)",
    ),
    Lack("COPY", "not with all options, and not through the transactions that are retried",
         "copy.html", words("COPY"), "COPY account FROM STDIN"),
    Lack(
        "TRUNCATE",
        "a change of the schema, which a transaction doesn't take back like rows; no RESTART IDENTITY",
        "truncate.html",
        words("TRUNCATE"),
        "TRUNCATE hold",
    ),
    Lack(
        "rows out of the select list",
        "several of different lengths are matched otherwise; unnest stands in FROM",
        "functions-and-operators.html#set-returning-functions",
        _makes_rows_in_the_select_list,
        "SELECT unnest($1::uuid[])",
    ),
    Lack("slices of arrays", "not there", "array.html", _slices_an_array, "SELECT ($1::int8[])[1:2]"),
    Lack("arrays of arrays", "not there", "array.html", words(r"\]\s*\[\s*\]"), "SELECT $1::int8[][]"),
    Lack(
        "division",
        "of integers gives DECIMAL there and an integer in PostgreSQL",
        "postgresql-compatibility.html#integer-division",
        _divides,
        "SELECT held_micros / 2 FROM account",
    ),
    Lack(
        "bits",
        "precedence of ~, & and | differs, shifts by more than 63 too; ^ isn't the same everywhere",
        "postgresql-compatibility.html#precedence-of-bitwise-operators",
        _shifts_or_inverts,
        "SELECT shard << 2 FROM counter",
    ),
    Lack(
        "where NULLs are sorted",
        "first there, last in PostgreSQL, unless NULLS FIRST or LAST is said",
        "order-by.html",
        _sorts_nulls,
        "SELECT id FROM hold ORDER BY answered_at",
    ),
    Lack(
        "settings and what the session keeps",
        "planner settings, DISCARD ALL and others aren't known there; the pool never resets a connection",
        "set-vars.html",
        words(r"SET\s+(?:LOCAL|SESSION|TIME\s+ZONE|[A-Z_]+\s*(?:=|TO\b)\s*(?:ON|OFF|\d|'')\s*$)|RESET|DISCARD|SET_CONFIG"
              r"|CURRENT_SETTING"),
        "SET LOCAL enable_seqscan = off",
    ),
    Lack(
        "PostgreSQL's own functions and catalogues",
        "pg_… exist in part, and say other things",
        "pg-catalog.html",
        words(r"PG_\w+|REGCLASS|REGTYPE|REGPROC"),
        "SELECT pg_backend_pid()",
    ),
    Lack(
        "kinds of indexes",
        "no GiST, SP-GiST, BRIN or hash indexes as in PostgreSQL; hash-sharded ones only there",
        "create-index.html",
        words(r"USING\s+(?:GIST|SPGIST|SP_GIST|BRIN|HASH)|CONCURRENTLY"),
        "CREATE INDEX i ON cdr USING brin (started_at)",
    ),
    Lack(
        "extensions, domains, operators",
        "not there but for a few extensions whose functions are built in",
        "create-extension.html",
        words(r"CREATE\s+(?:EXTENSION|DOMAIN|OPERATOR|AGGREGATE|CAST|COLLATION)"),
        "CREATE EXTENSION pgcrypto",
    ),
    Lack(
        "ROLLUP, CUBE, GROUPING SETS",
        "not there",
        "select-clause.html",
        words(r"ROLLUP|CUBE|GROUPING\s+SETS"),
        "SELECT realm, count(*) FROM account GROUP BY ROLLUP (realm)",
    ),
    Lack(
        "cursors and two-phase commit",
        "in part, or not",
        "cursors.html",
        words(r"CURSOR|CURRENT\s+OF|PREPARE\s+TRANSACTION"),
        "DECLARE c CURSOR FOR SELECT id FROM hold",
    ),
    Lack("TABLESAMPLE", "not there", "select-clause.html", words("TABLESAMPLE"),
         "SELECT id FROM account TABLESAMPLE SYSTEM (1)"),
    Lack(
        "keeping house",
        "VACUUM, CLUSTER and REINDEX aren't there, and aren't needed",
        "sql-statements.html",
        words("VACUUM|CLUSTER|REINDEX"),
        "VACUUM account",
    ),
    Lack(
        "sums without a cast",
        "the sum of integers is a decimal, which doesn't mix with integers",
        "functions-and-operators.html",
        lambda statement: sql_types.sums_without_a_cast(statement.tree),
        "SELECT coalesce(sum(spent_micros), 0) FROM counter",
    ),
    Lack(
        "mixed types",
        "COALESCE, CASE, GREATEST and LEAST take operands of one type",
        "scalar-expressions.html",
        lambda statement: sql_types.mixes_types(statement.tree),
        "SELECT coalesce(spent_micros, $1::DECIMAL) FROM counter",
    ),
    Lack(
        "arrays without a type",
        "a parameter that stands for an array is of no known type there",
        "array.html",
        lambda statement: sql_types.leaves_an_array_without_a_type(statement.tree),
        "SELECT id FROM account WHERE id = ANY($1)",
    ),
    Lack(
        "commands that aren't looked into",
        "what the parser takes for some command is not checked, so it is not portable",
        "sql-statements.html",
        _is_not_a_query,
        "EXPLAIN SELECT 1",
    ),
)  # fmt: skip


def found_in(text: str) -> Iterator[Lack]:
    """What of the table this statement has. Raises sqlglot.errors.SqlglotError for what doesn't parse."""
    statement = Statement.parse(text)
    return (lack for lack in LACKS if lack.found(statement))
