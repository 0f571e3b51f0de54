"""What each address and endpoint did, and when it is enough. In: counting and the limits. Out: who owns an address
(app), how bans are kept and told (ports).

An *endpoint* is an address with a port; it and its address are *known* once an account has authenticated from there.

Behind one address there may be an office full of phones, so failures are judged where they come from:
- A known address: each of its endpoints has the limit of a known endpoint, over which that endpoint is banned and no
  other, and up to which its failures also count for the address. One phone with a wrong password never gets its
  neighbours banned; somebody who tries from port after port is met by the address's own, higher limit.
- An unknown address: its failures count for the address alone.
- Success forgives the failures of the same user name from the same endpoint (somebody mistyped), and no others: who
  has an account can't buy guesses with it.
The first challenge and a stale nonce are no failures; the edge doesn't report them as such.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from callwarden.kernel.verdict import Reason
from callwarden.limits.table import Entry, Table
from callwarden.limits.windows import SlidingCounter, Window
from callwarden.policy.values import format_duration
from callwarden.rate_guard.core.addresses import address_of, endpoint
from callwarden.rate_guard.core.limits import Limits

ADDRESSES_MAX: Final = 32_768  # Of 0.7 KB each: 23 MB in each process; an address is in one of them only.
ENDPOINTS_MAX: Final = 32_768  # The same.
# How long it is remembered without anything new that an account has authenticated from there: phones register hourly.
KNOWN_TTL_S: Final = 86_400.0
NAMES_MAX: Final = (
    32  # Of one endpoint, whose failures could be forgiven; a PBX has more users, but not as many failing.
)
NAME_CHARS_MAX: Final = 64  # Names are what an attacker likes them to be.
_HOT_SHARE: Final = 8  # An eighth of the way to a limit of messages, an address is worth remembering.


@dataclass(slots=True)
class EndpointReport:
    """What one port did about one user name since the last report. Not frozen: made for each, and changed by nobody."""

    port: int
    username: str
    failures: int
    successes: int


@dataclass(slots=True)
class AddressReport:
    """What one address did since the last report. Not frozen: made for each, and changed by nobody."""

    address: str
    messages: int
    wrong: int
    endpoints: list[EndpointReport]


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit is passed. `target`: the address or endpoint to ban."""

    target: str
    reason: Reason
    evidence: str


class Address(Entry):
    """One address. Counters are made when there is something to count: most addresses never do wrong."""

    __slots__ = ("failures", "known", "messages", "wrong")

    def __init__(self) -> None:
        super().__init__()
        self.messages = SlidingCounter()
        self.wrong: SlidingCounter | None = None
        self.failures: SlidingCounter | None = None
        self.known = False

    def clear(self) -> None:
        """Begins anew; that it is known stays."""
        self.messages.clear()
        self.wrong = self.failures = None


class Endpoint(Entry):
    """One address and port."""

    __slots__ = ("by_name", "failures", "known")

    def __init__(self) -> None:
        super().__init__()
        self.failures: SlidingCounter | None = None
        # What could be forgiven: failures by user name, the first NAMES_MAX that fail.
        self.by_name: dict[str, SlidingCounter] | None = None
        self.known = False

    def clear(self) -> None:
        """Begins anew; that it is known stays."""
        self.failures = self.by_name = None


