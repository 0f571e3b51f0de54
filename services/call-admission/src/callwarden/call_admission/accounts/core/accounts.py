"""Accounts and trunks as an operator describes them: checked at the door, with the field named.

In: what a name, a number, a limit, a trunk may be. Out: how they are kept (adapters.accounts_sql), what limits do
(rules/).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from phonenumbers import SUPPORTED_REGIONS

from callwarden.call_admission.model.account import AccountType
from callwarden.call_admission.model.days import UnknownZone, zone
from callwarden.kernel import ids
from callwarden.kernel.errors import Invalid
from callwarden.kernel.money import AMOUNT_MICROS_MAX, BadCurrency, parse_currency
from callwarden.kernel.phone import E164, BadNumber

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_REALM = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_DIGITS = re.compile(r"[0-9]*", re.ASCII)
_PREFIX = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
# What people have, not all that RFC 5322 allows: no quotes, comments or address literals, nothing that a spreadsheet or
# a header could take for something else.
_EMAIL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}", re.ASCII)
_TECH_PREFIX = re.compile(r"[0-9*#]{0,16}", re.ASCII)
# A name or IPv4 address, or an IPv6 address in brackets.
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})", re.ASCII)

LINES_MAX: Final = 1_000_000  # as policy's
NUMBERS_MAX: Final = 10_000  # of one account: a block of a PBX
LISTS_MAX: Final = 64  # as policy's
PREFIXES_MAX: Final = 1_000  # of one trunk
SHARDS_MAX: Final = 64  # at 2,000 calls/s each more than anybody has
TALK_S_MAX: Final = 100_000 * 86_400  # a thousand calls at once for a hundred days: more is a slip
EMAIL_CHARS_MAX: Final = 254  # RFC 5321 section 4.5.3.1.3
NOTE_CHARS_MAX: Final = 255
KEY_CHARS_MAX: Final = 128
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000

LIMITS: Final = {
    "max_lines": LINES_MAX,
    "max_lines_off_peak": LINES_MAX,
    "max_per_second": LINES_MAX,
    "daily_micros": AMOUNT_MICROS_MAX,
    "monthly_micros": AMOUNT_MICROS_MAX,
    "monthly_increment_micros": AMOUNT_MICROS_MAX,
    "monthly_ceiling_micros": AMOUNT_MICROS_MAX,
    "talk_day_s": TALK_S_MAX,
    "talk_month_s": TALK_S_MAX,
}
"""Every limit that an account may have of its own, with the most that it may be. So are fields and columns named."""

_PROFILE: Final = ("country", "email", "phone")
CLEARABLE: Final = frozenset({*LIMITS, *_PROFILE, "parent"})


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What an account is made of. A limit that is None: the policy's holds."""

    realm: str
    name: str
    type: AccountType
    active: bool
    currency: str
    time_zone: str
    prepaid: bool
    deck: str
    max_lines: int | None = None
    daily_micros: int | None = None
    numbers: tuple[str, ...] = ()
    max_lines_off_peak: int | None = None
    max_per_second: int | None = None
    monthly_micros: int | None = None
    monthly_increment_micros: int | None = None
    monthly_ceiling_micros: int | None = None
    talk_day_s: int | None = None
    talk_month_s: int | None = None
    parent: str = ""
    """Its reseller, as somebody names it; its name, where an account is shown."""
    country: str = ""
    email: str = ""
    phone: str = ""
    """E.164 digits."""
    email_verified: bool = False
    phone_verified: bool = False
    shards: int = 0
    lists: tuple[str, ...] = ()

    @property
    def limits(self) -> dict[str, int | None]:
        """By name, in the order of LIMITS."""
        return {name: getattr(self, name) for name in LIMITS}


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is to be different; None: nothing. `clear` takes limits and data away."""

    active: bool | None = None
    deck: str | None = None
    currency: str | None = None
    time_zone: str | None = None
    prepaid: bool | None = None
    parent: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    country: str | None = None
    email: str | None = None
    phone: str | None = None
    email_verified: bool | None = None
    phone_verified: bool | None = None
    shards: int | None = None
    clear: frozenset[str] = frozenset()
    add_numbers: tuple[str, ...] = ()
    remove_numbers: tuple[str, ...] = ()
    add_lists: tuple[str, ...] = ()
    remove_lists: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """Which accounts are meant; empty: all."""

    type: AccountType | None = None
    realm: str = ""
    parent: "AccountRef | None" = None


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
    only_local: bool = False
    """Its calls reach local users and numbers only, never a carrier."""
    allow_prefixes: tuple[str, ...] = ()
    """Where its calls may go, if not empty."""
    block_prefixes: tuple[str, ...] = ()
    realm: str = ""
    """Of its owner; not known before it is made."""


@dataclass(frozen=True, slots=True)
class TrunkChange:
    """What is to be different; None: nothing."""

    address: str | None = None
    tech_prefix: str | None = None
    strip_digits: int | None = None
    add_prefix: str | None = None
    enabled: bool | None = None
    only_local: bool | None = None
    add_allow_prefixes: tuple[str, ...] = ()
    remove_allow_prefixes: tuple[str, ...] = ()
    add_block_prefixes: tuple[str, ...] = ()
    remove_block_prefixes: tuple[str, ...] = ()

    def of(self, trunk: Trunk) -> Trunk:
        """The trunk as it is then. Raises Invalid for too many prefixes, and for one to be removed that isn't there."""
        same = {
            name: value
            for name in ("address", "tech_prefix", "strip_digits", "add_prefix", "enabled", "only_local")
            if (value := getattr(self, name)) is not None
        }
        return replace(
            trunk,
            **same,
            allow_prefixes=_changed(
                trunk.allow_prefixes, self.add_allow_prefixes, self.remove_allow_prefixes, "allow_prefixes"
            ),
            block_prefixes=_changed(
                trunk.block_prefixes, self.add_block_prefixes, self.remove_block_prefixes, "block_prefixes"
            ),
        )


