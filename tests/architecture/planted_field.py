"""Adds one line to the table of an account's fields, and prints what follows from it: run by test_account_fields.

It is a process of its own because every module derives its part from the table when it is imported.
"""

import importlib.util
import json
import sys
from types import ModuleType
from typing import Final

MODULE: Final = "callwarden.kernel.account"
BEFORE: Final = "    country: Annotated["
LINE: Final = '    planted_s: Annotated[int | None, _talk("planted", "Planted.", "planted")] = None\n'


def plant() -> None:
    """The module with the line, in place of itself. LookupError where the place for it is gone."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise LookupError(MODULE)
    with open(spec.origin, encoding="utf-8") as file:
        head, found, rest = file.read().partition(BEFORE)
    if not found:
        raise LookupError(BEFORE)
    module = ModuleType(MODULE)
    sys.modules[MODULE] = module
    exec(compile(head + LINE + found + rest, spec.origin, "exec"), vars(module))


def main() -> None:
    plant()
    # Only now: they must see the planted line.
    from dataclasses import fields, replace

    from typer.main import get_command

    from callwarden.api.admission.v1 import admission_pb2 as pb
    from callwarden.call_admission.accounts.adapters.account_rows import COLUMNS, row_of
    from callwarden.call_admission.accounts.core import account_csv
    from callwarden.call_admission.accounts.core.accounts import check_account, check_change
    from callwarden.call_admission.admission.adapters.statements import SHARED_COLUMNS
    from callwarden.call_admission.model.account import Account
    from callwarden.cli.commands import account as commands
    from callwarden.kernel.errors import Invalid
    from callwarden.kernel.ids import parse
    from callwarden.schema import tables

    given = {"name": "a", "realm": "r", "type": "enduser", "currency": "EUR", "prepaid": True}
    new = check_account(given | {"planted_s": 90})
    (read,) = account_csv.read("name,planted\na,90s\n", realm="r", currency="EUR")
    try:
        check_account(given | {"planted_s": -1})
    except Invalid as error:
        refused = error.field
    account_id = parse("00000000-0000-0000-0000-000000000007")
    assert account_id is not None
    found = {
        "account": "planted_s" in {field.name for field in fields(Account)},
        "checked": new.planted_s,  # type: ignore[attr-defined]
        "refused": refused,
        "changed": dict(check_change({"planted_s": 5}).values),
        "cleared": sorted(check_change({}, clear=("planted_s",)).clear),
        "written": account_csv.write([replace(new)]).count("90"),
        "header": "planted" in account_csv.header(),
        "read": read.account == new,  # type: ignore[union-attr]
        "row": row_of(account_id, new, None)["planted_s"],
        "columns": "planted_s" in {field.column for field in COLUMNS},
        "hot": "planted_s" in SHARED_COLUMNS,
        "table": str(tables.account.columns["planted_s"].type),
        "options": [
            name
            for name, command in sorted(get_command(commands.app).commands.items())  # type: ignore[attr-defined]
            if any("--planted" in option.opts for option in command.params)
        ],
        "protobuf": "planted_s" in pb.Limits.DESCRIPTOR.fields_by_name,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
