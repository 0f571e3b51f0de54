"""What a transaction writes, checks and looks up again, beyond what a reader of the tables sees at once."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest
from admission_tables import (
    BOTH_ROUTES,
    CARRIERS,
    NOW_S,
    POLICY,
    RESELLERS,
    Tables,
    account,
    admission,
    applied,
    carrier,
    ended,
    extension,
    held,
    read,
    reason,
    tables_of,
    watched,
)

from callwarden.call_admission.admission.core.commands import (
    Admission,
    Admitted,
    Command,
    DecisionRecord,
    Done,
    EndedLate,
    Extended,
    Ignored,
    NoHold,
    Refused,
)
from callwarden.call_admission.admission.core.counting import Counting
from callwarden.call_admission.admission.core.state import AccountState, Loaded
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Expired, HoldStage, Started, Unclaimed
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.scopes import ACCOUNT, scope_of
from callwarden.call_admission.model.usage import BLOCKED, Usage
from callwarden.call_admission.model.usage_shards import merged
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Reason

ME, HOLD, SHOP = UUID(int=1), UUID(int=1), UUID(int=50)
DAY = day_of(NOW_S, "Europe/Berlin")


def shop(**changes: object) -> Account:
    fixed: dict[str, object] = {"name": "shop", "type": AccountType.RESELLER, "prepaid": False, "balance_micros": 0}
    return account(SHOP.int, **(fixed | changes))


def talk_of(tables: Tables, trunk: str, day: date = DAY) -> tuple[int, int, int, int]:
    """Seconds talked and granted, calls that run and calls in all of a day, by a carrier's counts."""
    span = merged(tables.usages_of(scope_of("carrier", str(CARRIERS[trunk])))).day(day.toordinal())
    return span.talk_s, span.granted_s, span.running, span.calls


# ------------------------------------------------------------------ what has to be the same when it is written


@pytest.mark.setting("maxlines")
def test_a_call_is_not_placed_by_limits_of_a_reseller_that_were_changed_meanwhile() -> None:
    tables = tables_of(account(parent=SHOP), shop(max_lines=9))
    process = tables.process()
    assert isinstance(tables.transact([admission(1, pricing=RESELLERS)], NOW_S, POLICY, process)[0], Admitted)
    tables.accounts[SHOP] = replace(tables.accounts[SHOP], max_lines=1)
    tables.versions[SHOP] = tables.versions.get(SHOP, 0) + 1
    (second,) = tables.transact([admission(2, pricing=RESELLERS)], NOW_S, POLICY, process)
    assert reason(second) is Reason.RESELLER_QUOTA
    conflicts = process.conflicts
    (third,) = tables.transact([admission(3, pricing=RESELLERS)], NOW_S, POLICY, process)
    assert reason(third) is Reason.RESELLER_QUOTA
    tables.transact([ended(1, None, NOW_S)], NOW_S, POLICY, process)
    assert isinstance(tables.transact([admission(4, pricing=RESELLERS)], NOW_S, POLICY, process)[0], Admitted)
    assert process.conflicts == conflicts, "what was read again is what is remembered"


def test_a_resellers_calls_check_its_version_when_they_begin_and_are_extended() -> None:
    tables = watched(account(parent=SHOP), shop(max_lines=9))
    tables.transact([admission(1, pricing=RESELLERS)], NOW_S)
    tables.transact([extension(1, 60)], NOW_S + 50)
    assert [SHOP in changes.checked for changes in tables.written] == [True, True]


def test_the_end_of_a_lapsed_call_and_its_late_answer_check_what_was_read_of_the_hold() -> None:
    tables = watched()
    tables.transact([admission(1)], NOW_S)
    hold = tables.holds[HOLD]
    late_s = hold.expires_at_s + 1
    tables.transact([Expired(HOLD, ME)], late_s)
    tables.transact([Started(HOLD, ME, NOW_S + 5, "carrier")], late_s)
    tables.transact([ended(1, NOW_S + 5, NOW_S + 15)], late_s)
    lapse, answer, end = tables.written[1:]
    for changes in (lapse, answer, end):
        assert changes.expiries == {HOLD: hold.expires_at_s}
    assert ME in lapse.versions
    assert ME in answer.checked
    assert ME in end.versions


