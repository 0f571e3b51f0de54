"""The working set of one transaction: what was read, the commands applied to it in order, what is to be written.

In: how each command moves the accounts on, and that it moves them on once. Out: what is decided (decide) and charged
(settle), how it is read and written (adapters.store), who else is in the batch (app).

The invariants, kept here and repeated by the database's CHECKs: an account's `held_micros` is the sum over its holds; a
prepaid account's balance minus holds never passes its overdraft; a hold becomes at most one settlement, and nothing
after that.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from math import inf
from typing import Final, TypeAlias
from uuid import UUID, uuid5

from callwarden.call_admission.core.calls import (
    EXPIRY_MARGIN_S,
    CallRequest,
    Decision,
    Ended,
    Expired,
    ExtendRequest,
    Hold,
    NoQuote,
    Quote,
    Route,
    Started,
)
from callwarden.call_admission.core.days import day_of
from callwarden.call_admission.core.decide import Decided, decide, decide_extension
from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.settle import Settlement, settle, settle_expired
from callwarden.call_admission.core.snapshot import Account, Snapshot
from callwarden.kernel.verdict import Reason, Refuse

_MONEY_REASONS = frozenset({Reason.CREDIT, Reason.DAILY_SPEND})


@dataclass(slots=True)
class Standing:
    """An account as it was read, and moved on by each command of the batch."""

    account: Account
    version: int
    """Of the account's holds, as it was read."""
    balance_micros: int
    held_micros: int
    lines: int
    lines_until_s: float
    """Until this moment no hold that `lines` counts expires."""
    held_by_day: dict[date, int]
    spent_by_day: dict[date, int]

    @classmethod
    def of(
        cls,
        account: Account,
        version: int = 0,
        lines: int = 0,
        held_by_day: dict[date, int] | None = None,
        spent_by_day: dict[date, int] | None = None,
    ) -> "Standing":
        return cls(
            account, version, account.balance_micros, account.held_micros, lines, inf, held_by_day or {},
            spent_by_day or {},
        )  # fmt: skip


@dataclass(slots=True)
class Loaded:
    """What the transaction has read for the batch."""

    standings: dict[UUID, Standing]
    holds: dict[UUID, Hold]
    settled: set[UUID] = field(default_factory=set)
    """Holds of the batch that have a CDR."""
    refused: dict[UUID, Refuse] = field(default_factory=dict)
    """Admissions of the batch that were refused before."""


@dataclass(slots=True)
class NewHold:
    """A hold with all that its record will say."""

    hold: Hold
    request: CallRequest
    prefix: str
    decision: Decision


@dataclass(slots=True)
class Note:
    """A decision that is kept by itself: a refusal, a cut; or another service's, whose `body` is kept as it came."""

    id: UUID
    call_id: str
    account_id: UUID | None
    at_s: float
    outcome: str
    decision: Decision | None
    body: bytes = b""

    @classmethod
    def of(cls, note_id: UUID, call_id: str, account_id: UUID, decision: Decision) -> "Note":
        return cls(note_id, call_id, account_id, decision.at_s, decision.outcome, decision)


@dataclass(slots=True)
class Changes:
    """What is to be written. Sums, where several commands touch one row."""

    holds: dict[UUID, NewHold] = field(default_factory=dict)
    updated: dict[UUID, Hold] = field(default_factory=dict)
    settled: list[Settlement] = field(default_factory=list)
    versions: dict[UUID, int] = field(default_factory=dict)
    """Of every account whose holds change: what was read, and must still hold when it is written."""
    balances: dict[UUID, int] = field(default_factory=dict)
    held: dict[UUID, int] = field(default_factory=dict)
    spent: dict[tuple[UUID, date], int] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    doubtful: set[UUID] = field(default_factory=set)
    """Accounts that were told no, or less than they asked for. Where what was read is older than the transaction, that
    must be decided again on what is true now; a yes needn't, since it is only written if nothing has moved."""
    reported: list[str] = field(default_factory=list)
    """Rules that would have refused, had they been enforced: not written, counted."""


# ------------------------------------------------------------------ commands and what they are answered


@dataclass(slots=True)
class Admission:
    """A request with what rating said. `quote` None: local, or not asked yet."""

    request: CallRequest
    quote: Quote | NoQuote | None = None


