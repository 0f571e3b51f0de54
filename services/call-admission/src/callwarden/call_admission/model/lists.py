"""Lists of numbers: fixed ones, matched in microseconds in 8 bytes an entry, and numbers that are listed for a time.

In: what an entry may be, matching, which list wins. Out: reading files (list_file), why a number is listed for a time
(statistics), where all of it is kept (adapters).

How a list is kept, measured with a million numbers: sorted arrays of 64-bit integers take 8 bytes an entry and 1 to
2 µs a look-up; a set of integers 89 bytes and 0.6 µs; a set of strings 121 bytes and 1 µs; one sorted byte string with
a search in Python 14 µs. So arrays, one for each number of digits: of one length, digits compare as numbers.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple
from uuid import UUID

from callwarden.kernel.clock import UnixS
from callwarden.kernel.phone import DIGITS_MAX

ENTRIES_MAX: Final = 1_000_000  # of one list
ENTRIES_TOTAL_MAX: Final = 8_000_000  # of all lists: 64 MB in each process
LISTS_MAX: Final = 256
# Kinds of wildcards ("4990?555*" and "4991?777*" are of one kind: ? at the fifth place, three digits, open end) in one
# list. Each costs 0.3 µs a look-up, however many entries are of it.
SHAPES_MAX: Final = 32
WILDCARDS_MAX: Final = 100_000  # of one list; kept as strings, 110 bytes each
TRUNKS_MAX: Final = 64  # that one list is for
DESCRIPTION_CHARS_MAX: Final = 255
NOTE_CHARS_MAX: Final = 128

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# What people write into numbers: spaces, hyphens, dots, parentheses, slashes, no-break spaces.
_SEPARATORS: Final = str.maketrans("", "", " -.()/\t\u00a0")
_PATTERN = re.compile(r"[1-9][0-9?]*\*?", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{1,14}", re.ASCII)

DYNAMIC: Final = "dynamic"
SMART: Final = "smart"
RESERVED: Final = frozenset({DYNAMIC, SMART})
"""Lists that make themselves."""


class BadPattern(ValueError):
    """The text is no entry of a list."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ListKind(Enum):
    """What being on a list means. The value is what the database says."""

    BLOCK = "block"
    ALLOW = "allow"
    """Never refused because of a list, and never listed for a time. Not: that nobody else may be called."""


class ListSide(Enum):
    """Which number of a call a list is about."""

    CALLED = "called"
    CALLING = "calling"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class ListHead:
    """What is known of a list without its entries. `trunks`: it applies to calls by these, of any account."""

    name: str
    version: int = 0
    kind: ListKind = ListKind.BLOCK
    side: ListSide = ListSide.CALLED
    description: str = ""
    entries: int = 0
    source: str = ""
    trunks: tuple[str, ...] = ()
    updated_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One entry: "4930123456" a number, "4990*" a prefix, "4990?555*" with any digit at the fifth place."""

    pattern: str
    note: str = ""


def is_name(text: str) -> bool:
    """Whether a list may be called that."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED


def parse_pattern(text: str, *, prefixes: bool = False) -> str:
    """The entry that `text` means, in its one spelling. Raises BadPattern.

    "+49 30 123456", "004930123456" → "4930123456"; "+4990*" → "4990*". `prefixes`: digits alone are a prefix.
    """
    digits = text.translate(_SEPARATORS)
    digits = digits[1:] if digits.startswith("+") else digits.removeprefix("00")
    # The usual case first: a million of them are looked at while calls wait.
    if not prefixes and _NUMBER.fullmatch(digits):
        return digits
    if not digits:
        raise BadPattern("there is no number")
    if _PATTERN.fullmatch(digits) is None:
        shown = text[:24]
        if "E+" in text.upper():
            raise BadPattern(f"{shown!r} is a number that a spreadsheet has cut short: format its column as text")
        if digits[0] == "0":
            raise BadPattern(f"{shown!r} isn't international: write it with its country code")
        if digits[0] in "*?":
            raise BadPattern(f"{shown!r} would fit half of all numbers: begin with a digit")
        if "*" in digits[:-1]:
            raise BadPattern(f'{shown!r}: "*" stands at the end only; "?" is any one digit')
        raise BadPattern(f'{shown!r} is no number, prefix ("4990*") or wildcard ("4990?555*")')
    if digits[-1] != "*":
        if prefixes:
            digits += "*"
        elif len(digits) < 2:
            raise BadPattern(f'{text[:24]!r} is too short for a number: a prefix is written "{digits}*"')
    if len(digits.removesuffix("*")) > DIGITS_MAX:
        raise BadPattern(f"{text[:24]!r} is longer than {DIGITS_MAX} digits")
    return digits