@pytest.mark.parametrize("before", [extension(1, 60), Started(HOLD, ME, NOW_S, "carrier")], ids=["extension", "answer"])
def test_a_call_that_changes_and_ends_in_one_batch_is_only_ended(before: Command) -> None:
    tables = watched()
    tables.transact([admission(1)], NOW_S)
    tables.transact([before, ended(1, NOW_S, NOW_S + 30)], NOW_S + 50)
    assert tables.written[-1].updated == {}
    assert [settlement.hold_id for settlement in tables.written[-1].settled] == [HOLD]
    assert tables.holds == {}


def test_a_call_that_lapses_and_ends_in_one_batch_is_only_ended() -> None:
    tables = watched()
    tables.transact([admission(1)], NOW_S)
    tables.transact([Expired(HOLD, ME), ended(1, NOW_S, NOW_S + 30)], NOW_S + 9_999)
    assert tables.written[-1].updated == {}
    assert tables.holds == {}
    assert tables.entries[HOLD] == (ME, -30_000)


# ------------------------------------------------------------------ what is decided again on fresh data


@pytest.mark.parametrize(
    ("balance_micros", "talk_s_max", "again"),
    [(30_000, 7_200, True), (1_000_000, 7_200, False), (1_000_000, 40, False)],
    ids=["cut by money", "a whole slice", "as long as a call may last"],
)
def test_a_call_that_got_less_than_it_may_last_is_decided_again_if_what_was_read_may_be_stale(
    balance_micros: int, talk_s_max: int, again: bool
) -> None:
    outcome, changes = applied(
        admission(1), read(of=account(balance_micros=balance_micros)), replace(POLICY, talk_s_max=talk_s_max)
    )
    assert isinstance(outcome, Admitted)
    assert (ME in changes.must_revalidate) is again


def test_what_was_applied_can_not_be_added_to() -> None:
    assert AdmissionTransaction(read(), lambda realm: POLICY, NOW_S).changes.is_applied is False
    assert applied(admission(1), read())[1].is_applied is True


def test_lines_are_known_until_the_first_hold_expires() -> None:
    loaded = read()
    applied(admission(1), loaded)
    until_s = loaded.holds[HOLD].expires_at_s
    assert loaded.accounts[ME].lines_until_s == until_s
    for granted_s, earlier_s in ((60, NOW_S + 135), (120, NOW_S + 135)):
        applied(extension(1, granted_s), loaded)
        assert loaded.holds[HOLD].expires_at_s == NOW_S + granted_s + 75
        assert loaded.accounts[ME].lines_until_s == earlier_s < until_s


def test_an_account_that_has_counted_nothing_yet_begins_with_nothing() -> None:
    state = AccountState.of(account())
    assert (state.usage, state.version, state.lines) == (Usage(), 0, 0)


# ------------------------------------------------------------------ commands about nothing


@pytest.mark.parametrize(
    "command",
    [
        Started(HOLD, ME, NOW_S, "carrier"), ended(1, NOW_S, NOW_S + 1), Expired(HOLD, ME), Unclaimed(HOLD, ME),
    ],
    ids=["start", "end", "expiry", "record"],
)  # fmt: skip
def test_an_event_of_a_call_whose_account_is_gone_changes_nothing(command: Command) -> None:
    for stage in HoldStage:
        outcome, changes = applied(command, Loaded({}, {HOLD: held(stage=stage)}))
        assert isinstance(outcome, Ignored)
        assert (changes.updated, changes.settled, changes.recorded, changes.versions) == ({}, [], [], {})
        assert changes.must_revalidate == {ME}


def test_more_time_for_a_call_whose_account_is_gone_is_for_no_hold() -> None:
    assert isinstance(applied(extension(1, 60), Loaded({}, {HOLD: held()}))[0], NoHold)


def test_a_call_of_an_account_that_does_not_exist_is_refused_with_a_record_without_a_name() -> None:
    outcome, changes = applied(admission(1), Loaded({}, {}))
    assert isinstance(outcome, Refused)
    assert (outcome.refuse.reason, outcome.refuse.rule, outcome.refuse.text) == (
        Reason.ACCOUNT_UNKNOWN, "account", "There is no such account.",
    )  # fmt: skip
    assert (outcome.sip_status, outcome.policy_revision) == (0, 0)
    (record,) = changes.decisions
    assert isinstance(record, DecisionRecord)
    decision = record.decision
    assert decision is not None
    assert (decision.account, decision.outcome, decision.policy_revision, decision.sip_status) == ("", "refuse", 0, 0)
    assert (decision.rules, decision.source_address) == ((), "192.0.2.7")


