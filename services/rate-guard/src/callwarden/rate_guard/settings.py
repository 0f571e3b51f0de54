"""Settings of a rate-guard process, read from its environment."""

from typing import Annotated

from pydantic import Field, field_validator

from callwarden.common import settings
from callwarden.common.settings import Bracketed
from callwarden.rate_guard.core.addresses import Networks
from callwarden.rate_guard.core.counters import ADDRESSES_MAX, ENDPOINTS_MAX


class RateGuardSettings(settings.Settings):
    """Settings of every process, and these. Environment variables have the prefix CALLWARDEN_."""

    realms: str = Field(default="callwarden.local", min_length=1, max_length=4_096)
    """Domains served, separated by commas, as at the edges. An address has no realm: the first one's policy applies to
    addresses, here as at the edges."""

    own_addresses: str = ""
    """Addresses and networks of this installation, separated by commas: edges, switches, carriers, the cluster's nodes.
    Never banned, even if an attacker spoofs them."""

    advertise: Annotated[str, Bracketed] = ""
    """host:port at which the edges reach this process. Empty: the host of grpc_listen (the pod's address if that is all
    addresses) and the port it got."""

    addresses_max: Annotated[int, Field(ge=1_000, le=10_000_000)] = ADDRESSES_MAX
    """Most addresses with counters, 0.7 KB each. Beyond that, harmless ones are forgotten first."""

    endpoints_max: Annotated[int, Field(ge=1_000, le=10_000_000)] = ENDPOINTS_MAX
    """Most endpoints (address and port) with counters, 0.7 KB each."""

    @field_validator("own_addresses")
    @classmethod
    def _is_networks(cls, value: str) -> str:
        try:
            Networks(_parts(value))
        except ValueError:
            raise ValueError("separate addresses or networks by commas, such as 192.0.2.7,10.0.0.0/8") from None
        return value

    @property
    def realm(self) -> str:
        """The realm whose policy applies to addresses."""
        return self.realms.partition(",")[0].strip().lower()

    def own_networks(self) -> tuple[str, ...]:
        return _parts(self.own_addresses)


def _parts(value: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, value.split(","))))
