"""admission.core.counting: which counters a call touches, and which of them have to be read first."""

from dataclasses import replace
from uuid import UUID

import pytest
from admission_tables import (
    BOTH_ROUTES,
    CARRIERS,
    NOW_S,
    POLICY,
    account,
    admission,
    admitted,
    carrier,
    ended,
    extension,
    tables_of,
)

from callwarden.call_admission.admission.core.commands import Admission, Command, DecisionRecord
from callwarden.call_admission.admission.core.counting import WIDE_SHARDS, Counting, carrier_scope, without_carriers
from callwarden.call_admission.admission.core.state import AccountState, CounterRow, Loaded, ReferencedAccount
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Hold, LimitScope, RouteCost
from callwarden.call_admission.model.policy import AddressPolicy, AdmissionPolicy
from callwarden.call_admission.model.scopes import scope_of
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.account import AccountType

ONE, SHOP = UUID(int=1), UUID(int=9)
SYSTEM, REALM, ADDRESS = (
    scope_of("system", ""), scope_of("realm", "example.org"), scope_of("address", "example.org 192.0.2.7")
)  # fmt: skip
EVERY = replace(POLICY, owners=frozenset({"realm", "system", "address"}))


def loaded(of: Account, *referenced: Account, holds: tuple[Hold, ...] = ()) -> Loaded:
    return Loaded(
        {of.id: AccountState.of(of)}, {hold.id: hold for hold in holds},
        referenced={each.id: ReferencedAccount(each, 1) for each in referenced},
    )  # fmt: skip


def counted(
    of: Account,
    *referenced: Account,
    slot: int = 0,
    policy: AdmissionPolicy = POLICY,
    command: Admission | None = None,
    is_whole: bool = False,
) -> list[tuple[str, UUID, int]]:
    counting = Counting(loaded(of, *referenced), lambda realm: policy, slot, is_whole=is_whole)
    return [(kind, key, shard) for kind, key, shard in counting.of_new(of, command or admission(1), policy)]


def shop(**of: int) -> Account:
    return account(9, type=AccountType.RESELLER, **of)


def test_most_calls_are_counted_nowhere_but_in_their_accounts_row() -> None:
    assert counted(account()) == []
    assert counted(account(shards=1), shop(), carrier("carrier")) == []


@pytest.mark.parametrize(("slot", "shard"), [(0, 0), (3, 3), (5, 1)])
def test_a_sharded_accounts_calls_are_counted_in_its_processs_shard(slot: int, shard: int) -> None:
    assert counted(account(shards=4), slot=slot) == [("account", ONE, shard)]


def test_a_process_without_a_slot_counts_in_the_first_shard() -> None:
    of = account(shards=4)
    (scope,) = Counting(loaded(of), lambda realm: POLICY).of_new(of, admission(1), POLICY)
    assert scope.shard == 0


@pytest.mark.parametrize(("shards", "shard"), [(0, 0), (1, 0), (3, 2)])
def test_a_resellers_accounts_are_counted_in_one_of_its_rows(shards: int, shard: int) -> None:
    assert counted(account(parent=SHOP), shop(shards=shards), slot=5) == [("reseller", SHOP, shard)]
    assert counted(account(parent=SHOP), slot=5) == [], "one that is gone"


@pytest.mark.parametrize(
    ("owners", "wanted"),
    [
        ({"realm"}, [("realm", REALM, 3)]),
        ({"system"}, [("system", SYSTEM, 3)]),
        ({"address"}, [("address", ADDRESS, 0)]),
        ({"realm", "system", "address"}, [("realm", REALM, 3), ("system", SYSTEM, 3), ("address", ADDRESS, 0)]),
    ],
)
def test_who_else_is_counted_is_what_policy_limits(owners: set[str], wanted: list[tuple[str, UUID, int]]) -> None:
    policy = replace(POLICY, owners=frozenset(owners))
    assert counted(account(), policy=policy, slot=WIDE_SHARDS + 3) == wanted


@pytest.mark.parametrize(("only", "source", "counts"), [
    (None, "192.0.2.7", True), ("account-1", "192.0.2.7", True), ("bob", "192.0.2.7", False), (None, "", False),
])  # fmt: skip
def test_an_address_is_counted_if_there_is_one_and_for_the_account_that_policy_names(
    only: str | None, source: str, counts: bool
) -> None:
    policy = replace(POLICY, owners=frozenset({"address"}), address=AddressPolicy(5, None, None, 1_000, only))
    asked = replace(admission(1), request=replace(admission(1).request, source_address=source))
    assert bool(counted(account(), policy=policy, command=asked)) is counts


@pytest.mark.parametrize("limit", ["talk_day_s", "talk_month_s"])
def test_carriers_are_counted_that_have_a_limit_of_talk_time(limit: str) -> None:
    asked = admission(1, routes=BOTH_ROUTES)
    key = CARRIERS["other"]
    carriers = carrier("carrier"), carrier("other", **{limit: 60})
    assert counted(account(), *carriers, command=asked) == [("carrier", scope_of("carrier", str(key)), 0)]
    assert counted(account(), *carriers) == [], "a call that can't go by it"
    assert counted(account(), *carriers, command=replace(asked, quote=None)) == []


