"""What a batch writes and checks of each owner's row, and what later commands of the batch see of earlier ones."""

from dataclasses import replace
from uuid import UUID

import pytest
from admission_line import priced
from admission_tables import (
    BOTH_ROUTES,
    CARRIERS,
    NOW_S,
    POLICY,
    RESELLERS,
    account,
    admission,
    admitted,
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
    NeedsCounters,
    NeedsQuote,
    Refused,
)
from callwarden.call_admission.admission.core.state import CounterRow, Loaded
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import EXPIRY_MARGIN_S, Expired, Started, Unclaimed
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.policy import VelocityLimits, VelocityPolicy
from callwarden.call_admission.model.scopes import scope_of
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import BLOCKED, WARNED, Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Mode, Reason

ME, HOLD, SHOP = UUID(int=1), UUID(int=1), UUID(int=50)
DAY = day_of(NOW_S, "Europe/Berlin").toordinal()
ANSWER = Started(HOLD, ME, NOW_S, "carrier")
EXPIRE, UNCLAIMED = Expired(HOLD, ME), Unclaimed(HOLD, ME)
NONE = VelocityLimits(None, None, None, None, None, None, None)
# Its group is warned of from the first call on: a call is one more than none.
FAST = VelocityPolicy("all", frozenset(), "", 300_000, replace(NONE, total=0), NONE, False, False, True, False, False)
# One is warned of when it has lasted for a minute.
LONG = replace(FAST, warning=replace(NONE, duration_s=60), counts_period=False)
WARNING = replace(POLICY, velocity=(FAST,), velocity_names=frozenset({"all"}), thresholds=())


def shop(**changes: object) -> Account:
    fixed: dict[str, object] = {"name": "shop", "type": AccountType.RESELLER, "prepaid": False, "balance_micros": 0}
    return account(SHOP.int, **(fixed | changes))


# ------------------------------------------------------------------ which rows


@pytest.mark.parametrize(
    "steps",
    [
        [admission(1), extension(1, 60), ended(1, NOW_S, NOW_S + 70)],
        [admission(1), ANSWER, ended(1, NOW_S, NOW_S + 30)],
        [admission(1), EXPIRE, UNCLAIMED, ended(1, NOW_S, NOW_S + 30)],
        [admission(1), ANSWER, EXPIRE, UNCLAIMED, ended(1, NOW_S, NOW_S + 30)],
        [admission(1), EXPIRE, ended(1, NOW_S, NOW_S + 30)],
    ],
    ids=["extended", "answered", "unanswered", "recorded", "late"],
)
@pytest.mark.parametrize("shards", [0, 2])
def test_a_sharded_account_is_checked_at_each_step_and_its_shard_written_and_else_its_row(
    steps: list[Command], shards: int
) -> None:
    tables = watched(account(shards=shards))
    for number, step in enumerate(steps):
        tables.transact([step], NOW_S + (9_000 if isinstance(step, Expired | Unclaimed) else number))
    assert len(tables.written) == len(steps)
    for changes in tables.written:
        assert (ME in changes.checked, ME in changes.versions, ME in changes.usages) == (
            bool(shards), not shards, not shards,
        )  # fmt: skip
        assert changes.own_shards == ({ME} if shards else set())
    for changes in tables.written[1:]:  # The first one shares the credit out.
        assert set(changes.counters) == ({(ME, 0)} if shards else set())
    own = tables.counters[ME, 0].usage if shards else tables.usages[ME]
    day, spent_micros = (
        own.day(DAY),
        tables.records[HOLD].price_micros + sum(-micros for hold, (_, micros) in tables.corrections.items()),
    )
    assert (day.spent_micros, own.spent_micros, day.held_micros, own.held_micros) == (spent_micros, spent_micros, 0, 0)
    assert tables.accounts[ME].balance_micros == (1_000_000 if shards else 1_000_000 - spent_micros)
    assert (tables.usages.get(ME, Usage()).spent_micros, tables.accounts[ME].held_micros) == (
        (0, 0) if shards else (spent_micros, 0)
    )


@pytest.mark.parametrize("shards", [0, 2])
def test_more_time_is_held_in_the_row_that_counts_the_call(shards: int) -> None:
    tables = tables_of(account(shards=shards))
    tables.transact([admission(1)], NOW_S)
    tables.transact([extension(1, 60)], NOW_S + 50)
    own = tables.counters[ME, 0].usage if shards else tables.usages[ME]
    assert (own.held_micros, own.day(DAY).held_micros, own.day(DAY).granted_s) == (120_000, 120_000, 120)
    assert tables.accounts[ME].held_micros == (0 if shards else 120_000)
    assert tables.usages.get(ME, Usage()).held_micros == (0 if shards else 120_000)


