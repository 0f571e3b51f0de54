"""One attempt at a transaction: commands are applied in order to what was read, and what they change is collected.

In: how each command moves the account and every counter that it touches, exactly once. Out: which counters those are
(counting), what is decided (decide), what a call costs in the end (model.settle), reading and writing
(ports.AdmissionStore), what else is in the batch (app).

Invariants, kept here and repeated by the database's CHECKs: an account's `held_micros`, with its shards', is the sum
over its holds; a prepaid account's balance minus holds never passes its overdraft; a hold becomes at most one call
record, and nothing after that. A call ends in the counters in which it began.

A batch may need counters that weren't read (a reseller's, the shards of a scope that is short): then
`Changes.missing_counters` names them, nothing is written, and the batch is decided again with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import Final
from uuid import UUID, uuid5

from callwarden.call_admission.admission.core.commands import (
    Admission,
    Admitted,
    Command,
    DecisionRecord,
    Done,
    EndedLate,
    Extended,
    Extension,
    Ignored,
    NeedsCounters,
    NeedsQuote,
    NoHold,
    Outcome,
    PlacedElsewhere,
    Refused,
    sip_status,
)
from callwarden.call_admission.admission.core.counting import Counting, carrier_scope, without_carriers
from callwarden.call_admission.admission.core.decide import Admit, Evaluation, decide, decide_extension
from callwarden.call_admission.admission.core.movement import Movement
from callwarden.call_admission.admission.core.notices import Notice, levels
from callwarden.call_admission.admission.core.rules.velocity import marks
from callwarden.call_admission.admission.core.sharing import SHARES_MAX, Sharing
from callwarden.call_admission.admission.core.snapshot import Snapshot, SourceTrunk
from callwarden.call_admission.admission.core.snapshots import SnapshotBuilder
from callwarden.call_admission.admission.core.state import AccountState, Changes, Loaded, NewHold
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import (
    EXPIRY_MARGIN_S,
    CallRequest,
    Decision,
    Ended,
    Expired,
    Hold,
    HoldStage,
    LimitScope,
    Quote,
    Route,
    Started,
    Unclaimed,
    costs_of,
)
from callwarden.call_admission.model.lists import Lists
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import CARRIER
from callwarden.call_admission.model.settle import Settlement, settle, settle_expired
from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Reason, Refuse

_NEGATIVE: Final = (Refused, NeedsQuote, PlacedElsewhere, Ignored, NoHold)
"""Outcomes that must be decided again on fresh data if what was read may be stale."""
_EVENTS: Final = (Started, Ended, Expired, Unclaimed)


class AdmissionTransaction:
    """Applies commands in order. One for each attempt; it is thrown away when the write fails.

    `unix_s`: Unix time. `slot`: see Counting. `expiry_s`: by which holds expire (expiry_clock); None: `unix_s`.
    """

    def __init__(
        self,
        loaded: Loaded,
        policy_for: Callable[[str], AdmissionPolicy],
        unix_s: UnixS,
        slot: int = 0,
        lists: Lists | None = None,
        trunk_of: Callable[[str], SourceTrunk | None] | None = None,
        expiry_s: UnixS | None = None,
    ) -> None:
        self.changes = changes = Changes()
        self._accounts = loaded.accounts
        self._holds = loaded.holds
        self._settled = loaded.settled
        self._refused = loaded.refused
        self._counters = loaded.counters
        self._policy_for = policy_for
        self._unix_s = unix_s
        self._expiry_s = unix_s if expiry_s is None else expiry_s
        self._counting = Counting(loaded, policy_for, slot)
        self._snapshots = SnapshotBuilder(loaded, self._counting, unix_s, lists, trunk_of)
        self._movement = Movement(loaded, changes, self._counting, policy_for, unix_s)

    def missing_counters(self, commands: Sequence[Command]) -> bool:
        """Whether counters have to be read before the commands can be applied; `changes.missing_counters` then names
        them."""
        missing = self.changes.missing_counters
        self._counting.add_missing(commands, missing)
        return bool(missing)

    def apply(self, command: Command) -> Outcome:
        """The answer to the command; its changes are added to `changes`, all of them or none."""
        self.changes.is_applied = True
        outcome = self._apply(command)
        if isinstance(outcome, _NEGATIVE) and not isinstance(command, DecisionRecord):
            account_id = command.account_id if isinstance(command, _EVENTS) else command.request.account_id
            self.changes.must_revalidate.add(account_id)
        return outcome

    def _apply(self, command: Command) -> Outcome:
        match command:
            case Admission():
                return self._admit(command)
            case Extension():
                return self._extend(command)
            case Started():
                return self._start(command)
            case Ended():
                return self._end(command)
            case Expired():
                return self._expire(command)
            case Unclaimed():
                return self._record(command)
            case DecisionRecord():
                self.changes.decisions.append(command)
                return Done()

    # ------------------------------------------------------------------ admit

    def _admit(self, command: Admission) -> Outcome:
        request, quote = command.request, command.quote
        state = self._accounts.get(request.account_id)
        if state is None:
            refuse = Refuse(Reason.ACCOUNT_UNKNOWN, "account", text="There is no such account.")
            return self._refuse(command, "", Evaluation(refuse, ()), 0, 0)
        account = state.account
        policy = self._policy_for(account.realm)
        held = self._holds.get(request.hold_id)
        if request.hold_id in self._settled or (
            held is not None and (held.account_id != account.id or held.stage is not HoldStage.RUNNING)
        ):
            # A repeated admission whose call is over, or an id that is used twice: neither may have any effect.
            return Ignored("settled")
        before = self._refused.get(request.hold_id)
        if before is not None:
            return Refused(before, sip_status(before, policy), policy.revision)
        if not request.local:
            pricing = self._snapshots.pricing_of(account)
            if quote is None or quote.pricing != pricing:
                return NeedsQuote(pricing)
        routes = quote.routes if isinstance(quote, Quote) else ()
        if held is not None and held.edge != request.edge:
            return PlacedElsewhere()
        if held is not None:
            return Admitted(held, held.left_of(routes), policy.revision)
        scopes = self._counting.of_new(account, command, policy)
        snapshot = self._snapshots.of_new(state, command, scopes)
        decided = decide(snapshot, request, policy)
        for _ in range(SHARES_MAX):
            if not decided.bounded or not self._share(decided, snapshot):
                break
            decided = decide(snapshot, request, policy)
        if self.changes.missing_counters:
            return NeedsCounters()
        if policy.reports:
            self.changes.reported += decided.reported
        verdict = decided.verdict
        if isinstance(verdict, Refuse):
            self._notify(state, decided, policy, snapshot.day, request.call_id)
            return self._refuse(command, account.name, decided, policy.revision, sip_status(verdict, policy))
        if decided.routes != routes:
            routes = decided.routes
            scopes = self._without_excluded(scopes, routes, account)
        hold = self._new_hold(command, snapshot, decided, verdict, policy, scopes)
        decision = self._decision("admit", None, decided, policy.revision, account.name, request)
        prefix = quote.prefix if isinstance(quote, Quote) else ""
        self.changes.new_holds[hold.id] = NewHold(hold, request, prefix, decision)
        self._holds[hold.id] = hold
        state.lines += 1
        state.lines_until_s = min(state.lines_until_s, hold.expires_at_s)
        if hold.final and hold.granted_s < hold.max_duration_s:
            self.changes.must_revalidate.add(account.id)
        self._movement.begin(state, request, hold, policy)
        if policy.thresholds or decided.warnings:
            self._notify(state, decided, policy, snapshot.day, request.call_id)
        return Admitted(hold, routes, policy.revision)

    def _new_hold(
        self,
        command: Admission,
        snapshot: Snapshot,
        decided: Evaluation,
        admit: Admit,
        policy: AdmissionPolicy,
        scopes: tuple[LimitScope, ...],
    ) -> Hold:
        request, quote, account, routes = command.request, command.quote, snapshot.account, decided.routes
        return Hold(
            id=request.hold_id,
            account_id=account.id,
            created_at_s=request.start_s,
            answered_at_s=None,
            # The first slice is included: an extension that comes in time then finds the hold even if the event of the
            # answer is late or lost.
            expires_at_s=self._unix_s + policy.setup_s_max + admit.granted_s + EXPIRY_MARGIN_S,
            granted_s=admit.granted_s,
            max_duration_s=admit.max_duration_s,
            final=admit.final,
            held_micros=admit.held_micros,
            spend_day=snapshot.day,
            price=admit.price,
            trunk=routes[0].trunk if routes else "",
            marks=marks(request, policy, account, self._unix_s) if policy.velocity else (),
            scopes=scopes,
            costs=quote.costs_of(routes) if isinstance(quote, Quote) else (),
            limits_hit=decided.hits(policy),
            edge=request.edge,
        )

    def _without_excluded(
        self, scopes: tuple[LimitScope, ...], routes: tuple[Route, ...], account: Account
    ) -> tuple[LimitScope, ...]:
        left = without_carriers(scopes, costs_of(routes))
        if len(left) < len(scopes):
            # An excluded carrier's row isn't written, so the write doesn't check it; what was cached may be stale.
            self.changes.must_revalidate.add(account.id)
        return left

    def _refuse(self, command: Admission, account: str, decided: Evaluation, revision: int, sip_status: int) -> Refused:
        request, refuse = command.request, decided.verdict
        assert isinstance(refuse, Refuse)
        decision = self._decision("refuse", refuse, decided, revision, account, request, sip_status)
        # The record has the request's own id: when the request is repeated, it is found and answered alike.
        self.changes.decisions.append(
            DecisionRecord.of(request.hold_id, request.call_id, request.account_id, decision)
        )  # fmt: skip
        self._refused[request.hold_id] = refuse
        return Refused(refuse, sip_status, revision)

    # ------------------------------------------------------------------ extend

    def _extend(self, command: Extension) -> Outcome:
        request = command.request
        hold = self._hold(request.hold_id, request.account_id, HoldStage.RUNNING)
        state = self._accounts.get(request.account_id)
        if hold is None or state is None or hold.expires_at_s <= self._expiry_s:
            return NoHold()  # The line of an expired hold may be another call's by now.
        if request.granted_s < hold.granted_s:
            return Extended(hold)  # The answer to an earlier request was lost; that grant is still in force.
        request.answered_at_s = self._possible(hold, request.answered_at_s)
        account = state.account
        policy = self._policy_for(account.realm)
        # Decided on what is counted without the call itself.
        without = hold.without()
        self._movement.shift(state, hold, without, policy, writes=False)
        snapshot = self._snapshots.of_running(state, without)
        decided = decide_extension(snapshot, hold, request, policy)
        for _ in range(SHARES_MAX):
            if not decided.bounded or not self._share(decided, snapshot):
                break
            decided = decide_extension(snapshot, hold, request, policy)
        if self.changes.missing_counters:
            return NeedsCounters()
        self._movement.shift(state, without, hold, policy, writes=False)
        verdict = decided.verdict
        hits = decided.hits(policy)
        if isinstance(verdict, Refuse):
            self._record_cut(command, account.name, decided, policy.revision)
            self._notify(state, decided, policy, hold.spend_day, request.call_id)
            if verdict.rule not in hold.limits_hit:
                self._movement.update(state, hold, hold.hit((verdict.rule, *hits)), policy)
            return Refused(verdict, sip_status(verdict, policy), policy.revision)
        if verdict.final and verdict.granted_s < hold.max_duration_s:
            self._record_cut(command, account.name, decided, policy.revision)
        extended = hold.granted(
            request.answered_at_s,
            verdict.granted_s,
            verdict.held_micros,
            hold.trunk,
            policy.grace_s,
            final=verdict.final,
        )
        if hits:
            extended = extended.hit(hits)
        self._movement.update(state, hold, extended, policy)
        if policy.thresholds or decided.warnings:
            self._notify(state, decided, policy, hold.spend_day, request.call_id)
        return Extended(extended)

    def _record_cut(self, command: Extension, account: str, decided: Evaluation, revision: int) -> None:
        """The call is about to be cut off: its last slice is short, or there is none."""
        request, verdict = command.request, decided.verdict
        # The id is derived, so that an edge that keeps asking leaves one record.
        record_id = uuid5(request.hold_id, f"cut.{request.granted_s}")
        refused = verdict if isinstance(verdict, Refuse) else None
        decision = Decision(
            self._unix_s, "cut", refused, decided.rules, revision, account, trace_id=request.trace_id,
            cut_by=decided.cut_by,
        )  # fmt: skip
        self.changes.must_revalidate.add(request.account_id)
        self.changes.decisions.append(DecisionRecord.of(record_id, request.call_id, request.account_id, decision))

    # ------------------------------------------------------------------ start

    def _start(self, event: Started) -> Outcome:
        hold = self._hold(event.hold_id, event.account_id, HoldStage.RUNNING, HoldStage.LAPSED)
        state = self._accounts.get(event.account_id)
        if hold is None or state is None:
            return self._not_running(event)
        policy = self._policy_for(state.account.realm)
        if hold.stage is HoldStage.LAPSED:
            return self._start_lapsed(state, hold, event)
        taken = self._taken(hold, event.trunk)
        answered = taken.granted(
            self._possible(hold, event.answered_at_s),
            hold.granted_s,
            hold.held_micros,
            event.trunk or hold.trunk,
            policy.grace_s,
            final=hold.final,
        )
        if answered != hold:
            self._movement.update(state, taken, answered, policy)
        return Done()

    def _start_lapsed(self, state: AccountState, hold: Hold, event: Started) -> Outcome:
        """The answer is noted, so that what was granted is charged if no end comes. The call isn't counted again: its
        line and its money may be another's by now, and its edge is told so when it asks for more time."""
        if hold.answered_at_s is None:
            answered_at_s = self._possible(hold, event.answered_at_s)
            answered = replace(hold, answered_at_s=answered_at_s, trunk=event.trunk or hold.trunk)
            self._movement.keep_answer(state, answered)
        return Done()

    def _taken(self, hold: Hold, trunk: str) -> Hold:
        """The call, which went out by this trunk: no longer counted for the other carriers. Unchanged if the trunk
        isn't given or isn't one of its routes."""
        cost = hold.of_trunk(trunk) if trunk else None
        if cost is None:
            return hold
        taken_by = carrier_scope(cost)
        others = {scope for scope in hold.scopes if scope.kind == CARRIER and scope.scope != taken_by}
        if not others:
            return hold
        for scope in others:
            self._movement.touch(scope).usage.leave(hold)
        return replace(hold, scopes=tuple(scope for scope in hold.scopes if scope not in others))

    # ------------------------------------------------------------------ end, lapse, record

    def _end(self, event: Ended) -> Outcome:
        hold = self._hold(event.hold_id, event.account_id, *HoldStage)
        state = self._accounts.get(event.account_id)
        if hold is None or state is None or hold.stage is HoldStage.CLOSED:
            outcome = self._not_running(event)
            if outcome.why == "unknown" and state is not None and self._is_free(event.hold_id):
                self._movement.close(state.account, event.hold_id)
            return outcome
        if event.sip_status >= 300 and event.edge not in ("", hold.edge):
            # The same INVITE came to two edges, and this one, which has given up, isn't the one that placed the call.
            return Ignored("elsewhere")
        if hold.stage is HoldStage.RUNNING and hold.answered_at_s is None and event.is_of_unseen_answer:
            # One that isn't told yet, or is still to come, from the edge that placed the call: it tells the end, too.
            self._movement.lapse(state, hold)
            return Done()
        self._place(hold, event)
        settlement = settle(hold, event)
        if hold.stage is HoldStage.RUNNING:
            self._movement.settle(state, hold, settlement)
            return Done()
        return self._end_late(state, hold, settlement)

    def _end_late(self, state: AccountState, hold: Hold, settlement: Settlement) -> Outcome:
        booked = None
        if hold.stage is HoldStage.RECORDED:
            if hold.id not in self._settled:
                return Ignored("settled")  # its record is so old that it was deleted
            booked = replace(settle_expired(hold), price_micros=self._settled[hold.id])
        uncharged_micros = self._cap(state, settlement, booked)
        self._movement.settle_late(state, hold, settlement, booked)
        more_micros = settlement.price_micros - (booked.price_micros if booked is not None else 0)
        return EndedLate(booked is not None, more_micros, uncharged_micros)

    def _cap(self, state: AccountState, settlement: Settlement, booked: Settlement | None) -> int:
        """Lowers what a lapsed call costs to what a prepaid account has left: its money was free since, and may be
        gone. Returns by how much. A sharded account's credit isn't known here; it goes below by that much."""
        account = state.account
        if not account.prepaid or account.shards > 1:
            return 0
        more_micros = settlement.price_micros - (booked.price_micros if booked is not None else 0)
        left_micros = max(state.balance_micros + account.overdraft_micros - state.held_micros, 0)
        over_micros = max(more_micros - left_micros, 0)
        settlement.price_micros -= over_micros
        settlement.uncharged_micros = over_micros
        if over_micros:
            self.changes.must_revalidate.add(account.id)
        return over_micros

    def _possible(self, hold: Hold, answered_at_s: float) -> float:
        """When a call was answered: now, if the edge's clock says that it was before the call was admitted. A hold that
        ended by such a clock would expire while its call goes on."""
        return answered_at_s if answered_at_s >= hold.created_at_s else self._unix_s

    def _place(self, hold: Hold, event: Ended) -> None:
        """Moves an end by a clock that is hours behind to where the hold is: price windows go by our time, and the talk
        stays as long as the edge measured it."""
        if event.answered_at_s is not None:
            if event.answered_at_s < hold.created_at_s:
                talk_s = event.ended_at_s - event.answered_at_s
                event.answered_at_s = hold.answered_at_s if hold.answered_at_s is not None else hold.created_at_s
                event.ended_at_s = event.answered_at_s + talk_s
                ahead_s = max(event.ended_at_s - self._unix_s, 0.0)  # nothing ends later than now
                event.answered_at_s -= ahead_s
                event.ended_at_s -= ahead_s
        elif hold.answered_at_s is not None and event.ended_at_s < hold.answered_at_s:
            event.ended_at_s = self._unix_s

    def _expire(self, command: Expired) -> Outcome:
        hold = self._hold(command.hold_id, command.account_id, HoldStage.RUNNING)
        state = self._accounts.get(command.account_id)
        if hold is None or state is None:
            return self._not_running(command)
        if hold.expires_at_s > self._unix_s:
            return Ignored("not-expired")  # Extended between the reaper's look and this transaction.
        self._movement.lapse(state, hold)
        return Done()

    def _record(self, command: Unclaimed) -> Outcome:
        hold = self._hold(command.hold_id, command.account_id, HoldStage.LAPSED)
        state = self._accounts.get(command.account_id)
        if hold is None or state is None:
            return self._not_running(command)
        settlement = settle_expired(hold)
        uncharged_micros = self._cap(state, settlement, None)
        self._movement.record(state, hold, settlement)
        return EndedLate(False, settlement.price_micros, uncharged_micros)

    # ------------------------------------------------------------------ notices, parts

    def _notify(
        self, state: AccountState, decided: Evaluation, policy: AdmissionPolicy, day: date, call_id: str
    ) -> None:
        """Notices about the limits that this decision met, each once a day."""
        usage, ordinal = state.usage, day.toordinal()
        for result, level in levels(decided, policy):
            if not usage.is_notice_due(result.rule, level, ordinal):
                continue
            usage.record_notice(result.rule, level, ordinal)
            account = state.account
            self.changes.notices.append(
                Notice(
                    account.id, account.name, account.realm, result.rule, level, result.counter, result.value,
                    result.limit or 0, result.window, self._unix_s, call_id,
                )
            )  # fmt: skip
            self._movement.move(state)

    def _share(self, decided: Evaluation, snapshot: Snapshot) -> bool:
        changes = self.changes
        sharing = Sharing(
            self._counters, self._unix_s, changes.missing_counters, changes.counters, changes.own_shards
        )  # fmt: skip
        return sharing.share(decided.bounded, snapshot)

    def _hold(self, hold_id: UUID, account_id: UUID, *stages: HoldStage) -> Hold | None:
        """The account's hold, if it is in one of these stages."""
        hold = self._holds.get(hold_id)
        return hold if hold is not None and hold.account_id == account_id and hold.stage in stages else None

    def _is_free(self, hold_id: UUID) -> bool:
        """Whether an admission by this id would place a hold."""
        return hold_id not in self._holds and hold_id not in self._refused

    def _not_running(self, command: Started | Ended | Expired | Unclaimed) -> Ignored:
        hold = self._hold(command.hold_id, command.account_id, *HoldStage)
        if command.hold_id in self._settled or (hold is not None and hold.stage is HoldStage.CLOSED):
            return Ignored("settled")
        return Ignored("unknown" if hold is None else "not-due")

    def _decision(
        self, outcome: str, refuse: Refuse | None, decided: Evaluation, revision: int, account: str,
        request: CallRequest, sip_status: int = 0,
    ) -> Decision:  # fmt: skip
        return Decision(
            self._unix_s, outcome, refuse, decided.rules, revision, account, request.source_address, request.trace_id,
            sip_status, decided.cut_by,
        )  # fmt: skip
