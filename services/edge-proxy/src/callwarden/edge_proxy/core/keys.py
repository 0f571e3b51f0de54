"""The keys that all edge pods share: what signs nonces, what signs route cookies, what makes tags.

In: deriving each from the master keys, so that a nonce can never pass for a cookie. Out: where masters come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hmac import digest

from callwarden.sip.digest import NonceKeys

MASTER_BYTES_MIN = 16


class BadKeys(ValueError):
    """The master keys can't be used; the text gives the reason and nothing of the keys."""


@dataclass(frozen=True, slots=True, repr=False)
class EdgeKeys:
    """Derived keys. `cookies` maps a key's number to it; `cookie_number` signs."""

    nonces: NonceKeys
    cookies: dict[int, bytes]
    cookie_number: int
    tags: bytes


def parse_masters(text: str) -> list[bytes]:
    """The keys of a comma-separated list of hexadecimal texts, first one first. Raises BadKeys."""
    try:
        masters = [bytes.fromhex(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise BadKeys("write each key as hexadecimal digits") from None
    if not masters or any(len(master) < MASTER_BYTES_MIN for master in masters):
        raise BadKeys(f"each key needs at least {2 * MASTER_BYTES_MIN} hexadecimal digits, and there must be one")
    return masters


def derive(masters: Sequence[bytes]) -> EdgeKeys:
    """The first master signs, all verify: put a new one first everywhere, then drop the old one. Raises BadKeys."""
    # A key's number is made from the key, so that pods which hold different lists in the middle of a rotation agree.
    numbers = [_sub(master, "number")[0] for master in masters]
    if len(set(numbers)) != len(numbers):
        raise BadKeys("two keys have the same number: make another one")
    return EdgeKeys(
        nonces=NonceKeys(
            {number: _sub(master, "nonce") for number, master in zip(numbers, masters, strict=True)}, numbers[0]
        ),
        cookies={number: _sub(master, "cookie") for number, master in zip(numbers, masters, strict=True)},
        cookie_number=numbers[0],
        tags=_sub(masters[0], "tag"),
    )


def _sub(master: bytes, label: str) -> bytes:
    return digest(master, f"callwarden edge {label}".encode(), "sha256")
