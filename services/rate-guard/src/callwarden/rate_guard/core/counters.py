"""Counts what each address and endpoint does, and finds exceeded limits. Out: who owns an address (app), how bans are
kept and published (ports).

An *endpoint* is an address with a port; it and its address are *known* once an account has authenticated from there.

An office full of phones may share one address, so failures are judged by where they come from:
- At a known address, each endpoint has the limit of a known endpoint. Beyond it that endpoint alone is banned; up to
  it, its failures also count for the address. One phone with a wrong password never gets its neighbours banned, and an
  attacker who tries from port after port exceeds the address's own, higher limit.
- At an unknown address, failures count for the address alone.
- A success forgives the failures of the same user name from the same endpoint (a mistyped password), and no others: an
  account holder can't buy guesses with it.
A first challenge or a stale nonce is not a failure; the edge doesn't report it as one. A failure needs a nonce that the
address was given, so it is nobody else's.

Messages can be sent in anybody's name over UDP. They count only for an address that is verified, and not for a known
one: the edge limits those (DESIGN D16).
"""

from dataclasses import dataclass
from typing import Final

from callwarden.kernel.clock import MonoS
from callwarden.kernel.verdict import Reason
from callwarden.limits.table import Entry, Table
from callwarden.limits.windows import SlidingCounter, WindowShape
from callwarden.policy.values import format_duration
from callwarden.rate_guard.core.addresses import address_of, endpoint
from callwarden.rate_guard.core.limits import AddressLimits

ADDRESSES_MAX: Final = 32_768  # Of 0.7 KB each: 23 MB in each process; an address is in one of them only.
ENDPOINTS_MAX: Final = 32_768  # The same.
# How long we remember that an account authenticated from there, without news of it: phones register hourly.
KNOWN_TTL_S: Final = 86_400.0
# User names of one endpoint whose failures could be forgiven. A PBX has more users, but fewer that fail.
NAMES_MAX: Final = 32
NAME_CHARS_MAX: Final = 64  # An attacker chooses the names.
_HOT_SHARE: Final = 8  # From an eighth of the message limit on, an address is worth remembering.


@dataclass(slots=True)
class EndpointReport:
    """What one port did with one user name since the last report. Not frozen, for speed; nothing changes it."""

    port: int
    username: str
    failures: int
    successes: int
    host: str = ""
    """The address within the report's /64; empty: the report's own."""


@dataclass(slots=True)
class AddressReport:
    """What one source did since the last report: an IPv4 address or an IPv6 /64. Not frozen, for speed."""

    address: str
    messages: int
    wrong: int
    endpoints: list[EndpointReport]
    verified: bool = True
    """The address has sent back a nonce of an edge: nobody else sent this in its name."""


@dataclass(frozen=True, slots=True)
class ExceededLimit:
    """An exceeded limit. `target`: the address or endpoint to ban."""

    target: str
    reason: Reason
    evidence: str


class AddressEntry(Entry):
    """One address. Counters are created when there is something to count: most addresses never do wrong."""

    __slots__ = ("failures", "known", "messages", "wrong")

    def __init__(self) -> None:
        super().__init__()
        self.messages = SlidingCounter()
        self.wrong: SlidingCounter | None = None
        self.failures: SlidingCounter | None = None
        self.known = False

    def clear(self) -> None:
        """Resets the counters; `known` stays."""
        self.messages.clear()
        self.wrong = self.failures = None


class EndpointEntry(Entry):
    """One address and port."""

    __slots__ = ("by_name", "failures", "known")

    def __init__(self) -> None:
        super().__init__()
        self.failures: SlidingCounter | None = None
        # Failures that could be forgiven, by user name: the first NAMES_MAX that fail.
        self.by_name: dict[str, SlidingCounter] | None = None
        self.known = False

    def clear(self) -> None:
        """Resets the counters; `known` stays."""
        self.failures = self.by_name = None


