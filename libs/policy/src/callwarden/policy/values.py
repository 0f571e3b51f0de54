"""The kinds of value that a policy field can have beyond JSON's own: durations, amounts, networks, hours."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from callwarden.kernel.hours import BadPeakHours
from callwarden.kernel.hours import parse as parse_hours
from callwarden.kernel.money import AMOUNT_MICROS_MAX, MICROS, BadAmount, format_amount, parse_amount

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)
DURATION_S_MAX: Final = 366 * 86_400  # A year: nothing that we time lasts longer.

_DURATION_PATTERN: Final = r"^([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,9}s)?$"
_AMOUNT_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"

NETWORKS_MAX: Final = 10_000  # A list that a person keeps; feeds of known attackers have their own import.


@dataclass(frozen=True, slots=True)
class Wire:
    """How a value may be written, as the Kubernetes API server is to check it (callwarden.policy.crd). Wider than what
    the model takes where a schema can't say it, never narrower."""

    schema: Mapping[str, Any] = field(hash=False)
    bounded: bool = False
    """Whether an integer as it is written is the one that the field's own bounds are for."""


def either(pattern: str, length_max: int, *, minimum: int, maximum: int, bounded: bool = False) -> Wire:
    """An integer within these, or a string of that form."""
    return Wire(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": minimum,
            "maximum": maximum,
            "pattern": pattern,
            "minLength": 1,
            "maxLength": length_max,
        },
        bounded,
    )


def text(length_max: int, pattern: str = "") -> Wire:
    return Wire({"type": "string", "maxLength": length_max, **({"pattern": pattern} if pattern else {})})


def or_minus_one(wire: Wire) -> Wire:
    """The same, or -1 or null for "no limit"."""
    pattern = wire.schema.get("pattern")
    return Wire(
        {
            **{key: value for key, value in wire.schema.items() if key != "type"},
            **({"pattern": f"^-1$|{pattern}"} if pattern else {}),
            "x-kubernetes-int-or-string": True,
            "minimum": -1,
            "maximum": wire.schema.get("maximum", -1),
            "nullable": True,
        }
    )