@dataclass(slots=True)
class Extension:
    request: ExtendRequest


Command: TypeAlias = Admission | Extension | Started | Ended | Expired | Note


@dataclass(slots=True)
class Admitted:
    hold: Hold
    routes: tuple[Route, ...]
    policy_revision: int


@dataclass(slots=True)
class Extended:
    hold: Hold


@dataclass(slots=True)
class Refused:
    refuse: Refuse
    sip_status: int
    policy_revision: int


@dataclass(slots=True)
class NeedsQuote:
    """The account's price list isn't the one that was asked: ask for this deck and come again."""

    deck: str


@dataclass(slots=True)
class Done:
    """An event was taken in."""


@dataclass(slots=True)
class Ignored:
    """An event changed nothing: `why` is "settled" (a repetition, or late), "unknown" or "not-expired"."""

    why: str


@dataclass(slots=True)
class NoHold:
    """The call to be extended isn't running (any more)."""


_DOUBTFUL: Final = (Refused, NeedsQuote, Ignored, NoHold)
_TOLD: Final = (Started, Ended, Expired)

Outcome: TypeAlias = Admitted | Extended | Refused | NeedsQuote | Done | Ignored | NoHold


def account_of(command: Command) -> UUID | None:
    """The account that a command is about; None for a note, which touches none."""
    match command:
        case Admission() | Extension():
            return command.request.account_id
        case Note():
            return None
    return command.account_id


def hold_of(command: Command) -> UUID | None:
    """The hold that has to be read for a command."""
    match command:
        case Admission() | Extension():
            return command.request.hold_id
        case Note():
            return None
    return command.hold_id


