"""Finds the trunk that may send from an address, and those of an account. `ports` says where trunks are kept."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from callwarden.auth.core.users import AuthAccount

TRUNKS_MAX: Final = 100_000  # 60 MB; a wholesale operator has hundreds.
Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class AuthTrunk:
    """A trunk as stored. `address`: an address or a network, perhaps with a port; of a carrier perhaps a name."""

    name: str
    address: str
    tech_prefix: str
    account: AuthAccount
    is_sender: bool = True
    """Direction traffic-sender: calls may come in from it."""
    add_prefix: str = ""
    strip_digits: int = 0


class TrunkTable:
    """An immutable index of trunks. `unusable` names senders whose address doesn't parse."""

    __slots__ = ("_by_account", "_by_network", "_lengths", "unusable")

    def __init__(self, trunks: Iterable[AuthTrunk] = ()) -> None:
        by_network: dict[Network, list[AuthTrunk]] = {}
        by_account: dict[str, list[AuthTrunk]] = {}
        unusable = []
        for trunk in sorted(trunks, key=lambda trunk: trunk.name):
            if trunk.account.active:
                by_account.setdefault(trunk.account.id, []).append(trunk)
            if not trunk.is_sender:
                continue
            network = parse_network(trunk.address)
            if network is None:
                unusable.append(trunk.name)
            else:
                by_network.setdefault(network, []).append(trunk)
        # The longest prefix first; sorting is stable, so of two equal ones the first name wins, in every process.
        self._by_network = {
            network: tuple(sorted(group, key=lambda trunk: -len(trunk.tech_prefix)))
            for network, group in by_network.items()
        }
        # The network lengths that occur, narrowest first. There are few.
        self._lengths = tuple(sorted({(net.version, net.prefixlen) for net in by_network}, key=lambda v: -v[1]))
        self.unusable = tuple(unusable)
        # Those that calls go out to first: an owner may have one for each direction.
        self._by_account = {
            account_id: tuple(sorted(group, key=lambda trunk: trunk.is_sender))
            for account_id, group in by_account.items()
        }

    def __len__(self) -> int:
        return sum(map(len, self._by_network.values()))

    def of_account(self, account_id: str) -> tuple[AuthTrunk, ...]:
        """By which an active account gets its calls, the first to try first."""
        return self._by_account.get(account_id, ())

    def find(self, source: str, called: str) -> AuthTrunk | None:
        """The trunk for a call to `called` from the address: the narrowest network that has one whose tech prefix the
        called number begins with, and of those the one with the longest prefix. Takes 3 µs for each network
        length that occurs.

        Finds a disabled account's trunk, too: the caller reports what is wrong.
        """
        try:
            address = ip_address(source)
        except ValueError:
            return None
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        for group in self._groups(mapped or address):
            for trunk in group:
                if called.startswith(trunk.tech_prefix):
                    return trunk
        return None

    def _groups(self, address: Address) -> Iterator[tuple[AuthTrunk, ...]]:
        for version, length in self._lengths:
            if version == address.version:
                group = self._by_network.get(ip_network((address, length), strict=False))
                if group is not None:
                    yield group


def parse_network(text: str) -> Network | None:
    """The network of "192.0.2.7", "192.0.2.7:5060", "192.0.2.0/24", "2001:db8::1", "[2001:db8::1]:5060", or None."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
