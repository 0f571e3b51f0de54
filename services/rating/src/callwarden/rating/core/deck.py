"""Decks: price lists, compiled for longest-prefix match in little memory.

In: a row's tariff, the compiled deck, the price at a given time. Out: reading CSV (deck_csv), peak hours
(callwarden.kernel.hours), what a call costs (callwarden.kernel.tariff).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from callwarden.kernel.hours import PeakHours
from callwarden.kernel.phone import DIGITS_MAX
from callwarden.kernel.tariff import Price, RateGroup, Rounding, Weekly, Window
from callwarden.rating.core.prefixes import PrefixOrder, PrefixOrderBuilder

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
class DeckEntry:
    """Description and tariff of a prefix."""

    description: str
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class Deck:
    """A compiled deck. Immutable but for caches of computed prices."""

    head: DeckHead
    rows: int
    peak: PeakHours | None
    _by_length: tuple[tuple[int, dict[int, DeckEntry]], ...]
    order: PrefixOrder = field(repr=False)
    _prices: dict[tuple[int, Tariff], Price] = field(default_factory=dict, compare=False, repr=False)
    _schedules: dict[int, tuple[tuple[int, bool], ...]] = field(default_factory=dict, compare=False, repr=False)

    def match(self, digits: str) -> tuple[str, DeckEntry] | None:
        """The longest prefix of the number in the deck, with its entry."""
        number_length = len(digits)
        for length, entries in self._by_length:
            if length <= number_length:
                entry = entries.get(int(digits[:length]))
                if entry is not None:
                    return digits[:length], entry
        return None

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


class DeckBuilder:
    """Compiles a deck from its rows, given in any order and in any number of steps.

    Measured with 300,000 prefixes of 6 to 9 digits: 20 MB if descriptions repeat as in real decks, 58 MB if all
    differ. Keys are integers, half the size of strings; equal entries are stored once.
    """

    def __init__(self, head: DeckHead, peak: PeakHours | None) -> None:
        self._head = head
        self._peak = peak
        self._rows = 0
        self._by_length: dict[int, dict[int, DeckEntry]] = {}
        self._order = PrefixOrderBuilder()
        self._tariffs: dict[Tariff, Tariff] = {}
        self._entries: dict[tuple[str, Tariff], DeckEntry] = {}

    def add(self, rows: Iterable[DeckRow]) -> None:
        """Add rows. The store guarantees valid and distinct prefixes."""
        for row in rows:
            key = (row.description, row.tariff)
            entry = self._entries.get(key)
            if entry is None:
                tariff = self._tariffs.setdefault(row.tariff, row.tariff)
                entry = DeckEntry(row.description, tariff)
                self._entries[(row.description, tariff)] = entry
            self._by_length.setdefault(len(row.prefix), {})[int(row.prefix)] = entry
            self._order.add(row.prefix)
            self._rows += 1

    def build(self) -> Deck:
        longest_first = tuple(sorted(self._by_length.items(), reverse=True))
        return Deck(self._head, self._rows, self._peak, longest_first, self._order.build())
