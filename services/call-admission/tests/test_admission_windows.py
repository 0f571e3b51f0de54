"""Sliding windows and calls at once, bucket by bucket and step by step."""

import pytest

from callwarden.call_admission.model.leases import LEASE_STEP_S, LEASES_MAX, Leases, merged_leases
from callwarden.call_admission.model.windows import (
    WINDOW_BUCKETS,
    SlidingWindow,
    WindowBucket,
    fitted,
    merged_windows,
)
from callwarden.kernel.clock import UnixS

WIDTH_MS = 1_000
"""Of a bucket, so that one is a second: a window of a hundred seconds."""


def window(*begun: float) -> SlidingWindow:
    made = SlidingWindow(WIDTH_MS)
    for at_s in begun:
        made.begin(at_s, 10, 1)
    return made


def buckets(of: SlidingWindow | None) -> list[tuple[int, int, int, int]]:
    assert of is not None
    return [(bucket.index, bucket.calls, bucket.micros, bucket.talk_s) for bucket in of.buckets]


@pytest.mark.parametrize(("span_ms", "width_ms"), [(1, 1), (100, 1), (101, 2), (1_000, 10), (60_000, 600)])
def test_a_span_has_a_hundred_buckets_of_a_millisecond_or_more(span_ms: int, width_ms: int) -> None:
    assert SlidingWindow.width(span_ms) == width_ms


def test_calls_of_one_bucket_are_added_up_and_buckets_stay_in_order() -> None:
    made = window(1_000.0, 1_000.999, 1_003.0, 1_001.0, 1_001.5)
    assert buckets(made) == [(1_000, 2, 20, 2), (1_001, 2, 20, 2), (1_003, 1, 10, 1)]


@pytest.mark.parametrize(("unix_s", "calls"), [(1_100.0, 3), (1_100.999, 3), (1_101.0, 2), (1_102.0, 1), (1_103.0, 0)])
def test_what_began_within_the_span_counts_and_nothing_older(unix_s: float, calls: int) -> None:
    made = window(1_000.0, 1_001.0, 1_002.0)
    assert made.calls(UnixS(unix_s)) == calls
    sums = made.sums(UnixS(unix_s))
    assert (sums.calls, sums.micros, sums.talk_s) == (calls, 10 * calls, calls)


def test_what_is_out_of_the_span_is_dropped_when_a_call_begins() -> None:
    made = window(1_000.0, 1_001.0)
    made.begin(1_101.0, 10, 1)
    assert [index for index, *_ in buckets(made)] == [1_001, 1_101]
    assert made.at(1_000.0) is None
    assert made.dropped == 1_000
    assert made.at(1_001.0) is not None


def test_a_call_that_costs_more_or_less_in_the_end_is_moved_in_its_bucket() -> None:
    made = window(1_000.0, 1_001.0)
    made.move(1_000.9, 7, 3)
    made.move(1_001.0, -4, -1)
    made.move(1_005.0, 99, 99)  # never began here
    assert buckets(made) == [(1_000, 1, 17, 4), (1_001, 1, 6, 0)]


@pytest.mark.parametrize(("back_s", "calls"), [(100.0, 2), (101.0, 1)])
def test_what_lies_more_than_a_span_ahead_is_from_before_the_clock_stepped_back(back_s: float, calls: int) -> None:
    made = window(5_000.0)
    now = UnixS(5_000.0 - back_s)
    assert (made.calls(now), made.sums(now).calls) == (calls - 1, calls - 1)
    made.begin(now, 10, 1)
    assert (made.calls(now), made.sums(now).calls) == (calls, calls)
    assert made.at(now) is not None


def test_what_lies_no_more_than_a_span_ahead_still_counts() -> None:
    made = window(4_099.0, 4_100.0, 4_101.0)
    made.begin(4_000.0, 10, 1)
    assert [index for index, *_ in buckets(made)] == [4_000, 4_099, 4_100]


