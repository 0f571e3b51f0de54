"""admission.core.contended: which accounts several processes keep changing at the same moment."""

from uuid import UUID

import pytest
from admission_tables import account

from callwarden.call_admission.admission.core import contended as contended_module
from callwarden.call_admission.admission.core.contended import CONFLICTS_PER_S, Contended, versions_of
from callwarden.call_admission.admission.core.state import AccountState, Changes, CounterRow, Loaded
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import UnixS

ONE, TWO = UUID(int=1), UUID(int=2)


def found(version: int, key: int = 1, **of: object) -> Loaded:
    """What is read of the account after a write that failed."""
    state = AccountState.of(account(key, **of), version)
    return Loaded({state.account.id: state}, {})


def conflicts(contended: Contended, count: int, at_s: float = 100.0, key: int = 1, **of: object) -> None:
    for _ in range(count):
        contended.compare({UUID(int=key): 3}, found(4, key, **of), UnixS(at_s))


def test_so_many_conflicts_within_a_second_are_too_many() -> None:
    contended = Contended()
    conflicts(contended, CONFLICTS_PER_S - 1)
    assert contended.take() == {}
    conflicts(contended, 1, 100.9)
    assert contended.take() == {ONE: 1}
    assert contended.take() == {}, "told once"


def test_conflicts_of_another_second_or_account_are_not_added() -> None:
    contended = Contended()
    conflicts(contended, CONFLICTS_PER_S - 1, 100.9)
    conflicts(contended, CONFLICTS_PER_S - 1, 101.0)
    conflicts(contended, CONFLICTS_PER_S - 1, 101.0, key=2)
    assert contended.take() == {}
    conflicts(contended, 1, 101.0)
    assert contended.take() == {ONE: 1}


def test_an_account_that_has_not_moved_or_is_gone_caused_no_conflict() -> None:
    contended = Contended()
    for _ in range(2 * CONFLICTS_PER_S):
        contended.compare({ONE: 4, TWO: 1}, found(4), UnixS(100.0))
    assert contended.take() == {}


def sharded(*versions: int) -> Loaded:
    loaded = found(9, shards=len(versions))
    loaded.counters = {(ONE, index): CounterRow(version, Usage()) for index, version in enumerate(versions)}
    loaded.counters[TWO, 0] = CounterRow(50, Usage())
    return loaded


@pytest.mark.parametrize(("versions", "hot"), [((4, 3), {}), ((5, 3), {ONE: 2}), ((3, 3), {ONE: 2})])
def test_a_sharded_account_has_moved_if_one_of_its_shards_has(versions: tuple[int, ...], hot: dict[UUID, int]) -> None:
    contended = Contended()
    for _ in range(CONFLICTS_PER_S):
        contended.compare({ONE: 7}, sharded(*versions), UnixS(100.0))
    assert contended.take() == hot


def test_a_resellers_shards_are_those_of_its_accounts() -> None:
    contended = Contended()
    conflicts(contended, CONFLICTS_PER_S, shards=4, type=AccountType.RESELLER)
    assert contended.take() == {ONE: 1}


def test_few_are_remembered_those_with_the_last_conflicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contended_module, "KNOWN_MAX", 2)
    monkeypatch.setattr(contended_module, "HOT_MAX", 1)
    contended = Contended()
    conflicts(contended, CONFLICTS_PER_S - 1, key=1)
    conflicts(contended, CONFLICTS_PER_S - 1, key=2)
    conflicts(contended, CONFLICTS_PER_S - 1, key=3)
    conflicts(contended, 1, key=1)
    assert contended.take() == {}, "its first conflicts are forgotten"
    conflicts(contended, 1, key=3)
    conflicts(contended, CONFLICTS_PER_S, key=4)
    assert contended.take() == {UUID(int=3): 1}, "no more than one waits"


def test_a_write_was_based_on_the_versions_of_accounts_and_of_their_shards_together() -> None:
    changes = Changes()
    changes.versions = {TWO: 5}
    changes.counters = {
        (ONE, 0): CounterRow(4, Usage()), (ONE, 1): CounterRow(3, Usage()), (UUID(int=8), 0): CounterRow(9, Usage())
    }  # fmt: skip
    changes.own_shards = {ONE}
    assert versions_of(changes) == {TWO: 5, ONE: 7}
