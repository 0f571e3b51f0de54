"""What each owner counts of a call as it begins, is extended and ends; what is learnt of an account, month by month."""

from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from admission_line import ACCOUNT_ID, NOW_S, PRICE, TODAY, account, policy, postpaid, request

from callwarden.call_admission.model.calls import CallRequest, Hold
from callwarden.call_admission.model.habits import (
    FACTOR_BITS,
    WEIGHT,
    AccountBaseline,
    Country,
    VelocityCounts,
    decay_factor,
    in_sequence,
)
from callwarden.call_admission.model.leases import LEASE_STEP_S
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT, ADDRESS, CARRIER, REALM, RESELLER, SYSTEM
from callwarden.call_admission.model.settle import Settlement
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import SPANS_MAX, TransitionContext, Usage
from callwarden.kernel.clock import UnixS

DAY, MONTH = TODAY.toordinal(), TODAY.year * 12 + TODAY.month - 1
DAY_S = 86_400
PLAIN = policy()
FAST = policy(lines={"maxPerSecond": 9})
LEARNING = policy(
    fraud={
        "velocity": [{"name": "all", "period": "5m", "critical": {
            "perSecond": 9, "perMinute": 9, "total": 9, "atOnce": 9, "inSequence": 9,
        }}],
        "baseline": {"enabled": True, "halfLife": "1d"},
        "newDestination": {"enabled": True, "remember": "10d"},
    },
)  # fmt: skip
PARIS, BERLIN = "33142345678", "493012345678"


def hold(marks: tuple[str, ...] = (), at_s: float = NOW_S, day: date = TODAY) -> Hold:
    return Hold(
        UUID(int=9), ACCOUNT_ID, at_s, None, at_s + 200, 60, 7_200, False, 60_000, day, PRICE, "carrier", marks
    )  # fmt: skip


def settled(of: Hold, micros: int, talk_s: int) -> Settlement:
    return Settlement(of.id, of.account_id, NOW_S, NOW_S + talk_s, talk_s, talk_s, micros, "EUR", "carrier", "bye", 200)


def context(
    owner: str, under: AdmissionPolicy = PLAIN, *, unix_s: float = NOW_S, leases: bool = False, **of: Any
) -> TransitionContext:
    return TransitionContext(owner, under, account(**of), UnixS(unix_s), leases)


def span(key: int, **counts: int) -> CalendarSpan:
    return CalendarSpan(key, **counts)


def spans(usage: Usage, **counts: int) -> bool:
    """Whether its day and month count just that."""
    return usage.days == [span(DAY, **counts)] and usage.months == [span(MONTH, **counts)]


def in_period(usage: Usage) -> tuple[int, int, int]:
    assert usage.period is not None
    (bucket,) = usage.period.buckets
    return bucket.calls, bucket.micros, bucket.talk_s


LONGER = replace(hold(), granted_s=120, held_micros=120_000, expires_at_s=NOW_S + 300)


# ------------------------------------------------------------------ the owners


@pytest.mark.parametrize("owner", [ACCOUNT, RESELLER])
def test_who_pays_counts_money_and_talk_of_the_calls_day_and_month(owner: str) -> None:
    usage, of = Usage(), context(owner)
    usage.begin(request(), hold(), of)
    assert usage.held_micros == 60_000
    assert spans(usage, held_micros=60_000, granted_s=60, calls=1, running=1)
    usage.extend(hold(), LONGER, of)
    assert usage.held_micros == 120_000
    assert spans(usage, held_micros=120_000, granted_s=120, calls=1, running=1)
    usage.end(LONGER, settled(LONGER, 70_000, 70), of)
    assert (usage.held_micros, usage.spent_micros) == (0, 70_000)
    assert spans(usage, spent_micros=70_000, talk_s=70, calls=1)


@pytest.mark.parametrize(("micros", "seconds"), [(0, 60), (60_000, 0), (60_000, 60), (0, 0)])
def test_talk_that_costs_nothing_and_money_for_no_more_talk_are_counted_too(micros: int, seconds: int) -> None:
    usage, of = Usage(), context(ACCOUNT)
    usage.begin(request(), hold(), of)
    usage.extend(hold(), replace(hold(), granted_s=60 + seconds, held_micros=60_000 + micros), of)
    assert spans(usage, held_micros=60_000 + micros, granted_s=60 + seconds, calls=1, running=1)
    assert usage.held_micros == 60_000 + micros


