"""The working set of one transaction: what was read, the commands applied to it in order, what is to be written.

In: how each command moves the accounts and all else it is counted in on, and that it moves them on once. Out: what is
decided (decide), counted (usage) and charged (settle), how it is read and written (adapters.store_sql), who else is in
the batch (app).

The invariants, kept here and repeated by the database's CHECKs: an account's `held_micros`, with its shards', is the
sum over its holds; a prepaid account's balance minus holds never passes its overdraft; a hold becomes at most one
settlement, and nothing after that. A call ends in the counters in which it began.

A batch may need counters that weren't read (a reseller's, the shards of one that is short): then `Changes.missing` says
which, nothing is written, and the batch is decided again with them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from math import inf
from typing import Final, TypeAlias
from uuid import UUID, uuid5

from callwarden.call_admission.admission.core.decide import Decided, decide, decide_extension
from callwarden.call_admission.admission.core.notices import Notice, levels
from callwarden.call_admission.admission.core.rules.rule import Bounded
from callwarden.call_admission.admission.core.rules.velocity import marks
from callwarden.call_admission.admission.core.snapshot import Counted, Snapshot, SourceTrunk
from callwarden.call_admission.model.account import Account, shards_of
from callwarden.call_admission.model.calls import (
    EXPIRY_MARGIN_S,
    CallRequest,
    Decision,
    Ended,
    Expired,
    ExtendRequest,
    Hold,
    NoQuote,
    Owner,
    Pricing,
    Quote,
    Route,
    RouteCost,
    Started,
    costs_of,
    pricing_of,
)
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.lists import Listing, Lists
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import scope_of
from callwarden.call_admission.model.settle import Settlement, settle, settle_expired
from callwarden.call_admission.model.usage import (
    ACCOUNT,
    ADDRESS,
    CARRIER,
    REALM,
    RESELLER,
    SYSTEM,
    Facts,
    Usage,
    merged,
)
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.limits.shards import Grant, Shard, shared

_MONEY_REASONS = frozenset({Reason.CREDIT, Reason.DAILY_SPEND, Reason.MONTHLY_SPEND})

# Rows that the calls of one realm, or all of them, are counted in: so many processes don't meet there.
WIDE_SHARDS: Final = 8
# How often a call is decided anew with more room from other shards: once to share out a limit, once to lend.
SHARES_MAX: Final = 4

CounterKey: TypeAlias = tuple[UUID, int]
"""Scope and shard of a row of counters."""


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
    usage: Usage
    """Of all its calls; where it is sharded, only what was told (notices)."""
    counted: Mapping[str, Counted] | None = None
    """What rules look at where nothing but the account itself is counted."""

    @classmethod
    def of(cls, account: Account, version: int = 0, lines: int = 0, usage: Usage | None = None) -> "Standing":
        return cls(account, version, account.balance_micros, account.held_micros, lines, inf, usage or Usage())


@dataclass(slots=True)
class Counter:
    """A row of counters as it was read, and moved on by each command of the batch. `version` 0: there is none yet."""

    version: int
    usage: Usage
    grants: Mapping[str, Grant] = field(default_factory=dict)


@dataclass(slots=True)
class Seen:
    """An account that is only looked at: a reseller, a carrier."""

    account: Account
    version: int


@dataclass(slots=True)
class Loaded:
    """What the transaction has read for the batch."""

    standings: dict[UUID, Standing]
    holds: dict[UUID, Hold]
    settled: set[UUID] = field(default_factory=set)
    """Holds of the batch that have a CDR."""
    refused: dict[UUID, Refuse] = field(default_factory=dict)
    """Admissions of the batch that were refused before."""
    seen: dict[UUID, Seen] = field(default_factory=dict)
    """Resellers of the accounts, and the carriers that were asked for."""
    counters: dict[CounterKey, Counter] = field(default_factory=dict)
    """Those that were asked for, whether there is such a row or not."""


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
    stood: dict[UUID, float] = field(default_factory=dict)
    """Expiry of every hold that is updated or settled, as it was read. It must still be that when it is written: it
    moves whenever a hold does, which of a sharded account moves no version of the account."""
    versions: dict[UUID, int] = field(default_factory=dict)
    """Of every account whose holds change: what was read, and must still hold when it is written."""
    balances: dict[UUID, int] = field(default_factory=dict)
    held: dict[UUID, int] = field(default_factory=dict)
    spent: dict[tuple[UUID, date], int] = field(default_factory=dict)
    usages: dict[UUID, Usage] = field(default_factory=dict)
    """Of every account in `versions`."""
    checked: dict[UUID, int] = field(default_factory=dict)
    """Versions of accounts that don't change, but must still be what was read: sharded ones, resellers."""
    counters: dict[CounterKey, Counter] = field(default_factory=dict)
    """Those that change, with the version that was read. Of accounts' own shards, held and spent are kept beside."""
    own: set[UUID] = field(default_factory=set)
    """Accounts whose shards are among `counters`."""
    missing: set[CounterKey] = field(default_factory=set)
    """What has to be read, too. Then nothing of this is written."""
    begun: bool = False
    """Whether what was read has been moved on: it has to be read anew then, and can't be added to."""
    notices: list[Notice] = field(default_factory=list)
    """What is to be told once it is committed."""
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
    """The account isn't priced by what was asked: ask by this and come again."""

    pricing: Pricing


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


