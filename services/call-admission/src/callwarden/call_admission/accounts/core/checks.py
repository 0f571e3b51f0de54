"""What a value of a field may be: checked where it comes in, with the field named.

In: one value at a time, by its field's line (callwarden.kernel.account, .trunk). Out: values that depend on each other
(accounts, trunks), and on other rows (adapters.account_rows).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from phonenumbers import SUPPORTED_REGIONS

from callwarden.call_admission.model.days import UnknownZone, zone
from callwarden.kernel import ids
from callwarden.kernel.account import LISTS_MAX, NUMBERS_MAX, SHARDS_MAX, AccountType
from callwarden.kernel.errors import Invalid
from callwarden.kernel.fields import DataField, FieldKind
from callwarden.kernel.money import AMOUNT_MICROS_MAX, BadCurrency, parse_currency
from callwarden.kernel.phone import E164, BadNumber
from callwarden.kernel.trunk import PREFIXES_MAX

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
REALM: Final = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]*", re.ASCII)
_PREFIX: Final = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
# What people have, not all that RFC 5322 allows: no quotes, comments or address literals, nothing that a spreadsheet or
# a header could take for something else.
_EMAIL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}", re.ASCII)
_TECH_PREFIX: Final = re.compile(r"[0-9*#]{0,16}", re.ASCII)
# A name or IPv4 address, or an IPv6 address in brackets.
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})", re.ASCII)

NOTE_CHARS_MAX: Final = 255
KEY_CHARS_MAX: Final = 128
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000

Check = Callable[[Any], Any]


def check_of(field: DataField, special: Mapping[str, Check]) -> Check:
    """What checks the field's values: `special` by its name, else by its kind. It returns the value as it is kept, or
    raises Invalid."""
    if field.name in special:
        return special[field.name]
    match field.kind:
        case FieldKind.COUNT | FieldKind.AMOUNT | FieldKind.DURATION:
            return lambda value: _number(value, field)
        case FieldKind.FLAG:
            return bool
        case FieldKind.WORD:
            return check_type
        case FieldKind.STATUS:
            return check_status
        case FieldKind.PHONE:
            return check_phone
        case FieldKind.PHONES:
            return lambda value: check_numbers(value, field.wire)
        case FieldKind.NAMES:
            return lambda value: check_lists(value, field.wire)
        case FieldKind.TEXT:
            return lambda value: check_text(value, field.wire, field.most or NOTE_CHARS_MAX)


def _number(value: int, field: DataField) -> int:
    if value < 0:
        raise Invalid(f"{field.wire} must not be negative", field=field.wire)
    if value > field.most:
        raise Invalid(f"{field.wire} must be at most {field.most:,}", field=field.wire)
    return value


def check_type(type_: str) -> AccountType:
    try:
        return AccountType(type_)
    except ValueError:
        names = ", ".join(kind.value for kind in AccountType)
        raise Invalid(f"type must be one of {names}", field="type") from None


def check_realm(realm: str) -> str:
    if REALM.fullmatch(realm.lower()) is None:
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
    if NAME.fullmatch(name) is None:
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
    if deck and NAME.fullmatch(deck) is None:
        raise Invalid("deck must be 1 to 64 of A-Z a-z 0-9 . _ -, or empty", field="deck")
    return deck


def check_country(country: str) -> str:
    """ISO 3166-1 alpha-2, in capitals."""
    if not (country.isascii() and country.upper() in SUPPORTED_REGIONS):  # "ß" in capitals is "SS"
        raise Invalid("country must be two letters of ISO 3166, such as DE", field="country")
    return country.upper()


def check_email(email: str) -> str:
    if len(email) > 254 or _EMAIL.fullmatch(email) is None:  # RFC 5321 section 4.5.3.1.3
        raise Invalid("email must be an address such as alice@example.org", field="email")
    return email


def check_phone(phone: str) -> str:
    """E.164 digits."""
    try:
        return E164.parse(phone).digits
    except BadNumber as error:
        raise Invalid(f"phone: {error.text!r} is not a telephone number", field="phone") from None


def check_shards(shards: int) -> int:
    if shards != 0 and not 2 <= shards <= SHARDS_MAX:
        raise Invalid(f"shards must be 2 to {SHARDS_MAX}, or 0 for none", field="shards")
    return shards


def check_numbers(texts: Iterable[str], field: str) -> tuple[str, ...]:
    """E.164 digits, each once."""
    numbers: dict[str, None] = {}
    for text in texts:
        try:
            numbers[E164.parse(text).digits] = None
        except BadNumber as error:
            raise Invalid(f"{field}: {error.text!r} is not a telephone number", field=field) from None
        if len(numbers) > NUMBERS_MAX:
            raise Invalid(f"{field} takes at most {NUMBERS_MAX:,} numbers", field=field)
    return tuple(numbers)


def check_lists(names: Iterable[str], field: str) -> tuple[str, ...]:
    """Names of number lists, each once."""
    found = dict.fromkeys(names)
    for name in found:
        if NAME.fullmatch(name) is None:
            raise Invalid(f"{field}: {name[:64]!r} is not the name of a list", field=field)
    if len(found) > LISTS_MAX:
        raise Invalid(f"{field} takes at most {LISTS_MAX} lists", field=field)
    return tuple(found)


def check_prefixes(texts: Iterable[str], field: str) -> tuple[str, ...]:
    """The first digits of E.164 numbers, each once."""
    prefixes: dict[str, None] = {}
    for text in texts:
        digits = text.removeprefix("+")
        if _PREFIX.fullmatch(digits) is None:
            raise Invalid(f"{field}: {text[:32]!r} is not a prefix (1 to 15 digits, no 0 first)", field=field)
        prefixes[digits] = None
        if len(prefixes) > PREFIXES_MAX:
            raise Invalid(f"{field} takes at most {PREFIXES_MAX:,} prefixes", field=field)
    return tuple(prefixes)


def check_direction(direction: str) -> AccountType:
    if direction not in (AccountType.CARRIER.value, AccountType.TRAFFIC_SENDER.value):
        raise Invalid("direction must be carrier or traffic-sender", field="direction")
    return AccountType(direction)


def check_host_port(address: str) -> str:
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 1 <= int(match.group(1)) <= 65_535:
        raise Invalid("address must be host:port, such as 192.0.2.10:5060 or [2001:db8::1]:5060", field="address")
    return address


def check_tech_prefix(tech_prefix: str) -> str:
    if _TECH_PREFIX.fullmatch(tech_prefix) is None:
        raise Invalid("tech_prefix takes up to 16 of 0-9 * #", field="tech_prefix")
    return tech_prefix


def check_add_prefix(add_prefix: str) -> str:
    if len(add_prefix) > 15 or _DIGITS.fullmatch(add_prefix) is None:
        raise Invalid("add_prefix takes up to 15 digits", field="add_prefix")
    return add_prefix


def check_text(text: str, field: str, most: int) -> str:
    """One line, which may be empty: shown in terminals and files."""
    if len(text) > most or not text.isprintable():
        raise Invalid(f"{field} takes up to {most} characters, without line breaks", field=field)
    return text


def check_note(text: str, field: str = "reason") -> str:
    """What is kept with an entry and shown in terminals: one line, not empty."""
    text = text.strip()
    if not text or len(text) > NOTE_CHARS_MAX or not text.isprintable():
        raise Invalid(f"{field} must be 1 to {NOTE_CHARS_MAX} characters, without line breaks", field=field)
    return text


def check_key(key: str) -> str:
    if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isprintable():
        raise Invalid(f"key must be 1 to {KEY_CHARS_MAX} printable characters", field="key")
    return key


def check_price(micros: int) -> int:
    if not 0 <= micros <= AMOUNT_MICROS_MAX:
        raise Invalid("price_micros must not be negative, nor beyond what an amount can be", field="price_micros")
    return micros


def page_size(wanted: int) -> int:
    """1 to PAGE_MAX; 0 stands for PAGE_DEFAULT. Raises Invalid."""
    if not 0 <= wanted <= PAGE_MAX:
        raise Invalid(f"page_size must be 1 to {PAGE_MAX:,}", field="page_size")
    return wanted or PAGE_DEFAULT