def parse_duration(value: Any) -> Any:
    """Seconds of "90s", "3m", "1h30m", "2d" or a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None or not value:
        raise ValueError("write a duration such as 90s, 3m, 1h30m or 2d")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 86_400 + hours * 3_600 + minutes * 60 + seconds


def format_duration(seconds: int) -> str:
    """The shortest text that parse_duration reads back: 5400 → "1h30m"."""
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _parse_micros(value: Any) -> Any:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise ValueError('write an amount such as 10 or "12.50"')
    if isinstance(value, float):
        # Binary fractions aren't what was written, and the Kubernetes API server takes them for no kind of amount.
        raise ValueError('write an amount with decimals in quotes, such as "12.50"')
    try:
        if isinstance(value, str) and value != value.strip():
            raise BadAmount(value)
        return parse_amount(str(value))
    except BadAmount as error:
        raise ValueError('write an amount such as 10 or "12.50", with at most 6 decimals') from error


def _network(value: str) -> str:
    try:
        if "%" in value:
            raise ValueError("a zone is of one machine only")
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError as error:
        raise ValueError("write an address or network such as 192.0.2.7 or 2001:db8::/32") from error


def _prefix(value: str) -> str:
    digits = value.removeprefix("+")
    if not 1 <= len(digits) <= 15 or not (digits.isascii() and digits.isdigit()):
        raise ValueError("write a number prefix of 1 to 15 digits, such as +882 or 4990")
    return digits


DURATION_WIRE: Final = either(_DURATION_PATTERN, 31, minimum=0, maximum=DURATION_S_MAX, bounded=True)
AMOUNT_WIRE: Final = either(_AMOUNT_PATTERN, 19, minimum=0, maximum=AMOUNT_MICROS_MAX // MICROS)

Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    Field(ge=0, le=DURATION_S_MAX, json_schema_extra={"format": "duration"}),
    PlainSerializer(format_duration, return_type=str),
    DURATION_WIRE,
]
"""Seconds; written as "90s", "3m", "1h30m" or "2d"."""

Amount = Annotated[
    int,
    BeforeValidator(_parse_micros),
    Field(ge=0),
    PlainSerializer(lambda micros: format_amount(micros), return_type=str),
    AMOUNT_WIRE,
]
"""Micros; written as "12.50"."""

NETWORK_CHARS_MAX: Final = 64  # An IPv6 address with an IPv4 tail and a mask has 49.

Network = Annotated[
    str,
    Field(max_length=NETWORK_CHARS_MAX),
    AfterValidator(_network),
    text(NETWORK_CHARS_MAX, r"^[0-9A-Fa-f:.]+(/[0-9.]+)?$"),
]
"""An IPv4 or IPv6 address or network, normalised."""

NumberPrefix = Annotated[str, AfterValidator(_prefix), text(16, r"^\+?[0-9]{1,15}$")]
"""The first digits of an E.164 number, without "+"."""


def _peak_hours(value: str) -> str:
    try:
        parse_hours(value, UTC)
    except BadPeakHours as error:
        raise ValueError(f"write hours such as Mon-Fri 08:00-20:00: {error.reason}") from error
    return value.strip()


def _time_zone(value: str) -> str:
    if value:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("write an IANA time zone such as Europe/Berlin") from error
    return value


_COUNTRY = re.compile(r"[A-Za-z]{2}", re.ASCII)
_LIST_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def _country(value: str) -> str:
    if _COUNTRY.fullmatch(value) is None:
        raise ValueError("write a country as two letters of ISO 3166, such as DE")
    return value.upper()


def _list_name(value: str) -> str:
    if _LIST_NAME.fullmatch(value) is None:
        raise ValueError("write a list's name, 1 to 64 of A-Z a-z 0-9 . _ -")
    return value


PeakHours = Annotated[str, Field(max_length=255), AfterValidator(_peak_hours), text(255)]
"""Hours of a week, as callwarden.kernel.hours reads them; empty: none given."""

TimeZone = Annotated[str, Field(max_length=64), AfterValidator(_time_zone), text(64)]
"""An IANA name; empty: none given."""

Country = Annotated[str, AfterValidator(_country), text(2, "^[A-Za-z]{2}$")]
"""ISO 3166-1 alpha-2, in capitals."""

ListName = Annotated[str, AfterValidator(_list_name), text(64, "^[A-Za-z0-9._-]+$")]
"""The name of a number list."""


def _address(value: str) -> str:
    try:
        if "%" in value:
            raise ValueError("a zone is of one machine only")
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise ValueError("write an address such as 192.0.2.7 or 2001:db8::7") from error


def _moment(value: str) -> str:
    if _MOMENT.fullmatch(value) is not None:
        try:
            datetime.fromisoformat(value)
            return value
        except ValueError:
            pass
    raise ValueError("write a time with its zone such as 2026-12-24T20:00:00Z")


def seconds_of(moment: str) -> float:
    """Unix time of a Moment."""
    return datetime.fromisoformat(moment).timestamp()


_MOMENT_PATTERN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
_MOMENT = re.compile(_MOMENT_PATTERN, re.ASCII)

Address = Annotated[
    str, Field(max_length=NETWORK_CHARS_MAX), AfterValidator(_address), text(NETWORK_CHARS_MAX, "^[0-9A-Fa-f:.]+$")
]
"""An IPv4 or IPv6 address, normalised."""

Moment = Annotated[str, Field(max_length=40), AfterValidator(_moment), text(40, _MOMENT_PATTERN)]
"""A moment with its zone (RFC 3339)."""


def _parse_auto(value: Any) -> Any:
    if value is None:
        raise ValueError("write a number or auto")
    return None if value == "auto" else value


Auto = Annotated[
    int | None,
    BeforeValidator(_parse_auto),
    PlainSerializer(lambda value: "auto" if value is None else value, return_type=int | str),
    either("^auto$", 4, minimum=0, maximum=1_000_000_000, bounded=True),
]
"""A number; None, written as "auto": derived from what is usual."""
