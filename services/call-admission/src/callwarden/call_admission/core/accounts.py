"""Accounts and trunks as an operator describes them: checked at the door, with the field named.

In: what a name, a number, a limit, a trunk may be. Out: how they are kept (adapters.accounts_sql), what limits do
(rules/).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.core.days import UnknownZone, zone
from callwarden.call_admission.core.snapshot import AccountType
from callwarden.kernel import ids
from callwarden.kernel.errors import Invalid
from callwarden.kernel.money import AMOUNT_MICROS_MAX, BadCurrency, parse_currency
from callwarden.kernel.phone import E164, BadNumber

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_REALM = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_DIGITS = re.compile(r"[0-9]*", re.ASCII)
_TECH_PREFIX = re.compile(r"[0-9*#]{0,16}", re.ASCII)
# A name or IPv4 address, or an IPv6 address in brackets.
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})", re.ASCII)

LINES_MAX: Final = 1_000_000  # as policy's
NUMBERS_MAX: Final = 10_000  # of one account: a block of a PBX
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What an account is made of. None: the policy's limit holds."""

    realm: str
    name: str
    type: AccountType
    active: bool
    currency: str
    time_zone: str
    prepaid: bool
    deck: str
    max_lines: int | None
    daily_micros: int | None
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is to be different; None: nothing. `clear` takes limits away, so that the policy's hold again."""

    active: bool | None = None
    deck: str | None = None
    max_lines: int | None = None
    daily_micros: int | None = None
    clear: frozenset[str] = frozenset()
    add_numbers: tuple[str, ...] = ()
    remove_numbers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trunk:
    """A peer: a carrier that calls go out to, or a traffic sender that they come in from. `account`: its owner's name,
    or what names the owner when it is made."""

    name: str
    address: str
    direction: AccountType
    account: str
    tech_prefix: str
    strip_digits: int
    add_prefix: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class AccountRef:
    """How somebody names an account: by id, by name, or by name and realm (`name@realm`)."""

    id: UUID | None
    name: str
    realm: str

    @classmethod
    def parse(cls, text: str, field: str = "account") -> "AccountRef":
        """Raises Invalid."""
        account_id = ids.parse(text)
        if account_id is not None:
            return cls(account_id, "", "")
        name, _, realm = text.partition("@")
        if _NAME.fullmatch(name) is None or (realm and _REALM.fullmatch(realm.lower()) is None):
            raise Invalid(f"{field} must be an account's id, its name, or name@realm", field=field)
        return cls(None, name, realm.lower())

    def __str__(self) -> str:
        return str(self.id) if self.id else f"{self.name}@{self.realm}" if self.realm else self.name


def check_account(
    *, realm: str, name: str, type_: str, status: str, currency: str, time_zone: str, prepaid: bool, deck: str,
    max_lines: int | None, daily_micros: int | None, numbers: Iterable[str],
) -> NewAccount:  # fmt: skip
    """The account, or Invalid with the first field that is wrong."""
    if _REALM.fullmatch(realm.lower()) is None:
        raise Invalid("realm must be a domain name", field="realm")
    try:
        kind = AccountType(type_)
    except ValueError:
        raise Invalid("type must be enduser, traffic-sender or carrier", field="type") from None
    try:
        parse_currency(currency)
    except BadCurrency:
        raise Invalid("currency must be three capitals of ISO 4217, such as EUR", field="currency") from None
    try:
        zone(time_zone or "UTC")
    except UnknownZone:
        raise Invalid("time_zone must be an IANA name, such as Europe/Berlin", field="time_zone") from None
    return NewAccount(
        realm=realm.lower(),
        name=check_name(name),
        type=kind,
        active=check_status(status or "active"),
        currency=currency,
        time_zone=time_zone or "UTC",
        prepaid=prepaid,
        deck=check_deck(deck),
        max_lines=None if max_lines is None else check_lines(max_lines),
        daily_micros=None if daily_micros is None else check_daily(daily_micros),
        numbers=check_numbers(numbers, "numbers"),
    )


def check_change(
    *, status: str | None, deck: str | None, max_lines: int | None, daily_micros: int | None, clear: Iterable[str],
    add_numbers: Iterable[str], remove_numbers: Iterable[str],
) -> AccountChange:  # fmt: skip
    """The change, or Invalid with the first field that is wrong."""
    cleared = frozenset(clear)
    if not cleared <= _CLEARABLE:
        raise Invalid(f"clear takes {' and '.join(sorted(_CLEARABLE))}", field="clear")
    for name, value in (("max_lines", max_lines), ("daily_micros", daily_micros)):
        if value is not None and name in cleared:
            raise Invalid(f"{name} is set and cleared at once", field=name)
    return AccountChange(
        active=None if status is None else check_status(status),
        deck=None if deck is None else check_deck(deck),
        max_lines=None if max_lines is None else check_lines(max_lines),
        daily_micros=None if daily_micros is None else check_daily(daily_micros),
        clear=cleared,
        add_numbers=check_numbers(add_numbers, "add_numbers"),
        remove_numbers=check_numbers(remove_numbers, "remove_numbers"),
    )


