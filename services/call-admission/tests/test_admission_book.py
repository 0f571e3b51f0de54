"""The book keeps its invariants under any order of commands, whatever is repeated, late, early or lost."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import date
from math import inf
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from callwarden.call_admission.admission.adapters.cache import AGE_S_MAX, Memory
from callwarden.call_admission.admission.adapters.store_sql import is_checked
from callwarden.call_admission.admission.app.calls import Batch
from callwarden.call_admission.admission.core.book import (
    Admission,
    Admitted,
    Book,
    Changes,
    Command,
    Counter,
    CounterKey,
    Done,
    Extended,
    Extension,
    Ignored,
    Loaded,
    NeedsQuote,
    NoHold,
    Outcome,
    Refused,
    Seen,
    Standing,
)
from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.core.resharding import Counts, moves, owners_after, resharded
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import (
    CallRequest,
    Ended,
    Expired,
    ExtendRequest,
    Hold,
    Pricing,
    Quote,
    Route,
    Started,
)
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.policy import AddressPolicy, AdmissionPolicy, Ceiling, Policies
from callwarden.call_admission.model.scopes import scope_of
from callwarden.call_admission.model.settle import Settlement, talk_s
from callwarden.call_admission.model.usage import Usage, merged
from callwarden.kernel.account import AccountType
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.policy.bundle import default_set

NOW_S = 1_767_653_900.0  # 100 s before midnight in Berlin
PRICE = Price("EUR", (Window(0, (RateGroup(0, 60_000, 60, 1),)),))
PEAK = Price(
    "EUR",
    (
        Window(0, (RateGroup(0, 30_000, 60, 6),), 500),
        Window(int(NOW_S) + 90, (RateGroup(0, 90_000, 60, 1),), 1_000),
    ),
)
POLICY: AdmissionPolicy = Policies(default_set()).for_realm("")


@dataclass
class Database:
    """The tables, and a transaction as the real one makes it: read, apply, write."""

    accounts: dict[UUID, Account]
    holds: dict[UUID, Hold] = field(default_factory=dict)
    records: dict[UUID, Settlement] = field(default_factory=dict)
    entries: dict[UUID, tuple[UUID, int]] = field(default_factory=dict)
    spent: dict[tuple[UUID, date], int] = field(default_factory=dict)
    refused: dict[UUID, Refuse] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[UUID, int] = field(default_factory=dict)
    usages: dict[UUID, Usage] = field(default_factory=dict)
    counters: dict[CounterKey, Counter] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    remembered: int = 0
    reads: int = 0

    def transact(
        self,
        commands: list[Command],
        now_s: float,
        policy: AdmissionPolicy = POLICY,
        memory: Memory | None = None,
        slot: int = 0,
        *,
        dies: bool = False,
    ) -> list[Outcome]:
        """As adapters.books_sql does it: from memory if that suffices and nothing has moved, else read; with what the
        batch asks for besides. `dies`: the write never happens."""
        read = Batch.of(commands, now_s)
        wanted: set[CounterKey] = set()
        loaded = memory.take(read) if memory is not None else None
        is_read = loaded is None
        for attempt in range(12):
            if loaded is None:
                loaded, is_read = self._load(now_s, wanted), True
            now, loaded = loaded, None
            is_known = not is_read
            book = Book(now, lambda realm: policy, now_s, slot)
            if book.lacks(commands):
                missing = book.changes.missing
                known = memory.counters(missing, now_s) if memory is not None and not attempt else {}
                is_known = True
                now.counters |= self._load_counters(missing - known.keys()) | known
                wanted |= missing
                book = Book(now, lambda realm: policy, now_s, slot)
                assert not book.lacks(commands)
            outcomes = [book.apply(command) for command in commands]
            if book.changes.missing:
                wanted |= book.changes.missing
                continue
            if is_known and not is_checked(read, book.changes):
                continue
            if not self._would_write(book.changes):
                assert is_known, "nobody came between"
                if memory is not None:
                    memory.forget(wanted)
                continue
            if dies:
                return outcomes
            self._write(book.changes)
            if memory is not None:
                memory.keep(read, now, book.changes, is_whole=not is_read or bool(read.counted))
            self.remembered += not is_read
            self.reads += is_read
            return outcomes
        raise AssertionError("it came to no end")

    def reshard(self, key: UUID, shards: int) -> None:
        """As adapters.shards_sql does it."""
        found = self.accounts[key]
        mine = [hold for hold in self.holds.values() if hold.account_id == key]
        rows = {shard: counter.usage for (scope, shard), counter in self.counters.items() if scope == key}
        counts = Counts(found.balance_micros, found.held_micros, self.usages.get(key, Usage()), rows)
        before, after = max(found.shards, 1), max(shards, 1)
        moved = resharded(counts, before, after, [hold.expires_at_s for hold in mine])
        for shard in rows.keys() - moved.shards.keys():
            del self.counters[key, shard]
        if moves(before, after):
            if 0 in moved.shards:
                version = self.counters[key, 0].version if (key, 0) in self.counters else 0
                self.counters[key, 0] = Counter(version + 1, moved.shards[0])
            for hold in mine:
                self.holds[hold.id] = replace(hold, owners=owners_after(hold.owners, after))
        self.usages[key] = moved.own
        self.accounts[key] = replace(
            found, balance_micros=moved.balance_micros, held_micros=moved.held_micros, shards=shards
        )
        self.versions[key] = self.versions.get(key, 0) + 1

    def usages_of(self, scope: UUID) -> list[Usage]:
        return [counter.usage for (owner, _), counter in self.counters.items() if owner == scope]

    def _would_write(self, changes: Changes) -> bool:
        """The conditions of the statement, and the keys and CHECKs of the tables."""
        known = {*self.holds, *self.records, *self.refused}
        return (
            all(
                self.versions.get(key, 0) == version
                for key, version in (*changes.versions.items(), *changes.checked.items())
            )
            and all(
                (self.counters[key].version if key in self.counters else 0) == counter.version
                for key, counter in changes.counters.items()
            )
            and not known & set(changes.holds)
            and all(
                key in changes.holds or (key in self.holds and self.holds[key].expires_at_s == stood_s)
                for key, stood_s in changes.stood.items()
            )
            and all(
                not found.prepaid
                or found.balance_micros + changes.balances.get(key, 0) >= found.held_micros + changes.held.get(key, 0)
                for key in changes.versions
                if (found := self.accounts[key])
            )
        )

    def _load(self, now_s: float, wanted: Collection[CounterKey]) -> Loaded:
        standings = {}
        for key, account in self.accounts.items():
            mine = [hold for hold in self.holds.values() if hold.account_id == key]
            alive = [hold.expires_at_s for hold in mine if hold.expires_at_s > now_s]
            lines = 0 if account.shards > 1 else len(alive)
            usage = self.usages.get(key, Usage()).copy()
            standing = standings[key] = Standing.of(account, self.versions.get(key, 0), lines, usage)
            standing.lines_until_s = min(alive, default=inf)
        seen = {key: Seen(account, self.versions.get(key, 0)) for key, account in self.accounts.items()}
        counters = self._load_counters(wanted)
        return Loaded(standings, dict(self.holds), set(self.records), dict(self.refused), seen, counters)

    def _load_counters(self, keys: Collection[CounterKey]) -> dict[CounterKey, Counter]:
        return {key: _copied(self.counters.get(key, Counter(0, Usage()))) for key in keys}

    def _write(self, changes: Changes) -> None:
        for hold_id, new in changes.holds.items():
            assert hold_id not in self.holds
            self.holds[hold_id] = new.hold
        for hold_id, hold in changes.updated.items():
            assert hold_id in self.holds
            self.holds[hold_id] = hold
        for settlement in changes.settled:
            assert settlement.hold_id not in self.records, "settled twice"
            del self.holds[settlement.hold_id]
            self.records[settlement.hold_id] = settlement
            if settlement.price_micros:
                self.entries[settlement.hold_id] = settlement.account_id, -settlement.price_micros
        for key in changes.versions:
            self.versions[key] = self.versions.get(key, 0) + 1
        for key in {*changes.balances, *changes.held}:
            account = self.accounts[key]
            self.accounts[key] = replace(
                account,
                balance_micros=account.balance_micros + changes.balances.get(key, 0),
                held_micros=account.held_micros + changes.held.get(key, 0),
            )
        for key, usage in changes.usages.items():
            self.usages[key] = usage.copy()
        for row, counter in changes.counters.items():
            assert counter.usage.held_micros >= 0
            written = self.counters[row] = _copied(counter)
            written.version += 1
        self.notices += changes.notices
        for day, micros in changes.spent.items():
            self.spent[day] = self.spent.get(day, 0) + micros
        for note in changes.notes:
            self.notes.append(note.outcome)
            if note.decision is not None and note.outcome == "refuse" and note.decision.refused is not None:
                self.refused[note.id] = note.decision.refused


def _copied(counter: Counter) -> Counter:
    return Counter(counter.version, counter.usage.copy(), dict(counter.grants))


def account(key: int = 1, **changes: object) -> Account:
    base = Account(
        id=UUID(int=key),
        realm="example.org",
        name=f"account-{key}",
        type=AccountType.ENDUSER,
        active=True,
        currency="EUR",
        time_zone="Europe/Berlin",
        prepaid=True,
        deck="retail",
        balance_micros=1_000_000,
        held_micros=0,
        overdraft_micros=0,
        max_lines=5,
        daily_micros=None,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def database(*accounts: Account) -> Database:
    return Database({each.id: each for each in accounts or (account(),)})


RETAIL = Pricing("retail", realm="example.org")
RESELLERS = Pricing("retail", "retail", "example.org", is_resellers=True)


CARRIERS = {"carrier": UUID(int=7), "other": UUID(int=8)}
"""By trunk, of the routes that calls have where both are tried."""
ROUTE = Route("carrier", "192.0.2.1:5060")
BOTH_ROUTES = tuple(Route(trunk, "192.0.2.1:5060", carrier_account_id=str(key)) for trunk, key in CARRIERS.items())


def admission(
    hold: int,
    key: int = 1,
    *,
    at_s: float = NOW_S,
    price: Price = PRICE,
    pricing: Pricing = RETAIL,
    routes: tuple[Route, ...] = (ROUTE,),
) -> Admission:
    request = CallRequest(
        UUID(int=hold), f"call-{hold}", UUID(int=key), "493012345678", "030", "4930", "192.0.2.7", "edge", False, at_s
    )
    return Admission(request, Quote(pricing, "49", price, routes, at_s + 60))


def extension(hold: int, granted_s: int, answered_at_s: float = NOW_S, key: int = 1) -> Extension:
    return Extension(ExtendRequest(UUID(int=hold), f"call-{hold}", UUID(int=key), answered_at_s, granted_s))


def ended(hold: int, answered_at_s: float | None, ended_at_s: float, key: int = 1, trunk: str = "carrier") -> Ended:
    return Ended(UUID(int=hold), UUID(int=key), answered_at_s, ended_at_s, "caller-bye", 200, trunk)


def carrier(trunk: str, **limits: int) -> Account:
    key = CARRIERS[trunk]
    return account(key.int, name=trunk, type=AccountType.CARRIER, prepaid=False, balance_micros=0, **limits)


def admitted(outcome: Outcome) -> Hold:
    assert isinstance(outcome, Admitted)
    return outcome.hold


def reason(outcome: Outcome) -> Reason:
    assert isinstance(outcome, Refused)
    return outcome.refuse.reason


# ------------------------------------------------------------------ one batch, many calls


@pytest.mark.setting("maxlines")
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_of_a_thousand_requests_on_five_lines_exactly_five_are_admitted_however_they_are_batched(batch: int) -> None:
    tables = database()
    commands: list[Command] = [admission(number) for number in range(1, 1001)]
    outcomes = [o for i in range(0, 1000, batch) for o in tables.transact(commands[i : i + batch], NOW_S)]
    assert sum(isinstance(outcome, Admitted) for outcome in outcomes) == 5
    assert {reason(outcome) for outcome in outcomes[5:]} == {Reason.LINES}


@pytest.mark.setting("credit")
@pytest.mark.parametrize("batch", [1, 3, 200])
def test_credit_for_seven_first_slices_admits_seven(batch: int) -> None:
    tables = database(account(balance_micros=7 * 60_000, max_lines=500))
    commands: list[Command] = [admission(number) for number in range(1, 201)]
    outcomes = [o for i in range(0, 200, batch) for o in tables.transact(commands[i : i + batch], NOW_S)]
    assert [reason(outcome) for outcome in outcomes[7:]] == [Reason.CREDIT] * 193
    assert tables.accounts[UUID(int=1)].held_micros == 7 * 60_000


def test_one_accounts_calls_take_nothing_from_anothers() -> None:
    tables = database(account(1, max_lines=1), account(2, max_lines=1))
    outcomes = tables.transact([admission(1, 1), admission(2, 2), admission(3, 1), admission(4, 2)], NOW_S)
    assert [type(outcome) for outcome in outcomes] == [Admitted, Admitted, Refused, Refused]


# ------------------------------------------------------------------ asked twice


def test_the_same_admission_asked_twice_holds_once_and_answers_alike() -> None:
    tables = database()
    first, again = tables.transact([admission(1), admission(1)], NOW_S)
    (later,) = tables.transact([admission(1)], NOW_S + 5)
    assert admitted(first) == admitted(again) == admitted(later)
    assert len(tables.holds) == 1


def test_a_refusal_asked_again_is_answered_alike_even_when_a_line_is_free_by_then() -> None:
    tables = database(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    (refused,) = tables.transact([admission(2)], NOW_S)
    tables.transact([ended(1, None, NOW_S + 1)], NOW_S + 1)
    (again,) = tables.transact([admission(2)], NOW_S + 2)
    assert refused == again
    assert tables.notes == ["refuse"]


def test_an_admission_repeated_after_its_call_is_over_brings_nothing_back() -> None:
    tables = database()
    outcomes = tables.transact([admission(1), ended(1, None, NOW_S), admission(1)], NOW_S)
    assert outcomes[2] == Ignored("settled")
    assert not tables.holds


def test_a_hold_id_that_another_account_uses_is_not_answered_with_its_call() -> None:
    tables = database(account(1), account(2))
    outcomes = tables.transact([admission(1, 1), admission(1, 2)], NOW_S)
    assert outcomes[1] == Ignored("settled")
    assert tables.transact([extension(1, 60, key=2)], NOW_S) == [NoHold()]
    assert tables.transact([ended(1, None, NOW_S, key=2)], NOW_S) == [Ignored("unknown")]


def test_an_extension_asked_twice_grants_once() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S)
    first, again = tables.transact([extension(1, 60), extension(1, 60)], NOW_S + 55)
    assert isinstance(first, Extended)
    assert first == again
    assert first.hold.granted_s == 120
    assert tables.accounts[UUID(int=1)].held_micros == 120_000


def test_an_account_whose_price_list_has_changed_asks_for_the_new_price() -> None:
    tables = database(account(deck="wholesale"))
    assert tables.transact([admission(1)], NOW_S) == [NeedsQuote(Pricing("wholesale", realm="example.org"))]
    assert not tables.holds


def test_a_call_of_nobody_is_refused_and_noted() -> None:
    tables = database()
    (outcome,) = tables.transact([admission(1, key=77)], NOW_S)
    assert reason(outcome) is Reason.ACCOUNT_UNKNOWN
    assert tables.notes == ["refuse"]


# ------------------------------------------------------------------ slices


@pytest.mark.setting("credit")
def test_a_call_is_extended_until_the_credit_is_used_up_and_no_second_more() -> None:
    tables = database(account(balance_micros=150_000))
    tables.transact([admission(1)], NOW_S)
    (first,) = tables.transact([extension(1, 60)], NOW_S + 55)
    assert isinstance(first, Extended)
    assert (first.hold.granted_s, first.hold.final) == (120, False)
    (last,) = tables.transact([extension(1, 120)], NOW_S + 115)
    assert isinstance(last, Extended)
    assert (last.hold.granted_s, last.hold.final) == (150, True)
    (none,) = tables.transact([extension(1, 150)], NOW_S + 148)
    assert reason(none) is Reason.CREDIT
    assert tables.notes == ["cut", "cut"]
    tables.transact([ended(1, NOW_S, NOW_S + 150.2)], NOW_S + 151)
    assert tables.accounts[UUID(int=1)].balance_micros == 0
    assert tables.records[UUID(int=1)].billed_s == 150


@pytest.mark.setting("call-timeout")
def test_a_call_ends_at_its_longest_talk_time_whatever_the_credit() -> None:
    short = replace(POLICY, talk_s_max=90)
    tables = database()
    tables.transact([admission(1)], NOW_S, short)
    (last,) = tables.transact([extension(1, 60)], NOW_S + 55, short)
    assert isinstance(last, Extended)
    assert (last.hold.granted_s, last.hold.final) == (90, True)
    (none,) = tables.transact([extension(1, 90)], NOW_S + 85, short)
    assert reason(none) is Reason.DURATION


@pytest.mark.setting("call-timeout")
def test_a_longer_talk_time_granted_later_does_not_lengthen_a_running_call() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S, replace(POLICY, talk_s_max=60))
    (none,) = tables.transact([extension(1, 60)], NOW_S + 55)
    assert reason(none) is Reason.DURATION


def test_the_calls_of_a_disabled_account_end_with_what_they_have_paid_for() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S)
    tables.accounts[UUID(int=1)] = replace(tables.accounts[UUID(int=1)], active=False)
    (outcome,) = tables.transact([extension(1, 60)], NOW_S + 55)
    assert reason(outcome) is Reason.ACCOUNT_DISABLED


def test_an_extension_of_a_call_that_is_not_running_grants_nothing() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    assert tables.transact([extension(1, 60)], hold.expires_at_s) == [NoHold()]
    assert tables.transact([extension(2, 60)], NOW_S) == [NoHold()]


# ------------------------------------------------------------------ ends


@pytest.mark.parametrize(
    ("talked_s", "counted_s"), [(0.0, 0), (0.0004, 0), (0.001, 1), (1.0, 1), (1.0004, 1), (1.001, 2), (-3.0, 0)]
)
def test_a_begun_second_counts_to_the_millisecond(talked_s: float, counted_s: int) -> None:
    assert talk_s(NOW_S, NOW_S + talked_s) == counted_s


def test_an_end_told_twice_settles_once() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S)
    outcomes = tables.transact([ended(1, NOW_S, NOW_S + 10), ended(1, NOW_S, NOW_S + 10)], NOW_S + 10)
    assert outcomes == [Done(), Ignored("settled")]
    assert tables.transact([ended(1, NOW_S, NOW_S + 10)], NOW_S + 20) == [Ignored("settled")]
    assert tables.entries == {UUID(int=1): (UUID(int=1), -10_000)}


def test_an_end_that_overtakes_its_start_settles_the_whole_call() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S)
    late = Started(UUID(int=1), UUID(int=1), NOW_S + 2, "carrier")
    outcomes = tables.transact([ended(1, NOW_S + 2, NOW_S + 12), late], NOW_S + 12)
    assert outcomes == [Done(), Ignored("settled")]
    assert tables.records[UUID(int=1)].price_micros == 10_000


def test_an_edge_that_does_not_know_the_answer_leaves_it_to_the_hold() -> None:
    tables = database()
    tables.transact([admission(1), Started(UUID(int=1), UUID(int=1), NOW_S + 2, "other")], NOW_S)
    tables.transact([ended(1, None, NOW_S + 12)], NOW_S + 12)
    assert tables.records[UUID(int=1)].price_micros == 10_000


def test_an_unanswered_call_costs_nothing_and_frees_its_line() -> None:
    tables = database(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    assert [type(o) for o in tables.transact([ended(1, None, NOW_S + 9), admission(2)], NOW_S + 9)] == [Done, Admitted]
    assert tables.records[UUID(int=1)].price_micros == 0
    assert not tables.entries


def test_time_past_the_grant_is_not_charged() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S)
    tables.transact([ended(1, NOW_S, NOW_S + 75)], NOW_S + 75)
    record = tables.records[UUID(int=1)]
    assert (record.duration_s, record.billed_s, record.price_micros) == (75, 60, 60_000)


def test_a_call_belongs_to_the_day_on_which_it_began() -> None:
    tables = database()
    tables.transact([admission(1)], NOW_S)
    tables.transact([ended(1, NOW_S + 95, NOW_S + 155)], NOW_S + 155)
    assert tables.spent == {(UUID(int=1), date(2026, 1, 5)): 60_000}


@pytest.mark.setting("maxdailycredit")
def test_the_daily_limit_counts_running_and_settled_calls_and_begins_anew_at_midnight() -> None:
    tables = database(account(daily_micros=100_000))
    tables.transact([admission(1)], NOW_S)
    (second,) = tables.transact([admission(2)], NOW_S)
    assert (admitted(second).granted_s, admitted(second).final) == (40, True)
    assert reason(tables.transact([admission(3)], NOW_S)[0]) is Reason.DAILY_SPEND
    tables.transact([ended(1, NOW_S, NOW_S + 20), ended(2, NOW_S, NOW_S + 20)], NOW_S + 20)
    assert admitted(tables.transact([admission(4, at_s=NOW_S + 21)], NOW_S + 21)[0]).granted_s == 60
    assert reason(tables.transact([admission(5, at_s=NOW_S + 22)], NOW_S + 22)[0]) is Reason.DAILY_SPEND
    assert admitted(tables.transact([admission(6, at_s=NOW_S + 101)], NOW_S + 101)[0]).granted_s == 60


# ------------------------------------------------------------------ nobody ends it


def test_an_answered_call_that_nobody_ends_is_settled_at_what_it_was_granted() -> None:
    tables = database()
    tables.transact([admission(1), Started(UUID(int=1), UUID(int=1), NOW_S + 4, "carrier")], NOW_S + 4)
    (hold,) = tables.holds.values()
    expire = Expired(UUID(int=1), UUID(int=1))
    assert tables.transact([expire], hold.expires_at_s - 0.1) == [Ignored("not-expired")]
    assert tables.transact([expire], hold.expires_at_s) == [Done()]
    record = tables.records[UUID(int=1)]
    assert (record.reason, record.duration_s, record.price_micros) == ("expired", 60, 60_000)
    assert tables.transact([ended(1, NOW_S + 4, NOW_S + 9)], hold.expires_at_s + 5) == [Ignored("settled")]


def test_an_unanswered_call_that_nobody_ends_gives_all_back() -> None:
    tables = database(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    # Its line is free from its last moment on, before the reaper comes.
    (after,) = tables.transact([admission(2)], hold.expires_at_s)
    assert isinstance(after, Admitted)
    tables.transact([Expired(UUID(int=1), UUID(int=1))], hold.expires_at_s)
    assert tables.accounts[UUID(int=1)].held_micros == 60_000
    assert tables.records[UUID(int=1)].price_micros == 0


def test_late_news_of_an_answer_brings_the_line_back_into_the_count() -> None:
    tables = database(account(max_lines=1))
    tables.transact([admission(1)], NOW_S)
    (hold,) = tables.holds.values()
    late_s = hold.expires_at_s + 1
    news = Started(UUID(int=1), UUID(int=1), late_s - 30, "carrier")
    assert [type(o) for o in tables.transact([news, admission(2)], late_s)] == [Done, Refused]


# ------------------------------------------------------------------ what is remembered


def test_a_yes_on_what_is_remembered_needs_no_reading_and_a_no_does() -> None:
    tables, memory = database(account(max_lines=3)), Memory()
    for number in range(1, 4):
        assert isinstance(tables.transact([admission(number)], NOW_S, POLICY, memory)[0], Admitted)
    assert tables.remembered == 2
    assert reason(tables.transact([admission(4)], NOW_S, POLICY, memory)[0]) is Reason.LINES
    assert tables.transact([ended(1, NOW_S, NOW_S)], NOW_S, POLICY, memory) == [Done()]
    assert tables.remembered == 2


@pytest.mark.setting("maxlines")
def test_what_another_process_has_moved_is_not_decided_on_from_memory() -> None:
    tables, memories = database(account(max_lines=3)), (Memory(), Memory())
    outcomes = [tables.transact([admission(n)], NOW_S, POLICY, memories[n % 2])[0] for n in range(1, 9)]
    assert [type(outcome) for outcome in outcomes] == [Admitted] * 3 + [Refused] * 5


@pytest.mark.setting("credit")
def test_a_hold_that_another_process_has_moved_is_read_again_though_its_account_is_known_since() -> None:
    tables, ours, other = database(), Memory(), Memory()
    tables.transact([admission(1)], NOW_S, POLICY, ours)
    tables.transact([extension(1, 60, NOW_S)], NOW_S, POLICY, other)
    tables.transact([admission(2)], NOW_S, POLICY, ours)
    tables.transact([admission(3)], NOW_S, POLICY, ours)
    assert tables.remembered == 1
    (outcome,) = tables.transact([extension(1, 120, NOW_S)], NOW_S, POLICY, ours)
    assert isinstance(outcome, Extended)
    assert outcome.hold.granted_s == 180
    assert tables.accounts[UUID(int=1)].held_micros == sum(hold.held_micros for hold in tables.holds.values())
    # From there on all changes are ours again.
    tables.transact([extension(1, 180, NOW_S)], NOW_S, POLICY, ours)
    assert tables.remembered == 2


@pytest.mark.setting("credit")
def test_a_top_up_counts_at_once_though_the_balance_is_remembered() -> None:
    tables, memory = database(account(balance_micros=60_000)), Memory()
    tables.transact([admission(1)], NOW_S, POLICY, memory)
    tables.accounts[UUID(int=1)] = replace(tables.accounts[UUID(int=1)], balance_micros=160_000)
    (second,) = tables.transact([admission(2)], NOW_S, POLICY, memory)
    assert admitted(second).granted_s == 60


def test_a_line_that_expires_is_not_remembered() -> None:
    tables, memory = database(account(max_lines=1)), Memory()
    (first,) = tables.transact([admission(1)], NOW_S, POLICY, memory)
    later_s = admitted(first).expires_at_s
    (second,) = tables.transact([admission(2)], later_s, POLICY, memory)
    assert isinstance(second, Admitted)


def test_an_id_that_is_over_or_refused_is_found_though_it_is_not_remembered() -> None:
    tables, memory = database(account(max_lines=2)), Memory()
    tables.transact([admission(1)], NOW_S, POLICY, memory)
    tables.transact([ended(1, NOW_S, NOW_S + 5)], NOW_S + 5, POLICY, memory)
    tables.transact([admission(2)], NOW_S + 5, POLICY, memory)
    assert tables.transact([admission(1)], NOW_S + 5, POLICY, memory) == [Ignored("settled")]


def test_memory_is_bounded_and_forgets_what_is_old() -> None:
    memory = Memory(accounts_max=3)
    tables = database(*(account(key) for key in range(1, 10)))
    for key in range(1, 10):
        tables.transact([admission(key, key)], NOW_S, POLICY, memory)
    assert len(memory) == 3
    old = Batch.of([admission(99, 9)], NOW_S + AGE_S_MAX + 1)
    assert memory.take(old) is None


# ------------------------------------------------------------------ shards


@pytest.mark.setting("maxlines")
@pytest.mark.parametrize("slots", [(0,), (0, 1, 2, 3)])
def test_shards_admit_just_as_many_calls_as_there_are_lines(slots: tuple[int, ...]) -> None:
    tables = database(account(shards=4, max_lines=7, balance_micros=10_000_000))
    outcomes = [tables.transact([admission(n)], NOW_S, slot=slots[n % len(slots)])[0] for n in range(1, 13)]
    assert [type(outcome) for outcome in outcomes] == [Admitted] * 7 + [Refused] * 5
    assert {reason(outcome) for outcome in outcomes[7:]} == {Reason.LINES}
    tables.transact([ended(3, None, NOW_S)], NOW_S)
    assert isinstance(tables.transact([admission(20)], NOW_S, slot=1)[0], Admitted), "a line that any shard has free"


@pytest.mark.setting("credit")
def test_the_last_of_the_credit_is_found_in_whichever_shard_it_lies() -> None:
    tables = database(account(shards=4, max_lines=100, balance_micros=7 * 60_000))
    outcomes = [tables.transact([admission(n)], NOW_S, slot=n)[0] for n in range(1, 11)]
    granted = sum(admitted(outcome).granted_s for outcome in outcomes if isinstance(outcome, Admitted))
    assert granted == 7 * 60
    assert {reason(outcome) for outcome in outcomes if isinstance(outcome, Refused)} == {Reason.CREDIT}
    assert sum(usage.held_micros for usage in tables.usages_of(UUID(int=1))) == 7 * 60_000


@pytest.mark.setting("maxlines")
def test_lines_that_are_taken_away_are_gone_in_all_shards() -> None:
    tables = database(account(shards=2, max_lines=10, balance_micros=10_000_000))
    for number in range(1, 6):
        tables.transact([admission(number)], NOW_S, slot=0)
    tables.accounts[UUID(int=1)] = replace(tables.accounts[UUID(int=1)], max_lines=4)
    assert reason(tables.transact([admission(6)], NOW_S, slot=1)[0]) is Reason.LINES


# ------------------------------------------------------------------ carriers


def talk_of(tables: Database, trunk: str, day: date) -> tuple[int, int, int]:
    """Seconds talked and seconds granted of a day, and the calls that run, by a carrier's counts."""
    span = merged(tables.usages_of(scope_of("carrier", str(CARRIERS[trunk])))).day(day.toordinal())
    return span.talk_s, span.granted_s, span.running


