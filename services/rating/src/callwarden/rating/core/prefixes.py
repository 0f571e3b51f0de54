"""Prefixes in their order: how many of a number's first digits decide what a table of prefixes says of it.

Out: what a prefix stands for (deck, routes), and the answer that holds for all numbers alike (quotes).
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from callwarden.kernel.phone import DIGITS_MAX

_LENGTH_BITS: Final = 4  # holds DIGITS_MAX
_LENGTH: Final = (1 << _LENGTH_BITS) - 1
# By number of digits: what a code is divided by to have only these first ones left.
_BEHIND: Final = tuple(10 ** (DIGITS_MAX - digits) << _LENGTH_BITS for digits in range(DIGITS_MAX + 1))


def code_of(prefix: str) -> int:
    """Whole numbers in the order of the texts: as if written to the left of a field, the shorter first."""
    return int(prefix.ljust(DIGITS_MAX, "0")) << _LENGTH_BITS | len(prefix)


class PrefixOrder:
    """The prefixes of one table, so that those next to a number are found. 8 bytes each: a million take 8 MB."""

    __slots__ = ("_codes",)

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        self._codes = array("Q", sorted(map(code_of, prefixes)))

    def deciding(self, number: int, at_least: int) -> int:
        """So many first digits of the number (its code) decide, or `at_least`: no prefix that begins with them is
        longer. One more than the number has where only the whole number does.
        """
        # The prefixes that have most in common with the number stand on either side of its place. Integers all the way:
        # the same with texts takes five times as long.
        codes = self._codes
        place = bisect_right(codes, number)
        for neighbour in codes[max(0, place - 1) : place + 1]:
            length = neighbour & _LENGTH
            while length > at_least and neighbour // (behind := _BEHIND[at_least]) == number // behind:
                at_least += 1
                if at_least > number & _LENGTH:
                    return at_least
        return at_least


class PrefixOrderBuilder:
    """Takes prefixes one by one; cheap where they come in order, as a store gives them."""

    def __init__(self) -> None:
        self._codes = array("Q")
        self._is_sorted = True

    def add(self, prefix: str) -> None:
        code = code_of(prefix)
        if self._codes and code < self._codes[-1]:
            self._is_sorted = False
        self._codes.append(code)

    def build(self) -> PrefixOrder:
        """The order of what was taken so far; to be called once."""
        order = PrefixOrder()
        order._codes = self._codes if self._is_sorted else array("Q", sorted(self._codes))
        return order
