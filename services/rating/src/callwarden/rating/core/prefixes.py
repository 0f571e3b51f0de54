"""Sorted prefixes: how many leading digits of a number decide which prefix of a table matches.

Out: what a prefix means (deck, routes), and answers shared by numbers that match alike (quotes).
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
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
    """The prefixes of one table, to find the neighbours of a number. 8 bytes each: a million take 8 MB."""

    __slots__ = ("_codes",)

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        self._codes = array("Q", sorted(map(code_of, prefixes)))

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


class PrefixOrderBuilder:
    """Collects prefixes one by one; cheap if they come in order, as from a store."""

    def __init__(self) -> None:
        self._codes = array("Q")
        self._is_sorted = True

    def add(self, prefix: str) -> None:
        code = code_of(prefix)
        if self._codes and code < self._codes[-1]:
            self._is_sorted = False
        self._codes.append(code)

    def build(self) -> PrefixOrder:
        """The order of the collected prefixes. Call it once."""
        order = PrefixOrder()
        order._codes = self._codes if self._is_sorted else array("Q", sorted(self._codes))
        return order
