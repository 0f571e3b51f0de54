"""Ban resources: which address is banned by which of them, and until when.

In: what a schema can't check, times that are up, two that name one address, namespaces that may ban none. Out: banning
them (app.bans).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from callwarden.kernel.clock import UnixS
from callwarden.policy.resources import BanSpec
from callwarden.policy.values import seconds_of
from callwarden.security_policy_operator.core.realms import RealmGrants
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal, spec_of

_NEAR_S: Final = 3.0  # rate-guard keeps whole seconds, and the call takes a moment


@dataclass(frozen=True, slots=True)
class BanOrder:
    """An address that is to be banned."""

    address: str
    reason: str
    until_s: float | None
    """Unix time; None: for as long as the resource is there."""

    def is_met_by(self, ban: "AppliedBan") -> bool:
        """Whether a ban in force is this one."""
        if self.until_s is None or not ban.until_s:
            ends_alike = self.until_s is None and not ban.until_s
        else:
            ends_alike = abs(ban.until_s - self.until_s) < _NEAR_S
        return ends_alike and ban.reason == self.reason


@dataclass(frozen=True, slots=True)
class AppliedBan:
    """A ban in force."""

    reason: str
    until_s: float
    """Unix time; 0: until it is lifted."""


def decide(
    resources: Iterable[ManagedResource], unix_s: UnixS, grants: RealmGrants
) -> list[tuple[ManagedResource, BanOrder | Refusal]]:
    """What becomes of each resource that isn't being deleted, the older ones first."""
    found: list[tuple[ManagedResource, BanOrder | Refusal]] = []
    banned: dict[str, ManagedResource] = {}
    for resource in sorted((one for one in resources if not one.is_deleted), key=lambda one: one.age):
        decision = grants.deny_ban(resource) or _read(resource, unix_s)
        if isinstance(decision, BanOrder) and banned.setdefault(decision.address, resource) is not resource:
            other = banned[decision.address].metadata
            name = f"{other.get('namespace')}/{other.get('name')}"
            decision = Refusal("Conflict", f"spec.address is banned by the older Ban {name}.")
        found.append((resource, decision))
    return found


def address_of(resource: ManagedResource) -> str:
    """The address that it names in its one spelling, also of an invalid resource; "" if there is none."""
    spec = resource.body.get("spec")
    try:
        return _spelt(str(spec.get("address", ""))) if isinstance(spec, Mapping) else ""
    except ValueError:
        return ""


def _read(resource: ManagedResource, unix_s: UnixS) -> BanOrder | Refusal:
    spec = spec_of(resource, BanSpec)
    if isinstance(spec, Refusal):
        return spec
    until_s = _until_s(spec, resource.metadata)
    if until_s is not None and until_s <= unix_s:
        return Refusal("Expired", "Its time is up.", accepted=True)
    return BanOrder(_spelt(spec.address), spec.reason, until_s)


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