def test_a_window_goes_on_after_the_clock_has_stepped_back() -> None:
    made = window(5_000.0, 4_000.0, 4_001.0)
    assert buckets(made) == [(4_000, 1, 10, 1), (4_001, 1, 10, 1)]
    assert made.dropped == 4_001 - 101
    made.begin(4_200.0, 10, 1)
    assert (made.at(4_001.0), made.dropped) == (None, 4_099)


# ------------------------------------------------------------------ another span


def test_wider_buckets_take_in_what_narrow_ones_had() -> None:
    made = window(1_000.0, 1_001.0, 1_002.0)
    wide = fitted(made, 2 * WIDTH_MS * WINDOW_BUCKETS)
    assert (wide.width_ms, buckets(wide)) == (2_000, [(500, 2, 20, 2), (501, 1, 10, 1)])


def test_narrower_buckets_take_what_is_within_their_span() -> None:
    made = window(1_000.0, 1_049.0, 1_050.0, 1_099.0)
    narrow = fitted(made, WIDTH_MS * WINDOW_BUCKETS // 2)
    assert (narrow.width_ms, [index for index, *_ in buckets(narrow)]) == (500, [2_098, 2_100, 2_198])
    assert narrow.dropped == 2_198 - 101


def test_what_was_dropped_stays_so_in_buckets_of_another_width() -> None:
    made = window(1_000.0, 1_149.0)
    assert made.dropped == 1_048
    wide = fitted(made, 2 * WIDTH_MS * WINDOW_BUCKETS)
    assert wide.dropped == 523, "of the two that the next one takes in one is still there"
    assert fitted(SlidingWindow(WIDTH_MS), 2 * WIDTH_MS * WINDOW_BUCKETS).dropped == -1
    assert fitted(None, 2 * WIDTH_MS * WINDOW_BUCKETS) == SlidingWindow(2_000)


# ------------------------------------------------------------------ several rows


def test_windows_of_several_rows_are_added_bucket_by_bucket() -> None:
    one, other = window(1_000.0, 1_001.0), window(1_001.0, 1_002.0)
    wanted = [(1_000, 1, 10, 1), (1_001, 2, 20, 2), (1_002, 1, 10, 1)]
    for total in (merged_windows(one, other), merged_windows(other, one)):
        assert buckets(total) == wanted
    assert buckets(one) == [(1_000, 1, 10, 1), (1_001, 1, 10, 1)], "what is merged is a copy"


def test_what_one_row_has_dropped_does_not_come_back_from_the_other() -> None:
    ahead, behind = window(1_000.0, 1_150.0), window(1_010.0, 1_049.0, 1_060.0)
    for total in (merged_windows(ahead, behind), merged_windows(behind, ahead)):
        assert total is not None
        assert total.dropped == 1_049
        assert [index for index, *_ in buckets(total)] == [1_060, 1_150]


def test_rows_of_different_spans_are_merged_in_the_first_ones() -> None:
    narrow = SlidingWindow(500)
    narrow.begin(1_000.5, 10, 1)
    total = merged_windows(window(1_000.0), narrow)
    assert total is not None
    assert (total.width_ms, buckets(total)) == (WIDTH_MS, [(1_000, 2, 20, 2)])


def test_a_row_without_a_window_adds_nothing_and_what_is_merged_is_a_copy() -> None:
    one = window(1_000.0)
    for total in (merged_windows(one, None), merged_windows(None, one)):
        assert total == one
        assert total is not None
        total.buckets[0].calls = 5
    assert one.buckets == [WindowBucket(1_000, 1, 10, 1)]
    assert merged_windows(None, None) is None


# ------------------------------------------------------------------ calls at once

NOW = UnixS(1_000.0 * LEASE_STEP_S)


def leases(*expire_s: float) -> Leases:
    """Of calls that expire so many seconds from now."""
    made = Leases()
    for each in expire_s:
        made.begin(NOW + each, NOW)
    return made


def test_a_call_counts_until_the_step_in_which_its_hold_expires_is_over() -> None:
    made = leases(8.0, 8.1, 16.0, 17.0)
    assert made.steps == [[1_001, 1], [1_002, 2], [1_003, 1]]
    assert [made.count(UnixS(NOW + s)) for s in (0.0, 7.9, 8.0, 15.9, 16.0, 23.9, 24.0)] == [4, 4, 3, 3, 1, 1, 0]


def test_a_call_that_has_expired_when_it_begins_is_not_counted() -> None:
    made = leases(0.0, -5.0)
    assert (made.steps, made.count(NOW)) == ([], 0)


def test_an_extension_moves_a_call_and_nothing_where_the_step_is_the_same() -> None:
    made = leases(8.0, 16.0)
    made.extend(NOW + 8.0, NOW + 24.0, NOW)
    assert made.steps == [[1_002, 1], [1_003, 1]]
    before = made.swept
    made.extend(NOW + 17.0, NOW + 24.0, UnixS(NOW + 8.0))
    assert (made.steps, made.swept) == ([[1_002, 1], [1_003, 1]], before)
    two = leases(16.0, 16.0)
    two.extend(NOW + 16.0, NOW + 24.0, NOW)
    assert two.steps == [[1_002, 1], [1_003, 1]]


def test_an_extension_of_a_call_that_has_expired_brings_it_back() -> None:
    made = leases(8.0)
    made.extend(NOW + 8.0, NOW + 40.0, UnixS(NOW + 20.0))
    assert (made.steps, made.swept) == ([[1_005, 1]], 1_002)


def test_the_end_of_a_call_takes_it_out_and_sweeps_what_has_expired() -> None:
    made = leases(8.0, 16.0, 16.0, 24.0)
    made.end(NOW + 16.0, UnixS(NOW + 8.0))
    assert (made.steps, made.swept) == ([[1_002, 1], [1_003, 1]], 1_001)
    made.end(NOW + 8.0, UnixS(NOW + 8.0))
    assert made.steps == [[1_002, 1], [1_003, 1]], "one that was swept is not taken out twice"
    made.end(NOW + 80.0, UnixS(NOW + 8.0))
    assert made.steps == [[1_002, 1], [1_003, 1]], "one that was never counted takes no other's place"
    made.end(NOW + 16.0, UnixS(NOW + 8.0))
    assert made.steps == [[1_003, 1]]


def test_where_there_is_no_room_for_a_step_the_last_one_counts_for_it() -> None:
    made = Leases([[2_000 + step, 1] for step in range(LEASES_MAX)], 999)
    made.begin(NOW + 8.0, NOW)
    assert (len(made.steps), made.steps[-1]) == (LEASES_MAX, [2_000 + LEASES_MAX - 1, 2])
    made.begin(2_000.0 * LEASE_STEP_S, NOW)
    assert made.steps[0] == [2_000, 2], "a step that is there takes as many calls as come"
    full = Leases([[2_000 + step, 1] for step in range(LEASES_MAX - 1)], 999)
    full.begin(NOW + 8.0, NOW)
    assert (len(full.steps), full.steps[0]) == (LEASES_MAX, [1_001, 1])


def test_leases_of_several_rows_are_added_step_by_step_from_the_last_sweep_on() -> None:
    one, other = Leases([[5, 1], [7, 2]], 4), Leases([[6, 1], [7, 1]], 5)
    for total in (merged_leases(one, other), merged_leases(other, one)):
        assert total is not None
        assert (total.steps, total.swept) == ([[6, 1], [7, 3]], 5)
    for total in (merged_leases(one, None), merged_leases(None, one)):
        assert total == one
        assert total is not None
        total.steps[0][1] = 9
    assert one.steps == [[5, 1], [7, 2]], "what is merged is a copy"
    assert merged_leases(None, None) is None
