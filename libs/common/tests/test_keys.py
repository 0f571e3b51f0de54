"""Names as NATS keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.common.bus import key_of, parts_of
from callwarden.common.bus.kv import _valid_key

PART = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(st.lists(PART, min_size=1, max_size=4))
def test_any_names_become_a_key_and_come_back(parts: list[str]) -> None:
    key = key_of(*parts)
    assert parts_of(key) == tuple(parts)
    assert _valid_key(key)


@given(st.lists(PART, min_size=1, max_size=3), st.lists(PART, min_size=1, max_size=3))
def test_different_names_have_different_keys(one: list[str], other: list[str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "a..b", "a b", "a*", "a>", "ä", "a\n"])
def test_what_means_something_in_a_subject_is_no_key(key: str) -> None:
    assert not _valid_key(key)
