"""lists.core.call_stats: what is counted of a number, when it is out of line, and what is new to an account."""

from uuid import UUID

import pytest

from callwarden.call_admission.lists.core import call_stats
from callwarden.call_admission.lists.core.call_stats import (
    FRESH_S,
    GENERATION_S,
    LEARNT_CALLS,
    SHORT_S,
    CallCount,
    CallStats,
    NumberStats,
    Pending,
    StatsKey,
    is_failure,
    judge,
)
from callwarden.call_admission.model.lists import DYNAMIC, SMART, Listed, ListSide
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.policy.model import DynamicList, SmartList

ALICE, BOB = UUID(int=1), UUID(int=2)
REALM, TARGET, CALLER = "example.org", "37128000000", "4930123456"
ON, OFF = DynamicList(enabled=True, failures=40, period=600, listed=3_600), DynamicList(enabled=False, failures=1)
SMART_ON = SmartList(
    enabled=True, min_calls=20, min_answered_percent=20, min_average=10, max_short_percent=60, listed=7_200
)
SMART_OFF = SmartList(enabled=False, min_calls=10)


def count(tally: NumberStats, number: str = TARGET, *, calling: bool = False, account: UUID = ALICE) -> CallCount:
    return CallCount(REALM, StatsKey(account, number, calling), tally)


def add(
    stats: CallStats, of: CallCount, at_s: float = 0.0, dynamic: DynamicList = ON, smart: SmartList = SMART_ON
) -> list[Listed]:
    return stats.add(of, dynamic, smart, MonoS(at_s), UnixS(1_000.0 + at_s))


# ------------------------------------------------------------------ counting


def test_each_call_adds_to_its_two_numbers() -> None:
    pending = Pending()
    pending.ended(ALICE, TARGET, CALLER, 5.9994, 200, fresh=True)
    pending.ended(ALICE, TARGET, CALLER, SHORT_S, 200, fresh=False)
    pending.ended(ALICE, TARGET, "", None, 404, fresh=False)
    pending.ended(ALICE, "", CALLER, None, 486, fresh=True)
    for _ in range(2):
        pending.attacked(ALICE, TARGET)
    assert pending.accounts() == {ALICE}
    assert pending.take({ALICE: REALM}) == [
        count(NumberStats(calls=3, answered=2, short=1, talk_ms=11_999, failures=1, fresh=1, attacks=2)),
        count(NumberStats(calls=3, answered=2, short=1, talk_ms=11_999, failures=0, fresh=2), CALLER, calling=True),
    ]
    assert (len(pending), pending.take({ALICE: REALM})) == (0, [])


def test_what_is_of_an_account_that_is_gone_is_not_told() -> None:
    pending = Pending()
    pending.ended(ALICE, TARGET, "", None, 404, fresh=False)
    pending.ended(BOB, TARGET, "", None, 404, fresh=False)
    assert [each.key.account_id for each in pending.take({BOB: REALM})] == [BOB]


def test_counts_of_several_processes_are_added_up() -> None:
    one, other = NumberStats(1, 2, 3, 4, 5, 6, 7), NumberStats(10, 20, 30, 40, 50, 60, 70)
    total = one.copy()
    total.add(other)
    assert total == NumberStats(11, 22, 33, 44, 55, 66, 77)
    assert one == NumberStats(1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("status", "speaks_against_it"),
    [(399, False), (400, True), (499, True), (500, False), (599, False), (601, True), (699, True), (700, False)],
)
def test_client_and_global_failures_speak_against_a_number(status: int, speaks_against_it: bool) -> None:
    assert is_failure(status) is speaks_against_it


@pytest.mark.parametrize("status", [401, 402, 407, 408, 421, 429, 482, 483, 486, 487, 491, 600])
def test_what_is_ours_the_trunks_or_a_popular_numbers_speaks_against_nobody(status: int) -> None:
    assert not is_failure(status)


