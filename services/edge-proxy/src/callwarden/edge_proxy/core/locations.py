"""Where users' phones are: bindings as the registrar makes them, and the table that is searched for each local call.

In: the values, and the map in memory. Out: how bindings come about (`registrar`), how edges share them (adapters).
"""

from dataclasses import dataclass
from typing import TypeVar

from callwarden.kernel.clock import UnixS
from callwarden.limits.networks import source_of
from callwarden.sip.address import SocketAddress

T = TypeVar("T")
Key = tuple[str, str]  # realm, user name


@dataclass(frozen=True, slots=True)
class Binding:
    """One phone. Requests go to `received` (RFC 3581; behind a NAT the Contact leads nowhere), for `uri`."""

    uri: str
    received: SocketAddress
    expires_s: float  # wall time
    call_id: str
    cseq: int
    account_id: str
    instance_id: str = ""
    user_agent: str = ""
    q: float | None = None
    """How much the phone is preferred, 0 to 1 (RFC 3261 20.10); None: it doesn't say."""


@dataclass(frozen=True, slots=True)
class Location:
    """All phones of one user, the one that registered last first."""

    realm: str
    username: str
    bindings: tuple[Binding, ...]

    @property
    def key(self) -> Key:
        return self.realm, self.username

    def live(self, unix_s: UnixS) -> tuple[Binding, ...]:
        """Those that are there now, the most preferred first; none given is 1 (RFC 3261 16.6)."""
        found = [binding for binding in self.bindings if binding.expires_s > unix_s]
        if any(binding.q is not None for binding in found):
            found.sort(key=lambda binding: -1.0 if binding.q is None else -binding.q)
        return tuple(found)


class Locations:
    """Every registered user, by name and by account. Mutable: a cache of what all edges share.

    Bounded by who can register: only authenticated users get here, each with a bounded number of bindings.
    """

    def __init__(self) -> None:
        self._by_key: dict[Key, Location] = {}
        self._by_account: dict[str, dict[Key, None]] = {}
        self._sources: dict[str, int] = {}  # address → bindings from there
        self._places: dict[str, int] = {}  # the same by source: of IPv6 the /64
        self._endpoints: dict[SocketAddress, int] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, realm: str, username: str) -> Location | None:
        return self._by_key.get((realm, username))

    def put(self, location: Location) -> None:
        """Take a location in, in place of what was known of this user; without bindings it is forgotten."""
        self.remove(location.key)
        if not location.bindings:
            return
        self._by_key[location.key] = location
        for binding in location.bindings:
            self._by_account.setdefault(binding.account_id, {})[location.key] = None
            self._sources[binding.received.host] = self._sources.get(binding.received.host, 0) + 1
            place = source_of(binding.received.host)
            self._places[place] = self._places.get(place, 0) + 1
            self._endpoints[binding.received] = self._endpoints.get(binding.received, 0) + 1

    def remove(self, key: Key) -> None:
        old = self._by_key.pop(key, None)
        if old is None:
            return
        for binding in old.bindings:
            keys = self._by_account.get(binding.account_id, {})
            keys.pop(key, None)
            if not keys:
                self._by_account.pop(binding.account_id, None)
            _discount(self._sources, binding.received.host)
            _discount(self._places, source_of(binding.received.host))
            _discount(self._endpoints, binding.received)

    def find_user(self, realm: str, username: str, unix_s: UnixS) -> Location | None:
        """The user's location, if any phone of it is there now."""
        location = self._by_key.get((realm, username))
        return location if location is not None and location.live(unix_s) else None

    def find_account(self, account_id: str, unix_s: UnixS) -> list[Location]:
        """The locations of the account's users of whom any phone is there now, the one that registered last first."""
        keys = reversed(self._by_account.get(account_id, {}))
        return [location for key in keys if (location := self.find_user(*key, unix_s)) is not None]

    def is_at_home(self, realm: str, username: str, host: str) -> bool:
        """Whether a phone of this user is registered from this address, or its source."""
        location = self._by_key.get((realm, username))
        if location is None:
            return False
        place = source_of(host)
        return any(source_of(binding.received.host) == place for binding in location.bindings)

    def is_source(self, host: str) -> bool:
        """Whether some phone is registered from this address."""
        return host in self._sources

    def is_near(self, host: str) -> bool:
        """Whether some phone is registered from this source: what is counted as one (callwarden.limits.networks)."""
        return source_of(host) in self._places

    def is_endpoint(self, address: SocketAddress) -> bool:
        """Whether some phone is registered from this address and port."""
        return address in self._endpoints


def _discount(counts: dict[T, int], key: T) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