def test_a_resellers_row_is_none_of_the_accounts_shards() -> None:
    tables = watched(account(parent=SHOP), shop())
    tables.transact([admission(1, pricing=RESELLERS)], NOW_S)
    tables.transact([extension(1, 60)], NOW_S + 50)
    tables.transact([ended(1, NOW_S, NOW_S + 70)], NOW_S + 70)
    for changes in tables.written:
        assert (changes.own_shards, set(changes.counters)) == (set(), {(SHOP, 0)})
    assert tables.counters[SHOP, 0].usage.spent_micros == 70_000


def test_a_resellers_only_row_needs_no_shares() -> None:
    tables = tables_of(account(parent=SHOP), shop(max_lines=1, daily_micros=900_000))
    for number, outcome in ((1, Admitted), (2, Refused)):
        assert isinstance(tables.transact([admission(number, pricing=RESELLERS)], NOW_S)[0], outcome)
    assert tables.counters[SHOP, 0].grants == {}


def test_an_answer_writes_nothing_to_the_row_of_its_only_carrier() -> None:
    tables = watched(account(), carrier("carrier", talk_day_s=900))
    tables.transact([admission(1, routes=BOTH_ROUTES[:1])], NOW_S)
    tables.transact([ANSWER], NOW_S)
    tables.transact([extension(1, 60)], NOW_S + 50)
    key = scope_of("carrier", str(CARRIERS["carrier"])), 0
    assert [key in changes.counters for changes in tables.written] == [True, False, True]


def test_a_call_that_is_refused_more_time_again_writes_no_row() -> None:
    tables = watched(account(balance_micros=60_000, shards=2))
    tables.transact([admission(1)], NOW_S)
    for _ in range(2):
        assert reason(tables.transact([extension(1, 60)], NOW_S + 50)[0]) is Reason.CREDIT
    first, again = tables.written[1:]
    assert (set(first.counters), set(first.updated)) == ({(ME, 0)}, {HOLD})
    assert (again.counters, again.updated) == ({}, {})
    assert tables.counters[ME, 0].usage.held_micros == 60_000


def test_a_call_goes_on_when_its_account_has_left_its_reseller() -> None:
    tables = tables_of(account(parent=SHOP), shop(max_lines=1))
    tables.transact([admission(1, pricing=RESELLERS)], NOW_S)
    tables.accounts[ME] = replace(tables.accounts[ME], parent=None)
    tables.accounts[SHOP] = replace(tables.accounts[SHOP], active=False)
    (outcome,) = tables.transact([extension(1, 60)], NOW_S + 50)
    assert isinstance(outcome, Extended)
    assert outcome.hold.granted_s == 120


# ------------------------------------------------------------------ within a batch


def test_what_a_call_has_cost_is_gone_for_the_next_one_of_its_batch() -> None:
    tables = tables_of(account(balance_micros=60_500))
    tables.transact([admission(1)], NOW_S)
    outcomes = tables.transact([ended(1, NOW_S, NOW_S + 60), admission(2)], NOW_S + 60)
    assert outcomes[0] == Done()
    assert reason(outcomes[1]) is Reason.CREDIT


@pytest.mark.parametrize("late", [UNCLAIMED, ended(1, NOW_S, NOW_S + 60)], ids=["record", "end"])
def test_so_is_what_one_has_cost_that_had_lapsed(late: Command) -> None:
    tables = tables_of(account(balance_micros=60_500))
    tables.transact([admission(1), ANSWER], NOW_S)
    late_s = tables.holds[HOLD].expires_at_s
    outcomes = tables.transact([EXPIRE, late, admission(2, at_s=late_s)], late_s)
    assert outcomes[:2] == [Done(), EndedLate(False, 60_000, 0)]
    assert reason(outcomes[2]) is Reason.CREDIT


def test_a_resellers_call_gets_all_that_its_account_has_left() -> None:
    tables = tables_of(account(parent=SHOP, balance_micros=100_000), shop())
    tables.transact([admission(1, pricing=RESELLERS)], NOW_S)
    (outcome,) = tables.transact([extension(1, 60)], NOW_S + 50)
    assert isinstance(outcome, Extended)
    assert (outcome.hold.granted_s, outcome.hold.held_micros, outcome.hold.final) == (100, 100_000, True)


# ------------------------------------------------------------------ a new call


