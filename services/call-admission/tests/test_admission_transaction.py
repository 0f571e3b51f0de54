"""One transaction: batches, repeated commands, slices, ends, holds that nobody ends."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest
from admission_tables import NOW_S, POLICY, account, admission, admitted, ended, extension, reason, tables_of
from hypothesis import given
from hypothesis import strategies as st

from callwarden.call_admission.admission.core.commands import (
    Admitted,
    Command,
    Done,
    EndedLate,
    Extended,
    Ignored,
    NeedsQuote,
    NoHold,
    PlacedElsewhere,
    Refused,
)
from callwarden.call_admission.model.calls import Expired, Pricing, Started, Unclaimed
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.settle import talk_s
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.usage_shards import merged
from callwarden.kernel.verdict import Reason


@pytest.mark.setting("maxlines")
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_of_a_thousand_requests_on_five_lines_exactly_five_are_admitted_however_they_are_batched(batch: int) -> None:
    tables = tables_of()
    commands: list[Command] = [admission(number) for number in range(1, 1001)]
    outcomes = [o for i in range(0, 1000, batch) for o in tables.transact(commands[i : i + batch], NOW_S)]
    assert sum(isinstance(outcome, Admitted) for outcome in outcomes) == 5
    assert {reason(outcome) for outcome in outcomes[5:]} == {Reason.LINES}


@pytest.mark.setting("credit")
@pytest.mark.parametrize("batch", [1, 3, 200])
def test_credit_for_seven_first_slices_admits_seven(batch: int) -> None:
    tables = tables_of(account(balance_micros=7 * 60_000, max_lines=500))
    commands: list[Command] = [admission(number) for number in range(1, 201)]
    outcomes = [o for i in range(0, 200, batch) for o in tables.transact(commands[i : i + batch], NOW_S)]
    assert [reason(outcome) for outcome in outcomes[7:]] == [Reason.CREDIT] * 193
    assert tables.accounts[UUID(int=1)].held_micros == 7 * 60_000


def test_a_refusal_for_money_has_the_status_that_policy_wants_and_no_other_has() -> None:
    policy = replace(POLICY, reject_status=480)
    tables = tables_of(account(1, max_lines=0), account(2, balance_micros=0), account(3, daily_micros=0))
    outcomes = tables.transact([admission(1, 1), admission(2, 2), admission(3, 3)], NOW_S, policy)
    refused = [(outcome.refuse.reason, outcome.sip_status) for outcome in outcomes if isinstance(outcome, Refused)]
    assert refused == [(Reason.LINES, 0), (Reason.CREDIT, 480), (Reason.DAILY_SPEND, 480)]


def test_one_accounts_calls_take_nothing_from_anothers() -> None:
    tables = tables_of(account(1, max_lines=1), account(2, max_lines=1))
    outcomes = tables.transact([admission(1, 1), admission(2, 2), admission(3, 1), admission(4, 2)], NOW_S)
    assert [type(outcome) for outcome in outcomes] == [Admitted, Admitted, Refused, Refused]


def test_the_same_admission_asked_twice_holds_once_and_answers_alike() -> None:
    tables = tables_of()
    first, again = tables.transact([admission(1), admission(1)], NOW_S)
    (later,) = tables.transact([admission(1)], NOW_S + 5)
    assert admitted(first) == admitted(again) == admitted(later)
    assert len(tables.holds) == 1


def test_a_refusal_asked_again_is_answered_alike_even_when_a_line_is_free_by_then() -> None:
    tables = tables_of(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    (refused,) = tables.transact([admission(2)], NOW_S)
    tables.transact([ended(1, None, NOW_S + 1)], NOW_S + 1)
    (again,) = tables.transact([admission(2)], NOW_S + 2)
    assert refused == again
    assert tables.recorded == ["refuse"]


def test_a_refusal_repeated_in_its_batch_is_answered_alike_though_the_line_was_freed_in_between() -> None:
    tables = tables_of(account(max_lines=1))
    outcomes = tables.transact([admission(1), admission(2), ended(1, None, NOW_S), admission(2)], NOW_S)
    assert [type(outcome) for outcome in outcomes] == [Admitted, Refused, Done, Refused]
    assert outcomes[3] == outcomes[1]
    assert tables.holds == {}


def test_an_admission_repeated_after_its_call_is_over_brings_nothing_back() -> None:
    tables = tables_of()
    outcomes = tables.transact([admission(1), ended(1, None, NOW_S), admission(1)], NOW_S)
    assert outcomes[2] == Ignored("settled")
    assert not tables.holds


def test_a_hold_id_that_another_account_uses_is_not_answered_with_its_call() -> None:
    tables = tables_of(account(1), account(2))
    outcomes = tables.transact([admission(1, 1), admission(1, 2)], NOW_S)
    assert outcomes[1] == Ignored("settled")
    assert tables.transact([extension(1, 60, key=2)], NOW_S) == [NoHold()]
    assert tables.transact([ended(1, None, NOW_S, key=2)], NOW_S) == [Ignored("unknown")]


def test_a_call_of_two_edges_is_placed_by_the_one_that_asked_first() -> None:
    tables = tables_of()
    first, other = admission(1), admission(1)
    first.request.edge, other.request.edge = "one", "two"
    outcomes = tables.transact([first, other, first], NOW_S)
    assert outcomes[1] == PlacedElsewhere()
    assert isinstance(outcomes[0], Admitted)
    assert outcomes[2] == outcomes[0]
    assert tables.accounts[UUID(int=1)].held_micros == 60_000
    # The other one gave up before it heard that: the call isn't its own to end.
    given_up = replace(ended(1, None, NOW_S), sip_status=503, edge="two")
    assert tables.transact([given_up], NOW_S) == [Ignored("elsewhere")]
    assert tables.transact([replace(given_up, edge="one")], NOW_S) == [Done()]
    # Once it was answered whichever edge hears the BYE ends it.
    first.request.hold_id = UUID(int=2)
    tables.transact([first], NOW_S)
    assert tables.transact([replace(ended(2, NOW_S, NOW_S + 5), edge="two")], NOW_S + 5) == [Done()]


def test_an_extension_asked_twice_grants_once() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    first, again = tables.transact([extension(1, 60), extension(1, 60)], NOW_S + 55)
    assert isinstance(first, Extended)
    assert first == again
    assert first.hold.granted_s == 120
    assert tables.accounts[UUID(int=1)].held_micros == 120_000


def test_an_account_whose_price_list_has_changed_asks_for_the_new_price() -> None:
    tables = tables_of(account(deck="wholesale"))
    assert tables.transact([admission(1)], NOW_S) == [NeedsQuote(Pricing("wholesale", realm="example.org"))]
    assert not tables.holds


def test_a_call_of_nobody_is_refused_and_noted() -> None:
    tables = tables_of()
    (outcome,) = tables.transact([admission(1, key=77)], NOW_S)
    assert reason(outcome) is Reason.ACCOUNT_UNKNOWN
    assert tables.recorded == ["refuse"]


@pytest.mark.setting("credit")
def test_a_call_is_extended_until_the_credit_is_used_up_and_no_second_more() -> None:
    tables = tables_of(account(balance_micros=150_000))
    tables.transact([admission(1)], NOW_S)
    (first,) = tables.transact([extension(1, 60)], NOW_S + 55)
    assert isinstance(first, Extended)
    assert (first.hold.granted_s, first.hold.final) == (120, False)
    (last,) = tables.transact([extension(1, 120)], NOW_S + 115)
    assert isinstance(last, Extended)
    assert (last.hold.granted_s, last.hold.final) == (150, True)
    (none,) = tables.transact([extension(1, 150)], NOW_S + 148)
    assert reason(none) is Reason.CREDIT
    assert tables.recorded == ["cut", "cut"]
    tables.transact([ended(1, NOW_S, NOW_S + 150.2)], NOW_S + 151)
    assert tables.accounts[UUID(int=1)].balance_micros == 0
    assert tables.records[UUID(int=1)].billed_s == 150


def test_each_cut_is_recorded_once_however_often_its_edge_asks() -> None:
    tables = tables_of(account(1, balance_micros=60_000), account(2, balance_micros=60_000))
    tables.transact([admission(1, 1), admission(2, 2)], NOW_S)
    cuts = [extension(1, 60), extension(2, 60, key=2)]
    for _ in range(2):
        assert [reason(outcome) for outcome in tables.transact([*cuts, *cuts], NOW_S + 55)] == [Reason.CREDIT] * 4
    assert [decision.call_id for decision in tables.decisions.values()] == ["call-1", "call-2"]
    tables.accounts[UUID(int=1)] = replace(tables.accounts[UUID(int=1)], balance_micros=90_000)
    tables.transact([extension(1, 60)], NOW_S + 56)
    tables.transact([extension(1, 90)], NOW_S + 85)
    found = [decision for decision in tables.decisions.values() if decision.call_id == "call-1"]
    # The last slice was short under the id of the first cut, which stays as it is; the next cut has another one.
    assert [decision.at_s for decision in found] == [NOW_S + 55, NOW_S + 85]
    assert not {decision.id for decision in found} & {UUID(int=1), UUID(int=2)}


@pytest.mark.setting("call-timeout")
def test_a_call_ends_at_its_longest_talk_time_whatever_the_credit() -> None:
    short = replace(POLICY, talk_s_max=90)
    tables = tables_of()
    tables.transact([admission(1)], NOW_S, short)
    (last,) = tables.transact([extension(1, 60)], NOW_S + 55, short)
    assert isinstance(last, Extended)
    assert (last.hold.granted_s, last.hold.final) == (90, True)
    (none,) = tables.transact([extension(1, 90)], NOW_S + 85, short)
    assert reason(none) is Reason.DURATION


@pytest.mark.setting("call-timeout")
def test_a_longer_talk_time_granted_later_does_not_lengthen_a_running_call() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S, replace(POLICY, talk_s_max=60))
    (none,) = tables.transact([extension(1, 60)], NOW_S + 55)
    assert reason(none) is Reason.DURATION


def test_the_calls_of_a_disabled_account_end_with_what_they_have_paid_for() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    tables.accounts[UUID(int=1)] = replace(tables.accounts[UUID(int=1)], active=False)
    (outcome,) = tables.transact([extension(1, 60)], NOW_S + 55)
    assert reason(outcome) is Reason.ACCOUNT_DISABLED


def test_an_extension_of_a_call_that_is_not_running_grants_nothing() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    assert tables.transact([extension(1, 60)], hold.expires_at_s) == [NoHold()]
    assert tables.transact([extension(2, 60)], NOW_S) == [NoHold()]


@pytest.mark.parametrize(
    ("talked_s", "counted_s"), [(0.0, 0), (0.0004, 0), (0.001, 1), (1.0, 1), (1.0004, 1), (1.001, 2), (-3.0, 0)]
)
def test_a_begun_second_counts_to_the_millisecond(talked_s: float, counted_s: int) -> None:
    assert talk_s(NOW_S, NOW_S + talked_s) == counted_s


def test_an_end_told_twice_settles_once() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    outcomes = tables.transact([ended(1, NOW_S, NOW_S + 10), ended(1, NOW_S, NOW_S + 10)], NOW_S + 10)
    assert outcomes == [Done(), Ignored("settled")]
    assert tables.transact([ended(1, NOW_S, NOW_S + 10)], NOW_S + 20) == [Ignored("settled")]
    assert tables.entries == {UUID(int=1): (UUID(int=1), -10_000)}


def test_an_end_that_overtakes_its_start_settles_the_whole_call() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    late = Started(UUID(int=1), UUID(int=1), NOW_S + 2, "carrier")
    outcomes = tables.transact([ended(1, NOW_S + 2, NOW_S + 12), late], NOW_S + 12)
    assert outcomes == [Done(), Ignored("settled")]
    assert tables.records[UUID(int=1)].price_micros == 10_000


def test_an_edge_that_does_not_know_the_answer_leaves_it_to_the_hold() -> None:
    tables = tables_of()
    tables.transact([admission(1), Started(UUID(int=1), UUID(int=1), NOW_S + 2, "other")], NOW_S)
    tables.transact([ended(1, None, NOW_S + 12)], NOW_S + 12)
    assert tables.records[UUID(int=1)].price_micros == 10_000


def test_an_unanswered_call_costs_nothing_and_frees_its_line() -> None:
    tables = tables_of(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    assert [type(o) for o in tables.transact([ended(1, None, NOW_S + 9), admission(2)], NOW_S + 9)] == [Done, Admitted]
    assert tables.records[UUID(int=1)].price_micros == 0
    assert not tables.entries


def test_time_past_the_grant_is_not_charged() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    tables.transact([ended(1, NOW_S, NOW_S + 75)], NOW_S + 75)
    record = tables.records[UUID(int=1)]
    assert (record.duration_s, record.billed_s, record.price_micros) == (75, 60, 60_000)


def test_a_call_belongs_to_the_day_on_which_it_began() -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    tables.transact([ended(1, NOW_S + 95, NOW_S + 155)], NOW_S + 155)
    assert tables.spent == {(UUID(int=1), date(2026, 1, 5)): 60_000}


@pytest.mark.setting("maxdailycredit")
def test_the_daily_limit_counts_running_and_settled_calls_and_begins_anew_at_midnight() -> None:
    tables = tables_of(account(daily_micros=100_000))
    tables.transact([admission(1)], NOW_S)
    (second,) = tables.transact([admission(2)], NOW_S)
    assert (admitted(second).granted_s, admitted(second).final) == (40, True)
    assert reason(tables.transact([admission(3)], NOW_S)[0]) is Reason.DAILY_SPEND
    tables.transact([ended(1, NOW_S, NOW_S + 20), ended(2, NOW_S, NOW_S + 20)], NOW_S + 20)
    assert admitted(tables.transact([admission(4, at_s=NOW_S + 21)], NOW_S + 21)[0]).granted_s == 60
    assert reason(tables.transact([admission(5, at_s=NOW_S + 22)], NOW_S + 22)[0]) is Reason.DAILY_SPEND
    assert admitted(tables.transact([admission(6, at_s=NOW_S + 101)], NOW_S + 101)[0]).granted_s == 60


def test_an_answered_call_that_nobody_ends_is_settled_at_what_it_was_granted() -> None:
    tables = tables_of()
    tables.transact([admission(1), Started(UUID(int=1), UUID(int=1), NOW_S + 4, "carrier")], NOW_S + 4)
    (hold,) = tables.holds.values()
    expire, unclaimed = Expired(UUID(int=1), UUID(int=1)), Unclaimed(UUID(int=1), UUID(int=1))
    assert tables.transact([expire], hold.expires_at_s - 0.1) == [Ignored("not-expired")]
    assert tables.transact([unclaimed], hold.expires_at_s) == [Ignored("not-due")], "it has not lapsed"
    assert tables.transact([expire], hold.expires_at_s) == [Done()]
    assert tables.records == {}
    assert tables.accounts[UUID(int=1)].held_micros == 0
    assert tables.transact([unclaimed], hold.expires_at_s) == [EndedLate(False, 60_000, 0)]
    assert tables.transact([unclaimed], hold.expires_at_s) == [Ignored("settled")]
    record = tables.records[UUID(int=1)]
    assert (record.reason, record.duration_s, record.price_micros) == ("expired", 60, 60_000)
    assert tables.accounts[UUID(int=1)].balance_micros == 940_000


@pytest.mark.cases
@pytest.mark.parametrize("shards", [0, 3])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("answer_told", [False, True])
def test_an_end_that_comes_after_its_hold_has_lapsed_is_charged_once(
    shards: int, recorded: bool, answer_told: bool
) -> None:
    tables = tables_of(account(shards=shards))
    tables.transact([admission(1)], NOW_S)
    if answer_told:
        tables.transact([Started(UUID(int=1), UUID(int=1), NOW_S + 4, "carrier")], NOW_S + 4)
    (hold,) = tables.holds.values()
    tables.transact([Expired(hold.id, hold.account_id)], hold.expires_at_s)
    booked = 0
    if recorded:
        booked = 60_000 if answer_told else 0
        tables.transact([Unclaimed(hold.id, hold.account_id)], hold.expires_at_s + 30)
    end = ended(1, NOW_S + 4, NOW_S + 24)
    assert tables.transact([end, end], hold.expires_at_s + 300) == [
        EndedLate(recorded, 20_000 - booked, 0),
        Ignored("settled"),
    ]
    assert tables.transact([end], hold.expires_at_s + 301) == [Ignored("settled")]
    assert tables.holds == {}
    record = tables.records[UUID(int=1)]
    assert (record.reason, record.duration_s, record.billed_s) == ("caller-bye", 20, 20)
    assert sum(amount for _, amount in tables.entries.values()) == -20_000
    usage = merged([tables.usages.get(UUID(int=1), Usage()), *tables.usages_of(UUID(int=1))])
    day = usage.day(hold.spend_day.toordinal())
    assert (day.running, day.held_micros, day.granted_s) == (0, 0, 0)
    assert (day.spent_micros, day.talk_s) == (20_000, 20)
    assert tables.spent == {(UUID(int=1), hold.spend_day): 20_000}


@pytest.mark.cases
def test_the_answer_of_a_lapsed_call_is_noted_and_counts_for_nothing() -> None:
    tables = tables_of(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    late_s = hold.expires_at_s + 1
    tables.transact([Expired(hold.id, hold.account_id), admission(2)], late_s)
    news = Started(UUID(int=1), UUID(int=1), NOW_S + 4, "carrier")
    assert tables.transact([news, news], late_s + 1) == [Done(), Done()]
    assert isinstance(tables.transact([extension(1, 60, NOW_S + 4)], late_s + 1)[0], NoHold)
    assert tables.transact([admission(1)], late_s + 1) == [Ignored("settled")]
    assert tables.accounts[UUID(int=1)].held_micros == 60_000, "of the second call"
    tables.transact([Unclaimed(hold.id, hold.account_id)], late_s + 2)
    assert tables.records[UUID(int=1)].price_micros == 60_000


@pytest.mark.cases
def test_a_late_end_takes_no_more_than_a_prepaid_account_has_left() -> None:
    tables = tables_of(account(balance_micros=70_000))
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    tables.transact([Expired(hold.id, hold.account_id)], hold.expires_at_s)
    tables.transact([admission(2)], hold.expires_at_s)  # its money is another call's by now
    (outcome,) = tables.transact([ended(1, NOW_S, NOW_S + 30)], hold.expires_at_s + 1)
    assert outcome == EndedLate(False, 10_000, 20_000)
    assert tables.accounts[UUID(int=1)].balance_micros == tables.accounts[UUID(int=1)].held_micros == 60_000


def test_an_unanswered_call_that_nobody_ends_gives_all_back() -> None:
    tables = tables_of(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    # Its line is free from its last moment on, before the reaper comes.
    (after,) = tables.transact([admission(2)], hold.expires_at_s)
    assert isinstance(after, Admitted)
    tables.transact([Expired(UUID(int=1), UUID(int=1))], hold.expires_at_s)
    assert tables.accounts[UUID(int=1)].held_micros == 60_000
    tables.transact([Unclaimed(UUID(int=1), UUID(int=1))], hold.expires_at_s)
    assert tables.records[UUID(int=1)].price_micros == 0


def test_late_news_of_an_answer_brings_the_line_back_into_the_count() -> None:
    tables = tables_of(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    late_s = hold.expires_at_s + 1
    news = Started(UUID(int=1), UUID(int=1), late_s - 30, "carrier")
    assert [type(o) for o in tables.transact([news, admission(2)], late_s)] == [Done, Refused]


@given(st.integers(0, 100), st.sampled_from(["UTC", "Asia/Tokyo", "America/Los_Angeles"]))
def test_a_held_day_is_the_day_of_the_start(hours: int, zone: str) -> None:
    at_s = NOW_S + hours * 3_600
    tables = tables_of(account(time_zone=zone))
    (outcome,) = tables.transact([admission(1, at_s=at_s)], at_s)
    assert admitted(outcome).spend_day == day_of(at_s, zone)
