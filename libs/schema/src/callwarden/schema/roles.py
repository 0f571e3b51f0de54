"""What each service may do to which table, and the statements that give its database role just that.

The table of rights is what the services do, as docs/reference/database.md tells it. How the
statements are run is in `job`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

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


def grants(service: str, role: str) -> Iterator[str]:
    """Takes all rights to our tables away and gives those of the service. To be run in one transaction."""
    yield f"REVOKE ALL ON TABLE {_tables(metadata.tables)} FROM {quoted(role)}"
    by_rights: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for table, rights in RIGHTS[service].items():
        by_rights[rights].append(table)
    for rights, tables in sorted(by_rights.items()):
        yield f"GRANT {', '.join(rights)} ON TABLE {_tables(tables)} TO {quoted(role)}"


def _tables(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, sorted(names)))


def quoted(name: str) -> str:
    """An identifier, whatever stands in it."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    # Neither database takes a parameter here. NUL can't be in either's text.
    return "'" + text.replace("\0", "").replace("'", "''") + "'"