def test_a_local_call_has_no_prefix_and_no_carrier() -> None:
    asked = admission(1)
    local = Admission(replace(asked.request, local=True), None)
    outcome, changes = applied(local, read())
    assert isinstance(outcome, Admitted)
    new = changes.new_holds[HOLD]
    assert (new.prefix, new.hold.trunk, new.hold.costs, new.hold.held_micros) == ("", "", (), 0)
    assert applied(asked, read())[1].new_holds[HOLD].prefix == "49"


# ------------------------------------------------------------------ by which trunk it went


@pytest.mark.parametrize(("told", "kept"), [("other", "other"), ("", "carrier")])
def test_the_trunk_that_took_a_call_is_the_one_that_was_told(told: str, kept: str) -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    tables.transact([Started(HOLD, ME, NOW_S + 1, told)], NOW_S + 1)
    assert (tables.holds[HOLD].trunk, tables.holds[HOLD].answered_at_s) == (kept, NOW_S + 1)
    late = tables_of()
    late.transact([admission(1)], NOW_S)
    at_s = late.holds[HOLD].expires_at_s + 1
    late.transact([Expired(HOLD, ME), Started(HOLD, ME, NOW_S + 1, told)], at_s)
    assert (late.holds[HOLD].trunk, late.holds[HOLD].stage) == (kept, HoldStage.LAPSED)


@pytest.mark.setting("maxslperday")
@pytest.mark.parametrize(
    ("trunk", "carrier_counts", "other_counts"),
    [
        ("", (0, 60, 1, 0), (0, 60, 1, 0)),
        ("unknown", (0, 60, 1, 0), (0, 60, 1, 0)),
        ("other", (0, 0, 0, 0), (0, 60, 1, 0)),
        ("carrier", (0, 60, 1, 0), (0, 0, 0, 0)),
    ],
)
def test_an_answer_takes_a_call_from_the_other_carriers_only_where_it_names_one_of_them(
    trunk: str, carrier_counts: tuple[int, ...], other_counts: tuple[int, ...]
) -> None:
    tables = tables_of(account(), carrier("carrier", talk_day_s=900), carrier("other", talk_day_s=900))
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S)
    tables.transact([Started(HOLD, ME, NOW_S + 1, trunk)], NOW_S + 1)
    assert (talk_of(tables, "carrier"), talk_of(tables, "other")) == (carrier_counts, other_counts)


@pytest.mark.setting("maxslperday")
def test_the_talk_of_a_call_that_was_recorded_moves_to_the_carrier_that_its_late_end_names() -> None:
    tables = tables_of(account(), carrier("carrier", talk_day_s=900), carrier("other", talk_day_s=900))
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S)
    at_s = tables.holds[HOLD].expires_at_s + 1
    tables.transact([Expired(HOLD, ME), Started(HOLD, ME, NOW_S + 1, "")], at_s)
    assert (talk_of(tables, "carrier"), talk_of(tables, "other")) == ((0, 0, 0, 0), (0, 0, 0, 0))
    tables.transact([Unclaimed(HOLD, ME)], at_s)
    assert (talk_of(tables, "carrier"), talk_of(tables, "other")) == ((60, 0, 0, 1), (0, 0, 0, 0))
    (outcome,) = tables.transact([ended(1, NOW_S + 1, NOW_S + 41, trunk="other")], at_s)
    assert outcome == EndedLate(True, -20_000, 0)
    assert (talk_of(tables, "carrier"), talk_of(tables, "other")) == ((0, 0, 0, 0), (40, 0, 0, 1))
    own = tables.usages[ME].day(DAY.toordinal())
    assert (own.talk_s, own.spent_micros) == (40, 40_000)


# ------------------------------------------------------------------ an end without its answer


@pytest.mark.parametrize(
    ("ended_at_s", "recorded_s"),
    [(NOW_S + 10, NOW_S + 10), (NOW_S + 5, NOW_S + 5), (NOW_S + 4, NOW_S + 30)],
    ids=["after the answer", "with the answer", "before the answer"],
)
def test_an_end_before_the_answer_that_is_known_is_one_by_a_clock_gone_wrong(
    ended_at_s: float, recorded_s: float
) -> None:
    tables = tables_of()
    tables.transact([admission(1)], NOW_S)
    tables.transact([Started(HOLD, ME, NOW_S + 5, "carrier")], NOW_S + 5)
    tables.transact([ended(1, None, ended_at_s)], NOW_S + 30)
    record = tables.records[HOLD]
    assert (record.ended_at_s, record.duration_s) == (recorded_s, recorded_s - NOW_S - 5)


