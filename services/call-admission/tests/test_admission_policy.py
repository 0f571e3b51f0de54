"""A policy as admission uses it, compiled from what its documents say; calls, prices and days as it looks at them."""

from dataclasses import replace
from uuid import UUID

import pytest
from admission_line import NOW_S, PRICE, ROUTE, at, policy, priced

from callwarden.call_admission.model.calls import (
    EXPIRY_MARGIN_S,
    Hold,
    NoQuote,
    Pricing,
    Quote,
    RouteCost,
    is_free,
    pricing_of,
)
from callwarden.call_admission.model.days import UnknownZone, day_of, end_of_day, hour_of, is_within, zone
from callwarden.call_admission.model.policy import (
    AddressPolicy,
    AdmissionPolicies,
    BaselinePolicy,
    Ceiling,
    DynamicDailyPolicy,
    SlicePolicy,
    VelocityLimits,
)
from callwarden.kernel.hours import parse_plan
from callwarden.kernel.tariff import Price, RateGroup, Weekly, WeeklyPeriod, Window, free
from callwarden.kernel.verdict import Mode, Reason
from callwarden.policy.bundle import Document, PolicySet

# ------------------------------------------------------------------ the policy


def test_durations_and_amounts_are_in_seconds_days_and_micros() -> None:
    of = policy(
        session={"callTimeout": "2h", "absoluteTimeout": "3h", "ringTimeout": "40s", "callInitTimeout": "15s"},
        spend={
            "slice": {"first": "50s", "next": "40s", "minimum": "3s", "lowBelow": "0.5", "low": "7s"}, "grace": "4s",
            "dynamicDaily": {"mode": 2, "floorEndUser": 11, "floorTrafficSender": 12, "multiplier": 5},
            "daily": {"endUser": 3, "trafficSender": 4}, "rejectStatus": 480,
        },
        callsPerAddress={"maxCalls": 5, "maxDuration": "6m", "maxCost": 7, "period": 0.5, "account": "bob"},
        fraud={
            "newDestination": {"enabled": True, "maxPerDay": 3, "remember": "25h"},
            "baseline": {"enabled": True, "learn": "49h", "halfLife": "2d", "spendFactor": 6},
        },
        system={"maxCalls": 8, "maxCallsPerSecond": 9, "maxAccounts": 10,
                "perRealm": {"maxCalls": 5, "maxCallsPerSecond": 6, "maxAccounts": 7}},
        billing={"blockNotBilled": 2, "blockNotProfitable": 1, "maxCostPerMinute": "0.5"},
    )  # fmt: skip
    assert (of.talk_s_max, of.setup_s_max, of.grace_s, of.reject_status) == (7_200, 55, 4, 480)
    assert of.slice == SlicePolicy(50, 40, 3, 500_000, 7)
    assert of.dynamic_daily == DynamicDailyPolicy(True, 11_000_000, 12_000_000, 5)
    assert (of.daily_enduser_micros, of.daily_traffic_sender_micros) == (3_000_000, 4_000_000)
    assert of.address == AddressPolicy(5, 360, 7_000_000, 43_200_000, "bob")
    assert (of.new_countries_max, of.remember_days) == (3, 2)
    assert of.baseline == BaselinePolicy(3, 2 * 86_400, 6)
    assert (of.system, of.realm) == (Ceiling(8, 9), Ceiling(5, 6))
    assert (of.accounts_max, of.realm_accounts_max) == (10, 7)
    assert (of.not_billed, of.not_profitable, of.minute_cost_micros_max) == (2, 1, 500_000)
    assert of.revision == 7


def test_the_shorter_of_two_timeouts_holds() -> None:
    assert policy(session={"callTimeout": "3h", "absoluteTimeout": "2h"}).talk_s_max == 7_200


@pytest.mark.parametrize(
    ("spec", "owners"),
    [
        ({}, set()),
        ({"callsPerAddress": {"maxCalls": 1}}, {"address"}),
        ({"callsPerAddress": {"maxDuration": "1s"}}, {"address"}),
        ({"callsPerAddress": {"maxCost": 1}}, {"address"}),
        ({"system": {"maxCalls": 1}}, {"system"}),
        ({"system": {"maxCallsPerSecond": 1}}, {"system"}),
        ({"system": {"perRealm": {"maxCalls": 1}}}, {"realm"}),
        ({"system": {"perRealm": {"maxCallsPerSecond": 1}}}, {"realm"}),
        ({"system": {"maxAccounts": 1}}, set()),
    ],
)
def test_only_owners_that_some_limit_needs_are_counted(spec: dict[str, object], owners: set[str]) -> None:
    assert policy(**spec).owners == owners


