"""Which address is banned by which Ban resource."""

from typing import Any

import pytest

from callwarden.kernel.clock import UnixS
from callwarden.security_policy_operator.core.bans import AppliedBan, BanOrder, address_of, decide
from callwarden.security_policy_operator.core.realms import RealmGrants
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal

MADE_S = UnixS(1_767_225_600.0)  # 2026-01-01T00:00:00Z


def ban(name: str, *, age: int = 0, leaving: bool = False, namespace: str = "default", **spec: Any) -> ManagedResource:
    metadata = {
        "name": name,
        "namespace": namespace,
        "creationTimestamp": f"2026-01-01T00:00:{age:02}Z",
        **({"deletionTimestamp": "2026-01-01T00:01:00Z"} if leaving else {}),
    }
    return ManagedResource({"apiVersion": "callwarden.io/v1", "kind": "Ban", "metadata": metadata, "spec": spec})


def decided(*sources: ManagedResource, unix_s: float = MADE_S) -> dict[str, BanOrder | Refusal]:
    """In the release's namespace "default"."""
    grants = RealmGrants.of("default", ())
    return {source.key.name: decision for source, decision in decide(sources, UnixS(unix_s), grants)}


@pytest.mark.parametrize(
    ("ends", "until_s"),
    [
        ({}, None),
        ({"duration": "1h"}, MADE_S + 3_600),
        ({"duration": 60}, MADE_S + 60),
        ({"until": "2026-01-01T02:00:00+01:00"}, MADE_S + 3_600),
    ],
)
def test_a_ban_ends_at_its_time_or_its_duration_after_its_creation(ends: dict[str, Any], until_s: float | None) -> None:
    assert decided(ban("a", address="192.0.2.7", reason="abuse", **ends)) == {
        "a": BanOrder("192.0.2.7", "abuse", until_s)
    }


def test_an_expired_ban_is_valid_and_bans_no_one() -> None:
    decision = decided(ban("a", address="192.0.2.7", duration="1m"), unix_s=MADE_S + 60)["a"]
    assert isinstance(decision, Refusal)
    assert (decision.reason, decision.accepted) == ("Expired", True)


@pytest.mark.cases
def test_only_a_namespace_with_all_realms_bans_and_another_one_is_in_no_bans_way() -> None:
    strange = ban("strange", namespace="sales", address="192.0.2.7")
    mine = ban("mine", age=1, address="192.0.2.7")
    decisions = decided(strange, mine)
    refused = decisions["strange"]
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.accepted) == ("RealmNotAllowed", True)
    assert isinstance(decisions["mine"], BanOrder)


def test_of_two_bans_of_one_address_the_older_counts_in_any_spelling() -> None:
    decisions = decided(
        ban("younger", address="2001:DB8:0::7", age=1), ban("older", address="2001:db8::7"), ban("c", address="::1")
    )
    assert isinstance(decisions["older"], BanOrder)
    assert isinstance(decisions["c"], BanOrder)
    refused = decisions["younger"]
    assert isinstance(refused, Refusal)
    assert refused.reason == "Conflict"
    assert "default/older" in refused.message
    assert "spec.address" in refused.message


def test_an_expired_or_deleted_ban_makes_room_for_the_next() -> None:
    up = ban("up", address="192.0.2.7", duration="1m")
    leaving = ban("leaving", address="192.0.2.7", age=1, leaving=True)
    decisions = decided(up, leaving, ban("next", address="192.0.2.7", age=2), unix_s=MADE_S + 61)
    assert set(decisions) == {"up", "next"}
    assert isinstance(decisions["next"], BanOrder)


@pytest.mark.parametrize("address", ["1.2.3", "::::", "fe80::1%eth0", "", "192.0.2.0/24"])
def test_an_invalid_address_is_refused_and_names_the_field(address: str) -> None:
    source = ban("a", address=address)
    decision = decided(source)["a"]
    assert isinstance(decision, Refusal)
    assert not decision.accepted
    assert "spec.address" in decision.message
    assert address_of(source) == ""


def test_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    assert decided(ban("a", address="::ffff:192.0.2.7"))["a"] == BanOrder("192.0.2.7", "operator", None)


@pytest.mark.parametrize(
    ("order", "reason", "until_s", "is_met"),
    [
        (BanOrder("192.0.2.7", "abuse", None), "abuse", 0.0, True),
        (BanOrder("192.0.2.7", "abuse", None), "abuse", MADE_S, False),
        (BanOrder("192.0.2.7", "abuse", MADE_S), "abuse", 0.0, False),
        (BanOrder("192.0.2.7", "abuse", MADE_S), "abuse", MADE_S + 1.5, True),
        (BanOrder("192.0.2.7", "abuse", MADE_S), "abuse", MADE_S + 60, False),
        (BanOrder("192.0.2.7", "abuse", None), "rate", 0.0, False),
    ],
)
def test_a_ban_in_force_is_written_again_only_if_it_differs(
    order: BanOrder, reason: str, until_s: float, is_met: bool
) -> None:
    assert order.is_met_by(AppliedBan(reason, until_s)) is is_met
