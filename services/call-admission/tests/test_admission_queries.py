"""admission.core.queries: what a call would get and what is used, over all shards, with nothing written."""

import asyncio
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from admission_tables import (
    BOTH_ROUTES,
    CARRIERS,
    NOW_S,
    POLICY,
    RESELLERS,
    RETAIL,
    Tables,
    account,
    admission,
    admitted,
    carrier,
    ended,
    extension,
    tables_of,
)

from callwarden.call_admission.admission.core.commands import Admission, NeedsQuote
from callwarden.call_admission.admission.core.decide import Admit, Evaluation
from callwarden.call_admission.admission.core.queries import AdmissionQuery
from callwarden.call_admission.admission.core.snapshot import Snapshot, SourceTrunk
from callwarden.call_admission.admission.core.state import Changes, Loaded, ReadSet
from callwarden.call_admission.model.calls import Pricing
from callwarden.call_admission.model.lists import ListBuilder, ListHead, Listings, Lists
from callwarden.call_admission.model.policy import AdmissionPolicy, Ceiling
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Reason, Refuse

T = TypeVar("T")

WIDE = replace(POLICY, owners=frozenset({"realm", "system"}), system=Ceiling(9, None), realm=Ceiling(9, None))


def asked(
    tables: Tables,
    command: Admission,
    ask: Callable[[AdmissionQuery, Admission], T | None],
    policy: AdmissionPolicy = POLICY,
    lists: Lists | None = None,
    trunks: dict[str, SourceTrunk] | None = None,
    referenced: Sequence[UUID] = (),
) -> T | None:
    """As the app asks (CallAdmission.simulate, snapshot_of)."""
    read = ReadSet.of([command], NOW_S)
    if referenced:
        read = replace(read, referenced=referenced)

    def work(loaded: Loaded) -> tuple[Changes, T | None]:
        query = AdmissionQuery(loaded, lambda realm: policy, NOW_S, lists, (trunks or {}).get)
        if query.missing_counters(command):
            return query.changes, None
        return query.changes, ask(query, command)

    return asyncio.run(tables.process().look(read, work))


def simulated(tables: Tables, command: Admission, policy: AdmissionPolicy = POLICY) -> tuple[Evaluation, Snapshot]:
    found = asked(tables, command, AdmissionQuery.simulate, policy)
    assert isinstance(found, tuple)
    return found


def seen(tables: Tables, key: int, policy: AdmissionPolicy = POLICY) -> Snapshot:
    """As `limits show` asks about an account."""
    request = replace(admission(99, key).request, destination="", source_address="", local=True)
    found = asked(tables, Admission(request), AdmissionQuery.snapshot_of, policy, referenced=(UUID(int=key),))
    assert found is not None
    return found


def filled(tables: Tables, calls: int, policy: AdmissionPolicy = POLICY, pricing: Pricing = RETAIL) -> None:
    """So many calls, each by another process and in another shard."""
    for number in range(1, calls + 1):
        admitted(tables.transact([admission(number, pricing=pricing)], NOW_S, policy, slot=number)[0])


def test_a_simulation_decides_on_all_shards_together_and_writes_nothing() -> None:
    tables = tables_of(account(shards=4, max_lines=3, balance_micros=10_000_000))
    filled(tables, 2)
    before = deepcopy(tables)
    decided, snapshot = simulated(tables, admission(9))
    assert isinstance(decided.verdict, Admit)
    assert (snapshot.lines, snapshot.held_micros, snapshot.balance_micros) == (2, 120_000, 10_000_000)
    assert tables == before
    filled(tables, 3)
    decided, snapshot = simulated(tables, admission(9))
    assert isinstance(decided.verdict, Refuse)
    assert (decided.verdict.reason, decided.verdict.value, decided.verdict.limit) == (Reason.LINES, 3, 3)


def test_a_simulation_asks_for_the_price_that_the_account_has() -> None:
    tables = tables_of(account(deck="", parent=UUID(int=9)), account(9, type=AccountType.RESELLER, deck="bulk"))
    wanted = NeedsQuote(Pricing("bulk", "bulk", "example.org", is_resellers=True))
    for command in (admission(1), replace(admission(1), quote=None)):
        assert asked(tables, command, AdmissionQuery.simulate) == wanted
    local = Admission(replace(admission(1).request, local=True, destination="bob"))
    decided, _ = simulated(tables, local)
    assert isinstance(decided.verdict, Admit)


