"""A call costs exactly what its tariff says, and money buys exactly the talk time that it pays for."""

import itertools
import json
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel import tariff
from callwarden.kernel.money import MICROS, parse_amount
from callwarden.kernel.tariff import (
    BadPrice,
    Price,
    RateGroup,
    Rounding,
    RoundingMethod,
    Window,
    affordable_s,
    billed_s,
    cost,
)

VECTORS = json.loads((Path(__file__).parent / "data" / "rating_vectors.json").read_text())
COST_VECTORS: list[dict[str, Any]] = VECTORS["cost_vectors"]
BALANCE_VECTORS: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in VECTORS["balance_vectors"]}

# The windows of the vectors are given by their lengths; any moment will do for the first.
START_S = 1_328_203_800  # 2012-02-02T17:30:00Z


def _groups(vector: dict[str, Any]) -> tuple[RateGroup, ...]:
    return tuple(
        RateGroup(int(group["start_s"]), parse_amount(group["rate"]), int(group["unit_s"]), int(group["increment_s"]))
        for group in vector["rate_groups"]
    )


def _price(vector: dict[str, Any]) -> Price:
    windows: list[Window] = []
    from_s = START_S
    for part in vector.get("windows", [vector]):
        fee = parse_amount(part["rate_groups"][0]["connect_fee"])
        windows.append(Window(from_s if windows else 0, _groups(part), fee))
        from_s += int(part["duration_s"])
    rounding = Rounding(RoundingMethod(vector["rounding"]["method"]), vector["rounding"]["decimals"])
    maximum = parse_amount(vector["max_cost"]) if "max_cost" in vector else None
    # "disconnect" bounds the talk time and not the price: see the test of affordable_s below.
    cuts = vector.get("max_cost_strategy") == "disconnect"
    return Price("EUR", tuple(windows), rounding=rounding, maximum_micros=maximum, cuts_at_maximum=cuts)


@pytest.mark.parametrize("vector", COST_VECTORS, ids=lambda vector: str(vector["id"]))
def test_a_known_call_costs_what_exact_arithmetic_says(vector: dict[str, Any]) -> None:
    price, duration_s = _price(vector), int(vector["duration_s"])
    micros: int = cost(price, START_S, duration_s)
    if vector.get("no_connect_fee"):  # The vector is about a later slice of the call: the first one took the fee.
        micros -= cost(price, START_S, 1) - cost(_without_fee(price), START_S, 1)
    assert micros == parse_amount(vector["exact_cost"])


def _without_fee(price: Price) -> Price:
    return Price(price.currency, tuple(Window(w.from_s, w.groups) for w in price.windows), rounding=price.rounding)


def test_the_vectors_are_all_there() -> None:
    assert len(COST_VECTORS) == 26
    assert sum(not vector["exact_equals_cgrates"] for vector in COST_VECTORS) == 3


def _simple(rate: str, unit_s: int = 60, increment_s: int = 1, fee: str = "0", **rest: Any) -> Price:
    group = RateGroup(0, parse_amount(rate), unit_s, increment_s)
    return Price("EUR", (Window(0, (group,), parse_amount(fee)),), **rest)


def test_money_after_the_connect_fee_buys_seventeen_minutes() -> None:
    vector = BALANCE_VECTORS["blocker-balance"]
    price = _simple("0.05", fee="0.15", rounding=Rounding(RoundingMethod.UP, 2))
    assert affordable_s(price, START_S, MICROS, vector["asked_s"]) == vector["expect_granted_s"]


def test_a_price_with_a_maximum_can_be_talked_on_for_free() -> None:
    vector = BALANCE_VECTORS["max-session-free"]
    price = _simple(rate="1", unit_s=1, maximum_micros=parse_amount(vector["max_cost"]))
    money = parse_amount(vector["balance"])
    assert affordable_s(price, START_S, money, vector["asked_s"]) == vector["expect_granted_s"]


def test_a_maximum_that_disconnects_is_a_bound_on_the_money_spent() -> None:
    vector = next(v for v in COST_VECTORS if v["id"] == "max-cost-disconnect-getcost")
    for micros in (parse_amount(vector["max_cost"]), 1_000 * MICROS):
        assert affordable_s(_price(vector), START_S, micros, int(vector["duration_s"])) == 10
    assert affordable_s(_price(vector), START_S, parse_amount("9.5"), int(vector["duration_s"])) == 9


def test_a_new_price_is_charged_like_any_other() -> None:
    vector = BALANCE_VECTORS["rerate-new-price"]
    assert cost(_simple("1.7"), START_S, vector["duration_s"]) == parse_amount(vector["expect_cost"])


