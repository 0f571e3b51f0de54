"""What the fields of accounts and trunks may be, value by value at their bounds, and which of them go together."""

import uuid
from typing import Any

import pytest
from admission_admin import account, change, trunk

from callwarden.call_admission.accounts.core import checks
from callwarden.call_admission.accounts.core.accounts import (
    AccountChange,
    AccountFilter,
    AccountRef,
    check_change,
    check_filter,
)
from callwarden.call_admission.accounts.core.trunks import TrunkUpdate, check_trunk_change
from callwarden.kernel.account import CLEARABLE, LISTS_MAX, NUMBERS_MAX, AccountType
from callwarden.kernel.errors import Invalid
from callwarden.kernel.fields import DataField
from callwarden.kernel.money import AMOUNT_MICROS_MAX
from callwarden.kernel.trunk import PREFIXES_MAX

BORDER = "a" * 64


def field_of(raised: pytest.ExceptionInfo[Invalid]) -> str:
    return raised.value.field


# ------------------------------------------------------------------ accounts


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("name", BORDER, BORDER),
        ("name", "A.b_c-9", "A.b_c-9"),
        ("realm", "Example.ORG", "example.org"),
        ("realm", "r" * 255, "r" * 255),
        ("type", "carrier", AccountType.CARRIER),
        ("currency", "JPY", "JPY"),
        ("time_zone", "America/New_York", "America/New_York"),
        ("prepaid", False, False),
        ("deck", BORDER, BORDER),
        ("parent", "north@example.org", "north@example.org"),
        ("max_lines", 0, 0),
        ("max_lines", 1_000_000, 1_000_000),
        ("daily_micros", AMOUNT_MICROS_MAX, AMOUNT_MICROS_MAX),
        ("country", "de", "DE"),
        ("email", "Al.ice+voip@mail.example.org", "Al.ice+voip@mail.example.org"),
        ("email", f"{'a' * 64}@{'b' * 62}.{'c' * 61}.{'d' * 61}.de", f"{'a' * 64}@{'b' * 62}.{'c' * 61}.{'d' * 61}.de"),
        ("phone", "+49 30 1234", "49301234"),
        ("shards", 2, 2),
        ("shards", 64, 64),
        ("lists", ("irsf", "friends", "irsf"), ("irsf", "friends")),
        ("lists", tuple(f"l{n}" for n in range(LISTS_MAX)), tuple(f"l{n}" for n in range(LISTS_MAX))),
        (
            "numbers",
            tuple(f"49{n:09}" for n in range(NUMBERS_MAX)),
            tuple(f"49{n:09}" for n in range(NUMBERS_MAX)),
        ),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_a_value_at_its_bound_is_taken_as_it_is_kept(field: str, value: Any, kept: object) -> None:
    assert getattr(account(**{field: value}), field) == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("realm", "r" * 256),
        ("deck", "d" * 65),
        ("parent", "a b"),
        ("max_lines", -1),
        ("daily_micros", AMOUNT_MICROS_MAX + 1),
        ("country", "XX"),
        ("country", "ß"),
        ("country", "DEU"),
        ("email", "alice"),
        ("email", "alice@example"),
        ("email", '"a b"@example.org'),
        ("email", f"{'a' * 64}@{'b' * 62}.{'c' * 62}.{'d' * 61}.de"),
        ("phone", "12a"),
        ("shards", 1),
        ("shards", 65),
        ("shards", -1),
        ("lists", ("a b",)),
        ("lists", tuple(f"l{n}" for n in range(LISTS_MAX + 1))),
        ("numbers", tuple(f"49{n:09}" for n in range(NUMBERS_MAX + 1))),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_a_value_beyond_its_bound_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(Invalid) as raised:
        account(**{field: value})
    assert field_of(raised) == field


def test_a_type_that_is_none_is_answered_with_those_there_are() -> None:
    with pytest.raises(Invalid, match="enduser, traffic-sender, carrier, reseller"):
        account(type="administrator")


def test_a_line_of_text_has_its_fields_bound_or_that_of_notes() -> None:
    """No field is one today: what is checked for one that is added."""
    bounded, free = DataField(about="", most=5).named("nickname"), DataField(about="").named("note")
    for field, most in ((bounded, 5), (free, checks.NOTE_CHARS_MAX)):
        check = checks.check_of(field, {})
        assert check("x" * most) == "x" * most
        for text in ("x" * (most + 1), "a\nb"):
            with pytest.raises(Invalid) as raised:
                check(text)
            assert field_of(raised) == field.name


def test_what_is_empty_is_not_set() -> None:
    empty = account(deck="", parent="", country="", email="", phone="", lists=(), numbers=(), max_lines=None, shards=0)
    assert (empty.deck, empty.parent, empty.country, empty.email, empty.phone) == ("",) * 5
    assert (empty.lists, empty.numbers, empty.max_lines, empty.shards, empty.active) == ((), (), None, 0, True)
    assert account(lists="").lists == ()


