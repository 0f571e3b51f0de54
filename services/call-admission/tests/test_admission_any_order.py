"""The invariants hold under any order of commands, whatever is repeated, late, early or lost."""

from dataclasses import replace
from uuid import UUID

from admission_tables import (
    BOTH_ROUTES,
    CARRIERS,
    NOW_S,
    POLICY,
    PRICE,
    RESELLERS,
    RETAIL,
    ProcessDied,
    account,
    admission,
    carrier,
    ended,
    extension,
    tables_of,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from callwarden.call_admission.admission.core.cache import AccountCache
from callwarden.call_admission.admission.core.commands import Command, EndedLate
from callwarden.call_admission.model.calls import Expired, HoldStage, Pricing, Started, Unclaimed
from callwarden.call_admission.model.policy import AddressPolicy, Ceiling
from callwarden.call_admission.model.scopes import scope_of
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.usage_shards import merged
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import UnixS
from callwarden.kernel.tariff import Price, RateGroup, Window

RESELLER = UUID(int=9)
PEAK = Price(
    "EUR",
    (
        Window(0, (RateGroup(0, 30_000, 60, 6),), 500),
        Window(int(NOW_S) + 90, (RateGroup(0, 90_000, 60, 1),), 1_000),
    ),
)
WIDE = replace(
    POLICY,
    owners=frozenset({"realm", "system", "address"}),
    system=Ceiling(9, 50),
    realm=Ceiling(6, 40),
    address=AddressPolicy(200, None, None, 3_600_000, None),
)


def priced(key: int) -> Pricing:
    """How the account below with this key is."""
    return RETAIL if key == 2 else RESELLERS


class AnyOrder(RuleBasedStateMachine):
    """Three accounts of one reseller, one of them sharded at times; calls in every state, commands in every order and
    in batches of every size, by two processes that may die before or after they write."""

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
        self.tables = tables_of(
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
        self.unix_s = NOW_S
        self.last = 0
        self.batch: list[Command] = []
        self.too_late: set[UUID] = set()
        self.revived = False
        self.late = False
        # Two processes, each with what it remembers: small, so that it forgets, too.
        self.processes = [
            self.tables.process(AccountCache(accounts_max=2, holds_max=3)),
            self.tables.process(AccountCache(accounts_max=1, holds_max=2)),
        ]

    @rule(target=calls, key=st.sampled_from([1, 1, 2, 3, 3]), price=st.sampled_from([PRICE, PEAK]))
    def call(self, key: int, price: Price) -> tuple[int, int]:
        self.last += 1
        self.batch.append(
            admission(self.last, key, at_s=self.unix_s, price=price, pricing=priced(key), routes=BOTH_ROUTES)
        )
        return self.last, key

    @rule(target=calls, key=st.sampled_from([1, 2, 3]), commits=st.booleans())
    def call_too_late(self, key: int, commits: bool) -> tuple[int, int]:
        """Its edge has waited for the answer no longer, and told the end, before it is decided."""
        self.last += 1
        self.batch.append(ended(self.last, None, self.unix_s, key))
        if commits:
            self.commit()
        self.batch.append(admission(self.last, key, at_s=self.unix_s, pricing=priced(key), routes=BOTH_ROUTES))
        self.too_late.add(UUID(int=self.last))
        return self.last, key

    @rule(call=calls)
    def call_again(self, call: tuple[int, int]) -> None:
        again = admission(call[0], call[1], at_s=self.unix_s, pricing=priced(call[1]), routes=BOTH_ROUTES)
        self.batch.append(again)

    @rule(call=calls, ago_s=st.integers(0, 200))
    def answer(self, call: tuple[int, int], ago_s: int) -> None:
        hold = self.tables.holds.get(UUID(int=call[0]))
        self.revived |= hold is not None and hold.expires_at_s <= self.unix_s
        self.batch.append(Started(UUID(int=call[0]), UUID(int=call[1]), self.unix_s - ago_s, _taken_by(call[0])))

    @rule(call=calls, ago_s=st.integers(0, 100), stale=st.booleans())
    def extend(self, call: tuple[int, int], ago_s: int, stale: bool) -> None:
        hold = self.tables.holds.get(UUID(int=call[0]))
        granted_s = 0 if stale or hold is None else hold.granted_s
        self.batch.append(extension(call[0], granted_s, self.unix_s - ago_s, call[1]))

    @rule(call=calls, answered=st.none() | st.integers(0, 200))
    def end(self, call: tuple[int, int], answered: int | None) -> None:
        answered_at_s = None if answered is None else self.unix_s - answered
        self.batch.append(ended(call[0], answered_at_s, self.unix_s, call[1], _taken_by(call[0])))

    @rule()
    def reap(self) -> None:
        for hold in self.tables.running:
            if hold.expires_at_s <= self.unix_s:
                self.batch.append(Expired(hold.id, hold.account_id))

    @rule()
    def record(self) -> None:
        """All that was told has been heard."""
        for hold in self.tables.holds.values():
            if hold.stage is HoldStage.LAPSED:
                self.batch.append(Unclaimed(hold.id, hold.account_id))

    @rule(seconds=st.sampled_from([1, 30, 70, 300]))
    def wait(self, seconds: int) -> None:
        self.commit()
        self.unix_s = UnixS(self.unix_s + seconds)

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

    @rule(process=st.sampled_from([0, 0, 1]), dies=st.sampled_from(["", "", "", "before", "after"]))
    def commit(self, process: int = 0, dies: str = "") -> None:
        before = {key: self.lines_in_use(key) for key in self.tables.accounts}
        self.tables.dies = dies
        try:
            outcomes = self.tables.transact(self.batch, self.unix_s, WIDE, self.processes[process], slot=process)
        except ProcessDied:
            # Another process takes its place with an empty cache; every caller repeats its command.
            self.late |= dies == "after"
            self.processes[process] = self.tables.process(AccountCache(accounts_max=2, holds_max=3))
            return
        finally:
            self.tables.dies = ""
        self.late |= any(isinstance(outcome, EndedLate) for outcome in outcomes)
        self.batch = []
        for key, limit in self.limits.items():
            # A late answer may bring a line back that was given away when it had expired; nothing else may.
            assert self.revived or self.lines_in_use(key) <= max(limit, before[key])

    def lines_in_use(self, key: UUID) -> int:
        return sum(h.account_id == key and h.expires_at_s > self.unix_s for h in self.tables.running)

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "tables"):
            return
        for key, found in self.tables.accounts.items():
            entries = sum(amount for owner, amount in self.tables.entries.values() if owner == key)
            mine = [hold for hold in self.tables.running if hold.account_id == key]
            held = sum(hold.held_micros for hold in mine)
            shards = [] if key == RESELLER else self.tables.usages_of(key)
            spent_in_shards = sum(usage.spent_micros for usage in shards)
            assert found.balance_micros - spent_in_shards == self.credited[key] + entries
            assert found.held_micros + sum(usage.held_micros for usage in shards) == held
            if found.prepaid:
                # What a lapsed call held was free for others; only an account's own row knows what is left.
                late_in_shards = self.late and bool(shards)
                assert late_in_shards or found.balance_micros - spent_in_shards - held >= 0
            spent = {day: micros for (owner, day), micros in self.tables.spent.items() if owner == key}
            assert sum(spent.values()) == -entries
            counts = merged([self.tables.usages.get(key, Usage()), *shards])
            for day, micros in spent.items():
                assert counts.day(day.toordinal()).spent_micros == micros
                if found.daily_micros is not None and not self.late:
                    assert micros <= found.daily_micros, day
            assert sum(span.running for span in counts.days) == len(mine)
            assert sum(span.held_micros for span in counts.days) == held
        assert self.too_late.isdisjoint({hold.id for hold in self.tables.running} | self.tables.records.keys())
        for hold in self.tables.holds.values():
            assert (hold.id in self.tables.records) == (hold.stage is HoldStage.RECORDED)

    @invariant()
    def whom_calls_belong_to_counts_them(self) -> None:
        if not hasattr(self, "tables"):
            return
        holds = [hold for hold in self.tables.running if self.tables.accounts[hold.account_id].parent]
        reseller = merged(self.tables.usages_of(RESELLER))
        assert reseller.held_micros == sum(hold.held_micros for hold in holds)
        spent = sum(amount for owner, amount in self.tables.entries.values() if self.tables.accounts[owner].parent)
        assert reseller.spent_micros == -spent
        for scope in (scope_of("realm", "example.org"), scope_of("system", "")):
            counted = merged(self.tables.usages_of(scope)).used("calls", self.unix_s)
            running = sum(hold.expires_at_s > self.unix_s for hold in self.tables.running)
            assert self.revived or counted >= running
            if not any(self.unix_s - 8 < hold.expires_at_s <= self.unix_s for hold in self.tables.running):
                assert self.revived or counted == running

    @invariant()
    def carriers_count_what_they_have_carried_and_what_they_may_carry(self) -> None:
        if not hasattr(self, "tables"):
            return
        for trunk, key in CARRIERS.items():
            scope = scope_of("carrier", str(key))
            counts = merged(self.tables.usages_of(scope))
            holds = [h for h in self.tables.running if any(owner.scope == scope for owner in h.scopes)]
            assert sum(span.granted_s for span in counts.days) == sum(hold.granted_s for hold in holds)
            assert sum(span.running for span in counts.days) == len(holds)
            records = [record for record in self.tables.records.values() if record.carrier_account_id == key]
            assert sum(span.talk_s for span in counts.months) == sum(record.duration_s for record in records), trunk


def _taken_by(number: int) -> str:
    """The trunk that took a call, if its edge knows it: a call is taken once."""
    return ("carrier", "other", "")[number % 3]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
