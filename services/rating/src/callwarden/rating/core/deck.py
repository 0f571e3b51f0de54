"""Decks: price lists, compiled for longest-prefix match in little memory.

In: a row's tariff, the compiled deck and its bytes, the price at a given time. Out: reading CSV (deck_csv), peak hours
(callwarden.kernel.hours), what a call costs (callwarden.kernel.tariff).
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from callwarden.kernel.hours import HoursPlan
from callwarden.kernel.phone import DIGITS_MAX
from callwarden.kernel.tariff import GROUPS_MAX, Price, RateGroup, Rounding, Weekly, WeeklyPeriod, Window
from callwarden.rating.core.prefixes import PrefixOrder, code_of

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_WINDOW_NAME = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_PREFIX = re.compile(rf"[1-9]\d{{0,{DIGITS_MAX - 1}}}", re.ASCII)

WINDOWS_MAX: Final = 8  # A working week's peak, evening, night and weekend need four.
PEAK, OFF_PEAK, OTHER = "peak", "off-peak", "other"
STEPS_MAX: Final = GROUPS_MAX - 2  # The first increment and the following ones may need a group each.

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


def is_window_name(text: str) -> bool:
    """Whether it is a valid name for one of a deck's windows: 1 to 32 characters of [a-z0-9-], none of our own."""
    return _WINDOW_NAME.fullmatch(text) is not None and text not in (PEAK, OFF_PEAK, OTHER)


@dataclass(frozen=True, slots=True)
class DeckWindow:
    """Hours of the week for which rows may have other charges."""

    name: str
    hours: str


@dataclass(frozen=True, slots=True)
class WindowCharges:
    """What a row charges in one of the deck's windows; None: as the row says."""

    rate_micros: int | None = None
    connect_fee_micros: int | None = None
    unit_s: int | None = None
    first_increment_s: int | None = None
    next_increment_s: int | None = None
    steps: tuple[RateGroup, ...] | None = None


AS_THE_ROW: Final = WindowCharges()


@dataclass(frozen=True, slots=True)
class Tariff:
    """The charges of a row, shared by all prefixes with the same. Off-peak None: as in peak hours.

    `steps` replace rate and increments from a second of the charged time on. `windows` are in the order of the deck's;
    empty: none of them differs.
    """

    rate_micros: int
    unit_s: int = 60
    connect_fee_micros: int = 0
    first_increment_s: int = 1
    next_increment_s: int = 1
    free_s: int = 0
    minimum_micros: int = 0
    off_peak_rate_micros: int | None = None
    off_peak_connect_fee_micros: int | None = None

    steps: tuple[RateGroup, ...] = ()
    off_peak_steps: tuple[RateGroup, ...] | None = None
    windows: tuple[WindowCharges, ...] = ()
    maximum_micros: int | None = None
    cuts_at_maximum: bool = False

    @property
    def off_peak(self) -> WindowCharges:
        return WindowCharges(self.off_peak_rate_micros, self.off_peak_connect_fee_micros, steps=self.off_peak_steps)

    @property
    def varies(self) -> bool:
        """Whether it charges differently at some hours."""
        return any(charges != AS_THE_ROW for charges in (self.off_peak, *self.windows))

    def window(self, name: str, charges: WindowCharges = AS_THE_ROW) -> Window:
        """What it charges there, as a window for all times."""
        rate = _or(charges.rate_micros, self.rate_micros)
        unit_s = _or(charges.unit_s, self.unit_s)
        first_s = _or(charges.first_increment_s, self.first_increment_s)
        next_s = _or(charges.next_increment_s, self.next_increment_s)
        steps = self.steps if charges.steps is None else charges.steps
        groups: tuple[RateGroup, ...] = (RateGroup(0, rate, unit_s, first_s),)
        if next_s != first_s and not (steps and steps[0].start_s <= first_s):
            groups += (RateGroup(first_s, rate, unit_s, next_s),)
        return Window(0, groups + steps, _or(charges.connect_fee_micros, self.connect_fee_micros), name)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