@pytest.mark.parametrize(("status", "active"), [("active", True), ("disabled", False), ("", True)])
def test_an_account_is_active_or_not(status: str, active: bool) -> None:
    assert account(status=status).active is active


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "reseller", "parent": "north", "prepaid": False}, "parent"),
        ({"email_verified": True}, "email_verified"),
        ({"phone_verified": True}, "phone_verified"),
        ({"monthly_increment_micros": 0}, "monthly_increment_micros"),
        ({"monthly_ceiling_micros": 5}, "monthly_ceiling_micros"),
        ({"monthly_micros": 6, "monthly_ceiling_micros": 5}, "monthly_ceiling_micros"),
    ],
)
def test_values_that_contradict_each_other_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as raised:
        account(**changes)
    assert field_of(raised) == field


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "reseller"},
        {"parent": "north"},
        {"email": "a@example.org", "email_verified": True},
        {"monthly_micros": 5, "monthly_ceiling_micros": 5, "monthly_increment_micros": 1},
        {"monthly_micros": 5},
        {"monthly_micros": 5, "monthly_increment_micros": 1},
    ],
)
def test_values_that_go_together_are_taken(changes: dict[str, Any]) -> None:
    made = account(**changes)
    for name, value in changes.items():
        kept = getattr(made, name)
        assert (kept.value if isinstance(kept, AccountType) else kept) == value


# ------------------------------------------------------------------ changes


def test_only_what_is_given_changes() -> None:
    made = change(max_lines=0, deck="", numbers=None, status="disabled")
    assert (made.values, made.clear, made.add, made.remove) == (
        {"max_lines": 0, "deck": "", "active": False}, frozenset(), {}, {}
    )  # fmt: skip
    assert check_change({}) == AccountChange()
    assert change(add_numbers=("+49 30 1",), remove_lists=("irsf",)).add == {"numbers": ("49301",)}
    assert change(add_numbers=("+49 30 1",), remove_lists=("irsf",)).remove == {"lists": ("irsf",)}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"remove_numbers": ("x",)}, "remove_numbers"),
        ({"add_lists": ("a b",)}, "add_lists"),
        ({"country": ""}, "country"),
        ({"parent": ""}, "parent"),
    ],
)
def test_what_a_change_says_wrongly_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as raised:
        change(**changes)
    assert field_of(raised) == field


def test_all_that_can_be_cleared_may_be_cleared_at_once() -> None:
    every = {"max_lines", "country", "email", "phone", "parent", "monthly_micros"}
    made = change(clear=every)
    assert made.clear == every
    assert change(clear=CLEARABLE).clear == CLEARABLE


@pytest.mark.parametrize(
    ("changes", "verified"),
    [
        ({"email": "b@example.org"}, {"email_verified": False}),
        ({"clear": ("phone",)}, {"phone_verified": False}),
        ({"email": "b@example.org", "email_verified": True}, {"email_verified": True}),
        ({"email_verified": True}, {"email_verified": True}),
        ({"max_lines": 1}, {}),
    ],
)
def test_a_new_address_is_not_the_one_that_was_verified(changes: dict[str, Any], verified: dict[str, bool]) -> None:
    values = change(**changes).values
    assert {name: value for name, value in values.items() if name.endswith("_verified")} == verified


# ------------------------------------------------------------------ which accounts


def test_a_filter_that_says_nothing_means_all() -> None:
    assert check_filter("", "", "") == AccountFilter() == AccountFilter(None, "", None)
    of = check_filter("carrier", "Example.org", "north@example.org")
    assert of == AccountFilter(AccountType.CARRIER, "example.org", AccountRef(None, "north", "example.org"))


@pytest.mark.parametrize(
    ("given", "field"), [(("none", "", ""), "type"), (("", "a b", ""), "realm"), (("", "", "a b"), "parent")]
)
def test_a_filter_names_what_is_wrong_with_it(given: tuple[str, str, str], field: str) -> None:
    with pytest.raises(Invalid) as raised:
        check_filter(*given)
    assert field_of(raised) == field


def test_an_account_named_by_its_id_has_no_name() -> None:
    key = uuid.UUID(int=5)
    assert AccountRef.parse(str(key)) == AccountRef(key, "", "")
    with pytest.raises(Invalid) as raised:
        AccountRef.parse("a b")
    assert field_of(raised) == "account"


