"""The table of phones: who is found by name, account and address, while users come, move and go."""

from edge_world import START_S

from callwarden.edge_proxy.core.locations import Binding, Location, Locations
from callwarden.kernel.clock import UnixS
from callwarden.sip.address import SocketAddress


def binding(
    host: str, port: int = 5060, *, ends_s: float = 60, q: float | None = None, account: str = "account"
) -> Binding:
    return Binding(f"sip:x@{host}:{port}", SocketAddress(host, port), START_S + ends_s, "r", 1, account, q=q)


def location(name: str, *bindings: Binding) -> Location:
    return Location("x", name, bindings)


def test_a_user_is_found_by_name_and_account_while_a_phone_is_there() -> None:
    table = Locations()
    alice = location("alice", binding("192.0.2.1"))
    table.put(alice)
    for at_s, found in ((START_S, alice), (START_S + 59, alice), (START_S + 60, None)):
        assert table.find_user("x", "alice", UnixS(at_s)) is found
        assert table.find_account("account", UnixS(at_s)) == ([] if found is None else [found])
    assert table.get("x", "alice") is alice
    assert table.find_user("y", "alice", START_S) is None
    assert table.find_account("other", START_S) == []


def test_an_address_is_known_until_the_last_phone_has_left_it() -> None:
    table = Locations()
    table.put(location("alice", binding("192.0.2.1"), binding("192.0.2.1", 5070)))
    table.put(location("bob", binding("192.0.2.1")))
    table.put(location("alice", binding("192.0.2.9")))
    assert table.is_source("192.0.2.1")
    assert table.is_endpoint(SocketAddress("192.0.2.1", 5060))
    assert not table.is_endpoint(SocketAddress("192.0.2.1", 5070))
    table.put(location("bob"))
    assert not table.is_source("192.0.2.1")
    assert not table.is_endpoint(SocketAddress("192.0.2.1", 5060))
    assert table.is_source("192.0.2.9")
    assert len(table) == 1
    table.remove(("x", "nobody"))
    assert len(table) == 1


def test_an_ipv6_network_is_one_source_and_an_address_in_it_another_one() -> None:
    table = Locations()
    table.put(location("alice", binding("2001:db8:1:2::1"), binding("2001:db8:1:2::2")))
    assert table.is_near("2001:db8:1:2:ffff::9")
    assert not table.is_near("2001:db8:1:3::1")
    assert not table.is_source("2001:db8:1:2:ffff::9")
    table.put(location("alice", binding("2001:db8:1:2::2")))
    assert table.is_near("2001:db8:1:2::1")
    table.remove(("x", "alice"))
    assert not table.is_near("2001:db8:1:2::2")


def test_an_account_is_found_at_the_user_that_is_left_when_another_of_its_users_goes() -> None:
    table = Locations()
    table.put(location("desk", binding("192.0.2.1")))
    mobile = location("mobile", binding("192.0.2.2"))
    table.put(mobile)
    table.remove(("x", "desk"))
    assert table.find_account("account", START_S) == [mobile]
    table.put(location("mobile", binding("192.0.2.2", account="new")))
    assert table.find_account("account", START_S) == []


def test_phones_are_tried_by_preference_and_else_as_they_registered() -> None:
    first, second, third = binding("192.0.2.1"), binding("192.0.2.2"), binding("192.0.2.3")
    gone = binding("192.0.2.4", ends_s=0)
    assert location("x", second, gone, first, third).live(START_S) == (second, first, third)
    low, high = binding("192.0.2.5", q=0.1), binding("192.0.2.6", q=0.9)
    assert location("x", low, first, high).live(START_S) == (first, high, low)
    none = binding("192.0.2.7", q=0.0)
    assert location("x", none, low).live(START_S) == (low, none)
