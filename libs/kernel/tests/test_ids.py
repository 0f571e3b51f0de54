"""Ids are read back from their text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel import ids


@given(st.binary(min_size=16, max_size=16))
@settings(deadline=None)
def test_an_id_is_read_back_from_its_text(random_16: bytes) -> None:
    value = ids.from_bytes(random_16)
    assert ids.parse(str(value)) == value
    assert ids.parse(value.hex) is None
