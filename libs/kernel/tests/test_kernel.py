"""The kernel's words hold what their docstrings say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel import errors, ids, money
from callwarden.kernel.phone import E164, BadNumber, is_number


@given(st.integers(-money.AMOUNT_MICROS_MAX, money.AMOUNT_MICROS_MAX))
@settings(deadline=None)
def test_an_amount_survives_being_written_and_read(micros: int) -> None:
    assert money.parse_amount(money.format_amount(micros)) == micros


@pytest.mark.parametrize(
    "text", ["", "1e5", "1,000", "0.0000001", "٣", "NaN", "inf", "--1", "1.", ".5", "9" * 13, "+1"]
)
def test_what_is_not_exactly_an_amount_is_refused(text: str) -> None:
    with pytest.raises(money.BadAmount):
        money.parse_amount(text)


@pytest.mark.parametrize(
    ("micros", "currency", "text"),
    [
        (1_500_000, "EUR", "1.50 EUR"),
        (1_234, "EUR", "0.001234 EUR"),
        (-20_000, "EUR", "-0.02 EUR"),
        (5_000_000, "JPY", "5 JPY"),
        (5_000_000, "KWD", "5.000 KWD"),
    ],
)
def test_amounts_are_shown_with_their_currencys_decimals(micros: int, currency: str, text: str) -> None:
    assert money.format_amount(micros, currency) == text


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_text_is_an_amount_or_a_bad_amount(text: str) -> None:
    try:
        assert abs(money.parse_amount(text)) <= money.AMOUNT_MICROS_MAX
    except money.BadAmount:
        pass


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


def test_every_kind_of_error_has_its_class() -> None:
    assert set(errors.ERROR_OF_KIND) == set(errors.ErrorKind)


@given(st.binary(min_size=16, max_size=16))
@settings(deadline=None)
def test_an_id_is_read_back_from_its_text(random_16: bytes) -> None:
    value = ids.from_bytes(random_16)
    assert ids.parse(str(value)) == value
    assert ids.parse(value.hex) is None
