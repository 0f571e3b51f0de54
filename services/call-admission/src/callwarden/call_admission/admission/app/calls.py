"""The use cases of calls: admit, extend, start, end; what a call would get; the reaper; the growth of busy accounts.

Out: how commands are batched (group_commit), what is decided (core), how it is stored and quoted (ports).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from uuid import UUID

from callwarden.call_admission.admission.app.group_commit import CommitStats, GroupCommit
from callwarden.call_admission.admission.attempts import AdmissionAttempts
from callwarden.call_admission.admission.core.commands import (
    Admission,
    Admitted,
    DecisionRecord,
    EndedLate,
    Extended,
    Extension,
    Ignored,
    NeedsQuote,
    NoHold,
    Outcome,
    PlacedElsewhere,
    Refused,
)
from callwarden.call_admission.admission.core.decide import Evaluation
from callwarden.call_admission.admission.core.edge_clocks import EdgeClocks
from callwarden.call_admission.admission.core.expiry_clock import ExpiryClock
from callwarden.call_admission.admission.core.queries import AdmissionQuery
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.admission.core.state import Changes, Loaded, ReadSet
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.admission.ports import EventProgress, Notifier, Quotes, Shards, SourceTrunks
from callwarden.call_admission.model.calls import CallRequest, Ended, ExtendRequest, NoQuote, Pricing, Quote, Started
from callwarden.call_admission.model.sources import ListSource, PolicySource
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.errors import CallwardenError, Conflict, Internal, NotFound
from callwarden.kernel.verdict import Reason
from callwarden.limits.shards import SHARDS_MAX

T = TypeVar("T")

log = get_logger(__name__)

# The start of a call is taken from the edge, unless its clock is further than this from ours.
CLOCKS_APART_S: Final = 60.0
PRICINGS_KNOWN_MAX: Final = 100_000  # by which accounts are priced: 150 bytes each
# An account's pricing may change while rating is asked by the last one, but not again and again.
QUOTE_ROUNDS: Final = 3
REAP_EVERY_S: Final = 2.0
REAP_BATCH: Final = 200
# Longer than JetStream keeps what was told (3 days): later than this no end comes.
RECORDED_KEPT_S: Final = 7 * 86_400.0
FORGET_EVERY_S: Final = 3_600.0
GROW_EVERY_S: Final = 1.0
SHARDS_FIRST: Final = 4  # of an account on which several processes keep colliding
SHARDS_GROWN_MAX: Final = 16  # More are set by an operator only.
_NO_HOLD: Final = UUID(int=0)


@dataclass(slots=True)
class AdmissionStats:
    """What has happened since the start; read by adapters.metrics. Plain numbers, because every call counts."""

    admitted: int = 0
    extended: int = 0
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """By rule and reason."""
    settled: int = 0
    lapsed: int = 0
    """Holds that have expired."""
    expired: int = 0
    """Of those, calls that were recorded without their end."""
    ended_late: dict[str, int] = field(default_factory=dict)
    """Calls whose end came after their hold had lapsed: "in-time" before they were recorded as expired, "corrected"
    after."""
    uncharged_micros: int = 0
    """What such calls cost beyond what a prepaid account had left."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Events that changed nothing, by reason."""
    grown: int = 0
    """Accounts that got more shards automatically."""


