"""URIs (RFC 3261 19.1, RFC 3966): read, compared, written.

In: sip, sips and tel in parts; any other scheme is kept whole in ``opaque``.  Out: where a URI leads (RFC 3263), and
numbers (``callwarden.kernel`` knows those).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from callwarden.sip.address import BadAddress, Endpoint, endpoint
from callwarden.sip.grammar import (
    CACHED_CHARS_MAX,
    CACHED_MAX,
    PARAMS_MAX,
    Params,
    check_host,
    format_params,
    parse_port,
)
from callwarden.sip.malformed import Malformed

PORTS = {"sip": 5060, "sips": 5061}  # RFC 3261 19.1.2
URI_MAX = 2048  # No dialled URI is longer; one with an embedded body would be.

_scheme_at = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):").match
# '#' is not in the RFC's user part, but phones dial *31#5551234 as it is.
_sip_parts = re.compile(
    r"(?:([A-Za-z0-9\-_.!~*'()&=+$,;?/%#]+)(?::([A-Za-z0-9\-_.!~*'()&=+$,%]*))?@)?"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::([0-9]{1,5}))?"
    r"((?:;[^;?<>\"@\s]+)*)(?:\?([^<>\"\s?]+))?"
).fullmatch
_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_tel_parts = re.compile(r"(\+?[0-9A-Fa-f*#\-.()]+)((?:;[^;?<>\"@\s]+)*)").fullmatch
_control = re.compile(r"[\x00-\x1f\x7f]").search
_is_opaque = re.compile(r"[^<>\"\s\x00-\x1f\x7f]+").fullmatch
_is_param_name = re.compile(r"[A-Za-z0-9\-_.!~*'()\[\]/:&+$%]+").fullmatch


class Uri(NamedTuple):
    """A URI in parts.  A NamedTuple and not a frozen dataclass: several are made for each message, at half the price.

    ``user`` and ``password`` are as written, escapes and all (``username`` undoes them); ``host`` is as written, IPv6
    in brackets; ``params`` have names in lower case.  For tel ``user`` is the number; for other schemes all is in
    ``opaque``.
    """

    scheme: str  # lower case
    user: str | None
    password: str | None
    host: str
    port: int | None
    params: Mapping[str, str | None]
    headers: str  # what follows '?', not taken apart
    opaque: str = ""

    @property
    def username(self) -> str:
        """The user part with %-escapes undone; '' where there is none.

        Raises Malformed if that is not UTF-8 text or has control characters: such URIs are legal (RFC 4475 3.1.1.4),
        but no user has such a name, and databases and logs choke on it.
        """
        user = self.user or ""
        if "%" not in user:
            return user
        try:
            name = unquote_to_bytes(user).decode()
        except UnicodeDecodeError:
            raise Malformed("Bad Escape in URI") from None
        if _control(name):
            raise Malformed("Control Character")
        return name

    @property
    def is_sip(self) -> bool:
        return self.scheme in ("sip", "sips")

    @property
    def endpoint(self) -> Endpoint:
        """Host and port as written, or the port of the scheme.  Raises Malformed where there is no such place."""
        port = self.port or PORTS.get(self.scheme)
        if port is None:
            raise Malformed("Unsupported URI Scheme", 416)
        try:
            return endpoint(self.host, port)
        except BadAddress:
            raise Malformed("Bad Host") from None

    @property
    def is_loose(self) -> bool:
        """Names a loose router (RFC 3261 16.4 and 19.1.1, parameter lr)."""
        return "lr" in self.params

    @property
    def transport(self) -> str:
        """The transport parameter in lower case, '' where none is given."""
        return (self.params.get("transport") or "").lower()

    def matches(self, other: Uri) -> bool:
        """Equal by RFC 3261 19.1.4 (transport, user, ttl, method, maddr differ if only one side has them)."""
        if not (self.is_sip and other.is_sip):
            return str(self) == str(other)
        if (
            self.scheme != other.scheme
            or _unescape(self.user) != _unescape(other.user)
            or _unescape(self.password) != _unescape(other.password)
            or self.host.lower() != other.host.lower()
            or self.port != other.port
        ):
            return False
        mine, theirs = self.params, other.params
        for name in mine.keys() | theirs.keys():
            if name in mine and name in theirs:
                if (_unescape(mine[name]) or "").lower() != (_unescape(theirs[name]) or "").lower():
                    return False
            elif name in ("transport", "user", "ttl", "method", "maddr"):
                return False
        return sorted(filter(None, self.headers.split("&"))) == sorted(filter(None, other.headers.split("&")))

    def __str__(self) -> str:
        if self.opaque:
            return f"{self.scheme}:{self.opaque}"
        if self.scheme == "tel":
            return f"tel:{self.user}{format_params(self.params)}"
        text = self.scheme + ":"
        if self.user is not None:
            text += self.user if self.password is None else f"{self.user}:{self.password}"
            text += "@"
        text += self.host
        if self.port is not None:
            text += f":{self.port}"
        if self.params:
            text += format_params(self.params)
        return f"{text}?{self.headers}" if self.headers else text


def _unescape(text: str | None) -> str | None:
    return text if text is None or "%" not in text else unquote_to_bytes(text).decode("latin-1")


def _parse_uri_params(text: str) -> Params:
    params: Params = {}
    for part in text.split(";")[1:]:
        name, equals, value = part.partition("=")
        name = name.lower()
        if _is_param_name(name) is None or name in params:  # 19.1.1: a parameter at most once
            raise Malformed("Bad URI Parameter")
        params[name] = value if equals else None
        if len(params) > PARAMS_MAX:
            raise Malformed("Too Many Parameters")
    return params


def parse_uri(text: str) -> Uri:
    """Read a URI without blanks or angle brackets around it.  Raises Malformed (status 400; 414 if too long)."""
    if len(text) <= CACHED_CHARS_MAX:
        return _parse_short(text)
    if len(text) > URI_MAX:
        raise Malformed("URI Too Long", 414)
    return _parse(text)


def _parse(text: str) -> Uri:
    found = _scheme_at(text)
    if found is None:
        raise Malformed("Bad URI")
    scheme = found[1].lower()
    rest = text[found.end() :]
    if scheme in ("sip", "sips"):
        parts = _sip_parts(rest)
        if parts is None or ("%" in rest and _bad_escape(rest)):
            raise Malformed("Bad URI")
        user, password, host, port, params, headers = parts.groups()
        check_host(host)
        return Uri(
            scheme,
            user,
            password,
            host,
            None if port is None else parse_port(port),
            _parse_uri_params(params) if params else {},
            headers or "",
        )
    if scheme == "tel":
        parts = _tel_parts(rest)
        if parts is None:
            raise Malformed("Bad URI")
        number, params = parts.groups()
        return Uri("tel", number, None, "", None, _parse_uri_params(params), "")
    if _is_opaque(rest) is None:
        raise Malformed("Bad URI")
    return Uri(scheme, None, None, "", None, {}, "", rest)


# The messages of a call repeat the same few URIs.
_parse_short = lru_cache(CACHED_MAX)(_parse)
