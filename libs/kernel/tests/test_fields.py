"""A table of fields says each name once, and what follows from it."""

from dataclasses import dataclass
from typing import Final

import pytest

from callwarden.kernel.account import BY_NAME, CLEARABLE, FIELDS, LIMITS, SHARED_FIELDS, AccountFields, NewAccount
from callwarden.kernel.fields import DataField, FieldKind, fields_of
from callwarden.kernel.trunk import TRUNK_FIELDS, Trunk

TABLES: Final = {"account": FIELDS, "trunk": TRUNK_FIELDS}


def test_every_attribute_has_a_line() -> None:
    assert BY_NAME.keys() == NewAccount.__dataclass_fields__.keys()
    assert [field.name for field in SHARED_FIELDS] == list(AccountFields.__dataclass_fields__)
    assert [field.name for field in TRUNK_FIELDS] == list(Trunk.__dataclass_fields__)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", ["name", "column", "proto", "header", "option", "about"])
def test_no_two_lines_say_the_same(table: str, name: str) -> None:
    said = [value for field in TABLES[table] if (value := getattr(field, name)) != ""]
    assert len(said) == len(set(said))


@pytest.mark.parametrize("field", [*FIELDS, *TRUNK_FIELDS], ids=lambda field: field.name)
def test_every_number_and_list_is_bounded_and_every_flag_can_be_taken_back(field: DataField) -> None:
    if field.kind not in (FieldKind.TEXT, FieldKind.WORD, FieldKind.STATUS, FieldKind.FLAG):
        assert field.most > 0
    if field.kind in (FieldKind.COUNT, FieldKind.AMOUNT, FieldKind.DURATION):
        assert field.unit
    assert bool(field.off) is (field.kind is FieldKind.FLAG)
    assert bool(field.words) is (field.kind is FieldKind.WORD)


def test_limits_are_what_a_limit_can_be_and_can_all_be_taken_away() -> None:
    assert LIMITS.keys() <= CLEARABLE
    assert all(BY_NAME[name].is_optional for name in LIMITS)


def test_names_follow_from_the_attribute_unless_the_line_says_otherwise() -> None:
    made = DataField(about="How large.", proto="limits.").named("max_size")
    assert (made.column, made.proto, made.header, made.option) == (
        "max_size",
        "limits.max_size",
        "max_size",
        "max-size",
    )
    assert (made.wire, made.group, made.add_option) == ("max_size", "limits", "add-max-size")
    other = DataField(about="How large.", has_column=False, header="size").named("max_size")
    assert (other.column, other.proto, other.header, other.option) == ("", "max_size", "size", "size")


def test_a_field_without_a_line_is_found_when_the_table_is_read() -> None:
    @dataclass
    class Incomplete(NewAccount):
        colour: str = ""

    with pytest.raises(AttributeError, match="__metadata__"):
        fields_of(Incomplete)
