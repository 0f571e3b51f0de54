"""A table of fields: one line a field, which says how SQL, protobuf, CSV and the command line each call it.

In: what such a line says, and reading the lines off a dataclass. Out: the tables themselves (account, trunk).
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, get_type_hints


class FieldKind(Enum):
    """How a field's value is written. The value is what docs/reference/account-fields.md calls it."""

    TEXT = "text"
    WORD = "word"
    """One of `words`."""
    STATUS = "active or disabled"
    """A bool in Python."""
    FLAG = "yes or no"
    COUNT = "whole number"
    AMOUNT = "amount"
    """Micros of the account's currency; `12.50` in CSV and on the command line."""
    DURATION = "duration"
    """Seconds; `90m` in CSV and on the command line."""
    PHONE = "number"
    """E.164 digits."""
    PHONES = "numbers"
    NAMES = "names"
    """Names of other things; one column, joined by commas."""


class ChangedBy(Enum):
    """Who may change a field of what exists. The value is what docs/reference/account-fields.md calls it."""

    NOBODY = "nobody: set at creation"
    OPERATOR = "operator"
    CALLS = "calls"
    CALLS_AND_PAYMENT = "calls, payments, corrections"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataField:
    """One field and all of its names. Those left empty follow from `name`."""

    about: str
    kind: FieldKind = FieldKind.TEXT
    by: ChangedBy = ChangedBy.OPERATOR
    column: str = ""
    """Of its table."""
    has_column: bool = True
    """False: it is kept in another table, and `column` stays empty."""
    proto: str = ""
    """Path within its message, such as `limits.max_lines`."""
    header: str = ""
    """CSV column."""
    option: str = ""
    """Command-line option without its dashes."""
    add_option: str = ""
    """Option that adds to what there are, of several values; `remove-` and the option takes them away."""
    off: str = ""
    """Option that says no, of a FLAG."""
    label: str = ""
    """What the command line calls it where it shows it."""
    unit: str = ""
    most: int = 0
    """Largest number; most characters; most items. 0: the kind's own."""
    is_required: bool = False
    """Its column has no default."""
    is_optional: bool = False
    """Its column is NULL where it isn't set."""
    is_clearable: bool = False
    """An update can take it away."""
    words: tuple[str, ...] = ()
    """What a WORD can be."""
    preset: object = None
    """What the command line and CSV take where it isn't given."""
    name: str = ""
    """The attribute that has it."""

    @property
    def wire(self) -> str:
        """Its name in the protobuf message that holds it; errors name it so."""
        return self.proto.rpartition(".")[2]

    @property
    def group(self) -> str:
        """The message within its message that holds it: `limits`, `profile`; empty: none, it is there itself."""
        return self.proto.rpartition(".")[0]

    @property
    def is_limit(self) -> bool:
        return self.group == "limits"

    def named(self, name: str) -> "DataField":
        """With what follows from the name filled in."""
        header = self.header or name
        return replace(
            self,
            name=name,
            column=(self.column or name) if self.has_column else "",
            proto=self.proto + name if not self.proto or self.proto.endswith(".") else self.proto,
            header=header,
            option=self.option or header.replace("_", "-"),
            add_option=self.add_option or f"add-{self.option or header.replace('_', '-')}",
            label=self.label or header.replace("_", " "),
        )


def fields_of(cls: Any) -> dict[str, DataField]:
    """The lines of a dataclass, by name, in order: each field's DataField, which stands in its Annotated."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[name].__metadata__[0].named(name) for name in cls.__dataclass_fields__}
