"""What phones send to the SIP port besides SIP, to keep a NAT open: never answered, not wrong, counted as nothing.

In: line ends, NULs, nothing at all (RFC 5626 3.5.1 and what phones make of it), Kapanga's `jaK`, STUN (RFC 5626
4.4.2, RFC 8489 5). Out: everything else, which is SIP or wrong.
"""

from typing import Final

_WORDS: Final = frozenset({b"jaK"})
_BLANKS: Final = b"\r\n\0"
_BLANK_BYTES_MAX: Final = 64  # No phone sends more; a datagram full of them is somebody's waste of time.
_STUN_HEAD_BYTES: Final = 20
_STUN_COOKIE: Final = b"\x21\x12\xa4\x42"


def is_keepalive(data: bytes) -> bool:
    """0.1 µs for a SIP message."""
    if data[:1].isalpha():
        return data in _WORDS
    if len(data) <= _BLANK_BYTES_MAX and not data.strip(_BLANKS):
        return True
    return _is_stun(data)


def _is_stun(data: bytes) -> bool:
    """Requests, indications and answers: the two first bits 0, the length right, the magic cookie there."""
    return (
        len(data) >= _STUN_HEAD_BYTES
        and data[0] < 0x40
        and data[4:8] == _STUN_COOKIE
        and int.from_bytes(data[2:4], "big") == len(data) - _STUN_HEAD_BYTES
    )
