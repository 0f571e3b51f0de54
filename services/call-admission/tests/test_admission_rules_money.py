"""What may be spent: by credit, day, month and history, as days and months go by."""

from datetime import date

import pytest
from admission_line import (
    Line,
    account,
    admission,
    at,
    granted,
    policy,
    postpaid,
    priced,
    quote,
    refused,
    request,
    reseller,
    snapshot,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.call_admission.admission.core.decide import decide
from callwarden.call_admission.admission.core.rules import RULES, LimitUsage
from callwarden.call_admission.admission.core.rules.rule import AdmissionRule
from callwarden.call_admission.model.calls import Hold
from callwarden.call_admission.model.days import day_of, end_of_day, end_of_month
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Reason, Refuse

MONDAY = at("2026-01-05 12:00", "Europe/Berlin")
DAY_S = 86_400
UNIT = 1_000_000


def rule(name: str) -> AdmissionRule:
    return next(rule for rule in RULES if rule.name == name)


def use(line: Line, name: str) -> LimitUsage:
    (found,) = rule(name).uses(line.snapshot(), line.policy)
    return found


# ------------------------------------------------------------------ credit


@pytest.mark.setting("credit")
def test_slices_get_shorter_where_credit_is_low() -> None:
    low = policy(spend={"slice": {"first": "60s", "next": "30s", "lowBelow": "0.10", "low": "5s"}})
    at_it = admission(decide(snapshot(account(balance_micros=100_000)), request(), low))
    below = admission(decide(snapshot(account(balance_micros=99_999)), request(), low))
    assert (at_it.granted_s, below.granted_s, below.final) == (60, 5, False)
    line = Line(account(balance_micros=99_999), low)
    hold = granted(line.call())
    assert granted(line.extend(hold)).granted_s == 10


@pytest.mark.setting("credit")
def test_a_short_slice_is_never_shorter_than_the_least_talk_time() -> None:
    low = policy(spend={"slice": {"first": "60s", "minimum": "20s", "lowBelow": "1", "low": "5s"}})
    assert admission(decide(snapshot(account(balance_micros=99_999)), request(), low)).granted_s == 20


@pytest.mark.setting("credit")
def test_what_postpaid_accounts_are_granted_does_not_look_at_credit() -> None:
    low = policy(spend={"slice": {"lowBelow": "1", "low": "5s"}})
    assert admission(decide(snapshot(postpaid()), request(), low)).granted_s == 60


@pytest.mark.setting("credit")
def test_running_calls_are_cut_when_all_credit_is_used() -> None:
    line = Line(account(balance_micros=150_000), policy())
    first, second = granted(line.call()), granted(line.call())
    first = granted(line.extend(first))
    assert (first.granted_s, first.final) == (90, True)
    refuse = refused(line.extend(second))
    assert (refuse.reason, refuse.value) == (Reason.CREDIT, 60_000)  # what it holds itself is no more than it has had
    assert line.end(first, 90) + line.end(second, 60) == 150_000


# ------------------------------------------------------------------ currencies


@pytest.mark.setting("maxdailycredit")
@pytest.mark.parametrize(
    ("currency", "limit", "shown"),
    [("JPY", 150 * UNIT, "150 JPY"), ("EUR", 1_500_000, "1.50 EUR"), ("KWD", 1_500_000, "1.500 KWD")],
)
def test_amounts_are_exact_and_shown_in_the_decimals_of_their_currency(currency: str, limit: int, shown: str) -> None:
    line = Line(postpaid(currency=currency, daily_micros=limit), policy())
    price = priced(limit, currency)
    assert line.end(granted(line.call(quoted=quote(price))), 60) == limit
    refuse = refused(line.call(quoted=quote(price)))
    assert (refuse.value, refuse.limit) == (limit, limit)
    assert f"spent {shown} of the {shown}" in refuse.text


# ------------------------------------------------------------------ a day


@pytest.mark.setting("maxdailycreditperuser")
def test_policy_can_switch_the_accounts_own_daily_limit_off() -> None:
    of = postpaid(daily_micros=0)
    assert refused(Line(of, policy()).call()).reason is Reason.DAILY_SPEND
    assert refused(Line(of, policy(spend={"daily": {"perAccount": True}})).call()).reason is Reason.DAILY_SPEND
    off = {"perAccount": False, "endUser": "1"}
    line = Line(of, policy(spend={"daily": off}))
    granted(line.call())
    assert (use(line, "daily_spend").limit, use(line, "daily_spend").source) == (UNIT, "policy")


@pytest.mark.setting("maxdailycredit")
@pytest.mark.parametrize(("spent", "granted_s"), [(29_999, 30), (30_000, 30), (30_001, 29), (59_000, 1), (59_001, 0)])
def test_a_day_is_spent_to_the_second_and_no_further(spent: int, granted_s: int) -> None:
    line = Line(postpaid(daily_micros=60_000), policy())
    line.spend(spent)
    hold = line.call()
    if granted_s:
        assert (granted(hold).granted_s, granted(hold).final) == (granted_s, True)
    else:
        assert (refused(hold).value, refused(hold).limit) == (spent, 60_000)


# Days of 23 and 25 hours: clocks go forward on 2026-03-29 (Berlin) and 2026-03-08 (New York), back on 2026-10-25 and
# 2026-11-01.
@pytest.mark.setting("maxdailycredit")
@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Europe/Berlin", "2026-06-01", 24),
    ],
)
def test_a_day_lasts_from_midnight_to_midnight_whatever_clocks_do(zone: str, day: str, hours: int) -> None:
    begin_s = at(f"{day} 00:00", zone)
    end_s = begin_s + hours * 3_600
    line = Line(postpaid(daily_micros=60_000, time_zone=zone), policy(), begin_s - 1)
    assert line.spend(60_000) == 60_000  # the day before
    line.unix_s = begin_s
    assert line.spend(60_000) == 60_000
    assert use(line, "daily_spend").resets_at_s == end_s == end_of_day(date.fromisoformat(day), zone)
    for second in (begin_s + 2 * 3_600 + 1_800, begin_s + 3 * 3_600, end_s - 1):
        line.unix_s = second
        assert refused(line.call()).reason is Reason.DAILY_SPEND
    line.unix_s = end_s
    assert line.spend(60_000) == 60_000


