"""Sliding windows: never less than the truth, never more than one part too old, and no gain from clocks."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.limits.windows import BUCKETS, SlidingCounter, WindowShape

# Whole seconds and widths that are powers of two of them, so that the reference isn't itself subject to rounding.
steps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=120)
shapes = st.builds(WindowShape, st.sampled_from([16.0, 32.0, 64.0, 128.0]), st.sampled_from([1, 2, 4, 8, 16]))


@given(shapes, steps)
def test_the_count_lies_between_the_true_window_and_one_part_more(
    window: WindowShape, gaps: list[tuple[int, int]]
) -> None:
    counter = SlidingCounter()
    events: list[tuple[float, int]] = []
    mono_s = 1_000.0
    for gap_s, amount in gaps:
        mono_s += gap_s
        count = counter.add(window, mono_s, amount)
        events.append((mono_s, amount))
        # The reference counts every event by itself.
        truth = sum(n for at_s, n in events if at_s > mono_s - window.period_s)
        at_most = sum(n for at_s, n in events if at_s > mono_s - window.period_s - window.width_s)
        assert truth <= count <= at_most
        assert count == counter.total == counter.count(window, mono_s)


@given(shapes, st.integers(0, 10_000), st.lists(st.integers(0, 40), max_size=80))
def test_no_more_than_the_limit_passes_in_any_period(window: WindowShape, limit: int, gaps: list[int]) -> None:
    limit %= 7
    counter, mono_s, passed = SlidingCounter(), 0.0, []
    for gap_s in gaps:
        mono_s += gap_s / 2
        if counter.count(window, mono_s) < limit:
            counter.add(window, mono_s)
            passed.append(mono_s)
    for at_s in passed:
        assert sum(at_s <= other < at_s + window.period_s for other in passed) <= limit


@given(shapes, st.lists(st.integers(-200, 40), max_size=100))
def test_a_clock_that_steps_back_mints_nothing(window: WindowShape, gaps: list[int]) -> None:
    counter, mono_s, newest_s = SlidingCounter(), 1_000.0, 1_000.0
    events: list[float] = []
    for gap_s in [0, *gaps]:
        mono_s += gap_s
        newest_s = max(newest_s, mono_s)
        events.append(newest_s)  # What a clock that had stood still instead would have said.
        assert counter.add(window, mono_s) >= sum(at_s > newest_s - window.period_s for at_s in events)


@given(shapes, shapes, steps, st.integers(0, 100))
def test_another_period_forgets_nothing_that_is_in_it(
    before: WindowShape, after: WindowShape, gaps: list[tuple[int, int]], pause_s: int
) -> None:
    counter, mono_s = SlidingCounter(), 1_000.0
    events: list[tuple[float, int]] = []
    for gap_s, amount in gaps:
        mono_s += gap_s
        counter.add(before, mono_s, amount)
        events.append((mono_s, amount))
    mono_s += pause_s
    reach_s = min(before.period_s, after.period_s)  # What the old window let go is gone.
    truth = sum(n for at_s, n in events if at_s > mono_s - reach_s)
    at_most = sum(n for at_s, n in events if at_s > mono_s - after.period_s - after.width_s - before.width_s)
    assert truth <= counter.count(after, mono_s) <= at_most


@given(shapes, steps, st.integers(0, 60), st.integers(0, 5_000))
def test_a_snapshot_loses_nothing_and_survives_another_clock(
    window: WindowShape, gaps: list[tuple[int, int]], pause_s: int, other_clock_s: int
) -> None:
    counter, mono_s = SlidingCounter(), 1_000.0
    events: list[tuple[float, int]] = []
    for gap_s, amount in gaps:
        mono_s += gap_s
        counter.add(window, mono_s, amount)
        events.append((mono_s, amount))
    restored = SlidingCounter()
    dumped = [(age_s + pause_s, count) for age_s, count in counter.dump(mono_s)]
    restored.load(window, float(other_clock_s), dumped)
    truth = sum(n for at_s, n in events if at_s > mono_s + pause_s - window.period_s)
    assert restored.count(window, float(other_clock_s)) >= truth
    # And it ends: after a period and two parts nothing is left.
    assert restored.count(window, other_clock_s + window.period_s + 2 * window.width_s) == 0


def test_a_snapshot_is_added_to_what_was_counted_meanwhile() -> None:
    window, counter, restored = WindowShape(160.0), SlidingCounter(), SlidingCounter()
    for mono_s in (5.0, 100.0, 150.0):
        counter.add(window, mono_s, 10)
    restored.add(window, 1_000.0, 3)
    restored.load(window, 1_001.0, counter.dump(151.0))
    assert restored.count(window, 1_001.0) == 33


@given(shapes, steps)
def test_memory_is_bounded_by_the_parts(window: WindowShape, gaps: list[tuple[int, int]]) -> None:
    counter, mono_s = SlidingCounter(), 0.0
    for gap_s, amount in gaps:
        mono_s += gap_s
        counter.add(window, mono_s, amount)
        assert len(counter.dump(mono_s)) <= window.buckets + 1


@given(steps, st.integers(0, 300))
def test_what_is_taken_back_no_longer_counts(gaps: list[tuple[int, int]], credit: int) -> None:
    window, counter, mono_s = WindowShape(64.0), SlidingCounter(), 0.0
    for gap_s, amount in gaps:
        mono_s += gap_s
        counter.add(window, mono_s, amount)
    had = counter.count(window, mono_s)
    counter.forgive(credit)
    assert counter.count(window, mono_s) == max(0, had - credit)


def test_a_burst_around_the_edge_of_a_period_does_not_pass_twice() -> None:
    # The fault of fixed windows: 10 at the end of one and 10 at the begin of the next.
    window, counter = WindowShape(60.0), SlidingCounter()
    assert [counter.add(window, 59.9, 10), counter.add(window, 60.1, 10)] == [10, 20]


def test_everything_is_forgotten_after_the_period_and_one_part() -> None:
    window, counter = WindowShape(160.0), SlidingCounter()
    counter.add(window, 5.0, 3)
    assert counter.count(window, 165.0) == 3
    assert counter.count(window, math.nextafter(5.0 + 160.0 + window.width_s, 1e9)) == 0


def test_cleared_counters_begin_anew() -> None:
    window, counter = WindowShape(60.0), SlidingCounter()
    counter.add(window, 1.0, 5)
    counter.clear()
    assert counter.add(window, 2.0) == 1


def test_the_default_error_is_a_sixteenth() -> None:
    assert WindowShape(3_600.0).width_s == 225.0
    assert BUCKETS == 16


@pytest.mark.parametrize(("period_s", "buckets"), [(0.0, 16), (-1.0, 16), (60.0, 0)])
def test_a_window_without_extent_is_refused(period_s: float, buckets: int) -> None:
    with pytest.raises(ValueError):
        WindowShape(period_s, buckets)


def test_parts_are_kept_in_order() -> None:
    window, counter = WindowShape(16.0), SlidingCounter()
    for mono_s in (5.0, 3.0, 9.0, 1.0, 12.0):
        counter.add(window, mono_s)
    ages = [age_s for age_s, _ in counter.dump(12.0)]
    assert all(older > younger for older, younger in pairwise(ages))
