"""Money as integers: micros, 10^-6 of the currency's unit. No amount is ever a float.

Tariffs and the cost of a call stand in callwarden.kernel.tariff.
"""

import re
from decimal import Decimal
from typing import Final, NewType

Micros = NewType("Micros", int)

MICROS: Final = 1_000_000
# The database stores amounts as signed 64-bit integers; a thousandth of its range leaves room for any sum of them.
AMOUNT_MICROS_MAX: Final = 9_000_000_000_000_000

_AMOUNT = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,6}))?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)

# ISO 4217 minor units that differ from two; what an amount is shown with, never what it is counted in.
_MINOR_UNITS: Final = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


class BadAmount(ValueError):
    """The text isn't an amount of money; `text` is what was given, shortened."""

    def __init__(self, text: str) -> None:
        self.text = text[:32]
        super().__init__(f"not an amount: {self.text!r} (write digits, with at most 6 decimals after a point)")


class BadCurrency(ValueError):
    def __init__(self, text: str) -> None:
        self.text = text[:8]
        super().__init__(f"not a currency: {self.text!r} (write three capitals of ISO 4217, such as EUR)")


def parse_amount(text: str) -> Micros:
    """Micros of a decimal text such as "12.5" or "-0.000001". Exact. Raises BadAmount.

    No exponents, no thousands separators, no more than 6 decimals: what can't be held exactly is refused.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise BadAmount(text)
    sign, whole, fraction = match.groups()
    micros = int(whole) * MICROS + int((fraction or "").ljust(6, "0"))
    if micros > AMOUNT_MICROS_MAX:
        raise BadAmount(text)
    return Micros(-micros if sign else micros)


def parse_currency(text: str) -> str:
    """The ISO 4217 code that text is; raises BadCurrency. Only the form is checked."""
    if _CURRENCY.fullmatch(text) is None:
        raise BadCurrency(text)
    return text


def format_amount(micros: int, currency: str = "") -> str:
    """The amount for people: at least the currency's minor units, more only where they aren't zero, and the code.

    format_amount(1_500_000, "EUR") == "1.50 EUR"; format_amount(1_234, "EUR") == "0.001234 EUR".
    """
    decimals_min = _MINOR_UNITS.get(currency, 2)
    text = f"{Decimal(micros) / MICROS:f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(decimals_min, "0")
    amount = f"{whole}.{fraction}" if fraction else whole
    return f"{amount} {currency}" if currency else amount
