"""What an operator sets of an account: one line a field, from which every other form of it is derived.

In: each field's name and type, its SQL column, protobuf field, CSV column and command-line option, its unit and bound,
who changes it. Out: whether a value is right (call-admission's core), how each form is read and written (its adapters,
`callwarden.schema.tables`, the CLI, docs/reference/account-fields.md).

To add a field, add its line here, the field in admission.proto and the migration; tests/architecture checks that all
forms have it.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Final

from callwarden.kernel.fields import ChangedBy, DataField, FieldKind, fields_of
from callwarden.kernel.money import AMOUNT_MICROS_MAX

LINES_MAX: Final = 1_000_000  # as policy's
TALK_S_MAX: Final = 100_000 * 86_400  # a thousand calls at once for a hundred days: more is a slip
SHARDS_MAX: Final = 64  # at 2,000 calls/s each more than anybody has
NUMBERS_MAX: Final = 10_000  # of one account: a block of a PBX
LISTS_MAX: Final = 64  # as policy's


class AccountType(Enum):
    """The value is the same in SQL, protobuf and CSV."""

    ENDUSER = "enduser"
    TRAFFIC_SENDER = "traffic-sender"
    CARRIER = "carrier"
    RESELLER = "reseller"


def _limit(header: str, about: str, kind: FieldKind, unit: str, most: int, label: str) -> DataField:
    return DataField(
        about=about, kind=kind, proto="limits.", header=header, label=label, unit=unit, most=most, is_optional=True,
        is_clearable=True,
    )  # fmt: skip


def _calls(header: str, about: str, label: str) -> DataField:
    return _limit(header, about, FieldKind.COUNT, "calls", LINES_MAX, label)


def _spend(header: str, about: str, label: str) -> DataField:
    return _limit(header, about, FieldKind.AMOUNT, "micros", AMOUNT_MICROS_MAX, label)


def _talk(header: str, about: str, label: str) -> DataField:
    return _limit(header, about, FieldKind.DURATION, "s", TALK_S_MAX, label)


def _profile(about: str, most: int, kind: FieldKind = FieldKind.TEXT) -> DataField:
    return DataField(about=about, kind=kind, proto="profile.", most=most, is_clearable=True)


def _verified(what: str, off: str) -> DataField:
    return DataField(
        about=f"Whether an operator has verified the {what}.", kind=FieldKind.FLAG, proto="profile.", off=off
    )


_FIXED: Final = ChangedBy.NOBODY


@dataclass(slots=True)
class AccountFields:
    """What an account is, in the order of the CSV columns. A limit that is None: the policy's applies, or none.

    A value. Not frozen, because one is made whenever an account is read (1.2 instead of 3.5 µs).
    """

    name: Annotated[
        str, DataField(about="Name: 1 to 64 of A-Z a-z 0-9 . _ -; also the SIP user name.", by=_FIXED, is_required=True)
    ]
    realm: Annotated[str, DataField(about="SIP domain.", by=_FIXED, is_required=True, preset="callwarden.local")]
    type: Annotated[
        AccountType,
        DataField(
            about="What the account is.", kind=FieldKind.WORD, words=tuple(word.value for word in AccountType),
            by=_FIXED, is_required=True, preset="enduser",
        ),
    ]  # fmt: skip
    active: Annotated[
        bool,
        DataField(
            about="Status: active or disabled.", kind=FieldKind.STATUS, column="status", proto="status",
            header="status", preset="active",
        ),
    ]  # fmt: skip
    currency: Annotated[
        str,
        DataField(
            about="Currency (ISO 4217). Changes only before the first payment or call.", is_required=True, preset="EUR"
        ),
    ]
    time_zone: Annotated[
        str, DataField(about="Time zone (IANA); days and months of its limits begin there.", preset="UTC")
    ]
    prepaid: Annotated[
        bool,
        DataField(about="Prepaid or postpaid.", kind=FieldKind.FLAG, off="postpaid", is_required=True, preset=True),
    ]
    deck: Annotated[str, DataField(about="Price list its calls are charged by; without it its reseller's.")]
    max_lines: Annotated[int | None, _calls("lines", "Calls at the same time.", "lines")] = None
    max_lines_off_peak: Annotated[
        int | None, _calls("lines_off_peak", "Calls at the same time outside peak hours.", "lines off-peak")
    ] = None
    max_per_second: Annotated[int | None, _calls("per_second", "New calls within a second.", "calls per second")] = None
    daily_micros: Annotated[int | None, _spend("daily", "Spend a day.", "spend a day")] = None
    monthly_micros: Annotated[int | None, _spend("monthly", "Spend a calendar month.", "spend a month")] = None
    monthly_increment_micros: Annotated[
        int | None,
        _spend("monthly_increment", "Added to the monthly limit after each month with calls.", "grows a month by"),
    ] = None
    monthly_ceiling_micros: Annotated[
        int | None, _spend("monthly_ceiling", "How far the monthly limit grows.", "grows no further than")
    ] = None
    talk_day_s: Annotated[
        int | None, _talk("talk_day", "Talk time a day; a carrier's: terminated.", "talk time a day")
    ] = None
    talk_month_s: Annotated[
        int | None, _talk("talk_month", "Talk time a month; a carrier's: terminated.", "talk time a month")
    ] = None
    country: Annotated[str, _profile("Subscriber's country (ISO 3166), home to its calls.", 2)] = ""
    # RFC 5321 section 4.5.3.1.3 bounds an address.
    email: Annotated[str, _profile("Subscriber's e-mail address.", 254)] = ""
    email_verified: Annotated[bool, _verified("e-mail address", "email-unverified")] = False
    phone: Annotated[str, _profile("Number to reach the subscriber at.", 15, FieldKind.PHONE)] = ""
    phone_verified: Annotated[bool, _verified("number", "phone-unverified")] = False
    shards: Annotated[
        int,
        DataField(about="Rows its counters are split over, where one can't carry it.", kind=FieldKind.COUNT,
                     unit="rows", most=SHARDS_MAX),
    ] = 0  # fmt: skip
    lists: Annotated[
        tuple[str, ...],
        DataField(about="Number lists for its calls, in addition to the policy's.", kind=FieldKind.NAMES,
                     option="list", label="number lists", most=LISTS_MAX),
    ] = ()  # fmt: skip

    @property
    def limits(self) -> dict[str, int | None]:
        """By name, in the order of LIMITS."""
        return {name: getattr(self, name) for name in LIMITS}


@dataclass(slots=True)
class NewAccount(AccountFields):
    """An account as an operator describes it, and as it is shown."""

    parent: Annotated[
        str,
        DataField(about="Reseller it belongs to, by name or id; of the same realm and currency.",
                     is_optional=True, is_clearable=True, label="reseller"),
    ] = ""  # fmt: skip
    """Its reseller, as an operator names it; its name, where an account is shown."""
    numbers: Annotated[
        tuple[str, ...],
        DataField(about="Numbers it owns, in international form.", kind=FieldKind.PHONES, has_column=False,
                     option="number", most=NUMBERS_MAX),
    ] = ()  # fmt: skip
    """E.164 digits."""


_SHARED: Final = tuple(fields_of(AccountFields).values())
_OWN: Final = tuple(field for name, field in fields_of(NewAccount).items() if name not in fields_of(AccountFields))
_BEFORE: Final = 1 + [field.name for field in _SHARED].index("deck")

SHARED_FIELDS: Final[tuple[DataField, ...]] = _SHARED
"""Of AccountFields, in order: so a row becomes an Account."""

FIELDS: Final[tuple[DataField, ...]] = (*_SHARED[:_BEFORE], *_OWN, *_SHARED[_BEFORE:])
"""All that an operator sets, in the order of the CSV columns."""

BY_NAME: Final = {field.name: field for field in FIELDS}

LIMITS: Final = {field.name: field.most for field in FIELDS if field.is_limit}
"""Every limit that an account may have of its own, with the most that it may be; named as fields and columns are."""

CLEARABLE: Final = frozenset(field.name for field in FIELDS if field.is_clearable)


def _kept(name: str, about: str, by: ChangedBy, unit: str = "", proto: str = "-") -> DataField:
    return replace(DataField(about=about, by=by, unit=unit).named(name), proto=proto if proto != "-" else name)


STATE_FIELDS: Final[tuple[DataField, ...]] = (
    _kept("id", "UUID.", ChangedBy.NOBODY),
    _kept("balance_micros", "Sum of its ledger entries.", ChangedBy.CALLS_AND_PAYMENT, "micros"),
    _kept("held_micros", "What running calls hold of it.", ChangedBy.CALLS, "micros"),
    _kept("overdraft_micros", "How far below zero a prepaid account may go.", ChangedBy.NOBODY, "micros", proto=""),
    _kept("version", "Rises with every change that a decision depends on.", ChangedBy.CALLS, proto=""),
    _kept("usage", "What rules count beyond money and lines.", ChangedBy.CALLS, proto=""),
    _kept("created_at", "When it was created.", ChangedBy.NOBODY, proto=""),
)
"""The other columns of table `account`: no operator sets them."""

COUNTED: Final = ("lines_in_use", "spent_today_micros")
"""Fields of message Account that are counted when it is read."""
