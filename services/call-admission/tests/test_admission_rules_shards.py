"""Limits of an owner whose counts are shared out: a shard uses its part, and says what it is short of."""

from dataclasses import replace
from typing import Any

import pytest
from admission_line import (
    NOW_S,
    TODAY,
    account,
    admission,
    counted,
    policy,
    postpaid,
    refusal,
    request,
    reseller,
    result,
    snapshot,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.call_admission.admission.core.decide import Evaluation, decide
from callwarden.call_admission.admission.core.rules.counted_limit import part_of
from callwarden.call_admission.admission.core.rules.rule import ShardDemand
from callwarden.call_admission.admission.core.snapshot import CounterView
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.habits import Country, VelocityCounts
from callwarden.call_admission.model.leases import Leases
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import REALM, RESELLER, SYSTEM
from callwarden.call_admission.model.spans import CalendarSpan, day_spend, day_talk, month_spend
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.windows import MINUTE_MS, SlidingWindow
from callwarden.kernel.verdict import Reason
from callwarden.limits.shards import Shard

DAY, MONTH = TODAY.toordinal(), TODAY.year * 12 + TODAY.month - 1


def shard(quantity: str, limit: int, part: int, count: int = 4) -> Shard:
    """With enough lines, unless that is the quantity."""
    return Shard(count, 0, {"calls": (5, count, 5), quantity: (limit, count, part)})


def running(calls: int) -> Usage:
    return Usage(leases=Leases([[int(NOW_S) // 8 + 10, calls]]))


def spent(micros: int) -> Usage:
    return Usage(days=[CalendarSpan(DAY, micros)], months=[CalendarSpan(MONTH, micros)], spent_micros=micros)


def ask(of: Account, *owners: CounterView, under: AdmissionPolicy | None = None) -> Evaluation:
    return decide(snapshot(of, *owners), request(), under or policy())


@pytest.mark.parametrize(("calls", "needed"), [(2, 0), (3, 1), (4, 2)])
def test_a_shard_without_a_free_line_asks_for_one(calls: int, needed: int) -> None:
    own = counted(usage=running(calls), shard=shard("calls", 9, 3))
    decided = ask(postpaid(max_lines=9), own)
    if needed:
        refuse = refusal(decided)
        assert decided.bounded == (ShardDemand("account", "calls", 9, needed),)
        assert (refuse.reason, refuse.value, refuse.limit) == (Reason.LINES, calls, 3)  # the shard's: no other is known
    else:
        assert admission(decided)
        assert decided.bounded == ()


def test_where_all_shards_are_known_the_whole_owner_is_shown() -> None:
    own = counted(usage=running(3), shard=shard("calls", 9, 3), total=running(9))
    refuse = refusal(ask(postpaid(max_lines=9), own))
    assert (refuse.counter, refuse.value, refuse.limit) == ("calls", 9, 9)
    assert refuse.text == "All 9 lines of the account are in use."


@pytest.mark.parametrize(
    ("own", "part", "granted_s", "needed"),
    [(0, 60_000, 60, 0), (0, 59_999, 59, 1), (30_000, 60_000, 30, 30_000), (60_000, 60_000, 0, 60_000)],
)
def test_a_shards_part_of_a_days_spend_cuts_the_slice_and_more_is_asked_for(
    own: int, part: int, granted_s: int, needed: int
) -> None:
    of = postpaid(daily_micros=1_000_000)
    quantity = day_spend(DAY)
    decided = ask(of, counted(usage=spent(own), shard=shard(quantity, 1_000_000, part)))
    assert decided.bounded == ((ShardDemand("account", quantity, 1_000_000, needed),) if needed else ())
    if granted_s:
        assert admission(decided).granted_s == granted_s
    else:
        refuse = refusal(decided)
        assert (refuse.reason, refuse.counter, refuse.value) == (Reason.DAILY_SPEND, "spent", own)


def test_a_shards_part_of_the_credit_is_all_that_it_holds() -> None:
    of = account(balance_micros=1_000_000, overdraft_micros=200_000)
    own = counted(usage=spent(10_000), shard=shard("credit", 1_200_000, 40_000))
    decided = ask(of, own)
    assert (admission(decided).granted_s, admission(decided).held_micros) == (30, 30_000)
    assert decided.bounded == (ShardDemand("account", "credit", 1_200_000, 30_000),)
    none = ask(of, counted(shard=shard("credit", 1_200_000, 0)))
    assert (refusal(none).reason, none.bounded) == (
        Reason.CREDIT,
        (ShardDemand("account", "credit", 1_200_000, 60_000),),
    )


def test_a_shards_refusal_shows_what_the_whole_account_has_left_and_its_limits_as_they_have_grown() -> None:
    of = account(balance_micros=1_000_000, overdraft_micros=200_000)
    none = shard("credit", 1_200_000, 999)
    refuse = refusal(ask(of, counted(shard=none, total=spent(1_150_000))))
    assert (refuse.value, refuse.limit) == (50_000, 1_000)
    assert refuse.text == "1 s of talk cost 0.001 EUR; the account has 0.05 EUR left."
    alone = ask(of, counted(shard=none))
    assert refusal(alone).value == 999, "what its shard has, where no other is known"
    grown = spent(0)
    grown.month_base_micros, grown.month_grown, grown.month_grown_micros = 500_000, MONTH, 100_000
    own = counted(shard=shard(month_spend(MONTH), 600_000, 600_000), total=grown)
    month = result(ask(postpaid(monthly_micros=500_000, monthly_increment_micros=50_000), own), "monthly_spend")
    assert month.limit == 600_000


@pytest.mark.parametrize(("part", "needed"), [(60_000, 0), (59_999, 1)])
def test_more_credit_is_asked_for_where_a_slice_takes_more_than_the_shard_has(part: int, needed: int) -> None:
    decided = ask(account(balance_micros=500_000), counted(shard=shard("credit", 500_000, part)))
    assert decided.bounded == ((ShardDemand("account", "credit", 500_000, needed),) if needed else ())
    unsharded = ask(account(balance_micros=59_999))
    assert (admission(unsharded).granted_s, unsharded.bounded) == (59, ())


def test_a_part_that_was_made_for_another_limit_is_none() -> None:
    decided = ask(postpaid(max_lines=8), counted(shard=shard("calls", 9, 3)))
    assert decided.bounded == (ShardDemand("account", "calls", 8, 1),)


@pytest.mark.parametrize(
    ("kind", "spec", "rule"),
    [
        (SYSTEM, {"system": {"maxCalls": 9}}, "system_calls"),
        (REALM, {"system": {"perRealm": {"maxCalls": 9}}}, "realm_calls"),
    ],
)
def test_ceilings_are_shared_out_too(kind: str, spec: dict[str, Any], rule: str) -> None:
    decided = ask(postpaid(), counted(kind, running(3), shard=shard("calls", 9, 3)), under=policy(**spec))
    assert refusal(decided).rule == rule
    assert decided.bounded == (ShardDemand(kind, "calls", 9, 1),)


def test_a_resellers_limits_are_shared_out_each_by_its_own_quantity() -> None:
    over = reseller(max_lines=9, daily_micros=900_000, monthly_micros=950_000)
    grants = {
        "calls": (9, 4, 0), day_spend(DAY): (900_000, 4, 10_000), month_spend(MONTH): (950_000, 4, 20_000),
    }  # fmt: skip
    decided = ask(postpaid(), counted(RESELLER, account=over, shard=Shard(4, 0, grants)))
    assert decided.bounded == (
        ShardDemand(RESELLER, "calls", 9, 1),
        ShardDemand(RESELLER, day_spend(DAY), 900_000, 50_000),
        ShardDemand(RESELLER, month_spend(MONTH), 950_000, 40_000),
    )


def test_talk_time_is_shared_out() -> None:
    own = counted(usage=Usage(days=[CalendarSpan(DAY, talk_s=60)]), shard=shard(day_talk(DAY), 600, 60))
    decided = ask(postpaid(talk_day_s=600), own)
    assert decided.bounded == (ShardDemand("account", day_talk(DAY), 600, 1),)


def test_a_reported_limit_asks_for_its_part_too() -> None:
    own = counted(usage=running(3), shard=shard("calls", 9, 3))
    decided = ask(postpaid(max_lines=9), own, under=policy(modes={"lines": "Report"}))
    assert decided.bounded == (ShardDemand("account", "calls", 9, 1),)
    assert decided.reported == ["lines"]


@pytest.mark.parametrize(("limit", "count", "part"), [(10, 1, 10), (10, 4, 3), (8, 4, 2), (1, 4, 1), (0, 4, 0)])
def test_levels_that_shards_do_not_lend_are_divided_and_rounded_up(limit: int, count: int, part: int) -> None:
    assert part_of(counted(shard=Shard(count, 0, {})), limit) == part


def test_velocity_new_countries_and_dynamic_days_go_by_shard() -> None:
    minute = SlidingWindow(SlidingWindow.width(MINUTE_MS))
    minute.begin(NOW_S, 0, 0)
    usage = Usage(
        groups={"all": VelocityCounts(minute=minute)}, countries={"FR": Country(DAY, DAY)},
        days=[CalendarSpan(DAY, 2_500_000)],
        leases=Leases(),
    )  # fmt: skip
    own = counted(usage=usage, shard=shard("calls", 5, 5))
    under = policy(
        fraud={
            "velocity": [{"name": "all", "critical": {"perMinute": 4}}],
            "newDestination": {"enabled": True, "maxPerDay": 3},
        },
        spend={"dynamicDaily": {"mode": 1}},
    )
    decided = ask(postpaid(), own, under=under)
    for rule, value, limit in (("velocity", 1, 1), ("new_destination", 1, 1), ("dynamic_daily", 2_500_000, 2_500_000)):
        found = result(decided, rule).refused
        assert found is not None
        assert (found.value, found.limit) == (value, limit)
    assert decided.bounded == ()


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 300_000), st.integers(0, 300_000))
@settings(max_examples=200, deadline=None)
def test_no_shard_grants_more_than_its_part_whatever_the_limit(calls: int, lines: int, used: int, part: int) -> None:
    grants = {"calls": (9, 4, lines), day_spend(DAY): (1_000_000, 4, part)}
    usage = spent(used)
    usage.leases = running(calls).leases
    own = counted(usage=usage, shard=Shard(4, 0, grants))
    of = snapshot(postpaid(max_lines=9, daily_micros=1_000_000), own)
    whole = replace(of, counted={"account": counted(usage=usage)}, lines=calls, spent_micros=used)
    decided, enough = decide(of, request(), policy()), decide(whole, request(), policy())
    if calls >= lines or used + 1_000 > part:
        assert refusal(decided)
        assert decided.bounded
    else:
        admit = admission(decided)
        assert used + admit.held_micros <= part
        assert admit.held_micros <= admission(enough).held_micros
        assert bool(decided.bounded) is (used + 60_000 > part)
