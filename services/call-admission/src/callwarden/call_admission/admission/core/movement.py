"""How a call moves everything that it is counted in: its account's row, the rows of its scopes, money held and spent.

In: begin, change, settle, and that each change is to be written. Out: whether a call may do so (transaction, decide),
what one row of counters does with it (model.usage).
"""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from callwarden.call_admission.admission.core.counting import Counting, carrier_scope
from callwarden.call_admission.admission.core.state import AccountState, Changes, Correction, CounterRow, Loaded
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import CallRequest, Hold, HoldStage, LimitScope
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT, CARRIER, RESELLER
from callwarden.call_admission.model.settle import Settlement
from callwarden.call_admission.model.usage import TransitionContext
from callwarden.kernel.clock import UnixS
from callwarden.kernel.tariff import free


class Movement:
    """One for each attempt at a transaction: changes what was read, and notes in `changes` what has to be written."""

    __slots__ = ("_changes", "_counters", "_counting", "_holds", "_policy_for", "_referenced", "_settled", "_unix_s")

    def __init__(
        self,
        loaded: Loaded,
        changes: Changes,
        counting: Counting,
        policy_for: Callable[[str], AdmissionPolicy],
        unix_s: UnixS,
    ) -> None:
        self._changes = changes
        self._counting = counting
        self._counters = loaded.counters
        self._holds = loaded.holds
        self._unix_s = unix_s
        self._policy_for = policy_for
        self._referenced = loaded.referenced
        self._settled = loaded.settled

    def begin(self, state: AccountState, request: CallRequest, hold: Hold, policy: AdmissionPolicy) -> None:
        """A call was admitted: `hold` is counted everywhere that it names."""
        account, unix_s = state.account, self._unix_s
        is_own = True
        for scope in hold.scopes:
            kind = scope.kind
            usage = self.touch(scope).usage
            if kind == ACCOUNT:
                is_own = False
                usage.begin(request, hold, TransitionContext(kind, policy, account, unix_s, leases=True))
            elif kind == RESELLER:
                reseller = self._referenced[scope.scope]
                usage.begin(request, hold, TransitionContext(kind, policy, reseller.account, unix_s))
                self._check(scope.scope, reseller.version)
            else:
                usage.begin(request, hold, TransitionContext(kind, policy, account, unix_s))
        if is_own:
            state.usage.begin(request, hold, TransitionContext(ACCOUNT, policy, account, unix_s))
            self._hold_money(state, hold.held_micros)
            self.move(state)
        else:
            self._check(account.id, state.version)

    def update(self, state: AccountState, before: Hold, hold: Hold, policy: AdmissionPolicy) -> None:
        """A running call changes from one state to another."""
        # A late event of an answer brings back a call whose hold had expired.
        state.lines += (hold.expires_at_s > self._unix_s) - (before.expires_at_s > self._unix_s)
        state.lines_until_s = min(state.lines_until_s, hold.expires_at_s)
        self._holds[hold.id] = hold
        new = self._changes.new_holds.get(hold.id)
        if new is not None:
            new.hold = hold
        else:
            self._changes.updated[hold.id] = hold
            self._changes.expiries.setdefault(hold.id, before.expires_at_s)
        account = state.account
        is_own = self.shift(state, before, hold, policy, writes=True)
        if is_own:
            self._hold_money(state, hold.held_micros - before.held_micros)
            self.move(state)
        else:
            self._check(account.id, state.version)
        for scope in before.scopes:
            if scope.kind == RESELLER and (reseller := self._referenced.get(scope.scope)) is not None:
                self._check(scope.scope, reseller.version)

    def settle(self, state: AccountState, hold: Hold, settlement: Settlement) -> None:
        """A call is over: nothing is held for it any more, and what it cost is spent."""
        account, account_id, day = state.account, hold.account_id, hold.spend_day
        changes = self._changes
        del self._holds[hold.id]
        changes.updated.pop(hold.id, None)
        self._settled[hold.id] = settlement.price_micros
        changes.settled.append(settlement)
        changes.expiries.setdefault(hold.id, hold.expires_at_s)
        if hold.expires_at_s > self._unix_s:
            state.lines -= 1  # An expired hold wasn't counted any more.
        policy = self._policy_for(account.realm)
        price_micros = settlement.price_micros
        if price_micros:
            changes.spent[account_id, day] = changes.spent.get((account_id, day), 0) + price_micros
        is_own = True
        for scope in self._counting.of_running(account, hold):
            usage = self.touch(scope).usage
            if scope.kind == CARRIER and scope.scope != carrier_scope(hold.of_trunk(settlement.trunk)):
                usage.leave(hold)
                continue
            usage.end(hold, settlement, TransitionContext(scope.kind, policy, account, self._unix_s))
            if scope.kind == ACCOUNT:
                is_own = False
        if not is_own:
            self._check(account_id, state.version)
            return
        state.usage.end(hold, settlement, TransitionContext(ACCOUNT, policy, account, self._unix_s))
        self._hold_money(state, -hold.held_micros)
        if price_micros:
            state.balance_micros -= price_micros
            changes.balances[account_id] = changes.balances.get(account_id, 0) - price_micros
        self.move(state)

    # ------------------------------------------------------------------ calls whose end is late or never comes

    def lapse(self, state: AccountState, hold: Hold) -> None:
        """The hold has expired: nothing is counted for the call any more, until its end is told."""
        self._keep(hold, HoldStage.LAPSED)
        account = state.account
        policy, is_own = self._policy_for(account.realm), True
        for scope in self._counting.of_running(account, hold):
            self.touch(scope).usage.release(hold, TransitionContext(scope.kind, policy, account, self._unix_s))
            if scope.kind == ACCOUNT:
                is_own = False
        if not is_own:
            self._check(account.id, state.version)
            return
        state.usage.release(hold, TransitionContext(ACCOUNT, policy, account, self._unix_s))
        self._hold_money(state, -hold.held_micros)
        self.move(state)

    def record(self, state: AccountState, hold: Hold, settlement: Settlement) -> None:
        """The call gets a record although its end is unknown; the hold stays, in case that it becomes known."""
        self._keep(hold, HoldStage.RECORDED)
        self._changes.recorded.append(settlement)
        self._settled[hold.id] = settlement.price_micros
        self._charge(state, hold, settlement, None)

    def settle_late(self, state: AccountState, hold: Hold, settlement: Settlement, booked: Settlement | None) -> None:
        """The end of a lapsed call: charged now, less what was `booked` for it when it was recorded as expired."""
        del self._holds[hold.id]
        changes = self._changes
        changes.updated.pop(hold.id, None)
        changes.expiries.setdefault(hold.id, hold.expires_at_s)
        if booked is None:
            changes.settled.append(settlement)
        else:
            changes.corrected.append(Correction(settlement, settlement.price_micros - booked.price_micros))
        self._settled[hold.id] = settlement.price_micros
        self._charge(state, hold, settlement, booked)

    def close(self, account: Account, hold_id: UUID) -> None:
        """The call was over before its hold was placed: it never will be. Nothing is counted for it."""
        hold = Hold(
            hold_id, account.id, self._unix_s, None, self._unix_s, 0, 0, True, 0,
            day_of(self._unix_s, account.time_zone), free(account.currency), "", stage=HoldStage.CLOSED,
        )  # fmt: skip
        self._holds[hold_id] = self._changes.closed[hold_id] = hold

    def keep_answer(self, state: AccountState, hold: Hold) -> None:
        """The answer of a lapsed call came late: noted for its record."""
        self._keep(hold, hold.stage)
        self._check(hold.account_id, state.version)

    def _keep(self, hold: Hold, stage: HoldStage) -> None:
        self._holds[hold.id] = self._changes.updated[hold.id] = replace(hold, stage=stage)
        self._changes.expiries.setdefault(hold.id, hold.expires_at_s)

    def _charge(self, state: AccountState, hold: Hold, settlement: Settlement, booked: Settlement | None) -> None:
        account, changes = state.account, self._changes
        more_micros, more_s = settlement.price_micros, settlement.duration_s
        if booked is not None:
            more_micros -= booked.price_micros
            more_s -= booked.duration_s
        if more_micros:
            key = account.id, hold.spend_day
            changes.spent[key] = changes.spent.get(key, 0) + more_micros
        policy, is_own = self._policy_for(account.realm), True
        for scope in self._counting.of_running(account, hold):
            context = TransitionContext(scope.kind, policy, account, self._unix_s)
            if scope.kind == CARRIER:
                for each, sign in ((settlement, 1), (booked, -1)):
                    if each is not None and scope.scope == carrier_scope(hold.of_trunk(each.trunk)):
                        self.touch(scope).usage.charge(hold, 0, sign * each.duration_s, context, calls=sign)
                continue
            self.touch(scope).usage.charge(hold, more_micros, more_s, context)
            if scope.kind == ACCOUNT:
                is_own = False
        if not is_own:
            self._check(account.id, state.version)
            return
        state.usage.charge(hold, more_micros, more_s, TransitionContext(ACCOUNT, policy, account, self._unix_s))
        if more_micros:
            state.balance_micros -= more_micros
            changes.balances[account.id] = changes.balances.get(account.id, 0) - more_micros
        self.move(state)

    # ------------------------------------------------------------------ parts

    def shift(self, state: AccountState, before: Hold, after: Hold, policy: AdmissionPolicy, *, writes: bool) -> bool:
        """Moves every counter of the call from one of its states to another; whether the account's own row is among
        them."""
        account, is_own = state.account, True
        for scope in self._counting.of_running(account, before):
            if scope.kind == CARRIER and before.granted_s == after.granted_s:
                continue  # It counts nothing else, and all calls that it takes meet in its row.
            counter = self.touch(scope) if writes else self._counters[scope.scope, scope.shard]
            counter.usage.extend(before, after, TransitionContext(scope.kind, policy, account, self._unix_s))
            if scope.kind == ACCOUNT:
                is_own = False
        if is_own:
            state.usage.extend(before, after, TransitionContext(ACCOUNT, policy, account, self._unix_s))
        return is_own

    def touch(self, scope: LimitScope) -> CounterRow:
        """The scope's row, which will be written."""
        key = scope.scope, scope.shard
        counter = self._counters[key]
        self._changes.counters[key] = counter
        if scope.kind == ACCOUNT:
            self._changes.own_shards.add(scope.scope)
        return counter

    def move(self, state: AccountState) -> None:
        """The account's row changes, provided that it is still what was read."""
        account_id = state.account.id
        self._changes.versions[account_id] = state.version
        self._changes.usages[account_id] = state.usage

    def _check(self, account_id: UUID, version: int) -> None:
        self._changes.checked[account_id] = version

    def _hold_money(self, state: AccountState, more_micros: int) -> None:
        if more_micros:
            account_id = state.account.id
            state.held_micros += more_micros
            self._changes.held[account_id] = self._changes.held.get(account_id, 0) + more_micros
