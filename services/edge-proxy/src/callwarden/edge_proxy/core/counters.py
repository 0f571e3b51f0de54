"""What each address does: counted here at memory speed, limited here, and summed up for rate-guard (DESIGN D4).

In: the sums since the last report, and the edge's own windows, by which it defends itself when it is alone. Out: bans
(rate-guard), who owns an address's counter (adapters).
"""

from dataclasses import dataclass

from callwarden.edge_proxy.core.rules import Rules
from callwarden.kernel.clock import MonoS
from callwarden.limits.table import Entry, Table
from callwarden.limits.windows import SlidingCounter

ADDRESSES_MAX = 50_000  # 0.6 KB each; beyond, the longest unused harmless one is forgotten (callwarden.limits.table).
ADDRESS_TTL_S = 3_600.0  # The longest default window.
ENDPOINTS_MAX = 256  # Ports and user names of one address in one report; an attacker invents names without end.


@dataclass(slots=True)
class EndpointSum:
    """What one port did about one user name. Mutable: it is being summed."""

    failures: int = 0
    successes: int = 0
    challenges: int = 0


class AddressSum(Entry):
    """One address: sums since the last report, and its windows."""

    __slots__ = ("_failed", "_windows", "_wrong", "endpoints", "host", "messages", "wrong")

    def __init__(self) -> None:
        super().__init__()
        self.host = ""
        self.messages = 0
        self.wrong = 0
        self.endpoints: dict[tuple[int, str], EndpointSum] = {}
        self._windows = SlidingCounter()
        self._wrong: SlidingCounter | None = None
        self._failed: SlidingCounter | None = None

    def add_message(self, rules: Rules, mono_s: MonoS) -> bool:
        """Count one; whether the address is within every limit of this edge."""
        self.messages += 1
        if self._windows.add(rules.messages, mono_s) > rules.messages_max:
            return False
        if self._wrong is not None and self._wrong.count(rules.wrong, mono_s) > rules.wrong_max:
            return False
        return self._failed is None or self._failed.count(rules.failures, mono_s) <= rules.failures_max

    def add_wrong(self, rules: Rules, mono_s: MonoS) -> None:
        self.wrong += 1
        if self._wrong is None:
            self._wrong = SlidingCounter()
        self._wrong.add(rules.wrong, mono_s)

    def add_failure(self, rules: Rules, mono_s: MonoS) -> None:
        if self._failed is None:
            self._failed = SlidingCounter()
        self._failed.add(rules.failures, mono_s)

    def endpoint(self, port: int, username: str) -> EndpointSum:
        found = self.endpoints.get((port, username))
        if found is None:
            # Beyond the bound names are not distinguished any more, so that none is counted as innocent.
            key = (port, username) if len(self.endpoints) < ENDPOINTS_MAX else (0, "")
            found = self.endpoints.setdefault(key, EndpointSum())
        return found


@dataclass(frozen=True, slots=True)
class EdgeAddressReport:
    """The sums of one address since the last report."""

    host: str
    messages: int
    wrong: int
    endpoints: tuple[tuple[int, str, EndpointSum], ...]


class EdgeCounters:
    """All addresses. Mutable: it is on the way of every datagram (0.7 µs)."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._table: Table[AddressSum] = Table(AddressSum, capacity=ADDRESSES_MAX, ttl_s=ADDRESS_TTL_S)
        self._unreported: dict[str, AddressSum] = {}

    def apply(self, rules: Rules) -> None:
        """Another policy."""
        self._rules = rules

    def __len__(self) -> int:
        return len(self._table)

    def message(self, host: str, mono_s: MonoS) -> bool:
        """One datagram from there; False: it is over a limit of ours and to be dropped."""
        return self._use(host, mono_s).add_message(self._rules, mono_s)

    def wrong(self, host: str, mono_s: MonoS) -> None:
        """What came was malformed or meaningless."""
        self._use(host, mono_s).add_wrong(self._rules, mono_s)
        self._table.heat(host)

    def challenged(self, host: str, port: int, username: str, mono_s: MonoS) -> None:
        self._use(host, mono_s).endpoint(port, username).challenges += 1

    def failed(self, host: str, port: int, username: str, mono_s: MonoS) -> None:
        """Wrong credentials. A stale nonce and a first challenge are none."""
        entry = self._use(host, mono_s)
        entry.add_failure(self._rules, mono_s)
        entry.endpoint(port, username).failures += 1
        self._table.heat(host)

    def succeeded(self, host: str, port: int, username: str, mono_s: MonoS) -> None:
        self._use(host, mono_s).endpoint(port, username).successes += 1

    def forget(self, host: str) -> None:
        """A ban of the address was lifted: its counters start from zero here, too, or our own limit would stay."""
        self._table.remove(host)
        self._unreported.pop(host, None)

    def take_report(self, mono_s: MonoS) -> list[EdgeAddressReport]:
        """The sums since the last report; they restart from zero."""
        if not self._unreported:
            self._table.expire(mono_s)
            return []
        taken, self._unreported = self._unreported, {}
        reports = []
        for host, entry in taken.items():
            endpoints = tuple((port, name, sums) for (port, name), sums in entry.endpoints.items())
            reports.append(EdgeAddressReport(host, entry.messages, entry.wrong, endpoints))
            entry.messages = entry.wrong = 0
            if endpoints:
                entry.endpoints = {}
        return reports

    def _use(self, host: str, mono_s: MonoS) -> AddressSum:
        entry = self._unreported.get(host)
        if entry is None:
            entry = self._table.use(host, mono_s)
            self._unreported[host] = entry
        return entry