@pytest.mark.setting("maxslperday")
def test_calls_that_run_count_against_their_carriers_talk_time() -> None:
    tables = database(account(max_lines=50, balance_micros=10_000_000), carrier("carrier", talk_day_s=180))
    routes = BOTH_ROUTES[:1]
    outcomes = [tables.transact([admission(n, routes=routes)], NOW_S)[0] for n in range(1, 6)]
    assert [type(outcome) for outcome in outcomes] == [Admitted] * 3 + [Refused] * 2
    refuse = outcomes[3].refuse if isinstance(outcomes[3], Refused) else None
    assert refuse is not None
    assert (refuse.reason, refuse.rule, refuse.value, refuse.limit) == (
        Reason.TALK_TIME, "carrier_talk_time", 180, 180
    )  # fmt: skip
    tables.transact([ended(1, NOW_S, NOW_S + 20), ended(2, None, NOW_S)], NOW_S + 20)
    assert talk_of(tables, "carrier", day_of(NOW_S, "Europe/Berlin")) == (20, 60, 1)
    later = [tables.transact([admission(n, routes=routes)], NOW_S + 20)[0] for n in range(6, 10)]
    assert [type(outcome) for outcome in later] == [Admitted] * 2 + [Refused] * 2, "20 s, then 80, 140 and 200"


