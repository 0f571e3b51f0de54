"""What is shown of limits: what each rule counts and how much of it is used, and why a rule says nothing."""

from dataclasses import replace
from typing import Any

import pytest
from admission_asked import DAY_WINDOW, MONTH_WINDOW, by_carriers
from admission_line import (
    Line,
    account,
    at,
    counted,
    granted,
    policy,
    postpaid,
    priced,
    quote,
    request,
    reseller,
    result,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import decide
from callwarden.call_admission.admission.core.rules import RULES, LimitUsage
from callwarden.call_admission.model.calls import NoQuote, Pricing
from callwarden.kernel.verdict import Mode, Reason


def used(line: Line, rule: str) -> list[tuple[str, str, int, int | None, str]]:
    (found,) = [each for each in RULES if each.name == rule]
    uses: tuple[LimitUsage, ...] = found.uses(line.snapshot(), line.policy)
    return [(use.counter, use.unit, use.used, use.limit, use.window) for use in uses]


TODAY_S, MONTH_S = at("2026-01-06 00:00", "Europe/Berlin"), at("2026-02-01 00:00", "Europe/Berlin")
ADDRESS = {"maxCalls": 9, "maxDuration": "9m", "maxCost": 9}
CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str, int, int | None, str]]]] = {
    "lines": ({}, [("calls", "calls", 1, 5, "now")]),
    "calls_per_second": ({"lines": {"max": 5, "maxPerSecond": 9}}, [("calls", "calls", 1, 9, "1 s")]),
    "system_calls": ({"system": {"maxCalls": 9}}, [("calls", "calls", 1, 9, "now")]),
    "system_rate": ({"system": {"maxCallsPerSecond": 9}}, [("calls", "calls", 1, 9, "1 s")]),
    "realm_calls": ({"system": {"perRealm": {"maxCalls": 9}}}, [("calls", "calls", 1, 9, "now")]),
    "realm_rate": ({"system": {"perRealm": {"maxCallsPerSecond": 9}}}, [("calls", "calls", 1, 9, "1 s")]),
    "address_calls": ({"callsPerAddress": ADDRESS}, [("calls", "calls", 1, 9, "24 h")]),
    "address_duration": ({"callsPerAddress": ADDRESS}, [("talk", "s", 60, 540, "24 h")]),
    "address_cost": ({"callsPerAddress": ADDRESS}, [("spent", "micros", 60_000, 9_000_000, "24 h")]),
    "new_destination": (
        {"fraud": {"newDestination": {"enabled": True, "maxPerDay": 3}}},
        [("countries", "calls", 1, 3, "day 2026-01-05 Europe/Berlin")],
    ),
    "daily_spend": (
        {"spend": {"daily": {"endUser": 9}}},
        [("spent", "micros", 60_000, 9_000_000, "day 2026-01-05 Europe/Berlin")],
    ),
}


@pytest.mark.parametrize("rule", CASES)
def test_a_limit_is_shown_with_what_is_counted_and_how_much_of_it_is_used(rule: str) -> None:
    spec, wanted = CASES[rule]
    line = Line(postpaid(), policy(**spec))
    granted(line.call())
    assert used(line, rule) == wanted
    found = result(line.ask("33142345678"), rule)
    assert (found.counter, found.window) == (wanted[0][0], wanted[0][4])


def test_credit_is_shown_of_prepaid_accounts_and_months_of_postpaid_ones() -> None:
    line = Line(account(balance_micros=900_000, overdraft_micros=100_000, monthly_micros=5), policy())
    granted(line.call())
    assert used(line, "credit") == [("credit", "micros", 60_000, 1_000_000, "now")]
    assert used(line, "monthly_spend") == []
    of_month = Line(postpaid(monthly_micros=900_000), policy())
    granted(of_month.call())
    assert used(of_month, "credit") == []
    assert used(of_month, "monthly_spend") == [("spent", "micros", 60_000, 900_000, "month 2026-01 Europe/Berlin")]


def test_talk_time_is_shown_where_it_holds() -> None:
    of = postpaid(talk_day_s=90, talk_month_s=900)
    line = Line(of, policy())
    granted(line.call())
    assert used(line, "talk_time") == [
        ("talk", "s", 60, 90, "day 2026-01-05 Europe/Berlin"), ("talk", "s", 60, 900, "month 2026-01 Europe/Berlin")
    ]  # fmt: skip
    assert used(Line(of, policy(duration={"enforce": 0})), "talk_time") == []


