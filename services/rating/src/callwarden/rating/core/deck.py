"""Decks: price lists, compiled for longest-prefix match in little memory.

In: a row's tariff, the compiled deck and its bytes, the price at a given time. Out: reading CSV (deck_csv), peak hours
(callwarden.kernel.hours), what a call costs (callwarden.kernel.tariff).
"""

import re
from array import array
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields
from typing import Final

from callwarden.kernel.hours import PeakHours
from callwarden.kernel.phone import DIGITS_MAX
from callwarden.kernel.tariff import Price, RateGroup, Rounding, Weekly, Window
from callwarden.rating.core.prefixes import PrefixOrder, code_of

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PREFIX = re.compile(rf"[1-9]\d{{0,{DIGITS_MAX - 1}}}", re.ASCII)

# A price has windows for this long from the time of the quote, which is enough for nearly all calls. For longer ones it
# goes on by the hours of the week, so that each second of a call is charged by the right price.
WINDOWS_AHEAD_S: Final = 86_400
# Prices of a deck with peak hours are computed once for each hour, and cached for a few hours.
PRICE_HOLDS_S: Final = 3_600
_BUCKETS_MAX: Final = 4
_PRICES_MAX: Final = 4_096  # A list has tens to hundreds of different tariffs; each price takes about 1 KB.


def is_name(text: str) -> bool:
    """Whether it is a valid name for a deck: 1 to 64 characters of [A-Za-z0-9._-]."""
    return _NAME.fullmatch(text) is not None


def is_prefix(text: str) -> bool:
    """Whether it is a prefix of an E.164 number: 1 to 15 digits, no leading zero."""
    return _PREFIX.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Tariff:
    """The charges of a row, shared by all prefixes with the same. Off-peak None: as in peak hours."""

    rate_micros: int
    unit_s: int = 60
    connect_fee_micros: int = 0
    first_increment_s: int = 1
    next_increment_s: int = 1
    free_s: int = 0
    minimum_micros: int = 0
    off_peak_rate_micros: int | None = None
    off_peak_connect_fee_micros: int | None = None

    @property
    def has_off_peak(self) -> bool:
        return self.off_peak_rate_micros is not None or self.off_peak_connect_fee_micros is not None

    def window(self, from_s: int, *, is_peak: bool | None) -> Window:
        """The window that begins then; `is_peak` None: the tariff has only one."""
        rate, fee = self.rate_micros, self.connect_fee_micros
        if is_peak is False:
            rate = rate if self.off_peak_rate_micros is None else self.off_peak_rate_micros
            fee = fee if self.off_peak_connect_fee_micros is None else self.off_peak_connect_fee_micros
        groups: tuple[RateGroup, ...] = (RateGroup(0, rate, self.unit_s, self.first_increment_s),)
        if self.next_increment_s != self.first_increment_s:
            groups += (RateGroup(self.first_increment_s, rate, self.unit_s, self.next_increment_s),)
        name = "" if is_peak is None else "peak" if is_peak else "off-peak"
        return Window(from_s, groups, fee, name)


_CHARGES: Final = len(fields(Tariff))
_NO_CHARGE: Final = -1  # in place of None: no charge is negative


@dataclass(frozen=True, slots=True)
class DeckRow:
    """One line of a price list."""

    prefix: str
    description: str
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class DeckHead:
    """Properties of a whole deck. `peak_hours` and `time_zone` as the operator gave them."""

    name: str
    currency: str
    version: int = 0
    peak_hours: str = ""
    time_zone: str = "UTC"
    rounding: Rounding = field(default_factory=Rounding)


@dataclass(frozen=True, slots=True)
class ImportedDeck:
    """The result of an import."""

    rows: int
    version: int


@dataclass(frozen=True, slots=True)
class DeckEntry:
    """Description and tariff of a prefix."""

    description: str
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class PackedRows:
    """All rows of a deck as a few byte strings in native order, for another process of the same machine: there is
    nothing to build where they arrive, and nothing that the garbage collector looks at.

    Measured with 300,000 prefixes: 4 MB if descriptions repeat as in real decks.
    """

    codes: bytes
    """By row, uint64: the code of its prefix, ascending."""
    entries: bytes
    """By row, uint32: which entry it has."""
    tariffs: bytes
    """By entry, uint32: which tariff it has."""
    ends: bytes
    """By entry, uint32: where its description ends in `texts`."""
    texts: bytes
    """The descriptions, one after another, UTF-8."""
    charges: bytes
    """By tariff, int64: its fields in their order, `_NO_CHARGE` for None."""


