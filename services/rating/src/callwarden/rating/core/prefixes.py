"""Sorted prefixes: which one of a table matches a number, and how many of its leading digits decide that.

Out: what a prefix means (deck, routes), and answers shared by numbers that match alike (quotes).
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from callwarden.kernel.phone import DIGITS_MAX

_LENGTH_BITS: Final = 4  # holds DIGITS_MAX
_LENGTH: Final = (1 << _LENGTH_BITS) - 1
# By number of digits: the divisor of a code that leaves only these leading ones.
_BEHIND: Final = tuple(10 ** (DIGITS_MAX - digits) << _LENGTH_BITS for digits in range(DIGITS_MAX + 1))


def code_of(prefix: str) -> int:
    """An integer that sorts as the text does: left-aligned, shorter ones first."""
    return int(prefix.ljust(DIGITS_MAX, "0")) << _LENGTH_BITS | len(prefix)


class PrefixOrder:
    """The prefixes of one table in order, to find the longest one of a number, and its neighbours."""

    __slots__ = ("_codes",)

    def __init__(self, codes: Sequence[int] = ()) -> None:
        """`codes` (`code_of`) in ascending order."""
        self._codes = codes

    def longest(self, number: int) -> tuple[int, int] | None:
        """The place in the order, and the length, of the longest prefix of the number (given as its code)."""
        # All that sorts between a prefix of the number and the number begins with that prefix. So it is the number's
        # predecessor, or the predecessor of the digits that those two share.
        codes, digits = self._codes, number & _LENGTH
        place = bisect_right(codes, number)
        while place:
            code = codes[place - 1]
            length = code & _LENGTH
            shared = min(length, digits)
            while shared and code // _BEHIND[shared] != number // _BEHIND[shared]:
                shared -= 1
            if shared == length:
                return place - 1, length
            if not shared:
                return None
            behind, digits = _BEHIND[shared], shared
            place = bisect_right(codes, number // behind * behind | shared, 0, place - 1)
        return None

    def deciding(self, number: int, at_least: int) -> int:
        """How many leading digits of the number (given as its code) decide, at least `at_least`: no longer prefix
        begins with them. One more than the number has if only the whole number decides.
        """
        # The prefixes that share most digits with the number are its neighbours. Integers throughout: the same with
        # strings takes five times as long.
        codes = self._codes
        place = bisect_right(codes, number)
        for neighbour in codes[max(0, place - 1) : place + 1]:
            length = neighbour & _LENGTH
            while length > at_least and neighbour // (behind := _BEHIND[at_least]) == number // behind:
                at_least += 1
                if at_least > number & _LENGTH:
                    return at_least
        return at_least