def test_a_resellers_limits_are_shown_each() -> None:
    of = reseller(prepaid=True, balance_micros=500_000, daily_micros=900_000, max_lines=7)
    line = Line(postpaid(), policy(), reseller=of)
    granted(line.call())
    assert used(line, "reseller_lines") == [("calls", "calls", 1, 7, "now")]
    assert used(line, "reseller_spend") == [
        ("spent", "micros", 60_000, 900_000, "day 2026-01-05 Europe/Berlin"),
        ("credit", "micros", 60_000, 500_000, "credit"),
    ]


SKIPPED = {
    "only_local": "no trunk", "lists": "running call", "destinations": "no list", "billing": "off by policy",
    "profit": "off by policy", "cost": "no limit", "carrier_talk_time": "no limit", "system_calls": "no ceiling",
    "system_rate": "no ceiling", "realm_calls": "no ceiling", "realm_rate": "no ceiling",
    "reseller_lines": "no reseller", "reseller_spend": "no reseller", "calls_per_second": "no limit",
    "address_calls": "no limit", "address_duration": "no limit", "address_cost": "no limit", "velocity": "no rule",
    "new_destination": "off by policy", "talk_time": "no limit", "monthly_spend": "prepaid account",
    "daily_spend": "no limit", "dynamic_daily": "off by policy", "baseline": "off by policy",
}  # fmt: skip


def test_a_rule_that_says_nothing_says_why() -> None:
    decided = decide(snapshot(), request(), policy())
    assert {found.rule: found.skipped for found in decided.rules if found.skipped} == SKIPPED
    assert {found.mode for found in decided.rules} == {Mode.ENFORCE, Mode.REPORT}


def test_rules_of_prices_say_that_a_local_call_or_one_without_a_price_has_none() -> None:
    of = policy(billing={"blockNotBilled": 2, "blockNotProfitable": 1, "maxCostPerMinute": "0.05"})
    local = decide(snapshot(quote=None), request("bob", local=True), of)
    unpriced = decide(snapshot(quote=NoQuote(Pricing("retail"), Reason.NO_RATE)), request(), of)
    for rule in ("billing", "profit", "cost"):
        assert result(local, rule).skipped == "local call"
        assert result(unpriced, rule).skipped == "no price"
    for rule in ("premium", "satellite", "rate"):
        assert result(local, rule).skipped == "local call"
    assert result(local, "credit").skipped == "free call"
    assert result(unpriced, "credit").skipped == "no price"


def test_numbers_of_a_route_that_is_shown_are_costs_of_a_minute() -> None:
    routes = replace(quote().routes[0], cost=priced(40_000)), replace(quote().routes[0], trunk="b", cost=None)
    of = snapshot(quote=quote(priced(60_000), *routes))
    decided = decide(of, request(), policy(billing={"blockNotProfitable": 1, "maxCostPerMinute": "0.05"}))
    for rule, limit in (("profit", 60_000), ("cost", 50_000)):
        found = result(decided, rule)
        assert (found.counter, found.value, found.limit, found.window) == ("cost", 40_000, limit, "call")


def test_what_is_not_counted_is_not_held_against_a_call() -> None:
    of = policy(callsPerAddress=ADDRESS, system={"maxCalls": 9, "maxCallsPerSecond": 9})
    decided = decide(snapshot(None, counted()), request(), of)
    for rule in ("address_calls", "address_duration", "address_cost", "system_calls", "system_rate"):
        assert result(decided, rule).skipped == "not counted"


# ------------------------------------------------------------------ what is used


def shown(line: Line, **of: Any) -> dict[str, tuple[LimitUsage, ...]]:
    """What `callwarden limits show` lists, by rule."""
    found = {rule.name: rule.uses(replace(line.snapshot(), **of), line.policy) for rule in RULES}
    return {rule: uses for rule, uses in found.items() if len(uses)}


