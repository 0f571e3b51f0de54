"""What rules say at the borders of what they look at: free calls, running ones, levels without a limit, texts."""

from dataclasses import replace
from typing import Any

import pytest
from admission_line import (
    NOW_S,
    ROUTE,
    Line,
    account,
    admission,
    counted,
    granted,
    policy,
    postpaid,
    priced,
    quote,
    refusal,
    refused,
    request,
    reseller,
    result,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import decide, decide_extension
from callwarden.call_admission.admission.core.notices import levels
from callwarden.call_admission.admission.core.rules import RULES, AdmissionRule, Question
from callwarden.call_admission.admission.core.rules.rule import LimitUsage
from callwarden.call_admission.admission.core.slices import FREE_LEASE_S, cost_max
from callwarden.call_admission.admission.core.snapshot import SourceTrunk
from callwarden.call_admission.model.calls import ExtendRequest, Hold, NoQuote, Pricing
from callwarden.call_admission.model.habits import WEIGHT, AccountBaseline, Country
from callwarden.call_admission.model.scopes import RESELLER
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import WARNED, Usage
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Mode, Reason, RuleResult
from callwarden.limits.shards import Shard

CUBA, BERLIN = "5371234567", "493012345678"


def rule(name: str) -> AdmissionRule:
    (found,) = [each for each in RULES if each.name == name]
    return found


def velocity(**rule: Any) -> Line:
    return Line(postpaid(max_lines=100), policy(fraud={"velocity": [{"name": "irsf", "period": "5m"} | rule]}))


def asked_again(line: Line, hold: Hold) -> Any:
    """What is decided about more time for the call."""
    wish = ExtendRequest(hold.id, "call", hold.account_id, hold.created_at_s, hold.granted_s)
    return decide_extension(line.snapshot(hold.spend_day), hold, wish, line.policy)


# ------------------------------------------------------------------ velocity


def test_a_number_of_no_group_is_passed_over_and_one_of_a_group_without_a_level_is_passed() -> None:
    line = velocity(prefixes=["53"], warning={"duration": "9m"})
    assert result(line.ask(BERLIN), "velocity").skipped == "no rule for it"
    found = result(line.ask(CUBA), "velocity")
    assert (found.skipped, found.refused, found.counter) == ("", None, "")


@pytest.mark.parametrize(
    ("critical", "wait_s"),
    [({"perSecond": 1}, 1), ({"perMinute": 1}, 0), ({"total": 1}, 0), ({"atOnce": 1}, 0), ({"inSequence": 1}, 0)],
    ids=["second", "minute", "period", "at once", "sequence"],
)
def test_only_who_calls_too_often_in_a_second_is_told_when_to_try_again(critical: dict[str, int], wait_s: int) -> None:
    line = velocity(critical=critical)
    granted(line.call(CUBA))
    assert refused(line.call(CUBA)).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("critical", "text"),
    [
        ({"perSecond": 1}, "Velocity rule irsf allows 1 new calls within a second (irsf 1 s)."),
        ({"perMinute": 1}, "Velocity rule irsf allows 1 new calls within a minute (irsf 60 s)."),
        ({"total": 1}, "Velocity rule irsf allows 1 new calls within its period (irsf 300 s)."),
        ({"atOnce": 1}, "Velocity rule irsf allows 1 calls at the same time (irsf now)."),
        ({"inSequence": 1}, "Velocity rule irsf allows 1 calls in a row to one destination (irsf 300 s)."),
        ({"spend": "0.06"}, "Velocity rule irsf allows a spend of 0.06 EUR (irsf 300 s)."),
    ],
)
def test_a_refusal_says_what_the_group_may_do(critical: dict[str, Any], text: str) -> None:
    line = velocity(critical=critical)
    granted(line.call(CUBA))
    assert refused(line.call(CUBA)).text == text


@pytest.mark.parametrize(("warned", "told"), [("59s", [60]), ("60s", [60]), ("61s", [])])
def test_a_call_that_has_lasted_as_long_as_its_group_warns_of_is_told_of(warned: str, told: list[int]) -> None:
    line = velocity(prefixes=["53"], warning={"duration": warned})
    hold = granted(line.call(CUBA))
    assert line.ask(CUBA).warnings == (), "a new call has lasted no time"
    decided = asked_again(line, hold)
    assert [warning.value for warning in decided.warnings] == told
    if told:
        (warning,) = decided.warnings
        assert (warning.rule, warning.counter, warning.limit, warning.window) == (
            "velocity", "duration", int(warned[:-1]), "irsf call",
        )  # fmt: skip
        assert warning.text == f"Velocity rule irsf warns above {warned[:-1]} (duration, irsf call)."
        found = result(decided, "velocity")
        assert (found.counter, found.value, found.limit, found.window) == ("duration", 60, None, "call")