@pytest.mark.parametrize("owner", [REALM, SYSTEM])
def test_realm_and_system_count_no_money(owner: str) -> None:
    usage, of = Usage(), context(owner)
    usage.begin(request(), hold(), of)
    usage.extend(hold(), LONGER, of)
    usage.end(LONGER, settled(LONGER, 70_000, 70), of)
    assert (usage.held_micros, usage.spent_micros, usage.days, usage.months) == (0, 0, [], [])


@pytest.mark.parametrize(
    ("owner", "leases", "counts"),
    [
        (ACCOUNT, False, False),
        (ACCOUNT, True, True),
        (RESELLER, False, True),
        (REALM, False, True),
        (SYSTEM, False, True),
    ],
)  # fmt: skip
def test_calls_at_once_are_counted_where_no_hold_tells_of_them(owner: str, leases: bool, counts: bool) -> None:
    usage, of = Usage(), context(owner, leases=leases)
    usage.begin(request(), hold(), of)
    assert usage.used("calls", NOW_S) == int(counts)
    usage.extend(hold(), LONGER, of)
    step = -(-int(NOW_S + 300) // LEASE_STEP_S)
    assert (usage.leases.steps if usage.leases is not None else []) == [[step, 1]] * counts
    usage.end(LONGER, settled(LONGER, 0, 0), of)
    assert usage.used("calls", NOW_S) == 0


@pytest.mark.parametrize(
    ("owner", "under", "own", "counts"),
    [
        (ACCOUNT, PLAIN, None, False), (ACCOUNT, FAST, None, True), (ACCOUNT, PLAIN, 5, True),
        (RESELLER, PLAIN, None, True), (REALM, PLAIN, None, True), (SYSTEM, PLAIN, None, True),
    ],
)  # fmt: skip
def test_calls_of_a_second_are_counted_where_some_limit_may_need_them(
    owner: str, under: AdmissionPolicy, own: int | None, counts: bool
) -> None:
    usage = Usage()
    for _ in range(2):
        usage.begin(request(), hold(), context(owner, under, max_per_second=own))
    assert usage.used("calls_per_second", NOW_S) == 2 * counts
    found = [] if usage.second is None else usage.second.buckets
    assert [(each.calls, each.micros, each.talk_s) for each in found] == [(2, 0, 0)] * counts


def test_an_address_counts_calls_talk_and_cost_of_its_period() -> None:
    usage, of = Usage(), context(ADDRESS)
    usage.extend(hold(), LONGER, of)
    assert usage == Usage(), "of a call that it hasn't counted nothing is moved"
    usage.end(hold(), settled(hold(), 1, 1), of)
    assert usage == Usage()
    usage.begin(request(), hold(), of)
    assert in_period(usage) == (1, 60_000, 60)
    usage.extend(hold(), LONGER, of)
    assert in_period(usage) == (1, 120_000, 120)
    usage.end(LONGER, settled(LONGER, 70_000, 70), of)
    assert in_period(usage) == (1, 70_000, 70)
    assert (usage.held_micros, usage.days, usage.leases, usage.second) == (0, [], None, None)
    assert [usage.used(name, NOW_S) for name in ("period_calls", "period_talk", "period_cost")] == [1, 70, 70_000]


def test_a_carrier_counts_a_call_once_it_has_carried_it() -> None:
    usage, of = Usage(), context(CARRIER)
    usage.begin(request(), hold(), of)
    assert spans(usage, granted_s=60, running=1)
    usage.extend(hold(), LONGER, of)
    assert spans(usage, granted_s=120, running=1)
    usage.end(LONGER, settled(LONGER, 70_000, 70), of)
    assert spans(usage, talk_s=70, calls=1)
    usage.begin(request(), hold(), of)
    usage.leave(hold())
    assert spans(usage, talk_s=70, calls=1)
    assert (usage.leases, usage.second, usage.held_micros) == (None, None, 0)
    assert usage.used(f"day_talk.{DAY}", NOW_S) == usage.used(f"month_talk.{MONTH}", NOW_S) == 70


def test_what_is_held_and_spent_is_used_of_a_day_a_month_and_the_credit() -> None:
    usage = Usage(30, 500, [span(DAY, spent_micros=20, held_micros=3)], [span(MONTH, spent_micros=40, held_micros=5)])
    assert usage.used("credit", NOW_S) == 530
    assert usage.used(f"day_spend.{DAY}", NOW_S) == 23
    assert usage.used(f"day_spend.{DAY + 1}", NOW_S) == 0
    assert usage.used(f"month_spend.{MONTH}", NOW_S) == 45
    usage.days[0].talk_s, usage.days[0].granted_s = 7, 11
    assert usage.used(f"day_talk.{DAY}", NOW_S) == 18
    with pytest.raises(ValueError, match="unknown"):
        usage.used("year_spend.1", NOW_S)


# ------------------------------------------------------------------ days


def test_days_stay_in_order_and_a_late_one_finds_its_own() -> None:
    usage, of = Usage(), context(ACCOUNT)
    for days in (0, -1, -2, 0, -1):
        on = date.fromordinal(DAY + days)
        usage.begin(request(), replace(hold(), spend_day=on), of)
    assert [(each.key, each.calls) for each in usage.days] == [(DAY - 2, 1), (DAY - 1, 2), (DAY, 2)]


def test_a_day_without_a_running_call_goes_when_two_newer_ones_have_begun_and_leaves_its_spend() -> None:
    usage = Usage(
        days=[span(DAY - 3, spent_micros=70, calls=2), span(DAY - 2, spent_micros=50, running=1, calls=1),
              span(DAY - 1, spent_micros=90)],
        baseline=AccountBaseline(DAY - 9, DAY, spent_micros=5, days=7),
        peak_day_micros=60,
    )  # fmt: skip
    usage.begin(request(), hold(), context(ACCOUNT))
    assert [each.key for each in usage.days] == [DAY - 2, DAY - 1, DAY]
    assert usage.peak_day_micros == 70
    assert usage.baseline is not None
    assert (usage.baseline.spent_micros, usage.baseline.days) == (5 + 70 * WEIGHT, 7 + WEIGHT)
    assert [usage.peak_before(day) for day in (DAY, DAY - 1, DAY - 2)] == [90, 70, 70]


def test_the_oldest_days_go_where_there_are_too_many_that_run_but_never_the_calls_own() -> None:
    def of(day: int) -> Usage:
        usage = Usage(days=[span(1_000 + key, running=1) for key in range(SPANS_MAX)])
        usage.begin(request(), replace(hold(), spend_day=date.fromordinal(day)), context(ACCOUNT))
        return usage

    newest, late = of(1_000 + SPANS_MAX), of(900)
    assert (len(newest.days), newest.days[0].key, newest.days[-1].calls) == (SPANS_MAX, 1_001, 1)
    assert [(each.key, each.calls) for each in late.days[:2]] == [(900, 1), (1_001, 0)]
    assert len(late.days) == SPANS_MAX


def test_the_spend_of_a_day_is_kept_where_nothing_is_learnt() -> None:
    usage = Usage(days=[span(DAY - 3, spent_micros=70, calls=2), span(DAY - 2), span(DAY - 1)])
    usage.begin(request(), hold(), context(ACCOUNT))
    assert (usage.peak_day_micros, usage.baseline) == (70, None)


def test_a_day_without_a_call_is_none_of_those_that_say_what_is_usual() -> None:
    usage = Usage(days=[span(DAY - 3), span(DAY - 2), span(DAY - 1)], baseline=AccountBaseline(DAY - 9, DAY))
    usage.begin(request(), hold(), context(ACCOUNT))
    assert usage.baseline is not None
    assert (usage.baseline.days, len(usage.days)) == (0, 2)


# ------------------------------------------------------------------ months


def month_of(index: int) -> Hold:
    """A call in that month of 2026."""
    return replace(hold(), spend_day=date(2026, index, 5))


def test_the_growth_of_a_monthly_limit_restarts_with_another_limit() -> None:
    of = postpaid(monthly_micros=1_000, monthly_increment_micros=100)
    usage = Usage()
    for month in (1, 2, 3):
        usage.begin(request(), month_of(month), TransitionContext(ACCOUNT, PLAIN, of, NOW_S))
    assert usage.leases is None
    march, april = 2026 * 12 + 2, 2026 * 12 + 3
    assert (usage.monthly_limit(of, march), usage.monthly_limit(of, april)) == (1_200, 1_300)
    other = replace(of, monthly_micros=5_000)
    assert usage.monthly_limit(other, april) == 5_000
    usage.begin(request(), month_of(3), TransitionContext(ACCOUNT, PLAIN, other, NOW_S))
    assert (usage.monthly_limit(other, march), usage.monthly_limit(other, april)) == (5_000, 5_100)
    assert (usage.month_base_micros, usage.month_grown_micros, usage.month_grown) == (5_000, 0, march)


def test_a_monthly_limit_grows_after_a_month_with_a_call_only() -> None:
    of = postpaid(monthly_micros=1_000, monthly_increment_micros=100)
    for calls, limit in ((0, 1_000), (1, 1_100)):
        usage = Usage(months=[span(MONTH, calls=calls)], month_base_micros=1_000, month_grown=MONTH)
        assert usage.monthly_limit(of, MONTH + 1) == limit


def test_a_ceiling_that_is_lowered_takes_growth_back_and_never_the_limit_itself() -> None:
    usage = Usage(months=[span(MONTH, calls=1)], month_base_micros=1_000, month_grown_micros=500, month_grown=MONTH)
    of = postpaid(monthly_micros=1_000, monthly_increment_micros=100)
    wanted = {None: 1_600, 2_000: 1_600, 1_550: 1_550, 1_000: 1_000, 900: 1_000}
    for ceiling, limit in wanted.items():
        assert usage.monthly_limit(replace(of, monthly_ceiling_micros=ceiling), MONTH + 1) == limit
    assert usage.monthly_limit(replace(of, monthly_increment_micros=0), MONTH + 1) == 1_000
    assert usage.monthly_limit(replace(of, monthly_micros=None), MONTH + 1) is None
    assert usage.monthly_limit(of, MONTH) == 1_500
    lowered = replace(of, monthly_ceiling_micros=1_200)
    usage.begin(request(), hold(), TransitionContext(ACCOUNT, PLAIN, lowered, NOW_S))
    assert usage.monthly_limit(lowered, MONTH) == 1_200
    assert usage.monthly_limit(of, MONTH) == 1_500, "what has grown comes back with the ceiling"


def test_an_account_without_a_monthly_limit_keeps_no_growth() -> None:
    usage = Usage()
    usage.begin(request(), hold(), context(ACCOUNT))
    assert (usage.month_base_micros, usage.month_grown) == (None, 0)


# ------------------------------------------------------------------ notices


def test_a_level_is_told_once_a_day_and_a_higher_one_after_it() -> None:
    usage = Usage()
    assert usage.is_notice_due("lines", 50, DAY)
    usage.record_notice("lines", 80, DAY)
    usage.record_notice("lines", 50, DAY)
    assert [usage.is_notice_due("lines", level, DAY) for level in (50, 80, 100)] == [False, False, True]
    assert usage.is_notice_due("credit", 1, DAY)
    assert not usage.is_notice_due("lines", 100, DAY - 1), "of a day that is over"
    assert usage.is_notice_due("lines", 50, DAY + 1)
    usage.record_notice("credit", 50, DAY + 1)
    assert (usage.notice_day, usage.notices) == (DAY + 1, {"credit": 50})


# ------------------------------------------------------------------ what is learnt


def test_an_accounts_hours_and_countries_are_learnt_from_its_calls() -> None:
    usage, of = Usage(), context(ACCOUNT, LEARNING)
    usage.begin(request(PARIS), hold(), of)
    usage.begin(request(PARIS), hold(), of)
    usage.begin(request(BERLIN), hold(), of)
    assert usage.countries == {"FR": Country(DAY, DAY, 2 * WEIGHT), "DE": Country(DAY, DAY, WEIGHT)}
    assert usage.baseline is not None
    hours = [0] * 24
    hours[13] = 3 * WEIGHT  # noon in UTC is one o'clock in Berlin
    assert (usage.baseline.since, usage.baseline.day, usage.baseline.hours) == (DAY, DAY, hours)


@pytest.mark.parametrize(("call", "under"), [(replace(request("bob"), local=True), LEARNING), (request(PARIS), PLAIN)])
def test_nothing_is_learnt_from_local_calls_or_where_policy_does_not_ask(
    call: CallRequest, under: AdmissionPolicy
) -> None:
    usage = Usage()
    usage.begin(call, hold(), context(ACCOUNT, under))
    assert (usage.countries, usage.baseline) == ({}, None)


@pytest.mark.parametrize("owner", [RESELLER, REALM, SYSTEM, ADDRESS, CARRIER])
def test_only_accounts_are_learnt_from(owner: str) -> None:
    usage = Usage()
    usage.begin(request(PARIS), hold(("all",)), context(owner, LEARNING))
    assert (usage.countries, usage.baseline, usage.groups) == ({}, None, {})


def test_a_number_of_no_country_counts_for_its_hour_only() -> None:
    usage = Usage()
    usage.begin(request("999123456"), hold(), context(ACCOUNT, LEARNING))
    assert usage.countries == {}
    assert usage.baseline is not None
    assert sum(usage.baseline.hours) == WEIGHT


def test_a_country_that_was_forgotten_is_new_and_others_like_it_go() -> None:
    usage = Usage(
        countries={
            "FR": Country(DAY - 90, DAY - 11, 5), "IT": Country(DAY - 90, DAY - 11, 5), "ES": Country(1, DAY - 10, 5),
        }
    )  # fmt: skip
    of = context(ACCOUNT, policy(fraud={"newDestination": {"enabled": True, "remember": "10d"}}))
    usage.begin(request(PARIS), hold(), of)
    assert usage.countries == {"FR": Country(DAY, DAY, WEIGHT), "ES": Country(1, DAY - 10, 5)}
    assert usage.baseline is None
    usage.begin(request("34911234567"), hold(), of)
    assert usage.countries["ES"] == Country(1, DAY, 5 + WEIGHT)
    usage.begin(request("34911234567"), replace(hold(), spend_day=date.fromordinal(DAY - 1)), of)
    assert usage.countries["ES"].last == DAY, "a late one doesn't turn the day back"


def test_what_is_learnt_loses_half_of_itself_in_the_half_life() -> None:
    usage = Usage(
        countries={"FR": Country(1, DAY - 1, 3_000)},
        baseline=AccountBaseline(DAY - 9, DAY - 1, [4_000] * 24, 9_000, 7_000),
    )
    usage.begin(request("999123456"), hold(), context(ACCOUNT, LEARNING))
    assert usage.baseline is not None
    assert (usage.baseline.since, usage.baseline.day) == (DAY - 9, DAY)
    assert usage.baseline.hours == [2_000] * 13 + [2_000 + WEIGHT] + [2_000] * 10
    assert (usage.baseline.spent_micros, usage.baseline.days) == (4_500, 3_500)
    assert usage.countries["FR"].weight == 1_500
    usage.begin(request("999123456"), replace(hold(), spend_day=date.fromordinal(DAY - 1)), context(ACCOUNT, LEARNING))
    assert (usage.baseline.day, usage.baseline.days) == (DAY, 3_500), "once a day"


@pytest.mark.parametrize(
    ("days", "half_life_s", "left"), [(0, 5, 1), (1, DAY_S, 0.5), (2, DAY_S, 0.25), (1, 2 * DAY_S, 0.5**0.5)]
)
def test_a_weight_fades_by_the_day(days: int, half_life_s: int, left: float) -> None:
    assert decay_factor(days, half_life_s) == int(left * 2**FACTOR_BITS)


# ------------------------------------------------------------------ velocity groups


def test_a_group_counts_what_its_rule_limits() -> None:
    usage, of = Usage(), context(ACCOUNT, LEARNING)
    marked = hold(("all",))
    usage.begin(request(PARIS), marked, of)
    group = usage.groups["all"]
    assert group.second is not None
    assert group.minute is not None
    assert group.period is not None
    assert group.leases is not None
    assert [group.second.width_ms, group.minute.width_ms, group.period.width_ms] == [10, 600, 3_000]
    for window in (group.second, group.minute):
        assert [(each.calls, each.micros, each.talk_s) for each in window.buckets] == [(1, 0, 0)]
    assert group.leases.count(NOW_S) == 1
    assert (group.period.buckets[0].calls, group.period.buckets[0].micros) == (1, 60_000)
    assert (group.last, group.in_sequence, group.last_at_s) == (PARIS, 1, int(NOW_S))
    longer = replace(LONGER, marks=("all", "gone"))
    usage.extend(replace(marked, marks=("all", "gone")), longer, of)
    assert (group.period.buckets[0].micros, group.period.buckets[0].talk_s) == (120_000, 0)
    assert group.leases.count(UnixS(NOW_S + 250)) == 1
    usage.end(longer, settled(longer, 70_000, 70), of)
    assert (group.period.buckets[0].micros, group.period.buckets[0].talk_s) == (70_000, 0)
    assert group.leases.count(NOW_S) == 0
    assert group.period.buckets[0].calls == 1


def test_a_rule_that_limits_one_thing_counts_nothing_else() -> None:
    of = context(ACCOUNT, policy(fraud={"velocity": [{"name": "all", "critical": {"perMinute": 9}}]}))
    usage = Usage()
    usage.begin(request(PARIS), hold(("all",)), of)
    group = usage.groups["all"]
    assert (group.second, group.period, group.leases, group.last, group.in_sequence) == (None, None, None, "", 0)
    assert group.minute is not None
    usage.extend(hold(("all",)), replace(LONGER, marks=("all",)), of)
    usage.end(replace(LONGER, marks=("all",)), settled(LONGER, 1, 1), of)
    assert (group.period, group.leases) == (None, None)


def test_what_a_lapsed_call_has_cost_is_spend_of_its_group() -> None:
    usage = Usage()
    usage.begin(request(), hold(("all",)), context(ACCOUNT, LEARNING))
    usage.release(hold(("all",)), context(ACCOUNT, LEARNING))
    usage.charge(hold(("all",)), 7_000, 30, context(ACCOUNT, LEARNING))
    period = usage.groups["all"].period
    assert period is not None
    assert [(bucket.calls, bucket.micros, bucket.talk_s) for bucket in period.buckets] == [(1, 7_000, 0)]


def test_a_call_that_a_rule_does_not_cover_breaks_its_sequence() -> None:
    cuba = {"name": "cuba", "prefixes": ["53"], "critical": {"inSequence": 9}}
    of = context(ACCOUNT, policy(fraud={"velocity": [cuba]}))
    usage = Usage(groups={"cuba": VelocityCounts(last="53", in_sequence=3)})
    usage.begin(request("5371234567"), hold(), of)
    assert usage.groups["cuba"].in_sequence == 3, "one at an hour at which the rule doesn't hold"
    usage.begin(request("5371234567"), hold(("cuba",)), of)
    usage.begin(request("5377654321"), hold(("cuba",)), of)
    assert (usage.groups["cuba"].in_sequence, usage.groups["cuba"].last) == (2, "53"), "too long after the third"
    usage.begin(request(PARIS), hold(), of)
    assert (usage.groups["cuba"].in_sequence, usage.groups["cuba"].last) == (0, "")


def test_the_group_of_a_rule_that_was_renamed_goes() -> None:
    usage = Usage(groups={"old": VelocityCounts(), "all": VelocityCounts(in_sequence=7)})
    usage.begin(request(PARIS), hold(), context(ACCOUNT, LEARNING))
    assert usage.groups.keys() == {"all"}
    usage = Usage(groups={"old": VelocityCounts()})
    usage.begin(request(PARIS), hold(), context(ACCOUNT, LEARNING))
    assert usage.groups == {}


def test_a_sequence_goes_on_within_the_rules_period() -> None:
    (rule,) = LEARNING.velocity
    group = VelocityCounts(last="33", in_sequence=4, last_at_s=1_000)
    assert [in_sequence(group, "33", rule, UnixS(at_s)) for at_s in (1_000.0, 1_300.0, 1_300.1)] == [5, 5, 1]
    assert in_sequence(group, "49", rule, UnixS(1_000.0)) == 1
    assert in_sequence(None, "33", rule, UnixS(1_000.0)) == 1
