"""Tariffs: what a call costs, exactly, in integers.

In: Price and its parts, cost of a duration, the longest duration that money buys, billed seconds. Out: which price
holds for a number and when it is peak (callwarden.rating), and whether a call may go on (callwarden.call_admission).

How a call is charged:

- A call of zero seconds costs nothing. Any other costs the connect fee of the window in which it starts, plus its talk
  time after the free seconds, at least the minimum. This total is rounded, once and as a whole. Where there is a
  maximum, it costs at most that: rounding doesn't pass it.
- Time is counted in whole increments; a begun one is charged whole. An increment costs what the window and the rate
  group say in which it begins, even if it ends in the next; the next increment begins where it ended.
- Increments of one window and group are one segment. Segments are added up as fractions. What an increment or a segment
  costs is never rounded: that drifts (an hour for 6.5118 instead of 6.50), and differs with where windows are
  crossed.

So cost never falls as a call grows longer (tested), which lets `affordable_s` solve for the duration in closed form.
"""

import itertools
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from math import lcm
from typing import Final

from callwarden.kernel.hours import HoursPlan
from callwarden.kernel.money import MICROS, Micros

# A million units for one unit of time: above any real price, and 10^6 s at that price still fit 64 bits.
RATE_MICROS_MAX: Final = 1_000_000 * MICROS
SECONDS_MAX: Final = 86_400  # Units, increments, free seconds: none is longer than a day.
GROUPS_MAX: Final = 8  # First increment and following ones need two; eight leave room for volume steps.
WINDOWS_MAX: Final = 128  # A week of four switches a day, four times over.
# How far a price goes on after its last window: a year and some days, longer than any call that policy allows.
WEEKLY_WEEKS_MAX: Final = 53
_WEEK_S: Final = 7 * 86_400
_WEEKS_CACHED: Final = 1_024  # About 1 KB each with one range of hours a day.


class BadPrice(ValueError):
    """The parts don't make a price that can be charged; `field` names the part."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


class RoundingMethod(Enum):
    """The value is what the database and decks say."""

    UP = "up"
    MIDDLE = "middle"  # to the nearest, a half upwards
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a call's total is rounded: to so many decimals of the currency's unit, 0 to 6."""

    method: RoundingMethod = RoundingMethod.UP
    decimals: int = 6

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 6:
            raise BadPrice("rounding.decimals", "must be 0 to 6")


@dataclass(frozen=True, slots=True)
class RateGroup:
    """From `start_s` of charged time on, each `increment_s` begun costs its share of `rate_micros` for `unit_s`."""

    start_s: int
    rate_micros: int
    unit_s: int = 60
    increment_s: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= SECONDS_MAX:
            raise BadPrice("start_s", f"must be 0 to {SECONDS_MAX}")
        _amount("rate", self.rate_micros)
        if not 1 <= self.unit_s <= SECONDS_MAX:
            raise BadPrice("unit_s", f"must be 1 to {SECONDS_MAX}")
        if not 1 <= self.increment_s <= SECONDS_MAX:
            raise BadPrice("increment_s", f"must be 1 to {SECONDS_MAX}")


@dataclass(frozen=True, slots=True)
class Window:
    """The prices from `from_s` (seconds since 1970 UTC) until the next window begins; the first has no beginning."""

    from_s: int
    groups: tuple[RateGroup, ...]
    connect_fee_micros: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        _amount("connect_fee", self.connect_fee_micros)
        groups = self.groups
        if not 1 <= len(groups) <= GROUPS_MAX:
            raise BadPrice("groups", f"must be 1 to {GROUPS_MAX}")
        if groups[0].start_s != 0:
            raise BadPrice("groups", "the first must start at 0")
        if any(later.start_s <= group.start_s for group, later in itertools.pairwise(groups)):
            raise BadPrice("groups", "must be in order of start_s")


@dataclass(frozen=True, slots=True)
class WeeklyPeriod:
    """What applies in some hours of the week, such as "Sat 09:00-13:00"; the window's `from_s` is 0."""

    hours: str
    window: Window