def test_a_called_numbers_calls_are_told_apart_by_where_they_came_from_and_a_callers_are_not() -> None:
    pending = Pending()
    for source in ("192.0.2.7", "192.0.2.8", "192.0.2.7"):
        pending.ended(ALICE, TARGET, CALLER, None, 404, fresh=False, source=source)
    pending.attacked(ALICE, TARGET, "192.0.2.8")
    assert {each.key: (each.tally.calls, each.tally.attacks) for each in pending.take({ALICE: REALM})} == {
        StatsKey(ALICE, TARGET, False, "192.0.2.7"): (2, 0),
        StatsKey(ALICE, TARGET, False, "192.0.2.8"): (1, 1),
        StatsKey(ALICE, CALLER, True): (3, 0),
    }


@pytest.mark.parametrize(
    ("calls", "part"),
    [
        (10, NumberStats(10, 5, 4, 100_000, 3, 2, 1)),
        (5, NumberStats(5, 2, 2, 50_000, 1, 1, 1)),
        (0, NumberStats(attacks=1)),
    ],
)
def test_a_part_of_the_calls_counts_for_its_share_rounded_down(calls: int, part: NumberStats) -> None:
    assert NumberStats(10, 5, 4, 100_000, 3, 2, 1).part(calls) == part
    assert NumberStats(attacks=1).part(0) == NumberStats(attacks=1)
    assert NumberStats(1, 1, 1, 4_000, 0, 1).part(1) == NumberStats(1, 1, 1, 4_000, 0, 1)


# ------------------------------------------------------------------ numbers that keep failing


def test_an_account_counts_for_no_more_than_its_share_of_what_lists_a_number_for_all() -> None:
    two = DynamicList(enabled=True, failures=39, period=600, listed=60, min_accounts=2, min_addresses=1)
    stats = CallStats()
    assert add(stats, count(NumberStats(failures=30)), dynamic=two) == []
    assert add(stats, count(NumberStats(failures=19), account=BOB), dynamic=two) == [], "20 and 19"
    (listed,) = add(stats, count(NumberStats(failures=1), account=BOB), dynamic=two)
    assert listed.account_id is None
    assert listed.evidence.startswith("40 failed calls within 600 s (limit 39), by 2 accounts")


def test_a_number_that_fails_too_often_for_one_account_is_listed_for_it() -> None:
    stats = CallStats()
    assert add(stats, count(NumberStats(failures=40))) == []
    assert add(stats, count(NumberStats(failures=1)), 10.0) == [
        Listed(
            DYNAMIC, REALM, ListSide.CALLED, TARGET, ALICE, "failing", "41 failed calls within 600 s (limit 40)",
            1_010.0, 1_010.0 + 3_600,
        )
    ]  # fmt: skip


def test_an_attempt_of_an_attack_counts_like_several_failures() -> None:
    stats = CallStats()
    assert add(stats, count(NumberStats(attacks=5))) == []
    (listed,) = add(stats, count(NumberStats(attacks=1)))
    assert listed.evidence == ("48 failed calls within 600 s (limit 40, a refused attempt of an attack counting 8)")
    few = DynamicList(enabled=True, failures=4, period=600, listed=60)
    assert add(CallStats(), count(NumberStats(attacks=4)), dynamic=few) == []
    assert len(add(CallStats(), count(NumberStats(attacks=5)), dynamic=few)) == 1


def test_only_called_numbers_are_listed_for_failures_and_only_where_policy_wants_that() -> None:
    assert add(CallStats(), count(NumberStats(failures=99), CALLER, calling=True)) == []
    assert add(CallStats(), count(NumberStats(failures=99)), dynamic=OFF) == []


def test_a_number_on_its_way_to_the_list_is_not_forgotten_for_others() -> None:
    stats = CallStats()
    for failures, is_hot in ((5, False), (5, False), (1, True)):
        add(stats, count(NumberStats(failures=failures)))
        assert stats.targets.is_hot(f"{REALM} {TARGET}") is is_hot


def test_a_number_that_is_listed_no_more_begins_anew() -> None:
    stats = CallStats()
    for calling in (False, True):
        add(stats, count(NumberStats(calls=19), calling=calling))
        side = ListSide.CALLING if calling else ListSide.CALLED
        stats.forget(Listed(SMART, REALM, side, TARGET, ALICE, "", "", 0.0, 0.0))
        assert add(stats, count(NumberStats(calls=19), calling=calling)) == []


