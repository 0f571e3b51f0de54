"""What an operator sets of a trunk: one line a field, from which every other form of it is derived, as account's are.

In: each field's name and type, its SQL column, protobuf field and command-line option, its bound, who changes it.
Out: whether a value is right (call-admission's core), how each form is read and written (its adapters,
`callwarden.schema.tables`, the CLI, docs/reference/account-fields.md).
"""

from dataclasses import dataclass
from typing import Annotated, Final

from callwarden.kernel.account import AccountType
from callwarden.kernel.fields import ChangedBy, DataField, FieldKind, fields_of

STRIP_DIGITS_MAX: Final = 15  # of an E.164 number
TECH_PREFIX_CHARS_MAX: Final = 16
PREFIXES_MAX: Final = 1_000  # of one trunk, of each kind


@dataclass(frozen=True, slots=True)
class Trunk:
    """A peer: a carrier that calls go out to, or a traffic sender that they come in from."""

    name: Annotated[str, DataField(about="Name: 1 to 64 of A-Z a-z 0-9 . _ -", by=ChangedBy.NOBODY, is_required=True)]
    address: Annotated[str, DataField(about="host:port of the SIP peer.", is_required=True)]
    direction: Annotated[
        AccountType,
        DataField(
            about="Calls go out to a carrier, come in from a traffic-sender.", kind=FieldKind.WORD,
            words=("carrier", "traffic-sender"), by=ChangedBy.NOBODY, is_required=True, preset="carrier",
        ),
    ]  # fmt: skip
    account: Annotated[
        str, DataField(about="Account it belongs to.", column="account_id", by=ChangedBy.NOBODY, is_required=True)
    ]
    """Its owner's name, or what names the owner when it is made."""
    tech_prefix: Annotated[
        str, DataField(about="Digits before the number that name this peer.", most=TECH_PREFIX_CHARS_MAX)
    ]
    strip_digits: Annotated[
        int,
        DataField(
            about="Digits taken off the number's front.", kind=FieldKind.COUNT, unit="digits", most=STRIP_DIGITS_MAX
        ),
    ]
    add_prefix: Annotated[str, DataField(about="Digits then put before it.", most=15)]
    enabled: Annotated[
        bool,
        DataField(about="Whether calls pass.", kind=FieldKind.FLAG, option="enable", off="disable", preset=True),
    ]
    only_local: Annotated[
        bool,
        DataField(
            about="A traffic sender's calls reach local users and numbers only, never a carrier.",
            kind=FieldKind.FLAG, off="all-numbers",
        ),
    ] = False  # fmt: skip
    allow_prefixes: Annotated[
        tuple[str, ...],
        DataField(
            about="Number prefixes that its calls go to, and no others.", kind=FieldKind.NAMES, option="allow-prefix",
            add_option="allow-prefix", most=PREFIXES_MAX,
        ),
    ] = ()  # fmt: skip
    block_prefixes: Annotated[
        tuple[str, ...],
        DataField(
            about="Number prefixes that its calls never go to.", kind=FieldKind.NAMES, option="block-prefix",
            add_option="block-prefix", most=PREFIXES_MAX,
        ),
    ] = ()  # fmt: skip
    realm: Annotated[str, DataField(about="Realm of its account.", has_column=False, by=ChangedBy.NOBODY)] = ""
    """Not known before it is made."""


TRUNK_FIELDS: Final[tuple[DataField, ...]] = tuple(fields_of(Trunk).values())
"""In the order of Trunk."""
