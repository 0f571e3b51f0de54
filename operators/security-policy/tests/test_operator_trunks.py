"""Trunks: what a resource changes of what call-admission has."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from callwarden.policy.resources import TrunkSpec
from callwarden.security_policy_operator.adapters.trunks_grpc import message_of, state_of, update_of
from callwarden.security_policy_operator.core.trunks import TrunkState, change_of, trunk_of

PREFIXES = st.lists(st.text("0123456789", min_size=1, max_size=4), unique=True, max_size=5)


def carrier(**fields: Any) -> TrunkState:
    return TrunkState(**{"name": "berlin", "address": "192.0.2.10:5060", "direction": "carrier", **fields})


@given(PREFIXES, PREFIXES, PREFIXES, PREFIXES)
def test_a_change_turns_the_existing_trunk_into_the_wanted_one_and_then_there_is_none(
    allowed: list[str], blocked: list[str], wanted_allowed: list[str], wanted_blocked: list[str]
) -> None:
    existing = carrier(address="192.0.2.1:5060", allow_prefixes=frozenset(allowed), block_prefixes=frozenset(blocked))
    wanted = carrier(
        address="192.0.2.2:5060",
        allow_prefixes=frozenset(wanted_allowed),
        block_prefixes=frozenset(wanted_blocked),
    )
    found = change_of(existing, wanted)
    assert found is not None
    change = update_of(found)
    assert change.name == "berlin"
    assert change.address == "192.0.2.2:5060"
    assert not change.HasField("enabled")
    assert ({*allowed} | {*change.add_allow_prefixes}) - {*change.remove_allow_prefixes} == {*wanted_allowed}
    assert ({*blocked} | {*change.add_block_prefixes}) - {*change.remove_block_prefixes} == {*wanted_blocked}
    assert change_of(wanted, wanted) is None


def test_a_field_set_back_to_its_default_is_a_change() -> None:
    spec = TrunkSpec.model_validate({"address": "192.0.2.10:5060"})
    existing = carrier(address="192.0.2.10:5060", strip_digits=3, add_prefix="00")
    found = change_of(existing, trunk_of("berlin", spec))
    assert found is not None
    change = update_of(found)
    assert [name.name for name, _ in change.ListFields()] == ["name", "strip_digits", "add_prefix"]
    assert (change.strip_digits, change.add_prefix) == (0, "")
    assert found.written_fields == ["stripDigits", "addPrefix"]


def test_a_change_names_fields_as_the_resource_does_each_once() -> None:
    block = frozenset({"4990"})
    existing = carrier(allow_prefixes=frozenset({"49"}), block_prefixes=block, only_local=True)
    wanted = carrier(allow_prefixes=frozenset({"43"}), block_prefixes=block, tech_prefix="77")
    change = change_of(existing, wanted)
    assert change is not None
    assert sorted(change.written_fields) == ["allowPrefixes", "onlyLocal", "techPrefix"]


@given(PREFIXES, PREFIXES, st.booleans(), st.integers(0, 20))
def test_a_trunk_survives_its_message(allowed: list[str], blocked: list[str], enabled: bool, strip: int) -> None:
    trunk = carrier(
        allow_prefixes=frozenset(allowed),
        block_prefixes=frozenset(blocked),
        enabled=enabled,
        only_local=not enabled,
        strip_digits=strip,
        tech_prefix="77",
        add_prefix="00",
        account="an-id",
    )
    assert state_of(message_of(trunk)) == trunk
