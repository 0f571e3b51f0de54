"""What rate-guard is told by its environment."""

from typing import Annotated

from pydantic import Field, field_validator

from callwarden.common import settings
from callwarden.common.settings import Bracketed
from callwarden.rate_guard.core.addresses import Networks
from callwarden.rate_guard.core.counters import ADDRESSES_MAX, ENDPOINTS_MAX


class Settings(settings.Settings):
    """The process's settings and these; every name gets the prefix CALLWARDEN_."""

    realms: str = Field(default="callwarden.local", min_length=1, max_length=4_096)
    """Domains served, with commas, as the edges have them. An address has no realm: the first one's policy holds for
    what it does, here as at the edges."""

    own_addresses: str = ""
    """Addresses and networks of this installation, with commas: edges, switches, carriers, the cluster's nodes. Never
    banned, whatever an attacker makes seem to come from there."""

    advertise: Annotated[str, Bracketed] = ""
    """host:port at which the edges reach this process. Empty: grpc_listen's host (the pod's address where it listens on
    all) and the port it got."""

    addresses_max: Annotated[int, Field(ge=1_000, le=10_000_000)] = ADDRESSES_MAX
    """Addresses with counters, 0.7 KB each. When there are more, harmless ones are forgotten first."""

    endpoints_max: Annotated[int, Field(ge=1_000, le=10_000_000)] = ENDPOINTS_MAX
    """Endpoints (address and port) with counters, 0.7 KB each."""

    @field_validator("own_addresses")
    @classmethod
    def _is_networks(cls, value: str) -> str:
        try:
            Networks(_parts(value))
        except ValueError:
            raise ValueError("write addresses or networks with commas, such as 192.0.2.7,10.0.0.0/8") from None
        return value

    @property
    def realm(self) -> str:
        """Whose policy holds for addresses."""
        return self.realms.partition(",")[0].strip().lower()

    def own_networks(self) -> tuple[str, ...]:
        return _parts(self.own_addresses)


def _parts(value: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, value.split(","))))