@dataclass(slots=True)
class Undecided:
    """Counters have to be read first (Changes.missing): the batch is decided again."""


_DOUBTFUL: Final = (Refused, NeedsQuote, Ignored, NoHold)
_TOLD: Final = (Started, Ended, Expired)

Outcome: TypeAlias = Admitted | Extended | Refused | NeedsQuote | Done | Ignored | NoHold | Undecided


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
    """Applies commands in order. One for each attempt at a transaction: it is thrown away when that fails.

    `slot`: which shard of a sharded owner this process counts new calls in (modulo their number). `is_whole`: all
    shards are looked at together, for people who want to know what a call would get; nothing may be applied then.
    """

    def __init__(
        self,
        loaded: Loaded,
        policy_for: Callable[[str], AdmissionPolicy],
        now_s: float,
        slot: int = 0,
        lists: Lists | None = None,
        trunk_of: Callable[[str], SourceTrunk | None] | None = None,
        *,
        is_whole: bool = False,
    ) -> None:
        self._standings: Mapping[UUID, Standing] = loaded.standings
        self._holds = loaded.holds
        self._settled = loaded.settled
        self._refused = loaded.refused
        self._seen = loaded.seen
        self._counters = loaded.counters
        self._policy_for = policy_for
        self._now_s = now_s
        self._slot = slot
        self._lists = lists
        self._trunk_of = trunk_of
        self._is_whole = is_whole
        # Carriers with limits of talk time.
        self._limited = {
            key
            for key, seen in loaded.seen.items()
            if seen.account.talk_day_s is not None or seen.account.talk_month_s is not None
        }
        self.changes = Changes()

    # ------------------------------------------------------------------ what is needed

    def lacks(self, commands: Sequence[Command]) -> bool:
        """Whether counters have to be read before the commands can be applied; they are in `changes.missing` then."""
        missing = self.changes.missing
        for command in commands:
            match command:
                case Admission():
                    standing = self._standings.get(command.request.account_id)
                    if standing is None or command.request.hold_id in self._holds:
                        continue
                    policy = self._policy_for(standing.account.realm)
                    owners = self._owners_of(standing.account, command, policy)
                case Note():
                    continue
                case _:
                    id_ = command.request.hold_id if isinstance(command, Extension) else command.hold_id
                    hold = self._holds.get(id_)
                    standing = None if hold is None else self._standings.get(hold.account_id)
                    if hold is None or standing is None:
                        continue
                    owners = tuple(self._moved_by(standing.account, hold))
            for _, scope, shard in owners:
                if (scope, shard) not in self._counters:
                    missing.add((scope, shard))
        if self._is_whole:
            self._lacks_wide(commands)
        return bool(missing)

    def _lacks_wide(self, commands: Sequence[Command]) -> None:
        for command in commands:
            assert isinstance(command, Admission)
            standing = self._standings.get(command.request.account_id)
            if standing is not None:
                for owner in self._owners_of(standing.account, command, self._policy_for(standing.account.realm)):
                    keys = [(owner.scope, index) for index in range(self._count_of(standing.account, owner))]
                    self.changes.missing.update(key for key in keys if key not in self._counters)

    def _owners_of(self, account: Account, command: Admission, policy: AdmissionPolicy) -> tuple[Owner, ...]:
        """Where a new call is counted, beside its account's own row. For nearly all: nowhere."""
        quote = command.quote
        carriers = quote.carriers if isinstance(quote, Quote) else ()
        limited = self._limited
        owners: list[Owner] = []
        if self._is_whole:  # somebody asks what is used of its limits: for these that is counted for themselves
            if account.type is AccountType.RESELLER:
                owners.append(Owner(RESELLER, account.id, 0))
            elif account.type is AccountType.CARRIER:
                owners.append(Owner(CARRIER, scope_of(CARRIER, str(account.id)), 0))
        if (
            not owners
            and account.parent is None
            and not policy.owners
            and account.shards <= 1
            and (not limited or limited.isdisjoint(carriers))
        ):
            return ()
        count = shards_of(account)
        if count > 1:
            owners.append(Owner(ACCOUNT, account.id, self._slot % count))
        if account.parent is not None and (reseller := self._seen.get(account.parent)) is not None:
            owners.append(Owner(RESELLER, account.parent, self._slot % max(reseller.account.shards, 1)))
        if policy.owners:
            if REALM in policy.owners:
                owners.append(Owner(REALM, scope_of(REALM, account.realm), self._slot % WIDE_SHARDS))
            if SYSTEM in policy.owners:
                owners.append(Owner(SYSTEM, scope_of(SYSTEM, ""), self._slot % WIDE_SHARDS))
            address, only = command.request.source_address, policy.address.account
            if ADDRESS in policy.owners and address and only in (None, account.name):
                # By realm, since each has its own limits and period.
                owners.append(Owner(ADDRESS, scope_of(ADDRESS, f"{account.realm} {address}"), 0))
        owners += [Owner(CARRIER, scope_of(CARRIER, str(carrier)), 0) for carrier in carriers if carrier in limited]
        return tuple(owners)

    def _pricing_of(self, account: Account) -> Pricing:
        if account.parent is None:
            return pricing_of(account.deck, None, account.realm)
        reseller = self._seen.get(account.parent)
        return pricing_of(account.deck, "" if reseller is None else reseller.account.deck, account.realm)

    def _moved_by(self, account: Account, hold: Hold) -> list[Owner]:
        """Where a running call is counted; of carriers all that may have taken it, and once it is known the one."""
        owners = list(hold.owners)
        # What was begun before its account was sharded lies in the first shard.
        if shards_of(account) > 1 and not any(owner.kind == ACCOUNT for owner in owners):
            owners.append(Owner(ACCOUNT, account.id, 0))
        return owners

    def _count_of(self, account: Account, owner: Owner) -> int:
        match owner.kind:
            case "account":
                return shards_of(account)
            case "reseller":
                seen = self._seen.get(owner.scope)
                return max(seen.account.shards, 1) if seen is not None else 1
            case "realm" | "system":
                return WIDE_SHARDS
        return 1

    # ------------------------------------------------------------------ commands

    def apply(self, command: Command) -> Outcome:
        """What the command is answered; its changes are kept for writing, whole or not at all."""
        self.changes.begun = True
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
            return Refused(before, sip_status(before, policy), policy.revision)
        if not request.local:
            pricing = self._pricing_of(account)
            if quote is None or quote.pricing != pricing:
                return NeedsQuote(pricing)
        routes = quote.routes if isinstance(quote, Quote) else ()
        if held is not None:
            return Admitted(held, _left(routes, held), policy.revision)
        owners = self._owners_of(account, command, policy)
        snapshot = self._snapshot(standing, command, policy, owners)
        decided = decide(snapshot, request, policy)
        for _ in range(SHARES_MAX):
            if not decided.bounded or not self._share(decided.bounded, snapshot):
                break
            decided = decide(snapshot, request, policy)
        if self.changes.missing:
            return Undecided()
        if policy.reports:
            self.changes.reported += decided.reported
        verdict = decided.verdict
        if isinstance(verdict, Refuse):
            self._tell(standing, decided, policy, snapshot.day, request.call_id)
            return self._refuse(command, account.name, decided, policy.revision, sip_status(verdict, policy))
        routes = decided.routes
        costs = _costs_of(quote, routes) if isinstance(quote, Quote) else ()
        if decided.routes != (quote.routes if isinstance(quote, Quote) else ()):
            owners = self._by_routes(owners, costs, account)
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
            spend_day=snapshot.day,
            price=verdict.price,
            trunk=routes[0].trunk if routes else "",
            marks=marks(request, policy, account, self._now_s) if policy.velocity else (),
            owners=owners,
            costs=costs,
            limits_hit=_hits(decided, policy),
        )
        decision = self._decision("admit", None, decided, policy.revision, account.name, request)
        prefix = quote.prefix if isinstance(quote, Quote) else ""
        self.changes.holds[hold.id] = NewHold(hold, request, prefix, decision)
        self._holds[hold.id] = hold
        standing.lines += 1
        standing.lines_until_s = min(standing.lines_until_s, hold.expires_at_s)
        if hold.final and hold.granted_s < hold.max_duration_s:
            self.changes.doubtful.add(account.id)
        self._begin(standing, request, hold, policy)
        if policy.thresholds or decided.warnings:
            self._tell(standing, decided, policy, snapshot.day, request.call_id)
        return Admitted(hold, routes, policy.revision)

    def _by_routes(
        self, owners: tuple[Owner, ...], costs: tuple[RouteCost, ...], account: Account
    ) -> tuple[Owner, ...]:
        """Without the carriers of routes that the rules have ruled out."""
        left = {_carrier_scope(cost) for cost in costs}
        kept = tuple(owner for owner in owners if owner.kind != CARRIER or owner.scope in left)
        if len(kept) < len(owners):
            # What isn't written isn't looked at again, and what was remembered of the carrier may be old.
            self.changes.doubtful.add(account.id)
        return kept

    def _refuse(self, command: Admission, account: str, decided: Decided, revision: int, sip_status: int) -> Refused:
        request, refuse = command.request, decided.verdict
        assert isinstance(refuse, Refuse)
        decision = self._decision("refuse", refuse, decided, revision, account, request, sip_status)
        # The refusal's id is the request's: asked again, it is found and answered alike.
        self.changes.notes.append(Note.of(request.hold_id, request.call_id, request.account_id, decision))
        self._refused[request.hold_id] = refuse
        return Refused(refuse, sip_status, revision)

    def simulate(self, command: Admission) -> tuple[Decided, Snapshot] | NeedsQuote | None:
        """What the call would get, and what was looked at; nothing changes. None: there is no such account."""
        standing = self._standings.get(command.request.account_id)
        if standing is None:
            return None
        account, request, quote = standing.account, command.request, command.quote
        if not request.local:
            pricing = self._pricing_of(account)
            if quote is None or quote.pricing != pricing:
                return NeedsQuote(pricing)
        policy = self._policy_for(account.realm)
        snapshot = self._snapshot(standing, command, policy, self._owners_of(account, command, policy))
        return decide(snapshot, request, policy), snapshot

    def snapshot_of(self, command: Admission) -> Snapshot | None:
        """What the account's next call would be decided on, without its price; of a reseller or a carrier what its
        limits are counted by. The account itself must be among those looked at."""
        standing = self._standings.get(command.request.account_id)
        if standing is None:
            return None
        account = standing.account
        policy = self._policy_for(account.realm)
        owners = self._owners_of(account, command, policy)
        snapshot = self._snapshot(standing, command, policy, owners)
        if account.type is AccountType.CARRIER:
            snapshot.carriers = self._carriers([account.id], owners)
        return snapshot

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
        # Decided on what there is without the call itself.
        without = hold.without()
        self._shift(standing, hold, without, policy)
        snapshot = self._snapshot_of_running(standing, without)
        decided = decide_extension(snapshot, hold, request, policy)
        for _ in range(SHARES_MAX):
            if not decided.bounded or not self._share(decided.bounded, snapshot):
                break
            decided = decide_extension(snapshot, hold, request, policy)
        if self.changes.missing:
            return Undecided()
        verdict = decided.verdict
        hits = _hits(decided, policy)
        if isinstance(verdict, Refuse):
            self._shift(standing, without, hold, policy)
            self._note_cut(command, account.name, decided, policy.revision)
            self._tell(standing, decided, policy, hold.spend_day, request.call_id)
            if verdict.rule not in hold.limits_hit:
                marked = _hit(hold, (verdict.rule, *hits))
                self._update(standing, hold, marked, policy)
            return Refused(verdict, sip_status(verdict, policy), policy.revision)
        if verdict.final and verdict.granted_s < hold.max_duration_s:
            self._note_cut(command, account.name, decided, policy.revision)
        extended = hold.granted(
            request.answered_at_s,
            verdict.granted_s,
            verdict.held_micros,
            hold.trunk,
            policy.grace_s,
            final=verdict.final,
        )
        if hits:
            extended = _hit(extended, hits)
        self._shift(standing, without, hold, policy)
        self._update(standing, hold, extended, policy)
        if policy.thresholds or decided.warnings:
            self._tell(standing, decided, policy, hold.spend_day, request.call_id)
        return Extended(extended)

    def _note_cut(self, command: Extension, account: str, decided: Decided, revision: int) -> None:
        """The call won't go on: its last slice is short, or there is none."""
        request, verdict = command.request, decided.verdict
        # Derived, so that an edge that asks again and again leaves one note.
        note_id = uuid5(request.hold_id, f"cut.{request.granted_s}")
        refused = verdict if isinstance(verdict, Refuse) else None
        decision = Decision(
            self._now_s, "cut", refused, decided.rules, revision, account, trace_id=request.trace_id,
            cut_by=decided.cut_by,
        )  # fmt: skip
        self.changes.doubtful.add(request.account_id)
        self.changes.notes.append(Note.of(note_id, request.call_id, request.account_id, decision))

    def _start(self, event: Started) -> Outcome:
        hold = self._running(event.hold_id, event.account_id)
        standing = self._standings.get(event.account_id)
        if hold is None or standing is None:
            return self._not_running(event.hold_id)
        policy = self._policy_for(standing.account.realm)
        taken = self._taken(hold, event.trunk)
        answered = taken.granted(
            event.answered_at_s,
            hold.granted_s,
            hold.held_micros,
            event.trunk or hold.trunk,
            policy.grace_s,
            final=hold.final,
        )
        if answered != hold:
            self._update(standing, taken, answered, policy)
        return Done()

    def _taken(self, hold: Hold, trunk: str) -> Hold:
        """The call, which went out by this trunk: counted for no other carrier any more. As it is, if the trunk isn't
        told or is none of its own."""
        if not trunk or not any(owner.kind == CARRIER for owner in hold.owners):
            return hold
        cost = hold.of_trunk(trunk)
        if cost is None:
            return hold
        scope = _carrier_scope(cost)
        others = {owner for owner in hold.owners if owner.kind == CARRIER and owner.scope != scope}
        if not others:
            return hold
        for owner in others:
            self._touch(owner).usage.leave(hold)
        return replace(hold, owners=tuple(owner for owner in hold.owners if owner not in others))

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
        account, account_id, day = standing.account, hold.account_id, hold.spend_day
        changes = self.changes
        del self._holds[hold.id]
        changes.updated.pop(hold.id, None)
        self._settled.add(hold.id)
        changes.settled.append(settlement)
        changes.stood.setdefault(hold.id, hold.expires_at_s)
        if hold.expires_at_s > self._now_s:
            standing.lines -= 1  # An expired one wasn't counted any more.
        policy = self._policy_for(account.realm)
        price_micros = settlement.price_micros
        if price_micros:
            changes.spent[account_id, day] = changes.spent.get((account_id, day), 0) + price_micros
        is_own = True
        if hold.owners or account.shards > 1:
            for owner in self._moved_by(account, hold):
                usage = self._touch(owner).usage
                if owner.kind == CARRIER and owner.scope != _carrier_scope(hold.of_trunk(settlement.trunk)):
                    usage.leave(hold)
                    continue
                usage.end(hold, settlement, Facts(owner.kind, policy, account, self._now_s))
                if owner.kind == ACCOUNT:
                    is_own = False
        if not is_own:
            self._check(account_id, standing.version)
            return
        standing.usage.end(hold, settlement, Facts(ACCOUNT, policy, account, self._now_s))
        self._hold_money(standing, -hold.held_micros)
        if price_micros:
            standing.balance_micros -= price_micros
            changes.balances[account_id] = changes.balances.get(account_id, 0) - price_micros
        self._move(standing)

    # ------------------------------------------------------------------ counting

    def _begin(self, standing: Standing, request: CallRequest, hold: Hold, policy: AdmissionPolicy) -> None:
        account, now_s = standing.account, self._now_s
        is_own = True
        for owner in hold.owners:
            kind = owner.kind
            usage = self._touch(owner).usage
            if kind == ACCOUNT:
                is_own = False
                usage.begin(request, hold, Facts(kind, policy, account, now_s, leases=True))
            elif kind == RESELLER:
                seen = self._seen[owner.scope]
                usage.begin(request, hold, Facts(kind, policy, seen.account, now_s))
                self._check(owner.scope, seen.version)
            else:
                usage.begin(request, hold, Facts(kind, policy, account, now_s))
        if is_own:
            standing.usage.begin(request, hold, Facts(ACCOUNT, policy, account, now_s))
            self._hold_money(standing, hold.held_micros)
            self._move(standing)
        else:
            self._check(account.id, standing.version)

    def _update(self, standing: Standing, before: Hold, hold: Hold, policy: AdmissionPolicy) -> None:
        # News of an answer that was late brings back a call that had expired.
        standing.lines += (hold.expires_at_s > self._now_s) - (before.expires_at_s > self._now_s)
        standing.lines_until_s = min(standing.lines_until_s, hold.expires_at_s)
        self._holds[hold.id] = hold
        new = self.changes.holds.get(hold.id)
        if new is not None:
            new.hold = hold
        else:
            self.changes.updated[hold.id] = hold
            self.changes.stood.setdefault(hold.id, before.expires_at_s)
        account = standing.account
        is_own = self._shift(standing, before, hold, policy, writes=True)
        if is_own:
            self._hold_money(standing, hold.held_micros - before.held_micros)
            self._move(standing)
        else:
            self._check(account.id, standing.version)
        if before.owners:
            for owner in before.owners:
                if owner.kind == RESELLER and (seen := self._seen.get(owner.scope)) is not None:
                    self._check(owner.scope, seen.version)

    def _shift(
        self, standing: Standing, before: Hold, after: Hold, policy: AdmissionPolicy, *, writes: bool = False
    ) -> bool:
        """Moves all that the call is counted in from one of its states to another; whether the account's own row is."""
        account, is_own = standing.account, True
        if before.owners or account.shards > 1:
            for owner in self._moved_by(account, before):
                if owner.kind == CARRIER and before.granted_s == after.granted_s:
                    continue  # It counts nothing else, and all that it takes meet in its row.
                counter = self._touch(owner) if writes else self._counters[owner.scope, owner.shard]
                counter.usage.extend(before, after, Facts(owner.kind, policy, account, self._now_s))
                if owner.kind == ACCOUNT:
                    is_own = False
        if is_own:
            standing.usage.extend(before, after, Facts(ACCOUNT, policy, account, self._now_s))
        return is_own

    def _touch(self, owner: Owner) -> Counter:
        """The counter, which will be written."""
        key = owner.scope, owner.shard
        counter = self._counters[key]
        self.changes.counters[key] = counter
        if owner.kind == ACCOUNT:
            self.changes.own.add(owner.scope)
        return counter

    def _move(self, standing: Standing) -> None:
        """The account's row changes: only if it is still what was read."""
        account_id = standing.account.id
        self.changes.versions[account_id] = standing.version
        self.changes.usages[account_id] = standing.usage

    def _check(self, account_id: UUID, version: int) -> None:
        self.changes.checked[account_id] = version

    def _hold_money(self, standing: Standing, more_micros: int) -> None:
        if more_micros:
            account_id = standing.account.id
            standing.held_micros += more_micros
            self.changes.held[account_id] = self.changes.held.get(account_id, 0) + more_micros

    def _share(self, bounded: Iterable[Bounded], snapshot: Snapshot) -> bool:
        """Room for shards that are short, from the other shards of their owners; whether more is there now, or known.

        Where they haven't been read, they are asked for.
        """
        has_more = False
        for need in bounded:
            counted = snapshot.counted.get(need.owner)
            shard = counted.shard if counted is not None else None
            if counted is None or not isinstance(shard, Shard) or shard.count <= 1:
                continue
            keys = [(counted.key, index) for index in range(shard.count)]
            counters = [self._counters.get(key) for key in keys]
            if any(counter is None for counter in counters):
                self.changes.missing.update(keys)
                continue
            rows = [counter for counter in counters if counter is not None]
            before = [Shard(shard.count, index, row.grants) for index, row in enumerate(rows)]
            if counted.total is None:
                has_more = True  # Nothing may be lent, but a refusal tells the whole owner's numbers.
            used = [row.usage.used(need.quantity, self._now_s) for row in rows]
            after = shared(before, need.quantity, need.limit, used, shard.index, need.needed)
            counted.total = merged([row.usage for row in rows])
            for index, (old, new) in enumerate(zip(before, after, strict=True)):
                if old is not new and old.grants != new.grants:
                    rows[index].grants = new.grants
                    self._touch(Owner(need.owner, counted.key, index))
                    if index == shard.index:
                        has_more = True
                        counted.shard = new
                        if need.owner == ACCOUNT and need.quantity == "credit":
                            # What rules see of the balance was this shard's part of before.
                            overdraft_micros = snapshot.account.overdraft_micros
                            snapshot.balance_micros = counted.allowance("credit", need.limit) - overdraft_micros
        return has_more

    # ------------------------------------------------------------------ notices

    def _tell(self, standing: Standing, decided: Decided, policy: AdmissionPolicy, day: date, call_id: str) -> None:
        """What is to be told of the limits that this decision met, once a day each."""
        usage, ordinal = standing.usage, day.toordinal()
        for result, level in levels(decided, policy):
            if not usage.to_tell(result.rule, level, ordinal):
                continue
            usage.told(result.rule, level, ordinal)
            account = standing.account
            self.changes.notices.append(
                Notice(
                    account.id, account.name, account.realm, result.rule, level, result.counter, result.value,
                    result.limit or 0, result.window, self._now_s, call_id,
                )
            )  # fmt: skip
            self._move(standing)

    # ------------------------------------------------------------------ parts

    def _running(self, hold_id: UUID, account_id: UUID) -> Hold | None:
        hold = self._holds.get(hold_id)
        return hold if hold is not None and hold.account_id == account_id else None

    def _not_running(self, hold_id: UUID) -> Ignored:
        return Ignored("settled" if hold_id in self._settled else "unknown")

    def _snapshot(
        self, standing: Standing, command: Admission, policy: AdmissionPolicy, owners: Sequence[Owner]
    ) -> Snapshot:
        request, account = command.request, standing.account
        snapshot = self._snapshot_on(standing, owners, day_of(request.start_s, account.time_zone))
        snapshot.quote = None if request.local else command.quote
        if self._lists is not None:
            snapshot.listing = Listing(self._lists, request.caller_number)
        if request.trunk and self._trunk_of is not None:
            # One that isn't known, in the moment after it was made or should news be lost, may do what every trunk may.
            snapshot.trunk = self._trunk_of(request.trunk) or SourceTrunk(request.trunk, only_local=True)
        if owners and isinstance(command.quote, Quote) and command.quote.carriers:
            snapshot.carriers = self._carriers(command.quote.carriers, owners)
        return snapshot

    def _snapshot_of_running(self, standing: Standing, hold: Hold) -> Snapshot:
        owners = self._moved_by(standing.account, hold) if hold.owners or standing.account.shards > 1 else ()
        snapshot = self._snapshot_on(standing, owners, hold.spend_day)
        if not any(owner.kind == ACCOUNT for owner in owners):
            held = self._holds[hold.id].held_micros
            snapshot.held_micros -= held
        return snapshot

    def _snapshot_on(self, standing: Standing, owners: Sequence[Owner], day: date) -> Snapshot:
        account = standing.account
        counted = self._counted(standing, owners)
        own = counted[ACCOUNT]
        span = own.usage.day(day.toordinal())
        balance_micros, held_micros, lines = standing.balance_micros, standing.held_micros, standing.lines
        if own.is_sharded or own.usage is not standing.usage:
            # Charges of a sharded account stay in its shards: what is used of its balance is what they hold and spent.
            held_micros = own.usage.used("credit", self._now_s)
            lines = own.usage.used("calls", self._now_s)
            balance_micros = own.allowance("credit", account.balance_micros + account.overdraft_micros)
            balance_micros -= account.overdraft_micros
        return Snapshot(
            account=account,
            balance_micros=balance_micros,
            held_micros=held_micros,
            lines=lines,
            day=day,
            spent_micros=span.spent_micros,
            held_day_micros=span.held_micros,
            quote=None,
            now_s=self._now_s,
            counted=counted,
        )

    def _counted(self, standing: Standing, owners: Sequence[Owner]) -> Mapping[str, Counted]:
        account = standing.account
        plain = standing.counted
        if plain is None:
            plain = standing.counted = {ACCOUNT: Counted(ACCOUNT, account.id, standing.usage, None, account)}
        if not owners:
            return plain
        counted = dict(plain)
        for owner in owners:
            kind, scope, index = owner
            if kind == CARRIER:
                continue
            seen = self._seen.get(scope) if kind == RESELLER else None
            if kind == RESELLER and seen is None:
                continue  # It isn't its reseller any more.
            count = self._count_of(account, owner)
            of = account if kind == ACCOUNT else seen.account if seen is not None else None
            if self._is_whole:
                usages = [self._counters[scope, each].usage for each in range(count)]
                counted[kind] = Counted(kind, scope, merged(usages), None, of)
                continue
            counter = self._counters[scope, index]
            shard = Shard(count, index, counter.grants) if count > 1 else None
            counted[kind] = Counted(kind, scope, counter.usage, shard, of)
        return counted

    def _carriers(self, carriers: Iterable[UUID], owners: Sequence[Owner]) -> Mapping[str, Counted]:
        limited = {owner.scope for owner in owners if owner.kind == CARRIER}
        return {
            str(carrier): Counted(
                CARRIER, carrier, self._counters[scope, 0].usage, None, self._seen[carrier].account
            )
            for carrier in carriers
            if (scope := scope_of(CARRIER, str(carrier))) in limited
        }  # fmt: skip

    def _decision(
        self, outcome: str, refuse: Refuse | None, decided: Decided, revision: int, account: str,
        request: CallRequest, sip_status: int = 0,
    ) -> Decision:  # fmt: skip
        return Decision(
            self._now_s, outcome, refuse, decided.rules, revision, account, request.source_address, request.trace_id,
            sip_status, decided.cut_by,
        )  # fmt: skip


