"""The schema is one that CockroachDB and PostgreSQL both run."""

import re

import pytest
from sqlalchemy import Text, UniqueConstraint, Uuid
from sqlalchemy.dialects import postgresql, registry
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.elements import TextClause

from callwarden.schema.tables import metadata

# What CockroachDB lacks or advises against (its "PostgreSQL compatibility" page), as it would look in our DDL.
NOT_PORTABLE = re.compile(
    r"\b(SERIAL|BIGSERIAL|IDENTITY|SEQUENCE|TRIGGER|LISTEN|NOTIFY|EXCLUDE|INHERITS|UNLOGGED|TABLESPACE|DEFERRABLE|EXTENSION"
    r"|HSTORE|CITEXT|XML|MONEY)\b"
)


def ddl(dialect_name: str) -> list[str]:
    dialect = registry.load(dialect_name)() if dialect_name != "postgresql" else postgresql.dialect()  # type: ignore[no-untyped-call]
    statements = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
    return statements


@pytest.mark.parametrize("dialect", ["postgresql", "postgresql.asyncpg", "cockroachdb.asyncpg"])
def test_the_ddl_compiles_and_names_nothing_that_cockroachdb_lacks(dialect: str) -> None:
    statements = ddl(dialect)
    assert len(statements) >= len(metadata.tables)
    for statement in statements:
        assert NOT_PORTABLE.search(statement.upper()) is None, statement


def test_both_dialects_make_the_same_tables() -> None:
    def shape(statement: str) -> str:
        # The dialects may spell a type differently; the columns, keys and checks must be the same.
        return re.sub(r"\b(STRING|TEXT|VARCHAR|BYTES|BYTEA|BOOL|BOOLEAN|INT8|BIGINT|INT4|INTEGER)\b", "T", statement)

    assert [shape(s) for s in ddl("postgresql.asyncpg")] == [shape(s) for s in ddl("cockroachdb.asyncpg")]


def test_no_key_is_a_sequence() -> None:
    for table in metadata.tables.values():
        for column in table.primary_key.columns:
            assert column.autoincrement is not True
            assert str(column.type) not in ("INTEGER", "SMALLINT"), f"{table.name}.{column.name}"


def test_every_key_and_index_begins_with_what_is_spread() -> None:
    """A UUID or a name. One that begins with a time, a day or a number that grows is written at its end only: that is
    one range of CockroachDB, and one node of the cluster."""
    for table in metadata.tables.values():
        unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        for columns in (table.primary_key.columns, *(each.columns for each in unique)):
            assert isinstance(next(iter(columns)).type, Uuid | Text), table.name
        for index in table.indexes:
            first = index.expressions[0]
            is_digit_of_id = isinstance(first, TextClause) and first.text == "substr(CAST(id AS TEXT), 1, 1)"
            assert is_digit_of_id or isinstance(getattr(first, "type", None), Uuid | Text), index.name


def test_money_is_counted_in_whole_micros() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            if column.name.endswith("_micros"):
                assert str(column.type) == "BIGINT", f"{table.name}.{column.name}"