class Book:
    """Applies commands in order. One for each attempt at a transaction: it is thrown away when that fails."""

    def __init__(self, loaded: Loaded, policy_for: Callable[[str], AdmissionPolicy], now_s: float) -> None:
        self._standings: Mapping[UUID, Standing] = loaded.standings
        self._holds = loaded.holds
        self._settled = loaded.settled
        self._refused = loaded.refused
        self._policy_for = policy_for
        self._now_s = now_s
        self.changes = Changes()

    def apply(self, command: Command) -> Outcome:
        """What the command is answered; its changes are kept for writing, whole or not at all."""
        outcome = self._apply(command)
        if isinstance(outcome, _DOUBTFUL) and not isinstance(command, Note):
            self.changes.doubtful.add(command.account_id if isinstance(command, _TOLD) else command.request.account_id)
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
            case Note():
                self.changes.notes.append(command)
                return Done()

    # ------------------------------------------------------------------ admissions

    def _admit(self, command: Admission) -> Outcome:
        request = command.request
        standing = self._standings.get(request.account_id)
        quote = command.quote
        if standing is None:
            refuse = Refuse(Reason.ACCOUNT_UNKNOWN, "account", text="There is no such account.")
            return self._refuse(command, "", Decided(refuse, ()), 0, 0)
        account = standing.account
        policy = self._policy_for(account.realm)
        held = self._holds.get(request.hold_id)
        if request.hold_id in self._settled or (held is not None and held.account_id != account.id):
            # A repetition of an admission whose call is over, or an id used twice: nothing may come of it.
            return Ignored("settled")
        before = self._refused.get(request.hold_id)
        if before is not None:
            return Refused(before, _sip_status(before, policy), policy.revision)
        if not request.local and (quote is None or quote.deck != account.deck):
            return NeedsQuote(account.deck)
        routes = quote.routes if isinstance(quote, Quote) else ()
        if held is not None:
            return Admitted(held, routes, policy.revision)
        day = day_of(request.start_s, account.time_zone)
        snapshot = self._snapshot(standing, day, None if request.local else quote)
        decided = decide(snapshot, request, policy)
        if policy.reports:
            self.changes.reported += decided.reported
        verdict = decided.verdict
        if isinstance(verdict, Refuse):
            return self._refuse(command, account.name, decided, policy.revision, _sip_status(verdict, policy))
        hold = Hold(
            id=request.hold_id,
            account_id=account.id,
            created_at_s=request.start_s,
            answered_at_s=None,
            # The first slice counts, too: then an extension that comes in time finds the hold even when the news of the
            # answer is late or lost.
            expires_at_s=self._now_s + policy.setup_s_max + verdict.granted_s + EXPIRY_MARGIN_S,
            granted_s=verdict.granted_s,
            max_duration_s=verdict.max_duration_s,
            final=verdict.final,
            held_micros=verdict.held_micros,
            spend_day=day,
            price=verdict.price,
            trunk=routes[0].trunk if routes else "",
        )
        decision = self._decision("admit", None, decided, policy.revision, account.name, request)
        prefix = quote.prefix if isinstance(quote, Quote) else ""
        self.changes.holds[hold.id] = NewHold(hold, request, prefix, decision)
        self._holds[hold.id] = hold
        self.changes.versions[account.id] = standing.version
        standing.lines += 1
        standing.lines_until_s = min(standing.lines_until_s, hold.expires_at_s)
        if hold.final and hold.granted_s < hold.max_duration_s:
            self.changes.doubtful.add(account.id)
        self._hold_money(standing, day, hold.held_micros)
        return Admitted(hold, routes, policy.revision)

    def _refuse(self, command: Admission, account: str, decided: Decided, revision: int, sip_status: int) -> Refused:
        request, refuse = command.request, decided.verdict
        assert isinstance(refuse, Refuse)
        decision = self._decision("refuse", refuse, decided, revision, account, request, sip_status)
        # The refusal's id is the request's: asked again, it is found and answered alike.
        self.changes.notes.append(Note.of(request.hold_id, request.call_id, request.account_id, decision))
        self._refused[request.hold_id] = refuse
        return Refused(refuse, sip_status, revision)

    # ------------------------------------------------------------------ running calls

    def _extend(self, command: Extension) -> Outcome:
        request = command.request
        hold = self._running(request.hold_id, request.account_id)
        standing = self._standings.get(request.account_id)
        if hold is None or standing is None or hold.expires_at_s <= self._now_s:
            return NoHold()  # An expired one's line may be somebody else's by now: the reaper settles it.
        if request.granted_s < hold.granted_s:
            return Extended(hold)  # The answer to an earlier request was lost: it holds.
        account = standing.account
        policy = self._policy_for(account.realm)
        snapshot = self._snapshot(standing, hold.spend_day, None)
        snapshot.held_micros -= hold.held_micros
        snapshot.held_day_micros -= hold.held_micros
        decided = decide_extension(snapshot, hold, request, policy)
        verdict = decided.verdict
        if isinstance(verdict, Refuse):
            self._note_cut(command, account.name, decided, policy.revision)
            return Refused(verdict, _sip_status(verdict, policy), policy.revision)
        if verdict.final and verdict.granted_s < hold.max_duration_s:
            self._note_cut(command, account.name, decided, policy.revision)
        more_micros = verdict.held_micros - hold.held_micros
        extended = hold.granted(
            request.answered_at_s,
            verdict.granted_s,
            verdict.held_micros,
            hold.trunk,
            policy.grace_s,
            final=verdict.final,
        )
        self._update(standing, hold, extended)
        self._hold_money(standing, hold.spend_day, more_micros)
        return Extended(extended)

    def _note_cut(self, command: Extension, account: str, decided: Decided, revision: int) -> None:
        """Keep why a call won't go on: its last slice is short, or there is none."""
        request, verdict = command.request, decided.verdict
        # Derived, so that an edge that asks again and again leaves one note.
        note_id = uuid5(request.hold_id, f"cut.{request.granted_s}")
        refused = verdict if isinstance(verdict, Refuse) else None
        decision = Decision(self._now_s, "cut", refused, decided.rules, revision, account, trace_id=request.trace_id)
        self.changes.doubtful.add(request.account_id)
        self.changes.notes.append(Note.of(note_id, request.call_id, request.account_id, decision))

    def _start(self, event: Started) -> Outcome:
        hold = self._running(event.hold_id, event.account_id)
        standing = self._standings.get(event.account_id)
        if hold is None or standing is None:
            return self._not_running(event.hold_id)
        policy = self._policy_for(standing.account.realm)
        answered = hold.granted(
            event.answered_at_s,
            hold.granted_s,
            hold.held_micros,
            event.trunk or hold.trunk,
            policy.grace_s,
            final=hold.final,
        )
        if answered != hold:
            self._update(standing, hold, answered)
        return Done()

    # ------------------------------------------------------------------ ends

    def _end(self, event: Ended) -> Outcome:
        hold = self._running(event.hold_id, event.account_id)
        standing = self._standings.get(event.account_id)
        if hold is None or standing is None:
            return self._not_running(event.hold_id)
        self._settle(standing, hold, settle(hold, event))
        return Done()

    def _expire(self, command: Expired) -> Outcome:
        hold = self._running(command.hold_id, command.account_id)
        standing = self._standings.get(command.account_id)
        if hold is None or standing is None:
            return self._not_running(command.hold_id)
        if hold.expires_at_s > self._now_s:
            return Ignored("not-expired")  # Extended between the reaper's look and this transaction.
        self._settle(standing, hold, settle_expired(hold))
        return Done()

    def _settle(self, standing: Standing, hold: Hold, settlement: Settlement) -> None:
        account_id, day = hold.account_id, hold.spend_day
        changes = self.changes
        del self._holds[hold.id]
        changes.updated.pop(hold.id, None)
        self._settled.add(hold.id)
        changes.settled.append(settlement)
        changes.versions[account_id] = standing.version
        if hold.expires_at_s > self._now_s:
            standing.lines -= 1  # An expired one wasn't counted any more.
        self._hold_money(standing, day, -hold.held_micros)
        price_micros = settlement.price_micros
        if price_micros:
            standing.balance_micros -= price_micros
            standing.spent_by_day[day] = standing.spent_by_day.get(day, 0) + price_micros
            changes.balances[account_id] = changes.balances.get(account_id, 0) - price_micros
            changes.spent[account_id, day] = changes.spent.get((account_id, day), 0) + price_micros

    # ------------------------------------------------------------------ parts

    def _running(self, hold_id: UUID, account_id: UUID) -> Hold | None:
        hold = self._holds.get(hold_id)
        return hold if hold is not None and hold.account_id == account_id else None

    def _not_running(self, hold_id: UUID) -> Ignored:
        return Ignored("settled" if hold_id in self._settled else "unknown")

    def _update(self, standing: Standing, before: Hold, hold: Hold) -> None:
        # News of an answer that was late brings back a call that had expired.
        standing.lines += (hold.expires_at_s > self._now_s) - (before.expires_at_s > self._now_s)
        standing.lines_until_s = min(standing.lines_until_s, hold.expires_at_s)
        self._holds[hold.id] = hold
        self.changes.versions[hold.account_id] = standing.version
        new = self.changes.holds.get(hold.id)
        if new is not None:
            new.hold = hold
        else:
            self.changes.updated[hold.id] = hold

    def _hold_money(self, standing: Standing, day: date, more_micros: int) -> None:
        if not more_micros:
            return
        account_id = standing.account.id
        standing.held_micros += more_micros
        standing.held_by_day[day] = standing.held_by_day.get(day, 0) + more_micros
        self.changes.held[account_id] = self.changes.held.get(account_id, 0) + more_micros

    def _snapshot(self, standing: Standing, day: date, quote: Quote | NoQuote | None) -> Snapshot:
        return Snapshot(
            account=standing.account,
            balance_micros=standing.balance_micros,
            held_micros=standing.held_micros,
            lines=standing.lines,
            day=day,
            spent_micros=standing.spent_by_day.get(day, 0),
            held_day_micros=standing.held_by_day.get(day, 0),
            quote=quote,
        )

    def _decision(
        self, outcome: str, refuse: Refuse | None, decided: Decided, revision: int, account: str,
        request: CallRequest, sip_status: int = 0,
    ) -> Decision:  # fmt: skip
        return Decision(
            self._now_s, outcome, refuse, decided.rules, revision, account, request.source_address, request.trace_id,
            sip_status,
        )  # fmt: skip


def _sip_status(refuse: Refuse, policy: AdmissionPolicy) -> int:
    return policy.reject_status if refuse.reason in _MONEY_REASONS else 0


def accounts_of(commands: Iterable[Command]) -> list[UUID]:
    """The accounts of a batch, each once and in the order of their keys, in which they are locked."""
    return sorted({account for command in commands if (account := account_of(command)) is not None})


def holds_of(commands: Collection[Command]) -> list[UUID]:
    """The holds of a batch, each once."""
    return sorted({hold for command in commands if (hold := hold_of(command)) is not None})