class Counters:
    """All addresses whose counts this process owns. Mutable; one address of a report takes 3 µs, each endpoint 2 more.

    Times are monotonic seconds.
    """

    def __init__(self, limits: Limits, addresses_max: int = ADDRESSES_MAX, endpoints_max: int = ENDPOINTS_MAX) -> None:
        self.addresses: Table[Address] = Table(Address, capacity=addresses_max, ttl_s=KNOWN_TTL_S)
        self.endpoints: Table[Endpoint] = Table(Endpoint, capacity=endpoints_max, ttl_s=KNOWN_TTL_S)
        self.limits = limits
        self.apply(limits)

    def apply(self, limits: Limits) -> None:
        """Another policy. What was counted stays."""
        self.limits = limits
        self._hot_messages = max(1, limits.messages_max // _HOT_SHARE)
        for table in (self.addresses, self.endpoints):
            table.ttl_s = max(KNOWN_TTL_S, limits.longest_s)

    def count(self, report: AddressReport, now_s: float) -> list[Excess]:
        """Adds a report; returns the limits that it passes. Who is over a limit begins anew: he is banned now, or may
        not be banned at all."""
        limits = self.limits
        name = report.address
        address = self.addresses.use(name, now_s)
        found: list[Excess] = []
        if report.messages:
            sent = address.messages.add(limits.messages, now_s, report.messages)
            if sent > self._hot_messages:
                self.addresses.heat(name)
                if sent > limits.messages_max:
                    found.append(_excess(name, Reason.RATE, sent, "messages", limits.messages, limits.messages_max))
        if report.wrong:
            if address.wrong is None:
                address.wrong = SlidingCounter()
            self.addresses.heat(name)
            wrong = address.wrong.add(limits.wrong, now_s, report.wrong)
            if wrong > limits.wrong_max:
                found.append(_excess(name, Reason.MALFORMED, wrong, "wrong messages", limits.wrong, limits.wrong_max))
        if report.endpoints:
            failed = 0
            for each in report.endpoints:
                failed += self._count_endpoint(name, address, each, now_s, found)
            if failed and (excess := self._add_failures(name, address, failed, now_s)):
                found.append(excess)
        for excess in found:
            self._begin_anew(excess.target)
        return found

    def forget(self, target: str) -> None:
        """The address or endpoint begins anew, since somebody lifted its ban; an address with all of its endpoints. Up
        to 10 ms: people do that, and rarely, so that counting needn't pay for an index."""
        self._begin_anew(target)
        if target in self.addresses:
            for name, entry in self.endpoints:
                if address_of(name) == target:
                    entry.clear()

    def forget_all(self) -> None:
        """Everybody begins anew."""
        for _, address in self.addresses:
            address.clear()
        for _, endpoint_ in self.endpoints:
            endpoint_.clear()

    def expire(self, now_s: float) -> None:
        """Does a bounded part of the removal of what nothing was heard of for long."""
        self.addresses.expire(now_s)
        self.endpoints.expire(now_s)

    def known_addresses(self) -> Iterator[str]:
        """Where accounts have authenticated from."""
        return (name for name, address in self.addresses if address.known)

    def _begin_anew(self, target: str) -> None:
        address = self.addresses.peek(target)
        if address is not None:
            address.clear()
        endpoint_ = self.endpoints.peek(target)
        if endpoint_ is not None:
            endpoint_.clear()

    def _count_endpoint(
        self, name: str, address: Address, report: EndpointReport, now_s: float, found: list[Excess]
    ) -> int:
        """Returns how many failures count for the address."""
        if not report.failures and not report.successes:
            return 0
        limits = self.limits
        key = endpoint(name, report.port)
        username = report.username[:NAME_CHARS_MAX]
        failed = 0
        if not report.failures and (known := self.endpoints.peek(key)) is not None and known.known:
            self.endpoints.use(key, now_s)
            if known.by_name is not None:
                self._forgive(address, known, username, limits.failures, now_s)
            return 0  # By far the most: a phone that is known, and right.
        entry = self.endpoints.use(key, now_s)
        if report.failures:
            self.addresses.heat(name)
            failed = report.failures
            if entry.failures is None:
                entry.failures = SlidingCounter()
            count = entry.failures.add(limits.failures, now_s, failed)
            self._note_name(entry, username, failed, now_s)
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
            # What failed in this very report isn't counted for the address yet.
            forgiven = self._forgive(address, entry, username, limits.failures, now_s, spare=failed)
            failed = max(0, failed - forgiven)
        return failed

    def _note_name(self, entry: Endpoint, username: str, failed: int, now_s: float) -> None:
        if entry.by_name is None:
            entry.by_name = {}
        counter = entry.by_name.get(username)
        if counter is None:
            if len(entry.by_name) >= NAMES_MAX:
                return  # Counted, but can't be forgiven: nobody mistypes that many names.
            counter = entry.by_name[username] = SlidingCounter()
        counter.add(self.limits.failures, now_s, failed)

    def _forgive(
        self, address: Address, entry: Endpoint, username: str, window: Window, now_s: float, spare: int = 0
    ) -> int:
        """Takes back the user's failures from this endpoint, from it and from the address; how many of them it was."""
        counter = entry.by_name.pop(username, None) if entry.by_name is not None else None
        if entry.by_name is not None and not entry.by_name:
            entry.by_name = None
        if counter is None:
            return 0
        forgiven = counter.count(window, now_s)
        if entry.failures is not None:
            entry.failures.take_back(forgiven)
        if address.failures is not None:
            address.failures.take_back(max(0, forgiven - spare))
        return forgiven

    def _add_failures(self, name: str, address: Address, failed: int, now_s: float) -> Excess | None:
        limits = self.limits
        if address.failures is None:
            address.failures = SlidingCounter()
        count = address.failures.add(limits.failures, now_s, failed)
        limit = limits.failures_known_address_max if address.known else limits.failures_address_max
        if count <= limit:
            return None
        return _excess(name, Reason.CREDENTIALS, count, "authentication failures", limits.failures, limit)


def _excess(target: str, reason: Reason, count: int, what: str, window: Window, limit: int) -> Excess:
    period = format_duration(int(window.period_s))
    return Excess(target, reason, f"{count} {what} in {period}, limit {limit}")
