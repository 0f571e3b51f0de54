"""Where messages come from and go to: an IP address with a port, or a host name with a port (RFC 3261 18, 19.1.1).

In: text and pairs, read once; what has one of these types is never read again.  Out: looking names up, which takes a
resolver and time.

The two are different types because only one of them may reach a socket: handed to ``sendto``, a name is looked up while
the whole process waits.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

CACHED_MAX = 16_384  # The same phones and carriers come again; reading an address takes 2 µs.
NAME_MAX = 253  # RFC 1035 2.3.4, without the final dot.

_is_name = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?)*").fullmatch
# No top-level domain looks like this (RFC 3696 2), and resolvers take it for an IPv4 address: "192.0.2.7.5", "0x7f.1".
_ends_in_number = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)").fullmatch


class BadAddress(ValueError):
    """A text or a pair that is neither an IP address nor a host name, or whose port is not one."""


class _HostAndPort(NamedTuple):
    host: str
    port: int


class SocketAddress(_HostAndPort):
    """An IP address and a port from 0 to 65535.

    ``host`` is the address in its one canonical spelling (RFC 5952), without brackets; an IPv4 address mapped into IPv6
    (RFC 4291 2.5.5.2) is the IPv4 address.  So two are equal exactly if they are the same place.
    """

    __slots__ = ()

    def __new__(cls, host: str, port: int) -> SocketAddress:
        """Raises BadAddress."""
        return socket_address(host, port)

    def with_port(self, port: int) -> SocketAddress:
        return socket_address(self.host, port)

    @property
    def uri_host(self) -> str:
        """The address as a URI or Via has it: IPv6 in brackets (RFC 3261 25.1)."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.uri_host}:{self.port}"


class HostName(_HostAndPort):
    """A host name, in lower case and without a final dot, and a port.  Never an IP address in any spelling."""

    __slots__ = ()

    def __new__(cls, host: str, port: int) -> HostName:
        """Raises BadAddress."""
        return _read_name(host, port)

    @property
    def uri_host(self) -> str:
        return self.host

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


Endpoint = SocketAddress | HostName


@lru_cache(CACHED_MAX)
def canonical_ip(text: str) -> str:
    """An IP address in its canonical spelling, as in ``SocketAddress.host``.  Raises BadAddress."""
    try:
        address = ip_address(text)
    except ValueError:
        raise BadAddress(f"not an IP address: {text[:NAME_MAX]!r}") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


@lru_cache(CACHED_MAX)
def endpoint(host: str, port: int) -> Endpoint:
    """Host and port as a URI, a setting or a peer names them; IPv6 with or without brackets.  Raises BadAddress."""
    if host[:1] == "[" or ":" in host:
        return SocketAddress(host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host, port)
    try:
        return SocketAddress(host, port)
    except BadAddress:
        return HostName(host, port)


def parse_endpoint(text: str, port_default: int) -> Endpoint:
    """``host``, ``host:port``, ``[IPv6]``, ``[IPv6]:port`` or a bare IPv6 address.  Raises BadAddress."""
    host, port = _split(text)
    return endpoint(host, port_default if port is None else port)


def parse_address(text: str) -> tuple[str, int | None]:
    """A canonical IP address and, if the text names one, a port.  Raises BadAddress."""
    host, port = _split(text)
    return canonical_ip(host), port


def _split(text: str) -> tuple[str, int | None]:
    if text[:1] == "[":
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and rest[0] != ":"):
            raise BadAddress(f"unbalanced brackets: {text[:NAME_MAX]!r}")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, _port(port)
    return text, None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5:
        raise BadAddress(f"not a port: {text[:16]!r}")
    return int(text)


@lru_cache(CACHED_MAX)
def socket_address(host: str, port: int) -> SocketAddress:
    """``SocketAddress(host, port)`` at a third of its price, for each datagram.  Raises BadAddress."""
    return tuple.__new__(SocketAddress, (canonical_ip(host), _checked(port)))


@lru_cache(CACHED_MAX)
def _read_name(host: str, port: int) -> HostName:
    name = host.lower().removesuffix(".")
    if len(name) > NAME_MAX or _is_name(name) is None or _ends_in_number(name) is not None:
        raise BadAddress(f"not a host name: {host[:NAME_MAX]!r}")
    return tuple.__new__(HostName, (name, _checked(port)))


def _checked(port: int) -> int:
    if not 0 <= port <= 65_535:
        raise BadAddress(f"not a port: {port}")
    return port