def test_calls_under_way_are_warned_of_their_groups_spend_alone() -> None:
    line = velocity(warning={"perMinute": 1, "total": 1, "atOnce": 1, "spend": "0.1"})
    hold = granted(line.call(CUBA))
    assert [warning.counter for warning in asked_again(line, hold).warnings] == ["spend"]


def test_a_free_call_and_one_without_a_price_meet_no_groups_spend() -> None:
    line = velocity(critical={"spend": "0.01"}, warning={"spend": "0.01"})
    free = line.ask(CUBA, quote(priced(0)))
    assert admission(free).granted_s == FREE_LEASE_S
    assert (free.warnings, result(free, "velocity").refused, result(free, "velocity").counter) == ((), None, "")
    unpriced = Question(CUBA, False, None, False, (NOW_S,), 1)
    found = rule("velocity").find(line.snapshot(), unpriced, line.policy, Mode.ENFORCE)
    assert (found.warnings, found.result.refused) == ((), None)


@pytest.mark.parametrize(("warned", "told"), [("0.059", True), ("0.06", False)])
def test_a_spend_is_warned_of_above_its_level_with_the_least_that_the_call_may_cost(warned: str, told: bool) -> None:
    line = velocity(warning={"spend": warned})
    line.spend(60_000 - 1_000 * line.policy.slice.minimum_s)
    assert bool(line.ask(CUBA).warnings) is told


def test_each_shard_has_its_part_of_a_groups_levels_rounded_up() -> None:
    of = policy(fraud={"velocity": [{"name": "irsf", "critical": {"total": 5, "spend": "0.03"}}]})
    shard = snapshot(postpaid(), counted(shard=Shard(4, 0, {})))
    shown = [(use.counter, use.limit) for use in rule("velocity").uses(shard, of)]
    assert shown == [("total", 2), ("spend", 7_500)]


# ------------------------------------------------------------------ what is shown


@pytest.mark.parametrize(("used", "limit", "left"), [(3, 5, 2), (5, 5, 0), (7, 5, 0), (7, None, None)])
def test_what_remains_of_a_limit_is_never_less_than_nothing(used: int, limit: int | None, left: int | None) -> None:
    assert LimitUsage("calls", "calls", used, limit).remaining == left


def test_only_what_a_running_call_can_still_use_up_is_asked_again_at_each_slice() -> None:
    assert {each.name for each in RULES if each.extends} == {
        "account", "address_cost", "credit", "daily_spend", "duration", "dynamic_daily", "monthly_spend",
        "reseller_spend", "velocity",
    }  # fmt: skip


def test_a_rule_without_a_limit_of_its_own_shows_nothing_and_is_always_asked() -> None:
    local_only = rule("only_local")
    assert (local_only.uses(snapshot(), policy()), local_only.idle(policy()), local_only.extends) == ((), "", False)


# ------------------------------------------------------------------ notices


def test_a_velocity_warning_is_told_under_a_name_of_its_own() -> None:
    line = velocity(warning={"total": 1})
    granted(line.call(CUBA))
    told = [(found, level) for found, level in levels(line.ask(CUBA), line.policy) if level == WARNED]
    ((found, _),) = told
    assert (found.rule, found.mode, found.refused, found.counter, found.value, found.limit, found.window) == (
        "velocity.warning", Mode.REPORT, None, "total", 1, 1, "irsf 300 s",
    )  # fmt: skip


# ------------------------------------------------------------------ what is usual

BASELINE = {"fraud": {"baseline": {"enabled": True, "learn": "7d", "spendFactor": 5}}}


def learnt(since_days: int = 30) -> Usage:
    day = snapshot().day.toordinal()
    return Usage(baseline=AccountBaseline(day - since_days, day, [WEIGHT] * 24, 0, 0))


@pytest.mark.parametrize(
    ("usage", "number", "local", "why"),
    [
        (learnt(6), CUBA, False, "still learning"),
        (Usage(), CUBA, False, "still learning"),
        (learnt(), "bob", True, "local call"),
    ],
    ids=["too short", "nothing", "local"],
)
def test_nothing_is_compared_with_what_is_usual(usage: Usage, number: str, local: bool, why: str) -> None:
    of = snapshot(None, counted(usage=usage))
    if local:
        of = replace(of, quote=None)
    assert result(decide(of, request(number, local=local), policy(**BASELINE)), "baseline").skipped == why