def test_only_limits_that_hold_are_shown_of_what_is_counted() -> None:
    of = reseller(active=True)
    line = Line(postpaid(max_lines=2), policy(), reseller=of)
    granted(line.call())
    assert shown(line) == {"lines": (LimitUsage("calls", "calls", 1, 2, source="account"),)}
    unchecked = policy(spend={"checkPostpaid": False, "daily": {"perAccount": False}}, duration={"enforce": 0})
    limits: dict[str, Any] = {"monthly_micros": 9, "talk_day_s": 9, "daily_micros": 9}
    no_more = Line(postpaid(max_lines=2, **limits), unchecked, reseller=reseller(**limits))
    assert list(shown(no_more, carriers=by_carriers(9).of["carriers"])) == ["lines"]


def test_every_limit_is_shown_with_who_set_it_and_when_it_begins_anew() -> None:
    levels = {"perSecond": 9, "perMinute": 9, "total": 9, "atOnce": 9, "inSequence": 9, "spend": 9, "duration": "9m"}
    under = policy(
        lines={"max": 5, "maxPerSecond": 9},
        spend={"daily": {"endUser": 9}, "dynamicDaily": {"mode": 1}},
        fraud={
            "velocity": [
                {"name": "irsf", "period": "5m", "critical": levels},
                {"name": "all", "critical": {"spend": 5}},
            ]
        },
    )
    shop = reseller(daily_micros=70_000, monthly_micros=80_000)
    line = Line(postpaid(monthly_micros=90_000, talk_day_s=900, talk_month_s=990), under, reseller=shop)
    granted(line.call())
    day, month = (DAY_WINDOW, TODAY_S), (MONTH_WINDOW, MONTH_S)
    assert shown(line, carriers=by_carriers(7).of["carriers"]) == {
        "carrier_talk_time": (
            LimitUsage("talk", "s", 7, 3_600, *day, "carrier a"),
            LimitUsage("talk", "s", 7, 9_999, *month, "carrier a"),
        ),
        "lines": (LimitUsage("calls", "calls", 1, 5),),
        "calls_per_second": (LimitUsage("calls", "calls", 1, 9, "1 s"),),
        "velocity": (
            LimitUsage("per_second", "calls", 1, 9, "irsf 1 s"),
            LimitUsage("per_minute", "calls", 1, 9, "irsf 60 s"),
            LimitUsage("total", "calls", 1, 9, "irsf 300 s"),
            LimitUsage("at_once", "calls", 1, 9, "irsf now"),
            LimitUsage("in_sequence", "calls", 1, 9, "irsf 300 s"),
            LimitUsage("spend", "micros", 60_000, 9_000_000, "irsf 300 s"),
            LimitUsage("duration", "s", 0, 540, "irsf call"),
            LimitUsage("spend", "micros", 60_000, 5_000_000, "all 3600 s"),
        ),
        "talk_time": (
            LimitUsage("talk", "s", 60, 900, *day, "account"), LimitUsage("talk", "s", 60, 990, *month, "account"),
        ),
        "reseller_spend": (
            LimitUsage("spent", "micros", 60_000, 70_000, *day, "reseller shop"),
            LimitUsage("spent", "micros", 60_000, 80_000, *month, "reseller shop"),
        ),
        "monthly_spend": (LimitUsage("spent", "micros", 60_000, 90_000, *month, "account"),),
        "daily_spend": (LimitUsage("spent", "micros", 60_000, 9_000_000, *day),),
        "dynamic_daily": (LimitUsage("spent", "micros", 60_000, 10_000_000, *day),),
    }  # fmt: skip


def test_an_accounts_own_limits_and_a_prepaid_resellers_credit_are_shown_as_theirs() -> None:
    shop = reseller(prepaid=True, balance_micros=50_000, overdraft_micros=20_000)
    line = Line(account(daily_micros=90_000, max_per_second=3), policy(), reseller=shop)
    granted(line.call())
    assert shown(line) == {
        "lines": (LimitUsage("calls", "calls", 1, 5),),
        "calls_per_second": (LimitUsage("calls", "calls", 1, 3, "1 s", source="account"),),
        "reseller_spend": (LimitUsage("credit", "micros", 60_000, 70_000, "credit", 0.0, "reseller shop"),),
        "daily_spend": (LimitUsage("spent", "micros", 60_000, 90_000, DAY_WINDOW, TODAY_S, "account"),),
        "credit": (LimitUsage("credit", "micros", 60_000, 1_000_000, source="account"),),
    }  # fmt: skip