_NONE: Final = -1  # in place of None: no charge and no number of steps is negative


def _numbers(tariff: Tariff) -> Iterator[int]:
    """All that the tariff charges, as numbers of 64 bits; `_tariff_of` reads them."""
    yield from (tariff.rate_micros, tariff.unit_s, tariff.connect_fee_micros, tariff.first_increment_s)
    yield from (tariff.next_increment_s, tariff.free_s, tariff.minimum_micros)
    yield from (_number(tariff.off_peak_rate_micros), _number(tariff.off_peak_connect_fee_micros))
    yield from (_number(tariff.maximum_micros), int(tariff.cuts_at_maximum))
    yield from _step_numbers(tariff.steps)
    yield from _step_numbers(tariff.off_peak_steps)
    yield len(tariff.windows)
    for charges in tariff.windows:
        yield from (_number(charges.rate_micros), _number(charges.connect_fee_micros), _number(charges.unit_s))
        yield from (_number(charges.first_increment_s), _number(charges.next_increment_s))
        yield from _step_numbers(charges.steps)


def _number(value: int | None) -> int:
    return _NONE if value is None else value


def _step_numbers(steps: tuple[RateGroup, ...] | None) -> Iterator[int]:
    yield _NONE if steps is None else len(steps)
    for step in steps or ():
        yield from (step.start_s, step.rate_micros, step.unit_s, step.increment_s)


def _tariff_of(numbers: Iterator[int]) -> Tariff:
    rate, unit_s, fee, first_s, next_s, free_s, minimum = (next(numbers) for _ in range(7))
    off_peak_rate, off_peak_fee, maximum = (_value(numbers) for _ in range(3))
    cuts_at_maximum = bool(next(numbers))
    steps, off_peak_steps = _steps_of(numbers) or (), _steps_of(numbers)
    windows = tuple(_charges_of(numbers) for _ in range(next(numbers)))
    return Tariff(
        rate, unit_s, fee, first_s, next_s, free_s, minimum, off_peak_rate, off_peak_fee,
        steps, off_peak_steps, windows, maximum, cuts_at_maximum,
    )  # fmt: skip


def _value(numbers: Iterator[int]) -> int | None:
    number = next(numbers)
    return None if number == _NONE else number


def _steps_of(numbers: Iterator[int]) -> tuple[RateGroup, ...] | None:
    count = _value(numbers)
    if count is None:
        return None
    return tuple(RateGroup(next(numbers), next(numbers), next(numbers), next(numbers)) for _ in range(count))


def _charges_of(numbers: Iterator[int]) -> WindowCharges:
    rate, fee, unit_s, first_s, next_s = (_value(numbers) for _ in range(5))
    return WindowCharges(rate, fee, unit_s, first_s, next_s, _steps_of(numbers))


@dataclass(frozen=True, slots=True)
class DeckRow:
    """One line of a price list."""

    prefix: str
    description: str
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class DeckHead:
    """Properties of a whole deck. Hours and `time_zone` as the operator gave them."""

    name: str
    currency: str
    version: int = 0
    peak_hours: str = ""
    time_zone: str = "UTC"
    rounding: Rounding = field(default_factory=Rounding)
    windows: tuple[DeckWindow, ...] = ()
    """In order of precedence; all before the peak hours."""

    @property
    def periods(self) -> tuple[DeckWindow, ...]:
        """All hours with prices of their own, in order of precedence."""
        return (*self.windows, DeckWindow(PEAK, self.peak_hours)) if self.peak_hours else self.windows


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
    charges_ends: bytes
    """By tariff, uint32: where its numbers end in `charges`."""
    charges: bytes
    """What tariffs charge, one after another, int64."""


