"""The small words of RFC 3261 section 25: tokens, quoted strings, parameters, lists, hosts.

In: text without line breaks (folding is undone by ``message``).  Out: the headers made of these words, one module each.
Everything here reads its input once from left to right; no expression can backtrack over more than a run of blanks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from callwarden.sip.malformed import Malformed

PARAMS_MAX = 64  # A Contact of an IMS phone carries about twenty.
LIST_MAX = 70  # As many Vias as Max-Forwards lets a request pass (RFC 3261 8.1.1.6); other lists are shorter.

# Values read are remembered: the messages of a call repeat the same few.  What comes from strangers fills the caches,
# so both their places and what one may hold are bounded: about 5 MB each at worst.
CACHED_MAX = 4096
CACHED_CHARS_MAX = 256

TOKEN = r"[A-Za-z0-9\-.!%*_+`'~]+"  # noqa: S105 - no password
QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'

_is_token = re.compile(TOKEN).fullmatch
_quoted_at = re.compile(QUOTED, re.DOTALL).match
# Values are read liberally (tags and branches with '=', IPv6 without brackets as in RFC 5118 4.5), but never across
# what ends a value for another reader.
_param_at = re.compile(
    r"[ \t]*;[ \t]*(" + TOKEN + r")(?:[ \t]*=[ \t]*(" + QUOTED + r'|[^;,"<>\\ \t]+))?[ \t]*', re.DOTALL
).match
_pair = re.compile(r"\\(.)", re.DOTALL)
_is_name = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._\-]*[A-Za-z0-9.])?").fullmatch
_top_level = re.compile(r'["<>,]')

Params = dict[str, str | None]  # names in lower case, in their order; None: a parameter without a value


def is_token(text: str) -> bool:
    return _is_token(text) is not None


def unquote(text: str) -> str:
    """The content of a quoted string, escapes undone (RFC 3261 25.1); other text as it is."""
    if len(text) >= 2 and text[0] == '"' and text[-1] == '"':
        text = text[1:-1]
        return unescape(text) if "\\" in text else text
    return text


def unescape(text: str) -> str:
    """Without the backslashes that quote the character behind them."""
    return _pair.sub(r"\1", text)


def quote(text: str) -> str:
    """The text as a quoted string.  Raises ValueError for line breaks, which no quoting makes harmless."""
    if "\r" in text or "\n" in text:
        raise ValueError("line break in a quoted string")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def quoted_end(text: str, start: int) -> int:
    """The index behind the quoted string that begins at ``start``."""
    found = _quoted_at(text, start)
    if found is None:
        raise Malformed("Unbalanced Quotes")
    return found.end()


def parse_params(text: str, start: int = 0) -> Params:
    """``;name=value;name`` to the end of the text.  Values stay as written, quotes included."""
    params: Params = {}
    at, end = start, len(text)
    while at < end:
        found = _param_at(text, at)
        if found is None:
            raise Malformed("Bad Parameter")
        name, value = found.groups()
        name = name.lower()
        if name in params:
            raise Malformed("Repeated Parameter")  # RFC 3261 7.3.1: any parameter name at most once
        params[name] = value
        if len(params) > PARAMS_MAX:
            raise Malformed("Too Many Parameters")
        at = found.end()
    return params


def format_params(params: Mapping[str, str | None]) -> str:
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in params.items()])


def split_list(text: str) -> list[str]:
    """Elements of a comma-separated list, blanks around them cut; commas in quotes and in <> do not separate."""
    if "," not in text:
        return [text.strip(" \t")]
    parts: list[str] = []
    start = at = 0
    in_angle = False
    while found := _top_level.search(text, at):
        at = found.end()
        match found[0]:
            case '"' if not in_angle:
                at = quoted_end(text, found.start())
            case "<":
                in_angle = True
            case ">":
                in_angle = False
            case "," if not in_angle:
                parts.append(text[start : at - 1].strip(" \t"))
                start = at
                if len(parts) >= LIST_MAX:
                    raise Malformed("Too Many List Elements")
            case _:
                pass
    parts.append(text[start:].strip(" \t"))
    if "" in parts:
        raise Malformed("Empty List Element")
    return parts


@lru_cache(1024)
def check_host(host: str) -> None:
    """A host name, an IPv4 address or a bracketed IPv6 address (RFC 3261 25.1 host), or Malformed."""
    if host[:1] == "[":
        try:
            IPv6Address(host[1:-1] if host[-1] == "]" else "")
        except AddressValueError:
            raise Malformed("Bad Host") from None
        if "%" in host:  # a zone id means nothing to the reader at the other end
            raise Malformed("Bad Host")
    elif _is_name(host) is None or len(host) > 255:  # RFC 1035 2.3.4
        raise Malformed("Bad Host")


def parse_port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise Malformed("Bad Port")
    return port


def parse_uint(text: str, name: str, high: int = 0xFFFFFFFF) -> int:
    """Decimal digits up to ``high``.  ``name`` goes into the reason."""
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or (number := int(text)) > high:
        raise Malformed(f"Bad {name}")
    return number
