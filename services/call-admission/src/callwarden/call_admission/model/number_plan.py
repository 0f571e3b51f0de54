"""What kind of number it is, by the number plans of all countries (the phonenumbers package).

The metadata is loaded country by country when first asked for (0.3 to 3 ms each, 7 MB for the package as a whole).
A number plan lists exact lengths, and carriers often take a digit more: a number that is no valid one of its country is
judged by how it begins, so that a premium number can't be hidden by a digit at its end.
"""

import re
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
    if not code or _suspicious(code).match(national) is None:
        return NumberKind.OTHER
    zeros = len(national) - len(national.lstrip("0"))
    number = PhoneNumber(
        country_code=int(code),
        national_number=int(national),
        italian_leading_zero=True if zeros else None,
        number_of_leading_zeros=zeros if zeros > 1 else None,
    )
    match number_type(number):
        case PhoneNumberType.PREMIUM_RATE:
            return NumberKind.PREMIUM
        case PhoneNumberType.SHARED_COST:
            return NumberKind.SHARED_COST
        case PhoneNumberType.UNKNOWN:
            return _kind_by_beginning(code, national)
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
    for region in regions:
        leading = _leading_digits(region)
        if leading is not None and leading.match(national) is not None:
            return region
    zeros = len(national) - len(national.lstrip("0"))
    number = PhoneNumber(
        country_code=int(code),
        national_number=int(national),
        italian_leading_zero=True if zeros else None,
        number_of_leading_zeros=zeros if zeros > 1 else None,
    )
    return region_code_for_number(number) or regions[0]


def country_code_of(digits: str) -> str:
    """The country code that an E.164 number begins with, or "": no code begins with another."""
    return next((code for n in range(1, _COUNTRY_CODE_DIGITS_MAX + 1) if (code := digits[:n]) in _REGIONS), "")


@lru_cache(512)
def _leading_digits(region: str) -> re.Pattern[str] | None:
    metadata = PhoneMetadata.metadata_for_region(region)
    return re.compile(metadata.leading_digits) if metadata is not None and metadata.leading_digits else None


@lru_cache(256)  # There are about 215 country codes.
def _suspicious(code: str) -> re.Pattern[str]:
    """What every premium or shared-cost number of the country code begins like: one look spares most numbers the rest
    (1 µs instead of 15)."""
    patterns = {
        pattern
        for region in _REGIONS[code]
        if (metadata := _metadata(code, region)) is not None
        for pattern in (_pattern(metadata.premium_rate), _pattern(metadata.shared_cost))
        if pattern is not None
    }
    return re.compile("|".join(f"(?:{pattern})" for pattern in sorted(patterns)) or _NOTHING)


def _kind_by_beginning(code: str, national: str) -> NumberKind:
    for region in _REGIONS[code]:
        metadata = _metadata(code, region)
        if metadata is None:
            continue
        if _begins_like(metadata.premium_rate, national):
            return NumberKind.PREMIUM
        if _begins_like(metadata.shared_cost, national):
            return NumberKind.SHARED_COST
    return NumberKind.OTHER


def _begins_like(description: PhoneNumberDesc | None, national: str) -> bool:
    pattern = _pattern(description)
    return pattern is not None and re.match(pattern, national) is not None


def _pattern(description: PhoneNumberDesc | None) -> str | None:
    return description.national_number_pattern if description is not None else None


def _metadata(code: str, region: str) -> PhoneMetadata | None:
    if region == _NON_GEOGRAPHIC:
        return PhoneMetadata.metadata_for_nongeo_region(int(code))
    return PhoneMetadata.metadata_for_region(region)


_NOTHING: Final = r"(?!)"
_REGIONS: Final = {str(code): regions for code, regions in COUNTRY_CODE_TO_REGION_CODE.items()}