def test_nothing_is_known_of_an_account_that_there_is_not() -> None:
    assert asked(tables_of(), admission(1, 77), AdmissionQuery.simulate) is None
    assert asked(tables_of(), admission(1, 77), AdmissionQuery.snapshot_of) is None


def test_a_simulation_looks_at_realm_system_and_reseller_as_a_call_does() -> None:
    tables = tables_of(
        account(parent=UUID(int=9), max_lines=50, balance_micros=10_000_000),
        account(9, type=AccountType.RESELLER, prepaid=False, balance_micros=0, max_lines=40, shards=2),
    )
    filled(tables, 5, WIDE, RESELLERS)
    _, snapshot = simulated(tables, admission(9, pricing=RESELLERS), WIDE)
    lines = {kind: view.usage.used("calls", NOW_S) for kind, view in snapshot.counted.items() if kind != "account"}
    assert lines == {"reseller": 5, "realm": 5, "system": 5}
    narrow = replace(WIDE, system=Ceiling(5, None))
    decided, _ = simulated(tables, admission(9, pricing=RESELLERS), narrow)
    assert isinstance(decided.verdict, Refuse)
    assert (decided.verdict.rule, decided.verdict.value) == ("system_calls", 5)


def test_a_simulation_knows_lists_and_the_trunk_that_the_call_would_come_in_by() -> None:
    builder = ListBuilder(ListHead("irsf"))
    builder.add(["4930*"])
    lists, blocking = Lists.of([builder.build()], Listings()), replace(POLICY, lists=("irsf",))
    found = asked(tables_of(), admission(1), AdmissionQuery.simulate, blocking, lists)
    assert isinstance(found, tuple)
    assert isinstance(found[0].verdict, Refuse)
    assert found[0].verdict.rule == "lists"
    by_trunk = replace(admission(1), request=replace(admission(1).request, trunk="pbx"))
    for known, rule in (({"pbx": SourceTrunk("pbx")}, ""), ({}, "only_local")):
        found = asked(tables_of(), by_trunk, AdmissionQuery.simulate, trunks=known)
        assert isinstance(found, tuple)
        verdict = found[0].verdict
        assert (verdict.rule if isinstance(verdict, Refuse) else "") == rule


def test_what_is_used_of_an_accounts_limits_is_over_all_its_shards() -> None:
    tables = tables_of(account(shards=3, max_lines=9, balance_micros=10_000_000))
    filled(tables, 4)
    tables.transact([ended(1, NOW_S, NOW_S + 10)], NOW_S)
    snapshot = seen(tables, 1)
    assert (snapshot.lines, snapshot.held_micros, snapshot.spent_micros, snapshot.held_day_micros) == (
        3, 190_000, 10_000, 180_000
    )  # fmt: skip


def test_a_resellers_limits_are_measured_by_what_its_accounts_come_to() -> None:
    tables = tables_of(
        account(parent=UUID(int=9), max_lines=50, balance_micros=10_000_000),
        account(9, type=AccountType.RESELLER, prepaid=False, balance_micros=0, shards=2),
    )
    filled(tables, 5, POLICY, RESELLERS)
    counted = seen(tables, 9).counted["reseller"]
    assert counted.usage.used("calls", NOW_S) == 5
    assert counted.account is not None
    assert counted.account.id == UUID(int=9)


def test_a_carriers_limits_are_measured_by_the_calls_that_it_takes() -> None:
    key = CARRIERS["carrier"]
    tables = tables_of(account(), carrier("carrier", talk_day_s=1_000), carrier("other"))
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S)
    tables.transact([extension(1, 60)], NOW_S + 50)
    counted = seen(tables, key.int).carriers
    assert counted.keys() == {str(key)}
    assert counted[str(key)].usage.day(seen(tables, key.int).day.toordinal()).granted_s == 120
    assert not seen(tables, 1).carriers
