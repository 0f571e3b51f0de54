"""Tags of From and To, read the short way where the header is written as everybody writes it.

A whole read of both takes 12 µs, and ACK and BYE need nothing else of them. What isn't written that way is read whole.
"""

import re

from callwarden.sip.message import Request

# A display name without anything that could be mistaken, an address in brackets, and the tag as its only parameter.
_plain = re.compile(r'(?:"[^"\\<>]*"|[A-Za-z0-9 .\-]*)[ \t]*<sips?:[^<>"\s]+>;tag=([A-Za-z0-9\-.!%*_+`\'~]+)').fullmatch


def from_tag(request: Request) -> str | None:
    """The tag in From. Raises Malformed."""
    return _tag(request, "from")


def to_tag(request: Request) -> str | None:
    """The tag in To. Raises Malformed."""
    return _tag(request, "to")


def _tag(request: Request, name: str) -> str | None:
    found = _plain(request.get(name) or "")
    if found is not None:
        return found[1]
    return (request.from_ if name == "from" else request.to).tag
