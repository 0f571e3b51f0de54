"""What a call that ends late, or never, adds to each owner's counts; what its record says of it."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest
from admission_line import ACCOUNT_ID, NOW_S, PRICE, TODAY, account, policy, priced

from callwarden.call_admission.model.calls import Ended, Hold, RouteCost
from callwarden.call_admission.model.habits import VelocityCounts
from callwarden.call_admission.model.number_plan import country_of
from callwarden.call_admission.model.scopes import ACCOUNT, ADDRESS, CARRIER, REALM, RESELLER, SYSTEM
from callwarden.call_admission.model.settle import EXPIRED, settle, settle_expired
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import TransitionContext, Usage
from callwarden.call_admission.model.windows import SlidingWindow
from callwarden.kernel.tariff import Price, RateGroup, Window

DAY, MONTH = TODAY.toordinal(), TODAY.year * 12 + TODAY.month - 1
PAYEE = UUID(int=7)


def hold(**changes: object) -> Hold:
    base = Hold(
        UUID(int=9), ACCOUNT_ID, NOW_S, None, NOW_S + 200, 60, 7_200, False, 60_000, TODAY, PRICE, "carrier"
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def context(owner: str) -> TransitionContext:
    return TransitionContext(owner, policy(), account(), NOW_S)


def period() -> SlidingWindow:
    window = SlidingWindow(SlidingWindow.width(86_400_000))
    window.begin(NOW_S, 0, 0)
    return window


def both(**counts: int) -> tuple[list[CalendarSpan], list[CalendarSpan]]:
    return [CalendarSpan(DAY, **counts)], [CalendarSpan(MONTH, **counts)]


# ------------------------------------------------------------------ who counts a late charge


@pytest.mark.parametrize("owner", [ACCOUNT, RESELLER])
def test_a_late_charge_is_spent_and_talked_on_the_calls_day_and_month(owner: str) -> None:
    usage = Usage()
    usage.charge(hold(), 40_000, 40, context(owner))
    assert (usage.days, usage.months) == both(talk_s=40, spent_micros=40_000)
    assert (usage.spent_micros, usage.held_micros, usage.period) == (40_000, 0, None)
    usage.charge(hold(), -10_000, -10, context(owner))
    assert (usage.days, usage.months) == both(talk_s=30, spent_micros=30_000)
    assert usage.spent_micros == 30_000


@pytest.mark.parametrize("owner", [REALM, SYSTEM])
def test_a_late_charge_is_nothing_to_owners_that_count_no_money(owner: str) -> None:
    usage = Usage()
    usage.charge(hold(), 40_000, 40, context(owner), calls=1)
    assert usage == Usage()


def test_a_carrier_counts_late_talk_and_calls_but_no_money() -> None:
    usage = Usage()
    usage.charge(hold(), 40_000, 40, context(CARRIER), calls=1)
    assert (usage.days, usage.months) == both(talk_s=40, calls=1)
    assert usage.spent_micros == 0
    usage.charge(hold(), 0, -40, context(CARRIER), calls=-1)
    assert (usage.days, usage.months) == both()


def test_an_address_counts_a_late_charge_in_its_period_only() -> None:
    usage = Usage()
    usage.charge(hold(), 40_000, 40, context(ADDRESS), calls=1)
    assert usage == Usage(), "of a period that it hasn't begun nothing is counted"
    usage.period = period()
    usage.charge(hold(), 40_000, 40, context(ADDRESS), calls=1)
    sums = usage.period.sums(NOW_S)
    assert (sums.calls, sums.micros, sums.talk_s) == (1, 40_000, 40)
    assert (usage.days, usage.months, usage.spent_micros) == ([], [], 0)


def test_a_late_charge_counts_in_the_groups_that_the_call_was_counted_under() -> None:
    usage = Usage(groups={"all": VelocityCounts(period=period()), "idle": VelocityCounts(), "other": VelocityCounts(
        period=period()
    )})  # fmt: skip
    usage.charge(hold(marks=("all", "idle", "gone")), 40_000, 40, context(ACCOUNT))
    spent = {name: None if of.period is None else of.period.sums(NOW_S).micros for name, of in usage.groups.items()}
    assert spent == {"all": 40_000, "idle": None, "other": 0}


def test_a_late_charge_belongs_to_the_day_on_which_the_call_began() -> None:
    usage = Usage(days=[CalendarSpan(DAY, calls=3)])
    before = date.fromordinal(DAY - 1)
    usage.charge(hold(spend_day=before), 7, 1, context(ACCOUNT))
    assert [(span.key, span.calls, span.spent_micros) for span in usage.days] == [(DAY - 1, 0, 7), (DAY, 3, 0)]


# ------------------------------------------------------------------ records


def ended(answered_at_s: float | None, ended_at_s: float, trunk: str = "") -> Ended:
    return Ended(UUID(int=9), ACCOUNT_ID, answered_at_s, ended_at_s, "caller-bye", 200, trunk)


def test_the_record_of_a_call_that_nobody_ended_has_no_status_and_its_first_trunk() -> None:
    costs = (RouteCost("carrier", PAYEE, priced(6_000)),)
    answered = settle_expired(hold(answered_at_s=NOW_S + 5, costs=costs, limits_hit=("credit",)))
    assert (answered.reason, answered.sip_status, answered.trunk) == (EXPIRED, 0, "carrier")
    assert (answered.answered_at_s, answered.ended_at_s) == (NOW_S + 5, NOW_S + 65)
    assert (answered.duration_s, answered.billed_s, answered.price_micros) == (60, 60, 60_000)
    assert (answered.cost_micros, answered.carrier_account_id, answered.limits_hit) == (6_000, PAYEE, ("credit",))
    unanswered = settle_expired(hold(costs=costs))
    assert (unanswered.reason, unanswered.sip_status, unanswered.trunk) == (EXPIRED, 0, "carrier")
    assert (unanswered.answered_at_s, unanswered.ended_at_s, unanswered.duration_s) == (None, NOW_S + 200, 0)
    assert (unanswered.price_micros, unanswered.billed_s, unanswered.cost_micros) == (0, 0, 0)


@pytest.mark.parametrize(
    ("answered_at_s", "ended_at_s", "billed_s", "price_micros", "cost_micros"),
    [
        (None, NOW_S + 9, 0, 0, 0),
        (NOW_S, NOW_S, 0, 0, 0),
        (NOW_S, NOW_S + 1, 1, 11_000, 600),
        (NOW_S, NOW_S + 90, 60, 60_000, 9_500),
    ],
    ids=["unanswered", "no talk", "a second", "longer than granted"],
)
def test_a_call_costs_by_what_was_granted_and_its_carrier_by_what_it_lasted(
    answered_at_s: float | None, ended_at_s: float, billed_s: int, price_micros: int, cost_micros: int
) -> None:
    fee = Price("EUR", (Window(0, (RateGroup(0, 60_000, 60, 1),), 10_000),))
    dear = Price("EUR", (Window(0, (RateGroup(0, 6_000, 60, 1),), 500),))
    of = hold(price=fee, costs=(RouteCost("carrier", PAYEE, dear),))
    found = settle(of, ended(answered_at_s, ended_at_s))
    assert (found.billed_s, found.price_micros, found.cost_micros) == (billed_s, price_micros, cost_micros)
    assert (found.ended_at_s, found.trunk, found.carrier_account_id) == (ended_at_s, "carrier", PAYEE)


@pytest.mark.parametrize(
    ("costs", "trunk", "cost_micros", "payee"),
    [
        ((), "", None, None),
        ((RouteCost("carrier", PAYEE, None),), "", None, PAYEE),
        ((RouteCost("carrier", PAYEE, priced(6_000, "USD")),), "", None, PAYEE),
        ((RouteCost("carrier", PAYEE, priced(6_000)),), "other", None, None),
        ((RouteCost("carrier", None, priced(6_000)), RouteCost("other", PAYEE, priced(9_000))), "other", 9_000, PAYEE),
    ],
    ids=["nobody known", "no cost known", "another currency", "another trunk", "the second route"],
)
def test_what_a_carrier_charges_is_known_in_the_calls_currency_only(
    costs: tuple[RouteCost, ...], trunk: str, cost_micros: int | None, payee: UUID | None
) -> None:
    found = settle(hold(costs=costs), ended(NOW_S, NOW_S + 60, trunk))
    assert (found.cost_micros, found.carrier_account_id, found.trunk) == (cost_micros, payee, trunk or "carrier")


def test_no_call_ends_before_it_was_answered_or_began() -> None:
    assert settle(hold(), ended(NOW_S + 9, NOW_S + 3)).ended_at_s == NOW_S + 9
    assert settle(hold(), ended(None, NOW_S - 3)).ended_at_s == NOW_S


# ------------------------------------------------------------------ countries that share a code


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("12425550123", "BS"),  # +1 242 by its leading digits
        ("12045550123", "CA"),
        ("12125550123", "US"),
        ("77011234567", "KZ"),
        ("74951234567", "RU"),
        ("390669812345", "VA"),
        ("390612345678", "IT"),
        ("1", "US"),
        ("12", "US"),
        ("999123", ""),
    ],
)
def test_the_number_decides_between_countries_that_share_a_code(number: str, country: str) -> None:
    assert country_of(number) == country
