"""admission.core.sharing: what shards of one owner hand to the one that is short, and which rows that writes."""

from uuid import UUID

import pytest
from admission_line import ACCOUNT_ID, NOW_S, RESELLER_ID, account, counted, reseller, snapshot

from callwarden.call_admission.admission.core.rules.rule import ShardDemand
from callwarden.call_admission.admission.core.sharing import Sharing
from callwarden.call_admission.admission.core.snapshot import CounterView
from callwarden.call_admission.admission.core.state import CounterKey, CounterRow
from callwarden.call_admission.model.scopes import ACCOUNT, RESELLER
from callwarden.call_admission.model.usage import Usage
from callwarden.limits.shards import Shard

LIMIT = 100


def rows(*used: int, key: UUID = ACCOUNT_ID, parts: tuple[int, ...] = ()) -> dict[CounterKey, CounterRow]:
    """Of shards that have spent so much, and were granted those parts of LIMIT."""
    grants = [{"credit": (LIMIT, len(used), part)} for part in parts] or [{} for _ in used]
    return {(key, index): CounterRow(1, Usage(0, micros), grants[index]) for index, micros in enumerate(used)}


def view(counters: dict[CounterKey, CounterRow], owner: str = ACCOUNT, total: Usage | None = None) -> CounterView:
    """The first shard of an owner."""
    key, count = next(iter(counters))[0], len(counters)
    row = counters[key, 0]
    of = account() if owner == ACCOUNT else reseller()
    return counted(owner, row.usage, key=key, shard=Shard(count, 0, row.grants), account=of, total=total)


def lend(
    counters: dict[CounterKey, CounterRow], of: CounterView, needed: int
) -> tuple[bool, set[CounterKey], set[CounterKey], set[UUID]]:
    """Whether there is more, which rows have to be read, which change, and whose shards are among these."""
    missing: set[CounterKey] = set()
    touched: dict[CounterKey, CounterRow] = {}
    own: set[UUID] = set()
    sharing = Sharing(counters, NOW_S, missing, touched, own)
    demand = ShardDemand(of.owner, "credit", LIMIT, needed)
    return sharing.share([demand], snapshot(account(), of)), missing, set(touched), own


def parts(counters: dict[CounterKey, CounterRow]) -> list[int]:
    return [row.grants["credit"][2] for row in counters.values()]


def test_without_the_other_rows_they_are_asked_for_and_nothing_moves() -> None:
    counters = rows(10, 20)
    of = view(counters)
    del counters[ACCOUNT_ID, 1]
    assert lend(counters, of, 5) == (False, {(ACCOUNT_ID, 0), (ACCOUNT_ID, 1)}, set(), set())
    assert (of.total, counters[ACCOUNT_ID, 0].grants) == (None, {})


@pytest.mark.parametrize(("owner", "key", "own"), [(ACCOUNT, ACCOUNT_ID, {ACCOUNT_ID}), (RESELLER, RESELLER_ID, set())])
def test_a_limit_that_was_never_shared_out_is_and_every_row_is_written(owner: str, key: UUID, own: set[UUID]) -> None:
    counters = rows(10, 20, key=key)
    of = view(counters, owner)
    assert lend(counters, of, 5) == (True, set(), {(key, 0), (key, 1)}, own)
    assert parts(counters) == [10 + 35, 20 + 35]
    assert (of.allowance("credit", LIMIT), of.shard) == (45, Shard(2, 0, counters[key, 0].grants))
    assert of.total is not None
    assert of.total.spent_micros == 30


def test_the_shard_that_has_most_left_lends_and_the_others_rows_stay() -> None:
    counters = rows(40, 0, 5, parts=(40, 50, 10))
    of = view(counters)
    assert lend(counters, of, 5) == (True, set(), {(ACCOUNT_ID, 0), (ACCOUNT_ID, 1)}, {ACCOUNT_ID})
    assert parts(counters) == [65, 25, 10]


def test_where_nothing_is_left_nothing_moves_and_only_the_owners_numbers_are_new() -> None:
    counters = rows(50, 50, parts=(50, 50))
    of = view(counters)
    assert lend(counters, of, 5) == (True, set(), set(), set()), "a refusal shows them"
    assert of.total is not None
    assert of.total.spent_micros == 100
    assert lend(counters, of, 5) == (False, set(), set(), set())
    assert parts(counters) == [50, 50]


def test_a_shard_that_has_room_again_by_now_is_lent_nothing() -> None:
    counters = rows(0, 0, parts=(50, 50))
    assert lend(counters, view(counters, total=Usage()), 0) == (False, set(), set(), set())


def test_nothing_is_asked_for_and_nothing_moves() -> None:
    assert Sharing({}, NOW_S, set(), {}, set()).share([], snapshot()) is False
