"""Price lists and routes: what a call must be priced by, and what its routes may cost."""

from dataclasses import replace
from uuid import UUID

import pytest
from admission_line import (
    NOW_S,
    ROUTE,
    account,
    admission,
    policy,
    priced,
    quote,
    refusal,
    request,
    result,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import decide
from callwarden.call_admission.model.calls import NoQuote, Pricing, Quote, Route
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Reason

BERLIN, PARIS, TORONTO, NEW_YORK, INMARSAT = "493012345678", "33142345678", "14165550123", "12125550123", "870773111632"


def billed(level: int, of: Quote, **changes: object) -> str:
    """The text of the refusal, or ""."""
    decided = decide(snapshot(account(**changes), quote=of), request(), policy(billing={"blockNotBilled": level}))
    refused = result(decided, "billing").refused
    return refused.text if refused is not None else ""


@pytest.mark.setting("blocknotbilledcalls")
@pytest.mark.parametrize(
    ("of", "changes", "from_level"),
    [
        (replace(quote(), exact=False), {}, 2),
        (quote(), {"deck": "wholesale"}, 3),
        (replace(quote(), prefix="4"), {}, 4),
        (quote(), {"parent": UUID(int=2)}, 5),
        (replace(quote(), parent_priced=True), {"parent": UUID(int=2)}, 6),
        (quote(), {}, 6),
    ],
    ids=["shorter prefix", "another's list", "no country's", "none in the reseller's", "all is well", "no reseller"],
)  # fmt: skip
def test_each_level_of_billing_refuses_what_it_says_and_those_below_let_it_through(
    of: Quote, changes: dict[str, object], from_level: int
) -> None:
    for level in range(6):
        assert bool(billed(level, of, **changes)) is (level >= from_level), level


@pytest.mark.setting("blocknotbilledcalls")
def test_a_call_without_a_price_is_refused_at_every_level() -> None:
    for level in range(6):
        of = snapshot(quote=NoQuote(Pricing("retail"), Reason.NO_RATE))
        assert refusal(decide(of, request(), policy(billing={"blockNotBilled": level}))).reason is Reason.NO_RATE


def way(trunk: str, micros: int | None, currency: str = "EUR") -> Route:
    return replace(ROUTE, trunk=trunk, cost=None if micros is None else priced(micros, currency))


def left(of: Quote, **billing: object) -> list[str] | Reason:
    """The trunks that are left, or why none is."""
    decided = decide(snapshot(quote=of), request(), policy(billing=billing))
    if decided.routes:
        admission(decided)
        return [route.trunk for route in decided.routes]
    return refusal(decided).reason


@pytest.mark.setting("blocknotprofitablecalls")
@pytest.mark.parametrize(
    ("level", "trunks"),
    [
        (0, ["below", "equal", "above", "unknown", "foreign"]),
        (1, ["below", "equal", "unknown", "foreign"]),
        (2, ["below", "unknown", "foreign"]),
        (3, ["below"]),
    ],
)
def test_each_level_of_profit_leaves_fewer_routes_in_their_order(level: int, trunks: list[str]) -> None:
    ways = (
        way("below", 59_999), way("equal", 60_000), way("above", 60_001), way("unknown", None),
        way("foreign", 1, "USD"),
    )  # fmt: skip
    assert left(quote(priced(60_000), *ways), blockNotProfitable=level) == trunks


@pytest.mark.setting("blocknotprofitablecalls")
@pytest.mark.parametrize(("cost", "refused_from"), [(59_999, 4), (60_000, 2), (60_001, 1), (None, 3)])
def test_a_call_without_a_profitable_route_is_refused(cost: int | None, refused_from: int) -> None:
    for level in range(4):
        found = left(quote(priced(60_000), way("only", cost)), blockNotProfitable=level)
        assert found == (Reason.NOT_PROFITABLE if level >= refused_from else ["only"]), level


@pytest.mark.setting("blocknotprofitablecalls")
def test_what_a_minute_costs_counts_its_connect_fee() -> None:
    fee = Price("EUR", (Window(0, (RateGroup(0, 1_000, 60, 1),), 60_000),))
    assert left(quote(priced(60_000), replace(ROUTE, cost=fee)), blockNotProfitable=1) is Reason.NOT_PROFITABLE
    decided = decide(
        snapshot(quote=quote(priced(60_000), replace(ROUTE, cost=fee))), request(),
        policy(billing={"blockNotProfitable": 1}),
    )  # fmt: skip
    assert (refusal(decided).value, refusal(decided).limit) == (61_000, 60_000)


@pytest.mark.setting("blocknotprofitablecalls")
def test_the_cost_is_that_of_the_hour_of_the_call() -> None:
    peak = Price("EUR", (Window(0, (RateGroup(0, 1_000),)), Window(int(NOW_S), (RateGroup(0, 90_000),))))
    assert left(quote(priced(60_000), replace(ROUTE, cost=peak)), blockNotProfitable=1) is Reason.NOT_PROFITABLE


@pytest.mark.setting("blockhighcostcalls")
@pytest.mark.parametrize(
    ("costs", "trunks"),
    [
        ([50_000], ["0"]), ([50_001], Reason.ROUTE_COST), ([50_001, 49_999], ["1"]), ([None], ["0"]),
        ([90_000, 90_000, 1], ["2"]),
    ],
)  # fmt: skip
def test_no_route_dearer_than_policys_limit_is_taken(costs: list[int | None], trunks: list[str] | Reason) -> None:
    ways = [way(str(index), cost) for index, cost in enumerate(costs)]
    assert left(quote(priced(60_000), *ways), maxCostPerMinute="0.05") == trunks
    assert left(quote(priced(60_000), *ways)) == [each.trunk for each in ways]


def test_routes_that_rules_leave_one_by_one_are_none() -> None:
    dear, unknown = way("dear", 50_001), way("unknown", None)
    found = left(quote(priced(60_000), dear, unknown), maxCostPerMinute="0.05", blockNotProfitable=3)
    assert found is Reason.NO_ROUTE


def test_a_reported_rule_takes_no_route_away() -> None:
    of = snapshot(quote=quote(priced(60_000), way("dear", 70_000), way("cheap", 1)))
    reported = policy(billing={"blockNotProfitable": 1}, modes={"profit": "Report"})
    assert len(decide(of, request(), reported).routes) == 2
