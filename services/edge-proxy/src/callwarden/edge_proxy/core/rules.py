"""The policy as the edge needs it on its hot path: compiled once for each realm and bundle.

In: what the edge enforces. Out: what fields mean and how policies merge (callwarden.policy).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from callwarden.limits.windows import WindowShape
from callwarden.policy.bundle import PolicySet
from callwarden.policy.model import PolicySpec
from callwarden.sip.digest import Algorithm

Network = IPv4Network | IPv6Network

# spec.authentication.digest.algorithms: offered in this order, and accepted. RFC 8760 2.3 wants the best first; but
# SIPp 3.6 and others look at the first challenge only, know only MD5, and would never get in. Policy 2 is for those
# whose phones know better.
_OFFERED: dict[int, tuple[Algorithm, ...]] = {
    0: (Algorithm.MD5,),
    1: (Algorithm.MD5, Algorithm.SHA_256),
    2: (Algorithm.SHA_256,),
}
_ACCEPTED: dict[int, frozenset[Algorithm]] = {
    0: frozenset({Algorithm.MD5}),
    1: frozenset(Algorithm),
    2: frozenset({Algorithm.SHA_256, Algorithm.SHA_512_256}),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The effective settings of one realm."""

    revision: int
    allow: tuple[Network, ...]
    deny: tuple[Network, ...]
    scanners: tuple[str, ...]  # lower case
    blocked_agents: tuple[str, ...]  # lower case
    messages: WindowShape
    messages_max: int
    wrong: WindowShape
    wrong_max: int
    failures: WindowShape
    failures_max: int
    ban_s: int
    offered: tuple[Algorithm, ...]
    accepted: frozenset[Algorithm]
    nonce_lifetime_s: int
    absolute_timeout_s: int
    call_timeout_s: int
    ring_timeout_s: int
    call_init_timeout_s: int
    probe_s: int  # 0: never
    quota_status: int
    transfers: int
    grace_s: int

    @classmethod
    def compile(cls, spec: PolicySpec, revision: int) -> "Rules":
        return cls(
            revision=revision,
            allow=tuple(ip_network(network) for network in spec.firewall.allow),
            deny=tuple(ip_network(network) for network in spec.firewall.deny),
            scanners=tuple(part.lower() for part in spec.sip.scanners),
            blocked_agents=tuple(part.lower() for part in spec.sip.blocked_user_agents),
            messages=WindowShape(spec.messages.per_address.period),
            messages_max=spec.messages.per_address.max,
            wrong=WindowShape(spec.messages.wrong_per_address.period),
            wrong_max=spec.messages.wrong_per_address.max,
            failures=WindowShape(spec.auth_failures.period),
            failures_max=spec.auth_failures.per_address.max,
            ban_s=spec.messages.reset_after,
            offered=_OFFERED[spec.authentication.digest.algorithms],
            accepted=_ACCEPTED[spec.authentication.digest.algorithms],
            nonce_lifetime_s=spec.authentication.digest.nonce_lifetime,
            absolute_timeout_s=spec.session.absolute_timeout,
            call_timeout_s=spec.session.call_timeout,
            ring_timeout_s=spec.session.ring_timeout,
            call_init_timeout_s=spec.session.call_init_timeout,
            probe_s=spec.session.probe,
            transfers=spec.routing.transfers,
            quota_status=spec.spend.reject_status,
            grace_s=spec.spend.grace,
        )


class RuleBook:
    """The rules of every realm we serve, of one revision. Swapped whole; a realm's are compiled at its first request,
    so that a change of many realms' policies doesn't stall the calls of all."""

    __slots__ = ("_by_realm", "_policies", "default", "revision")

    def __init__(self, policies: PolicySet, realms: tuple[str, ...]) -> None:
        """`realms`: those served; the first one's rules apply while sender and target are unknown."""
        self.revision = policies.revision
        self._policies = policies
        self._by_realm: dict[str, Rules | None] = dict.fromkeys(realms)
        self.default = Rules.compile(policies.for_realm(realms[0]), policies.revision)

    def for_realm(self, realm: str) -> Rules:
        rules = self._by_realm.get(realm)
        if rules is not None:
            return rules
        if realm not in self._by_realm:
            return self.default
        rules = self._by_realm[realm] = Rules.compile(self._policies.for_realm(realm), self.revision)
        return rules


def contains(networks: tuple[Network, ...], host: str) -> bool:
    """Whether an address, as text, is in one of the networks. An IPv4 address mapped into IPv6 counts as itself."""
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)
