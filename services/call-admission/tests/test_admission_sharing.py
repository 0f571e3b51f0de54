"""Limits that are spread over shards, and talk time of carriers."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest
from admission_tables import (
    BOTH_ROUTES,
    CARRIERS,
    NOW_S,
    POLICY,
    Tables,
    account,
    admission,
    admitted,
    carrier,
    ended,
    extension,
    reason,
    tables_of,
)

from callwarden.call_admission.admission.core.commands import Admitted, Refused
from callwarden.call_admission.model.calls import Started
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.scopes import scope_of
from callwarden.call_admission.model.usage_shards import merged
from callwarden.kernel.verdict import Reason


@pytest.mark.setting("maxlines")
@pytest.mark.parametrize("slots", [(0,), (0, 1, 2, 3)])
def test_shards_admit_just_as_many_calls_as_there_are_lines(slots: tuple[int, ...]) -> None:
    tables = tables_of(account(shards=4, max_lines=7, balance_micros=10_000_000))
    outcomes = [tables.transact([admission(n)], NOW_S, slot=slots[n % len(slots)])[0] for n in range(1, 13)]
    assert [type(outcome) for outcome in outcomes] == [Admitted] * 7 + [Refused] * 5
    assert {reason(outcome) for outcome in outcomes[7:]} == {Reason.LINES}
    tables.transact([ended(3, None, NOW_S)], NOW_S)
    assert isinstance(tables.transact([admission(20)], NOW_S, slot=1)[0], Admitted), "a line that any shard has free"


@pytest.mark.setting("credit")
def test_the_last_of_the_credit_is_found_in_whichever_shard_it_lies() -> None:
    tables = tables_of(account(shards=4, max_lines=100, balance_micros=7 * 60_000))
    outcomes = [tables.transact([admission(n)], NOW_S, slot=n)[0] for n in range(1, 11)]
    granted = sum(admitted(outcome).granted_s for outcome in outcomes if isinstance(outcome, Admitted))
    assert granted == 7 * 60
    assert {reason(outcome) for outcome in outcomes if isinstance(outcome, Refused)} == {Reason.CREDIT}
    assert sum(usage.held_micros for usage in tables.usages_of(UUID(int=1))) == 7 * 60_000


@pytest.mark.setting("maxlines")
def test_lines_that_are_taken_away_are_gone_in_all_shards() -> None:
    tables = tables_of(account(shards=2, max_lines=10, balance_micros=10_000_000))
    for number in range(1, 6):
        tables.transact([admission(number)], NOW_S, slot=0)
    tables.accounts[UUID(int=1)] = replace(tables.accounts[UUID(int=1)], max_lines=4)
    assert reason(tables.transact([admission(6)], NOW_S, slot=1)[0]) is Reason.LINES


def talk_of(tables: Tables, trunk: str, day: date) -> tuple[int, int, int]:
    """Seconds talked and seconds granted of a day, and the calls that run, by a carrier's counts."""
    span = merged(tables.usages_of(scope_of("carrier", str(CARRIERS[trunk])))).day(day.toordinal())
    return span.talk_s, span.granted_s, span.running


@pytest.mark.setting("maxslperday")
def test_calls_that_run_count_against_their_carriers_talk_time() -> None:
    tables = tables_of(account(max_lines=50, balance_micros=10_000_000), carrier("carrier", talk_day_s=180))
    routes = BOTH_ROUTES[:1]
    outcomes = [tables.transact([admission(n, routes=routes)], NOW_S)[0] for n in range(1, 6)]
    assert [type(outcome) for outcome in outcomes] == [Admitted] * 3 + [Refused] * 2
    refuse = outcomes[3].refuse if isinstance(outcomes[3], Refused) else None
    assert refuse is not None
    assert (refuse.reason, refuse.rule, refuse.value, refuse.limit) == (
        Reason.TALK_TIME, "carrier_talk_time", 180, 180
    )  # fmt: skip
    tables.transact([ended(1, NOW_S, NOW_S + 20), ended(2, None, NOW_S)], NOW_S + 20)
    assert talk_of(tables, "carrier", day_of(NOW_S, "Europe/Berlin")) == (20, 60, 1)
    later = [tables.transact([admission(n, routes=routes)], NOW_S + 20)[0] for n in range(6, 10)]
    assert [type(outcome) for outcome in later] == [Admitted] * 2 + [Refused] * 2, "20 s, then 80, 140 and 200"