@dataclass(frozen=True, slots=True)
class Weekly:
    """How a price goes on after its last window: by the hours of a week, in a time zone.

    Nearly all calls end within the windows. The few that last longer may last a year, of a thousand windows: they are
    worked out for each when needed, so that a price stays small. `periods` and `time_zone` say `plan` in words.
    """

    from_s: int
    """Seconds since 1970 UTC; changes of price from then on are not among the price's windows."""
    time_zone: str
    periods: tuple[WeeklyPeriod, ...]
    """In order of precedence; at least one."""
    rest: Window
    """At all other hours."""
    plan: HoursPlan = field(compare=False, repr=False)

    @property
    def kinds(self) -> tuple[Window, ...]:
        """What may apply, as `HoursPlan.switches` counts them."""
        return (*(period.window for period in self.periods), self.rest)

    def windows(self, until_s: float) -> tuple[Window, ...]:
        """The windows that begin from `from_s` on, at least those before `until_s` (at most WEEKLY_WEEKS_MAX weeks)."""
        weeks = min(-(-(int(until_s) + 1 - self.from_s) // _WEEK_S), WEEKLY_WEEKS_MAX)
        return tuple(itertools.chain.from_iterable(_week(self, week) for week in range(weeks)))


@lru_cache(_WEEKS_CACHED)
def _week(weekly: Weekly, week: int) -> tuple[Window, ...]:
    from_s = weekly.from_s + week * _WEEK_S
    _, *switches = weekly.plan.switches(from_s - 1, from_s + _WEEK_S)
    kinds = weekly.kinds
    return tuple(replace(kinds[number], from_s=moment_s) for moment_s, number in switches)


@dataclass(frozen=True, slots=True)
class Price:
    """What a destination costs. `maximum_micros` None: no maximum; with one, talk time beyond it is free, or where it
    cuts, there is none.

    One window without `weekly` holds at all times; with `weekly` there are at least two.
    """

    currency: str
    windows: tuple[Window, ...]
    free_s: int = 0
    minimum_micros: int = 0
    rounding: Rounding = Rounding()
    maximum_micros: int | None = None
    weekly: Weekly | None = None
    """None: the last window has no end."""
    cuts_at_maximum: bool = False

    def __post_init__(self) -> None:
        windows = self.windows
        if not 1 <= len(windows) <= WINDOWS_MAX:
            raise BadPrice("windows", f"must be 1 to {WINDOWS_MAX}")
        if any(later.from_s <= window.from_s for window, later in itertools.pairwise(windows)):
            raise BadPrice("windows", "must be in order of from_s")
        if not 0 <= self.free_s <= SECONDS_MAX:
            raise BadPrice("free_s", f"must be 0 to {SECONDS_MAX}")
        _amount("minimum", self.minimum_micros)
        if self.maximum_micros is not None:
            _amount("maximum", self.maximum_micros)
            if self.maximum_micros < self.minimum_micros:
                raise BadPrice("maximum", "must not be below the minimum")
        if self.cuts_at_maximum and not self.maximum_micros:
            raise BadPrice("maximum", "must be above 0 to cut a call")
        # Two windows: the hot path looks at one thing only, their number.
        if self.weekly is not None and (len(windows) == 1 or self.weekly.from_s < windows[-1].from_s):
            raise BadPrice("weekly", "must follow two windows or more")

    def windows_until(self, until_s: float) -> tuple[Window, ...]:
        """All windows that begin before `until_s` (seconds since 1970 UTC), and maybe later ones."""
        weekly = self.weekly
        if weekly is None or until_s <= weekly.from_s:
            return self.windows
        return self.windows + weekly.windows(until_s)


def free(currency: str) -> Price:
    """The price of a call that costs nothing, such as one between our own users."""
    return Price(currency, (Window(0, (RateGroup(0, 0),)),))


def cost(price: Price, answered_at_s: float, duration_s: int) -> Micros:
    """What `duration_s` whole seconds of talk from `answered_at_s` (seconds since 1970 UTC) cost, in micros.

    Never negative, never less for a longer call. ValueError for a negative duration.
    """
    if duration_s <= 0:
        _refuse_negative(duration_s)
        return Micros(0)
    windows, start_s, window_index = _start(price, answered_at_s, duration_s)
    numerator, divisor = windows[window_index].connect_fee_micros, 1
    free_s = price.free_s
    if duration_s > free_s:
        numerator, divisor, _ = _talk(windows, start_s + free_s, duration_s - free_s, window_index, numerator)
    if numerator < price.minimum_micros * divisor:
        numerator, divisor = price.minimum_micros, 1
    rounding = price.rounding
    quantum, method = _QUANTUM[rounding.decimals], rounding.method
    divisor *= quantum
    if method is _UP:
        numerator += divisor - 1
    elif method is _MIDDLE:
        numerator += divisor // 2  # a half goes up; for an odd divisor there is no exact half
    micros = numerator // divisor * quantum
    if price.maximum_micros is not None and micros > price.maximum_micros and not price.cuts_at_maximum:
        micros = price.maximum_micros
    return Micros(micros)


def billed_s(price: Price, answered_at_s: float, duration_s: int) -> int:
    """The seconds that are charged: the talk time after the free seconds, in whole increments."""
    if duration_s <= price.free_s:
        _refuse_negative(duration_s)
        return 0
    windows, start_s, window_index = _start(price, answered_at_s, duration_s)
    return _talk(windows, start_s + price.free_s, duration_s - price.free_s, window_index, 0)[2]


def affordable_s(price: Price, answered_at_s: float, micros: int, limit_s: int) -> int:
    """The longest talk time from `answered_at_s`, at most `limit_s`, that costs no more than `micros`.

    Exact: with a the answer, cost(a) <= micros, and a is limit_s or micros < cost(a + 1). Where the maximum cuts, money
    beyond it buys nothing. 0 where nothing can be had, also for negative money. ValueError for a negative limit.
    """
    if limit_s <= 0:
        _refuse_negative(limit_s)
        return 0
    if price.maximum_micros is not None and micros >= price.maximum_micros:
        if not price.cuts_at_maximum:
            return limit_s
        micros = price.maximum_micros
    windows, start_s, window_index = _start(price, answered_at_s, limit_s)
    window = windows[window_index]
    divisor = window.groups[0].unit_s
    most = _largest(price.rounding, micros, divisor)
    spent = window.connect_fee_micros * divisor
    if spent > most or (price.minimum_micros and price.minimum_micros * divisor > most):
        return 0
    free_s = price.free_s
    if limit_s <= free_s:
        return limit_s
    return free_s + _affordable_talk(
        price.rounding, windows, start_s + free_s, micros, limit_s - free_s, window_index, most - spent
    )


def _refuse_negative(seconds: int) -> None:
    if seconds < 0:
        raise ValueError(f"{seconds} s is no duration")


def _start(price: Price, answered_at_s: float, longest_s: int) -> tuple[tuple[Window, ...], int, int]:
    """The windows that a call of up to `longest_s` may see, the whole second of its start, and the index of the window
    in force then.
    """
    windows = price.windows
    if len(windows) == 1:  # most decks: then the moment doesn't matter
        return windows, 0, 0
    start_s = int(answered_at_s)
    if price.weekly is not None:
        windows = price.windows_until(start_s + longest_s)
    index, last = 0, len(windows) - 1
    while index < last and windows[index + 1].from_s <= start_s:
        index += 1
    return windows, start_s, index


def _largest(rounding: Rounding, micros: int, divisor: int) -> int:
    """The largest numerator over `divisor` that cost() rounds to at most `micros`."""
    quantum, method = _QUANTUM[rounding.decimals], rounding.method
    divisor *= quantum
    if method is _UP:
        return micros // quantum * divisor
    numerator = (micros // quantum + 1) * divisor - 1
    return numerator - divisor // 2 if method is _MIDDLE else numerator


def _talk(
    windows: tuple[Window, ...], start_s: int, charged_s: int, window_index: int, fee_micros: int
) -> tuple[int, int, int]:
    """The fee and the exact cost of `charged_s` from the moment `start_s`: numerator and divisor in micros; and the
    billed seconds.

    The one place that walks segments forward; `_affordable_talk` walks the same ones with money instead of time.
    """
    last_window = len(windows) - 1
    groups = windows[window_index].groups
    last_group = len(groups) - 1
    position_s = group_index = 0
    group = groups[0]
    divisor = group.unit_s
    numerator = fee_micros * divisor
    if not last_group and not last_window:  # most decks: one segment
        increment_s = group.increment_s
        position_s = -(-charged_s // increment_s) * increment_s
        return numerator + position_s * group.rate_micros, divisor, position_s
    while True:
        end_s = charged_s
        if window_index < last_window:
            while window_index < last_window and windows[window_index + 1].from_s <= start_s + position_s:
                window_index += 1
                groups = windows[window_index].groups
                last_group = len(groups) - 1
                group_index = 0
            if window_index < last_window and (switch_s := windows[window_index + 1].from_s - start_s) < end_s:
                end_s = switch_s
        if group_index < last_group:
            while group_index < last_group and groups[group_index + 1].start_s <= position_s:
                group_index += 1
            if group_index < last_group and groups[group_index + 1].start_s < end_s:
                end_s = groups[group_index + 1].start_s
        group = groups[group_index]
        increment_s = group.increment_s
        segment_s = -(-(end_s - position_s) // increment_s) * increment_s
        if group.unit_s == divisor:  # as everywhere in a deck
            numerator += segment_s * group.rate_micros
        else:
            common = lcm(divisor, group.unit_s)
            numerator = numerator * (common // divisor) + segment_s * group.rate_micros * (common // group.unit_s)
            divisor = common
        position_s += segment_s
        if position_s >= charged_s:
            return numerator, divisor, position_s


def _affordable_talk(
    rounding: Rounding,
    windows: tuple[Window, ...],
    start_s: int,
    micros: int,
    limit_s: int,
    window_index: int,
    left: int,
) -> int:
    """The longest charged time from the moment `start_s`, at most `limit_s`, for which there is `left` after the fee, a
    numerator over the unit of the window's first group, of what rounds to at most `micros`.
    """
    last_window = len(windows) - 1
    groups = windows[window_index].groups
    last_group = len(groups) - 1
    position_s = group_index = 0
    group = groups[0]
    divisor = group.unit_s
    if not last_group and not last_window:  # most decks: one segment
        step = group.increment_s * group.rate_micros
        bought_s = left // step * group.increment_s if step else limit_s
        return bought_s if bought_s < limit_s else limit_s
    while True:
        end_s = limit_s
        if window_index < last_window:
            while window_index < last_window and windows[window_index + 1].from_s <= start_s + position_s:
                window_index += 1
                groups = windows[window_index].groups
                last_group = len(groups) - 1
                group_index = 0
            if window_index < last_window and (switch_s := windows[window_index + 1].from_s - start_s) < end_s:
                end_s = switch_s
        if group_index < last_group:
            while group_index < last_group and groups[group_index + 1].start_s <= position_s:
                group_index += 1
            if group_index < last_group and groups[group_index + 1].start_s < end_s:
                end_s = groups[group_index + 1].start_s
        group = groups[group_index]
        increment_s = group.increment_s
        segment_s = -(-(end_s - position_s) // increment_s) * increment_s
        rate = group.rate_micros
        if rate:
            if group.unit_s != divisor:
                # Over a common divisor: what is spent so far is exact in it, and so is what is left.
                common = lcm(divisor, group.unit_s)
                spent = (_largest(rounding, micros, divisor) - left) * (common // divisor)
                left = _largest(rounding, micros, common) - spent
                divisor = common
                rate *= common // group.unit_s
            bought_s = left // (increment_s * rate) * increment_s
            if bought_s < segment_s:
                return min(position_s + bought_s, limit_s)
            left -= segment_s * rate
        position_s += segment_s
        if position_s >= limit_s:
            return limit_s


def _amount(field: str, micros: int) -> None:
    if not 0 <= micros <= RATE_MICROS_MAX:
        raise BadPrice(field, f"must be 0 to {RATE_MICROS_MAX // MICROS}")


# Looked up once: an Enum's attribute costs a tenth of a cost().
_UP: Final = RoundingMethod.UP
_MIDDLE: Final = RoundingMethod.MIDDLE
# Micros in the last decimal that rounding keeps.
_QUANTUM: Final = (1_000_000, 100_000, 10_000, 1_000, 100, 10, 1)
