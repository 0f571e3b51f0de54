"""What each address does: counted here at memory speed, limited here, and summed up for rate-guard (DESIGN D4).

Anybody can put any address into a UDP datagram. So an address is *verified* only by a nonce of ours that came back from
it (DESIGN D16), and nothing that could have been sent in its name shuts it out: what is known is limited, what is not
shares a budget.

In: the sums since the last report, and the edge's own windows, by which it defends itself when it is alone. Out: bans
(rate-guard), who owns an address's counter (adapters).
"""

from dataclasses import dataclass
from enum import Enum

from callwarden.edge_proxy.core.rules import Rules
from callwarden.kernel.clock import MonoS
from callwarden.limits.bucket import Rate, TokenBucket
from callwarden.limits.networks import source_of, wide_source_of
from callwarden.limits.table import Entry, Table
from callwarden.limits.windows import SlidingCounter

ADDRESSES_MAX = 50_000  # 0.6 KB each; beyond, the longest unused harmless one is forgotten (callwarden.limits.table).
ADDRESS_TTL_S = 3_600.0  # The longest default window.
VERIFIED_S = 3_600.0  # How long a round trip tells who is there: phones register as often.
# Of one known address that is over a limit: ten times what a busy carrier sends, and 15 % of a core.
KNOWN_RATE = Rate(per_second=2_000, burst=4_000)
# Of all unknown addresses together that sent too much nonsense: an address that was only named as sender still gets
# an answer.
STRANGERS_RATE = Rate(per_second=200, burst=400)
WIDE_SHARE = 16  # Limits of a /48 in those of one address: a household has few /64s, an office a dozen.
ENDPOINTS_MAX = 256  # Ports and user names of one address in one report; an attacker invents names without end.


class EdgeExcess(Enum):
    """Which limit of this edge an address is over."""

    RATE = "rate"  # messages, or failed credentials: the latter nobody can send in another's name
    WRONG = "wrong"  # malformed or meaningless messages


@dataclass(slots=True)
class EndpointSum:
    """What one port did about one user name. Mutable: it is being summed."""

    failures: int = 0
    successes: int = 0
    challenges: int = 0


class AddressSum(Entry):
    """One address: sums since the last report, and its windows."""

    __slots__ = (
        "_failed",
        "_known_bucket",
        "_windows",
        "_wrong",
        "endpoints",
        "known_until_s",
        "messages",
        "verified_until_s",
        "wrong",
    )

    def __init__(self) -> None:
        super().__init__()
        self.messages = 0
        self.wrong = 0
        self.endpoints: dict[tuple[str, int, str], EndpointSum] = {}  # by address, port and user name
        self._windows = SlidingCounter()
        self._wrong: SlidingCounter | None = None
        self._failed: SlidingCounter | None = None
        self._known_bucket: TokenBucket | None = None
        self.verified_until_s = self.known_until_s = 0.0

    def add_message(self, rules: Rules, mono_s: MonoS, share: int = 1) -> EdgeExcess | None:
        """Count one; the limit of this edge that the address is over. `share`: how often it has each limit."""
        self.messages += 1
        if self._windows.add(rules.messages, mono_s) > rules.messages_max * share:
            return EdgeExcess.RATE
        if self._failed is not None and self._failed.count(rules.failures, mono_s) > rules.failures_max * share:
            return EdgeExcess.RATE
        if self._wrong is not None and self._wrong.count(rules.wrong, mono_s) > rules.wrong_max * share:
            return EdgeExcess.WRONG
        return None

    def take_known(self, mono_s: MonoS) -> bool:
        """Whether a known address over a limit may have one more message served."""
        if self._known_bucket is None:
            self._known_bucket = TokenBucket()
        return not self._known_bucket.take(KNOWN_RATE, mono_s)

    def add_wrong(self, rules: Rules, mono_s: MonoS) -> None:
        self.wrong += 1
        if self._wrong is None:
            self._wrong = SlidingCounter()
        self._wrong.add(rules.wrong, mono_s)

    def add_failure(self, rules: Rules, mono_s: MonoS) -> None:
        if self._failed is None:
            self._failed = SlidingCounter()
        self._failed.add(rules.failures, mono_s)

    def endpoint(self, host: str, port: int, username: str) -> EndpointSum:
        found = self.endpoints.get((host, port, username))
        if found is None:
            # Beyond the bound names are not distinguished any more, so that none is counted as innocent.
            key = (host, port, username) if len(self.endpoints) < ENDPOINTS_MAX else (host, 0, "")
            found = self.endpoints.setdefault(key, EndpointSum())
        return found


