"""The kinds of value that a policy field can have beyond JSON's own: durations, amounts, networks, rule modes."""

import ipaddress
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

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