@pytest.mark.setting("maxslperday")
def test_a_call_counts_for_every_carrier_it_may_go_by_until_one_has_taken_it() -> None:
    carriers = carrier("carrier", talk_day_s=1_000), carrier("other", talk_day_s=1_000)
    tables = database(account(balance_micros=10_000_000), *carriers)
    day = day_of(NOW_S, "Europe/Berlin")
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 60, 1), (0, 60, 1)]
    news = Started(UUID(int=1), UUID(int=1), NOW_S, "other")
    tables.transact([news, news], NOW_S + 1)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (0, 60, 1)]
    tables.transact([extension(1, 60)], NOW_S + 50)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (0, 120, 1)]
    tables.transact([ended(1, NOW_S, NOW_S + 70, trunk="other")], NOW_S + 70)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (70, 0, 0)]


@pytest.mark.setting("maxslpermonth")
def test_the_end_of_a_call_says_who_had_it_where_its_answer_was_not_told() -> None:
    carriers = carrier("carrier", talk_month_s=1_000), carrier("other", talk_month_s=1_000)
    tables = database(account(balance_micros=10_000_000), *carriers)
    day = day_of(NOW_S, "Europe/Berlin")
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S)
    tables.transact([extension(1, 60)], NOW_S + 50)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 120, 1), (0, 120, 1)]
    tables.transact([ended(1, NOW_S, NOW_S + 70, trunk="other")], NOW_S + 70)
    assert [talk_of(tables, trunk, day) for trunk in CARRIERS] == [(0, 0, 0), (70, 0, 0)]


