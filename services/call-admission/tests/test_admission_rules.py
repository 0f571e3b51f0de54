"""The rules that every call meets: lines, credit, the day's spend, destinations, price and time."""

from dataclasses import replace
from datetime import date

import pytest
from admission_line import MINUTE, NOW_S, PRICE, account, admission, policy, quote, refusal, request, result, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.call_admission.admission.core.decide import Admit, decide
from callwarden.call_admission.admission.core.rules import RULES, AdmissionRule, Question, RuleFinding
from callwarden.call_admission.admission.core.rules.destinations import longest_prefix
from callwarden.call_admission.admission.core.rules.rule import refused
from callwarden.call_admission.admission.core.slices import cost_max, possible_answers
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.calls import NoQuote, Pricing, is_free
from callwarden.call_admission.model.days import UnknownZone, day_of
from callwarden.call_admission.model.number_plan import NumberKind, kind_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.account import AccountType
from callwarden.kernel.tariff import Price, RateGroup, Rounding, RoundingMethod, Window, cost, free
from callwarden.kernel.verdict import Mode, Reason, Refuse
from callwarden.policy.model import Modes

# ------------------------------------------------------------------ the table


def test_every_rule_speaks_in_the_tables_order_even_after_one_has_refused() -> None:
    decided = decide(snapshot(account(active=False), lines=5), request(), policy())
    assert [found.rule for found in decided.rules] == [rule.name for rule in RULES]
    assert refusal(decided).reason is Reason.ACCOUNT_DISABLED
    assert result(decided, "lines").refused is not None


def test_every_mode_of_policy_belongs_to_a_rule() -> None:
    assert set(Modes.model_fields) <= {rule.name for rule in RULES}


def test_a_new_rule_is_one_object_in_the_table() -> None:
    class NoMondays(AdmissionRule):
        name = "no_mondays"

        def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
            return refused(self.name, mode, Reason.DESTINATION, "Not on a Monday.", value=snapshot.day.weekday())

    decided = decide(snapshot(), request(), policy(), (*RULES, NoMondays()))
    assert refusal(decided) == Refuse(Reason.DESTINATION, "no_mondays", text="Not on a Monday.")


# ------------------------------------------------------------------ lines


@pytest.mark.setting("maxlines")
@pytest.mark.parametrize(("own", "in_use", "admitted"), [(None, 4, True), (None, 5, False), (2, 1, True), (2, 2, False),
                                                        (0, 0, False), (9, 8, True)])  # fmt: skip
def test_an_accounts_own_lines_go_before_the_policys(own: int | None, in_use: int, admitted: bool) -> None:
    decided = decide(snapshot(account(max_lines=own), lines=in_use), request(), policy(lines={"max": 5}))
    assert isinstance(decided.verdict, Admit) is admitted
    if not admitted:
        limit = 5 if own is None else own
        refuse = refusal(decided)
        assert (refuse.reason, refuse.counter, refuse.value, refuse.limit) == (Reason.LINES, "calls", in_use, limit)


def test_a_local_call_takes_a_line_and_no_money() -> None:
    of = account(balance_micros=0)
    decided = decide(snapshot(of, quote=None), request("bob", local=True), policy())
    assert admission(decided).held_micros == 0
    assert (
        refusal(decide(snapshot(of, lines=5, quote=None), request("bob", local=True), policy())).reason is Reason.LINES
    )


# ------------------------------------------------------------------ credit


@pytest.mark.setting("credit")
def test_the_first_slice_is_held_before_the_call_goes_on() -> None:
    admit = admission(decide(snapshot(), request(), policy()))
    assert (admit.granted_s, admit.held_micros, admit.final) == (60, MINUTE, False)


@pytest.mark.setting("credit")
def test_what_running_calls_hold_is_no_credit_for_another() -> None:
    of = account(balance_micros=100_000, held_micros=90_000)
    admit = admission(decide(snapshot(of), request(), policy()))
    assert (admit.granted_s, admit.held_micros, admit.final) == (10, 10_000, True)