@pytest.mark.setting("maxslperday")
def test_a_call_counts_for_every_carrier_it_may_go_by_until_one_has_taken_it() -> None:
    carriers = carrier("carrier", talk_day_s=1_000), carrier("other", talk_day_s=1_000)
    tables = tables_of(account(balance_micros=10_000_000), *carriers)
    day = day_of(NOW_S, "Europe/Berlin")
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 60, 1), (0, 60, 1)]
    news = Started(UUID(int=1), UUID(int=1), NOW_S, "other")
    tables.transact([news, news], NOW_S + 1)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (0, 60, 1)]
    tables.transact([extension(1, 60)], NOW_S + 50)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (0, 120, 1)]
    tables.transact([ended(1, NOW_S, NOW_S + 70, trunk="other")], NOW_S + 70)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (70, 0, 0)]


@pytest.mark.setting("maxslpermonth")
def test_the_end_of_a_call_says_who_had_it_where_its_answer_was_not_told() -> None:
    carriers = carrier("carrier", talk_month_s=1_000), carrier("other", talk_month_s=1_000)
    tables = tables_of(account(balance_micros=10_000_000), *carriers)
    day = day_of(NOW_S, "Europe/Berlin")
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S)
    tables.transact([extension(1, 60)], NOW_S + 50)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 120, 1), (0, 120, 1)]
    tables.transact([ended(1, NOW_S, NOW_S + 70, trunk="other")], NOW_S + 70)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (70, 0, 0)]


@pytest.mark.setting("maxslperday")
def test_a_carrier_that_is_ruled_out_counts_nothing_and_what_is_remembered_of_it_is_looked_up() -> None:
    carriers = carrier("carrier", talk_day_s=60), carrier("other", talk_day_s=1_000)
    tables = tables_of(account(balance_micros=10_000_000), *carriers)
    process = tables.process()
    day = day_of(NOW_S, "Europe/Berlin")
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S, POLICY, process)
    (second,) = tables.transact([admission(2, routes=BOTH_ROUTES)], NOW_S, POLICY, process)
    assert isinstance(second, Admitted)
    assert [route.trunk for route in second.routes] == ["other"]
    assert [talk_of(tables, trunk, day)[1] for trunk in CARRIERS] == [60, 120]
    # Another process settles the first one: this one remembers that the carrier is full.
    tables.transact([ended(1, None, NOW_S)], NOW_S)
    (third,) = tables.transact([admission(3, routes=BOTH_ROUTES)], NOW_S, POLICY, process)
    assert isinstance(third, Admitted)
    assert [route.trunk for route in third.routes] == ["carrier", "other"]


@pytest.mark.setting("maxslperday")
def test_no_route_is_excluded_for_what_was_only_remembered_of_its_carrier() -> None:
    carriers = carrier("carrier", talk_day_s=120), carrier("other", talk_day_s=1_000)
    tables = tables_of(account(1, balance_micros=10_000_000), account(2), *carriers)
    process = tables.process()
    calls = [admission(1, 1, routes=BOTH_ROUTES), admission(2, 2, routes=BOTH_ROUTES[:1])]
    tables.transact(calls, NOW_S, POLICY, process)
    # Another process ends the second account's call. Of what the third call writes nothing has moved: neither its
    # account nor the carrier that has room for it.
    tables.transact([ended(2, None, NOW_S, key=2)], NOW_S)
    (third,) = tables.transact([admission(3, 1, routes=BOTH_ROUTES)], NOW_S, POLICY, process)
    assert isinstance(third, Admitted)
    assert [route.trunk for route in third.routes] == ["carrier", "other"]
