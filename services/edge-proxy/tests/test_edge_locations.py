"""The table of phones: who is found by name, number and address, while users come, move and go."""

from edge_world import START_S

from callwarden.edge_proxy.core.locations import Binding, Location, Locations
from callwarden.kernel.clock import UnixS
from callwarden.sip.address import SocketAddress


def binding(host: str, port: int = 5060, *, ends_s: float = 60, q: float | None = None) -> Binding:
    return Binding(f"sip:x@{host}:{port}", SocketAddress(host, port), START_S + ends_s, "r", 1, "account", q=q)


def location(name: str, *bindings: Binding, numbers: tuple[str, ...] = ()) -> Location:
    return Location("x", name, bindings, numbers)


def test_a_user_is_found_by_name_and_number_while_a_phone_is_there() -> None:
    table = Locations()
    alice = location("alice", binding("192.0.2.1"), numbers=("+491", "+492"))
    table.put(alice)
    for at_s, found in ((START_S, alice), (START_S + 59, alice), (START_S + 60, None)):
        assert table.find_user("x", "alice", UnixS(at_s)) is found
        assert table.find_number("+492", UnixS(at_s)) is found
    assert table.get("x", "alice") is alice
    assert table.find_user("y", "alice", START_S) is None
    assert table.find_number("+493", START_S) is None


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


def test_a_number_that_has_a_new_owner_stays_his_when_the_old_one_goes() -> None:
    table = Locations()
    table.put(location("alice", binding("192.0.2.1"), numbers=("+491", "+492")))
    bob = location("bob", binding("192.0.2.2"), numbers=("+491",))
    table.put(bob)
    table.remove(("x", "alice"))
    assert table.find_number("+491", START_S) is bob
    assert table.find_number("+492", START_S) is None


def test_phones_are_tried_by_preference_and_else_as_they_registered() -> None:
    first, second, third = binding("192.0.2.1"), binding("192.0.2.2"), binding("192.0.2.3")
    gone = binding("192.0.2.4", ends_s=0)
    assert location("x", second, gone, first, third).live(START_S) == (second, first, third)
    low, high = binding("192.0.2.5", q=0.1), binding("192.0.2.6", q=0.9)
    assert location("x", low, first, high).live(START_S) == (first, high, low)
    none = binding("192.0.2.7", q=0.0)
    assert location("x", none, low).live(START_S) == (low, none)
