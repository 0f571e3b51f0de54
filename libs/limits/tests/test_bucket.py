"""Token buckets: no more than burst + rate × time pass, whatever the clock does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.limits.bucket import NEVER_S, Rate, TokenBucket

rates = st.builds(Rate, st.integers(1, 100).map(float), st.integers(1, 50).map(float))
gaps_s = st.lists(st.integers(0, 64).map(lambda n: n / 64), max_size=200)


@given(rates, gaps_s)
def test_in_any_span_no_more_than_the_burst_and_the_rate_pass(rate: Rate, gaps: list[float]) -> None:
    bucket, mono_s, passed = TokenBucket(), 0.0, []
    for gap_s in gaps:
        mono_s += gap_s
        if bucket.take(rate, mono_s) == 0.0:
            passed.append(mono_s)
    for first, from_s in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= rate.burst + rate.per_second * (passed[last] - from_s) + 1e-3


@given(rates, gaps_s)
def test_it_agrees_with_a_bucket_of_tokens(rate: Rate, gaps: list[float]) -> None:
    bucket, mono_s, tokens, then_s = TokenBucket(), 0.0, rate.burst, 0.0
    for gap_s in gaps:
        mono_s += gap_s
        tokens = min(rate.burst, tokens + (mono_s - then_s) * rate.per_second)
        then_s = mono_s
        if abs(tokens - 1.0) < 1e-3:
            continue  # Where rounding decides, either is right.
        wait_s = bucket.take(rate, mono_s)
        assert (wait_s == 0.0) == (tokens >= 1.0)
        if wait_s == 0.0:
            tokens -= 1.0
        else:
            assert math.isclose(wait_s, (1.0 - tokens) / rate.per_second, abs_tol=1e-5)


@given(rates, st.lists(st.integers(-64, 64).map(lambda n: n / 16), max_size=200))
def test_a_clock_that_steps_back_mints_no_tokens(rate: Rate, gaps: list[float]) -> None:
    bucket, mono_s, newest_s, passed = TokenBucket(), 0.0, 0.0, 0
    for gap_s in [0.0, *gaps]:
        mono_s += gap_s
        newest_s = max(newest_s, mono_s)
        passed += bucket.take(rate, mono_s) == 0.0
        assert passed <= rate.burst + rate.per_second * newest_s + 1e-3


def test_it_says_how_long_to_wait() -> None:
    bucket, rate = TokenBucket(), Rate(per_second=2.0, burst=2.0)
    assert [bucket.take(rate, 0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.take(rate, 0.5) == 0.0


def test_what_never_fits_is_never_promised() -> None:
    assert TokenBucket().take(Rate(1.0, 5.0), 0.0, amount=6.0) == NEVER_S


@pytest.mark.parametrize(("per_second", "burst"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 5.0)])
def test_a_rate_of_nothing_is_refused(per_second: float, burst: float) -> None:
    with pytest.raises(ValueError):
        Rate(per_second, burst)
