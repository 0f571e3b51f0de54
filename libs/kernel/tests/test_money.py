"""Amounts are exact, bounded, and shown with their currency's decimals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel import money


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
