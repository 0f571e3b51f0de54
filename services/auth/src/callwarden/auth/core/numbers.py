"""Whose number is it: every number that an account owns, in 24 bytes each. `app` keeps it up to date.

And which users have names that could be numbers. In: E.164 digits, names and account ids. Out: where they are kept
(ports), which trunks an owner has (`trunks`).
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from callwarden.auth.core.users import UserKey
from callwarden.kernel.phone import DIGITS_MAX, E164, BadNumber, is_number

NUMBERS_MAX: Final = 4_000_000  # 100 MB; more are left out, with an error in the log.
CHANGES_MAX: Final = 10_000  # 2 MB; more are read with all others again.
_HALF: Final = 2**64


class _SameLength:
    """Numbers of one length, as integers in order, and their owners in two halves."""

    __slots__ = ("high", "low", "number")

    def __init__(self) -> None:
        self.number, self.high, self.low = array("Q"), array("Q"), array("Q")


class NumberTable:
    """All numbers of one moment, and the changes since. Mutable: it is read in pieces and changed in place."""

    __slots__ = ("_by_length", "_changes", "_count")

    def __init__(self) -> None:
        self._by_length = tuple(_SameLength() for _ in range(DIGITS_MAX + 1))
        self._changes: dict[str, UUID | None] = {}
        self._count = 0

    def __len__(self) -> int:
        """Numbers that were there when it was read."""
        return self._count

    def append(self, rows: Iterable[tuple[str, UUID]]) -> None:
        """Takes in the next numbers, which come in the order of their digits as text."""
        for digits, owner in rows:
            numbers = self._by_length[len(digits)]
            numbers.number.append(int(digits))
            high, low = divmod(owner.int, _HALF)
            numbers.high.append(high)
            numbers.low.append(low)
            self._count += 1

    def change(self, numbers: Iterable[str], owners: Mapping[str, UUID]) -> bool:
        """Takes over what these numbers are now; who isn't in `owners` is nobody's. False: there is no room for them,
        and all are to be read again."""
        for number in numbers:
            self._changes[number] = owners.get(number)
        return len(self._changes) <= CHANGES_MAX

    def owner(self, digits: str) -> UUID | None:
        """The account that owns the number. 1 µs."""
        if digits in self._changes:
            return self._changes[digits]
        numbers = self._by_length[len(digits)]
        value = int(digits)
        index = bisect_left(numbers.number, value)
        if index == len(numbers.number) or numbers.number[index] != value:
            return None
        return UUID(int=numbers.high[index] * _HALF + numbers.low[index])


class UserNameTable:
    """The users whose names consist of digits, of one moment, and the changes since: as NumberTable, for each realm."""

    __slots__ = ("_by_realm",)

    def __init__(self) -> None:
        self._by_realm: dict[str, NumberTable] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_realm.values()))

    def append(self, rows: Iterable[tuple[UserKey, UUID]]) -> None:
        """Takes in the next users, which come in the order of realm and name as text."""
        for user, owner in rows:
            self._by_realm.setdefault(user.realm, NumberTable()).append([(user.username, owner)])

    def change(self, users: Iterable[UserKey], owners: Mapping[UserKey, UUID]) -> bool:
        """As NumberTable.change."""
        changes = [
            self._by_realm.setdefault(user.realm, NumberTable()).change(
                [user.username], {user.username: owners[user]} if user in owners else {}
            )
            for user in users
        ]
        return all(changes)

    def owner(self, user: UserKey) -> UUID | None:
        """The account that the user belongs to; None: there is no such user."""
        table = self._by_realm.get(user.realm)
        return None if table is None else table.owner(user.username)


def is_digits(name: str) -> bool:
    """Whether a user's name could be taken for a number, and a number for it."""
    return len(name) <= DIGITS_MAX and name.isascii() and name.isdigit()


def called_number(called: str, tech_prefix: str) -> str:
    """The digits of what was called, in the same reading as the edge's; "": it is no number."""
    user = called.removeprefix(tech_prefix)
    if not is_number(user):
        return ""
    try:
        return E164.parse(user).digits
    except BadNumber:
        return ""
