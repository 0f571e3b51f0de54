"""The settings of an edge process: where it listens, which domains it serves, which services it asks."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, model_validator

from callwarden.common.settings import Bracketed, Listen, split_listen
from callwarden.common.settings import Settings as CommonSettings
from callwarden.edge_proxy.core.keys import BadKeys, parse_masters
from callwarden.sip.address import BadAddress, parse_endpoint
from callwarden.sip.via import PORT_DEFAULT

_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


class EdgeSettings(CommonSettings):
    """`CALLWARDEN_` and the field's name."""

    sip_listen: Listen = "127.0.0.1:5060"
    """UDP socket for SIP. Port 0 lets the kernel choose (the ready file says which)."""

    sip_advertised: Annotated[
        str, Bracketed, Field(pattern=r"^$|^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-]+):[0-9]{1,5}$")
    ] = ""
    """host:port that others reach us by, named in Via and Record-Route. Needed where sip_listen is a wildcard."""

    realms: str = Field(default="callwarden.local", max_length=4_096, pattern=r"^[A-Za-z0-9.,_ \-]+$")
    """Domains served, with commas; the first is the digest realm where a request names none of them."""

    spool_dir: Path = Path("spool")
    """Where events wait while NATS is away. One process owns it."""

    nonce_key: SecretStr = SecretStr("")
    """Hexadecimal, 32 digits or more; with commas while keys are rotated: the first signs, all verify. Required."""

    auth_targets: str = "127.0.0.1:0"
    admission_targets: str = "127.0.0.1:0"
    rate_guard_targets: str = ""
    """host:port of each service, with commas. rate-guard's members are found in NATS; these are used until then."""

    auth_timeout_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    admission_timeout_s: Annotated[float, Field(gt=0, le=10)] = 3.0
    """A caller hears nothing for longer than that only if he also waits for a carrier."""

    receive_buffer_bytes: Annotated[int, Field(ge=65_536, le=256 * 1024 * 1024)] = 8 * 1024 * 1024
    """SO_RCVBUF: 8 MiB hold 9,000 datagrams, what comes in 0.3 s of a restarted neighbour's phones."""

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        if not self.sip_advertised and split_listen(self.sip_listen)[0] in _WILDCARDS:
            raise ValueError("sip_advertised is needed where sip_listen is a wildcard address")
        try:
            parse_masters(self.nonce_key.get_secret_value())
        except BadKeys as error:
            raise ValueError(f"nonce_key: {error}") from None
        if self.sip_advertised:
            try:
                parse_endpoint(self.sip_advertised, PORT_DEFAULT)
            except BadAddress as error:
                raise ValueError(f"sip_advertised: {error}") from None
        if not self.realm_names:
            raise ValueError("realms names no domain")
        return self

    @property
    def realm_names(self) -> tuple[str, ...]:
        return tuple(part.strip().lower() for part in self.realms.split(",") if part.strip())


def targets(text: str) -> tuple[str, ...]:
    """The addresses in a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
