"""Ends that come late, twice, from another edge or by a clock gone wrong: what is charged, and what stays as it is."""

from dataclasses import replace
from uuid import UUID, uuid5

import pytest
from admission_tables import (
    NOW_S,
    POLICY,
    Tables,
    account,
    admission,
    applied,
    ended,
    extension,
    held,
    read,
    tables_of,
)

from callwarden.call_admission.admission.core.commands import (
    Admitted,
    Command,
    Done,
    EndedLate,
    Extended,
    Ignored,
    Refused,
)
from callwarden.call_admission.admission.core.state import Loaded
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Expired, Hold, HoldStage, Started, Unclaimed

ME, HOLD = UUID(int=1), UUID(int=1)
EXPIRE, UNCLAIMED = Expired(HOLD, ME), Unclaimed(HOLD, ME)


def called(of: Account | None = None) -> tuple[Tables, Hold]:
    """The tables with one call, which nobody has answered yet."""
    tables = tables_of(of or account())
    tables.transact([admission(1)], NOW_S)
    return tables, tables.holds[HOLD]


def answer(at_s: float) -> Started:
    return Started(HOLD, ME, at_s, "carrier")


# ------------------------------------------------------------------ an end of an answer that nobody has told


def test_a_bye_at_an_edge_that_saw_no_answer_frees_the_call_and_leaves_its_record_to_the_one_that_did() -> None:
    tables, _ = called()
    assert tables.transact([replace(ended(1, None, NOW_S + 9), sip_status=200)], NOW_S + 9) == [Done()]
    assert (tables.holds[HOLD].stage, tables.accounts[ME].held_micros, tables.records) == (HoldStage.LAPSED, 0, {})
    assert tables.transact([ended(1, NOW_S + 2, NOW_S + 9)], NOW_S + 10) == [EndedLate(False, 7_000, 0)]


@pytest.mark.parametrize(("status", "is_recorded"), [(200, False), (299, False), (300, True), (487, True)])
def test_a_call_that_failed_has_its_record_at_once(status: int, is_recorded: bool) -> None:
    tables, _ = called()
    tables.transact([replace(ended(1, None, NOW_S + 9), sip_status=status)], NOW_S + 9)
    assert (HOLD in tables.records) is is_recorded


def test_such_a_bye_ends_a_call_whose_answer_is_known_and_one_that_has_lapsed() -> None:
    bye = replace(ended(1, None, NOW_S + 9), sip_status=200)
    answered, _ = called()
    answered.transact([answer(NOW_S + 2)], NOW_S + 2)
    assert answered.transact([bye], NOW_S + 9) == [Done()]
    assert answered.records[HOLD].price_micros == 7_000
    lapsed, hold = called()
    lapsed.transact([EXPIRE], hold.expires_at_s)
    assert lapsed.transact([bye], hold.expires_at_s) == [EndedLate(False, 0, 0)]
    assert lapsed.records[HOLD].price_micros == 0


@pytest.mark.parametrize(
    ("status", "edge", "outcome"),
    [
        (299, "two", Done()),
        (300, "two", Ignored("elsewhere")),
        (503, "two", Ignored("elsewhere")),
        (503, "edge", Done()),
        (503, "", Done()),
    ],
)
def test_an_edge_that_gave_up_ends_only_the_call_that_it_placed(status: int, edge: str, outcome: object) -> None:
    tables, _ = called()
    assert tables.transact([replace(ended(1, None, NOW_S), sip_status=status, edge=edge)], NOW_S) == [outcome]


# ------------------------------------------------------------------ an end of a call that there isn't


def test_a_call_that_ended_before_it_was_placed_never_is() -> None:
    tables = tables_of()
    assert tables.transact([ended(1, None, NOW_S)], NOW_S) == [Ignored("unknown")]
    closed = tables.holds[HOLD]
    assert (closed.stage, closed.expires_at_s, closed.final) == (HoldStage.CLOSED, NOW_S, True)
    assert (closed.granted_s, closed.max_duration_s, closed.held_micros, closed.trunk) == (0, 0, 0, "")
    assert tables.transact([ended(1, None, NOW_S), admission(1)], NOW_S) == [Ignored("settled"), Ignored("settled")]
    assert tables.holds == {HOLD: closed}


def test_the_end_of_a_call_that_was_refused_leaves_nothing_behind() -> None:
    tables = tables_of(account(max_lines=0))
    assert isinstance(tables.transact([admission(1)], NOW_S)[0], Refused)
    assert tables.transact([ended(1, None, NOW_S)], NOW_S) == [Ignored("unknown")]
    assert tables.holds == {}