_CLEARABLE: Final = frozenset({"max_lines", "daily_micros"})


def check_trunk(
    *, name: str, address: str, direction: str, account: str, tech_prefix: str, strip_digits: int, add_prefix: str,
    enabled: bool,
) -> Trunk:  # fmt: skip
    """The trunk, or Invalid with the first field that is wrong."""
    check_name(name)
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 1 <= int(match.group(1)) <= 65_535:
        raise Invalid("address must be host:port, such as 192.0.2.10:5060 or [2001:db8::1]:5060", field="address")
    if direction not in (AccountType.CARRIER.value, AccountType.TRAFFIC_SENDER.value):
        raise Invalid("direction must be carrier or traffic-sender", field="direction")
    AccountRef.parse(account)
    if _TECH_PREFIX.fullmatch(tech_prefix) is None:
        raise Invalid("tech_prefix takes up to 16 of 0-9 * #", field="tech_prefix")
    if not 0 <= strip_digits <= 15:
        raise Invalid("strip_digits must be 0 to 15", field="strip_digits")
    if len(add_prefix) > 15 or _DIGITS.fullmatch(add_prefix) is None:
        raise Invalid("add_prefix takes up to 15 digits", field="add_prefix")
    return Trunk(name, address, AccountType(direction), account, tech_prefix, strip_digits, add_prefix, enabled)


def check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise Invalid("name must be 1 to 64 of A-Z a-z 0-9 . _ -", field="name")
    if ids.parse(name) is not None:
        raise Invalid("name must not look like an id", field="name")
    return name


def check_status(status: str) -> bool:
    """Whether the account is active."""
    if status not in ("active", "disabled"):
        raise Invalid("status must be active or disabled", field="status")
    return status == "active"


def check_deck(deck: str) -> str:
    if deck and _NAME.fullmatch(deck) is None:
        raise Invalid("deck must be 1 to 64 of A-Z a-z 0-9 . _ -, or empty", field="deck")
    return deck


def check_lines(lines: int) -> int:
    if not 0 <= lines <= LINES_MAX:
        raise Invalid(f"max_lines must be 0 to {LINES_MAX:,}", field="max_lines")
    return lines


def check_daily(micros: int) -> int:
    if not 0 <= micros <= AMOUNT_MICROS_MAX:
        raise Invalid("daily_micros must not be negative, nor beyond what an amount can be", field="daily_micros")
    return micros


def check_numbers(texts: Iterable[str], field: str) -> tuple[str, ...]:
    """E.164 digits, each once."""
    numbers: dict[str, None] = {}
    for text in texts:
        try:
            numbers[E164.parse(text).digits] = None
        except BadNumber as error:
            raise Invalid(f"{field}: {error.text!r} is no telephone number", field=field) from None
        if len(numbers) > NUMBERS_MAX:
            raise Invalid(f"{field} takes at most {NUMBERS_MAX:,} numbers", field=field)
    return tuple(numbers)


def page_size(wanted: int) -> int:
    """1 to PAGE_MAX; 0 stands for PAGE_DEFAULT. Raises Invalid."""
    if not 0 <= wanted <= PAGE_MAX:
        raise Invalid(f"page_size must be 1 to {PAGE_MAX:,}", field="page_size")
    return wanted or PAGE_DEFAULT


# ------------------------------------------------------------------ what is shown


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account with what is true of it now."""

    id: UUID
    account: NewAccount
    balance_micros: int
    held_micros: int
    lines_in_use: int
    spent_today_micros: int
    """Settled, and held by running calls."""


@dataclass(frozen=True, slots=True)
class CallView:
    """A call that runs, is settled, or was refused. Moments 0: not."""

    hold_id: str
    call_id: str
    account: str
    destination: str
    state: str
    started_at_s: float
    answered_at_s: float = 0.0
    ended_at_s: float = 0.0
    duration_s: int = 0
    billed_s: int = 0
    price_micros: int = 0
    currency: str = ""
    reason: str = ""
    trunk: str = ""
    policy_revision: int = 0
    trace_id: str = ""
    caller_number: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a Call-ID. Decisions are kept as they were written (their wire form), oldest first."""

    decisions: tuple[bytes, ...]
    call: CallView | None


@dataclass(frozen=True, slots=True)
class Audit:
    """What the books say. `mismatched`: names of accounts whose balance isn't the sum of their ledger entries, or whose
    held money isn't the sum of their holds; at most MISMATCHED_MAX."""

    accounts: int
    entries: int
    balance_sum_micros: int
    ledger_sum_micros: int
    held_sum_micros: int
    hold_rows_sum_micros: int
    open_holds: int
    mismatched: tuple[str, ...]


MISMATCHED_MAX: Final = 100  # One is an alarm; a hundred are enough to see what they have in common.
