"""admission.core.slices and decide: what is held for talk whose price changes, and who is named for a short slice."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest
from admission_line import (
    NOW_S,
    PRICE,
    ROUTE,
    account,
    admission,
    policy,
    postpaid,
    priced,
    quote,
    refusal,
    request,
    result,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import Evaluation, decide, decide_extension
from callwarden.call_admission.admission.core.notices import levels
from callwarden.call_admission.admission.core.rules import RULES, AdmissionRule, Question
from callwarden.call_admission.admission.core.rules.rule import RuleFinding, refused
from callwarden.call_admission.admission.core.slices import SliceBounds, cost_max, cut_to_size, talk_within_maximum
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.calls import ExtendRequest, Hold
from callwarden.call_admission.model.policy import AdmissionPolicy, SlicePolicy
from callwarden.call_admission.model.usage import BLOCKED, WARNED
from callwarden.kernel.hours import parse_plan
from callwarden.kernel.tariff import Price, RateGroup, Weekly, WeeklyPeriod, Window, cost
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult

POLICY = replace(policy(), reports=False)
SHORT = replace(POLICY, talk_s_max=40)
RINGS_S = 12
START_S = int(NOW_S) + 0.25
LAST_S = START_S + RINGS_S

CHEAP, DEAR = (RateGroup(0, 60_000, 60, 1),), (RateGroup(0, 600_000, 60, 1),)
BY_SIX = (RateGroup(0, 600_000, 60, 6),)
# Dear, or cheap, for the first five seconds; and one rate all the time.
STEPS, SAME_STEPS = (RateGroup(0, 6_000_000), RateGroup(5, 60_000)), (RateGroup(0, 60_000), RateGroup(5, 600_000))
LOW, HIGH = (RateGroup(0, 300_000), RateGroup(5, 300_000)), (RateGroup(0, 600_000), RateGroup(5, 600_000))
PAIRS = {
    "rises": (CHEAP, 0, DEAR, 0),
    "falls": (DEAR, 0, CHEAP, 0),
    "rises, fee falls": (CHEAP, 200_000, DEAR, 0),
    "falls, fee rises": (DEAR, 0, CHEAP, 200_000),
    "other increments": (BY_SIX, 0, CHEAP, 0),
    "to other increments": (CHEAP, 0, BY_SIX, 0),
    "steps": (STEPS, 0, SAME_STEPS, 0),
    "to steps": (SAME_STEPS, 0, STEPS, 0),
    "one rate, then steps": (LOW, 0, SAME_STEPS, 0),
    "steps, then one rate": (STEPS, 0, HIGH, 0),
    "one rate rises": (LOW, 0, HIGH, 0),
}


def price(kind: str, at_s: float, until_s: float | None = None) -> Price:
    """Changes at that moment; and back again at another, if that is given."""
    before, before_fee, after, after_fee = PAIRS[kind]
    windows = [Window(0, before, before_fee), Window(int(at_s), after, after_fee)]
    if until_s is not None:
        windows.append(Window(int(until_s), before, before_fee))
    return Price("EUR", tuple(windows))


def moments() -> Sequence[float]:
    """Each second at which the callee may answer."""
    return START_S, *range(int(START_S) + 1, int(LAST_S) + 1)


# From before the call to after the longest one that is looked at.
CHANGES = [*range(-2, 22), 45]


@pytest.mark.parametrize("kind", PAIRS)
def test_what_is_held_is_the_most_that_any_moment_of_answer_costs(kind: str) -> None:
    prices = [price(kind, START_S + each) for each in CHANGES]
    prices += [price(kind, START_S + each, START_S + each + 4) for each in CHANGES]
    for each in prices:
        for talk_s in (1, 6, 9):
            most = max(cost(each, answered_s, talk_s) for answered_s in moments())
            assert cost_max(each, (START_S, LAST_S), talk_s) == most, (each, talk_s)


def test_a_price_that_goes_on_by_the_hours_of_the_week_is_looked_at_to_the_calls_end() -> None:
    noon_s = int(NOW_S)
    dear = WeeklyPeriod("Mon-Sun 12:00-13:00", Window(0, DEAR))
    week = Weekly(noon_s, "UTC", (dear,), Window(0, CHEAP), parse_plan([dear.hours], UTC))
    goes_on = Price("EUR", (Window(0, CHEAP), Window(1, CHEAP)), weekly=week)
    for ring_s in range(-25, 5):
        answers = noon_s + ring_s, noon_s + ring_s + 12
        most = max(cost(goes_on, answered_s, 9) for answered_s in range(answers[0], answers[1] + 1))
        assert cost_max(goes_on, answers, 9) == most, ring_s


@pytest.mark.parametrize("kind", PAIRS)
def test_a_maximum_is_kept_whenever_the_callee_answers(kind: str) -> None:
    maximum = 123_000
    for each in (price(kind, START_S + each) for each in CHANGES):
        fitting = [
            talk_s for talk_s in range(31) if all(cost(each, answered_s, talk_s) <= maximum for answered_s in moments())
        ]
        assert talk_within_maximum(each, maximum, (START_S, LAST_S), 30) == fitting[-1], each
    assert talk_within_maximum(priced(600_000), maximum, (START_S,), 30) == 12


@pytest.mark.parametrize(
    ("budget", "cap", "talk_s_max", "wanted_s", "part"),
    [
        (None, None, 900, 120, (120, 120_000, False)),
        (90_000, None, 900, 120, (60, 60_000, True)),
        (120_000, None, 900, 120, (120, 120_000, False)),
        (None, 90_000, 900, 120, (120, 90_000, False)),
        (None, -5, 900, 120, (120, 0, False)),
        (None, 500_000, 120, 180, (120, 120_000, True)),
        (59_999, None, 900, 120, None),
    ],
)
def test_a_slice_is_as_long_as_its_bounds_allow_and_holds_what_it_costs(
    budget: int | None, cap: int | None, talk_s_max: int, wanted_s: int, part: tuple[int, int, bool] | None
) -> None:
    by_minute = Price("EUR", (Window(0, (RateGroup(0, 60_000, 60, 60),)),))
    found = cut_to_size(by_minute, (START_S,), 0, wanted_s, SliceBounds(budget, cap, talk_s_max))
    assert (found and (found.granted_s, found.held_micros, found.final)) == part


@pytest.mark.parametrize(
    ("balance_micros", "low_below", "is_low"),
    [(100_000, 100_000, False), (99_999, 100_000, True), (99_999, None, False)],
)
@pytest.mark.parametrize("prepaid", [True, False])
def test_slices_are_short_where_little_credit_is_left(
    balance_micros: int, low_below: int | None, is_low: bool, prepaid: bool
) -> None:
    of = replace(POLICY, slice=SlicePolicy(60, 30, 1, low_below, 20))
    asked = snapshot(account(balance_micros=balance_micros, prepaid=prepaid, daily_micros=900_000))
    assert admission(decide(asked, request(), of, ())).granted_s == (20 if is_low and prepaid else 60)


@pytest.mark.parametrize(("balance_micros", "granted_s"), [(100_000, 90), (99_999, 80)])
def test_so_are_those_of_a_running_call(balance_micros: int, granted_s: int) -> None:
    of = replace(POLICY, slice=SlicePolicy(60, 30, 1, 100_000, 20))
    more = decide_extension(snapshot(account(balance_micros=balance_micros)), hold(), wish(hold()), of)
    assert admission(more).granted_s == granted_s


# ------------------------------------------------------------------ running calls


def hold(**changes: object) -> Hold:
    made = Hold(
        request().hold_id, account().id, NOW_S, NOW_S, NOW_S + 75, 60, 7_200, False, 60_000, snapshot().day, PRICE, "t"
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def wish(of: Hold, answered_at_s: float = NOW_S) -> ExtendRequest:
    return ExtendRequest(of.id, "call", of.account_id, answered_at_s, of.granted_s)


def test_a_running_call_is_held_to_the_rules_that_cut_and_no_others() -> None:
    decided = decide_extension(snapshot(), hold(), wish(hold()), POLICY)
    assert [found.rule for found in decided.rules] == [rule.name for rule in RULES if rule.extends]
    assert "lines" not in {found.rule for found in decided.rules}


@pytest.mark.parametrize(
    ("known_s", "told_s", "held"), [(0, 2_000, 120_000), (None, 2_000, 12_000_000), (None, 0, 120_000)]
)
def test_more_time_is_priced_from_the_answer_that_is_known(known_s: int | None, told_s: int, held: int) -> None:
    dearer = Price("EUR", (Window(0, CHEAP), Window(int(NOW_S) + 1_000, (RateGroup(0, 6_000_000, 60, 1),))))
    of = hold(price=dearer, answered_at_s=None if known_s is None else NOW_S + known_s)
    decided = decide_extension(snapshot(postpaid(daily_micros=90_000_000)), of, wish(of, NOW_S + told_s), POLICY)
    assert (admission(decided).granted_s, admission(decided).held_micros) == (120, held)


# ------------------------------------------------------------------ who is named


@pytest.mark.parametrize(
    ("found", "cut_by"),
    [
        ([("one", 30_000, None), ("other", 30_000, None)], "one"),
        ([("one", 30_000, None), ("other", 29_999, None)], "other"),
        ([("one", None, 39), ("other", None, 39)], "one"),
        ([("one", None, 39), ("other", None, 38)], "other"),
        ([("one", None, 40)], "duration"),
        ([("one", 40_000, None)], "duration"),
        ([("one", 39_000, None)], "one"),
    ],
    ids=["money", "less money", "time", "less time", "the timeout", "money for the timeout", "money for less"],
)
def test_of_limits_that_leave_as_much_the_first_is_named(
    found: list[tuple[str, int | None, int | None]], cut_by: str
) -> None:
    rules = tuple(Says(name, budget_micros=micros, talk_s_max=talk_s) for name, micros, talk_s in found)
    assert decide(snapshot(), request(), SHORT, rules).cut_by == cut_by


@pytest.mark.parametrize(("maximum", "cut_by"), [(40_000, "duration"), (39_000, "maximum")])
def test_a_maximum_that_leaves_as_much_as_the_timeout_is_not_named(maximum: int, cut_by: str) -> None:
    cuts = replace(PRICE, maximum_micros=maximum, cuts_at_maximum=True)
    decided = decide(snapshot(quote=quote(cuts)), request(), SHORT, ())
    assert (decided.cut_by, admission(decided).max_duration_s) == (cut_by, maximum // 1_000)


@pytest.mark.parametrize("maximum", [999, 30_000])
def test_beyond_a_maximum_that_does_not_cut_talk_is_free(maximum: int) -> None:
    admit = admission(decide(snapshot(quote=quote(replace(PRICE, maximum_micros=maximum))), request(), POLICY, ()))
    assert (admit.granted_s, admit.held_micros, admit.max_duration_s) == (60, maximum, POLICY.talk_s_max)


def test_a_call_whose_first_second_is_too_dear_is_told_the_maximum() -> None:
    cuts = replace(PRICE, maximum_micros=999, cuts_at_maximum=True)
    assert refusal(decide(snapshot(quote=quote(cuts)), request(), POLICY)) == Refuse(
        Reason.DURATION, "maximum", "price", 0, 999, "call",
        "The first second costs more than the price list lets a call cost.",
    )  # fmt: skip


# ------------------------------------------------------------------ several rules


class Says(AdmissionRule):
    """Finds what it is told to."""

    def __init__(self, name: str, reason: Reason | None = None, **bounds: Any) -> None:
        self.name = name
        self._reason = reason
        self._bounds = bounds

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        if self._reason is not None:
            return refused(self.name, mode, self._reason, "No.")
        return RuleFinding(RuleResult(self.name, mode, None, "routes", 1, 2), **self._bounds)


def test_rules_that_leave_no_route_in_common_refuse_the_call_where_the_last_one_speaks() -> None:
    other = replace(ROUTE, trunk="other")
    of = snapshot(quote=quote(PRICE, ROUTE, other))
    decided = decide(of, request(), POLICY, (Says("one", routes=(ROUTE,)), Says("two", routes=(other,))))
    refuse = refusal(decided)
    assert (refuse.reason, refuse.rule, decided.routes) == (Reason.NO_ROUTE, "two", ())
    shown = result(decided, "two")
    assert (shown.refused, shown.counter, shown.value, shown.limit) == (refuse, "routes", 1, 2)
    assert result(decided, "one").refused is None
    assert decide(of, request(), POLICY, (Says("one", routes=(ROUTE,)), Says("all"))).routes == (ROUTE,)


def test_the_first_refusal_stays_whatever_routes_are_left_by_later_rules() -> None:
    decided = decide(snapshot(), request(), POLICY, (Says("no", Reason.LINES), Says("none", routes=())))
    assert (refusal(decided).reason, result(decided, "none").refused) == (Reason.LINES, None)


def test_one_policy_may_be_asked_with_several_tables_of_rules() -> None:
    tables = RULES, (Says("one"),), RULES
    shown = [[found.rule for found in decide(snapshot(), request(), POLICY, rules).rules] for rules in tables]
    assert shown == [[rule.name for rule in RULES], ["one"], [rule.name for rule in RULES]]


# ------------------------------------------------------------------ what is noted and told

NO = Refuse(Reason.LINES, "lines", "calls", 3, 3, "now", "No.")
REPORTS = replace(POLICY, reports=True)


def found(
    rule: str, mode: Mode = Mode.ENFORCE, value: int = 0, limit: int | None = None, window: str = ""
) -> RuleResult:
    return RuleResult(rule, mode, None, "calls", value, limit, window)


@pytest.mark.parametrize(
    ("cut_by", "of", "hits"),
    [
        ("", REPORTS, ("lines",)),
        ("credit", REPORTS, ("credit", "lines")),
        ("credit", POLICY, ("credit",)),
        ("", POLICY, ()),
    ],
)
def test_a_call_is_noted_with_what_shortened_it_and_what_is_only_reported(
    cut_by: str, of: AdmissionPolicy, hits: tuple[str, ...]
) -> None:
    rules = RuleResult("lines", Mode.REPORT, NO), RuleResult("rate", Mode.ENFORCE, NO), found("credit", Mode.REPORT)
    decided = Evaluation(NO, rules, cut_by=cut_by)
    assert decided.reported == ["lines"]
    assert decided.hits(of) == hits


@pytest.mark.parametrize(
    ("shown", "thresholds", "told"),
    [
        (found("day", value=50, limit=100, window="day"), (80, 50), [50]),
        (found("day", value=317, limit=400, window="day"), (80, 50), [50]),
        (found("day", value=320, limit=400, window="day"), (80, 50), [80]),
        (found("day", value=199, limit=400, window="day"), (80, 50), []),
        (found("day", value=400, limit=400, window="day"), (), []),
        (found("day", value=9, limit=0, window="day"), (50,), []),
        (found("day", value=9, limit=None, window="day"), (50,), []),
        (found("day", value=9, limit=9, window="call"), (50,), []),
        (found("day", value=9, limit=9), (50,), []),
        (found("lines", value=3, limit=3, window="now"), (50,), [50, BLOCKED]),
        (found("lines", Mode.REPORT, value=3, limit=3, window="now"), (), []),
        (found("lines"), (), [BLOCKED]),
    ],
)
def test_a_limit_is_told_of_by_the_highest_level_that_it_has_reached(
    shown: RuleResult, thresholds: tuple[int, ...], told: list[int]
) -> None:
    of = replace(POLICY, thresholds=thresholds)
    assert [level for _, level in levels(Evaluation(NO, (shown,)), of)] == told
    warned = Evaluation(NO, (shown,), warnings=(replace(NO, rule="velocity"),))
    assert [level for _, level in levels(warned, of)] == [*told, WARNED]