@pytest.mark.parametrize(
    ("command", "stage", "why"),
    [
        (answer(NOW_S), None, "unknown"),
        (ended(1, None, NOW_S), None, "unknown"),
        (EXPIRE, None, "unknown"),
        (UNCLAIMED, None, "unknown"),
        (EXPIRE, HoldStage.LAPSED, "not-due"),
        (UNCLAIMED, HoldStage.RUNNING, "not-due"),
        (EXPIRE, HoldStage.RUNNING, "not-due"),
        (EXPIRE, HoldStage.CLOSED, "settled"),
        (answer(NOW_S), HoldStage.CLOSED, "settled"),
        (ended(1, None, NOW_S), HoldStage.CLOSED, "settled"),
    ],
    ids=str,
)
def test_why_an_event_changes_nothing_is_said(command: Command, stage: HoldStage | None, why: str) -> None:
    holds = {} if stage is None else {HOLD: held(stage=stage)}
    outcome, changes = applied(command, Loaded({}, holds))  # of an account that is gone
    assert outcome == Ignored(why)
    assert (changes.updated, changes.settled, changes.recorded, changes.closed) == ({}, [], [], {})
    if (stage, why) in ((None, "unknown"), (HoldStage.CLOSED, "settled"), (HoldStage.LAPSED, "not-due")):
        assert applied(command, read(*holds.values()))[0] == Ignored(why)


def test_an_end_of_a_call_whose_record_was_deleted_charges_nothing_more() -> None:
    tables, hold = called()
    tables.transact([answer(NOW_S), EXPIRE, UNCLAIMED], hold.expires_at_s)
    balance_micros = tables.accounts[ME].balance_micros
    del tables.records[HOLD]
    assert tables.transact([ended(1, NOW_S, NOW_S + 5)], hold.expires_at_s) == [Ignored("settled")]
    assert tables.accounts[ME].balance_micros == balance_micros
    assert tables.corrections == {}


# ------------------------------------------------------------------ what a late end can still take


@pytest.mark.parametrize(
    ("of", "charged", "uncharged"),
    [
        ({"balance_micros": 70_000}, 10_000, 20_000),
        ({"balance_micros": 70_000, "shards": 1}, 10_000, 20_000),
        ({"balance_micros": 60_000}, 0, 30_000),
        ({"balance_micros": 50_000, "overdraft_micros": 20_000}, 10_000, 20_000),
        ({"balance_micros": 90_000}, 30_000, 0),
        ({"balance_micros": 0, "prepaid": False}, 30_000, 0),
    ],
    ids=["money left", "one shard", "all gone", "overdraft", "enough", "postpaid"],
)
def test_a_late_end_takes_what_no_other_call_holds(of: dict[str, int], charged: int, uncharged: int) -> None:
    tables, hold = called(account(**of))
    tables.transact([EXPIRE, admission(2)], hold.expires_at_s)
    assert tables.running[0].held_micros == 60_000
    outcome, changes = applied(ended(1, NOW_S, NOW_S + 30), read(tables.holds[HOLD], of=tables.accounts[ME]))
    assert outcome == EndedLate(False, charged, uncharged)
    (settlement,) = changes.settled
    assert (settlement.price_micros, settlement.uncharged_micros) == (charged, uncharged)
    assert changes.must_revalidate == ({ME} if uncharged else set())


@pytest.mark.parametrize("shards", [2, 3])
def test_a_sharded_accounts_late_end_is_charged_whole(shards: int) -> None:
    tables, hold = called(account(balance_micros=70_000, shards=shards))
    tables.transact([EXPIRE, admission(2)], hold.expires_at_s)
    tables.accounts[ME] = replace(tables.accounts[ME], balance_micros=10_000)
    (outcome,) = tables.transact([ended(1, NOW_S, NOW_S + 30)], hold.expires_at_s)
    assert outcome == EndedLate(False, 30_000, 0), "what its shards hold of its credit isn't known here"


def test_what_a_call_was_booked_too_high_is_given_back_to_an_account_without_money() -> None:
    tables, hold = called(account(balance_micros=60_000))
    tables.transact([answer(NOW_S), EXPIRE], hold.expires_at_s)
    outcomes = tables.transact([UNCLAIMED, ended(1, NOW_S, NOW_S + 20)], hold.expires_at_s)
    assert outcomes == [EndedLate(False, 60_000, 0), EndedLate(True, -40_000, 0)]
    assert tables.accounts[ME].balance_micros == 40_000