# ------------------------------------------------------------------ numbers that are out of line

FINE = 60_000  # ms of talk a call


def tally(calls: int, answered: int, fresh: int = 0, short: int = 0, average_ms: int = FINE) -> NumberStats:
    return NumberStats(calls, answered, short, answered * average_ms, fresh=fresh)


@pytest.mark.parametrize(
    ("of", "is_listed"),
    [
        (tally(19, 0), False),
        (tally(20, 0), True),
        # Answered, of at least 20 %: out of line below, far out at a quarter of it.
        (tally(1_000, 199, 501), True),
        (tally(1_000, 200, 501), False),
        (tally(100, 5), True),
        (tally(100, 6), False),
        # Countries that are new: more than half of the calls.
        (tally(100, 19, 51), True),
        (tally(100, 19, 50), False),
        # The average, of at least 10 s: below, and below half of it.
        (tally(100, 100, 51, average_ms=9_999), True),
        (tally(100, 100, 51, average_ms=10_000), False),
        (tally(100, 100, average_ms=4_000), True),
        (tally(100, 100, average_ms=4_999), True),
        (tally(100, 100, average_ms=5_000), False),
        # Short ones, of at most 60 %: above, and above half way to all.
        (tally(1_000, 1_000, 501, 601), True),
        (tally(1_000, 1_000, 501, 600), False),
        (tally(1_000, 1_000, 0, 801), True),
        (tally(1_000, 1_000, 0, 800), False),
    ],
)
def test_a_number_is_listed_for_two_statistics_that_are_out_of_line_or_one_that_is_far_out(
    of: NumberStats, is_listed: bool
) -> None:
    assert bool(judge(of, SMART_ON)) is is_listed


@pytest.mark.parametrize(("min_calls", "answered", "is_listed"), [(20, 2, True), (20, 1, False), (21, 2, False)])
def test_averages_of_a_few_answered_calls_say_nothing(min_calls: int, answered: int, is_listed: bool) -> None:
    lenient = SmartList(min_calls=min_calls, min_answered_percent=4, min_average=10)
    assert bool(judge(tally(25, answered, average_ms=1_000), lenient)) is is_listed


def test_what_is_out_of_line_is_said_in_words() -> None:
    assert judge(tally(100, 19, 60, 13, 4_000), SMART_ON) == (
        "of 100 calls 19 % answered (at least 20 %), 4.0 s on average (at least 10 s), "
        "68 % shorter than 6 s (at most 60 %), 60 % to countries new to the account"
    )


def test_a_number_that_is_out_of_line_for_one_account_is_listed_for_it() -> None:
    for calling, side in ((True, ListSide.CALLING), (False, ListSide.CALLED)):
        stats = CallStats()
        assert add(stats, count(NumberStats(calls=20), calling=calling), 5.0, OFF) == [
            Listed(
                SMART, REALM, side, TARGET, ALICE, "statistics", "of 20 calls 0 % answered (at least 20 %)", 1_005.0,
                1_005.0 + 7_200,
            )
        ]  # fmt: skip
        assert add(stats, count(NumberStats(attacks=1), calling=calling), 6.0, OFF) == [], "no call, no judgement"
        assert add(CallStats(), count(NumberStats(calls=20), calling=calling), 5.0, OFF, SMART_OFF) == []


def test_the_last_one_to_two_hours_are_looked_at_together() -> None:
    stats = CallStats()
    steps = ((0.0, 1, False), (GENERATION_S, 10, False), (2 * GENERATION_S, 9, False), (2 * GENERATION_S, 1, True))
    for at_s, calls, is_listed in steps:
        assert bool(add(stats, count(NumberStats(calls=calls)), at_s, OFF)) is is_listed, at_s
    later = CallStats()
    for at_s, calls, is_listed in ((0.0, 1, False), (3_600.0, 9, False), (3_700.0, 5, False), (7_300.0, 6, True)):
        assert bool(add(later, count(NumberStats(calls=calls)), at_s, OFF)) is is_listed, at_s