def test_free_seconds_are_not_charged() -> None:
    vector = BALANCE_VECTORS["rerate-uses-free-minute"]
    price = _simple("0.6", free_s=60)
    assert cost(price, START_S, vector["duration_s"]) == parse_amount(vector["expect_cost"])
    assert billed_s(price, START_S, vector["duration_s"]) == 60


def test_five_seconds_use_a_whole_increment_of_twenty() -> None:
    assert (
        billed_s(_simple("0.6", increment_s=20), START_S, BALANCE_VECTORS["minutes-consumed-by-increment"]["asked_s"])
        == 20
    )


def test_a_call_of_no_length_costs_nothing_whatever_the_fee() -> None:
    price = _simple("1", fee="5", minimum_micros=parse_amount("9"))
    assert cost(price, START_S, 0) == 0
    assert billed_s(price, START_S, 0) == 0


def test_an_answered_call_costs_the_fee_even_within_its_free_seconds() -> None:
    price = _simple("1", fee="0.1", free_s=30)
    assert cost(price, START_S, 30) == parse_amount("0.1")
    assert billed_s(price, START_S, 30) == 0


def test_the_minimum_is_charged_until_the_talk_time_passes_it() -> None:
    price = _simple("0.60", minimum_micros=parse_amount("0.05"))
    assert [cost(price, START_S, seconds) for seconds in (1, 5, 6)] == [50_000, 50_000, 60_000]
    assert affordable_s(price, START_S, 49_999, 100) == 0
    assert affordable_s(price, START_S, 50_000, 100) == 5


HOURLY = Price(  # rate 1.003 for an hour, by windows and groups that a call of 100 s crosses
    "EUR",
    tuple(
        Window(from_s, (RateGroup(0, 1_003_000, 3_600), RateGroup(30, 1_003_000, 3_600, 10)))
        for from_s in (0, START_S + 20, START_S + 50, START_S + 70)
    ),
)


@pytest.mark.cases
@pytest.mark.parametrize(
    ("method", "decimals", "expected"),
    # 100 s are 0.027861 and a ninth of a micro.
    [("up", 2, 30_000), ("middle", 2, 30_000), ("down", 2, 20_000), ("up", 6, 27_862), ("down", 6, 27_861)],
)
def test_crossing_windows_and_groups_of_one_rate_changes_no_cent(method: str, decimals: int, expected: int) -> None:
    assert cost(replace(HOURLY, rounding=Rounding(RoundingMethod(method), decimals)), START_S, 100) == expected


@pytest.mark.cases
@pytest.mark.parametrize(
    ("method", "decimals", "expected"),
    [
        ("up", 2, ("0.10", "0.11", "0.02")),
        ("middle", 2, ("0.09", "0.11", "0.02")),
        ("down", 2, ("0.09", "0.10", "0.01")),
        ("up", 0, ("1", "1", "1")),
        ("middle", 0, ("0", "0", "0")),
    ],
)
def test_fee_and_minimum_are_rounded_with_the_rest(method: str, decimals: int, expected: tuple[str, ...]) -> None:
    rounding = Rounding(RoundingMethod(method), decimals)
    fee = _simple("0.06", fee="0.0911", rounding=rounding)  # 3 s: 0.0941
    both = _simple("0.06", fee="0.0955", minimum_micros=1, rounding=rounding)  # 10 s: 0.1055
    minimum = _simple("0.06", minimum_micros=parse_amount("0.015"), rounding=rounding)  # 3 s: 0.003
    found = cost(fee, START_S, 3), cost(both, START_S, 10), cost(minimum, START_S, 3)
    assert found == tuple(parse_amount(amount) for amount in expected)


@pytest.mark.cases
def test_money_just_short_of_the_rounded_total_buys_nothing() -> None:
    price = _simple("0.06", fee="0.0911", rounding=Rounding(RoundingMethod.UP, 2))
    assert affordable_s(price, START_S, 99_999, 100) == 0
    assert affordable_s(price, START_S, 100_000, 100) == 8  # 8 s: 0.0991
    assert affordable_s(replace(price, free_s=60), START_S, 99_999, 100) == 0


def test_rounding_up_does_not_pass_the_maximum() -> None:
    price = _simple("1", maximum_micros=625_000, rounding=Rounding(RoundingMethod.UP, 2))
    assert cost(price, START_S, 3_600) == 625_000


