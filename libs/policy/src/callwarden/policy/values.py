"""The kinds of value that a policy field can have beyond JSON's own: durations, amounts, networks, hours."""

import ipaddress
import re
from datetime import UTC
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from callwarden.kernel.hours import BadPeakHours
from callwarden.kernel.hours import parse as parse_hours
from callwarden.kernel.money import BadAmount, format_amount, parse_amount

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)
DURATION_S_MAX: Final = 366 * 86_400  # A year: nothing that we time lasts longer.

NETWORKS_MAX: Final = 10_000  # A list that a person keeps; feeds of known attackers have their own import.


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
    if isinstance(value, bool):
        raise ValueError("write an amount such as 10 or 12.50")
    if isinstance(value, float):
        # YAML reads 12.50 as a float; repr is the shortest text that means it, which is what the user wrote.
        value = repr(value)
    try:
        return parse_amount(str(value))
    except BadAmount as error:
        raise ValueError("write an amount such as 10 or 12.50, with at most 6 decimals") from error


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError as error:
        raise ValueError("write an address or network such as 192.0.2.7 or 2001:db8::/32") from error


def _prefix(value: str) -> str:
    digits = value.removeprefix("+")
    if not 1 <= len(digits) <= 15 or not (digits.isascii() and digits.isdigit()):
        raise ValueError("write a number prefix of 1 to 15 digits, such as +882 or 4990")
    return digits


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    Field(ge=0, le=DURATION_S_MAX, json_schema_extra={"format": "duration"}),
    PlainSerializer(format_duration, return_type=str),
]
"""Seconds; written as "90s", "3m", "1h30m" or "2d"."""

Amount = Annotated[
    int,
    BeforeValidator(_parse_micros),
    Field(ge=0),
    PlainSerializer(lambda micros: format_amount(micros), return_type=str),
]
"""Micros; written as "12.50"."""

Network = Annotated[str, AfterValidator(_network)]
"""An IPv4 or IPv6 address or network, normalised."""

NumberPrefix = Annotated[str, AfterValidator(_prefix)]
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


_COUNTRY = re.compile(r"[A-Z]{2}", re.ASCII)
_LIST_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def _country(value: str) -> str:
    if _COUNTRY.fullmatch(value.upper()) is None:
        raise ValueError("write a country as two letters of ISO 3166, such as DE")
    return value.upper()


def _list_name(value: str) -> str:
    if _LIST_NAME.fullmatch(value) is None:
        raise ValueError("write a list's name, 1 to 64 of A-Z a-z 0-9 . _ -")
    return value


PeakHours = Annotated[str, AfterValidator(_peak_hours)]
"""Hours of a week, as callwarden.kernel.hours reads them; empty: none given."""

TimeZone = Annotated[str, AfterValidator(_time_zone)]
"""An IANA name; empty: none given."""

Country = Annotated[str, AfterValidator(_country)]
"""ISO 3166-1 alpha-2, in capitals."""

ListName = Annotated[str, AfterValidator(_list_name)]
"""The name of a number list."""
