"""Each rule refuses when enforced, only says so when reported, and isn't asked when off."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from admission_line import (
    CARRIER_ID,
    NOW_S,
    ROUTE,
    TODAY,
    account,
    admission,
    camel,
    counted,
    policy,
    postpaid,
    priced,
    quote,
    refusal,
    request,
    reseller,
    result,
    snapshot,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.call_admission.admission.core.decide import Admit, decide
from callwarden.call_admission.admission.core.rules import RULES
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot, SourceTrunk
from callwarden.call_admission.model.calls import CallRequest
from callwarden.call_admission.model.habits import WEIGHT, AccountBaseline, Country, VelocityCounts
from callwarden.call_admission.model.leases import Leases
from callwarden.call_admission.model.lists import ListBuilder, ListHead, Listing, Listings, ListKind, Lists, ListSide
from callwarden.call_admission.model.scopes import ADDRESS, CARRIER, REALM, RESELLER, SYSTEM
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.windows import MINUTE_MS, SECOND_MS, SlidingWindow
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Mode, Reason
from callwarden.policy.model import Modes

DAY = TODAY.toordinal()
MONTH = TODAY.year * 12 + TODAY.month - 1


def calls_now(calls: int) -> Usage:
    """So many running."""
    return Usage(leases=Leases([[int(NOW_S) // 8 + 10, calls]]))


def calls_of_second(calls: int) -> Usage:
    second = SlidingWindow(SlidingWindow.width(SECOND_MS))
    for _ in range(calls):
        second.begin(NOW_S, 0, 0)
    return Usage(second=second)


def period(calls: int, micros: int, talk_s: int) -> Usage:
    window = SlidingWindow(SlidingWindow.width(86_400_000))
    for _ in range(calls):
        window.begin(NOW_S, 0, 0)
    window.move(NOW_S, micros, talk_s)
    return Usage(period=window)


def spent(day: int = 0, month: int = 0, talk_s: int = 0) -> Usage:
    return Usage(
        days=[CalendarSpan(DAY, day, talk_s=talk_s)],
        months=[CalendarSpan(MONTH, month, talk_s=talk_s)],
        spent_micros=max(day, month),
    )


def minute_of(calls: int) -> VelocityCounts:
    window = SlidingWindow(SlidingWindow.width(MINUTE_MS))
    for _ in range(calls):
        window.begin(NOW_S, 0, 0)
    return VelocityCounts(minute=window)


def blocklist() -> Listing:
    builder = ListBuilder(ListHead("irsf", 1, ListKind.BLOCK, ListSide.CALLED))
    builder.add(["4930*"])
    return Listing(Lists.of([builder.build()], Listings()), "4930")


@dataclass
class Case:
    """A call that the rule is against, and nothing else is."""

    reason: Reason
    snapshot: Snapshot
    spec: dict[str, Any] = field(default_factory=dict)
    request: CallRequest = field(default_factory=request)


def of_carrier() -> Snapshot:
    carrier = account(id=CARRIER_ID, name="transit", type=AccountType.CARRIER, talk_day_s=60)
    route = replace(ROUTE, carrier_account_id=str(CARRIER_ID))
    over = CounterView(CARRIER, CARRIER_ID, spent(talk_s=60), account=carrier)
    return snapshot(quote=quote(priced(60_000), route), carriers={str(CARRIER_ID): over})


def of_reseller(usage: Usage, **limits: object) -> Snapshot:
    return snapshot(account(parent=UUID(int=2)), counted(RESELLER, usage, account=reseller(**limits)))


def learnt(**usage: Any) -> Usage:
    hours = [WEIGHT] * 24
    return Usage(baseline=AccountBaseline(DAY - 30, DAY, hours), countries={"FR": Country(DAY - 20, DAY)}, **usage)


COSTLY = quote(priced(60_000), replace(ROUTE, cost=priced(60_001)))
OF_ADDRESS = {"callsPerAddress": {"maxCalls": 3, "maxDuration": "60s", "maxCost": "0.05"}}

CASES: dict[str, Callable[[], Case]] = {
    "only_local": lambda: Case(Reason.ONLY_LOCAL, snapshot(trunk=SourceTrunk("pbx", only_local=True))),
    "lists": lambda: Case(Reason.DESTINATION, snapshot(listing=blocklist()), {"fraud": {"lists": ["irsf"]}}),
    "destinations": lambda: Case(
        Reason.DESTINATION, snapshot(), {"fraud": {"destinations": {"block": ["49"]}}}
    ),
    "premium": lambda: Case(Reason.PREMIUM, snapshot(), {}, request("499001234567")),
    "satellite": lambda: Case(Reason.SATELLITE, snapshot(), {}, request("870773111632")),
    "billing": lambda: Case(
        Reason.NOT_BILLED, snapshot(quote=replace(quote(), exact=False)), {"billing": {"blockNotBilled": 2}}
    ),
    "carrier_talk_time": lambda: Case(Reason.TALK_TIME, of_carrier()),
    "cost": lambda: Case(
        Reason.ROUTE_COST, snapshot(quote=COSTLY), {"billing": {"maxCostPerMinute": "0.06"}}
    ),
    "profit": lambda: Case(
        Reason.NOT_PROFITABLE, snapshot(quote=COSTLY), {"billing": {"blockNotProfitable": 1}}
    ),
    "system_calls": lambda: Case(
        Reason.CEILING, snapshot(None, counted(SYSTEM, calls_now(7))), {"system": {"maxCalls": 7}}
    ),
    "system_rate": lambda: Case(
        Reason.RATE, snapshot(None, counted(SYSTEM, calls_of_second(2))), {"system": {"maxCallsPerSecond": 2}}
    ),
    "realm_calls": lambda: Case(
        Reason.CEILING, snapshot(None, counted(REALM, calls_now(7))), {"system": {"perRealm": {"maxCalls": 7}}}
    ),
    "realm_rate": lambda: Case(
        Reason.RATE, snapshot(None, counted(REALM, calls_of_second(2))),
        {"system": {"perRealm": {"maxCallsPerSecond": 2}}},
    ),
    "reseller_lines": lambda: Case(Reason.RESELLER_QUOTA, of_reseller(calls_now(4), max_lines=4)),
    "lines": lambda: Case(Reason.LINES, snapshot(lines=5)),
    "calls_per_second": lambda: Case(
        Reason.RATE, snapshot(None, counted(usage=calls_of_second(3))), {"lines": {"maxPerSecond": 3}}
    ),
    "address_calls": lambda: Case(
        Reason.ADDRESS_QUOTA, snapshot(None, counted(ADDRESS, period(3, 0, 0))), OF_ADDRESS
    ),
    "address_duration": lambda: Case(
        Reason.ADDRESS_QUOTA, snapshot(None, counted(ADDRESS, period(1, 0, 60))), OF_ADDRESS
    ),
    "address_cost": lambda: Case(
        Reason.ADDRESS_QUOTA, snapshot(None, counted(ADDRESS, period(1, 49_001, 0))), OF_ADDRESS
    ),
    "velocity": lambda: Case(
        Reason.VELOCITY, snapshot(None, counted(usage=Usage(groups={"all": minute_of(2)}))),
        {"fraud": {"velocity": [{"name": "all", "critical": {"perMinute": 2}}]}},
    ),
    "new_destination": lambda: Case(
        Reason.NEW_DESTINATION, snapshot(), {"fraud": {"newDestination": {"enabled": True, "maxPerDay": 0}}}
    ),
    "talk_time": lambda: Case(
        Reason.TALK_TIME, snapshot(account(talk_day_s=60), counted(usage=spent(talk_s=60)))
    ),
    "reseller_spend": lambda: Case(Reason.RESELLER_QUOTA, of_reseller(spent(day=1_000), daily_micros=1_000)),
    "monthly_spend": lambda: Case(
        Reason.MONTHLY_SPEND, snapshot(postpaid(monthly_micros=1_000), counted(usage=spent(month=1_000)))
    ),
    "daily_spend": lambda: Case(Reason.DAILY_SPEND, snapshot(account(daily_micros=1_000), spent_micros=1_000)),
    "dynamic_daily": lambda: Case(
        Reason.DAILY_SPEND, snapshot(None, counted(usage=spent(day=10_000_000))),
        {"spend": {"dynamicDaily": {"mode": 1}}},
    ),
    "credit": lambda: Case(Reason.CREDIT, snapshot(account(balance_micros=0))),
    "baseline": lambda: Case(
        Reason.BASELINE, snapshot(None, counted(usage=learnt())), {"fraud": {"baseline": {"enabled": True}}}
    ),
}  # fmt: skip


def with_mode(case: Case, rule: str, mode: str) -> dict[str, Any]:
    return case.spec | {"modes": {camel(rule): mode}}


def test_there_is_a_case_for_every_rule_that_has_a_mode() -> None:
    assert CASES.keys() == Modes.model_fields.keys()


@pytest.mark.parametrize("rule", sorted(CASES))
def test_an_enforced_rule_refuses_and_no_other_does(rule: str) -> None:
    case = CASES[rule]()
    decided = decide(case.snapshot, case.request, policy(**with_mode(case, rule, "Enforce")))
    refuse = refusal(decided)
    assert (refuse.rule, refuse.reason) == (rule, case.reason)
    assert refuse.text.endswith(".")
    assert [found.rule for found in decided.rules if found.refused] == [rule]
    assert not decided.routes


@pytest.mark.parametrize("rule", sorted(CASES))
def test_a_reported_rule_says_the_same_and_lets_the_call_through(rule: str) -> None:
    case = CASES[rule]()
    enforced = decide(case.snapshot, case.request, policy(**with_mode(case, rule, "Enforce")))
    decided = decide(case.snapshot, case.request, policy(**with_mode(case, rule, "Report")))
    assert admission(decided).granted_s
    found = result(decided, rule)
    assert found.mode is Mode.REPORT
    assert found.refused == refusal(enforced)
    assert decided.reported == [rule]
    assert decided.routes == getattr(case.snapshot.quote, "routes", ())


@pytest.mark.parametrize("rule", sorted(CASES))
def test_a_rule_that_is_off_is_not_asked(rule: str) -> None:
    case = CASES[rule]()
    decided = decide(case.snapshot, case.request, policy(**with_mode(case, rule, "Off")))
    assert isinstance(decided.verdict, Admit)
    found = result(decided, rule)
    assert (found.mode, found.refused, found.skipped) == (Mode.OFF, None, "off by policy")


@pytest.mark.parametrize("rule", sorted(CASES))
def test_every_rule_is_shown_whether_it_was_asked_or_not(rule: str) -> None:
    case = CASES[rule]()
    plain = decide(snapshot(), request(), policy())
    assert [found.rule for found in plain.rules] == [each.name for each in RULES]
    told = decide(case.snapshot, case.request, policy(**case.spec))
    assert [found.rule for found in told.rules] == [each.name for each in RULES]


@pytest.mark.parametrize("rule", sorted(CASES))
def test_what_is_used_is_what_the_refusal_says(rule: str) -> None:
    case = CASES[rule]()
    of = policy(**with_mode(case, rule, "Enforce"))
    refuse = refusal(decide(case.snapshot, case.request, of))
    (asked,) = [each for each in RULES if each.name == rule]
    uses = asked.uses(case.snapshot, of)
    if rule in {"credit", "baseline"} or not uses:
        return  # these say what a call needs, or what is unusual: nothing is used up
    assert (refuse.value, refuse.limit) in {(use.used, use.limit) for use in uses}


# ------------------------------------------------------------------ many at once

AGAINST = {
    "lines": {"max": 0, "maxPerSecond": 0},
    "fraud": {
        "destinations": {"block": ["49"]},
        "newDestination": {"enabled": True, "maxPerDay": 0},
        "velocity": [{"name": "all", "critical": {"perMinute": 2}}],
        "baseline": {"enabled": True},
    },
    "spend": {"dynamicDaily": {"mode": 1}},
    "billing": {"blockNotBilled": 2, "blockNotProfitable": 1, "maxCostPerMinute": "0.06"},
}
OBJECTING = (
    "only_local", "destinations", "premium", "billing", "cost", "profit", "lines", "calls_per_second", "velocity",
    "new_destination", "talk_time", "daily_spend", "dynamic_daily", "credit", "baseline",
)  # fmt: skip


def hopeless() -> tuple[Snapshot, CallRequest]:
    """A call that all of these are against."""
    usage = learnt(days=[CalendarSpan(DAY, 10_000_000)], groups={"all": minute_of(2)})
    of = account(balance_micros=0, daily_micros=0, talk_day_s=0)
    costly = replace(COSTLY, exact=False)
    pbx = SourceTrunk("pbx", only_local=True)
    return snapshot(of, counted(usage=usage), quote=costly, trunk=pbx, spent_micros=10_000_000), request("499001234567")


def test_all_of_them_are_against_it() -> None:
    decided = decide(*hopeless(), policy(**AGAINST, modes={"baseline": "Enforce"}))
    assert tuple(found.rule for found in decided.rules if found.refused) == OBJECTING
    assert refusal(decided).rule == "only_local"


@given(st.fixed_dictionaries({rule: st.sampled_from(["Enforce", "Report", "Off"]) for rule in OBJECTING}))
@settings(max_examples=100, deadline=None)
def test_the_mode_of_a_rule_changes_nothing_that_another_says(modes: dict[str, str]) -> None:
    against = hopeless()
    all_enforced = decide(*against, policy(**AGAINST, modes={"baseline": "Enforce"}))
    decided = decide(*against, policy(**AGAINST, modes={camel(rule): mode for rule, mode in modes.items()}))
    for before, found in zip(all_enforced.rules, decided.rules, strict=True):
        mode = modes.get(found.rule)
        assert found.refused == (None if mode == "Off" else before.refused)
    enforced = [rule for rule in OBJECTING if modes[rule] == "Enforce"]
    if enforced:
        assert refusal(decided).rule == enforced[0]
    else:
        assert admission(decided).held_micros == 0  # there is no credit to hold
    assert decided.reported == [rule for rule in OBJECTING if modes[rule] == "Report"]