def digits_of(number: str) -> str:
    """A number of a call as lists have it: digits of E.164; "" for a name, or what isn't international."""
    digits = number.translate(_SEPARATORS)
    digits = digits[1:] if digits.startswith("+") else digits.removeprefix("00")
    return digits if _NUMBER.fullmatch(digits) else ""


class Match(NamedTuple):
    """The entry of one list that fits best. `rank`: how exactly, so that lists can be compared."""

    rank: int
    pattern: str


EXACT_RANK: Final = DIGITS_MAX + 1  # above every prefix and wildcard, which rank by the digits that they name


@dataclass(frozen=True, slots=True)
class _Shape:
    """Wildcards of one kind. `fixed`: where the named digits stand."""

    fixed: tuple[tuple[int, int], ...]
    length: int
    is_open: bool
    rank: int
    keys: set[str]

    def matches(self, digits: str) -> bool:
        length = len(digits)
        if length != self.length and (length < self.length or not self.is_open):
            return False
        return "".join([digits[start:end] for start, end in self.fixed]) in self.keys

    def pattern(self, digits: str) -> str:
        named = ["?"] * self.length
        for start, end in self.fixed:
            named[start:end] = digits[start:end]
        return "".join(named) + ("*" if self.is_open else "")


@dataclass(frozen=True, slots=True)
class NumberList:
    """A list that is compiled for matching. Never changes."""

    head: ListHead
    _numbers: tuple["array[int] | None", ...]
    """By the number of digits; ascending."""
    _prefixes: tuple[tuple[int, "array[int]"], ...]
    """The longest first."""
    _shapes: tuple[_Shape, ...]
    """Those with the most digits first."""

    def match(self, digits: str) -> Match | None:
        """The entry that fits best: the number itself, else what names the most of its digits."""
        length = len(digits)
        numbers = self._numbers[length] if length <= DIGITS_MAX else None
        if numbers is not None:
            value = int(digits)
            index = bisect_left(numbers, value)
            if index < len(numbers) and numbers[index] == value:
                return Match(EXACT_RANK, digits)
        best = None
        for size, prefixes in self._prefixes:
            if size <= length:
                value = int(digits[:size])
                index = bisect_left(prefixes, value)
                if index < len(prefixes) and prefixes[index] == value:
                    best = Match(size, f"{digits[:size]}*")
                    break
        for shape in self._shapes:
            if best is not None and shape.rank <= best.rank:
                break
            if shape.matches(digits):
                return Match(shape.rank, shape.pattern(digits))
        return best

    @property
    def size_bytes(self) -> int:
        """What its numbers and prefixes take; wildcards are a few."""
        arrays = [numbers for numbers in self._numbers if numbers is not None]
        arrays += [prefixes for _, prefixes in self._prefixes]
        return sum(values.itemsize * len(values) for values in arrays)


class TooManyShapes(ValueError):
    """A list has more kinds of wildcards than can be looked through for each call."""