@pytest.mark.setting("maxslperday")
def test_a_carrier_that_is_ruled_out_counts_nothing_and_what_is_remembered_of_it_is_looked_up() -> None:
    carriers = carrier("carrier", talk_day_s=60), carrier("other", talk_day_s=1_000)
    tables, memory = database(account(balance_micros=10_000_000), *carriers), Memory()
    day = day_of(NOW_S, "Europe/Berlin")
    tables.transact([admission(1, routes=BOTH_ROUTES)], NOW_S, POLICY, memory)
    (second,) = tables.transact([admission(2, routes=BOTH_ROUTES)], NOW_S, POLICY, memory)
    assert isinstance(second, Admitted)
    assert [route.trunk for route in second.routes] == ["other"]
    assert [talk_of(tables, trunk, day)[1] for trunk in CARRIERS] == [60, 120]
    # Another process settles the first one: this one remembers that the carrier is full.
    tables.transact([ended(1, None, NOW_S)], NOW_S)
    (third,) = tables.transact([admission(3, routes=BOTH_ROUTES)], NOW_S, POLICY, memory)
    assert isinstance(third, Admitted)
    assert [route.trunk for route in third.routes] == ["carrier", "other"]


# ------------------------------------------------------------------ any order at all

RESELLER = UUID(int=9)