def _changed(before: Sequence[str], add: Sequence[str], remove: Sequence[str], field_: str) -> tuple[str, ...]:
    if missing := [prefix for prefix in remove if prefix not in before]:
        raise Invalid(f"prefix +{missing[0]} isn't there", field=f"remove_{field_}")
    after = sorted({*before, *add} - {*remove})
    if len(after) > PREFIXES_MAX:
        raise Invalid(f"a trunk has at most {PREFIXES_MAX:,} prefixes of each kind", field=f"add_{field_}")
    return tuple(after)


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
    max_lines: int | None = None, daily_micros: int | None = None, numbers: Iterable[str] = (),
    limits: Mapping[str, int] | None = None, parent: str = "", country: str = "", email: str = "", phone: str = "",
    email_verified: bool = False, phone_verified: bool = False, shards: int = 0, lists: Iterable[str] = (),
) -> NewAccount:  # fmt: skip
    """The account, or Invalid with the first field that is wrong."""
    kind = check_type(type_)
    given = {"max_lines": max_lines, "daily_micros": daily_micros}
    checked = check_limits({name: value for name, value in given.items() if value is not None} | dict(limits or {}))
    check_together(checked)
    if kind is AccountType.RESELLER and parent:
        raise Invalid("a reseller belongs to no other reseller", field="parent")
    account = NewAccount(
        realm=check_realm(realm),
        name=check_name(name),
        type=kind,
        active=check_status(status or "active"),
        currency=check_currency(currency),
        time_zone=check_zone(time_zone or "UTC"),
        prepaid=prepaid,
        deck=check_deck(deck),
        numbers=check_numbers(numbers, "numbers"),
        parent=check_parent(parent),
        country=check_country(country),
        email=check_email(email),
        phone=check_phone(phone),
        email_verified=email_verified,
        phone_verified=phone_verified,
        shards=check_shards(shards),
        lists=check_lists(lists, "lists"),
        **checked,
    )
    check_verified(email, email_verified, phone, phone_verified)
    return account