class ListBuilder:
    """Compiles a list page by page, so that calls go on in between."""

    def __init__(self, head: ListHead) -> None:
        self._head = head
        self._numbers: dict[int, array[int]] = {}
        self._prefixes: dict[int, array[int]] = {}
        self._shapes: dict[str, _Shape] = {}
        self._unsorted: set[int] = set()  # ids of arrays that must be sorted in the end

    def add(self, patterns: Iterable[str]) -> None:
        """Entries as parse_pattern spells them; ascending where they can be, which saves sorting. 0.4 µs each."""
        for pattern in patterns:
            if "?" in pattern:
                self._add_wildcard(pattern)
                continue
            if pattern[-1] == "*":
                pattern = pattern[:-1]
                arrays = self._prefixes
            else:
                arrays = self._numbers
            values = arrays.get(len(pattern))
            if values is None:
                values = arrays[len(pattern)] = array("Q")
            value = int(pattern)
            if values and values[-1] > value:
                self._unsorted.add(id(values))
            values.append(value)

    def _add_wildcard(self, pattern: str) -> None:
        key, fixed = shape_of(pattern), _runs(pattern)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= SHAPES_MAX:
                raise TooManyShapes(key)
            body = pattern.removesuffix("*")
            shape = _Shape(fixed, len(body), body != pattern, sum(end - start for start, end in fixed), set())
            self._shapes[key] = shape
        shape.keys.add("".join([pattern[start:end] for start, end in fixed]))

    def build(self) -> NumberList:
        """The list. Quick, unless pages came out of order."""
        for arrays in (self._numbers, self._prefixes):
            for length, values in arrays.items():
                if id(values) in self._unsorted:
                    arrays[length] = array("Q", sorted(values))
        return NumberList(
            self._head,
            tuple(self._numbers.get(length) for length in range(DIGITS_MAX + 1)),
            tuple(sorted(self._prefixes.items(), reverse=True)),
            tuple(sorted(self._shapes.values(), key=lambda shape: -shape.rank)),
        )


def shape_of(pattern: str) -> str:
    """The kind of a wildcard: its digits alike. "4990?555*" → "0000?000*"."""
    return "".join("0" if char.isdigit() else char for char in pattern)


def _runs(pattern: str) -> tuple[tuple[int, int], ...]:
    return tuple(found.span() for found in re.finditer(r"[0-9]+", pattern))


# ------------------------------------------------------------------ numbers that are listed for a time


@dataclass(frozen=True, slots=True)
class Listed:
    """A number that is on a list until a moment: a called one for a realm or for one account's calls, a calling one for
    one account."""

    list: str
    """DYNAMIC or SMART."""
    realm: str
    side: ListSide
    number: str
    account_id: UUID | None
    reason: str
    evidence: str
    since_s: float
    until_s: float

    @property
    def key(self) -> tuple[str, ...]:
        """What it is listed as: there is one listing for each."""
        owner = self.realm if self.account_id is None else str(self.account_id)
        return self.list, self.side.value, owner, self.number


LISTED_MAX: Final = 100_000  # 60 MB. More at once means that statistics are wrong, not that all callers are.


class Listings:
    """What is listed for a time, as all processes see it. Mutable: it follows a store."""

    def __init__(self) -> None:
        self._called: dict[tuple[str, str], dict[str, Listed]] = {}
        self._called_by: dict[tuple[UUID, str], dict[str, Listed]] = {}
        self._calling: dict[tuple[UUID, str], dict[str, Listed]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, listed: Listed) -> bool:
        """Knows it from now on; False for want of room."""
        of_number = self._of(listed)
        if listed.list not in of_number:
            if self._count >= LISTED_MAX:
                return False
            self._count += 1
        of_number[listed.list] = listed
        self._store(listed, of_number)
        return True

    def remove(self, listed: Listed) -> None:
        of_number = self._of(listed)
        if of_number.pop(listed.list, None) is not None:
            self._count -= 1
        self._store(listed, of_number)

    def all(self, unix_s: UnixS) -> list[Listed]:
        """Those that hold, the oldest first."""
        found = [
            listed
            for of_number in (*self._called.values(), *self._called_by.values(), *self._calling.values())
            for listed in of_number.values()
            if unix_s < listed.until_s
        ]
        return sorted(found, key=lambda listed: (listed.since_s, listed.key))

    def called(self, realm: str, digits: str, lists: Collection[str], unix_s: UnixS) -> Listed | None:
        return _first(self._called.get((realm, digits)), lists, unix_s) if self._called else None

    def called_by(self, account_id: UUID, digits: str, lists: Collection[str], unix_s: UnixS) -> Listed | None:
        """What lists a called number for one account's calls only."""
        return _first(self._called_by.get((account_id, digits)), lists, unix_s) if self._called_by else None

    def calling(self, account_id: UUID, digits: str, lists: Collection[str], unix_s: UnixS) -> Listed | None:
        return _first(self._calling.get((account_id, digits)), lists, unix_s) if self._calling else None

    def holds(self, listed: Listed, lists: Collection[str], unix_s: UnixS) -> bool:
        """Whether the number is on one of the lists already, for the same calls or for all of the realm's."""
        of_all = self._called.get((listed.realm, listed.number)) if listed.side is ListSide.CALLED else None
        return _first(self._of(listed), lists, unix_s) is not None or _first(of_all, lists, unix_s) is not None

    def _of(self, listed: Listed) -> dict[str, Listed]:
        table, key = self._place(listed)
        return table.get(key) or {}

    def _store(self, listed: Listed, of_number: dict[str, Listed]) -> None:
        table, key = self._place(listed)
        if of_number:
            table[key] = of_number
        else:
            table.pop(key, None)

    def _place(self, listed: Listed) -> tuple[dict[Any, dict[str, Listed]], tuple[object, str]]:
        if listed.account_id is None:
            return self._called, (listed.realm, listed.number)
        table = self._called_by if listed.side is ListSide.CALLED else self._calling
        return table, (listed.account_id, listed.number)