class CallAdmission:
    """Decides calls. `run` has to run for anything to be answered, `reap` for calls whose end is never told, or late.
    Without `progress` those are never recorded."""

    def __init__(
        self,
        attempts: AdmissionAttempts,
        quotes: Quotes,
        policies: PolicySource,
        clock: Clock,
        rng: Callable[[], float],
        *,
        lists: ListSource | None = None,
        trunks: SourceTrunks | None = None,
        notifier: Notifier | None = None,
        progress: EventProgress | None = None,
    ) -> None:
        self._attempts = attempts
        self._quotes = quotes
        self._policies = policies
        self._clock = clock
        self._rng = rng
        self._progress = progress
        self._lists = lists
        self._trunk_of = trunks.get if trunks is not None else None
        # The shard of a sharded account in which this process counts.
        self._slot = int(rng() * SHARDS_MAX)
        self._commit = GroupCommit(attempts, self._begin, clock, notifier)
        self._pricings: OrderedDict[UUID, Pricing] = OrderedDict()
        self._usual: Pricing | None = None
        """The pricing of the account that was learnt last."""
        self.stats = AdmissionStats()
        self.edge_clocks = EdgeClocks()
        self._expiry = ExpiryClock()

    @property
    def commit_stats(self) -> CommitStats:
        return self._commit.stats

    @property
    def queued(self) -> int:
        """Commands that wait for the next batch."""
        return self._commit.queued

    @property
    def is_up(self) -> bool:
        """Whether the database answered the last time it was asked."""
        return self._commit.is_up

    async def run(self) -> None:
        """Decides batch after batch, for ever."""
        await self._commit.run()

    def _begin(self, loaded: Loaded, unix_s: UnixS) -> AdmissionTransaction:
        lists = self._lists.current if self._lists is not None else None
        return AdmissionTransaction(
            loaded, self._policies.for_realm, unix_s, self._slot, lists, self._trunk_of, self._expiry_s()
        )

    def _expiry_s(self) -> UnixS:
        return self._expiry.at(self._clock.mono_s(), self._clock.unix_s())

    # ------------------------------------------------------------------ requests

    async def admit(self, request: CallRequest) -> Admitted | Refused | PlacedElsewhere:
        """May this call be placed? Repeated with the same hold id it gives the same answer and one hold.

        Raises Unavailable (no hold is known to exist), Exhausted, Conflict for a call that is over already.
        """
        unix_s = self._clock.unix_s()
        if self.edge_clocks.observe(request.edge, request.start_s, unix_s):
            log.warning("edge.clock_apart", edge=request.edge, skew_s=round(request.start_s - unix_s, 3))
        if abs(request.start_s - unix_s) > CLOCKS_APART_S:
            request.start_s = unix_s
        quote: Quote | NoQuote | None = None
        if not request.local:
            pricing = self._pricings.get(request.account_id)
            if pricing is not None:
                quote = await self._quote(pricing, request)
            elif self._usual is not None:
                # Most accounts are priced alike. A wrong guess is answered by NeedsQuote, as no guess would be; a right
                # one saves a round trip to the database.
                quote = self._quotes.known(self._usual, request.destination, request.start_s)
        for _ in range(QUOTE_ROUNDS):
            outcome = await self._commit.submit(self._commit.admissions, Admission(request, quote))
            match outcome:
                case Admitted():
                    self.stats.admitted += 1
                    if quote is not None and request.account_id not in self._pricings:
                        self._remember(request.account_id, quote.pricing)
                    return outcome
                case Refused(refuse=refuse):
                    key = refuse.rule, refuse.reason.value
                    self.stats.refused[key] = self.stats.refused.get(key, 0) + 1
                    return outcome
                case PlacedElsewhere():
                    return outcome
                case NeedsQuote(pricing=pricing):
                    self._remember(request.account_id, pricing)
                    quote = await self._quote(pricing, request)
                case _:
                    raise Conflict("this call is over already")
        raise Conflict("the account's price list is being changed")

    async def extend(self, request: ExtendRequest) -> Extended | Refused:
        """May this call go on? The same `granted_s` repeated grants once.

        Raises NotFound if the call isn't running, Unavailable, Exhausted.
        """
        request.answered_at_s = self._not_ahead(request.answered_at_s)
        outcome = await self._commit.submit(self._commit.extensions, Extension(request))
        match outcome:
            case Extended():
                self.stats.extended += 1
                return outcome
            case Refused():
                return outcome
            case NoHold():
                raise NotFound("this call isn't running")
        raise Internal(f"an extension was answered {outcome}")

    # ------------------------------------------------------------------ queries

    async def simulate(self, request: CallRequest) -> tuple[Evaluation, Snapshot]:
        """What the call would get now, and what that is based on: nothing is placed, held or counted.

        Raises NotFound if there is no such account, Unavailable, Conflict.
        """
        quote: Quote | NoQuote | None = None
        for _ in range(QUOTE_ROUNDS):
            found: tuple[Evaluation, Snapshot] | NeedsQuote = await self._look(
                Admission(request, quote), AdmissionQuery.simulate
            )
            if not isinstance(found, NeedsQuote):
                return found
            quote = await self._quote(found.pricing, request)
        raise Conflict("the account's price list is being changed")

    async def snapshot_of(self, account_id: UUID, at_s: float) -> Snapshot:
        """What a call of the account would be decided on at that moment, without a price: everything that is counted
        for the account and what it belongs to. Raises as `simulate`."""
        request = CallRequest(_NO_HOLD, "", account_id, "", "", "", "", "", True, at_s)
        return await self._look(Admission(request), AdmissionQuery.snapshot_of, referenced=(account_id,))

    async def _look(
        self,
        command: Admission,
        ask: Callable[[AdmissionQuery, Admission], T | None],
        referenced: Sequence[UUID] = (),
    ) -> T:
        unix_s = UnixS(command.request.start_s)
        read = ReadSet.of([command], unix_s)
        if referenced:
            read = replace(read, referenced=referenced)
        lists = self._lists.current if self._lists is not None else None

        def work(loaded: Loaded) -> tuple[Changes, T | None]:
            query = AdmissionQuery(loaded, self._policies.for_realm, unix_s, lists, self._trunk_of)
            if query.missing_counters(command):
                return query.changes, None
            return query.changes, ask(query, command)

        found = await self._attempts.look(read, work)
        if found is None:
            raise NotFound("there is no such account")
        return found

    # ------------------------------------------------------------------ events

    async def started(self, event: Started) -> None:
        """A call was answered. Returns when that is committed. Raises Unavailable, Exhausted."""
        event.answered_at_s = self._not_ahead(event.answered_at_s)
        self._count_ignored(await self._commit.submit(self._commit.starts, event))

    async def ended(self, event: Ended) -> bool:
        """Settles a call, once however often its end is reported; whether it was settled now. Returns when that is
        committed. Raises Unavailable, Exhausted."""
        ended_at_s = self._not_ahead(event.ended_at_s)
        if event.answered_at_s is not None:
            # Both moments are of one clock: when it is ahead they move together, and the talk stays as long as it was.
            event.answered_at_s -= max(event.ended_at_s - ended_at_s, 0.0)
            event.answered_at_s = min(event.answered_at_s, ended_at_s)
        event.ended_at_s = ended_at_s
        outcome = await self._commit.submit(self._commit.ends, event)
        if isinstance(outcome, Ignored):
            self._count_ignored(outcome)
            if outcome.why == "unknown":
                log.warning("call.end_unknown", hold_id=str(event.hold_id), reason=event.reason)
            return False
        if isinstance(outcome, EndedLate):
            self._count_late(event.hold_id, event.reason, outcome)
        self.stats.settled += 1
        return True

    async def record(self, decision: DecisionRecord) -> None:
        """Stores another service's decision, for `explain`. Returns when that is committed."""
        await self._commit.submit(self._commit.ends, decision)

    def _count_ignored(self, outcome: Outcome) -> None:
        if isinstance(outcome, Ignored):
            self.stats.ignored[outcome.why] = self.stats.ignored.get(outcome.why, 0) + 1

    def _not_ahead(self, at_s: float) -> float:
        """The moment, or now if that is in the future: a clock that is ahead must not make a hold last for ever."""
        unix_s = self._clock.unix_s()
        return at_s if 0 < at_s <= unix_s else unix_s

    # ------------------------------------------------------------------ prices

    async def _quote(self, pricing: Pricing, request: CallRequest) -> Quote | NoQuote:
        if not pricing.deck:
            return NoQuote(pricing, Reason.NO_RATE)
        known = self._quotes.known(pricing, request.destination, request.start_s)
        return known or await self._quotes.ask(pricing, request.destination, request.start_s)

    def _remember(self, account_id: UUID, pricing: Pricing) -> None:
        self._usual = pricing
        self._pricings[account_id] = pricing
        self._pricings.move_to_end(account_id)
        if len(self._pricings) > PRICINGS_KNOWN_MAX:
            self._pricings.popitem(last=False)

    # ------------------------------------------------------------------ growth

    async def grow(self, contended: Callable[[], Mapping[UUID, int]], shards: Shards) -> None:
        """Gives more shards to accounts on which several processes collide, for ever. `contended`: such accounts since
        the last call, with the shards that each has (1: none)."""
        while True:
            await asyncio.sleep(GROW_EVERY_S * (0.5 + self._rng()))
            for account_id, count in contended().items():
                await self.grow_one(account_id, count, shards)

    async def grow_one(self, account_id: UUID, count: int, shards: Shards) -> None:
        """Doubles an account's shards, unless another process has done so already."""
        wanted = SHARDS_FIRST if count <= 1 else min(2 * count, SHARDS_GROWN_MAX)
        if wanted <= count:
            return
        try:
            if await shards.grow(account_id, count, wanted):
                self.stats.grown += 1
                log.warning("account.sharded", account_id=str(account_id), shards=wanted, before=count)
        except CallwardenError as error:
            log.warning("account.not_sharded", account_id=str(account_id), error=error)

    # ------------------------------------------------------------------ the reaper

    async def reap(self) -> None:
        """Frees what expired holds have reserved, and records calls whose end is never told, for ever. Every process
        does; the second one to try changes nothing."""
        forget_at_s = 0.0
        while True:
            # Not all processes at the same moment.
            await asyncio.sleep(REAP_EVERY_S * (0.5 + self._rng()))
            try:
                while await self.reap_once() == REAP_BATCH:
                    pass
                heard_until_s = await self._progress.heard_until() if self._progress is not None else None
                if heard_until_s is not None:
                    while await self.record_once(heard_until_s) == REAP_BATCH:
                        pass
                if self._clock.mono_s() >= forget_at_s:
                    forget_at_s = self._clock.mono_s() + FORGET_EVERY_S
                    await self._attempts.forget_recorded(UnixS(self._clock.unix_s() - RECORDED_KEPT_S))
            except CallwardenError as error:
                log.warning("reaper.failed", error=error)

    async def reap_once(self) -> int:
        """Lets the holds lapse that have expired, at most REAP_BATCH; how many were found."""
        found = await self._attempts.expired(self._expiry_s(), REAP_BATCH)
        outcomes = await asyncio.gather(*(self._commit.submit(self._commit.ends, command) for command in found))
        for outcome in outcomes:
            if isinstance(outcome, Ignored):
                self._count_ignored(outcome)
            else:
                self.stats.lapsed += 1
        if found:
            log.info("holds.lapsed", count=len(found))
        return len(found)

    async def record_once(self, heard_until_s: UnixS) -> int:
        """Records calls, at most REAP_BATCH, whose holds had expired before a moment until which everything that was
        told has been heard; how many were found."""
        found = await self._attempts.lapsed(heard_until_s, REAP_BATCH)
        outcomes = await asyncio.gather(*(self._commit.submit(self._commit.ends, command) for command in found))
        for command, outcome in zip(found, outcomes, strict=True):
            if isinstance(outcome, EndedLate):
                self.stats.expired += 1
                self._count_uncharged(command.hold_id, outcome)
            else:
                self._count_ignored(outcome)
        if found:
            log.warning("calls.expired", count=len(found))
        return len(found)

    def _count_late(self, hold_id: UUID, reason: str, late: EndedLate) -> None:
        how = "corrected" if late.corrected else "in-time"
        self.stats.ended_late[how] = self.stats.ended_late.get(how, 0) + 1
        log.warning("call.ended_late", hold_id=str(hold_id), reason=reason, how=how, more_micros=late.more_micros)
        self._count_uncharged(hold_id, late)

    def _count_uncharged(self, hold_id: UUID, late: EndedLate) -> None:
        if late.uncharged_micros:
            self.stats.uncharged_micros += late.uncharged_micros
            log.error("call.uncharged", hold_id=str(hold_id), micros=late.uncharged_micros)