def test_an_increment_begun_in_one_window_is_charged_by_it_to_its_end() -> None:
    price = Price(
        "EUR",
        (
            Window(0, (RateGroup(0, parse_amount("0.6"), 60, 60),), 0, "peak"),
            Window(START_S + 90, (RateGroup(0, parse_amount("0.3"), 60, 60),), 999, "off-peak"),
        ),
    )
    # 0 to 120 in two increments of the first window, the second of which begins before the switch; then the other's.
    assert cost(price, START_S, 121) == 2 * 600_000 + 300_000
    assert billed_s(price, START_S, 121) == 180


def test_a_price_kept_past_a_switch_charges_by_the_window_that_holds_then() -> None:
    peak, off_peak = RateGroup(0, 600_000), RateGroup(0, 300_000)
    price = Price("EUR", (Window(0, (peak,), 7), Window(START_S, (off_peak,), 5)))
    assert cost(price, START_S - 60, 60) == 600_007
    assert cost(price, START_S, 60) == 300_005
    assert cost(price, START_S + 1e6, 60) == 300_005


def test_a_fraction_of_a_second_at_the_start_moves_no_window() -> None:
    price = Price("EUR", (Window(0, (RateGroup(0, 60),)), Window(START_S, (RateGroup(0, 120),))))
    assert cost(price, START_S - 0.001, 1) == cost(price, START_S - 1, 1) == 1


@pytest.mark.parametrize("calculate", [cost, billed_s])
def test_a_negative_duration_is_an_error(calculate: Any) -> None:
    with pytest.raises(ValueError, match="no duration"):
        calculate(_simple("1"), START_S, -1)


def test_negative_money_buys_nothing_not_even_what_is_free() -> None:
    assert affordable_s(tariff.free("EUR"), START_S, -1, 100) == 0
    assert affordable_s(tariff.free("EUR"), START_S, 0, 100) == 100


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("rate", lambda: RateGroup(0, -1)),
        ("rate", lambda: RateGroup(0, tariff.RATE_MICROS_MAX + 1)),
        ("unit_s", lambda: RateGroup(0, 1, unit_s=0)),
        ("increment_s", lambda: RateGroup(0, 1, increment_s=0)),
        ("start_s", lambda: RateGroup(-1, 1)),
        ("groups", lambda: Window(0, ())),
        ("groups", lambda: Window(0, (RateGroup(1, 1),))),
        ("groups", lambda: Window(0, (RateGroup(0, 1), RateGroup(0, 2)))),
        ("connect_fee", lambda: Window(0, (RateGroup(0, 1),), -1)),
        ("windows", lambda: Price("EUR", ())),
        ("windows", lambda: Price("EUR", (Window(5, (RateGroup(0, 1),)), Window(5, (RateGroup(0, 1),))))),
        ("free_s", lambda: _simple("1", free_s=-1)),
        ("minimum", lambda: _simple("1", minimum_micros=-1)),
        ("maximum", lambda: _simple("1", minimum_micros=2, maximum_micros=1)),
        ("maximum", lambda: _simple("1", maximum_micros=0, cuts_at_maximum=True)),
        ("maximum", lambda: _simple("1", cuts_at_maximum=True)),
        ("rounding.decimals", lambda: Rounding(RoundingMethod.UP, 7)),
    ],
)
def test_what_cannot_be_charged_is_no_price(field: str, make: Any) -> None:
    with pytest.raises(BadPrice) as caught:
        make()
    assert caught.value.field == field


# Small numbers find the corners: windows that open inside an increment, groups that are skipped, odd units.
seconds = st.integers(0, 400)
roundings = st.builds(Rounding, st.sampled_from(RoundingMethod), st.integers(0, 6))
rates = st.one_of(st.integers(0, 50), st.integers(0, 5 * MICROS), st.just(0), st.just(tariff.RATE_MICROS_MAX))


@st.composite
def groups(draw: st.DrawFn) -> tuple[RateGroup, ...]:
    starts = [0, *sorted(draw(st.sets(st.integers(1, 200), max_size=3)))]
    return tuple(
        RateGroup(start, draw(rates), draw(st.sampled_from([1, 7, 60])), draw(st.sampled_from([1, 6, 7, 30, 60, 100])))
        for start in starts
    )


@st.composite
def prices(draw: st.DrawFn) -> Price:
    starts = [0, *sorted(draw(st.sets(st.integers(START_S - 10, START_S + 300), max_size=4)))]
    windows = tuple(Window(start, draw(groups()), draw(rates)) for start in starts)
    minimum = draw(st.integers(0, 2 * MICROS))
    maximum = draw(st.one_of(st.none(), st.integers(minimum, 5 * MICROS)))
    return Price("EUR", windows, draw(st.integers(0, 90)), minimum, draw(roundings), maximum)


