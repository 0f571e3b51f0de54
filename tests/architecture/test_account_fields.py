"""A field of an account or a trunk is declared in one line: SQL, protobuf, CSV, the command line and docs all have it.

To add one takes that line, the field in admission.proto and the migration. What is missing is named here.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf.descriptor import Descriptor
from sqlalchemy import BigInteger, Boolean, Integer, Table, Text, Uuid
from typer.main import get_command

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.cli.commands import account as account_commands
from callwarden.cli.commands import trunk as trunk_commands
from callwarden.kernel.account import CLEARABLE, COUNTED, FIELDS, STATE_FIELDS
from callwarden.kernel.fields import ChangedBy, DataField, FieldKind
from callwarden.kernel.trunk import TRUNK_FIELDS
from callwarden.schema import tables

ROOT: Final = Path(__file__).parents[2]
SEVERAL: Final = (FieldKind.PHONES, FieldKind.NAMES)
NUMBERS: Final = {FieldKind.COUNT: Integer, FieldKind.AMOUNT: BigInteger, FieldKind.DURATION: BigInteger}
# Options that are no fields.
OTHERS: Final = {
    "account create": {"password", "generate", "no-password", "credit", "output", "help"},
    "account set": {"clear", "output", "help"},
    # Of the account that is made for the trunk.
    "trunk add": {"currency", "deck", "output", "help"},
    "trunk set": {"output", "help"},
}


def paths(message: Descriptor, prefix: str = "") -> set[str]:
    """All fields of a message, those of the messages within it by their path."""
    found: set[str] = set()
    for field in message.fields:
        if field.message_type is None:
            found.add(prefix + field.name)
        else:
            found |= paths(field.message_type, f"{prefix}{field.name}.")
    return found


def options(commands: Any, name: str) -> set[str]:
    command = get_command(commands.app).commands[name]  # type: ignore[attr-defined]
    return {
        flag.removeprefix("--")
        for each in command.params
        for flag in (*each.opts, *each.secondary_opts)
        if flag.startswith("--")
    } | {"help"}


def creatable(fields: Iterable[DataField]) -> set[str]:
    """Options of a command that creates: all fields but the name, an argument."""
    return {
        flag
        for field in fields
        if field.name != "name"
        for flag in (field.option, field.off if field.kind is FieldKind.FLAG else "")
        if flag
    }


def changeable(fields: Iterable[DataField]) -> set[str]:
    found: set[str] = set()
    for field in fields:
        if field.by is not ChangedBy.OPERATOR:
            continue
        if field.kind in SEVERAL:
            found |= {field.add_option, f"remove-{field.option}"}
        else:
            found |= {field.option, field.off} - {""}
    return found


@pytest.mark.parametrize(
    ("table", "fields"), [(tables.account, (*FIELDS, *STATE_FIELDS)), (tables.trunk, TRUNK_FIELDS)], ids=str
)
def test_every_column_is_a_field_and_every_field_a_column(table: Table, fields: tuple[DataField, ...]) -> None:
    assert {column.name for column in table.columns} == {field.column for field in fields if field.column}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_column_holds_what_the_field_can_be(field: DataField) -> None:
    if not field.has_column:
        assert field.kind is FieldKind.PHONES, "a table of its own"
        return
    column = tables.account.columns[field.column]
    kind = (
        Uuid if field.name == "parent" else NUMBERS.get(field.kind, Boolean if field.kind is FieldKind.FLAG else Text)
    )
    assert type(column.type) is kind
    assert column.nullable is field.is_optional
    assert field.most < (2**31 if kind is Integer else 2**63)


@pytest.mark.parametrize(
    ("message", "fields", "counted"),
    [(pb.Account, (*FIELDS, *STATE_FIELDS), COUNTED), (pb.Trunk, TRUNK_FIELDS, ())],
    ids=["Account", "Trunk"],
)
def test_the_message_has_the_fields_and_no_others(
    message: Any, fields: tuple[DataField, ...], counted: tuple[str, ...]
) -> None:
    assert paths(message.DESCRIPTOR) == {field.proto for field in fields if field.proto} | set(counted)


@pytest.mark.parametrize(
    ("message", "named", "fields"),
    [(pb.UpdateAccountRequest, {"account", "clear"}, FIELDS), (pb.UpdateTrunkRequest, {"name"}, TRUNK_FIELDS)],
    ids=["account", "trunk"],
)
def test_an_update_has_what_an_operator_changes_and_tells_unset_from_empty(
    message: Any, named: set[str], fields: tuple[DataField, ...]
) -> None:
    wanted = set(named)
    for field in fields:
        if field.by is ChangedBy.OPERATOR and field.kind in SEVERAL:
            wanted |= {f"add_{field.wire}", f"remove_{field.wire}"}
        elif field.by is ChangedBy.OPERATOR:
            wanted.add(field.proto)
            holder = message.DESCRIPTOR
            if field.group:
                holder = holder.fields_by_name[field.group].message_type
            assert holder.fields_by_name[field.wire].has_presence, field.name
    assert paths(message.DESCRIPTOR) == wanted


def test_what_can_be_cleared_is_empty_or_null_then() -> None:
    for name in CLEARABLE:
        (field,) = (each for each in FIELDS if each.name == name)
        column = tables.account.columns[field.column]
        assert column.nullable or isinstance(column.type, Text)


@pytest.mark.parametrize("command", OTHERS)
def test_every_field_has_its_options_and_every_option_is_a_field(command: str) -> None:
    of, name = command.split()
    commands, fields = (account_commands, FIELDS) if of == "account" else (trunk_commands, TRUNK_FIELDS)
    wanted = changeable(fields) if name == "set" else creatable(fields)
    # `create` and `add` make what works: who wants it disabled says so with `set`.
    not_asked = (
        {"status"} if command == "account create" else {"enable", "disable"} if command == "trunk add" else set()
    )
    assert options(commands, name) == wanted - not_asked | OTHERS[command]


def test_a_new_field_is_one_line_beside_protobuf_and_migration() -> None:
    planted = subprocess.run(
        [sys.executable, "-m", "tests.architecture.planted_field"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert planted.returncode == 0, planted.stderr
    assert json.loads(planted.stdout) == {
        "account": True,
        "checked": 90,
        "refused": "planted_s",
        "changed": {"planted_s": 5},
        "cleared": ["planted_s"],
        "written": 1,
        "header": True,
        "read": True,
        "row": 90,
        "columns": True,
        "hot": True,
        "table": "BIGINT",
        "options": ["create", "set"],
        # What the tests above miss then, as they would the migration.
        "protobuf": False,
    }