@pytest.mark.parametrize(
    ("spec", "learns"),
    [
        ({}, False),
        ({"baseline": {"enabled": True}}, True),
        ({"newDestination": {"enabled": True}}, True),
        ({"newDestination": {"enabled": False, "maxPerDay": 1}}, False),
    ],
)
def test_countries_and_hours_are_learnt_where_a_rule_looks_at_them(spec: dict[str, object], learns: bool) -> None:
    assert policy(fraud=spec).learns is learns


def test_what_is_off_is_none() -> None:
    of = policy()
    assert (of.dynamic_daily, of.baseline, of.new_countries_max) == (None, None, None)
    assert (of.counts_seconds, policy(lines={"maxPerSecond": 1}).counts_seconds) == (False, True)
    dynamic = policy(spend={"dynamicDaily": {"mode": 1}}).dynamic_daily
    assert dynamic is not None
    assert not dynamic.traffic_senders


@pytest.mark.parametrize(
    ("spec", "own"),
    [
        ({"dynamicList": {"enabled": True}, "smartList": {"enabled": False}}, {"dynamic"}),
        ({"dynamicList": {"enabled": False}, "smartList": {"enabled": True}}, {"smart"}),
        ({"dynamicList": {"enabled": False}, "smartList": {"enabled": False}}, set()),
    ],
)
def test_lists_that_make_themselves_hold_where_they_are_on(spec: dict[str, object], own: set[str]) -> None:
    assert policy(fraud=spec).own_lists == own


@pytest.mark.parametrize(("per_account", "holds"), [(None, True), (True, True), (False, False)])
def test_an_accounts_own_daily_limit_holds_unless_policy_says_no(per_account: bool | None, holds: bool) -> None:
    daily = {} if per_account is None else {"daily": {"perAccount": per_account}}
    assert policy(spend=daily).daily_per_account is holds


def test_levels_of_notices_fall() -> None:
    assert policy(notifications={"thresholds": [50, 90, 70]}).thresholds == (90, 70, 50)


def test_a_rules_mode_is_the_policys_and_whether_one_is_only_reported_is_known() -> None:
    of = policy(modes={"lines": "Off", "credit": "Report"})
    assert (of.modes["lines"], of.modes["credit"], of.modes["daily_spend"]) == (Mode.OFF, Mode.REPORT, Mode.ENFORCE)
    assert of.reports
    every = {"baseline": "Enforce"}
    assert not policy(modes=every).reports