@pytest.mark.setting("maxdailycredit")
def test_a_call_over_midnight_counts_on_the_day_on_which_it_began() -> None:
    line = Line(postpaid(daily_micros=90_000), policy(), at("2026-01-05 23:59", "Europe/Berlin"))
    hold = granted(line.call())
    line.unix_s += 60
    hold = granted(line.extend(hold))
    assert (hold.granted_s, hold.final) == (90, True)
    line.end(hold, 90)
    assert line.spend(90_000) == 90_000


@pytest.mark.setting("maxdailycredit")
def test_a_clock_that_steps_back_over_midnight_gives_no_second_day() -> None:
    line = Line(postpaid(daily_micros=60_000), policy(), at("2026-01-05 23:59:59", "Europe/Berlin"))
    assert line.spend(60_000) == 60_000
    line.unix_s += 2
    assert line.spend(60_000) == 60_000
    line.unix_s -= 2
    assert refused(line.call()).window == "day 2026-01-05 Europe/Berlin"
    line.unix_s += 2
    assert refused(line.call()).window == "day 2026-01-06 Europe/Berlin"


# ------------------------------------------------------------------ a multiple of the largest day


@pytest.mark.setting("checkmaxdyndailycredit")
@pytest.mark.setting("maxdyndailycredit_multiplier")
def test_the_worked_example_ten_nothing_five_thirty_and_blocked_at_210() -> None:
    line = Line(postpaid(), policy(spend={"dynamicDaily": {"mode": 1}}), MONDAY)
    assert line.spend(10 * UNIT) == 10 * UNIT
    line.unix_s += 2 * DAY_S  # nothing on Tuesday
    assert use(line, "dynamic_daily").limit == 70 * UNIT
    assert line.spend(5 * UNIT) == 5 * UNIT
    line.unix_s += DAY_S
    assert use(line, "dynamic_daily").limit == 70 * UNIT  # Monday's ten is still the largest
    assert line.spend(30 * UNIT) == 30 * UNIT
    line.unix_s += DAY_S
    assert use(line, "dynamic_daily").limit == 210 * UNIT
    assert line.spend(200 * UNIT) == 200 * UNIT
    assert line.spend(60 * UNIT) == 10 * UNIT  # cut at the second
    refuse = refused(line.call())
    assert (refuse.reason, refuse.value, refuse.limit) == (Reason.DAILY_SPEND, 210 * UNIT, 210 * UNIT)
    assert refuse.rule == "dynamic_daily"


