"""The group commit: what arrives while the last transaction is under way is decided together in the next one.

In: the queue, batches, what each caller is told, the reaper. Out: what is decided (core), how it is stored and asked
(ports), where operators change accounts and ask about calls (desk).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final, TypeVar
from uuid import UUID

from callwarden.call_admission.admission.core.book import (
    Admission,
    AdmissionTransaction,
    Admitted,
    Changes,
    Command,
    DecisionRecord,
    Extended,
    Extension,
    Ignored,
    Loaded,
    NeedsQuote,
    NoHold,
    Outcome,
    Refused,
    accounts_of,
    carriers_of,
    holds_of,
)
from callwarden.call_admission.admission.core.decide import Evaluation
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.admission.ports import AdmissionStore, Notifier, Quotes, Shards, SourceTrunks
from callwarden.call_admission.model.calls import CallRequest, Ended, ExtendRequest, NoQuote, Pricing, Quote, Started
from callwarden.call_admission.model.sources import ListSource, PolicySource
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import (
    CallwardenError,
    Conflict,
    ErrorKind,
    Exhausted,
    Internal,
    NotFound,
    Unavailable,
)
from callwarden.kernel.verdict import Reason
from callwarden.limits.shards import SHARDS_MAX

T = TypeVar("T")

log = get_logger(__name__)

# Of each kind of command in one transaction. Measured: 256 take 10 ms; more would make the first wait for the last
# without saving anything.
LANE_BATCH_MAX: Final = 256
# At 5,000/s two seconds of work: who would wait longer has given up by then.
QUEUE_MAX: Final = 10_000
# The next batch begins no sooner than this after the last one began: at 500 calls/s a transaction then carries two or
# three admissions instead of one, which saves a third of the CPU, for 2 ms of delay on average.
PACE_S: Final = 0.004
TIMER_EARLY_S: Final = 0.001  # uvloop's timers tick in milliseconds


# Events that nobody waits for gather company: a write costs the same for one row as for twenty.
ENDS_GATHER_S: Final = 0.02  # lines come back within it
STARTS_GATHER_S: Final = 0.5  # they only matter should the edge die, and until then the hold lasts anyway
# The start of a call is the edge's word, unless its clock is further than this from ours.
CLOCKS_APART_S: Final = 60.0
# After a failure of the database everybody is refused at once for this long, instead of queueing for the time-out.
PAUSE_AFTER_FAILURE_S: Final = 0.25
CONFLICT_ROUNDS: Final = 4  # of the books' own attempts each, before a batch is refused
PRICINGS_KNOWN_MAX: Final = 100_000  # by what an account is priced: 150 bytes each
QUOTE_ROUNDS: Final = (
    3  # what an account is priced by may change while rating is asked for the last one; not again and again
)
REAP_EVERY_S: Final = 2.0
REAP_BATCH: Final = 200


GROW_EVERY_S: Final = 1.0
SHARDS_FIRST: Final = 4  # of an account that several processes can't keep out of each other's way
SHARDS_GROWN_MAX: Final = 16  # Beyond, an operator says so.
_NOBODY: Final = UUID(int=0)


@dataclass(slots=True)
class AdmissionStats:
    """What has happened since the start; read by adapters.metrics. Plain numbers, because every call counts."""

    admitted: int = 0
    extended: int = 0
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """By rule and reason."""
    reported: dict[str, int] = field(default_factory=dict)
    """By rule: what would have been refused, had it been enforced."""
    settled: int = 0
    expired: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    """Events that changed nothing, by why."""
    batches: int = 0
    commands: int = 0
    failed_batches: int = 0
    grown: int = 0
    """Accounts that got more shards by themselves."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Implements ports.Read."""

    accounts: Sequence[UUID]
    counted: Sequence[UUID]
    holds: Sequence[UUID]
    now_s: float
    looked: Sequence[UUID] = ()

    @classmethod
    def of(cls, commands: Sequence[Command], now_s: float) -> "Batch":
        asked = [command for command in commands if isinstance(command, Admission | Extension)]
        return cls(accounts_of(commands), accounts_of(asked), holds_of(commands), now_s, carriers_of(commands))