def priced(key: int) -> Pricing:
    """How the account below with this key is."""
    return RETAIL if key == 2 else RESELLERS


WIDE = replace(
    POLICY,
    owners=frozenset({"realm", "system", "address"}),
    system=Ceiling(9, 50),
    realm=Ceiling(6, 40),
    address=AddressPolicy(200, None, None, 3_600_000, None),
)


class AnyOrder(RuleBasedStateMachine):
    """Three accounts of one reseller, one of them sharded at times; calls in every state, commands in every order and
    in batches of every size, by two processes that may die before they write."""

    calls = Bundle("calls")

    @initialize(
        balance=st.integers(0, 400_000),
        lines=st.integers(0, 4),
        daily=st.none() | st.integers(0, 300_000),
        prepaid=st.booleans(),
        shards=st.sampled_from([0, 2, 3]),
    )
    def open_accounts(self, balance: int, lines: int, daily: int | None, prepaid: bool, shards: int) -> None:
        first = account(
            1, balance_micros=balance, max_lines=lines, daily_micros=daily, prepaid=prepaid, parent=RESELLER
        )
        third = account(3, balance_micros=balance, max_lines=3, daily_micros=daily, parent=RESELLER, shards=shards)
        self.tables = database(
            first,
            account(2, balance_micros=100_000, max_lines=2),
            third,
            account(9, type=AccountType.RESELLER, balance_micros=600_000, max_lines=7, prepaid=True),
            carrier("carrier", talk_day_s=400),
            carrier("other", talk_month_s=900),
        )
        self.credited = {first.id: balance, UUID(int=2): 100_000, third.id: balance, RESELLER: 600_000}
        self.credited |= dict.fromkeys(CARRIERS.values(), 0)
        self.limits = {first.id: lines, UUID(int=2): 2, third.id: 3}
        self.now_s = NOW_S
        self.last = 0
        self.batch: list[Command] = []
        self.revived = False
        # Two processes, each with what it remembers: small, so that it forgets, too.
        self.memories = [Memory(accounts_max=2, holds_max=3), Memory(accounts_max=1, holds_max=2)]

    @rule(target=calls, key=st.sampled_from([1, 1, 2, 3, 3]), price=st.sampled_from([PRICE, PEAK]))
    def call(self, key: int, price: Price) -> tuple[int, int]:
        self.last += 1
        self.batch.append(
            admission(self.last, key, at_s=self.now_s, price=price, pricing=priced(key), routes=BOTH_ROUTES)
        )
        return self.last, key

    @rule(call=calls)
    def call_again(self, call: tuple[int, int]) -> None:
        again = admission(call[0], call[1], at_s=self.now_s, pricing=priced(call[1]), routes=BOTH_ROUTES)
        self.batch.append(again)

    @rule(call=calls, ago_s=st.integers(0, 200))
    def answer(self, call: tuple[int, int], ago_s: int) -> None:
        hold = self.tables.holds.get(UUID(int=call[0]))
        self.revived |= hold is not None and hold.expires_at_s <= self.now_s
        self.batch.append(Started(UUID(int=call[0]), UUID(int=call[1]), self.now_s - ago_s, _taken_by(call[0])))

    @rule(call=calls, ago_s=st.integers(0, 100), stale=st.booleans())
    def extend(self, call: tuple[int, int], ago_s: int, stale: bool) -> None:
        hold = self.tables.holds.get(UUID(int=call[0]))
        granted_s = 0 if stale or hold is None else hold.granted_s
        self.batch.append(extension(call[0], granted_s, self.now_s - ago_s, call[1]))

    @rule(call=calls, answered=st.none() | st.integers(0, 200))
    def end(self, call: tuple[int, int], answered: int | None) -> None:
        answered_at_s = None if answered is None else self.now_s - answered
        self.batch.append(ended(call[0], answered_at_s, self.now_s, call[1], _taken_by(call[0])))

    @rule()
    def reap(self) -> None:
        for hold in list(self.tables.holds.values()):
            if hold.expires_at_s <= self.now_s:
                self.batch.append(Expired(hold.id, hold.account_id))

    @rule(seconds=st.sampled_from([1, 30, 70, 300]))
    def wait(self, seconds: int) -> None:
        self.commit()
        self.now_s += seconds

    @rule(key=st.sampled_from([1, 2, 3, 9]), micros=st.integers(1, 100_000))
    def top_up(self, key: int, micros: int) -> None:
        """By payment, which moves no version."""
        found = self.tables.accounts[UUID(int=key)]
        self.tables.accounts[found.id] = replace(found, balance_micros=found.balance_micros + micros)
        self.credited[found.id] += micros

    @rule(lines=st.integers(0, 4), key=st.sampled_from([1, 3]))
    def change_lines(self, lines: int, key: int) -> None:
        """By an operator, which moves the version."""
        found = self.tables.accounts[UUID(int=key)]
        self.tables.accounts[found.id] = replace(found, max_lines=lines)
        self.tables.versions[found.id] = self.tables.versions.get(found.id, 0) + 1
        self.limits[found.id] = lines

    @rule(shards=st.sampled_from([0, 2, 3, 5]), key=st.sampled_from([1, 3, 3]))
    def reshard(self, shards: int, key: int) -> None:
        self.tables.reshard(UUID(int=key), shards)

    @rule(process=st.sampled_from([0, 0, 1]), dies=st.sampled_from([False, False, False, True]))
    def commit(self, process: int = 0, dies: bool = False) -> None:
        before = {key: self.lines_in_use(key) for key in self.tables.accounts}
        self.tables.transact(self.batch, self.now_s, WIDE, self.memories[process], slot=process, dies=dies)
        if dies:
            # Another one takes its place and remembers nothing; what was asked is asked again.
            self.memories[process] = Memory(accounts_max=2, holds_max=3)
            return
        self.batch = []
        for key, limit in self.limits.items():
            # A late answer may bring a line back that was given away when it had expired; nothing else may.
            assert self.revived or self.lines_in_use(key) <= max(limit, before[key])

    def lines_in_use(self, key: UUID) -> int:
        return sum(h.account_id == key and h.expires_at_s > self.now_s for h in self.tables.holds.values())

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "tables"):
            return
        for key, found in self.tables.accounts.items():
            entries = sum(amount for owner, amount in self.tables.entries.values() if owner == key)
            mine = [hold for hold in self.tables.holds.values() if hold.account_id == key]
            held = sum(hold.held_micros for hold in mine)
            shards = [] if key == RESELLER else self.tables.usages_of(key)
            spent_in_shards = sum(usage.spent_micros for usage in shards)
            assert found.balance_micros - spent_in_shards == self.credited[key] + entries
            assert found.held_micros + sum(usage.held_micros for usage in shards) == held
            if found.prepaid:
                assert found.balance_micros - spent_in_shards - held >= 0
            spent = {day: micros for (owner, day), micros in self.tables.spent.items() if owner == key}
            assert sum(spent.values()) == -entries
            counts = merged([self.tables.usages.get(key, Usage()), *shards])
            for day, micros in spent.items():
                assert counts.day(day.toordinal()).spent_micros == micros
                if found.daily_micros is not None:
                    assert micros <= found.daily_micros, day
            assert sum(span.running for span in counts.days) == len(mine)
            assert sum(span.held_micros for span in counts.days) == held
        assert not set(self.tables.holds) & set(self.tables.records)

    @invariant()
    def whom_calls_belong_to_counts_them(self) -> None:
        if not hasattr(self, "tables"):
            return
        holds = [hold for hold in self.tables.holds.values() if self.tables.accounts[hold.account_id].parent]
        reseller = merged(self.tables.usages_of(RESELLER))
        assert reseller.held_micros == sum(hold.held_micros for hold in holds)
        spent = sum(amount for owner, amount in self.tables.entries.values() if self.tables.accounts[owner].parent)
        assert reseller.spent_micros == -spent
        for scope in (scope_of("realm", "example.org"), scope_of("system", "")):
            counted = merged(self.tables.usages_of(scope)).used("calls", self.now_s)
            running = sum(hold.expires_at_s > self.now_s for hold in self.tables.holds.values())
            assert self.revived or counted >= running
            if not any(self.now_s - 8 < hold.expires_at_s <= self.now_s for hold in self.tables.holds.values()):
                assert self.revived or counted == running

    @invariant()
    def carriers_count_what_they_have_carried_and_what_they_may_carry(self) -> None:
        if not hasattr(self, "tables"):
            return
        for trunk, key in CARRIERS.items():
            scope = scope_of("carrier", str(key))
            counts = merged(self.tables.usages_of(scope))
            holds = [h for h in self.tables.holds.values() if any(owner.scope == scope for owner in h.owners)]
            assert sum(span.granted_s for span in counts.days) == sum(hold.granted_s for hold in holds)
            assert sum(span.running for span in counts.days) == len(holds)
            records = [record for record in self.tables.records.values() if record.carrier_account_id == key]
            assert sum(span.talk_s for span in counts.months) == sum(record.duration_s for record in records), trunk


def _taken_by(number: int) -> str:
    """The trunk that took a call, if its edge knows it: a call is taken once."""
    return ("carrier", "other", "")[number % 3]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.integers(0, 100), st.sampled_from(["UTC", "Asia/Tokyo", "America/Los_Angeles"]))
def test_a_held_day_is_the_day_of_the_start(hours: int, zone: str) -> None:
    at_s = NOW_S + hours * 3_600
    tables = database(account(time_zone=zone))
    (outcome,) = tables.transact([admission(1, at_s=at_s)], at_s)
    assert admitted(outcome).spend_day == day_of(at_s, zone)
