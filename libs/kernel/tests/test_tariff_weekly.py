"""A price that goes on by the hours of the week charges each second of a call as the clock there says."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel.hours import parse_plan
from callwarden.kernel.money import MICROS
from callwarden.kernel.tariff import (
    BadPrice,
    Price,
    RateGroup,
    Rounding,
    RoundingMethod,
    Weekly,
    WeeklyPeriod,
    Window,
    affordable_s,
    cost,
)

START_S = 1_328_203_800  # 2012-02-02T17:30:00Z
YEAR_S = 366 * 86_400  # The longest spec.session.callTimeout (callwarden.policy.values.DURATION_S_MAX).
DAY_S, HALF_HOUR_S = 86_400, 1_800
WEEK_HOURS = "Mon-Fri 08:00-20:00, Sat 10:00-14:00"
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]  # the last one moves by half an hour


def _is_dear(moment_s: int, zone: str) -> bool:
    """By a look at the clock there, with nothing in common with the code tested."""
    local = datetime.fromtimestamp(moment_s, ZoneInfo(zone))
    return 8 <= local.hour < 20 if local.weekday() < 5 else local.weekday() == 5 and 10 <= local.hour < 14


def _long_price(start_s: int, zone: str, rounding: Rounding, free_s: int = 0) -> Price:
    """A second at 1,003 micros in peak hours and 100 else, with windows for a day as rating has them."""
    plan = parse_plan([WEEK_HOURS], ZoneInfo(zone))
    peak, off_peak = (
        Window(0, (RateGroup(0, rate, 60),), fee, name)
        for rate, fee, name in ((60_180, 7_000, "peak"), (6_000, 3_000, "off-peak"))
    )
    until_s = start_s + DAY_S
    (_, first), *later = plan.switches(start_s, until_s)
    kinds = peak, off_peak
    windows = (kinds[first], *(replace(kinds[number], from_s=moment_s) for moment_s, number in later))
    if not later:
        windows += (replace(kinds[first], from_s=until_s),)
    weekly = Weekly(until_s, zone, (WeeklyPeriod(WEEK_HOURS, peak),), off_peak, plan)
    return Price("EUR", windows, free_s, rounding=rounding, weekly=weekly)


def _by_the_clock(price: Price, zone: str, start_s: int, duration_s: int) -> int:
    """Rounded up. Half hour by half hour, since nothing changes within one on any of these clocks."""
    micros = 7_000 if _is_dear(start_s, zone) else 3_000
    moment_s, end_s = start_s + price.free_s, start_s + duration_s
    while moment_s < end_s:
        next_s = min(moment_s - moment_s % HALF_HOUR_S + HALF_HOUR_S, end_s)
        micros += (next_s - moment_s) * (1_003 if _is_dear(moment_s, zone) else 100)
        moment_s = next_s
    quantum = int(10 ** (6 - price.rounding.decimals))
    return -(-micros // quantum) * quantum


@pytest.mark.cases
@given(st.integers(1_767_225_600, 1_798_761_600), st.sampled_from(ZONES), st.integers(0, 6), st.integers(1, 72 * 3_600))
@settings(max_examples=200, deadline=None)
def test_a_call_of_up_to_three_days_pays_every_second_by_the_clock(
    start_s: int, zone: str, decimals: int, duration_s: int
) -> None:
    price = _long_price(start_s, zone, Rounding(RoundingMethod.UP, decimals), free_s=decimals)
    for seconds in (duration_s, 72 * 3_600):
        expected = _by_the_clock(price, zone, start_s, seconds)
        assert cost(price, start_s, seconds) == expected
        assert affordable_s(price, start_s, expected, seconds) == seconds
        if decimals == 6 < seconds:  # more than the free seconds, and nothing is rounded
            assert affordable_s(price, start_s, expected - 1, seconds) == seconds - 1


@pytest.mark.cases
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("begins", ["2026-03-27T12:00", "2026-10-23T19:59", "2026-01-03T00:00", "2026-12-31T23:59"])
def test_the_longest_call_that_policy_allows_pays_every_second_by_the_clock(zone: str, begins: str) -> None:
    start_s = int(datetime.fromisoformat(begins).replace(tzinfo=ZoneInfo(zone)).timestamp())
    price = _long_price(start_s, zone, Rounding(RoundingMethod.UP, 2))
    for seconds in (72 * 3_600, YEAR_S - 1, YEAR_S):  # over changes of summer time
        assert cost(price, start_s, seconds) == _by_the_clock(price, zone, start_s, seconds)


def test_a_price_goes_on_for_a_bounded_time_after_its_windows() -> None:
    price = _long_price(START_S, "Europe/Berlin", Rounding())
    assert price.windows_until(START_S + DAY_S) is price.windows
    windows = price.windows_until(START_S + 1_000 * YEAR_S)
    assert YEAR_S <= windows[-1].from_s - START_S < YEAR_S + 14 * DAY_S
    assert len(windows) < 53 * 13 + 4
    assert [window.from_s for window in windows] == sorted({window.from_s for window in windows})


def test_a_price_that_goes_on_has_two_windows() -> None:
    price = _long_price(START_S, "UTC", Rounding())
    for windows in (price.windows[:1], (*price.windows, replace(price.windows[0], from_s=START_S + 2 * DAY_S))):
        with pytest.raises(BadPrice) as caught:
            replace(price, windows=windows)
        assert caught.value.field == "weekly"


# ------------------------------------------------------------------ steps, a maximum and several periods in one price

PERIODS = {"Sat 09:00-13:00": 2, "Mon-Fri 08:00-19:00": 0, "Mon-Sun 18:00-20:30": 1}


def _period(moment_s: int) -> int:
    """Which kind of price applies, by a look at the clock in Berlin."""
    local = datetime.fromtimestamp(moment_s, ZoneInfo("Europe/Berlin"))
    minute, weekday = local.hour * 60 + local.minute, local.weekday()
    if weekday == 5 and 540 <= minute < 780:
        return 2
    if weekday < 5 and 480 <= minute < 1_140:
        return 0
    return 1 if 1_080 <= minute < 1_230 else 3


def _second_by_second(price: Price, kinds: Sequence[Window], start_s: int, duration_s: int) -> list[Decimal]:
    """What the call costs after each of its seconds, in decimals; nothing in common with the code tested."""
    micro, one = Decimal(1) / MICROS, Decimal(1)
    kind = kinds[_period(start_s)]
    talk, paid_until_s, costs = kind.connect_fee_micros * micro, price.free_s, [Decimal(0)]
    for second in range(duration_s):
        if second == paid_until_s:  # the next increment begins
            kind = kinds[_period(start_s + second)]
            group = next(group for group in reversed(kind.groups) if group.start_s <= second - price.free_s)
            talk += Decimal(group.rate_micros) * micro * group.increment_s / group.unit_s
            paid_until_s += group.increment_s
        total = max(talk, price.minimum_micros * micro).quantize(one.scaleb(-price.rounding.decimals), ROUND_CEILING)
        costs.append(total if price.maximum_micros is None else min(total, price.maximum_micros * micro))
    return costs


@st.composite
def kinds(draw: st.DrawFn) -> tuple[Window, ...]:
    # Rates and units that decimals hold exactly.
    made = []
    for name in ("week", "evening", "saturday", "other"):
        starts = [0, *sorted(draw(st.sets(st.integers(1, 900), max_size=3)))]
        steps = tuple(
            RateGroup(
                start,
                draw(st.integers(0, 20_000)),
                draw(st.sampled_from([1, 20, 50])),
                draw(st.sampled_from([1, 6, 30, 60])),
            )
            for start in starts
        )
        made.append(Window(0, steps, draw(st.integers(0, 9_000)), name))
    return tuple(made)


@pytest.mark.cases
@given(
    kinds(),
    # A Friday evening, a Saturday, and the Sunday on which clocks go forward, by minutes around their switches.
    st.sampled_from(
        ["2026-03-27T18:55", "2026-03-28T08:50", "2026-03-28T12:45", "2026-03-29T01:50", "2026-03-29T20:20"]
    ),
    st.integers(0, 900),
    st.sampled_from([0, 15]),
    st.integers(2, 6),
    st.one_of(st.none(), st.integers(30_000, 5_000_000)),
)
@settings(max_examples=150, deadline=None)
def test_a_deck_with_everything_pays_second_by_second(
    of: tuple[Window, ...], begins: str, duration_s: int, free_s: int, decimals: int, maximum: int | None
) -> None:
    start_s = int(datetime.fromisoformat(begins).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
    plan = parse_plan(list(PERIODS), ZoneInfo("Europe/Berlin"))
    ordered = (*(of[kind] for kind in PERIODS.values()), of[3])
    (_, first), *later = plan.switches(start_s, start_s + 300)
    windows = (ordered[first], *(replace(ordered[number], from_s=moment_s) for moment_s, number in later))
    if not later:
        windows += (replace(ordered[first], from_s=start_s + 300),)
    # Nearly all of the call lies beyond the windows: it goes on by the hours of the week.
    periods = tuple(WeeklyPeriod(hours, of[kind]) for hours, kind in PERIODS.items())
    weekly = Weekly(start_s + 300, "Europe/Berlin", periods, of[3], plan)
    rounding = Rounding(RoundingMethod.UP, decimals)
    price = Price("EUR", windows, free_s, 30_000, rounding, maximum, weekly)
    costs = [int(amount * MICROS) for amount in _second_by_second(price, of, start_s, duration_s)]
    assert [cost(price, start_s, seconds) for seconds in range(0, duration_s + 1, 7)] == costs[::7]
    assert cost(price, start_s, duration_s) == costs[-1]
    assert costs == sorted(costs)
    for micros in (costs[-1], costs[duration_s // 2], costs[-1] - 1):
        assert affordable_s(price, start_s, micros, duration_s) == max(
            (seconds for seconds, amount in enumerate(costs) if amount <= micros), default=0
        )