def check_change(
    *, status: str | None = None, deck: str | None = None, max_lines: int | None = None,
    daily_micros: int | None = None, clear: Iterable[str] = (), add_numbers: Iterable[str] = (),
    remove_numbers: Iterable[str] = (), limits: Mapping[str, int] | None = None, currency: str | None = None,
    time_zone: str | None = None, prepaid: bool | None = None, parent: str | None = None, country: str | None = None,
    email: str | None = None, phone: str | None = None, email_verified: bool | None = None,
    phone_verified: bool | None = None, shards: int | None = None, add_lists: Iterable[str] = (),
    remove_lists: Iterable[str] = (),
) -> AccountChange:  # fmt: skip
    """The change, or Invalid with the first field that is wrong."""
    cleared = frozenset(clear)
    if not cleared <= CLEARABLE:
        raise Invalid(f"clear takes {', '.join(sorted(CLEARABLE))}", field="clear")
    given = {"max_lines": max_lines, "daily_micros": daily_micros}
    checked = check_limits({name: value for name, value in given.items() if value is not None} | dict(limits or {}))
    data = {"parent": parent, "country": country, "email": email, "phone": phone}
    for name, value in (checked | data).items():
        if value is not None and name in cleared:
            raise Invalid(f"{name} is set and cleared at once", field=name)
        if value == "":
            raise Invalid(f"{name} is empty: clear it instead", field=name)
    # What was checked isn't what stands there then.
    if email_verified is None and (email is not None or "email" in cleared):
        email_verified = False
    if phone_verified is None and (phone is not None or "phone" in cleared):
        phone_verified = False
    return AccountChange(
        active=None if status is None else check_status(status),
        deck=None if deck is None else check_deck(deck),
        currency=None if currency is None else check_currency(currency),
        time_zone=None if time_zone is None else check_zone(time_zone),
        prepaid=prepaid,
        parent=None if parent is None else check_parent(parent),
        limits=checked,
        country=None if country is None else check_country(country),
        email=None if email is None else check_email(email),
        phone=None if phone is None else check_phone(phone),
        email_verified=email_verified,
        phone_verified=phone_verified,
        shards=None if shards is None else check_shards(shards),
        clear=cleared,
        add_numbers=check_numbers(add_numbers, "add_numbers"),
        remove_numbers=check_numbers(remove_numbers, "remove_numbers"),
        add_lists=check_lists(add_lists, "add_lists"),
        remove_lists=check_lists(remove_lists, "remove_lists"),
    )


def check_filter(type_: str, realm: str, parent: str) -> AccountFilter:
    return AccountFilter(
        check_type(type_) if type_ else None,
        check_realm(realm) if realm else "",
        AccountRef.parse(parent, "parent") if parent else None,
    )


def check_verified(email: str, email_verified: bool, phone: str, phone_verified: bool) -> None:
    """Raises Invalid where nothing stands that could have been checked."""
    for name, text, verified in (("email", email, email_verified), ("phone", phone, phone_verified)):
        if verified and not text:
            raise Invalid(f"there is no {name} that could be verified", field=f"{name}_verified")


def check_together(limits: Mapping[str, int | None]) -> None:
    """Raises Invalid for limits that can't be meant together."""
    monthly, ceiling = limits.get("monthly_micros"), limits.get("monthly_ceiling_micros")
    for name in ("monthly_increment_micros", "monthly_ceiling_micros"):
        if monthly is None and limits.get(name) is not None:
            raise Invalid(f"{name} needs monthly_micros, from which it grows", field=name)
    if monthly is not None and ceiling is not None and ceiling < monthly:
        raise Invalid("monthly_ceiling_micros is below monthly_micros", field="monthly_ceiling_micros")