def test_a_realms_calls_are_held_to_its_own_policy_and_the_systems_ceilings() -> None:
    def document(name: str, **spec: object) -> Document:
        head = {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": name}}
        return Document.from_object(head | {"spec": spec})

    every = document("every", lines={"max": 3}, system={"maxCalls": 50})
    own = document("own", realm="example.org", lines={"max": 9}, system={"maxCalls": 60})
    policies = AdmissionPolicies(PolicySet.build(4, [every, own]))
    found = policies.for_realm("example.org")
    assert (found.lines_max, found.system.calls_max, found.revision, policies.revision) == (9, 50, 4, 4)
    assert policies.for_realm("other.org").lines_max == 3
    assert policies.for_realm("example.org") is found


def test_a_velocity_rule_counts_what_one_of_its_levels_limits() -> None:
    limits = {
        "perSecond": "counts_second", "perMinute": "counts_minute", "total": "counts_period", "spend": "counts_period",
        "atOnce": "counts_leases", "inSequence": "counts_sequence",
    }  # fmt: skip
    names = set(limits.values())
    for limit, counted in limits.items():
        for level in ("warning", "critical"):
            (rule,) = policy(fraud={"velocity": [{"name": "a", level: {limit: 1}}]}).velocity
            assert {name for name in names if getattr(rule, name)} == {counted}, (limit, level)


@pytest.mark.parametrize(
    ("number", "prefix"),
    [("537", "53"), ("53", "53"), ("5", "5"), ("511", "5"), ("45", ""), ("", ""), ("53" * 20, "53")],
)
def test_the_longest_prefix_of_a_rule_is_found_down_to_one_digit(number: str, prefix: str) -> None:
    (rule,) = policy(fraud={"velocity": [{"name": "r", "prefixes": ["5", "53"], "critical": {"total": 1}}]}).velocity
    assert rule.matched(number) == prefix
    assert rule.covers(number) is bool(prefix)


def test_a_velocity_rules_levels_are_its_own() -> None:
    levels = {"perSecond": 1, "perMinute": 2, "total": 3, "atOnce": 4, "inSequence": 5, "duration": "6s", "spend": 7}
    spec = {"name": "a", "prefixes": ["53", "5353"], "hours": "Mon 08:00-09:00", "period": "5m", "warning": levels}
    of = policy(fraud={"velocity": [spec, {"name": "b", "critical": {"total": 1}}]})
    rule, every = of.velocity
    assert rule.warning == VelocityLimits(1, 2, 3, 4, 5, 6, 7_000_000)
    assert rule.critical == VelocityLimits(None, None, None, None, None, None, None)
    assert (rule.period_ms, rule.hours, of.velocity_names) == (
        300_000, "Mon 08:00-09:00", frozenset({"a", "b"})
    )  # fmt: skip
    assert [rule.matched(number) for number in ("5353123", "5312", "53", "5", "4930")] == ["5353", "53", "53", "", ""]
    assert [rule.covers(number) for number in ("5312", "4930")] == [True, False]
    assert [every.covers(number) for number in ("5312", "4930")] == [True, True]
    assert every.matched("5312") == ""


# ------------------------------------------------------------------ prices and quotes


def test_an_account_is_priced_by_its_own_list_or_its_resellers() -> None:
    assert pricing_of("own", None, "r") == Pricing("own", "", "r", False)
    assert pricing_of("own", "theirs", "r") == Pricing("own", "theirs", "r", True)
    assert pricing_of("", "theirs", "r") == Pricing("theirs", "theirs", "r", True)
    assert pricing_of("", "", "r") == Pricing("", "", "r", True)


def weekend(peak_micros: int) -> Price:
    """Free from Saturday on, until Monday's peak hours, which none of its windows shows."""
    plan = parse_plan(["Mon-Fri 08:00-20:00"], zone("UTC"))
    free_of_charge, peak = Window(0, (RateGroup(0, 0),)), Window(0, (RateGroup(0, peak_micros),))
    weekly = Weekly(9, "UTC", (WeeklyPeriod("Mon-Fri 08:00-20:00", peak),), free_of_charge, plan)
    return Price("EUR", (free_of_charge, replace(free_of_charge, from_s=9)), weekly=weekly)


@pytest.mark.parametrize(
    ("price", "costs_nothing"),
    [
        (free("EUR"), True),
        (PRICE, False),
        (replace(PRICE, maximum_micros=0), True),
        (replace(PRICE, maximum_micros=1), False),
        (replace(priced(0), minimum_micros=1), False),
        (Price("EUR", (Window(0, (RateGroup(0, 0),), 1),)), False),
        (Price("EUR", (Window(0, (RateGroup(0, 0), RateGroup(60, 1))),)), False),
        (Price("EUR", (Window(0, (RateGroup(0, 0),)), Window(9, (RateGroup(0, 1),)))), False),
        (weekend(1), False),
        (weekend(0), True),
    ],
)
def test_a_call_is_free_if_nothing_of_its_price_costs(price: Price, costs_nothing: bool) -> None:
    assert is_free(price) is costs_nothing
    assert Quote(Pricing("retail"), "49", price, (ROUTE,), 0.0).is_free is costs_nothing


def test_a_quote_knows_what_its_routes_cost_and_which_carriers_they_lead_to() -> None:
    low, high = UUID(int=3), UUID(int=7)
    routes = (
        replace(ROUTE, trunk="a", carrier_account_id=str(high)), replace(ROUTE, trunk="b", cost=PRICE),
        replace(ROUTE, trunk="c", carrier_account_id=str(low)), replace(ROUTE, trunk="d", carrier_account_id=str(low)),
    )  # fmt: skip
    of = Quote(Pricing("retail"), "49", PRICE, routes, 0.0)
    assert of.costs == (
        RouteCost("a", high, None), RouteCost("b", None, PRICE), RouteCost("c", low, None), RouteCost("d", low, None)
    )  # fmt: skip
    assert (of.carriers, of.deck) == ((low, high), "retail")
    unknown = Quote(Pricing("retail"), "49", PRICE, (ROUTE,), 0.0)
    assert (unknown.costs, unknown.carriers, unknown.exact, unknown.parent_priced) == ((), (), True, False)
    assert (of.costs_of(routes), of.costs_of(routes[1:3]), of.costs_of(())) == (of.costs, of.costs[1:3], ())
    assert unknown.costs_of((ROUTE,)) == ()
    half = Quote(Pricing("retail"), "49", PRICE, (routes[0], ROUTE), 0.0)
    assert half.costs == (RouteCost("a", high, None), RouteCost(ROUTE.trunk, None, None))
    assert (ROUTE.add_prefix, ROUTE.strip_digits, ROUTE.cost) == ("", 0, None), "a number is dialled as it is"
    assert NoQuote(Pricing("retail"), Reason.NO_RATE).deck == "retail"


def test_a_hold_lasts_to_the_end_of_what_is_granted_from_its_first_answer_on() -> None:
    costs = (RouteCost("a", UUID(int=3), None), RouteCost("b", None, PRICE))
    hold = Hold(
        UUID(int=1), UUID(int=2), NOW_S, None, NOW_S + 100, 60, 7_200, False, 60_000, day_of(NOW_S, "UTC"), PRICE, "a",
        ("m",), (), costs, ("credit",),
    )  # fmt: skip
    answered = hold.granted(NOW_S + 3, 120, 110_000, "b", 5, final=True)
    assert answered == replace(
        hold, answered_at_s=NOW_S + 3, expires_at_s=NOW_S + 3 + 120 + 5 + EXPIRY_MARGIN_S, granted_s=120, final=True,
        held_micros=110_000, trunk="b",
    )  # fmt: skip
    later = answered.granted(NOW_S + 50, 180, 0, "b", 5, final=False)
    assert (later.answered_at_s, later.expires_at_s) == (NOW_S + 3, NOW_S + 3 + 180 + 5 + EXPIRY_MARGIN_S)
    assert answered.without() == replace(answered, granted_s=0, held_micros=0)
    assert [hold.of_trunk(trunk) for trunk in ("a", "b", "c", "")] == [costs[0], costs[1], None, costs[0]]
    quoted = tuple(replace(ROUTE, trunk=trunk) for trunk in ("c", "b", "a"))
    assert hold.left_of(quoted) == quoted[1:], "that it was admitted to, in the order of today"
    assert replace(hold, costs=()).left_of(quoted) == quoted


# ------------------------------------------------------------------ days and hours


@pytest.mark.parametrize(
    ("moment", "zone_name", "hour"),
    [
        ("2026-01-05 12:00", "UTC", 12),
        ("2026-01-05 12:59", "UTC", 12),
        ("2026-01-05 12:30", "Asia/Kolkata", 18),
        ("2026-01-05 12:29", "Asia/Kolkata", 17),
        ("2026-01-05 12:15", "Asia/Kathmandu", 18),
        ("2026-01-05 12:14", "Asia/Kathmandu", 17),
        ("2026-01-05 23:00", "Europe/Berlin", 0),
    ],
)
def test_the_hour_is_what_clocks_there_show(moment: str, zone_name: str, hour: int) -> None:
    assert hour_of(at(moment), zone_name) == hour


def test_a_day_begins_on_the_quarter_of_an_hour_in_zones_that_have_one() -> None:
    midnight_s = end_of_day(day_of(NOW_S, "Asia/Kathmandu"), "Asia/Kathmandu")
    assert midnight_s == at("2026-01-05 18:15")
    assert day_of(midnight_s - 0.1, "Asia/Kathmandu").day == 5
    assert day_of(midnight_s, "Asia/Kathmandu").day == 6


def test_hours_of_a_week_hold_by_the_minute_and_always_where_none_are_named() -> None:
    hours = "Mon-Fri 08:00-20:00"
    begin_s = at("2026-01-05 08:00", "Europe/Berlin")
    assert [is_within(hours, begin_s + s, "Europe/Berlin") for s in (-60.0, -0.1, 0.0, 59.9)] == [
        False,
        False,
        True,
        True,
    ]
    assert is_within("", begin_s - 60, "Europe/Berlin")


def test_a_zone_that_there_is_not_is_named_as_far_as_can_be_shown() -> None:
    with pytest.raises(UnknownZone) as raised:
        zone("M" * 70)
    assert raised.value.name == "M" * 64
    assert zone("Europe/Berlin").key == "Europe/Berlin"