@pytest.mark.setting("maxdyndailycreditforenduser_min")
@pytest.mark.setting("maxdynmaxdailycreditforts_min")
@pytest.mark.parametrize(
    ("kind", "mode", "floor"),
    [
        (AccountType.ENDUSER, 1, 10),
        (AccountType.ENDUSER, 2, 10),
        (AccountType.TRAFFIC_SENDER, 1, None),
        (AccountType.TRAFFIC_SENDER, 2, 100),
        (AccountType.ENDUSER, 0, None),
    ],
)
def test_each_type_has_a_floor_below_which_nothing_is_blocked(kind: AccountType, mode: int, floor: int | None) -> None:
    line = Line(postpaid(type=kind), policy(spend={"dynamicDaily": {"mode": mode}}), MONDAY)
    line.spend((floor or 1_000) * UNIT - 1_000)
    granted(line.call(quoted=quote(priced(1_000))))
    if floor is None:
        granted(line.call())
    else:
        assert refused(line.call()).limit == floor * UNIT


@pytest.mark.setting("maxdyndailycredit_multiplier")
def test_the_hardened_multiplier_is_four() -> None:
    line = Line(postpaid(), policy(profile="Hardened"), MONDAY)
    line.spend(10 * UNIT)
    line.unix_s += DAY_S
    assert use(line, "dynamic_daily").limit == 40 * UNIT


# ------------------------------------------------------------------ a month


@pytest.mark.setting("maxmonthlycredit")
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Pacific/Kiritimati"])
def test_a_month_is_spent_to_the_micro_and_the_next_begins_at_midnight_in_the_accounts_zone(zone: str) -> None:
    begin_s = at("2026-02-01 00:00", zone)
    line = Line(postpaid(monthly_micros=60_000, time_zone=zone), policy(), begin_s - 1)
    assert line.spend(60_000) == 60_000
    refuse = refused(line.call())
    assert (refuse.reason, refuse.value, refuse.limit) == (Reason.MONTHLY_SPEND, 60_000, 60_000)
    assert refuse.window == f"month 2026-01 {zone}"
    assert use(line, "monthly_spend").resets_at_s == begin_s
    line.unix_s = begin_s
    assert line.spend(60_000) == 60_000


def test_december_is_followed_by_january() -> None:
    assert end_of_month(date(2026, 12, 31), "Europe/Berlin") == at("2027-01-01 00:00", "Europe/Berlin")
    assert end_of_month(date(2026, 3, 1), "Europe/Berlin") == at("2026-04-01 00:00", "Europe/Berlin")


@pytest.mark.setting("maxmonthlycredit")
def test_a_running_call_is_cut_where_the_month_is_spent() -> None:
    line = Line(postpaid(monthly_micros=90_000), policy())
    hold = granted(line.extend(granted(line.call())))
    assert (hold.granted_s, hold.final) == (90, True)


@pytest.mark.setting("creditcheckforpostp")
def test_policy_can_let_postpaid_accounts_go_beyond_their_month() -> None:
    of = postpaid(monthly_micros=0)
    assert refused(Line(of, policy()).call()).reason is Reason.MONTHLY_SPEND
    granted(Line(of, policy(spend={"checkPostpaid": False})).call())


@pytest.mark.setting("creditcheckforpostp")
def test_a_prepaid_account_is_held_to_its_credit_and_no_month() -> None:
    granted(Line(account(monthly_micros=0), policy()).call())


@pytest.mark.setting("maxmonthlycreditinc")
@pytest.mark.setting("maxmonthlycreditend")
def test_the_month_grows_after_each_active_one_up_to_the_ceiling() -> None:
    of = postpaid(monthly_micros=10 * UNIT, monthly_increment_micros=5 * UNIT, monthly_ceiling_micros=18 * UNIT)
    line = Line(of, policy())
    limits = []
    for month, active in ((1, True), (2, True), (3, False), (4, False), (5, True), (6, True), (7, True)):
        line.unix_s = at(f"2026-{month:02}-10 12:00")
        limits.append(use(line, "monthly_spend").limit)
        if active:
            line.spend(UNIT)
    # February follows an active month, as does March; April and May follow idle ones; then the ceiling holds.
    assert limits == [10 * UNIT, 15 * UNIT, 18 * UNIT, 18 * UNIT, 18 * UNIT, 18 * UNIT, 18 * UNIT]


