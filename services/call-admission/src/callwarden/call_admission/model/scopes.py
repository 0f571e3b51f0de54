"""Who has counters: the kinds of scopes, and the ids of those that belong to no account (a realm, the system, a source
address, a carrier)."""

from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from callwarden.limits.networks import source_of

ACCOUNT: Final = "account"
RESELLER: Final = "reseller"
REALM: Final = "realm"
SYSTEM: Final = "system"
ADDRESS: Final = "address"
CARRIER: Final = "carrier"
OWNERS: Final = (ACCOUNT, RESELLER, REALM, SYSTEM, ADDRESS, CARRIER)

_SCOPES: Final = UUID("b7a8d1a4-6f5e-4a53-9d2c-0a0b5e6a9f31")


def address_scope(realm: str, address: str) -> UUID:
    """The scope of a source address, of IPv6 its /64. By realm, since each realm has its own limits and period."""
    return scope_of(ADDRESS, f"{realm} {source_of(address)}")


@lru_cache(16_384)  # Realms, carriers and the addresses of the last minutes; 0.3 KB each.
def scope_of(kind: str, name: str) -> UUID:
    """The scope of an owner that is no account: a realm, the system, a source address, a carrier."""
    return uuid5(_SCOPES, f"{kind}:{name}")