def _hits(decided: Decided, policy: AdmissionPolicy) -> tuple[str, ...]:
    """The rules that have shortened the call, or would have refused it had they been enforced."""
    reported = tuple(decided.reported) if policy.reports else ()
    return (decided.cut_by, *reported) if decided.cut_by else reported


def _costs_of(quote: Quote, routes: tuple[Route, ...]) -> tuple[RouteCost, ...]:
    """Of the routes that the rules have left; of all of them it is known already."""
    return quote.costs if routes == quote.routes else costs_of(routes)


def _carrier_scope(cost: RouteCost | None) -> UUID | None:
    """Where the carrier's counts are; None: nobody knows who it is."""
    carrier = None if cost is None else cost.carrier_account_id
    return None if carrier is None else scope_of(CARRIER, str(carrier))


def _left(routes: tuple[Route, ...], hold: Hold) -> tuple[Route, ...]:
    """The routes that a call was admitted to, as far as they are still quoted."""
    if not hold.costs:
        return routes
    trunks = {cost.trunk for cost in hold.costs}
    return tuple(route for route in routes if route.trunk in trunks)


def _hit(hold: Hold, rules: Sequence[str]) -> Hold:
    """The hold that also remembers these rules."""
    return replace(hold, limits_hit=tuple(dict.fromkeys((*hold.limits_hit, *rules))))


def sip_status(refuse: Refuse, policy: AdmissionPolicy) -> int:
    """What policy wants this refusal to be answered with; 0: the edge's table decides."""
    return policy.reject_status if refuse.reason in _MONEY_REASONS else 0


def accounts_of(commands: Iterable[Command]) -> list[UUID]:
    """The accounts of a batch, each once and in the order of their keys, in which they are locked."""
    return sorted({account for command in commands if (account := account_of(command)) is not None})


def holds_of(commands: Collection[Command]) -> list[UUID]:
    """The holds of a batch, each once."""
    return sorted({hold for command in commands if (hold := hold_of(command)) is not None})


def carriers_of(commands: Iterable[Command]) -> list[UUID]:
    """The carriers by which the batch's new calls may go, each once."""
    quotes = [command.quote for command in commands if isinstance(command, Admission)]
    return sorted({carrier for quote in quotes if isinstance(quote, Quote) for carrier in quote.carriers})