class AddressCounters:
    """All addresses whose counts this process owns. Mutable; one reported address takes 3 µs, each endpoint 2 more."""

    def __init__(
        self, limits: AddressLimits, addresses_max: int = ADDRESSES_MAX, endpoints_max: int = ENDPOINTS_MAX
    ) -> None:
        self.addresses: Table[AddressEntry] = Table(AddressEntry, capacity=addresses_max, ttl_s=KNOWN_TTL_S)
        self.endpoints: Table[EndpointEntry] = Table(EndpointEntry, capacity=endpoints_max, ttl_s=KNOWN_TTL_S)
        self.apply(limits)

    def apply(self, limits: AddressLimits) -> None:
        """Applies another policy. Counts stay."""
        self.limits = limits
        self._hot_messages = max(1, limits.messages_max // _HOT_SHARE)
        for table in (self.addresses, self.endpoints):
            table.ttl_s = max(KNOWN_TTL_S, limits.longest_s)

    def count(self, report: AddressReport, mono_s: MonoS) -> list[ExceededLimit]:
        """Adds a report; returns the limits that it exceeds, and resets the counters of their targets: these are
        banned now, or must not be banned at all."""
        limits = self.limits
        name = report.address
        address = self.addresses.use(name, mono_s)
        found: list[ExceededLimit] = []
        is_banned_by_messages = report.verified and not address.known
        if report.messages and is_banned_by_messages:
            sent = address.messages.add(limits.messages, mono_s, report.messages)
            if sent > self._hot_messages:
                self.addresses.heat(name)
                if sent > limits.messages_max:
                    found.append(_excess(name, Reason.RATE, sent, "messages", limits.messages, limits.messages_max))
        if report.wrong and is_banned_by_messages:
            if address.wrong is None:
                address.wrong = SlidingCounter()
            self.addresses.heat(name)
            wrong = address.wrong.add(limits.wrong, mono_s, report.wrong)
            if wrong > limits.wrong_max:
                found.append(_excess(name, Reason.MALFORMED, wrong, "wrong messages", limits.wrong, limits.wrong_max))
        if report.endpoints:
            failed = 0
            for each in report.endpoints:
                failed += self._count_endpoint(name, address, each, mono_s, found)
            if failed and (excess := self._add_failures(name, address, failed, mono_s)):
                found.append(excess)
        for excess in found:
            self._reset(excess.target)
        return found

    def forget(self, target: str) -> None:
        """Resets an address, with all of its endpoints, or an endpoint, because its ban was lifted. Takes up to 10 ms:
        operators do it, and rarely, so counting doesn't pay for an index."""
        self._reset(target)
        if target in self.addresses:
            for name, entry in self.endpoints:
                if address_of(name) == target:
                    entry.clear()

    def expire(self, mono_s: MonoS) -> None:
        """Removes entries unused for their time to live, a bounded number at once."""
        self.addresses.expire(mono_s)
        self.endpoints.expire(mono_s)

    def _reset(self, target: str) -> None:
        address = self.addresses.peek(target)
        if address is not None:
            address.clear()
        endpoint_ = self.endpoints.peek(target)
        if endpoint_ is not None:
            endpoint_.clear()

    def _count_endpoint(
        self, name: str, address: AddressEntry, report: EndpointReport, mono_s: MonoS, found: list[ExceededLimit]
    ) -> int:
        """Returns the number of failures that count for the address."""
        if not report.failures and not report.successes:
            return 0
        limits = self.limits
        key = endpoint(report.host or name, report.port)
        username = report.username[:NAME_CHARS_MAX]
        failed = 0
        if not report.failures and (known := self.endpoints.peek(key)) is not None and known.known:
            self.endpoints.use(key, mono_s)
            if known.by_name is not None:
                self._forgive(address, known, username, limits.failures, mono_s)
            return 0  # The usual case: a known phone with the right password.
        entry = self.endpoints.use(key, mono_s)
        if report.failures:
            self.addresses.heat(name)
            failed = report.failures
            if entry.failures is None:
                entry.failures = SlidingCounter()
            count = entry.failures.add(limits.failures, mono_s, failed)
            self._note_name(entry, username, failed, mono_s)
            if address.known or entry.known:
                self.endpoints.heat(key)
                over = count - limits.failures_known_endpoint_max
                if over > 0 and not report.successes:
                    failed = max(0, failed - over)
                    found.append(
                        _excess(
                            key,
                            Reason.CREDENTIALS,
                            count,
                            "authentication failures",
                            limits.failures,
                            limits.failures_known_endpoint_max,
                        )
                    )
        if report.successes:
            entry.known = address.known = True
            self.endpoints.heat(key)
            self.addresses.heat(name)
            # This report's failures aren't counted for the address yet.
            forgiven = self._forgive(address, entry, username, limits.failures, mono_s, spare=failed)
            failed = max(0, failed - forgiven)
        return failed

    def _note_name(self, entry: EndpointEntry, username: str, failed: int, mono_s: MonoS) -> None:
        if entry.by_name is None:
            entry.by_name = {}
        counter = entry.by_name.get(username)
        if counter is None:
            if len(entry.by_name) >= NAMES_MAX:
                return  # Counted, but not forgivable: nobody mistypes that many names.
            counter = entry.by_name[username] = SlidingCounter()
        counter.add(self.limits.failures, mono_s, failed)

    def _forgive(
        self,
        address: AddressEntry,
        entry: EndpointEntry,
        username: str,
        window: WindowShape,
        mono_s: MonoS,
        spare: int = 0,
    ) -> int:
        """Takes the user's failures at this endpoint off the counts of endpoint and address; returns their number."""
        counter = entry.by_name.pop(username, None) if entry.by_name is not None else None
        if not entry.by_name:
            entry.by_name = None
        if counter is None:
            return 0
        forgiven = counter.count(window, mono_s)
        if entry.failures is not None:
            entry.failures.forgive(forgiven)
        if address.failures is not None:
            address.failures.forgive(max(0, forgiven - spare))
        return forgiven

    def _add_failures(self, name: str, address: AddressEntry, failed: int, mono_s: MonoS) -> ExceededLimit | None:
        limits = self.limits
        if address.failures is None:
            address.failures = SlidingCounter()
        count = address.failures.add(limits.failures, mono_s, failed)
        limit = limits.failures_known_address_max if address.known else limits.failures_address_max
        if count <= limit:
            return None
        return _excess(name, Reason.CREDENTIALS, count, "authentication failures", limits.failures, limit)


def _excess(target: str, reason: Reason, count: int, what: str, window: WindowShape, limit: int) -> ExceededLimit:
    period = format_duration(int(window.period_s))
    return ExceededLimit(target, reason, f"{count} {what} in {period}, limit {limit}")
