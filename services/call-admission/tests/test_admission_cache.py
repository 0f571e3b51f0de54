"""What a process remembers of its last batches saves reads and never decides anything by itself."""

from dataclasses import replace
from uuid import UUID

import pytest
from admission_tables import NOW_S, POLICY, account, admission, admitted, ended, extension, reason, tables_of

from callwarden.call_admission.admission.core.cache import AGE_S_MAX, AccountCache
from callwarden.call_admission.admission.core.commands import Admitted, Done, Extended, Ignored, Refused
from callwarden.call_admission.admission.core.state import ReadSet
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
    assert ours.unread == 2


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
