"""Names as keys of NATS buckets: any text becomes letters and digits, and comes back."""

import base64

_SEPARATOR = "\0"  # in no SIP user, realm or address


def key_of(*parts: str) -> str:
    """The key of `parts` (a realm and a user; an address): base32hex without padding, lower case, order-preserving.

    Base 32 because subjects allow few signs and some file systems know no case; a key of 100 bytes gets 160.
    """
    return base64.b32hexencode(_SEPARATOR.join(parts).encode()).decode().rstrip("=").lower()


def parts_of(key: str) -> tuple[str, ...]:
    """What `key_of` was given. Raises ValueError for a key that is none of its."""
    padded = key.upper() + "=" * (-len(key) % 8)
    return tuple(base64.b32hexdecode(padded).decode().split(_SEPARATOR))
