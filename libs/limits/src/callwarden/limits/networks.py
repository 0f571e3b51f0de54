"""What counts as one address: one of IPv4, or a /64 of IPv6, whose holder mostly has all of it (RFC 6177)."""

from functools import lru_cache
from ipaddress import AddressValueError, IPv6Network


@lru_cache(16_384)
def network_of(host: str) -> str:
    """The /64 of an IPv6 address, as "2001:db8:1:2::/64"; of anything else the text itself."""
    if ":" not in host:
        return host
    try:
        return str(IPv6Network((host, 64), strict=False))
    except AddressValueError:
        return host