def test_a_new_hold_waits_for_its_answer_and_lasts_a_slice_beyond_it() -> None:
    hold = held()
    assert hold.expires_at_s == NOW_S + POLICY.setup_s_max + 60 + EXPIRY_MARGIN_S
    assert (hold.marks, hold.limits_hit, hold.edge) == ((), (), "edge")


def test_an_admission_without_a_quote_asks_for_one() -> None:
    outcome, changes = applied(Admission(admission(1).request, None), read())
    assert isinstance(outcome, NeedsQuote)
    assert (outcome.pricing, changes.new_holds, changes.must_revalidate) == (admission(1).quote.pricing, {}, {ME})  # type: ignore[union-attr]


def test_an_account_whose_reseller_is_gone_is_priced_by_its_own_deck_or_none() -> None:
    for deck, wanted in (("retail", "retail"), ("", "")):
        outcome, _ = applied(admission(1), read(of=account(parent=SHOP, deck=deck)))
        assert isinstance(outcome, NeedsQuote)
        assert (outcome.pricing.deck, outcome.pricing.parent_deck, outcome.pricing.is_resellers) == (wanted, "", True)


def test_a_call_by_a_trunk_is_decided_where_nothing_is_known_of_trunks() -> None:
    asked = admission(1)
    asked.request.trunk = "pbx"
    assert isinstance(applied(asked, read())[0], Admitted)


def test_an_admission_and_a_refusal_are_told_with_what_they_are() -> None:
    _, changes = applied(admission(1), read())
    assert not changes.check_hold_ids, "what was read has no such hold"
    decision = changes.new_holds[HOLD].decision
    assert decision.sip_status == 0
    assert (decision.outcome, decision.refused, decision.account, decision.source_address) == (
        "admit", None, "account-1", "192.0.2.7",
    )  # fmt: skip
    outcome, changes = applied(admission(1), read(of=account(max_lines=0)))
    assert isinstance(outcome, Refused)
    (record,) = changes.decisions
    assert record.decision is not None
    assert (record.outcome, record.decision.refused) == ("refuse", outcome.refuse)


def test_another_services_decision_is_stored_as_it_came() -> None:
    record = DecisionRecord(UUID(int=5), "call-5", None, NOW_S, "refuse", None, b"body")
    outcome, changes = applied(record, Loaded({}, {}))
    assert (outcome, changes.decisions, changes.must_revalidate) == (Done(), [record], set())


@pytest.mark.parametrize("command", [admission(1), extension(1, 60)], ids=["admission", "extension"])
def test_a_shard_without_room_asks_for_the_others(command: Command) -> None:
    of = account(shards=2)
    loaded = read(*([] if isinstance(command, Admission) else [held(granted_s=60, held_micros=0)]), of=of)
    loaded.counters[ME, 0] = CounterRow(1, Usage())
    outcome, changes = applied(command, loaded)
    assert outcome == NeedsCounters()
    assert changes.missing_counters == {(ME, 0), (ME, 1)}


@pytest.mark.parametrize(("max_lines", "reported"), [(0, ["lines"]), (1, [])])
def test_rules_that_would_have_refused_are_counted_and_noted_with_the_call(max_lines: int, reported: list[str]) -> None:
    policy = replace(POLICY, modes={**POLICY.modes, "lines": Mode.REPORT}, reports=True)
    outcome, changes = applied(admission(1), read(of=account(max_lines=max_lines)), policy)
    assert isinstance(outcome, Admitted)
    assert (changes.reported, list(outcome.hold.limits_hit)) == (reported, reported)


@pytest.mark.parametrize(("talk_s", "again"), [(60, True), (900, False)])
def test_what_was_remembered_of_a_carrier_that_is_ruled_out_is_looked_up(talk_s: int, again: bool) -> None:
    routes = (replace(BOTH_ROUTES[0], cost=None), BOTH_ROUTES[1])
    tables = tables_of(
        account(balance_micros=9_000_000), carrier("carrier", talk_day_s=talk_s), carrier("other", talk_day_s=900)
    )
    tables.transact([admission(1, routes=routes)], NOW_S)
    watching = watched()
    watching.accounts, watching.counters, watching.usages = tables.accounts, tables.counters, tables.usages
    watching.versions, watching.holds = tables.versions, tables.holds
    (outcome,) = watching.transact([admission(2, routes=routes)], NOW_S)
    assert isinstance(outcome, Admitted)
    assert len(outcome.routes) == (1 if again else 2)
    assert (ME in watching.written[-1].must_revalidate) is again


