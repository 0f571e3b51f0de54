"""What a process remembers of its last batches saves reads and never decides anything by itself."""

from dataclasses import replace
from uuid import UUID

import pytest
from admission_tables import (
    NOW_S,
    POLICY,
    RESELLERS,
    ProcessDied,
    account,
    admission,
    admitted,
    ended,
    extension,
    reason,
    tables_of,
)

from callwarden.call_admission.admission.core import cache as cache_module
from callwarden.call_admission.admission.core.cache import AGE_S_MAX, AccountCache
from callwarden.call_admission.admission.core.commands import Admitted, Done, Extended, Ignored, Refused
from callwarden.call_admission.admission.core.state import Changes, CounterRow, Loaded, ReadSet
from callwarden.call_admission.model.calls import Started
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Reason


def test_a_yes_on_what_is_remembered_needs_no_reading_and_a_no_does() -> None:
    tables = tables_of(account(max_lines=3))
    process = tables.process()
    for number in range(1, 4):
        assert isinstance(tables.transact([admission(number)], NOW_S, POLICY, process)[0], Admitted)
    assert process.unread == 2
    assert reason(tables.transact([admission(4)], NOW_S, POLICY, process)[0]) is Reason.LINES
    assert tables.transact([ended(1, NOW_S, NOW_S)], NOW_S, POLICY, process) == [Done()]
    assert process.unread == 2
    assert tables.transact([ended(1, NOW_S, NOW_S)], NOW_S, POLICY, process) == [Ignored("settled")]
    assert process.conflicts == 0, "a call that is over is remembered as none that runs"


@pytest.mark.setting("maxlines")
def test_what_another_process_has_moved_is_not_decided_on_from_memory() -> None:
    tables = tables_of(account(max_lines=3))
    processes = tables.process(), tables.process()
    outcomes = [tables.transact([admission(n)], NOW_S, POLICY, processes[n % 2])[0] for n in range(1, 9)]
    assert [type(outcome) for outcome in outcomes] == [Admitted] * 3 + [Refused] * 5


@pytest.mark.setting("credit")
def test_a_hold_that_another_process_has_moved_is_read_again_though_its_account_is_known_since() -> None:
    tables = tables_of()
    ours, other = tables.process(), tables.process()
    tables.transact([admission(1)], NOW_S, POLICY, ours)
    tables.transact([extension(1, 60, NOW_S)], NOW_S, POLICY, other)
    tables.transact([admission(2)], NOW_S, POLICY, ours)
    tables.transact([admission(3)], NOW_S, POLICY, ours)
    assert ours.unread == 1
    (outcome,) = tables.transact([extension(1, 120, NOW_S)], NOW_S, POLICY, ours)
    assert isinstance(outcome, Extended)
    assert outcome.hold.granted_s == 180
    assert tables.accounts[UUID(int=1)].held_micros == sum(hold.held_micros for hold in tables.holds.values())
    # From there on all changes are ours again.
    tables.transact([extension(1, 180, NOW_S)], NOW_S, POLICY, ours)
    assert (ours.unread, ours.conflicts) == (2, 1)


@pytest.mark.setting("credit")
def test_a_top_up_counts_at_once_though_the_balance_is_remembered() -> None:
    tables = tables_of(account(balance_micros=60_000))
    process = tables.process()
    tables.transact([admission(1)], NOW_S, POLICY, process)
    tables.accounts[UUID(int=1)] = replace(tables.accounts[UUID(int=1)], balance_micros=160_000)
    (second,) = tables.transact([admission(2)], NOW_S, POLICY, process)
    assert admitted(second).granted_s == 60


def test_a_line_that_expires_is_not_remembered() -> None:
    tables = tables_of(account(max_lines=1))
    process = tables.process()
    (first,) = tables.transact([admission(1)], NOW_S, POLICY, process)
    later_s = admitted(first).expires_at_s
    (second,) = tables.transact([admission(2)], later_s, POLICY, process)
    assert isinstance(second, Admitted)


def test_a_line_that_has_expired_counts_no_more_in_what_people_are_told() -> None:
    tables = tables_of(account(max_lines=4))
    process = tables.process()
    (first,) = tables.transact([admission(1)], NOW_S, POLICY, process)
    until_s = admitted(first).expires_at_s
    tables.transact([admission(2)], until_s - 10, POLICY, process)
    tables.transact([admission(3)], until_s, POLICY, process)
    assert [notice for notice in tables.notices if notice.rule == "lines"] == [], "two of four would be half"


@pytest.mark.setting("maxlines")
def test_lines_that_a_batch_has_not_counted_are_not_remembered_as_none() -> None:
    tables = tables_of(account(max_lines=1))
    process = tables.process()
    tables.transact([admission(1)], NOW_S)
    tables.transact([Started(UUID(int=1), UUID(int=1), NOW_S, "carrier")], NOW_S, POLICY, process)
    assert reason(tables.transact([admission(2)], NOW_S, POLICY, process)[0]) is Reason.LINES