def check_trunk(
    *, name: str, address: str, direction: str, account: str, tech_prefix: str, strip_digits: int, add_prefix: str,
    enabled: bool, only_local: bool = False, allow_prefixes: Iterable[str] = (), block_prefixes: Iterable[str] = (),
) -> Trunk:  # fmt: skip
    """The trunk, or Invalid with the first field that is wrong."""
    check_name(name)
    if direction not in (AccountType.CARRIER.value, AccountType.TRAFFIC_SENDER.value):
        raise Invalid("direction must be carrier or traffic-sender", field="direction")
    AccountRef.parse(account)
    if only_local and direction != AccountType.TRAFFIC_SENDER.value:
        raise Invalid("only_local is for traffic senders: calls don't come in from a carrier", field="only_local")
    return Trunk(
        name,
        _address(address),
        AccountType(direction),
        account,
        _tech_prefix(tech_prefix),
        _strip_digits(strip_digits),
        _add_prefix(add_prefix),
        enabled,
        only_local,
        tuple(sorted(check_prefixes(allow_prefixes, "allow_prefixes"))),
        tuple(sorted(check_prefixes(block_prefixes, "block_prefixes"))),
    )


def check_trunk_change(
    *, address: str | None = None, tech_prefix: str | None = None, strip_digits: int | None = None,
    add_prefix: str | None = None, enabled: bool | None = None, only_local: bool | None = None,
    add_allow_prefixes: Iterable[str] = (), remove_allow_prefixes: Iterable[str] = (),
    add_block_prefixes: Iterable[str] = (), remove_block_prefixes: Iterable[str] = (),
) -> TrunkChange:  # fmt: skip
    """The change, or Invalid with the first field that is wrong."""
    return TrunkChange(
        address=None if address is None else _address(address),
        tech_prefix=None if tech_prefix is None else _tech_prefix(tech_prefix),
        strip_digits=None if strip_digits is None else _strip_digits(strip_digits),
        add_prefix=None if add_prefix is None else _add_prefix(add_prefix),
        enabled=enabled,
        only_local=only_local,
        add_allow_prefixes=check_prefixes(add_allow_prefixes, "add_allow_prefixes"),
        remove_allow_prefixes=check_prefixes(remove_allow_prefixes, "remove_allow_prefixes"),
        add_block_prefixes=check_prefixes(add_block_prefixes, "add_block_prefixes"),
        remove_block_prefixes=check_prefixes(remove_block_prefixes, "remove_block_prefixes"),
    )


def _address(address: str) -> str:
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 1 <= int(match.group(1)) <= 65_535:
        raise Invalid("address must be host:port, such as 192.0.2.10:5060 or [2001:db8::1]:5060", field="address")
    return address


def _tech_prefix(tech_prefix: str) -> str:
    if _TECH_PREFIX.fullmatch(tech_prefix) is None:
        raise Invalid("tech_prefix takes up to 16 of 0-9 * #", field="tech_prefix")
    return tech_prefix


def _strip_digits(strip_digits: int) -> int:
    if not 0 <= strip_digits <= 15:
        raise Invalid("strip_digits must be 0 to 15", field="strip_digits")
    return strip_digits


def _add_prefix(add_prefix: str) -> str:
    if len(add_prefix) > 15 or _DIGITS.fullmatch(add_prefix) is None:
        raise Invalid("add_prefix takes up to 15 digits", field="add_prefix")
    return add_prefix


def check_prefixes(texts: Iterable[str], field_: str) -> tuple[str, ...]:
    """The first digits of E.164 numbers, each once."""
    prefixes: dict[str, None] = {}
    for text in texts:
        digits = text.removeprefix("+")
        if _PREFIX.fullmatch(digits) is None:
            raise Invalid(f"{field_}: {text[:32]!r} is no prefix (1 to 15 digits, no 0 first)", field=field_)
        prefixes[digits] = None
        if len(prefixes) > PREFIXES_MAX:
            raise Invalid(f"{field_} takes at most {PREFIXES_MAX:,} prefixes", field=field_)
    return tuple(prefixes)


def check_type(type_: str) -> AccountType:
    try:
        return AccountType(type_)
    except ValueError:
        names = ", ".join(kind.value for kind in AccountType)
        raise Invalid(f"type must be one of {names}", field="type") from None


def check_realm(realm: str) -> str:
    if _REALM.fullmatch(realm.lower()) is None:
        raise Invalid("realm must be a domain name", field="realm")
    return realm.lower()


def check_currency(currency: str) -> str:
    try:
        return parse_currency(currency)
    except BadCurrency:
        raise Invalid("currency must be three capitals of ISO 4217, such as EUR", field="currency") from None


