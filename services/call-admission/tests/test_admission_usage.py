"""What is counted is exact, bounded, and comes back to nothing when all calls are over."""

from dataclasses import replace
from uuid import UUID

from admission_line import ACCOUNT_ID, NOW_S, PRICE, account, policy, request
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.call_admission.admission.core.rules.velocity import marks
from callwarden.call_admission.model.calls import Ended, Hold
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.habits import COUNTRIES_MAX, Country
from callwarden.call_admission.model.leases import LEASE_STEP_S, LEASES_MAX, Leases
from callwarden.call_admission.model.scopes import ACCOUNT, SYSTEM
from callwarden.call_admission.model.settle import settle
from callwarden.call_admission.model.usage import SPANS_MAX, TransitionContext, Usage
from callwarden.call_admission.model.usage_shards import merged
from callwarden.call_admission.model.windows import WINDOW_BUCKETS, SlidingWindow, fitted
from callwarden.kernel.clock import UnixS

DAY_S = 86_400
ALL = policy(
    lines={"maxPerSecond": 9},
    fraud={
        "velocity": [{"name": "all", "critical": {
            "perSecond": 9, "perMinute": 9, "total": 9, "atOnce": 9, "inSequence": 9, "spend": "9",
        }}],
        "baseline": {"enabled": True},
        "newDestination": {"enabled": True},
    },
)  # fmt: skip


def context(unix_s: float) -> TransitionContext:
    return TransitionContext(ACCOUNT, ALL, account(), UnixS(unix_s), leases=True)


def hold_at(at_s: float, number: int = 0, lasts_s: float = 200.0) -> Hold:
    asked = request(at_s=at_s)
    return Hold(
        UUID(int=number), ACCOUNT_ID, at_s, None, at_s + lasts_s, 60, 7_200, False, 60_000,
        day_of(at_s, "Europe/Berlin"), PRICE, "", marks(asked, ALL, account(), UnixS(at_s)),
    )  # fmt: skip


def test_an_empty_count_uses_nothing() -> None:
    for quantity in ("calls", "calls_per_second", "credit", "day_spend.1", "month_talk.1", "period_cost"):
        assert Usage().used(quantity, NOW_S) == 0


# ------------------------------------------------------------------ windows


@given(st.lists(st.floats(0, 500_000).map(lambda ms: round(ms) / 1_000), max_size=40), st.floats(0, 600))
@settings(max_examples=150)
def test_a_window_counts_all_calls_of_its_span_and_none_older_than_a_bucket_more(
    begun: list[float], now: float
) -> None:
    window = SlidingWindow(SlidingWindow.width(60_000))
    begun = sorted(moment for moment in begun if moment <= now)
    for moment in begun:
        window.begin(NOW_S + moment, 0, 0)
    found = window.calls(UnixS(NOW_S + now))
    assert found >= sum(moment > now - 60 for moment in begun)
    assert found <= sum(moment > now - 60 - 2 * 0.6 for moment in begun)


def test_a_window_keeps_its_buckets_and_no_more_whatever_comes() -> None:
    window = SlidingWindow(SlidingWindow.width(1_000))
    for step in range(5_000):
        window.begin(NOW_S + step * 0.007 * (-1) ** step, 1, 1)
        assert len(window.buckets) <= 2 * WINDOW_BUCKETS + 2


def test_a_clock_that_steps_back_begins_a_window_anew() -> None:
    window = SlidingWindow(SlidingWindow.width(60_000))
    window.begin(NOW_S, 0, 0)
    window.begin(NOW_S - 3_600, 0, 0)
    assert window.calls(UnixS(NOW_S - 3_600)) == 1


def test_a_window_of_another_span_takes_along_what_it_can() -> None:
    window = SlidingWindow(SlidingWindow.width(60_000))
    for second in range(0, 60, 10):
        window.begin(NOW_S + second, 7, 1)
    wide = fitted(window, 600_000)
    assert wide.sums(UnixS(NOW_S + 60)).micros == 42
    assert fitted(wide, 600_000) is wide


# ------------------------------------------------------------------ calls at once


def test_leases_are_at_most_the_steps_of_the_longest() -> None:
    leases = Leases()
    for step in range(3 * LEASES_MAX):
        leases.begin(NOW_S + step * LEASE_STEP_S, NOW_S)
        assert len(leases.steps) <= LEASES_MAX
    assert leases.count(NOW_S) == 3 * LEASES_MAX - 1  # the first was over when it began


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=30))
@settings(max_examples=100)
def test_calls_at_once_are_those_that_began_less_those_that_ended(calls: list[tuple[int, bool]]) -> None:
    leases = Leases()
    for lasts_s, _ in calls:
        leases.begin(NOW_S + lasts_s, NOW_S)
    for lasts_s, is_over in calls:
        if is_over:
            leases.end(NOW_S + lasts_s, NOW_S)
    left = [lasts_s for lasts_s, is_over in calls if not is_over]
    count = leases.count(NOW_S)
    assert sum(lasts_s > LEASE_STEP_S for lasts_s in left) <= count <= len(left)
    assert leases.count(UnixS(NOW_S + 500)) == 0


def test_a_call_that_begins_after_the_clock_has_stepped_back_is_counted() -> None:
    leases = Leases()
    leases.begin(NOW_S + 100, NOW_S)
    earlier_s = NOW_S - 3_600
    leases.begin(earlier_s + 100, UnixS(earlier_s))
    assert leases.count(UnixS(earlier_s)) == 2, "the one of before has not expired yet, either"
    leases.end(earlier_s + 100, UnixS(earlier_s + 50))
    assert leases.count(UnixS(earlier_s + 50)) == 1