@pytest.mark.parametrize(
    ("days", "spent_micros"), [(0, 9), (10 * WEIGHT, 0)], ids=["no day of which the spend is known", "nothing spent"]
)
def test_a_spend_is_out_of_line_only_where_one_is_usual(days: int, spent_micros: int) -> None:
    day = snapshot().day.toordinal()
    baseline = AccountBaseline(day - 30, day, [WEIGHT] * 24, spent_micros, days)
    of = snapshot(
        None,
        counted(
            usage=Usage(days=[CalendarSpan(day, 9_000_000)], countries={"DE": Country(day, day)}, baseline=baseline)
        ),
    )
    decided = decide(of, request(BERLIN), policy(**BASELINE))
    assert decided.warnings == ()


def test_a_baseline_says_what_is_out_of_line() -> None:
    enforced = policy(**BASELINE, modes={"baseline": "Enforce"})
    country = decide(snapshot(None, counted(usage=learnt())), request(CUBA), enforced)
    assert refusal(country).text == "The account hasn't called CU before."


# ------------------------------------------------------------------ trunks, lists, durations


def test_a_trunk_that_reaches_local_numbers_only_is_named() -> None:
    decided = decide(snapshot(trunk=SourceTrunk("pbx", only_local=True)), request(), policy())
    refuse = refusal(decided)
    assert (refuse.reason, refuse.rule, refuse.counter, refuse.window, refuse.text) == (
        Reason.ONLY_LOCAL, "only_local", "trunk", "pbx", "Calls by trunk pbx reach local numbers only.",
    )  # fmt: skip
    assert result(decide(snapshot(), request(), policy()), "only_local").skipped == "no trunk"
    by_trunk = decide(snapshot(trunk=SourceTrunk("pbx")), request(), policy())
    assert result(by_trunk, "only_local").skipped == "not only local"
    local = snapshot(quote=None, trunk=SourceTrunk("pbx", only_local=True))
    found = result(decide(local, request("bob", local=True), policy()), "only_local")
    assert (found.skipped, found.refused) == ("", None)


def test_a_trunk_without_lists_is_held_to_policys_alone() -> None:
    of = policy(fraud={"destinations": {"block": ["53"]}})
    decided = decide(snapshot(trunk=SourceTrunk("pbx")), request(BERLIN), of)
    assert result(decided, "destinations").refused is None
    assert refusal(decide(snapshot(trunk=SourceTrunk("pbx")), request(CUBA), of)).window == "+53"


@pytest.mark.parametrize(
    ("least_s", "limit", "is_refused"),
    [(60, "1m", False), (61, "1m", True), (5, "1m", False), (10, "5s", False), (11, "5s", True)],
)
def test_a_running_call_that_has_had_its_longest_time_is_refused_more(
    least_s: int, limit: str, is_refused: bool
) -> None:
    of = policy(session={"callTimeout": limit}, spend={"slice": {"minimum": "10s"}})
    question = Question("", False, priced(60_000), False, (NOW_S,), least_s)
    for mode in (Mode.ENFORCE, Mode.REPORT):
        found = rule("duration").find(snapshot(), question, of, mode)
        assert (found.result.refused is not None) is is_refused
        assert found.result.mode is mode
        seconds = int(of.talk_s_max)
        if is_refused:
            refuse = found.result.refused
            assert refuse is not None
            assert (refuse.counter, refuse.value, refuse.limit, refuse.window) == (
                "seconds",
                least_s - 1,
                seconds,
                "call",
            )
        else:
            assert found.talk_s_max == seconds
            assert found.result == RuleResult("duration", mode, None, "seconds", 0, seconds, "call")


# ------------------------------------------------------------------ money


def test_what_is_spent_above_a_limit_says_whose_it_is() -> None:
    line = Line(postpaid(max_lines=9), policy(spend={"dynamicDaily": {"mode": 1}}))
    line.spend(10_000_000)
    assert refused(line.call()).text.startswith("The account has spent 10.00 EUR of the 10.00 EUR allowed in a day, by")


def test_a_resellers_month_is_not_checked_where_policy_does_not() -> None:
    shop = reseller(monthly_micros=1)
    month = snapshot().day.year * 12 + snapshot().day.month - 1
    usage = Usage(months=[CalendarSpan(month, 1)], spent_micros=1)
    of = snapshot(account(parent=shop.id), counted(RESELLER, usage, account=shop))
    for checked in (True, False):
        decided = decide(of, request(), policy(spend={"checkPostpaid": checked}))
        found = result(decided, "reseller_spend")
        assert (found.refused is not None) is checked
        assert found.skipped == ("" if checked else "no limit")


