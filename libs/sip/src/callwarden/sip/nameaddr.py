"""Name-addr (RFC 3261 20.10): From, To, Contact, Route, Record-Route and their like.

In: a display name, a URI, parameters.  Out: lists of them (``grammar.split_list``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from callwarden.sip.grammar import (
    CACHED_CHARS_MAX,
    CACHED_MAX,
    Params,
    format_params,
    parse_params,
    quote,
    quoted_end,
    unquote,
)
from callwarden.sip.malformed import Malformed
from callwarden.sip.uri import Uri, parse_uri

# Without quotes only tokens are legal; phones send umlauts, dots, brackets and mail addresses as well.  What would end
# the name for another reader stays refused.
_is_display = re.compile(r"[^\"<>,;:\\]*").fullmatch


class NameAddr(NamedTuple):
    """``"Bob" <sip:bob@example.com>;tag=1``.  A NamedTuple for the same reason as Uri.

    ``display`` has its quotes and escapes undone, '' where there is none.
    """

    display: str
    uri: Uri
    params: Mapping[str, str | None]

    @property
    def tag(self) -> str | None:
        return self.params.get("tag")

    def __str__(self) -> str:
        display = f"{quote(self.display)} " if self.display else ""
        return f"{display}<{self.uri}>{format_params(self.params)}" if self.params else f"{display}<{self.uri}>"


def parse_name_addr(text: str) -> NameAddr:
    """Read one name-addr or addr-spec with its header parameters.  Raises Malformed."""
    return _parse_short(text) if len(text) <= CACHED_CHARS_MAX else _parse(text)


def _parse(text: str) -> NameAddr:
    display = ""
    start = 0
    if text[:1] == '"':
        start = quoted_end(text, 0)
        display = unquote(text[:start])
    angle = text.find("<", start)
    if angle < 0:
        if start:
            raise Malformed("Bad Address")
        # 20.10: without brackets whatever follows ';' belongs to the header, and '?' or ',' must not be there.
        semicolon = text.find(";")
        addr_spec = text if semicolon < 0 else text[:semicolon]
        if "?" in addr_spec or "," in addr_spec:
            raise Malformed("URI Needs Angle Brackets")
        return NameAddr("", parse_uri(addr_spec.strip(" \t")), {} if semicolon < 0 else parse_params(text, semicolon))
    end = text.find(">", angle)
    if end < 0:
        raise Malformed("Unbalanced Angle Brackets")
    if start:
        if text[start:angle].strip(" \t"):
            raise Malformed("Bad Display Name")
    elif angle:
        display = text[:angle].strip(" \t")
        if _is_display(display) is None:
            raise Malformed("Bad Display Name")
    end += 1
    params: Params = {} if end == len(text) else parse_params(text, end)
    return NameAddr(display, parse_uri(text[angle + 1 : end - 1]), params)


_parse_short = lru_cache(CACHED_MAX)(_parse)  # From and To are the same in all messages of a call