def test_a_query_about_a_reseller_or_a_carrier_looks_at_its_own_counters() -> None:
    assert counted(shop(shards=3), shop(shards=3), is_whole=True, slot=5) == [("reseller", SHOP, 0)]
    assert counted(carrier("carrier"), is_whole=True) == [
        ("carrier", scope_of("carrier", str(CARRIERS["carrier"])), 0)
    ]  # fmt: skip
    assert counted(shop(), shop()) == []
    assert counted(account(), is_whole=True) == []


def test_shards_of_each_kind_of_owner() -> None:
    of = account(shards=4)
    counting = Counting(loaded(of, shop(shards=3)), lambda realm: POLICY)
    rows = {
        kind: counting.shards_of(of, LimitScope(kind, SHOP, 0))
        for kind in ("account", "reseller", "realm", "system", "address", "carrier")
    }
    assert rows == {
        "account": 4, "reseller": 3, "realm": WIDE_SHARDS, "system": WIDE_SHARDS, "address": 1, "carrier": 1
    }  # fmt: skip
    assert (
        Counting(loaded(of, shop(shards=0)), lambda realm: POLICY).shards_of(of, LimitScope("reseller", SHOP, 0)) == 1
    )
    assert Counting(loaded(of), lambda realm: POLICY).shards_of(of, LimitScope("reseller", SHOP, 0)) == 1


# ------------------------------------------------------------------ what has to be read first


def missing(
    of: Loaded, *commands: Command, policy: AdmissionPolicy = POLICY, is_whole: bool = False
) -> set[tuple[UUID, int]]:
    found: set[tuple[UUID, int]] = set()
    Counting(of, lambda realm: policy, 1, is_whole=is_whole).add_missing(commands, found)
    return found


def running() -> Hold:
    tables = tables_of()
    return admitted(tables.transact([admission(1)], NOW_S)[0])


def test_the_counters_of_new_calls_are_read_first_and_those_that_were_read_are_not_again() -> None:
    read = loaded(account(shards=4))
    assert missing(read, admission(1)) == {(ONE, 1)}
    read.counters[ONE, 1] = CounterRow(0, Usage())
    assert missing(read, admission(1)) == set()
    assert missing(read, admission(1, key=77)) == set(), "of nobody"


def test_a_query_reads_all_rows_of_an_owner() -> None:
    read = loaded(account(shards=3))
    read.counters[ONE, 2] = CounterRow(0, Usage())
    assert missing(read, admission(1), is_whole=True) == {(ONE, 0), (ONE, 1)}


def test_a_call_that_runs_is_counted_where_it_began() -> None:
    hold = replace(running(), scopes=(LimitScope("system", SYSTEM, 2),))
    for command in (extension(1, 60), ended(1, None, NOW_S)):
        assert missing(loaded(account(), holds=(hold,)), command) == {(SYSTEM, 2)}
        assert missing(loaded(account(shards=4), holds=(hold,)), command) == {(SYSTEM, 2), (ONE, 0)}
    own = replace(hold, scopes=(LimitScope("account", ONE, 3),))
    assert missing(loaded(account(shards=4), holds=(own,)), extension(1, 60)) == {(ONE, 3)}
    assert missing(loaded(account(), holds=(hold,)), admission(1), policy=EVERY) == set(), (
        "an admission that was repeated"
    )


def test_commands_about_nothing_that_runs_need_no_counters() -> None:
    record = DecisionRecord(UUID(int=5), "c", None, NOW_S, "refuse", None)
    hold = replace(running(), scopes=(LimitScope("system", SYSTEM, 2),), account_id=UUID(int=5))
    read = loaded(account(shards=4), holds=(hold,))
    commands = (record, extension(7, 60), ended(7, None, NOW_S), ended(1, None, NOW_S, key=5), admission(8))
    assert missing(read, *commands) == {(ONE, 1)}


# ------------------------------------------------------------------ carriers that were ruled out


def test_carriers_of_routes_that_are_excluded_are_not_counted() -> None:
    low, high = CARRIERS["carrier"], CARRIERS["other"]
    scopes = (
        LimitScope("reseller", SHOP, 0), LimitScope("carrier", scope_of("carrier", str(low)), 0),
        LimitScope("carrier", scope_of("carrier", str(high)), 0),
    )  # fmt: skip
    assert without_carriers(scopes, (RouteCost("other", high, None), RouteCost("x", None, None))) == (
        scopes[0], scopes[2]
    )  # fmt: skip
    assert carrier_scope(RouteCost("other", high, None)) == scopes[2].scope
    assert carrier_scope(RouteCost("x", None, None)) is carrier_scope(None) is None


def test_the_addresses_of_an_ipv6_network_are_counted_as_one() -> None:
    def scope(address: str) -> UUID:
        command = admission(1)
        command.request.source_address = address
        return {kind: key for kind, key, _ in counted(account(1), policy=EVERY, command=command)}["address"]

    assert scope("2001:db8:1:2::1") == scope("2001:db8:1:2:ffff::9") != scope("2001:db8:1:3::1")
    assert scope("192.0.2.7") == ADDRESS == scope("::ffff:192.0.2.7")
    assert scope("192.0.2.8") != ADDRESS