def check_zone(time_zone: str) -> str:
    try:
        zone(time_zone)
    except UnknownZone:
        raise Invalid("time_zone must be an IANA name, such as Europe/Berlin", field="time_zone") from None
    return time_zone


def check_name(name: str, field: str = "name") -> str:
    if _NAME.fullmatch(name) is None:
        raise Invalid(f"{field} must be 1 to 64 of A-Z a-z 0-9 . _ -", field=field)
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


def check_limits(limits: Mapping[str, int]) -> dict[str, int]:
    """By names of LIMITS. Raises Invalid for the first that is unknown, negative or too large."""
    for name, value in limits.items():
        most = LIMITS.get(name)
        if most is None:
            raise Invalid(f"there is no limit {name[:32]!r}", field="limits")
        if value < 0:
            raise Invalid(f"{name} must not be negative", field=name)
        if value > most:
            raise Invalid(f"{name} must be at most {most:,}", field=name)
    return dict(limits)


def check_parent(parent: str) -> str:
    if parent:
        AccountRef.parse(parent, "parent")
    return parent


def check_country(country: str) -> str:
    """ISO 3166-1 alpha-2, in capitals; empty: none."""
    if country and not (country.isascii() and country.upper() in SUPPORTED_REGIONS):  # "ß" in capitals is "SS"
        raise Invalid("country must be two letters of ISO 3166, such as DE", field="country")
    return country.upper()


def check_email(email: str) -> str:
    if email and (len(email) > EMAIL_CHARS_MAX or _EMAIL.fullmatch(email) is None):
        raise Invalid("email must be an address such as alice@example.org", field="email")
    return email


def check_phone(phone: str) -> str:
    """E.164 digits; empty: none."""
    if not phone:
        return ""
    try:
        return E164.parse(phone).digits
    except BadNumber as error:
        raise Invalid(f"phone: {error.text!r} is no telephone number", field="phone") from None


def check_shards(shards: int) -> int:
    if shards != 0 and not 2 <= shards <= SHARDS_MAX:
        raise Invalid(f"shards must be 2 to {SHARDS_MAX}, or 0 for none", field="shards")
    return shards


def check_lists(names: Iterable[str], field_: str) -> tuple[str, ...]:
    """Names of number lists, each once."""
    found = dict.fromkeys(names)
    for name in found:
        if _NAME.fullmatch(name) is None:
            raise Invalid(f"{field_}: {name[:64]!r} is no name of a list", field=field_)
    if len(found) > LISTS_MAX:
        raise Invalid(f"{field_} takes at most {LISTS_MAX} lists", field=field_)
    return tuple(found)


def check_note(text: str, field_: str = "reason") -> str:
    """What is kept with an entry and shown in terminals: one line, not empty."""
    text = text.strip()
    if not text or len(text) > NOTE_CHARS_MAX or not text.isprintable():
        raise Invalid(f"{field_} must be 1 to {NOTE_CHARS_MAX} characters, without line breaks", field=field_)
    return text


def check_key(key: str) -> str:
    if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isprintable():
        raise Invalid(f"key must be 1 to {KEY_CHARS_MAX} printable characters", field="key")
    return key


def check_price(micros: int) -> int:
    if not 0 <= micros <= AMOUNT_MICROS_MAX:
        raise Invalid("price_micros must not be negative, nor beyond what an amount can be", field="price_micros")
    return micros


def check_numbers(texts: Iterable[str], field_: str) -> tuple[str, ...]:
    """E.164 digits, each once."""
    numbers: dict[str, None] = {}
    for text in texts:
        try:
            numbers[E164.parse(text).digits] = None
        except BadNumber as error:
            raise Invalid(f"{field_}: {error.text!r} is no telephone number", field=field_) from None
        if len(numbers) > NUMBERS_MAX:
            raise Invalid(f"{field_} takes at most {NUMBERS_MAX:,} numbers", field=field_)
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
    cost_micros: int = 0
    corrected_micros: int = 0
    """What corrections have added to the price since, or given back."""


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