@pytest.mark.setting("maxmonthlycreditinc")
def test_no_month_grows_after_one_without_a_call() -> None:
    of = postpaid(monthly_micros=10 * UNIT, monthly_increment_micros=5 * UNIT)
    line = Line(of, policy(), at("2026-01-10 12:00"))
    line.spend(UNIT)
    for month, limit in ((2, 15), (3, 15), (4, 15)):  # January was active; February and March aren't
        line.unix_s = at(f"2026-{month:02}-10 12:00")
        assert use(line, "monthly_spend").limit == limit * UNIT
    line.spend(UNIT)
    line.unix_s = at("2026-05-10 12:00")
    assert use(line, "monthly_spend").limit == 20 * UNIT


# ------------------------------------------------------------------ resellers


def test_a_resellers_day_holds_over_what_all_its_accounts_spend() -> None:
    line = Line(postpaid(), policy(), reseller=reseller(daily_micros=90_000))
    line.spend(60_000)
    assert granted(line.call()).granted_s == 30
    refuse = refused(line.call())
    assert (refuse.reason, refuse.rule, refuse.value, refuse.limit) == (
        Reason.RESELLER_QUOTA, "reseller_spend", 90_000, 90_000,
    )  # fmt: skip
    (shown,) = rule("reseller_spend").uses(line.snapshot(), line.policy)
    assert shown.source == "reseller shop"


def test_a_resellers_month_holds_if_it_is_postpaid_and_its_credit_if_it_is_not() -> None:
    month = Line(postpaid(), policy(), reseller=reseller(monthly_micros=60_000))
    month.spend(60_000)
    assert refused(month.call()).window == "month 2026-01 Europe/Berlin"
    prepaid = reseller(prepaid=True, balance_micros=50_000, overdraft_micros=10_000, monthly_micros=0)
    credit = Line(postpaid(), policy(), reseller=prepaid)
    credit.spend(60_000)
    assert (refused(credit.call()).counter, refused(credit.call()).limit) == ("credit", 60_000)
    credit.unix_s += 40 * DAY_S
    assert refused(credit.call()).reason is Reason.RESELLER_QUOTA  # a credit doesn't begin anew


def test_a_running_call_is_cut_where_the_reseller_has_no_more() -> None:
    line = Line(postpaid(), policy(), reseller=reseller(daily_micros=90_000))
    hold = granted(line.extend(granted(line.call())))
    assert (hold.granted_s, hold.final) == (90, True)


# ------------------------------------------------------------------ together


@given(
    st.integers(0, 200_000),
    st.integers(0, 200_000),
    st.one_of(st.none(), st.integers(0, 200_000)),
    st.one_of(st.none(), st.integers(0, 200_000)),
    st.lists(st.sampled_from(["call", "extend", "end", "hour"]), max_size=25),
)
@settings(max_examples=60, deadline=None)
def test_what_is_granted_never_exceeds_any_limit_that_holds(
    balance: int, daily: int, of_reseller: int | None, address: int | None, steps: list[str]
) -> None:
    spec = {} if address is None else {"callsPerAddress": {"maxCost": f"{address / UNIT:.6f}"}}
    over = None if of_reseller is None else reseller(daily_micros=of_reseller)
    line = Line(account(balance_micros=balance, daily_micros=daily, max_lines=4), policy(**spec), reseller=over)
    spent: dict[date, int] = {}
    for step in steps:
        holds = list(line.holds.values())
        if step == "call":
            hold = line.call()
            assert isinstance(hold, Hold | Refuse)
        elif step == "extend" and holds:
            line.extend(holds[0])
        elif step == "end" and holds:
            day = holds[0].spend_day
            spent[day] = spent.get(day, 0) + line.end(holds[0], holds[0].granted_s)
        elif step == "hour":
            line.unix_s += 3_600
        held = [hold.held_micros for hold in line.holds.values()]
        assert line.spent_micros + sum(held) <= balance
        for day in {day_of(line.unix_s, "Europe/Berlin"), *spent}:
            held_then = sum(hold.held_micros for hold in line.holds.values() if hold.spend_day == day)
            assert spent.get(day, 0) + held_then <= daily
            if of_reseller is not None:
                assert spent.get(day, 0) + held_then <= of_reseller
        if address is not None and line.unix_s - at("2026-01-05 12:00") < DAY_S:
            assert line.spent_micros + sum(held) <= address