# ------------------------------------------------------------------ notices


def notices_of(tables: Tables) -> list[tuple[str, int]]:
    return [(notice.rule, notice.level) for notice in tables.notices]


def test_a_block_of_a_running_call_is_told_once_by_whichever_process() -> None:
    tables = tables_of(account(balance_micros=60_000))
    plain = replace(POLICY, thresholds=())
    tables.transact([admission(1)], NOW_S, plain)
    for _ in range(2):
        (outcome,) = tables.transact([extension(1, 60)], NOW_S + 50, plain)
        assert reason(outcome) is Reason.CREDIT
    assert notices_of(tables) == [("credit", BLOCKED)]
    (notice,) = tables.notices
    assert (notice.account_id, notice.call_id, notice.at_s, notice.realm) == (ME, "call-1", NOW_S + 50, "example.org")


def test_a_block_of_new_calls_is_told_once_a_day_by_whichever_process() -> None:
    tables = tables_of(account(max_lines=0))
    for number in range(1, 4):
        tables.transact([admission(number)], NOW_S)
    assert notices_of(tables) == [("lines", BLOCKED)]
    tables.transact([admission(9, at_s=NOW_S + 200)], NOW_S + 200)  # after midnight
    assert notices_of(tables) == [("lines", BLOCKED)] * 2


def test_what_more_time_uses_of_a_limit_is_told_at_its_threshold() -> None:
    tables = tables_of(account(daily_micros=200_000))
    half = replace(POLICY, thresholds=(50,))
    tables.transact([admission(1), admission(2)], NOW_S, half)
    assert notices_of(tables) == []
    tables.transact([extension(1, 60)], NOW_S + 50, half)
    tables.transact([extension(2, 60)], NOW_S + 50, half)
    assert notices_of(tables) == [("daily_spend", 50)]


# ------------------------------------------------------------------ accounts that are sharded while calls run


def test_a_call_that_began_before_its_account_was_sharded_counts_in_the_first_shard() -> None:
    hold = held()
    assert hold.scopes == ()
    for shards, scopes in ((0, []), (1, []), (2, [(ACCOUNT, ME, 0)]), (4, [(ACCOUNT, ME, 0)])):
        of = account(shards=shards)
        counting = Counting(read(hold, of=of), lambda realm: POLICY)
        assert [tuple(scope) for scope in counting.of_running(of, hold)] == scopes


@pytest.mark.parametrize("commands", [[extension(1, 60)], [ended(1, NOW_S, NOW_S + 50)]], ids=["extension", "end"])
def test_what_becomes_of_such_a_call_is_counted_there(commands: list[Command]) -> None:
    tables = tables_of(account(balance_micros=1_000_000))
    tables.transact([admission(1)], NOW_S)
    tables.reshard(ME, 2)
    tables.holds[HOLD] = replace(tables.holds[HOLD], scopes=())
    (outcome,) = tables.transact(commands, NOW_S + 50)
    assert isinstance(outcome, Extended | Done)
    usage = tables.counters[ME, 0].usage
    if isinstance(outcome, Extended):
        assert (usage.held_micros, usage.spent_micros) == (120_000, 0)
    else:
        assert (usage.held_micros, usage.spent_micros) == (0, 50_000)


def test_a_sharded_accounts_overdraft_is_no_balance() -> None:
    tables = tables_of(account(shards=2, balance_micros=40_000, overdraft_micros=80_000))
    outcomes = [tables.transact([admission(n)], NOW_S, slot=n)[0] for n in (1, 2, 3)]
    assert [isinstance(outcome, Admitted) for outcome in outcomes] == [True, True, False]
    assert sum(usage.held_micros for usage in tables.usages_of(ME)) == 120_000


@pytest.mark.setting("credit")
def test_such_a_call_gets_what_the_account_has_left_and_no_more() -> None:
    tables = tables_of(account(balance_micros=70_000))
    tables.transact([admission(1)], NOW_S)
    tables.reshard(ME, 2)
    tables.holds[HOLD] = replace(tables.holds[HOLD], scopes=())
    (outcome,) = tables.transact([extension(1, 60)], NOW_S + 50)
    assert isinstance(outcome, Extended)
    assert (outcome.hold.granted_s, outcome.hold.final) == (70, True)