@dataclass(frozen=True, slots=True)
class EdgeAddressReport:
    """The sums of one source since the last report: an IPv4 address or an IPv6 /64 (callwarden.limits.networks)."""

    host: str
    messages: int
    wrong: int
    endpoints: tuple[tuple[str, int, str, EndpointSum], ...]
    verified: bool
    """A nonce of ours came back from there within the last hour: what it did was not sent in its name."""


class EdgeCounters:
    """All addresses. Mutable: it is on the way of every datagram (0.7 µs)."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._table: Table[AddressSum] = Table(AddressSum, capacity=ADDRESSES_MAX, ttl_s=ADDRESS_TTL_S)
        self._unreported: dict[str, AddressSum] = {}
        self._strangers = TokenBucket()

    def apply(self, rules: Rules) -> None:
        """Another policy."""
        self._rules = rules

    def __len__(self) -> int:
        return len(self._table)

    def message(self, host: str, mono_s: MonoS) -> EdgeExcess | None:
        """One datagram from there; the limit of ours that it is over."""
        excess = self._use(host, mono_s).add_message(self._rules, mono_s)
        if excess is None and ":" in host:
            return self._wide(host, mono_s).add_message(self._rules, mono_s, WIDE_SHARE)
        return excess

    def may_exceed(self, host: str, excess: EdgeExcess, mono_s: MonoS, *, known: bool) -> bool:
        """Whether a message over a limit is served all the same. `known`: a phone is registered there, or it is a
        peer that configuration names."""
        entry = self._use(host, mono_s)
        if known or entry.known_until_s > mono_s:
            return entry.take_known(mono_s)
        return excess is EdgeExcess.WRONG and not self._strangers.take(STRANGERS_RATE, mono_s)

    def is_known(self, host: str, mono_s: MonoS) -> bool:
        """Whether an account authenticated from there within the last hour."""
        entry = self._table.peek(source_of(host))
        return entry is not None and entry.known_until_s > mono_s

    def wrong(self, host: str, mono_s: MonoS) -> None:
        """What came was malformed or meaningless."""
        self._use(host, mono_s).add_wrong(self._rules, mono_s)
        self._table.heat(source_of(host))
        if ":" in host:
            self._wide(host, mono_s).add_wrong(self._rules, mono_s)

    def challenged(self, host: str, port: int, username: str, mono_s: MonoS) -> None:
        self._use(host, mono_s).endpoint(host, port, username).challenges += 1

    def failed(self, host: str, port: int, username: str, mono_s: MonoS) -> None:
        """Wrong credentials with a fresh nonce of ours. A stale nonce, none, and a first challenge are no failures."""
        entry = self._use(host, mono_s)
        entry.verified_until_s = mono_s + VERIFIED_S
        entry.add_failure(self._rules, mono_s)
        entry.endpoint(host, port, username).failures += 1
        self._table.heat(source_of(host))
        if ":" in host:
            self._wide(host, mono_s).add_failure(self._rules, mono_s)

    def succeeded(self, host: str, port: int, username: str, mono_s: MonoS) -> None:
        entry = self._use(host, mono_s)
        entry.verified_until_s = entry.known_until_s = mono_s + VERIFIED_S
        entry.endpoint(host, port, username).successes += 1

    def forget(self, host: str) -> None:
        """A ban of the address was lifted: its counters start from zero here, too, or our own limit would stay."""
        place = source_of(host)
        self._table.remove(place)
        self._unreported.pop(place, None)

    def take_report(self, mono_s: MonoS) -> list[EdgeAddressReport]:
        """The sums since the last report; they restart from zero."""
        if not self._unreported:
            self._table.expire(mono_s)
            return []
        taken, self._unreported = self._unreported, {}
        reports = []
        for host, entry in taken.items():
            endpoints = tuple((*key, sums) for key, sums in entry.endpoints.items())
            verified = entry.verified_until_s > mono_s
            reports.append(EdgeAddressReport(host, entry.messages, entry.wrong, endpoints, verified))
            entry.messages = entry.wrong = 0
            if endpoints:
                entry.endpoints = {}
        return reports

    def _wide(self, host: str, mono_s: MonoS) -> AddressSum:
        """The /48 of an IPv6 address, so that the 65,536 /64s of one customer aren't as many sources. It is limited
        here and not reported: bans are on /64s, since a /48 may be many customers' as well."""
        return self._table.use(wide_source_of(host) or host, mono_s)

    def _use(self, host: str, mono_s: MonoS) -> AddressSum:
        place = source_of(host) if ":" in host else host
        entry = self._unreported.get(place)
        if entry is None:
            entry = self._table.use(place, mono_s)
            self._unreported[place] = entry
        return entry