class Deck:
    """A compiled deck. Immutable but for caches of computed prices."""

    __slots__ = (
        "_charges", "_ends", "_entries", "_prices", "_schedules", "_tariff_of", "_tariffs", "_texts",
        "head", "order", "peak", "rows",
    )  # fmt: skip

    def __init__(self, head: DeckHead, peak: PeakHours | None, packed: PackedRows) -> None:
        codes = memoryview(packed.codes).cast("Q")
        self.head = head
        self.peak = peak
        self.rows = len(codes)
        self.order = PrefixOrder(codes)
        self._entries = memoryview(packed.entries).cast("I")
        self._tariff_of = memoryview(packed.tariffs).cast("I")
        self._ends = memoryview(packed.ends).cast("I")
        self._texts = packed.texts
        self._charges = memoryview(packed.charges).cast("q")
        self._tariffs: dict[int, Tariff] = {}
        self._prices: dict[tuple[int, Tariff], Price] = {}
        self._schedules: dict[int, tuple[tuple[int, bool], ...]] = {}

    def match(self, digits: str) -> tuple[str, DeckEntry] | None:
        """The longest prefix of the number in the deck, with its entry."""
        found = self.order.longest(code_of(digits))
        if found is None:
            return None
        place, length = found
        return digits[:length], self._entry(self._entries[place])

    def _entry(self, number: int) -> DeckEntry:
        begin = self._ends[number - 1] if number else 0
        return DeckEntry(self._texts[begin : self._ends[number]].decode(), self._tariff(self._tariff_of[number]))

    def _tariff(self, number: int) -> Tariff:
        tariff = self._tariffs.get(number)
        if tariff is None:
            if len(self._tariffs) >= _PRICES_MAX:
                self._tariffs.clear()
            first = number * _CHARGES
            values = self._charges[first : first + _CHARGES].tolist()
            tariff = Tariff(*values[:-2], *(None if value == _NO_CHARGE else value for value in values[-2:]))
            self._tariffs[number] = tariff
        return tariff

    def price(self, tariff: Tariff, at_s: float, valid_s: float) -> Price:
        """The price for calls that begin in the `valid_s` seconds (at most an hour) from `at_s`."""
        bucket = -1 if self.peak is None or not tariff.has_off_peak else int(at_s) // PRICE_HOLDS_S
        price = self._prices.get((bucket, tariff))
        if price is None:
            price = self._price(tariff, bucket, valid_s)
        return price

    def _price(self, tariff: Tariff, bucket: int, valid_s: float) -> Price:
        windows: tuple[Window, ...]
        head, weekly = self.head, None
        if self.peak is None or bucket < 0:
            windows = (tariff.window(0, is_peak=None),)
        else:
            (_, is_peak), *later = self._schedule(bucket, self.peak, valid_s)
            until_s = _until_s(bucket, valid_s)
            windows = (
                tariff.window(0, is_peak=is_peak),
                *(tariff.window(moment_s, is_peak=is_peak) for moment_s, is_peak in later),
            )
            if not later:  # a weekend: a price that goes on has two windows
                windows += (tariff.window(until_s, is_peak=is_peak),)
            weekly = Weekly(
                until_s,
                head.peak_hours,
                head.time_zone or "UTC",
                tariff.window(0, is_peak=True),
                tariff.window(0, is_peak=False),
                self.peak,
            )
        if len(self._prices) >= _PRICES_MAX:
            self._prices.clear()
        price = Price(head.currency, windows, tariff.free_s, tariff.minimum_micros, head.rounding, weekly=weekly)
        self._prices[(bucket, tariff)] = price
        return price

    def _schedule(self, bucket: int, peak: PeakHours, valid_s: float) -> tuple[tuple[int, bool], ...]:
        if bucket not in self._schedules:
            if len(self._schedules) >= _BUCKETS_MAX:
                self._schedules.clear()
                self._prices.clear()
            self._schedules[bucket] = peak.switches(bucket * PRICE_HOLDS_S, _until_s(bucket, valid_s))
        return self._schedules[bucket]


def _until_s(bucket: int, valid_s: float) -> int:
    """Up to when the windows of a price reach that is computed for this hour."""
    return (bucket + 1) * PRICE_HOLDS_S + int(valid_s) + WINDOWS_AHEAD_S


class RowPacker:
    """Packs the rows of a deck, given in any order and in any number of steps. Equal entries are stored once."""

    def __init__(self) -> None:
        self._codes = array("Q")
        self._entries = array("I")
        self._tariff_of = array("I")
        self._ends = array("I")
        self._texts = bytearray()
        self._charges = array("q")
        self._tariffs: dict[Tariff, int] = {}
        self._known: dict[tuple[str, Tariff], int] = {}

    def add(self, rows: Iterable[DeckRow]) -> None:
        """Add rows. The store guarantees valid and distinct prefixes."""
        for row in rows:
            key = row.description, row.tariff
            entry = self._known.get(key)
            if entry is None:
                entry = self._known[key] = len(self._known)
                self._tariff_of.append(self._tariff(row.tariff))
                self._texts += row.description.encode()
                self._ends.append(len(self._texts))
            self._codes.append(code_of(row.prefix))
            self._entries.append(entry)

    def _tariff(self, tariff: Tariff) -> int:
        number = self._tariffs.get(tariff)
        if number is None:
            number = self._tariffs[tariff] = len(self._tariffs)
            self._charges.extend(_NO_CHARGE if charge is None else charge for charge in astuple(tariff))
        return number

    def pack(self) -> PackedRows:
        codes, entries = self._codes, self._entries
        order = sorted(range(len(codes)), key=codes.__getitem__)  # quick, since a store gives them in order
        return PackedRows(
            array("Q", (codes[place] for place in order)).tobytes(),
            array("I", (entries[place] for place in order)).tobytes(),
            self._tariff_of.tobytes(),
            self._ends.tobytes(),
            bytes(self._texts),
            self._charges.tobytes(),
        )
