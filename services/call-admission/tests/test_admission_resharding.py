"""admission.core.resharding: an account's counts and money move with the number of rows that they are kept in."""

from uuid import UUID

import pytest
from admission_tables import NOW_S

from callwarden.call_admission.admission.core.resharding import AccountCounts, moves, resharded, scopes_after
from callwarden.call_admission.model.calls import LimitScope
from callwarden.call_admission.model.leases import LEASE_STEP_S, Leases
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage

ONE = UUID(int=1)
LATE = int(NOW_S) // LEASE_STEP_S + 5  # the step in which a lease expires


def counted(held: int, spent: int, calls: int = 1) -> Usage:
    return Usage(held, spent, [CalendarSpan(7, spent, held)], leases=Leases([[LATE, calls]]))


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [(1, 1, False), (1, 2, True), (2, 1, True), (2, 4, False), (4, 2, True), (4, 4, False), (2, 3, False)],
)
def test_counts_move_into_shards_out_of_them_and_into_fewer(before: int, after: int, moved: bool) -> None:
    assert moves(before, after) is moved
    counts = AccountCounts(100, 0, Usage(), {0: counted(1, 1), 1: counted(2, 2)})
    assert (resharded(counts, before, after, []) is counts) is not moved


def test_the_first_shard_takes_over_what_the_row_has_counted_but_not_what_is_paid() -> None:
    own = Usage(30, 500, [CalendarSpan(7, 500, 30)], notice_day=7, notices={"lines": 80})
    expire_at_s = [float(LATE * LEASE_STEP_S)] * 2 + [float(LATE * LEASE_STEP_S) + LEASE_STEP_S]
    moved = resharded(AccountCounts(1_000, 30, own, {}), 1, 4, expire_at_s)
    assert (moved.balance_micros, moved.held_micros) == (1_000, 0)
    assert moved.own == Usage(notice_day=7, notices={"lines": 80})
    (first,) = moved.shards.values()
    assert moved.shards.keys() == {0}
    assert (first.held_micros, first.spent_micros, first.days) == (30, 0, [CalendarSpan(7, 500, 30)])
    assert (first.notice_day, first.notices) == (0, {})
    assert first.leases is not None
    assert first.leases.steps == [[LATE, 2], [LATE + 1, 1]]
    assert first.leases.swept <= 0, "no hold is left out for its moment"
    assert own.spent_micros == 500, "a copy"


def test_shards_that_are_dropped_go_into_the_first_and_the_others_stay() -> None:
    shards = {0: counted(1, 10), 1: counted(2, 20), 2: counted(4, 40), 3: counted(8, 80)}
    own = Usage(notice_day=7, notices={"lines": 80})
    moved = resharded(AccountCounts(1_000, 3, own, shards), 4, 2, [])
    assert (moved.balance_micros, moved.held_micros, moved.own) == (1_000, 3, own)
    assert moved.shards.keys() == {0, 1}
    assert (moved.shards[0].held_micros, moved.shards[0].spent_micros) == (13, 130)
    assert moved.shards[0].used("calls", NOW_S) == 3
    assert moved.shards[1] == counted(2, 20)


def test_without_shards_the_row_counts_all_and_the_charges_leave_the_balance() -> None:
    shards = {0: counted(1, 10), 1: counted(2, 20), 3: counted(8, 80)}
    own = Usage(notice_day=7, notices={"lines": 80})
    moved = resharded(AccountCounts(1_000, 5, own, shards), 4, 1, [])
    assert (moved.balance_micros, moved.held_micros, moved.shards) == (1_000 - 110, 5 + 11, {})
    assert moved.own.days == [CalendarSpan(7, 110, 11)]
    assert moved.own.leases is None, "an account's own row counts its calls by their holds"
    assert (moved.own.notice_day, moved.own.notices) == (7, {"lines": 80})


def test_running_calls_end_where_their_counts_are_then() -> None:
    scopes = (LimitScope("account", ONE, 3), LimitScope("reseller", UUID(int=9), 3))
    assert scopes_after(scopes, 1) == scopes[1:]
    assert scopes_after(scopes, 2) == (LimitScope("account", ONE, 0), scopes[1])
    assert scopes_after(scopes, 3) == (LimitScope("account", ONE, 0), scopes[1])
    assert scopes_after(scopes, 4) == scopes