@pytest.mark.setting("credit")
def test_less_than_the_least_talk_time_is_refused_with_what_there_is_and_what_it_takes() -> None:
    sliced = policy(spend={"slice": {"first": "60s", "minimum": "10s"}})
    refuse = refusal(decide(snapshot(account(balance_micros=9_999)), request(), sliced))
    assert (refuse.reason, refuse.value, refuse.limit) == (Reason.CREDIT, 9_999, 10_000)
    assert "0.009999 EUR" in refuse.text
    assert admission(decide(snapshot(account(balance_micros=10_000)), request(), sliced)).granted_s == 10


def test_an_overdraft_counts_as_credit() -> None:
    admit = admission(decide(snapshot(account(balance_micros=0, overdraft_micros=5_000)), request(), policy()))
    assert (admit.granted_s, admit.held_micros, admit.final) == (5, 5_000, True)


def test_a_postpaid_account_needs_no_credit() -> None:
    admit = admission(decide(snapshot(account(prepaid=False, balance_micros=-9_000_000)), request(), policy()))
    assert (admit.granted_s, admit.held_micros) == (60, MINUTE)


def test_a_reported_credit_rule_holds_no_money_that_is_not_there() -> None:
    lenient = policy(modes={"credit": "Report"})
    admit = admission(decide(snapshot(account(balance_micros=7_000)), request(), lenient))
    assert (admit.granted_s, admit.held_micros) == (60, 7_000)
    assert admission(decide(snapshot(account(balance_micros=-5)), request(), lenient)).held_micros == 0


# ------------------------------------------------------------------ the day's spend


@pytest.mark.setting("maxdailycreditforenduser")
@pytest.mark.setting("maxdailycreditforts")
@pytest.mark.parametrize(("type_", "limit"), [(AccountType.ENDUSER, 50_000), (AccountType.TRAFFIC_SENDER, 80_000)])
def test_each_type_of_account_has_its_daily_limit(type_: AccountType, limit: int) -> None:
    daily = policy(spend={"daily": {"endUser": "0.05", "trafficSender": "0.08"}})
    of = account(type=type_, prepaid=False)
    admit = admission(decide(snapshot(of, spent_micros=limit - 10_000), request(), daily))
    assert (admit.granted_s, admit.held_micros, admit.final) == (10, 10_000, True)
    refuse = refusal(decide(snapshot(of, spent_micros=limit - 500, held_day_micros=500), request(), daily))
    assert (refuse.reason, refuse.value, refuse.limit) == (Reason.DAILY_SPEND, limit, limit)
    assert refuse.window == "day 2026-01-05 Europe/Berlin"


@pytest.mark.setting("maxdailycredit")
def test_an_accounts_own_daily_limit_goes_before_its_types() -> None:
    daily = policy(spend={"daily": {"endUser": "0.05"}})
    spent = snapshot(account(daily_micros=200_000), spent_micros=60_000)
    assert admission(decide(spent, request(), daily)).granted_s == 60
    tight = snapshot(account(daily_micros=0))
    assert refusal(decide(tight, request(), daily)).reason is Reason.DAILY_SPEND


def test_the_tighter_of_credit_and_daily_limit_decides_how_long() -> None:
    of = account(balance_micros=30_000, daily_micros=20_000)
    assert admission(decide(snapshot(of), request(), policy())).granted_s == 20
    of = account(balance_micros=15_000, daily_micros=20_000)
    assert admission(decide(snapshot(of), request(), policy())).granted_s == 15


def test_a_free_call_is_asked_for_neither_credit_nor_daily_limit() -> None:
    of = account(balance_micros=0, daily_micros=0)
    admit = admission(decide(snapshot(of, quote=quote(free("EUR"))), request(), policy()))
    assert admit.held_micros == 0


@pytest.mark.setting("maxdailycredit")
def test_the_day_begins_at_midnight_in_the_accounts_zone() -> None:
    before_s, after_s = 1_767_653_999.0, 1_767_654_000.0  # 2026-01-05 22:59:59Z and 23:00:00Z
    assert day_of(before_s, "Europe/Berlin") == date(2026, 1, 5)
    assert day_of(after_s, "Europe/Berlin") == date(2026, 1, 6)
    assert day_of(after_s, "America/New_York") == date(2026, 1, 5)
    assert day_of(after_s, "Pacific/Kiritimati") == date(2026, 1, 6)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "Europe/Berlin\0"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UnknownZone):
        day_of(0.0, name)


