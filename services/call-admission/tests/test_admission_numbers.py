"""model.number_plan: the kind and the country of numbers at the edges of their plans."""

import pytest

from callwarden.call_admission.model.number_plan import NumberKind, country_code_of, country_of, kind_of

OTHER, PREMIUM, SHARED = NumberKind.OTHER, NumberKind.PREMIUM, NumberKind.SHARED_COST


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("49", OTHER),
        ("999", OTHER),
        ("", OTHER),
        ("493012345678", OTHER),
        ("499001234567", PREMIUM),
        ("4990012345678", PREMIUM),
        ("491805123456", SHARED),
        ("4918051234567", SHARED),
        ("449098790000", PREMIUM),
        ("227090920948", PREMIUM),
        ("22790920948", OTHER),
        ("865339629112", OTHER),
    ],
    ids=[
        "a country code alone", "no country code", "nothing", "Berlin", "premium", "premium and a digit", "shared cost",
        "shared cost and a digit", "United Kingdom, premium",
        "Niger, premium and a digit, with its zero", "Niger, a mobile phone, without", "begins like a premium number",
    ],
)  # fmt: skip
def test_the_kind_of_a_number(number: str, kind: NumberKind) -> None:
    assert kind_of(number) is kind


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("1", "US"),
        ("12045551234", "CA"),
        ("12125551234", "US"),
        ("102045551234", "US"),
        ("1204", "US"),
        ("77172123456", "KZ"),
        ("771721234567890", "KZ"),
        ("74951234567", "RU"),
        ("3906698123", "VA"),
        ("39066981234567", "VA"),
        ("390612345678", "IT"),
        ("4930123456", "DE"),
        ("870773111632", "+870"),
        ("999", ""),
        ("", ""),
    ],
)
def test_the_country_of_a_number(number: str, country: str) -> None:
    assert country_of(number) == country


def test_a_country_code_has_one_to_three_digits() -> None:
    assert [country_code_of(digits) for digits in ("1", "49301", "3531", "9991", "")] == ["1", "49", "353", "", ""]