def _first(of_number: Mapping[str, Listed] | None, lists: Collection[str], unix_s: UnixS) -> Listed | None:
    if of_number:
        for listed in of_number.values():
            if unix_s < listed.until_s and listed.list in lists:
                return listed
    return None


# ------------------------------------------------------------------ all lists together


class Hit(NamedTuple):
    """A number on a list."""

    list: str
    kind: ListKind
    side: ListSide
    """CALLED or CALLING: the number that was found."""
    pattern: str
    """The entry; of a list that makes itself the number."""
    rank: int
    evidence: str = ""
    since_s: float = 0.0
    until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lists:
    """Every list of this moment. The fixed ones never change: another version is another value; `listings` follow."""

    fixed: Mapping[str, NumberList] = field(default_factory=dict)
    listings: Listings = field(default_factory=Listings)
    of_trunk: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the lists that are for calls by a trunk."""

    @classmethod
    def of(cls, lists: Iterable[NumberList], listings: Listings) -> "Lists":
        fixed = {one.head.name: one for one in lists}
        of_trunk: dict[str, tuple[str, ...]] = {}
        for name, one in fixed.items():
            for trunk in one.head.trunks:
                of_trunk[trunk] = (*of_trunk.get(trunk, ()), name)
        return cls(fixed, listings, of_trunk)

    def find(self, names: Iterable[str], digits: str, side: ListSide) -> Hit | None:
        """What the named lists say of a number on that side of a call: the entry that fits best, and of two that fit
        alike the one that allows. A name that no list has says nothing."""
        best: Hit | None = None
        if digits:
            for name in names:
                one = self.fixed.get(name)
                if one is None or (one.head.side is not side and one.head.side is not _BOTH):
                    continue
                match = one.match(digits)
                if match is not None and (
                    best is None
                    or match.rank > best.rank
                    or (match.rank == best.rank and one.head.kind is _ALLOW and best.kind is not _ALLOW)
                ):
                    best = Hit(name, one.head.kind, side, match.pattern, match.rank)
        return best

    def verdict(
        self,
        names: Iterable[str],
        own: Collection[str],
        realm: str,
        account_id: UUID,
        called: str,
        calling: str,
        unix_s: UnixS,
    ) -> Hit | None:
        """The hit that refuses a call between these numbers (digits_of), or None. `own`: which of DYNAMIC and SMART
        hold."""
        names = tuple(names)
        hit = self.find(names, called, _CALLED)
        if hit is None:
            listed = self.listings.called(realm, called, own, unix_s)
            if listed is None:
                listed = self.listings.called_by(account_id, called, own, unix_s)
            if listed is not None:
                return _hit_of(listed)
        elif hit.kind is not _ALLOW:
            return hit
        hit = self.find(names, calling, _CALLING)
        if hit is None:
            listed = self.listings.calling(account_id, calling, own, unix_s)
            if listed is not None:
                return _hit_of(listed)
        elif hit.kind is not _ALLOW:
            return hit
        return None


@dataclass(frozen=True, slots=True)
class Listing:
    """What the lists rule looks at: all lists, and the number that the call shows as its own."""

    lists: Lists
    calling: str


def _hit_of(listed: Listed) -> Hit:
    return Hit(
        listed.list,
        ListKind.BLOCK,
        listed.side,
        listed.number,
        EXACT_RANK,
        listed.evidence,
        listed.since_s,
        listed.until_s,
    )


_ALLOW: Final = ListKind.ALLOW
_BOTH, _CALLED, _CALLING = ListSide.BOTH, ListSide.CALLED, ListSide.CALLING
