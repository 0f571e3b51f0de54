"""Ban resources: which address is banned by which of them, and until when.

In: what a schema can't check, times that are up, two that name one address. Out: asking rate-guard (adapters/bans).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from callwarden.policy.resources import BanSpec
from callwarden.policy.values import seconds_of
from callwarden.security_policy_operator.core.declared import Refusal, spec_of
from callwarden.security_policy_operator.core.plan import Source

_NEAR_S: Final = 3.0  # whole seconds are kept, and asking takes a moment


@dataclass(frozen=True, slots=True)
class Order:
    """An address is to be banned."""

    address: str
    reason: str
    until_s: float | None
    """Unix time; None: for as long as the resource is there."""

    def is_kept_by(self, reason: str, until_s: float) -> bool:
        """Whether a ban that stands, 0 seconds for good, is this one."""
        if self.until_s is None or not until_s:
            ends_alike = self.until_s is None and not until_s
        else:
            ends_alike = abs(until_s - self.until_s) < _NEAR_S
        return ends_alike and reason == self.reason


def decide(sources: Iterable[Source], now_s: float) -> list[tuple[Source, Order | Refusal]]:
    """What becomes of each resource that isn't being deleted, the older ones first."""
    found: list[tuple[Source, Order | Refusal]] = []
    banned: dict[str, Source] = {}
    for source in sorted((one for one in sources if not one.is_leaving), key=lambda one: one.age):
        decision = _read(source, now_s)
        if isinstance(decision, Order) and banned.setdefault(decision.address, source) is not source:
            other = banned[decision.address].metadata
            name = f"{other.get('namespace')}/{other.get('name')}"
            decision = Refusal("Conflict", f"spec.address is banned by the older Ban {name} already.")
        found.append((source, decision))
    return found


def address_of(source: Source) -> str:
    """The address that it names in its one spelling, also of a resource that is wrong; "" if there is none."""
    spec = source.body.get("spec")
    try:
        return _spelt(str(spec.get("address", ""))) if isinstance(spec, Mapping) else ""
    except ValueError:
        return ""


def _read(source: Source, now_s: float) -> Order | Refusal:
    spec = spec_of(source, BanSpec)
    if isinstance(spec, Refusal):
        return spec
    until_s = _until_s(spec, source.metadata)
    if until_s is not None and until_s <= now_s:
        return Refusal("Expired", "Its time is up.", accepted=True)
    return Order(_spelt(spec.address), spec.reason, until_s)


def _until_s(spec: BanSpec, metadata: Mapping[str, Any]) -> float | None:
    if spec.until is not None:
        return seconds_of(spec.until)
    if spec.duration is None:
        return None
    return datetime.fromisoformat(str(metadata["creationTimestamp"])).timestamp() + spec.duration


def _spelt(address: str) -> str:
    """As rate-guard has it: an IPv4 address that is written as an IPv6 one is the IPv4 address."""
    if "%" in address:
        raise ValueError("a zone is of one machine only")
    read = ip_address(address)
    return str((read.ipv4_mapped if isinstance(read, IPv6Address) else None) or read)