# ------------------------------------------------------------------ destinations

PREMIUM = {
    "Germany 0900": "499001234567",
    "United States 900": "19005551234",
    "United Kingdom 09": "449012345678",
    "France 0 89": "33891234567",
    "Italy 89": "39892123456",
    "Poland 70": "48701234567",
    "Latvia 90": "37190123456",
    "International premium rate +979": "979123456789",
}
SHARED_COST = {"Germany 0180": "491801234567", "Poland 801": "48801234567", "Austria 0810": "43810123456"}
ORDINARY = {
    "Germany, Berlin": "493012345678",
    "Germany, mobile": "4915112345678",
    "United Kingdom, London": "442079460000",
    "Italy, Rome (a leading zero)": "390612345678",
    "United States": "12125551234",
    "Toll-free": "18005551234",
    "Country code that nobody has": "99912345",
}


@pytest.mark.setting("blockpremiumnumbers")
@pytest.mark.parametrize("number", PREMIUM.values(), ids=PREMIUM.keys())
def test_premium_numbers_of_any_country_are_refused(number: str) -> None:
    assert kind_of(number) is NumberKind.PREMIUM
    refuse = refusal(decide(snapshot(), request(number), policy()))
    assert (refuse.reason, refuse.window) == (Reason.PREMIUM, "premium")
    assert isinstance(decide(snapshot(), request(number), policy(fraud={"blockPremium": False})).verdict, Admit)


@pytest.mark.setting("blockpremiumnumbers")
@pytest.mark.parametrize("number", SHARED_COST.values(), ids=SHARED_COST.keys())
def test_shared_cost_numbers_are_refused_too(number: str) -> None:
    refuse = refusal(decide(snapshot(), request(number), policy()))
    assert (refuse.reason, refuse.window) == (Reason.PREMIUM, "shared-cost")