def _by_the_book(price: Price, at_s: int, duration_s: int) -> tuple[int, int]:
    """Cost and billed seconds, increment by increment in fractions, with nothing in common with the code tested."""
    if duration_s == 0:
        return 0, 0
    first = max(i for i, window in enumerate(price.windows) if i == 0 or window.from_s <= at_s)
    total = Fraction(price.windows[first].connect_fee_micros)
    position_s = 0
    while position_s < duration_s - price.free_s:
        moment_s = at_s + price.free_s + position_s
        window = price.windows[max(i for i, window in enumerate(price.windows) if i == 0 or window.from_s <= moment_s)]
        group = window.groups[max(i for i, group in enumerate(window.groups) if group.start_s <= position_s)]
        total += Fraction(group.rate_micros * group.increment_s, group.unit_s)
        position_s += group.increment_s
    quantum = 10 ** (6 - price.rounding.decimals)
    rounded = {
        RoundingMethod.UP: ceil,
        RoundingMethod.DOWN: floor,
        RoundingMethod.MIDDLE: lambda value: floor(value + Fraction(1, 2)),
    }[price.rounding.method]
    micros = rounded(max(total, Fraction(price.minimum_micros)) / quantum) * quantum
    return (micros if price.maximum_micros is None else min(micros, price.maximum_micros)), position_s


@given(prices(), seconds)
@settings(max_examples=400, deadline=None)
def test_cost_is_what_the_rules_say_taken_one_increment_at_a_time(price: Price, duration_s: int) -> None:
    expected_cost, expected_billed = _by_the_book(price, START_S, duration_s)
    assert cost(price, START_S, duration_s) == expected_cost
    assert billed_s(price, START_S, duration_s) == expected_billed


@given(prices(), seconds, seconds)
@settings(deadline=None)
def test_a_longer_call_never_costs_less(price: Price, one_s: int, other_s: int) -> None:
    shorter, longer = sorted((one_s, other_s))
    assert 0 <= cost(price, START_S, shorter) <= cost(price, START_S, longer)
    assert billed_s(price, START_S, shorter) <= billed_s(price, START_S, longer)


@given(prices(), st.one_of(st.integers(-5, 10 * MICROS), st.integers(0, 10**15)), seconds)
@settings(max_examples=400, deadline=None)
def test_money_buys_the_longest_call_it_can_pay_and_no_longer(price: Price, micros: int, limit_s: int) -> None:
    bought_s = affordable_s(price, START_S, micros, limit_s)
    assert 0 <= bought_s <= limit_s
    assert cost(price, START_S, bought_s) <= max(micros, 0)
    if bought_s < limit_s and micros >= 0:
        assert cost(price, START_S, bought_s + 1) > micros


@given(prices(), st.integers(1, 5 * MICROS), st.integers(-5, 10 * MICROS), seconds)
@settings(max_examples=300, deadline=None)
def test_no_money_buys_a_second_beyond_a_maximum_that_cuts(
    price: Price, maximum: int, micros: int, limit_s: int
) -> None:
    uncut = replace(price, minimum_micros=min(price.minimum_micros, maximum), maximum_micros=None)
    price = replace(uncut, maximum_micros=maximum, cuts_at_maximum=True)
    bought_s = affordable_s(price, START_S, micros, limit_s)
    within = [s for s in range(limit_s + 1) if _by_the_book(uncut, START_S, s)[0] <= min(micros, maximum)]
    assert bought_s == (within[-1] if within else 0)
    assert cost(price, START_S, limit_s) == cost(uncut, START_S, limit_s)


@given(prices(), seconds)
@settings(deadline=None)
def test_what_a_call_costs_buys_that_call(price: Price, duration_s: int) -> None:
    assert affordable_s(price, START_S, cost(price, START_S, duration_s), duration_s) == duration_s


@given(prices(), seconds, seconds, seconds)
@settings(deadline=None)
def test_slices_add_up_to_the_whole_call(price: Price, one_s: int, two_s: int, three_s: int) -> None:
    ends = (one_s, one_s + two_s, one_s + two_s + three_s)
    costs = [cost(price, START_S, end_s) for end_s in (0, *ends)]
    slices = [later - earlier for earlier, later in itertools.pairwise(costs)]
    assert all(amount >= 0 for amount in slices)
    assert sum(slices) == cost(price, START_S, ends[-1])


@given(prices(), seconds, st.integers(0, 10**9))
@settings(deadline=None)
def test_no_float_ever_comes_out(price: Price, duration_s: int, micros: int) -> None:
    at_s = START_S + 0.75
    amounts = (cost(price, at_s, duration_s), billed_s(price, at_s, duration_s), affordable_s(price, at_s, micros, 99))
    assert all(type(amount) is int for amount in amounts)
