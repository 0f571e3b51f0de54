"""What kind of number it is, by the number plans of all countries (the phonenumbers package).

The metadata is loaded country by country when first asked for (0.3 to 3 ms each, 7 MB for the package as a whole).
A number plan lists exact lengths, and carriers often take a digit more: a number that is no valid one of its country is
judged by how it begins, so that a premium number can't be hidden by a digit at its end.
"""

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Final

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneNumber, PhoneNumberType, number_type, region_code_for_number
from phonenumbers.phonemetadata import PhoneMetadata, PhoneNumberDesc

# 2 µs (of an ordinary number) to 20 µs are saved for each number called again; an entry is about 250 bytes.
KINDS_CACHED: Final = 32_768
_COUNTRY_CODE_DIGITS_MAX: Final = 3
_NON_GEOGRAPHIC: Final = "001"  # phonenumbers' region of country codes that are no country's (UN M.49: the world)


class NumberKind(Enum):
    PREMIUM = "premium"
    SHARED_COST = "shared-cost"
    OTHER = "other"


@lru_cache(KINDS_CACHED)
def kind_of(digits: str) -> NumberKind:
    """The kind of an E.164 number, given as digits without "+"."""
    code = country_code_of(digits)
    national = digits[len(code) :]
    if not code:
        return NumberKind.OTHER
    premium, shared_cost = _beginnings(code)
    begins_premium = premium.match(national) is not None
    if not begins_premium and shared_cost.match(national) is None:
        return NumberKind.OTHER
    match number_type(_number(code, national)):
        case PhoneNumberType.PREMIUM_RATE:
            return NumberKind.PREMIUM
        case PhoneNumberType.SHARED_COST:
            return NumberKind.SHARED_COST
        case PhoneNumberType.UNKNOWN:
            return NumberKind.PREMIUM if begins_premium else NumberKind.SHARED_COST
    return NumberKind.OTHER


@lru_cache(KINDS_CACHED)
def country_of(digits: str) -> str:
    """The country (ISO 3166 alpha-2) of an E.164 number, given as digits without "+"; "+" and the country code where it
    is no country's (satellite and international networks), "" where there is none.

    Where several countries share a code, the number decides (+1 204 is CA, +1 212 US); one that is no number of any of
    them counts as the main one's, so that a digit at its end hides nothing.
    """
    code = country_code_of(digits)
    if not code:
        return ""
    regions = _REGIONS[code]
    if regions[0] == _NON_GEOGRAPHIC:
        return f"+{code}"
    national = digits[len(code) :]
    if len(regions) == 1 or not national:
        return regions[0]
    return region_code_for_number(_number(code, national)) or regions[0]


def _number(code: str, national: str) -> PhoneNumber:
    """Of a leading zero only that there is one: no plan has two."""
    is_zero = True if national.startswith("0") else None  # None: phonenumbers' not set
    return PhoneNumber(country_code=int(code), national_number=int(national), italian_leading_zero=is_zero)


def country_code_of(digits: str) -> str:
    """The country code that an E.164 number begins with, or "": no code begins with another."""
    return next((code for n in range(1, _COUNTRY_CODE_DIGITS_MAX + 1) if (code := digits[:n]) in _REGIONS), "")


@lru_cache(256)  # There are about 215 country codes.
def _beginnings(code: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What every premium and every shared-cost number of the country code begins like: one look spares most numbers the
    rest (1 µs instead of 15)."""
    plans = [_metadata(code, region) for region in _REGIONS[code]]
    return _any_of(plan.premium_rate for plan in plans), _any_of(plan.shared_cost for plan in plans)


def _any_of(descriptions: Iterable[PhoneNumberDesc | None]) -> re.Pattern[str]:
    patterns = {pattern for each in descriptions if each is not None and (pattern := each.national_number_pattern)}
    return re.compile("|".join(f"(?:{pattern})" for pattern in sorted(patterns)) or _NOTHING)


def _metadata(code: str, region: str) -> PhoneMetadata:
    if region == _NON_GEOGRAPHIC:
        metadata = PhoneMetadata.metadata_for_nongeo_region(int(code))
    else:
        metadata = PhoneMetadata.metadata_for_region(region)
    assert metadata is not None, "phonenumbers has one of every region that it names"
    return metadata


_NOTHING: Final = r"(?!)"
_REGIONS: Final = {str(code): regions for code, regions in COUNTRY_CODE_TO_REGION_CODE.items()}