@pytest.mark.setting("blockpremiumnumbers")
@pytest.mark.parametrize("number", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_numbers_are_not_taken_for_premium_ones(number: str) -> None:
    assert kind_of(number) is NumberKind.OTHER
    assert isinstance(decide(snapshot(), request(number), policy()).verdict, Admit)


@pytest.mark.setting("blockpremiumnumbers")
@pytest.mark.parametrize("number", [PREMIUM["Germany 0900"], PREMIUM["United States 900"], SHARED_COST["Germany 0180"]])
def test_a_digit_more_does_not_hide_a_premium_number(number: str) -> None:
    assert kind_of(number + "1") is kind_of(number) is not NumberKind.OTHER


@given(st.from_regex(r"[1-9][0-9]{1,14}", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_any_number_has_a_kind(number: str) -> None:
    assert kind_of(number) in NumberKind


@pytest.mark.setting("blocksatellitecalls")
@pytest.mark.parametrize("number", ["870773111632", "881612345678", "8821612345678", "88351001234567"])
def test_satellite_networks_are_refused(number: str) -> None:
    lenient = policy(fraud={"blockSatellite": False})
    assert refusal(decide(snapshot(), request(number), policy())).reason is Reason.SATELLITE
    assert isinstance(decide(snapshot(), request(number), lenient).verdict, Admit)


@pytest.mark.setting("blocked-destinations")
@pytest.mark.parametrize(
    ("allow", "block", "number", "admitted"),
    [
        ([], ["49"], "493012345", False),
        ([], ["49"], "443012345", True),
        (["49"], [], "493012345", True),
        (["49"], [], "443012345", False),
        (["4930"], ["49"], "493012345", True),
        (["49"], ["4930"], "493012345", False),
        (["49"], ["49"], "493012345", False),
        (["+49"], [], "493012345", True),
    ],
)
def test_the_longer_prefix_decides(allow: list[str], block: list[str], number: str, admitted: bool) -> None:
    listed = policy(fraud={"destinations": {"allow": allow, "block": block}})
    decided = decide(snapshot(), request(number), listed)
    assert isinstance(decided.verdict, Admit) is admitted
    if not admitted:
        assert refusal(decided).reason is Reason.DESTINATION


@given(st.text("123", min_size=1, max_size=8), st.sets(st.text("123", min_size=1, max_size=4)))
def test_the_longest_prefix_is_the_longest_that_matches(number: str, prefixes: set[str]) -> None:
    assert longest_prefix(number, prefixes) == max((p for p in prefixes if number.startswith(p)), key=len, default="")


def test_lists_do_not_hold_for_local_calls() -> None:
    listed = policy(fraud={"destinations": {"allow": ["49"]}})
    assert isinstance(decide(snapshot(quote=None), request("bob", local=True), listed).verdict, Admit)


# ------------------------------------------------------------------ price


@pytest.mark.parametrize("reason", [Reason.NO_RATE, Reason.NO_ROUTE, Reason.UNAVAILABLE])
def test_a_call_without_a_price_is_refused_for_what_rating_says(reason: Reason) -> None:
    refuse = refusal(decide(snapshot(quote=NoQuote(Pricing("retail"), reason)), request(), policy()))
    assert refuse.reason is reason
    assert bool(refuse.retry_after_s) is (reason is Reason.UNAVAILABLE)


def test_a_price_in_another_currency_is_none() -> None:
    decided = decide(snapshot(quote=quote(replace(PRICE, currency="USD"))), request(), policy())
    assert refusal(decided).reason is Reason.NO_RATE


def test_a_price_without_a_way_is_no_call() -> None:
    decided = decide(snapshot(quote=replace(quote(), routes=())), request(), policy())
    assert refusal(decided).reason is Reason.NO_ROUTE


# ------------------------------------------------------------------ time


@pytest.mark.setting("call-timeout")
def test_no_call_is_granted_more_than_its_longest_talk_time() -> None:
    short = policy(session={"callTimeout": "40s"})
    admit = admission(decide(snapshot(), request(), short))
    assert (admit.granted_s, admit.max_duration_s, admit.final) == (40, 40, True)


@pytest.mark.setting("call-timeout")
def test_the_absolute_timeout_bounds_the_talk_time_too() -> None:
    assert policy(session={"callTimeout": "2h", "absoluteTimeout": "1h"}).talk_s_max == 3_600


# ------------------------------------------------------------------ prices that change while it rings

PEAK_AT_S = int(NOW_S) + 30
PEAK = Price(
    "EUR",
    (
        Window(0, (RateGroup(0, 6_000, 60, 1),), 0, "off-peak"),
        Window(PEAK_AT_S, (RateGroup(0, 60_000, 60, 1),), 100, "peak"),
    ),
)


def test_what_is_held_is_enough_whenever_the_callee_answers() -> None:
    of = policy()
    admit = admission(decide(snapshot(quote=quote(PEAK)), request(), of))
    assert admit.held_micros == 100 + 60_000
    for ring_s in range(of.setup_s_max + 1):
        assert cost(PEAK, NOW_S + ring_s, admit.granted_s) <= admit.held_micros


@st.composite
def groups(draw: st.DrawFn, increments: tuple[int, int] | None = None) -> tuple[RateGroup, ...]:
    first, following = increments or draw(st.sampled_from([(1, 1), (6, 6), (60, 60), (60, 1), (30, 6)]))
    rate = draw(st.integers(0, 100_000))
    later_rate = rate if increments else draw(st.integers(0, 100_000))
    if first == following and rate == later_rate:
        return (RateGroup(0, rate, 60, first),)
    return RateGroup(0, rate, 60, first), RateGroup(first, later_rate, 60, following)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    start = int(NOW_S)
    changes = [0, *sorted(draw(st.sets(st.integers(start - 50, start + 250), max_size=2)))]
    fees = st.sampled_from([0, 0, 70, 50_000])
    increments = draw(st.sampled_from([(1, 1), (6, 6), (60, 60), (60, 1), (30, 6)]))
    alike = groups(increments)  # as the windows of a deck are
    return Price(
        "EUR",
        tuple(Window(at, draw(st.one_of(alike, groups())), draw(fees)) for at in changes),
        free_s=draw(st.sampled_from([0, 0, 10])),
        minimum_micros=draw(st.sampled_from([0, 0, 500])),
        rounding=draw(st.builds(Rounding, st.sampled_from(RoundingMethod), st.integers(0, 6))),
    )  # fmt: skip


@pytest.mark.cases
@given(prices(), st.integers(1, 120))
@settings(max_examples=200, deadline=None)
def test_the_moments_reckoned_with_bound_the_cost_of_all_others(price: Price, talk_s: int) -> None:
    answers = possible_answers(price, NOW_S, 140)
    costs = [cost(price, NOW_S + ring_s, talk_s) for ring_s in range(141)]
    assert cost_max(price, answers, talk_s) == max(costs)


@pytest.mark.cases
@given(prices(), st.integers(0, 400_000))
@settings(max_examples=200, deadline=None)
def test_what_is_granted_is_paid_by_what_is_held_and_that_by_what_is_there(price: Price, balance: int) -> None:
    decided = decide(snapshot(account(balance_micros=balance), quote=quote(price)), request(), policy())
    if isinstance(decided.verdict, Refuse):
        assert decided.verdict.reason is Reason.CREDIT
        assert decided.verdict.limit > balance
        return
    admit = decided.verdict
    assert admit.granted_s >= 1
    # Never less than the rounded total, whenever the callee answers.
    assert max(cost(price, NOW_S + ring_s, admit.granted_s) for ring_s in range(141)) <= admit.held_micros <= balance
    assert is_free(price) or admit.final or admit.granted_s == 60


# ------------------------------------------------------------------ a maximum price


def at_most(micros: int, price: Price = PRICE) -> Price:
    return replace(price, maximum_micros=micros, cuts_at_maximum=True)


def test_a_maximum_that_cuts_is_the_longest_talk_time() -> None:
    admit = admission(decide(snapshot(quote=quote(at_most(45_500))), request(), policy()))
    assert (admit.granted_s, admit.held_micros, admit.max_duration_s, admit.final) == (45, 45_000, 45, True)


def test_a_maximum_that_cuts_a_longer_call_is_no_bound_on_its_first_slice() -> None:
    plain = admission(decide(snapshot(quote=quote(PRICE)), request(), policy()))
    admit = admission(decide(snapshot(quote=quote(at_most(10 * MINUTE))), request(), policy()))
    assert (admit.granted_s, admit.held_micros, admit.final) == (plain.granted_s, plain.held_micros, False)
    assert admit.max_duration_s == 600 < plain.max_duration_s


def test_money_that_is_short_goes_before_a_maximum_that_cuts() -> None:
    of = account(balance_micros=20_000)
    assert admission(decide(snapshot(of, quote=quote(at_most(45_000))), request(), policy())).granted_s == 20


def test_a_call_whose_first_second_passes_the_maximum_is_refused() -> None:
    refuse = refusal(decide(snapshot(quote=quote(at_most(999))), request(), policy()))
    assert (refuse.reason, refuse.rule, refuse.limit) == (Reason.DURATION, "maximum", 999)


def test_a_maximum_cuts_no_later_than_the_dearest_moment_of_answer_would() -> None:
    begins_s = int(request().start_s)
    dear = Window(begins_s + 20, (RateGroup(0, 10 * MINUTE, 60, 1),))
    admit = admission(
        decide(snapshot(quote=quote(at_most(50_000, Price("EUR", (*PRICE.windows, dear))))), request(), policy())
    )
    assert admit.max_duration_s == 5


def test_talk_beyond_a_maximum_that_is_free_goes_on_and_holds_no_more() -> None:
    free_beyond = replace(PRICE, maximum_micros=5_000)
    plain = admission(decide(snapshot(quote=quote(PRICE)), request(), policy()))
    admit = admission(decide(snapshot(account(balance_micros=5_000), quote=quote(free_beyond)), request(), policy()))
    assert (admit.granted_s, admit.held_micros, admit.final) == (plain.granted_s, 5_000, False)
