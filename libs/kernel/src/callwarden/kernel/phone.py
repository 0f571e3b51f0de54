"""Telephone numbers as they are counted and priced: E.164 digits. Number plans (what is premium, what is a mobile)
are in callwarden.call_admission.
"""

import re
from dataclasses import dataclass
from typing import Final

DIGITS_MAX: Final = 15  # E.164 section 6.2.1.

# Visual separators of RFC 3966 section 3 (tel URI), which users type and phones send.
_SEPARATORS: Final = str.maketrans("", "", "-.() ")
_DIGITS = re.compile(r"\d+", re.ASCII)


class BadNumber(ValueError):
    """The text isn't a telephone number that can be brought to E.164."""

    def __init__(self, text: str) -> None:
        self.text = text[:32]
        super().__init__(f"not a telephone number: {self.text!r}")


@dataclass(frozen=True, slots=True)
class E164:
    """A number in international form: 2 to 15 digits, no leading zero, no "+"."""

    digits: str

    def __str__(self) -> str:
        return f"+{self.digits}"

    @property
    def masked(self) -> str:
        """For logs: the last four digits hidden."""
        return f"+{self.digits[:-4]}****"

    @classmethod
    def parse(cls, text: str, *, international_prefix: str = "00", country_code: str = "") -> "E164":
        """The number that `text` (as dialled, or the user part of a URI) means. Raises BadNumber.

        "+49 30 1234", "0049301234" and, with country_code "49", "0301234" all give 49301234. Without a country code
        bare digits are taken as international already, as wholesale trunks send them.
        """
        number = text.partition(";")[0].translate(_SEPARATORS)
        if number.startswith("+"):
            digits = number[1:]
        elif international_prefix and number.startswith(international_prefix):
            digits = number[len(international_prefix) :]
        elif country_code and number.startswith("0"):
            digits = country_code + number[1:]
        else:
            digits = number
        if not 2 <= len(digits) <= DIGITS_MAX or _DIGITS.fullmatch(digits) is None or digits[0] == "0":
            raise BadNumber(text)
        return cls(digits)


def is_number(user: str) -> bool:
    """Whether the user part of a SIP URI is meant as a telephone number rather than a name."""
    number = user.partition(";")[0].translate(_SEPARATORS).removeprefix("+")
    return _DIGITS.fullmatch(number) is not None