def test_a_reseller_without_a_limit_refuses_nothing() -> None:
    shop = reseller(max_lines=None)
    decided = decide(snapshot(account(parent=shop.id), counted(RESELLER, account=shop)), request(), policy())
    assert result(decided, "reseller_lines").skipped == "no limit"
    assert result(decided, "reseller_spend").skipped == "no limit"
    assert result(decide(snapshot(), request(), policy()), "reseller_lines").skipped == "no reseller"


def test_a_route_of_unknown_cost_beside_one_that_is_too_dear_leaves_the_dear_one_to_be_told() -> None:
    of = policy(billing={"blockNotProfitable": 3})
    dear, unknown = replace(ROUTE, cost=priced(90_000)), replace(ROUTE, trunk="other")
    both = refusal(decide(snapshot(quote=quote(priced(60_000), dear, unknown)), request(), of))
    assert (both.value, both.limit) == (90_000, 60_000)
    assert both.text == "No route brings more than it costs: a minute is sold for 0.06 EUR and costs 0.09 EUR or more."
    alone = refusal(decide(snapshot(quote=quote(priced(60_000), unknown)), request(), of))
    assert (alone.value, alone.limit, alone.text) == (0, 60_000, "The cost of the routes to this number is unknown.")


def test_the_least_cost_of_the_routes_is_shown_and_that_of_unknown_ones_as_none() -> None:
    of = policy(billing={"blockNotProfitable": 1, "maxCostPerMinute": "0.05"})
    ways = [replace(ROUTE, trunk=str(micros), cost=priced(micros)) for micros in (40_000, 30_000, 70_000)]
    decided = decide(snapshot(quote=quote(priced(60_000), *ways)), request(), of)
    assert [route.trunk for route in decided.routes] == ["40000", "30000"]
    assert (result(decided, "profit").value, result(decided, "profit").limit) == (30_000, 60_000)
    unknown = decide(snapshot(quote=quote(priced(60_000), ROUTE)), request(), of)
    assert (result(unknown, "profit").value, result(unknown, "cost").value) == (0, 0)


# ------------------------------------------------------------------ the verdict


def test_a_call_without_a_price_is_refused_whatever_rules_are_asked() -> None:
    decided = decide(snapshot(quote=NoQuote(Pricing("retail"), Reason.NO_RATE)), request(), policy(), ())
    refuse = refusal(decided)
    assert (refuse.reason, refuse.rule, refuse.text) == (Reason.NO_RATE, "rate", "The call has no price.")


def test_a_call_that_has_had_all_that_it_was_admitted_for_is_refused_more() -> None:
    line = Line(postpaid(), policy())
    hold = replace(granted(line.call()), max_duration_s=60)
    refuse = refusal(asked_again(line, hold))
    assert (refuse.reason, refuse.rule, refuse.counter, refuse.value, refuse.limit, refuse.window) == (
        Reason.DURATION, "duration", "seconds", 60, 60, "call",
    )  # fmt: skip
    assert refuse.text == "The call has had the 60 s that one may last."


@pytest.mark.parametrize(
    ("balance_micros", "spec", "granted_s", "cut_by"),
    [
        (1_000_000, {}, 60, ""),
        (60_000, {}, 60, ""),
        (59_000, {}, 59, "credit"),
        (1_000_000, {"session": {"callTimeout": "40s"}}, 40, "duration"),
        (30_000, {"session": {"callTimeout": "40s"}}, 30, "credit"),
        (50_000, {"session": {"callTimeout": "40s"}}, 40, "duration"),
        (1_000_000, {"fraud": {"velocity": [{"name": "all", "critical": {"duration": "50s"}}]}}, 50, "velocity"),
    ],
)
def test_the_rule_that_left_less_than_a_slice_is_named(
    balance_micros: int, spec: dict[str, Any], granted_s: int, cut_by: str
) -> None:
    decided = decide(snapshot(account(balance_micros=balance_micros)), request(), policy(**spec))
    assert (admission(decided).granted_s, decided.cut_by) == (granted_s, cut_by)


def test_what_is_held_is_enough_for_the_last_moment_of_answer_where_prices_rise_while_it_talks() -> None:
    rising = Price(
        "EUR", (Window(0, (RateGroup(0, 60_000, 60, 1),)), Window(int(NOW_S) + 50, (RateGroup(0, 6_000_000, 60, 1),)))
    )
    answers = NOW_S, NOW_S + 30
    assert cost_max(rising, answers, 60) == 20 * 1_000 + 40 * 100_000
    assert cost_max(rising, answers, 20) == 20 * 1_000
    assert cost_max(rising, answers, 21) == 20 * 1_000 + 100_000