class Deck:
    """A compiled deck. Immutable but for caches of computed prices."""

    __slots__ = (
        "_charges", "_charges_ends", "_ends", "_entries", "_prices", "_schedules", "_tariff_of", "_tariffs", "_texts",
        "head", "order", "plan", "rows",
    )  # fmt: skip

    def __init__(self, head: DeckHead, plan: HoursPlan | None, packed: PackedRows) -> None:
        """`plan`: of the head's periods, None without any."""
        codes = memoryview(packed.codes).cast("Q")
        self.head = head
        self.plan = plan
        self.rows = len(codes)
        self.order = PrefixOrder(codes)
        self._entries = memoryview(packed.entries).cast("I")
        self._tariff_of = memoryview(packed.tariffs).cast("I")
        self._ends = memoryview(packed.ends).cast("I")
        self._texts = packed.texts
        self._charges_ends = memoryview(packed.charges_ends).cast("I")
        self._charges = memoryview(packed.charges).cast("q")
        self._tariffs: dict[int, Tariff] = {}
        self._prices: dict[tuple[int, Tariff], Price] = {}
        self._schedules: dict[int, tuple[tuple[int, int], ...]] = {}

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
            begin = self._charges_ends[number - 1] if number else 0
            tariff = _tariff_of(iter(self._charges[begin : self._charges_ends[number]]))
            self._tariffs[number] = tariff
        return tariff

    def price(self, tariff: Tariff, at_s: float, valid_s: float) -> Price:
        """The price for calls that begin in the `valid_s` seconds (at most an hour) from `at_s`."""
        bucket = -1 if self.plan is None or not tariff.varies else int(at_s) // PRICE_HOLDS_S
        price = self._prices.get((bucket, tariff))
        if price is None:
            price = self._price(tariff, bucket, valid_s)
        return price

    def _price(self, tariff: Tariff, bucket: int, valid_s: float) -> Price:
        windows: tuple[Window, ...]
        head, weekly = self.head, None
        if self.plan is None or bucket < 0:
            windows = (tariff.window(""),)
        else:
            kinds = self._kinds(tariff)
            (_, first), *later = self._schedule(bucket, self.plan, valid_s)
            until_s = _until_s(bucket, valid_s)
            windows = (kinds[first], *(replace(kinds[number], from_s=moment_s) for moment_s, number in later))
            if not later:  # a weekend: a price that goes on has two windows
                windows += (replace(kinds[first], from_s=until_s),)
            periods = (WeeklyPeriod(period.hours, kind) for period, kind in zip(head.periods, kinds, strict=False))
            weekly = Weekly(until_s, head.time_zone or "UTC", tuple(periods), kinds[-1], self.plan)
        if len(self._prices) >= _PRICES_MAX:
            self._prices.clear()
        price = Price(
            head.currency,
            windows,
            tariff.free_s,
            tariff.minimum_micros,
            head.rounding,
            tariff.maximum_micros,
            weekly,
            tariff.cuts_at_maximum,
        )
        self._prices[(bucket, tariff)] = price
        return price

    def _kinds(self, tariff: Tariff) -> tuple[Window, ...]:
        """What the tariff charges in each of the head's periods, and outside of them."""
        charges = tariff.windows or (AS_THE_ROW,) * len(self.head.windows)
        named = zip(self.head.windows, charges, strict=True)
        kinds = tuple(tariff.window(window.name, charged) for window, charged in named)
        if self.head.peak_hours:
            return (*kinds, tariff.window(PEAK), tariff.window(OFF_PEAK, tariff.off_peak))
        return (*kinds, tariff.window(OTHER))

    def _schedule(self, bucket: int, plan: HoursPlan, valid_s: float) -> tuple[tuple[int, int], ...]:
        if bucket not in self._schedules:
            if len(self._schedules) >= _BUCKETS_MAX:
                self._schedules.clear()
                self._prices.clear()
            self._schedules[bucket] = plan.switches(bucket * PRICE_HOLDS_S, _until_s(bucket, valid_s))
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
        self._charges_ends = array("I")
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
            self._charges.extend(_numbers(tariff))
            self._charges_ends.append(len(self._charges))
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
            self._charges_ends.tobytes(),
            self._charges.tobytes(),
        )