# ------------------------------------------------------------------ days and months


def test_days_in_which_no_call_runs_are_dropped_and_leave_the_largest_spend() -> None:
    usage = Usage()
    for day in range(50):
        unix_s = NOW_S + day * DAY_S
        hold = hold_at(unix_s)
        usage.begin(request(at_s=unix_s), hold, context(unix_s))
        usage.end(
            hold,
            settle(hold, Ended(hold.id, hold.account_id, unix_s, unix_s + 50 - day, "bye", 200, "")),
            context(unix_s),
        )
        assert len(usage.days) <= 3
    assert usage.peak_before(hold_at(NOW_S + 50 * DAY_S).spend_day.toordinal()) == 50_000
    assert len(usage.months) <= 3


def test_days_of_running_calls_are_kept_up_to_their_bound() -> None:
    usage = Usage()
    for day in range(SPANS_MAX + 50):
        unix_s = NOW_S + day * DAY_S
        usage.begin(request(at_s=unix_s), hold_at(unix_s, lasts_s=500 * DAY_S), context(unix_s))
    assert len(usage.days) == SPANS_MAX
    assert usage.days[-1].key == hold_at(NOW_S + (SPANS_MAX + 49) * DAY_S).spend_day.toordinal()


def test_countries_are_bounded_and_the_one_called_longest_ago_goes() -> None:
    usage = Usage()
    day = day_of(NOW_S, "Europe/Berlin").toordinal()
    usage.countries = {f"{index:04}": Country(day - 60, day - 60 + index % 50) for index in range(COUNTRIES_MAX)}
    usage.begin(request(), hold_at(NOW_S), context(NOW_S))
    assert len(usage.countries) == COUNTRIES_MAX
    assert "DE" in usage.countries
    assert "0000" not in usage.countries


def test_groups_of_rules_that_policy_has_no_more_are_forgotten() -> None:
    usage = Usage()
    usage.begin(request(), hold_at(NOW_S), context(NOW_S))
    assert usage.groups.keys() == {"all"}
    none = TransitionContext(ACCOUNT, policy(), account(), NOW_S)
    usage.begin(request(), replace(hold_at(NOW_S), marks=()), none)
    assert not usage.groups


# ------------------------------------------------------------------ any order of calls

STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "extend", "end"]), st.integers(0, 5), st.integers(0, 90_000)), max_size=40
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_what_calls_have_reserved_is_given_back_and_what_they_cost_is_added_once(
    steps: list[tuple[str, int, int]],
) -> None:
    usage, whole = Usage(), Usage()
    owners = ((usage, context), (whole, lambda unix_s: TransitionContext(SYSTEM, ALL, account(), unix_s)))
    holds: dict[int, Hold] = {}
    unix_s, cost = NOW_S, 0

    def over(slot: int, talk_s: int) -> None:
        nonlocal cost
        hold = holds.pop(slot)
        ended = Ended(hold.id, hold.account_id, hold.created_at_s, hold.created_at_s + talk_s, "bye", 200, "")
        settlement = settle(hold, ended)
        for owner, of in owners:
            owner.end(hold, settlement, of(unix_s))
        cost += settlement.price_micros

    for step, slot, wait_s in steps:
        unix_s = UnixS(unix_s + wait_s)
        if step == "begin" and slot not in holds:
            holds[slot] = hold_at(unix_s, slot, 7_200)
            for owner, of in owners:
                owner.begin(request(at_s=unix_s), holds[slot], of(unix_s))
        elif step == "extend" and slot in holds:
            before = holds[slot]
            after = before.granted(
                before.created_at_s, before.granted_s + 60, before.held_micros + 60_000, "", 5, final=False
            )
            for owner, of in owners:
                owner.extend(before, after, of(unix_s))
            holds[slot] = after
        elif step == "end" and slot in holds:
            over(slot, min(wait_s, holds[slot].granted_s))
        assert usage.held_micros == sum(hold.held_micros for hold in holds.values())
        assert usage.spent_micros == cost
        assert sum(span.held_micros for span in usage.days) == usage.held_micros
        assert sum(span.running for span in usage.months) == len(holds)
        assert all(bucket.calls >= 0 for bucket in (usage.second.buckets if usage.second else ()))
    for slot in list(holds):
        over(slot, 1)
    assert usage.held_micros == 0
    assert usage.used("calls", unix_s) == whole.used("calls", unix_s) == 0
    assert all(not (span.held_micros or span.granted_s or span.running) for span in (*usage.days, *usage.months))
    assert usage.copy() == usage


# ------------------------------------------------------------------ several rows


def test_countries_of_several_rows_are_those_of_one_account() -> None:
    one = Usage(countries={"FR": Country(5, 9, 2_000), "DE": Country(1, 2, 1_000)})
    other = Usage(countries={"FR": Country(3, 7, 500), "DE": Country(4, 6, 10), "IT": Country(8, 8, 250)})
    wanted = {"FR": Country(3, 9, 2_500), "DE": Country(1, 6, 1_010), "IT": Country(8, 8, 250)}
    assert merged([one, other]).countries == wanted
    assert merged([other, one]).countries == wanted
    merged([other]).countries["IT"].weight = 0
    assert other.countries["IT"].weight == 250, "what is merged is a copy"
