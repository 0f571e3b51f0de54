"""Via (RFC 3261 20.42, RFC 3581): one hop of the way that responses take back.

In: one Via value.  Out: the list of them (``message``), DNS (RFC 3263).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from callwarden.sip.grammar import (
    CACHED_CHARS_MAX,
    CACHED_MAX,
    TOKEN,
    check_host,
    format_params,
    parse_params,
    parse_port,
)
from callwarden.sip.malformed import Malformed

MAGIC_COOKIE = "z9hG4bK"  # RFC 3261 8.1.1.7
PORT_DEFAULT = 5060

_via_at = re.compile(
    r"[Ss][Ii][Pp][ \t]*/[ \t]*2\.0[ \t]*/[ \t]*(" + TOKEN + r")[ \t]+"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?:[ \t]*:[ \t]*([0-9]{1,5}))?[ \t]*(?=;|$)"
).match
# As nearly everybody writes it, and we do: a third of the time. What it takes, the long way takes just so.
_plain = re.compile(
    r"SIP/2\.0/(UDP|TCP|TLS|WSS?) ([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::([0-9]{1,5}))?"
    r";branch=([A-Za-z0-9\-.!%*_+`'~]{1,128})(;rport)?"
).fullmatch


class Via(NamedTuple):
    """``SIP/2.0/UDP host:port;branch=…``.  A NamedTuple because one is made for each datagram."""

    transport: str  # upper case
    host: str
    port: int | None
    params: Mapping[str, str | None]

    @property
    def branch(self) -> str | None:
        return self.params.get("branch")

    @property
    def received(self) -> str | None:
        return self.params.get("received")

    @property
    def sent_by(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def wants_rport(self) -> bool:
        """The client asks for the answer at the port it sent from (RFC 3581 3)."""
        return "rport" in self.params

    def stamped(self, host: str, port: int) -> Via:
        """With received and rport as the transport saw them (RFC 3261 18.2.1, RFC 3581 4), its own replaced."""
        params = dict(self.params)
        if "rport" in params:
            params["rport"] = str(port)
            params["received"] = host
        elif self.host.strip("[]").lower() != host.lower():
            params["received"] = host
        else:
            params.pop("received", None)
        return Via(self.transport, self.host, self.port, params)

    def __str__(self) -> str:
        return f"SIP/2.0/{self.transport} {self.sent_by}{format_params(self.params)}"


def parse_via(text: str) -> Via:
    """Read one Via value.  Raises Malformed."""
    return _parse_short(text) if len(text) <= CACHED_CHARS_MAX else _parse(text)


def _parse(text: str) -> Via:
    plain = _plain(text)
    if plain is not None:
        transport, host, port, branch, rport = plain.groups()
        return Via(
            transport,
            host,
            None if port is None else parse_port(port),
            {"branch": branch} if rport is None else {"branch": branch, "rport": None},
        )
    found = _via_at(text)
    if found is None:
        raise Malformed("Bad Via")
    transport, host, port = found.groups()
    check_host(host)
    return Via(transport.upper(), host, None if port is None else parse_port(port), parse_params(text, found.end()))


_parse_short = lru_cache(CACHED_MAX)(_parse)  # each answer to a request brings the same Vias
