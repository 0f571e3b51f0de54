"""Token buckets: no more than burst + rate × time pass, whatever the clock does and whatever is forgotten."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.limits.bucket import NEVER_S, Bucket, Buckets, Rate

rates = st.builds(Rate, st.integers(1, 100).map(float), st.integers(1, 50).map(float))
gaps_s = st.lists(st.integers(0, 64).map(lambda n: n / 64), max_size=200)


@given(rates, gaps_s)
def test_in_any_span_no_more_than_the_burst_and_the_rate_pass(rate: Rate, gaps: list[float]) -> None:
    bucket, now_s, passed = Bucket(), 0.0, []
    for gap_s in gaps:
        now_s += gap_s
        if bucket.take(rate, now_s) == 0.0:
            passed.append(now_s)
    for first, from_s in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= rate.burst + rate.per_second * (passed[last] - from_s) + 1e-3


@given(rates, gaps_s)
def test_it_agrees_with_a_bucket_of_tokens(rate: Rate, gaps: list[float]) -> None:
    bucket, now_s, tokens, then_s = Bucket(), 0.0, rate.burst, 0.0
    for gap_s in gaps:
        now_s += gap_s
        tokens = min(rate.burst, tokens + (now_s - then_s) * rate.per_second)
        then_s = now_s
        if abs(tokens - 1.0) < 1e-3:
            continue  # Where rounding decides, either is right.
        wait_s = bucket.take(rate, now_s)
        assert (wait_s == 0.0) == (tokens >= 1.0)
        if wait_s == 0.0:
            tokens -= 1.0
        else:
            assert math.isclose(wait_s, (1.0 - tokens) / rate.per_second, abs_tol=1e-5)


@given(rates, st.lists(st.integers(-64, 64).map(lambda n: n / 16), max_size=200))
def test_a_clock_that_steps_back_mints_no_tokens(rate: Rate, gaps: list[float]) -> None:
    bucket, now_s, newest_s, passed = Bucket(), 0.0, 0.0, 0
    for gap_s in [0.0, *gaps]:
        now_s += gap_s
        newest_s = max(newest_s, now_s)
        passed += bucket.take(rate, now_s) == 0.0
        assert passed <= rate.burst + rate.per_second * newest_s + 1e-3


def test_it_says_how_long_to_wait() -> None:
    bucket, rate = Bucket(), Rate(per_second=2.0, burst=2.0)
    assert [bucket.take(rate, 0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.take(rate, 0.5) == 0.0


def test_what_never_fits_is_never_promised() -> None:
    assert Bucket().take(Rate(1.0, 5.0), 0.0, amount=6.0) == NEVER_S
    assert Buckets(1).take("a", Rate(1.0, 5.0), 0.0, amount=6.0) == NEVER_S


@given(rates, gaps_s)
def test_one_of_many_behaves_as_one_alone(rate: Rate, gaps: list[float]) -> None:
    alone, many, now_s = Bucket(), Buckets(capacity=10), 0.0
    for gap_s in gaps:
        now_s += gap_s
        assert many.take("a", rate, now_s) == alone.take(rate, now_s)
        many.expire(now_s)  # Forgets full ones only: no difference.


def test_where_room_is_short_a_full_bucket_goes_and_nothing_is_lost() -> None:
    many, rate = Buckets(capacity=2), Rate(1.0, 5.0)
    many.take("emptied", rate, 0.0, amount=5.0)
    many.take("full again", rate, 0.0)
    assert many.take("new", rate, 2.0) == 0.0
    assert many.evicted == 0
    assert many.take("emptied", rate, 2.0, amount=5.0) == pytest.approx(3.0)


def test_more_keys_than_places_stay_within_the_places_and_are_counted() -> None:
    many, rate = Buckets(capacity=50), Rate(1.0, 5.0)
    for number in range(1_000):
        assert many.take(str(number), rate, 0.0) == 0.0
        assert len(many) <= 50
    assert many.evicted == 950


def test_expiry_comes_to_all_of_them_bit_by_bit() -> None:
    many, rate = Buckets(capacity=100), Rate(1.0, 10.0)
    for number in range(60):
        many.take(str(number), rate, 0.0, amount=10.0 if number < 30 else 1.0)
    assert [many.expire(5.0, limit=20) for _ in range(3)] == [0, 10, 20]
    assert len(many) == 30


@pytest.mark.parametrize(("per_second", "burst"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 5.0)])
def test_a_rate_of_nothing_is_refused(per_second: float, burst: float) -> None:
    with pytest.raises(ValueError):
        Rate(per_second, burst)
