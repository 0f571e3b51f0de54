"""Accounts, holds and counters in memory, for tests: does what ports.AdmissionStore promises, as the contract suite
shows. Its dictionaries are the tables; a test may look at them, and change them as other services do."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from uuid import UUID

from callwarden.call_admission.admission.core.commands import DecisionRecord
from callwarden.call_admission.admission.core.state import (
    AccountState,
    Changes,
    CounterKey,
    CounterRow,
    Loaded,
    ReadSet,
    ReferencedAccount,
)
from callwarden.call_admission.admission.ports import WriteConflict, Written
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Expired, Hold, HoldStage, Unclaimed
from callwarden.call_admission.model.settle import Settlement
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.clock import UnixS


@dataclass
class MemoryAdmissionStore:
    """Implements ports.AdmissionStore."""

    accounts: dict[UUID, Account] = field(default_factory=dict)
    versions: dict[UUID, int] = field(default_factory=dict)
    usages: dict[UUID, Usage] = field(default_factory=dict)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    records: dict[UUID, Settlement] = field(default_factory=dict)
    corrections: dict[UUID, tuple[UUID, int]] = field(default_factory=dict)
    """The ledger's entries about late ends: account and amount."""
    decisions: dict[UUID, DecisionRecord] = field(default_factory=dict)
    spent: dict[tuple[UUID, date], int] = field(default_factory=dict)
    counters: dict[CounterKey, CounterRow] = field(default_factory=dict)

    async def load(self, read: ReadSet, counters: Collection[CounterKey]) -> Loaded:
        loaded = Loaded({}, {id_: self.holds[id_] for id_ in read.holds if id_ in self.holds})
        loaded.settled = {id_: self.records[id_].price_micros for id_ in read.holds if id_ in self.records}
        for id_ in self.decisions.keys() & set(read.holds):
            decision = self.decisions[id_].decision
            if decision is not None and decision.refused is not None and decision.outcome == "refuse":
                loaded.refused[id_] = decision.refused
        for account in (self.accounts[id_] for id_ in read.accounts if id_ in self.accounts):
            usage = self.usages.get(account.id, Usage()).copy()
            state = loaded.accounts[account.id] = AccountState.of(account, self.versions.get(account.id, 0), 0, usage)
            if account.id in read.counted and account.shards <= 1:
                running = (hold for hold in self.holds.values() if hold.stage is HoldStage.RUNNING)
                holds = (hold for hold in running if hold.account_id == account.id)
                alive = [hold.expires_at_s for hold in holds if hold.expires_at_s > read.unix_s]
                state.lines, state.lines_until_s = len(alive), min([state.lines_until_s, *alive])
        parents = {state.account.parent for state in loaded.accounts.values()}
        for id_ in self.accounts.keys() & {*parents, *read.referenced}:
            loaded.referenced[id_] = ReferencedAccount(self.accounts[id_], self.versions.get(id_, 0))
        loaded.counters = {key: _copied(self.counters.get(key, CounterRow(0, Usage()))) for key in counters}
        return loaded

    async def write(self, changes: Changes) -> Written | WriteConflict:
        conflict = self._conflict(changes)
        if conflict is not None:
            return conflict
        self.holds |= {id_: new.hold for id_, new in changes.new_holds.items()} | changes.updated | changes.closed
        for settlement in changes.settled:
            self.holds.pop(settlement.hold_id)
            self.records[settlement.hold_id] = settlement
        self.records |= {settlement.hold_id: settlement for settlement in changes.recorded}
        for made in changes.corrected:
            id_ = made.settlement.hold_id
            self.holds.pop(id_)
            self.records[id_] = replace(made.settlement, price_micros=self.records[id_].price_micros)
            if made.more_micros:
                self.corrections[made.entry_id] = made.settlement.account_id, -made.more_micros
        for id_ in changes.versions:
            self.accounts[id_], self.usages[id_] = self._moved(id_, changes), changes.usages[id_].copy()
            self.versions[id_] = self.versions.get(id_, 0) + 1
        for key, row in changes.counters.items():
            self.counters[key] = replace(_copied(row), version=row.version + 1)
        for day, micros in changes.spent.items():
            self.spent[day] = self.spent.get(day, 0) + micros
        for record in changes.decisions:
            self.decisions.setdefault(record.id, record)
        return Written()

    def _conflict(self, changes: Changes) -> WriteConflict | None:
        """What the conditions of the statement, the keys and the CHECKs of the tables say."""
        accounts = (changes.versions | changes.checked).items()
        if any(self.versions.get(id_, 0) != version for id_, version in accounts):
            return WriteConflict()
        # A row that isn't there, or was dropped when it had been unused for long, conflicts with no version.
        if any(
            self.counters[key].version != row.version for key, row in changes.counters.items() if key in self.counters
        ):
            return WriteConflict()
        expiries = {id_: at_s for id_, at_s in changes.expiries.items() if id_ not in changes.new_holds}
        if any(id_ not in self.holds or self.holds[id_].expires_at_s != at_s for id_, at_s in expiries.items()):
            return WriteConflict()
        if any(self.holds[id_].stage > hold.stage for id_, hold in changes.updated.items()):
            return WriteConflict()
        known = set(self.holds)
        if changes.check_hold_ids:
            known |= self.records.keys() | self.decisions.keys()
        if not changes.new_holds.keys().isdisjoint(known) or not changes.closed.keys().isdisjoint(self.holds):
            return WriteConflict(ValueError("the hold exists already"))
        for account in (self._moved(id_, changes) for id_ in changes.versions):
            if account.held_micros < 0 or (
                account.prepaid and account.balance_micros + account.overdraft_micros < account.held_micros
            ):
                return WriteConflict(ValueError("the account can't bear that"))
        return None

    def _moved(self, id_: UUID, changes: Changes) -> Account:
        account = self.accounts[id_]
        balance_micros = account.balance_micros + changes.balances.get(id_, 0)
        return replace(
            account, balance_micros=balance_micros, held_micros=account.held_micros + changes.held.get(id_, 0)
        )

    async def expired(self, unix_s: UnixS, limit: int) -> Sequence[Expired]:
        return [Expired(hold.id, hold.account_id) for hold in self._past(unix_s, HoldStage.RUNNING)[:limit]]

    async def lapsed(self, unix_s: UnixS, limit: int) -> Sequence[Unclaimed]:
        return [Unclaimed(hold.id, hold.account_id) for hold in self._past(unix_s, HoldStage.LAPSED)[:limit]]

    def _past(self, unix_s: UnixS, stage: HoldStage) -> list[Hold]:
        return [hold for hold in self.holds.values() if hold.stage is stage and hold.expires_at_s <= unix_s]

    async def forget_recorded(self, unix_s: UnixS) -> None:
        for hold in (*self._past(unix_s, HoldStage.RECORDED), *self._past(unix_s, HoldStage.CLOSED)):
            del self.holds[hold.id]


def _copied(row: CounterRow) -> CounterRow:
    return CounterRow(row.version, row.usage.copy(), dict(row.grants))