# ------------------------------------------------------------------ trunks


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("address", "192.0.2.10:1", "192.0.2.10:1"),
        ("address", "192.0.2.10:65535", "192.0.2.10:65535"),
        ("direction", "traffic-sender", AccountType.TRAFFIC_SENDER),
        ("account", "carrier@example.org", "carrier@example.org"),
        ("tech_prefix", "0123456789*#0123", "0123456789*#0123"),
        ("strip_digits", 0, 0),
        ("strip_digits", 15, 15),
        ("add_prefix", "123456789012345", "123456789012345"),
        ("enabled", False, False),
        ("allow_prefixes", ("+49", "4930", "33", "49"), ("33", "49", "4930")),
        ("block_prefixes", ("999999999999999",), ("999999999999999",)),
        (
            "allow_prefixes",
            tuple(str(n) for n in range(1_000, 1_000 + PREFIXES_MAX)),
            tuple(str(n) for n in range(1_000, 1_000 + PREFIXES_MAX)),
        ),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_a_trunks_value_at_its_bound_is_taken_as_it_is_kept(field: str, value: Any, kept: object) -> None:
    assert getattr(trunk(**{field: value}), field) == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "h" * 254 + ":5060"),
        ("address", "[192.0.2.10:5060"),
        ("account", "a b"),
        ("tech_prefix", "0" * 17),
        ("strip_digits", -1),
        ("strip_digits", 16),
        ("add_prefix", "1" * 16),
        ("add_prefix", "١"),
        ("allow_prefixes", ("049",)),
        ("block_prefixes", ("1" * 16,)),
        ("allow_prefixes", tuple(str(n) for n in range(1_000, 1_001 + PREFIXES_MAX))),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_a_trunks_value_beyond_its_bound_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(Invalid) as raised:
        trunk(**{field: value})
    assert field_of(raised) == field


def test_only_a_traffic_sender_may_be_held_to_local_calls() -> None:
    assert trunk(direction="traffic-sender", only_local=True).only_local
    with pytest.raises(Invalid) as raised:
        trunk(only_local=True)
    assert field_of(raised) == "only_local"


def test_a_trunk_changes_in_what_is_named_and_its_prefixes_come_and_go() -> None:
    before = trunk(allow_prefixes=("49", "33"), block_prefixes=("4930",))
    made = check_trunk_change(
        {"address": "192.0.2.11:5060", "enabled": False, "tech_prefix": None, "direction": "traffic-sender"},
        add={"allow_prefixes": ("+1",)},
        remove={"allow_prefixes": ("33",), "block_prefixes": ("4930",)},
    )
    after = made.of(before)
    assert (after.address, after.enabled, after.tech_prefix, after.direction) == (
        "192.0.2.11:5060", False, "", AccountType.CARRIER
    )  # fmt: skip
    assert (after.allow_prefixes, after.block_prefixes) == (("1", "49"), ())
    assert (after.name, after.account) == (before.name, before.account)
    assert check_trunk_change({}).of(before) == trunk(allow_prefixes=("33", "49"), block_prefixes=("4930",))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (TrunkUpdate(remove={"allow_prefixes": ("44",)}), "remove_allow_prefixes"),
        (TrunkUpdate(remove={"block_prefixes": ("49",)}), "remove_block_prefixes"),
        (
            TrunkUpdate(add={"allow_prefixes": tuple(str(n) for n in range(1_000, 1_000 + PREFIXES_MAX))}),
            "add_allow_prefixes",
        ),
    ],
    ids=["not there", "not there, either", "too many"],
)
def test_prefixes_that_cannot_come_or_go_are_refused(change: TrunkUpdate, field: str) -> None:
    with pytest.raises(Invalid) as raised:
        change.of(trunk(allow_prefixes=("49",)))
    assert field_of(raised) == field
    most = TrunkUpdate(add={"allow_prefixes": tuple(str(n) for n in range(1_000, 999 + PREFIXES_MAX))})
    assert len(most.of(trunk(allow_prefixes=("49",))).allow_prefixes) == PREFIXES_MAX


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_a_wrong_prefix_in_a_change_is_named_by_what_it_was_for(verb: str) -> None:
    with pytest.raises(Invalid) as raised:
        check_trunk_change({}, **{verb: {"block_prefixes": ("x",)}})
    assert field_of(raised) == f"{verb}_block_prefixes"


# ------------------------------------------------------------------ corrections and pages


def test_a_note_is_one_line_and_not_empty() -> None:
    assert checks.check_note(" bad line ") == "bad line"
    assert checks.check_note("n" * 255) == "n" * 255
    for text in ("", "  ", "a\nb", "n" * 256):
        with pytest.raises(Invalid) as raised:
            checks.check_note(text)
        assert field_of(raised) == "reason"


def test_a_key_is_short_and_printable() -> None:
    assert checks.check_key("k") == "k"
    assert checks.check_key("k" * 128) == "k" * 128
    for key in ("", "k" * 129, "a\tb"):
        with pytest.raises(Invalid) as raised:
            checks.check_key(key)
        assert field_of(raised) == "key"


def test_a_price_is_nothing_or_an_amount() -> None:
    assert checks.check_price(0) == 0
    assert checks.check_price(AMOUNT_MICROS_MAX) == AMOUNT_MICROS_MAX
    for micros in (-1, AMOUNT_MICROS_MAX + 1):
        with pytest.raises(Invalid) as raised:
            checks.check_price(micros)
        assert field_of(raised) == "price_micros"


def test_a_page_holds_1_to_1000_and_100_where_nothing_is_said() -> None:
    assert [checks.page_size(wanted) for wanted in (0, 1, 1_000)] == [100, 1, 1_000]
    for wanted in (-1, 1_001):
        with pytest.raises(Invalid) as raised:
            checks.page_size(wanted)
        assert field_of(raised) == "page_size"
