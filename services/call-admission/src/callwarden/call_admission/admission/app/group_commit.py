"""The group commit: commands that arrive while a transaction is under way are decided together in the next one.

In: lanes, batches, what each caller gets when a batch fails. Out: what is decided (core.transaction), how a transaction
is tried (attempts), what callers ask for (calls).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from callwarden.call_admission.admission.attempts import AdmissionAttempts
from callwarden.call_admission.admission.core.commands import Command, Outcome
from callwarden.call_admission.admission.core.state import Changes, Loaded, ReadSet
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.admission.ports import Notifier
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.errors import CallwardenError, Conflict, ErrorKind, Exhausted, Internal, Unavailable

log = get_logger(__name__)

# Of each kind of command in one transaction. Measured: 256 take 10 ms; more would make the first wait for the last
# without saving anything.
LANE_BATCH_MAX: Final = 256
# At 5,000/s two seconds of work: a caller that would wait longer has given up by then.
QUEUE_MAX: Final = 10_000
# The next batch begins no sooner than this after the last one began: at 500 calls/s a transaction then carries two or
# three admissions instead of one, which saves a third of the CPU, for 2 ms of delay on average.
PACE_S: Final = 0.004
TIMER_EARLY_S: Final = 0.001  # uvloop's timers tick in milliseconds
# Events that no caller waits for are gathered: a write costs the same for one row as for twenty.
ENDS_GATHER_S: Final = 0.02  # lines come back within it
STARTS_GATHER_S: Final = 0.5  # they only matter should the edge die, and until then the hold lasts anyway
# After a failure of the database all callers are refused at once for this long, instead of queueing for the time-out.
PAUSE_AFTER_FAILURE_S: Final = 0.25
CONFLICT_ROUNDS: Final = 4  # of a dozen attempts each, before a batch is refused


@dataclass(slots=True)
class CommitStats:
    """What has happened since the start, for the metrics."""

    batches: int = 0
    commands: int = 0
    failed_batches: int = 0
    reported: dict[str, int] = field(default_factory=dict)
    """By rule: calls that it would have refused if it were enforced."""


@dataclass(slots=True)
class _Waiting:
    command: Command
    done: asyncio.Future[Outcome]
    rounds: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """Commands of one kind, in the order in which they came. Times are the event loop's."""

    gather_s: float
    """How long the first command waits for more."""
    waiting: deque[_Waiting] = field(default_factory=deque)
    due_s: float = inf
    """When the next batch begins; inf while nothing waits."""
    began_s: float = -inf

    def take(self) -> list[_Waiting]:
        """The next batch, at most LANE_BATCH_MAX, without what was cancelled: no caller waits for it any more."""
        batch: list[_Waiting] = []
        while self.waiting and len(batch) < LANE_BATCH_MAX:
            waiting = self.waiting.popleft()
            if not waiting.done.done():
                batch.append(waiting)
        self.due_s = inf
        return batch