def test_all_of_both_hours_is_added_up() -> None:
    stats = CallStats()
    half = NumberStats(calls=10, answered=10, short=10, talk_ms=10_000, fresh=10)
    add(stats, count(half), 0.0, OFF)
    (listed,) = add(stats, count(half), GENERATION_S, OFF)
    assert listed.evidence == (
        "of 20 calls 1.0 s on average (at least 10 s), 100 % shorter than 6 s (at most 60 %), "
        "100 % to countries new to the account"
    )


# ------------------------------------------------------------------ countries that are new


def learnt(*calls: tuple[str, int, float]) -> CallStats:
    """Numbers that Alice has called: how often, and when."""
    stats = CallStats()
    for number, times, at_s in calls:
        add(stats, count(NumberStats(calls=times), number), at_s, OFF, SMART_OFF)
    return stats


def test_nothing_is_new_to_an_account_of_which_little_is_known() -> None:
    assert not CallStats().is_fresh(ALICE, TARGET, MonoS(0.0))
    assert not learnt((CALLER, LEARNT_CALLS - 1, 0.0)).is_fresh(ALICE, TARGET, MonoS(1.0))
    known = learnt((CALLER, LEARNT_CALLS, 0.0))
    assert known.is_fresh(ALICE, TARGET, MonoS(1.0))
    assert not known.is_fresh(BOB, TARGET, MonoS(1.0))
    assert not known.is_fresh(ALICE, CALLER, MonoS(1.0)), "what an account called first is its home"


@pytest.mark.parametrize(("after_s", "is_new"), [(0.0, True), (FRESH_S - 1, True), (FRESH_S, False)])
def test_a_country_stays_new_for_a_day_from_its_first_call_on(after_s: float, is_new: bool) -> None:
    stats = learnt((CALLER, LEARNT_CALLS, 0.0), (TARGET, 1, 100.0), (TARGET, 1, 5_000.0))
    assert stats.is_fresh(ALICE, TARGET, MonoS(100.0 + after_s)) is is_new


def test_areas_of_a_code_that_countries_share_are_told_apart() -> None:
    stats = learnt(("12125550123", LEARNT_CALLS, 0.0))
    assert stats.is_fresh(ALICE, "14165550123", MonoS(1.0))
    assert not stats.is_fresh(ALICE, "13055550123", MonoS(1.0))


def test_who_calls_everywhere_calls_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_stats, "COUNTRIES_MAX", 2)
    stats = learnt((CALLER, LEARNT_CALLS, 0.0))
    assert stats.is_fresh(ALICE, TARGET, MonoS(1.0))
    stats = learnt((CALLER, LEARNT_CALLS, 0.0), ("33142345678", 1, 0.0), ("390612345678", 1, 0.0))
    assert not stats.is_fresh(ALICE, TARGET, MonoS(1.0))
    account = stats.accounts.peek(ALICE.hex)
    assert account is not None
    assert len(account.countries) == 2


# ------------------------------------------------------------------ bounds


def test_what_goes_for_want_of_room_is_counted_in_all_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_stats, "ACCOUNTS_MAX", 2)
    stats = CallStats(table_max=2)
    for number in range(3):
        add(stats, count(NumberStats(calls=1), f"4930{number}", account=UUID(int=number)))
    assert (len(stats.targets), len(stats.accounts), stats.evicted) == (2, 2, 3)
    for number in range(5):
        add(stats, count(NumberStats(calls=1), f"4930{number}", calling=True))
    assert (len(stats.callers), stats.evicted) == (2, 6)


def test_numbers_are_forgotten_after_a_day_and_accounts_after_thirty() -> None:
    stats = learnt((TARGET, 1, 0.0))
    add(stats, count(NumberStats(calls=1), calling=True))
    stats.expire(MonoS(86_399.0))
    assert (len(stats.targets), len(stats.callers), len(stats.accounts)) == (1, 1, 1)
    stats.expire(MonoS(86_401.0))
    assert (len(stats.targets), len(stats.callers), len(stats.accounts)) == (0, 0, 1)
    stats.expire(MonoS(30 * 86_400.0 + 1))
    assert len(stats.accounts) == 0