def test_what_a_write_that_failed_would_have_changed_is_forgotten() -> None:
    tables = tables_of()
    process = tables.process()
    tables.transact([admission(1)], NOW_S, POLICY, process)
    tables.dies = "before"
    with pytest.raises(ProcessDied):
        tables.transact([admission(2)], NOW_S, POLICY, process)
    tables.dies = ""
    tables.transact([admission(3)], NOW_S, POLICY, process)
    assert tables.usages[UUID(int=1)].held_micros == 120_000
    assert tables.accounts[UUID(int=1)].held_micros == 120_000


def test_a_hold_is_used_as_long_as_all_since_was_ours_though_its_account_was_forgotten() -> None:
    tables = tables_of(account(1), account(2))
    process = tables.process(AccountCache(accounts_max=1))
    for number, key in ((1, 1), (2, 2), (3, 1)):
        tables.transact([admission(number, key)], NOW_S, POLICY, process)
    assert process.unread == 0
    (outcome,) = tables.transact([extension(1, 60, NOW_S)], NOW_S, POLICY, process)
    assert isinstance(outcome, Extended)
    assert process.unread == 1
    # Another account's command about a hold whose own account is forgotten.
    tables.transact([admission(4, 2)], NOW_S, POLICY, process)
    assert tables.transact([ended(3, None, NOW_S, key=2)], NOW_S, POLICY, process) == [Ignored("unknown")]


def test_each_hold_is_judged_by_what_has_happened_to_its_own_account() -> None:
    tables = tables_of(account(1), account(2))
    tables.versions[UUID(int=2)] = 5
    process = tables.process()
    tables.transact([admission(1, 1), admission(2, 2)], NOW_S, POLICY, process)
    outcomes = tables.transact([extension(1, 60), extension(2, 60, key=2)], NOW_S, POLICY, process)
    assert [type(outcome) for outcome in outcomes] == [Extended, Extended]
    assert (process.unread, process.conflicts) == (1, 0)


def test_an_id_that_is_over_or_refused_is_found_though_it_is_not_remembered() -> None:
    tables = tables_of(account(max_lines=2))
    process = tables.process()
    tables.transact([admission(1)], NOW_S, POLICY, process)
    tables.transact([ended(1, NOW_S, NOW_S + 5)], NOW_S + 5, POLICY, process)
    tables.transact([admission(2)], NOW_S + 5, POLICY, process)
    assert tables.transact([admission(1)], NOW_S + 5, POLICY, process) == [Ignored("settled")]


def test_memory_is_bounded_and_forgets_what_is_old() -> None:
    cache = AccountCache(accounts_max=3)
    tables = tables_of(*(account(key) for key in range(1, 10)))
    process = tables.process(cache)
    for key in range(1, 10):
        tables.transact([admission(key, key)], NOW_S, POLICY, process)
    assert len(cache) == 3
    old = ReadSet.of([admission(99, 9)], UnixS(NOW_S + AGE_S_MAX + 1))
    assert cache.checkout(old) is None


@pytest.mark.parametrize(
    ("age_s", "is_known"), [(0.0, True), (AGE_S_MAX, True), (AGE_S_MAX + 0.1, False), (-1.0, False)]
)
def test_an_account_is_remembered_for_half_a_minute_and_not_before_its_time(age_s: float, is_known: bool) -> None:
    cache, tables = AccountCache(), tables_of()
    tables.transact([admission(1)], NOW_S, POLICY, tables.process(cache))
    asked = ReadSet.of([admission(2)], UnixS(NOW_S + age_s))
    loaded = cache.checkout(asked)
    assert (loaded is not None) is is_known
    if loaded is not None:
        assert loaded.accounts[UUID(int=1)].lines == 1
        assert cache.checkout(asked) is None, "it is being changed"


@pytest.mark.parametrize(("age_s", "is_known"), [(20.0, True), (AGE_S_MAX, True), (AGE_S_MAX + 0.1, False)])
def test_a_reseller_is_remembered_for_half_a_minute_from_its_reading_on(age_s: float, is_known: bool) -> None:
    cache = AccountCache()
    tables = tables_of(account(parent=UUID(int=9)), account(9, type=AccountType.RESELLER))
    process = tables.process(cache)
    tables.transact([admission(1, pricing=RESELLERS)], NOW_S, POLICY, process)
    tables.transact([admission(2, pricing=RESELLERS)], NOW_S + 20, POLICY, process)  # the account's age begins anew
    assert process.unread == 1
    loaded = cache.checkout(ReadSet.of([admission(3)], UnixS(NOW_S + age_s)))
    assert (loaded is not None) is is_known
    if loaded is not None:
        assert loaded.referenced.keys() == {UUID(int=9)}