def test_the_correction_of_each_call_is_an_entry_of_its_own() -> None:
    tables = tables_of(account(balance_micros=1_000_000))
    for number in (1, 2):
        hold, start_s = UUID(int=number), NOW_S + number * 900.0
        tables.transact([admission(number, at_s=start_s)], start_s)
        tables.transact([Expired(hold, ME)], start_s + 800)
        tables.transact([Unclaimed(hold, ME)], start_s + 801)
        tables.transact([ended(number, start_s, start_s + number)], start_s + 802)
    assert sorted(micros for _, micros in tables.corrections.values()) == [-2_000, -1_000]
    # The same in every release: two of them may run at once, and each entry is booked by its id.
    wanted = {uuid5(UUID(int=number), "late-end") for number in (1, 2)}
    assert tables.corrections.keys() == wanted


# ------------------------------------------------------------------ clocks


@pytest.mark.parametrize(
    ("told_s", "answered_s", "ended_s", "unix_s", "recorded"),
    [
        (None, -3_600, -3_580, 30, (0, 20)),
        (5, -3_600, -3_580, 30, (5, 25)),
        (None, -3_600, -3_580, 10, (-10, 10)),
        (5, -3_600, -3_580, 10, (-10, 10)),
        (5, 0, 20, 30, (0, 20)),
        (None, 4, 24, 30, (4, 24)),
    ],
    ids=["behind", "answer told", "nothing ends later than now", "both", "with the admission", "right"],
)
def test_an_end_by_a_clock_that_is_behind_is_moved_to_where_its_call_was(
    told_s: int | None, answered_s: int, ended_s: int, unix_s: int, recorded: tuple[int, int]
) -> None:
    tables, _ = called()
    if told_s is not None:
        tables.transact([answer(NOW_S + told_s)], NOW_S + told_s)
    tables.transact([ended(1, NOW_S + answered_s, NOW_S + ended_s)], NOW_S + unix_s)
    record = tables.records[HOLD]
    assert (record.answered_at_s, record.ended_at_s) == (NOW_S + recorded[0], NOW_S + recorded[1])
    assert (record.duration_s, record.price_micros) == (20, 20_000)


@pytest.mark.parametrize(("answered_s", "noted_s"), [(-1, 50), (0, 0), (7, 7)])
def test_an_answer_before_the_admission_is_one_of_now(answered_s: int, noted_s: int) -> None:
    by_event, _ = called()
    by_event.transact([answer(NOW_S + answered_s)], NOW_S + 50)
    by_extension, _ = called()
    by_extension.transact([extension(1, 60, NOW_S + answered_s)], NOW_S + 50)
    for tables, granted_s in ((by_event, 60), (by_extension, 120)):
        hold = tables.holds[HOLD]
        assert hold.answered_at_s == NOW_S + noted_s
        assert hold.expires_at_s == NOW_S + noted_s + granted_s + POLICY.grace_s + 10


# ------------------------------------------------------------------ lines, at the moment at which a hold expires


def test_a_call_that_ends_as_its_hold_expires_gives_back_no_line_that_it_has_not() -> None:
    tables, hold = called(account(max_lines=1))
    outcomes = tables.transact([ended(1, None, NOW_S), admission(2), admission(3)], hold.expires_at_s)
    assert [type(outcome) for outcome in outcomes] == [Done, Admitted, Refused]


def test_a_call_that_ends_before_gives_back_one() -> None:
    tables = tables_of(account(max_lines=2))
    tables.transact([admission(1), admission(2)], NOW_S)
    outcomes = tables.transact([ended(1, None, NOW_S), admission(3), admission(4)], NOW_S)
    assert [type(outcome) for outcome in outcomes] == [Done, Admitted, Refused]


@pytest.mark.parametrize(("ago_s", "is_free"), [(75, True), (74, False)])
def test_an_answer_that_is_told_as_its_hold_expires_takes_its_line_as_long_as_its_call_lasts(
    ago_s: int, is_free: bool
) -> None:
    tables, hold = called(account(max_lines=1))
    late_s = hold.expires_at_s
    outcomes = tables.transact([answer(late_s - ago_s), admission(2)], late_s)
    assert [type(outcome) for outcome in outcomes] == [Done, Admitted if is_free else Refused]


def test_more_time_for_a_call_takes_no_other_line() -> None:
    tables, _ = called(account(max_lines=2))
    outcomes = tables.transact([extension(1, 60), admission(2)], NOW_S + 50)
    assert [type(outcome) for outcome in outcomes] == [Extended, Admitted]


def test_a_hold_that_has_expired_by_our_clock_alone_goes_on() -> None:
    loaded = read(held())
    late_s = loaded.holds[HOLD].expires_at_s
    transaction = AdmissionTransaction(loaded, lambda realm: POLICY, late_s, expiry_s=late_s - 1)  # type: ignore[arg-type]
    assert isinstance(transaction.apply(extension(1, 60)), Extended)
