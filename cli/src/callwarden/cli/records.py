"""Results for programs: what a service answered, as values of JSON and as rows of CSV.

JSON has the field names of `proto/` with two changes. A moment is RFC 3339 in UTC under its name without `_s`
(`started_at`; null: never). An amount is there twice: exact in whole micros (`price_micros`), and as a decimal text in
the currency's unit (`price`), which no reader turns into a float by mistake. A length of time stays a number of seconds
(`duration_s`).

CSV has the same values, a field a column: fields of a message within are called `limits.max_lines`, a list of words is
separated by spaces, amounts are decimals only, and nothing is an empty cell. The header is the same whatever the rows.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from callwarden.kernel.printable import csv_cell, printable_json

if TYPE_CHECKING:
    from google.protobuf.message import Message

_MICROS: Final = "_micros"
_SECONDS: Final = "_s"


def plain(message: "Message") -> dict[str, Any]:
    """A message as values of JSON, with every field; a `oneof` shows the member that is set, what is unset is null."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            result[field.name] = [_value(field, item) for item in value]
        elif field.has_presence and not message.HasField(field.name):
            if field.containing_oneof is None or field.containing_oneof.name.startswith("_"):
                result |= _named(field, None)
        else:
            result |= _named(field, value)
    return result


def moment(at_s: float) -> str | None:
    """RFC 3339 in UTC, to the millisecond; None for 0, which is how services write "never"."""
    if not at_s:
        return None
    try:
        return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None  # Beyond the year 9999: for good.


def amount(micros: int) -> str:
    """A decimal text of at least two decimals: "12.50"."""
    from callwarden.kernel.money import format_amount

    return format_amount(micros)


def json_text(value: object) -> str:
    """Indented JSON that is safe to print."""
    return printable_json(json.dumps(value, indent=2, ensure_ascii=False))


def csv_columns(kind: "type[Message] | Message", *, each: str = "") -> list[str]:
    """The header of messages of this type; `each` is the list within that `exploded` makes rows of."""
    return list(_columns(kind.DESCRIPTOR, "", each))


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """CSV (RFC 4180, lines end with LF) of values as `plain` gives them. Without `columns` those of the rows."""
    cells = [dict(flat(row)) for row in rows]
    names = list(dict.fromkeys(name for row in cells for name in row)) if columns is None else columns
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, names))
    writer.writerows([row.get(name, "") for name in names] for row in cells)
    return text.getvalue()


def exploded(row: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    """A row for each member of a list within a row: the rest of the row is repeated, the member's fields are called
    `field.…`. A row with an empty list stays one row."""
    rest = {name: value for name, value in row.items() if name != field}
    return [rest | {field: member} for member in row[field]] or [rest]


def _named(field: Any, value: Any) -> dict[str, Any]:
    """A field that isn't a list, under the name or names that it has in JSON."""
    name = field.name
    if _is_moment(field):
        return {name.removesuffix(_SECONDS): None if value is None else moment(value)}
    if name.endswith(_MICROS):
        return {name.removesuffix(_MICROS): None if value is None else amount(value), name: value}
    return {name: None if value is None else _value(field, value)}


def _value(field: Any, value: Any) -> Any:
    return plain(value) if field.message_type is not None else value


def _is_moment(field: Any) -> bool:
    """Lengths of time are whole seconds in `proto/`, moments are not."""
    return bool(field.name.endswith(_SECONDS) and field.type == field.TYPE_DOUBLE)


def _columns(descriptor: Any, before: str, each: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        if field.message_type is not None and (not field.is_repeated or field.name == each):
            yield from _columns(field.message_type, f"{before}{field.name}.")
        elif field.name.endswith(_MICROS):
            yield before + field.name.removesuffix(_MICROS)
        else:
            yield before + (field.name.removesuffix(_SECONDS) if _is_moment(field) else field.name)


def flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Column and cell of each value, whatever it is within."""
    for name, value in row.items():
        if name.endswith(_MICROS) and name.removesuffix(_MICROS) in row:
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", _cell(value)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return csv_cell(value)
        case list() if all(isinstance(item, str | int) for item in value):
            return csv_cell(" ".join(map(str, value)))
        case list():
            return csv_cell(json.dumps(value, ensure_ascii=False))
        case _:
            return str(value)
