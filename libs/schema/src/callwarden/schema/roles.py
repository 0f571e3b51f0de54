"""What each service may do to which table, and the statements that give its database role just that.

The table of rights is what the services do, as docs/reference/database.md tells it. How the
statements are run is in `job`.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from callwarden.common.sql.schema import VERSION_TABLE
from callwarden.schema.tables import metadata

_READ: Final = ("SELECT",)
_ADD: Final = ("SELECT", "INSERT")
_GROW: Final = ("SELECT", "INSERT", "UPDATE")
_REPLACE: Final = ("SELECT", "INSERT", "DELETE")
_ALL: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

# SELECT … FOR UPDATE needs UPDATE. Nobody updates or deletes a ledger entry, nobody deletes an account.
RIGHTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "auth": {"account": _READ, "account_number": _READ, "trunk": _READ, "credential": _ALL},
    "call-admission": {
        "account": _GROW,
        "account_number": _REPLACE,
        "cdr": _ALL,
        "decision": _REPLACE,
        "number_list_entry": _REPLACE,
        "hold": _ALL,
        "trunk": _ALL,
        "counter": _ALL,
        "spend_day": _ALL,
        "number_list": _ALL,
        "ledger_entry": _ADD,
        "deck": _READ,
        "route": _READ,
    },
    "rating": {
        "account": _READ,
        "trunk": _READ,
        "deck": _GROW,
        "route": _ALL,
        "deck_row": _REPLACE,
    },
    "payment": {"account": ("SELECT", "UPDATE"), "counter": _READ, "payment": _ADD, "ledger_entry": ("INSERT",)},
}


def make_role(role: str, password: str, *, exists: bool) -> str:
    """Creates the role, or gives it the password that its URL has now."""
    verb = "ALTER" if exists else "CREATE"
    return f"{verb} ROLE {quoted(role)} WITH LOGIN PASSWORD {_literal(password)}"


# What the role was given by name, as (table, right). CockroachDB says ALL for all; PostgreSQL leaves out what the
# standard doesn't know (MAINTAIN).
GIVEN: Final = (
    'SELECT table_name AS name, privilege_type AS "right" FROM information_schema.table_privileges'
    " WHERE grantee = $1 AND table_schema = current_schema()"
)


def changes(service: str, role: str, given: Collection[tuple[str, str]], *, at_once: bool) -> Iterator[str]:
    """What has to be said to a database where the role has `given`, as (table, right), so that it has what it should.

    `at_once`: all of it is one transaction, as on PostgreSQL. On CockroachDB each statement is one of its own, and a
    service that runs must not be without its rights between two of them: what is missing is granted first, and only
    then what is too much revoked.
    """
    wanted = {(table, right) for table, rights in RIGHTS[service].items() for right in rights}
    wanted.add((VERSION_TABLE, "SELECT"))  # whether the schema is the one that it needs
    ours = {(table, right) for table, right in given if table in metadata.tables or table == VERSION_TABLE}
    # What is in ALL is each version's own, so CockroachDB has a gap where somebody gave that.
    renewed = {table for table, right in ours if right == "ALL" or (at_once and (table, right) not in wanted)}
    if renewed:
        yield f"REVOKE ALL ON TABLE {_tables(renewed)} FROM {quoted(role)}"
        ours = {pair for pair in ours if pair[0] not in renewed}
    yield from _by_rights(wanted - ours, lambda rights, tables: f"GRANT {rights} ON TABLE {tables} TO {quoted(role)}")
    yield from _by_rights(
        ours - wanted, lambda rights, tables: f"REVOKE {rights} ON TABLE {tables} FROM {quoted(role)}"
    )


def _by_rights(pairs: Collection[tuple[str, str]], statement: Callable[[str, str], str]) -> Iterator[str]:
    """One statement for all tables with the same rights."""
    rights: defaultdict[str, list[str]] = defaultdict(list)
    for table, right in sorted(pairs):
        rights[table].append(right)
    tables: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for table, those in rights.items():
        tables[tuple(those)].append(table)
    for those_rights, those_tables in sorted(tables.items()):
        yield statement(", ".join(those_rights), _tables(those_tables))


def _tables(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, sorted(names)))


def quoted(name: str) -> str:
    """An identifier, whatever stands in it."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    # Neither database takes a parameter here. NUL can't be in either's text.
    return "'" + text.replace("\0", "").replace("'", "''") + "'"
