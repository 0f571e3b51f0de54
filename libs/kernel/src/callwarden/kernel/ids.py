"""Identifiers. Random and not sequential, so that inserts spread over CockroachDB's ranges."""

import uuid


def from_bytes(random_16: bytes) -> uuid.UUID:
    """A version 4 UUID (RFC 9562 section 5.4) of 16 random bytes; chance is the caller's argument."""
    return uuid.UUID(bytes=random_16, version=4)


def parse(text: str) -> uuid.UUID | None:
    """The UUID that text is in its canonical 36-character form, or None. Other spellings of uuid.UUID aren't taken."""
    if len(text) != 36:
        return None
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
