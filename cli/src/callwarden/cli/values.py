"""What people type, made into values; a slip is a Misuse that says how it is written."""

import ipaddress
import secrets
import string
import sys
from datetime import datetime
from typing import Final

import typer

from callwarden.cli.failure import CliMisuse
from callwarden.kernel.clock import UnixS

_PASSWORD_ALPHABET: Final = string.ascii_letters + string.digits
_PASSWORD_LENGTH: Final = 20  # 119 bits: not guessable, and it still fits a phone's screen.


def amount(text: str, *, name: str = "amount") -> int:
    """Micros of "12.50"."""
    from callwarden.kernel.money import BadAmount, parse_amount

    try:
        return parse_amount(text)
    except BadAmount as error:
        raise CliMisuse(f"{name}: {error}") from error


def seconds(text: str, *, name: str = "duration") -> int:
    """Seconds of "90s", "1h30m", "2d" or "90"."""
    from callwarden.policy.values import parse_duration

    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return int(parse_duration(text))
    except ValueError as error:
        raise CliMisuse(f"{name}: {error}") from error


def moment(text: str, zone: str, unix_s: UnixS, *, name: str) -> float:
    """Seconds since 1970 of "2026-11-25 08:00" or "08:00" (today) as clocks of that zone show it, or with an offset of
    its own ("2026-11-25T08:00+01:00")."""
    from zoneinfo import ZoneInfo

    place = ZoneInfo(zone)
    try:
        if len(text) == len("08:00"):
            text = f"{datetime.fromtimestamp(unix_s, place).date()} {text}"
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise CliMisuse(f"{name}: not a moment: {text[:64]!r} (write 2026-11-25 08:00, or 08:00 for today)") from error
    return (at if at.tzinfo is not None else at.replace(tzinfo=place)).timestamp()


def since(text: str, unix_s: UnixS, *, name: str = "--since") -> float:
    """Seconds since 1970 of "24h" (ago) or of "2026-11-01", "2026-11-01 08:00" by this machine's clock."""
    if "-" not in text:
        return unix_s - seconds(text, name=name)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise CliMisuse(f"{name}: neither a duration nor a day: {text[:64]!r} (write 24h, or 2026-11-01)") from error


def number(text: str, *, name: str = "number") -> str:
    """E.164 digits of "+44 20 7946 0101"."""
    from callwarden.kernel.phone import E164, BadNumber

    try:
        return E164.parse(text).digits
    except BadNumber as error:
        raise CliMisuse(f"{name}: {error}; write it internationally, such as +442079460101") from error


def address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise CliMisuse(f"not an address: {text[:64]!r} (write one such as 192.0.2.7 or 2001:db8::7)") from error


def limit(text: str, *, name: str) -> int | None:
    """A count, or None for "none"."""
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise CliMisuse(f"{name}: write a whole number, or `none` to go by the policy")
    return int(text)


def secret(given: str | None, *, what: str) -> str:
    """A password as given; "-" reads a line from standard input; None asks on the terminal."""
    if given == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise CliMisuse(f"{what} is needed: --password - reads it from standard input, --generate makes one")
    return str(typer.prompt(what, hide_input=True, confirmation_prompt=True))


def password_of(user: str, given: str | None) -> str:
    """The password that somebody has already, asked once; "-" reads a line from standard input."""
    if given is None and sys.stdin.isatty():
        return str(typer.prompt(f"SIP password of {user}", hide_input=True))
    if given is None:
        raise CliMisuse(f"the SIP password of {user} is needed: --password - reads it from standard input")
    return secret(given, what=f"SIP password of {user}")


def new_password() -> str:
    return "".join(secrets.choice(_PASSWORD_ALPHABET) for _ in range(_PASSWORD_LENGTH))
