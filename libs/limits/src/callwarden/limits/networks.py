"""What counts as one source: an IPv4 address, or an IPv6 /64, and the /48 around it.

Whoever has one address of a /64 mostly has all of them (RFC 6177 gives a customer a /48 to a /64), so that counting,
banning and remembering by single IPv6 addresses would count nothing. Every place where an address is a key uses these.

In: addresses as text. Out: what is counted of a source (the services' cores).
"""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

SOURCE_BITS: Final = 64
WIDE_BITS: Final = 48
_CACHED_MAX: Final = 16_384


def source_of(host: str) -> str:
    """The source that an address belongs to: an IPv4 address itself, else "2001:db8:1:2::/64".

    An IPv4 address mapped into IPv6 is the IPv4 address. What is no address is returned as it is. 0.05 µs for IPv4.
    """
    return _network(host, SOURCE_BITS) if ":" in host else host


def wide_source_of(host: str) -> str:
    """The /48 of an IPv6 address or source; empty for IPv4, where nothing tells whose neighbours are whose."""
    if ":" not in host:
        return ""
    found = _network(host, WIDE_BITS)
    return found if ":" in found else ""


@lru_cache(_CACHED_MAX)
def _network(host: str, bits: int) -> str:
    text = host.partition("/")[0].partition("%")[0]  # with a zone (fe80::1%eth0) it is the same
    try:
        address = ip_address(text)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(IPv6Network((address, bits), strict=False))