@dataclass(slots=True)
class _Waiting:
    command: Command
    done: asyncio.Future[Outcome]
    rounds: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    """Commands of one kind, in the order in which they came. Times are the loop's."""

    gather_s: float
    """How long the first waits for company."""
    waiting: deque[_Waiting] = field(default_factory=deque)
    due_s: float = inf
    """When the next batch is to begin; inf while nobody waits."""
    began_s: float = -inf

    def take(self) -> list[_Waiting]:
        """The next batch, at most LANE_BATCH_MAX; what was cancelled is left out: nobody waits for it any more."""
        batch: list[_Waiting] = []
        while self.waiting and len(batch) < LANE_BATCH_MAX:
            waiting = self.waiting.popleft()
            if not waiting.done.done():
                batch.append(waiting)
        self.due_s = inf
        return batch


class CallAdmission:
    """Decides calls. `run` has to run for anything to be answered, `reap` for what nobody ends."""

    def __init__(
        self,
        books: AdmissionStore,
        quotes: Quotes,
        policies: PolicySource,
        clock: Clock,
        rng: Callable[[], float],
        *,
        lists: ListSource | None = None,
        trunks: SourceTrunks | None = None,
        notices: Notifier | None = None,
    ) -> None:
        self._books = books
        self._quotes = quotes
        self._policies = policies
        self._clock = clock
        self._rng = rng
        self._lists = lists
        self._trunk_of = trunks.get if trunks is not None else None
        self._notices = notices
        # Which shard of a sharded owner this process counts in.
        self._slot = int(rng() * SHARDS_MAX)
        # One for each kind of write, so that a batch is one statement.
        self._admissions, self._extensions = _Lane(0.0), _Lane(0.0)
        self._starts, self._ends = _Lane(STARTS_GATHER_S), _Lane(ENDS_GATHER_S)
        self._lanes = (self._admissions, self._extensions, self._starts, self._ends)
        self._wake = asyncio.Event()
        self._refuse_until_s = 0.0  # monotonic
        self._pricings: OrderedDict[UUID, Pricing] = OrderedDict()
        self._usual: Pricing | None = None
        """How the account was priced that was learnt of last."""
        self.counts = AdmissionStats()

    @property
    def queued(self) -> int:
        """Commands that wait for the next batch."""
        return sum(len(lane.waiting) for lane in self._lanes)

    @property
    def is_up(self) -> bool:
        """Whether the database answered the last time it was asked."""
        return not self._refuse_until_s

    # ------------------------------------------------------------------ what is asked

    async def admit(self, request: CallRequest) -> Admitted | Refused:
        """May this call be placed? Asked twice with one hold id, it answers alike and holds once.

        Raises Unavailable (nothing is known to be held), Exhausted, Conflict for a call that is over already.
        """
        now_s = self._clock.unix_s()
        if abs(request.start_s - now_s) > CLOCKS_APART_S:
            request.start_s = now_s
        quote: Quote | NoQuote | None = None
        if not request.local:
            pricing = self._pricings.get(request.account_id)
            if pricing is not None:
                quote = await self._quote(pricing, request)
            elif self._usual is not None:
                # Most accounts are priced alike. A guess that is wrong is told by NeedsQuote, as no guess would be; one
                # that is right saves a whole turn with the database.
                quote = self._quotes.known(self._usual, request.destination, request.start_s)
        for _ in range(QUOTE_ROUNDS):
            outcome = await self._submit(self._admissions, Admission(request, quote))
            match outcome:
                case Admitted():
                    self.counts.admitted += 1
                    if quote is not None and request.account_id not in self._pricings:
                        self._remember(request.account_id, quote.pricing)
                    return outcome
                case Refused(refuse=refuse):
                    key = refuse.rule, refuse.reason.value
                    self.counts.refused[key] = self.counts.refused.get(key, 0) + 1
                    return outcome
                case NeedsQuote(pricing=pricing):
                    self._remember(request.account_id, pricing)
                    quote = await self._quote(pricing, request)
                case _:
                    raise Conflict("this call is over already")
        raise Conflict("the account's price list is being changed")

    async def extend(self, request: ExtendRequest) -> Extended | Refused:
        """May this call go on? The same `granted_s` twice grants once.

        Raises NotFound if the call isn't running, Unavailable, Exhausted.
        """
        request.answered_at_s = self._not_ahead(request.answered_at_s)
        outcome = await self._submit(self._extensions, Extension(request))
        match outcome:
            case Extended():
                self.counts.extended += 1
                return outcome
            case Refused():
                return outcome
            case NoHold():
                raise NotFound("this call isn't running")
        raise Internal(f"an extension was answered {outcome}")

    # ------------------------------------------------------------------ what people ask

    async def simulate(self, request: CallRequest) -> tuple[Evaluation, Snapshot]:
        """What the call would get now, and all that is looked at: nothing is placed, held or counted.

        Raises NotFound for an account that there isn't, Unavailable, Conflict.
        """
        quote: Quote | NoQuote | None = None
        for _ in range(QUOTE_ROUNDS):
            found: tuple[Evaluation, Snapshot] | NeedsQuote = await self._look(
                Admission(request, quote), AdmissionTransaction.simulate
            )
            if not isinstance(found, NeedsQuote):
                return found
            quote = await self._quote(found.pricing, request)
        raise Conflict("the account's price list is being changed")

    async def snapshot_of(self, account_id: UUID, at_s: float) -> Snapshot:
        """What a call of the account would be decided on at that moment, without a price: what is counted, for
        itself and for all that it belongs to. Raises as `simulate`."""
        request = CallRequest(_NOBODY, "", account_id, "", "", "", "", "", True, at_s)
        return await self._look(Admission(request), AdmissionTransaction.snapshot_of, looked=(account_id,))

    async def _look(
        self,
        command: Admission,
        ask: Callable[[AdmissionTransaction, Admission], T | None],
        looked: Sequence[UUID] = (),
    ) -> T:
        now_s = command.request.start_s
        read = Batch.of([command], now_s)
        if looked:
            read = replace(read, looked=looked)

        def work(loaded: Loaded) -> tuple[Changes, T | None]:
            book = self._book(loaded, now_s, is_whole=True)
            if book.lacks([command]):
                return book.changes, None
            return book.changes, ask(book, command)

        found = await self._books.look(read, work)
        if found is None:
            raise NotFound("there is no such account")
        return found

    # ------------------------------------------------------------------ what is told

    async def started(self, event: Started) -> None:
        """Takes in that a call was answered. Returns when that is committed. Raises Unavailable, Exhausted."""
        event.answered_at_s = self._not_ahead(event.answered_at_s)
        self._count_ignored(await self._submit(self._starts, event))

    async def ended(self, event: Ended) -> bool:
        """Settles a call, once however often it is told: whether it was now. Returns when that is committed."""
        event.ended_at_s = self._not_ahead(event.ended_at_s)
        if event.answered_at_s is not None:
            event.answered_at_s = min(event.answered_at_s, event.ended_at_s)
        outcome = await self._submit(self._ends, event)
        if isinstance(outcome, Ignored):
            self._count_ignored(outcome)
            if outcome.why == "unknown":
                log.warning("call.end_unknown", hold_id=str(event.hold_id), reason=event.reason)
            return False
        self.counts.settled += 1
        return True

    async def note(self, note: DecisionRecord) -> None:
        """Keeps another service's decision for `explain`. Returns when that is committed."""
        await self._submit(self._ends, note)

    def _count_ignored(self, outcome: Outcome) -> None:
        if isinstance(outcome, Ignored):
            self.counts.ignored[outcome.why] = self.counts.ignored.get(outcome.why, 0) + 1

    def _not_ahead(self, at_s: float) -> float:
        """The moment, or now if that is in the future: a clock that is ahead must not make a hold last for ever."""
        now_s = self._clock.unix_s()
        return at_s if 0 < at_s <= now_s else now_s

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

    # ------------------------------------------------------------------ the queue

    def _submit(self, lane: "_Lane", command: Command) -> asyncio.Future[Outcome]:
        """The outcome, once it is committed. Cancelled before its batch begins, it isn't begun."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if now_s < self._refuse_until_s:
            raise Unavailable("the database is not available")
        if len(lane.waiting) >= QUEUE_MAX:
            raise Exhausted("too many calls wait to be decided")
        done: asyncio.Future[Outcome] = loop.create_future()
        lane.waiting.append(_Waiting(command, done))
        if len(lane.waiting) == 1:
            self._due(lane, max(now_s + lane.gather_s, lane.began_s + PACE_S))
        elif len(lane.waiting) == LANE_BATCH_MAX:
            self._due(lane, now_s)
        return done

    def _due(self, lane: "_Lane", at_s: float) -> None:
        """Has the lane's next batch begin then (loop time)."""
        loop = asyncio.get_running_loop()
        lane.due_s = at_s
        if at_s <= loop.time():
            self._wake.set()
        else:
            loop.call_at(at_s, self._wake.set)

    async def run(self) -> None:
        """Decides batch after batch, for ever. One at a time: two at once would meet in the same accounts."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                # A timer may ring a moment early; who is due within it may as well go now.
                while due := [lane for lane in self._lanes if lane.due_s <= loop.time() + TIMER_EARLY_S]:
                    lane = min(due, key=lambda lane: lane.due_s)
                    lane.began_s = loop.time()
                    if batch := lane.take():
                        await self._decide(lane, batch)
                    if lane.waiting:
                        self._due(lane, lane.began_s + PACE_S)
        finally:
            for lane in self._lanes:
                waiting, lane.waiting = list(lane.waiting), deque()
                _fail(waiting, Unavailable("call-admission is stopping"))

    async def _decide(self, lane: _Lane, batch: list[_Waiting]) -> None:
        self.counts.batches += 1
        self.counts.commands += len(batch)
        try:
            await self._commit(batch)
        except Unavailable as error:
            self._refuse_until_s = asyncio.get_running_loop().time() + PAUSE_AFTER_FAILURE_S
            self._failed(batch, error)
        except Conflict as error:
            self._again(lane, batch, error)
        except Exception as error:  # the boundary: some change can't be written; find out whose
            log.error("batch.failed", error=error, size=len(batch))
            await self._one_by_one(batch)
        else:
            self._refuse_until_s = 0.0

    async def _commit(self, batch: list[_Waiting]) -> None:
        commands = [waiting.command for waiting in batch]
        now_s = self._clock.unix_s()

        def work(loaded: Loaded) -> tuple[Changes, tuple[list[Outcome | CallwardenError], Changes]]:
            book = self._book(loaded, now_s)
            if book.lacks(commands):
                return book.changes, ([], book.changes)
            outcomes = [_apply(book, command) for command in commands]
            return book.changes, (outcomes, book.changes)

        outcomes, changes = await self._books.update(Batch.of(commands, now_s), work)
        for rule in changes.reported:
            self.counts.reported[rule] = self.counts.reported.get(rule, 0) + 1
        if self._notices is not None:
            for notice in changes.notices:
                self._notices.tell(notice)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.done.done():
                continue
            if isinstance(outcome, CallwardenError):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(outcome)

    def _book(self, loaded: Loaded, now_s: float, *, is_whole: bool = False) -> AdmissionTransaction:
        lists = self._lists.current if self._lists is not None else None
        return AdmissionTransaction(
            loaded, self._policies.for_realm, now_s, self._slot, lists, self._trunk_of, is_whole=is_whole
        )

    def _failed(self, batch: list[_Waiting], error: CallwardenError) -> None:
        self.counts.failed_batches += 1
        log.warning("batch.unavailable", error=error, size=len(batch))
        _fail(batch, error)

    def _again(self, lane: _Lane, batch: list[_Waiting], error: Conflict) -> None:
        """Other processes came between, again and again: back to the head of the queue, a bounded number of times."""
        self.counts.failed_batches += 1
        for waiting in reversed(batch):
            waiting.rounds += 1
            if waiting.rounds < CONFLICT_ROUNDS:
                lane.waiting.appendleft(waiting)
            else:
                _fail([waiting], Unavailable("the account is in too much use"))
        log.warning("batch.conflict", error=error, size=len(batch))

    async def _one_by_one(self, batch: list[_Waiting]) -> None:
        """A request that can't be written must not take its neighbours with it."""
        for waiting in batch:
            try:
                await self._commit([waiting])
            except CallwardenError as error:
                _fail([waiting], error if error.kind is not ErrorKind.CONFLICT else Unavailable(error.message))
            except Exception as error:
                log.error("command.failed", error=error, command=type(waiting.command).__name__)
                _fail([waiting], Internal("the command can't be carried out"))

    # ------------------------------------------------------------------ growth

    async def grow(self, contended: Callable[[], Mapping[UUID, int]], shards: Shards) -> None:
        """Gives accounts that several processes contend for more shards, for ever. `contended`: since the last look,
        with the shards that each has (1: none)."""
        while True:
            await asyncio.sleep(GROW_EVERY_S * (0.5 + self._rng()))
            for account_id, count in contended().items():
                await self.grow_one(account_id, count, shards)

    async def grow_one(self, account_id: UUID, count: int, shards: Shards) -> None:
        """Doubles an account's shards, unless somebody has done so already."""
        wanted = SHARDS_FIRST if count <= 1 else min(2 * count, SHARDS_GROWN_MAX)
        if wanted <= count:
            return
        try:
            if await shards.grow(account_id, count, wanted):
                self.counts.grown += 1
                log.warning("account.sharded", account_id=str(account_id), shards=wanted, before=count)
        except CallwardenError as error:
            log.warning("account.not_sharded", account_id=str(account_id), error=error)

    # ------------------------------------------------------------------ the reaper

    async def reap(self) -> None:
        """Settles what nobody ends, for ever. Every process does; who comes second changes nothing."""
        while True:
            # Not all processes at the same moment.
            await asyncio.sleep(REAP_EVERY_S * (0.5 + self._rng()))
            try:
                while await self.reap_once() == REAP_BATCH:
                    pass
            except CallwardenError as error:
                log.warning("reaper.failed", error=error)

    async def reap_once(self) -> int:
        """Settles the holds that have expired, at most REAP_BATCH; how many were found."""
        found = await self._books.expired(self._clock.unix_s(), REAP_BATCH)
        outcomes = await asyncio.gather(*(self._submit(self._ends, command) for command in found))
        for outcome in outcomes:
            if isinstance(outcome, Ignored):
                self._count_ignored(outcome)
            else:
                self.counts.expired += 1
        if found:
            log.info("holds.expired", count=len(found))
        return len(found)


def _apply(book: AdmissionTransaction, command: Command) -> Outcome | CallwardenError:
    try:
        return book.apply(command)
    except Exception as error:  # the boundary: one command that can't be decided must not take the batch with it
        log.error("command.undecided", error=error, command=type(command).__name__)
        return Internal("the command can't be decided")


def _fail(batch: Sequence[_Waiting], error: CallwardenError) -> None:
    for waiting in batch:
        if not waiting.done.done():
            # One object each: a raised exception grows by a traceback wherever it is raised again.
            waiting.done.set_exception(type(error)(error.message))
