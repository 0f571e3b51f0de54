"""What operators are told by each rule that refuses nothing: what it has looked at, or why it says nothing."""

from dataclasses import replace
from uuid import UUID

import pytest
from admission_asked import (
    DAY,
    DAY_WINDOW,
    MONTH_WINDOW,
    NOWHERE,
    PARIS,
    Asked,
    billed,
    by_carriers,
    by_trunk,
    costing,
    reseller_of,
    spent,
    velocity,
)
from admission_line import (
    RESELLER_ID,
    Line,
    account,
    at,
    camel,
    counted,
    granted,
    policy,
    postpaid,
    refusal,
    request,
    reseller,
    result,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import decide
from callwarden.call_admission.admission.core.snapshot import CounterView
from callwarden.call_admission.model.habits import WEIGHT, AccountBaseline, Country, VelocityCounts
from callwarden.call_admission.model.scopes import ADDRESS, RESELLER
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Mode, Reason, RuleResult
from callwarden.policy.model import Modes


def usual(hours: dict[int, int], spent_micros: int = 0, days: int = 0) -> CounterView:
    """An account that has called in these hours of a day for a month, and France and Germany among the countries."""
    weights = [hours.get(hour, 0) * WEIGHT for hour in range(24)]
    return counted(
        usage=Usage(
            countries={"DE": Country(DAY, DAY), "FR": Country(DAY - 30, DAY - 30)},
            baseline=AccountBaseline(DAY - 30, DAY, weights, spent_micros, days),
        )
    )


NEW = {"fraud": {"newDestination": {"enabled": True, "maxPerDay": 2, "remember": "20d"}}}
BASELINE = {"fraud": {"baseline": {"enabled": True, "learn": "7d"}}, "modes": {"baseline": "Enforce"}}
LATE_S, EARLY_S = at("2026-01-05 23:30", "Europe/Berlin"), at("2026-01-05 00:30", "Europe/Berlin")
PASSED: dict[str, tuple[Asked, RuleResult]] = {
    "a reseller that was left": (
        Asked(postpaid(parent=UUID(int=5)), reseller_of(Usage(), active=False)), RuleResult("account", Mode.ENFORCE),
    ),
    "an active reseller": (
        Asked(postpaid(parent=RESELLER_ID), reseller_of(Usage())), RuleResult("account", Mode.ENFORCE),
    ),
    "a prefix that the trunk doesn't block": (by_trunk(blocked="33"), RuleResult("destinations", Mode.ENFORCE)),
    "a trunk without prefixes": (by_trunk(), RuleResult("destinations", Mode.ENFORCE, skipped="no list")),
    "a local call where destinations are listed": (
        Asked(spec={"fraud": {"destinations": {"block": ["49"]}}}, of={"quote": None}),
        RuleResult("destinations", Mode.ENFORCE, skipped="local call"),
    ),
    "a larger prefix than is billed, below its level": (
        billed(3, exact=True, prefix="4"), RuleResult("billing", Mode.ENFORCE),
    ),
    "routes of unknown cost": (
        costing(None, maxCostPerMinute="0.04"), RuleResult("cost", Mode.ENFORCE, None, "cost", 0, 40_000, "call"),
    ),
    "one carrier of two over its talk time": (
        by_carriers(60, 3_600),
        RuleResult("carrier_talk_time", Mode.ENFORCE, None, "talk", 3_600, 3_600, DAY_WINDOW),
    ),
    "lines that are free": (
        Asked(postpaid(max_lines=2), of={"lines": 1}), RuleResult("lines", Mode.ENFORCE, None, "calls", 1, 2, "now"),
    ),
    "the month's talk time, of which more is used than of the day's": (
        Asked(postpaid(talk_day_s=600, talk_month_s=200), (counted(usage=spent(0, 150)),)),
        RuleResult("talk_time", Mode.ENFORCE, None, "talk", 150, 200, MONTH_WINDOW),
    ),
    "the day's talk time, of which more is used than of the month's": (
        Asked(postpaid(talk_day_s=200, talk_month_s=600), (counted(usage=spent(0, 150)),)),
        RuleResult("talk_time", Mode.ENFORCE, None, "talk", 150, 200, DAY_WINDOW),
    ),
    "longest call": (
        Asked(spec={"session": {"callTimeout": "9m"}}),
        RuleResult("duration", Mode.ENFORCE, None, "seconds", 0, 540, "call"),
    ),
    "longest call of a group": (
        Asked(spec=velocity(critical={"duration": "90s"})),
        RuleResult("velocity", Mode.ENFORCE, None, "duration", 0, 90, "call"),
    ),
    "spend of a group that is warned of": (
        Asked(spec=velocity(warning={"spend": 1})),
        RuleResult("velocity", Mode.ENFORCE, None, "spend", 0, None, "irsf 300 s"),
    ),
    "a limit rather than a mere warning": (
        Asked(spec=velocity(warning={"perMinute": 9}, critical={"total": 9})),
        RuleResult("velocity", Mode.ENFORCE, None, "total", 0, 9, "irsf 300 s"),
    ),
    "a new group's spend": (
        Asked(
            postpaid(), (counted(usage=Usage(groups={"irsf": VelocityCounts()})),), velocity(critical={"spend": 1}),
        ),
        RuleResult("velocity", Mode.ENFORCE, None, "spend", 0, 1_000_000, "irsf 300 s"),
    ),
    "a local call, as to velocity": (
        Asked(spec=velocity(critical={"total": 1}), of={"quote": None}),
        RuleResult("velocity", Mode.ENFORCE, skipped="local call"),
    ),
    "a local call, as to new countries": (
        Asked(spec=NEW, of={"quote": None}), RuleResult("new_destination", Mode.ENFORCE, skipped="local call"),
    ),
    "a number of no country, as to new ones": (
        Asked(spec=NEW, destination=NOWHERE), RuleResult("new_destination", Mode.ENFORCE, skipped="no country"),
    ),
    "a country that was called long ago": (
        Asked(owners=(usual({}),), spec=NEW, destination=PARIS),
        RuleResult("new_destination", Mode.ENFORCE, None, "countries", 1, 2, DAY_WINDOW),
    ),
    "a day that doesn't go by what was spent before": (
        Asked(postpaid(type=AccountType.TRAFFIC_SENDER), spec={"spend": {"dynamicDaily": {"mode": 1}}}),
        RuleResult("dynamic_daily", Mode.ENFORCE, skipped="not this type"),
    ),
    "a carrier, whose day never goes by what was spent before": (
        Asked(postpaid(type=AccountType.CARRIER), spec={"spend": {"dynamicDaily": {"mode": 2}}}),
        RuleResult("dynamic_daily", Mode.ENFORCE, skipped="not this type"),
    ),
    "a month without a limit": (Asked(), RuleResult("monthly_spend", Mode.ENFORCE, skipped="no limit")),
    "a month that isn't checked": (
        Asked(postpaid(monthly_micros=1), spec={"spend": {"checkPostpaid": False}}),
        RuleResult("monthly_spend", Mode.ENFORCE, skipped="not checked by policy"),
    ),
    "talk time that isn't checked": (
        Asked(postpaid(talk_day_s=0), spec={"duration": {"enforce": 0}}),
        RuleResult("talk_time", Mode.ENFORCE, skipped="off by policy"),
    ),
    "carriers' talk time that isn't checked": (
        replace(by_carriers(3_600), spec={"duration": {"enforce": 0}}),
        RuleResult("carrier_talk_time", Mode.ENFORCE, skipped="off by policy"),
    ),
    "credit": (
        Asked(account(balance_micros=70_000)),
        RuleResult("credit", Mode.ENFORCE, None, "credit", 70_000, 1_000, "call"),
    ),
    "a postpaid account's credit": (Asked(), RuleResult("credit", Mode.ENFORCE, skipped="postpaid account")),
    "a reseller's day that isn't checked": (
        Asked(owners=reseller_of(spent(9), daily_micros=9), spec={"spend": {"daily": {"perAccount": False}}}),
        RuleResult("reseller_spend", Mode.ENFORCE, skipped="no limit"),
    ),
    "a number of no country, as to what is usual": (
        Asked(owners=(usual({13: 9}),), spec=BASELINE, destination=NOWHERE), RuleResult("baseline", Mode.ENFORCE),
    ),
    "an hour beside the usual one": (
        Asked(owners=(usual({14: 9}),), spec=BASELINE), RuleResult("baseline", Mode.ENFORCE),
    ),
    "an hour after the usual one": (
        Asked(owners=(usual({12: 9}),), spec=BASELINE), RuleResult("baseline", Mode.ENFORCE),
    ),
    "an hour of which a hundredth is usual": (
        Asked(owners=(usual({13: 1, 20: 99}),), spec=BASELINE), RuleResult("baseline", Mode.ENFORCE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSED)
def test_a_rule_that_refuses_nothing_shows_what_it_has_looked_at(case: str) -> None:
    asked, wanted = PASSED[case]
    assert result(asked.decided, wanted.rule) == wanted


@pytest.mark.parametrize(("start_s", "usual_hour"), [(LATE_S, 0), (EARLY_S, 23)])
def test_the_hour_before_midnight_and_the_one_after_it_are_neighbours(start_s: float, usual_hour: int) -> None:
    of, under = snapshot(postpaid(), usual({usual_hour: 9})), policy(**BASELINE)
    assert result(decide(of, request(at_s=start_s), under), "baseline").refused is None
    lonely = snapshot(postpaid(), usual({12: 9}))
    refuse = refusal(decide(lonely, request(at_s=start_s), under))
    assert (refuse.reason, refuse.counter, refuse.value, refuse.limit) == (
        Reason.BASELINE,
        "hour",
        0,
        9 * WEIGHT // 100,
    )


def test_each_result_says_whether_its_rule_is_enforced() -> None:
    rules = sorted(Modes.model_fields)
    decided = decide(snapshot(), request(), policy(modes={camel(rule): "Report" for rule in rules}))
    assert sorted(found.rule for found in decided.rules if found.mode is Mode.REPORT) == rules
    enforced = decide(snapshot(), request(), policy(modes={camel(rule): "Enforce" for rule in rules}))
    assert {found.mode for found in enforced.rules} == {Mode.ENFORCE}


def test_rules_of_money_say_nothing_of_a_call_that_costs_none() -> None:
    spec = {
        "callsPerAddress": {"maxCost": 0},
        "spend": {"daily": {"endUser": 0}, "dynamicDaily": {"mode": 1}},
        **velocity(critical={"spend": 0}),
    }
    shop = counted(RESELLER, account=reseller(daily_micros=0))
    of = snapshot(postpaid(monthly_micros=0), shop, counted(ADDRESS), quote=None)
    decided = decide(of, request("bob", local=True), policy(**spec))
    rules = ("address_cost", "reseller_spend", "monthly_spend", "daily_spend", "dynamic_daily")
    assert {result(decided, rule).skipped for rule in rules} == {"free call"}


def test_the_tighter_of_a_resellers_limits_cuts_the_slice() -> None:
    for limits in (
        {"daily_micros": 30_000, "monthly_micros": 20_000},
        {"daily_micros": 20_000, "monthly_micros": 30_000},
    ):
        line = Line(postpaid(), policy(), reseller=reseller(**limits))
        assert granted(line.call()).granted_s == 20


def test_the_shortest_longest_call_of_several_groups_holds() -> None:
    groups = [
        {"name": name, "critical": {"duration": f"{most_s}s"}} for name, most_s in (("a", 40), ("b", 20), ("c", 30))
    ]
    line = Line(postpaid(), policy(fraud={"velocity": groups}))
    assert granted(line.call()).granted_s == 20


def test_the_longest_call_of_a_group_is_that_of_the_moment_in_which_the_call_began() -> None:
    line = Line(postpaid(), policy(**velocity(critical={"duration": "9m"})))
    hold = granted(line.call())
    line.policy = policy(**velocity(critical={"duration": "60s"}))
    assert granted(line.extend(hold)).granted_s > 60


def test_a_new_call_is_not_warned_of_a_length_that_it_has_not_had() -> None:
    line = Line(postpaid(), policy(spend={"slice": {"minimum": "10s"}}, **velocity(warning={"duration": "5s"})))
    assert line.ask().warnings == ()