class GroupCommit:
    """Decides commands in batches. `run` has to run for anything to be answered.

    `begin`: makes a transaction of what was read, at that moment (Unix time).
    """

    def __init__(
        self,
        attempts: AdmissionAttempts,
        begin: Callable[[Loaded, UnixS], AdmissionTransaction],
        clock: Clock,
        notifier: Notifier | None = None,
    ) -> None:
        self._attempts = attempts
        self._begin = begin
        self._clock = clock
        self._notifier = notifier
        # One lane for each kind of write, so that a batch is one statement.
        self.admissions, self.extensions = Lane(0.0), Lane(0.0)
        self.starts, self.ends = Lane(STARTS_GATHER_S), Lane(ENDS_GATHER_S)
        self._lanes = (self.admissions, self.extensions, self.starts, self.ends)
        self._wake = asyncio.Event()
        self._refuse_until_mono_s = 0.0
        self.stats = CommitStats()

    @property
    def queued(self) -> int:
        """Commands that wait for the next batch."""
        return sum(len(lane.waiting) for lane in self._lanes)

    @property
    def is_up(self) -> bool:
        """Whether the database answered the last time it was asked."""
        return not self._refuse_until_mono_s

    def submit(self, lane: Lane, command: Command) -> asyncio.Future[Outcome]:
        """The outcome, once it is committed. A command that is cancelled before its batch begins isn't decided.

        Raises Unavailable, Exhausted.
        """
        loop = asyncio.get_running_loop()
        mono_s = loop.time()
        if mono_s < self._refuse_until_mono_s:
            raise Unavailable("the database is not available")
        if len(lane.waiting) >= QUEUE_MAX:
            raise Exhausted("too many calls wait to be decided")
        done: asyncio.Future[Outcome] = loop.create_future()
        lane.waiting.append(_Waiting(command, done))
        if len(lane.waiting) == 1:
            self._schedule(lane, max(mono_s + lane.gather_s, lane.began_s + PACE_S))
        elif len(lane.waiting) == LANE_BATCH_MAX:
            self._schedule(lane, mono_s)
        return done

    def _schedule(self, lane: Lane, due_s: float) -> None:
        """Lets the lane's next batch begin at that time of the loop."""
        loop = asyncio.get_running_loop()
        lane.due_s = due_s
        if due_s <= loop.time():
            self._wake.set()
        else:
            loop.call_at(due_s, self._wake.set)

    async def run(self) -> None:
        """Decides batch after batch, for ever. One at a time: two would collide in the same accounts."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                # A timer may ring a moment early; a lane that is due within that moment may as well go now.
                while due := [lane for lane in self._lanes if lane.due_s <= loop.time() + TIMER_EARLY_S]:
                    lane = min(due, key=lambda lane: lane.due_s)
                    lane.began_s = loop.time()
                    if batch := lane.take():
                        await self._decide(lane, batch)
                    if lane.waiting:
                        self._schedule(lane, lane.began_s + PACE_S)
        finally:
            for lane in self._lanes:
                waiting, lane.waiting = list(lane.waiting), deque()
                _fail(waiting, Unavailable("call-admission is stopping"))

    async def _decide(self, lane: Lane, batch: list[_Waiting]) -> None:
        self.stats.batches += 1
        self.stats.commands += len(batch)
        try:
            await self._commit(batch)
        except Unavailable as error:
            self._refuse_until_mono_s = asyncio.get_running_loop().time() + PAUSE_AFTER_FAILURE_S
            self.stats.failed_batches += 1
            log.warning("batch.unavailable", error=error, size=len(batch))
            _fail(batch, error)
        except Conflict as error:
            self._requeue(lane, batch, error)
        except Exception as error:  # the boundary: some change can't be written; find out which
            log.error("batch.failed", error=error, size=len(batch))
            await self._one_by_one(batch)
        else:
            self._refuse_until_mono_s = 0.0

    async def _commit(self, batch: list[_Waiting]) -> None:
        commands = [waiting.command for waiting in batch]
        unix_s = self._clock.unix_s()

        def work(loaded: Loaded) -> tuple[Changes, tuple[list[Outcome | CallwardenError], Changes]]:
            transaction = self._begin(loaded, unix_s)
            changes = transaction.changes
            if transaction.missing_counters(commands):
                return changes, ([], changes)
            return changes, ([_apply(transaction, command) for command in commands], changes)

        outcomes, changes = await self._attempts.update(ReadSet.of(commands, unix_s), work)
        for rule in changes.reported:
            self.stats.reported[rule] = self.stats.reported.get(rule, 0) + 1
        if self._notifier is not None:
            for notice in changes.notices:
                self._notifier.notify(notice)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.done.done():
                continue
            if isinstance(outcome, CallwardenError):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(outcome)

    def _requeue(self, lane: Lane, batch: list[_Waiting], error: Conflict) -> None:
        """Other processes came between, again and again: back to the head of the queue, a bounded number of times."""
        self.stats.failed_batches += 1
        for waiting in reversed(batch):
            waiting.rounds += 1
            if waiting.rounds < CONFLICT_ROUNDS:
                lane.waiting.appendleft(waiting)
            else:
                _fail([waiting], Unavailable("the account is in too much use"))
        log.warning("batch.conflict", error=error, size=len(batch))

    async def _one_by_one(self, batch: list[_Waiting]) -> None:
        """A command that can't be written must not take the others of its batch with it."""
        for waiting in batch:
            try:
                await self._commit([waiting])
            except CallwardenError as error:
                _fail([waiting], error if error.kind is not ErrorKind.CONFLICT else Unavailable(error.message))
            except Exception as error:
                log.error("command.failed", error=error, command=type(waiting.command).__name__)
                _fail([waiting], Internal("the command can't be carried out"))


def _apply(transaction: AdmissionTransaction, command: Command) -> Outcome | CallwardenError:
    try:
        return transaction.apply(command)
    except Exception as error:  # the boundary: one command that can't be decided must not take the batch with it
        log.error("command.undecided", error=error, command=type(command).__name__)
        return Internal("the command can't be decided")


def _fail(batch: Sequence[_Waiting], error: CallwardenError) -> None:
    for waiting in batch:
        if not waiting.done.done():
            # One object each: a raised exception grows by a traceback wherever it is raised again.
            waiting.done.set_exception(type(error)(error.message))