def test_a_reseller_that_was_read_again_is_remembered_from_then_on() -> None:
    cache = AccountCache()
    tables = tables_of(account(parent=UUID(int=9)), account(9, type=AccountType.RESELLER))
    for later_s in (0.0, 40.0):  # The second one finds the first one's too old.
        tables.transact(
            [admission(int(later_s) + 1, pricing=RESELLERS)], NOW_S + later_s, POLICY, tables.process(cache)
        )
    assert cache.checkout(ReadSet.of([admission(3)], UnixS(NOW_S + 60))) is not None


@pytest.mark.parametrize(
    ("age_s", "is_known"), [(0.0, True), (AGE_S_MAX, True), (AGE_S_MAX + 0.1, False), (-1.0, False)]
)
def test_a_shards_counts_are_remembered_for_half_a_minute_and_given_out_once(age_s: float, is_known: bool) -> None:
    cache, tables = AccountCache(), tables_of(account(shards=2))
    tables.transact([admission(1)], NOW_S, POLICY, tables.process(cache))
    key, at_s = (UUID(int=1), 0), UnixS(NOW_S + age_s)
    found = cache.checkout_counters([key, (UUID(int=1), 7)], at_s)
    assert found.keys() == ({key} if is_known else set())
    if is_known:
        assert found[key].version == tables.counters[key].version
    assert cache.checkout_counters([key], UnixS(NOW_S)) == {}


def test_counts_that_another_process_may_have_moved_are_dropped() -> None:
    cache, tables = AccountCache(), tables_of(account(shards=2))
    tables.transact([admission(1)], NOW_S, POLICY, tables.process(cache))
    cache.drop_counters([(UUID(int=1), 0), (UUID(int=1), 7)])
    assert cache.checkout_counters([(UUID(int=1), 0)], NOW_S) == {}


def test_all_that_is_remembered_is_bounded_and_the_last_used_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "COUNTERS_MAX", 3)
    monkeypatch.setattr(cache_module, "REFERENCED_MAX", 2)
    cache = AccountCache()
    resellers = [account(50 + key, type=AccountType.RESELLER) for key in range(1, 5)]
    tables = tables_of(*resellers, *(account(key, shards=2, parent=UUID(int=50 + key)) for key in range(1, 5)))
    process = tables.process(cache)
    for number, key in enumerate((1, 2, 1, 3, 1, 4, 1), 100):
        tables.transact([admission(number, key, pricing=RESELLERS)], NOW_S, POLICY, process)
    known = [key for key in range(1, 5) if cache.checkout(ReadSet.of([admission(99, key)], NOW_S)) is not None]
    assert known == [1, 4], "two resellers"
    counts = [key for key in range(1, 5) if cache.checkout_counters([(UUID(int=key), 0)], NOW_S)]
    assert counts == [1], "of each call its account's row and its reseller's: three rows are not quite two calls"
    of_resellers = [key for key in range(51, 55) if cache.checkout_counters([(UUID(int=key), 0)], NOW_S)]
    assert of_resellers == [51]


def test_the_counts_that_were_used_longest_ago_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "COUNTERS_MAX", 2)
    keys = [(UUID(int=key), 0) for key in (1, 2, 3)]
    cache = AccountCache()
    for at_s, key in enumerate((keys[0], keys[1], keys[0], keys[2])):
        read = ReadSet((), (), (), UnixS(float(at_s)))
        cache.put(read, Loaded({}, {}), Changes(counters={key: CounterRow(1, Usage())}), is_whole=True)
    assert cache.checkout_counters(keys, UnixS(3.0)).keys() == {keys[0], keys[2]}


def test_holds_that_are_remembered_are_bounded_too() -> None:
    tables = tables_of()
    process = tables.process(AccountCache(holds_max=2))
    for number in range(1, 4):
        tables.transact([admission(number)], NOW_S, POLICY, process)
    unread = process.unread
    for number, is_known in ((3, True), (2, True), (1, False)):
        tables.transact([extension(number, 60)], NOW_S, POLICY, process)
        unread += is_known
        assert process.unread == unread, number


def test_a_call_whose_end_was_read_afresh_is_remembered_no_more() -> None:
    tables = tables_of(account(max_lines=1))
    process = tables.process()
    tables.transact([admission(1)], NOW_S, POLICY, process)
    assert reason(tables.transact([admission(2)], NOW_S, POLICY, process)[0]) is Reason.LINES
    for command in (ended(1, None, NOW_S), admission(3)):
        tables.transact([command], NOW_S, POLICY, process)
    assert tables.transact([ended(1, None, NOW_S)], NOW_S, POLICY, process) == [Ignored("settled")]
    assert process.conflicts == 0