def test_a_route_that_is_ruled_out_without_a_limited_carrier_needs_no_look() -> None:
    dear, cheap = (replace(BOTH_ROUTES[0], trunk=str(micros), cost=priced(micros)) for micros in (90_000, 30_000))
    policy = replace(POLICY, minute_cost_micros_max=50_000)
    outcome, changes = applied(admission(1, routes=(dear, cheap)), read(), policy)
    assert isinstance(outcome, Admitted)
    assert ([route.trunk for route in outcome.routes], changes.must_revalidate) == (["30000"], set())
    assert [cost.trunk for cost in outcome.hold.costs] == ["30000"]


# ------------------------------------------------------------------ notices


def test_a_new_call_is_told_of_at_a_threshold_and_where_calls_come_too_fast() -> None:
    half = replace(POLICY, thresholds=(50,))
    _, changes = applied(admission(1), read(of=account(daily_micros=60_000)), half)
    assert changes.notices == []
    used = read(of=account(daily_micros=60_000))
    used.accounts[ME].usage.days = [CalendarSpan(DAY, 30_000)]
    _, changes = applied(admission(1), used, half)
    (notice,) = changes.notices
    assert (notice.rule, notice.level, notice.value, notice.limit) == ("daily_spend", 50, 30_000, 60_000)
    _, changes = applied(admission(1), read(), WARNING)
    assert [(each.rule, each.level) for each in changes.notices] == [("velocity.warning", WARNED)]
    assert applied(admission(1), read(), replace(WARNING, velocity=()))[1].notices == []


def test_a_running_call_is_told_of_where_it_lasts_too_long() -> None:
    tables = tables_of()
    long = replace(WARNING, velocity=(LONG,))
    tables.transact([admission(1)], NOW_S, long)
    assert tables.notices == []
    tables.transact([extension(1, 60)], NOW_S + 50, long)
    assert [(each.rule, each.level) for each in tables.notices] == [("velocity.warning", WARNED)]


@pytest.mark.parametrize(
    ("of", "rule", "limit"), [(account(max_lines=0), "lines", 0), (account(active=False), "account", 0),
                              (account(balance_micros=0), "credit", 1_000)]
)  # fmt: skip
def test_a_notice_of_a_block_names_its_limit(of: Account, rule: str, limit: int) -> None:
    _, changes = applied(admission(1), read(of=of))
    (notice,) = [each for each in changes.notices if each.level == BLOCKED]
    assert (notice.rule, notice.limit) == (rule, limit)


# ------------------------------------------------------------------ a running call


def test_a_call_that_is_cut_is_recorded_with_its_refusal_and_looked_up_again() -> None:
    loaded = read(held(), of=account(balance_micros=60_000, held_micros=60_000))
    outcome, changes = applied(extension(1, 60), loaded)
    assert isinstance(outcome, Refused)
    (record,) = changes.decisions
    assert record.decision is not None
    assert (record.outcome, record.decision.refused, record.decision.cut_by) == ("cut", outcome.refuse, "")
    assert changes.must_revalidate == {ME}
    assert loaded.holds[HOLD].limits_hit == ("credit",)


def test_a_short_last_slice_is_recorded_as_a_cut_by_what_cut_it() -> None:
    loaded = read(held(), of=account(balance_micros=90_000, held_micros=60_000))
    outcome, changes = applied(extension(1, 60), loaded)
    assert isinstance(outcome, Extended)
    assert (outcome.hold.granted_s, outcome.hold.final, outcome.hold.limits_hit) == (90, True, ("credit",))
    (record,) = changes.decisions
    assert record.decision is not None
    assert (record.outcome, record.decision.refused, record.decision.cut_by) == ("cut", None, "credit")
    assert changes.must_revalidate == {ME}


def test_a_call_that_has_all_that_it_may_last_is_not_cut() -> None:
    loaded = read(held(max_duration_s=90))
    outcome, changes = applied(extension(1, 60), loaded)
    assert isinstance(outcome, Extended)
    assert (outcome.hold.granted_s, outcome.hold.final) == (90, True)
    assert (changes.decisions, changes.must_revalidate) == ([], set())


def test_a_rule_that_is_only_reported_is_noted_with_a_running_call() -> None:
    policy = replace(POLICY, modes={**POLICY.modes, "credit": Mode.REPORT}, reports=True)
    loaded = read(held(), of=account(balance_micros=60_000, held_micros=60_000))
    outcome, _ = applied(extension(1, 60), loaded, policy)
    assert isinstance(outcome, Extended)
    assert (outcome.hold.granted_s, outcome.hold.limits_hit) == (120, ("credit",))


def test_the_groups_of_a_new_call_are_noted_with_it() -> None:
    outcome, _ = applied(admission(1), read(), WARNING)
    assert admitted(outcome).marks == ("all",)  # type: ignore[arg-type]
