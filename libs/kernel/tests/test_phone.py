"""Numbers are read as E.164, or refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel.phone import E164, BadNumber, is_number


@pytest.mark.parametrize(
    ("text", "digits"),
    [("+49 30 1234", "49301234"), ("0049-30-1234", "49301234"), ("030 1234", "49301234"), ("1212", "1212")],
)
def test_numbers_come_to_e164(text: str, digits: str) -> None:
    assert E164.parse(text, country_code="49").digits == digits


@pytest.mark.parametrize("text", ["", "+", "+0123", "alice", "+1234567890123456", "+49a", "+٤٩", "1;x=y"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadNumber):
        E164.parse(text)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_text_is_a_number_or_a_bad_number(text: str) -> None:
    try:
        number = E164.parse(text)
    except BadNumber:
        return
    assert is_number(number.digits)
    assert E164.parse(str(number)) == number
