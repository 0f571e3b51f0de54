"""Joins the core to the world: every datagram in, every effect out, answers to its questions, its timers, its end.

In: the order of things in one event loop. Out: decisions (core), wires (adapters).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from callwarden.common import trace
from callwarden.common.logs import get_logger
from callwarden.edge_proxy.core.call_states import TALKING
from callwarden.edge_proxy.core.context import Intake
from callwarden.edge_proxy.core.edge import Edge
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    Answer,
    Ask,
    CallEnded,
    CallNews,
    CallStarted,
    EdgeDecision,
    ExtendCall,
    FindCalled,
    ForgetRecord,
    LoadRecord,
    ScannerSeen,
    StoreLocation,
    StoreRecord,
    Unanswered,
    VerifyDigest,
    VerifySource,
)
from callwarden.edge_proxy.core.records import DialogRecord
from callwarden.edge_proxy.ports import (
    AdmissionClient,
    DatagramTransport,
    DialogRecords,
    Directory,
    EdgeEventPublisher,
    Guard,
    Identities,
    OtherEdges,
)
from callwarden.kernel.clock import Clock, MonoS
from callwarden.kernel.errors import CallwardenError, Exhausted
from callwarden.limits.bucket import Rate, TokenBucket
from callwarden.sip.address import SocketAddress
from callwarden.sip.transaction import Send

log = get_logger(__name__)

TICK_S: Final = 0.02  # SIP's shortest timer is 500 ms; a finer tick only costs.
TICK_MAX_S: Final = (
    0.05  # Nothing is due sooner after it is set than a cut 0.5 s ahead; that one is 50 ms late at most.
)
FLUSH_S: Final = 0.05  # DESIGN D4
QUESTIONS_MAX: Final = 20_000  # Under way at once; more are answered 503 without being asked.
BANS_WAITING_MAX: Final = 1_000  # Scanners to be reported; a flood of forged ones must not pile up.
COMPLAINTS: Final = Rate(per_second=1, burst=10)  # Log lines when a dead service fails 500 questions a second.
DRAIN_MARGIN_S: Final = 1.0  # Of the drain time, for BYEs and events.
HAND_OVER_S: Final = 6.0  # Of the drain time, for the others to take the running calls, and for the above.
QUIET_S: Final = 3.0  # No request has come for so long: whoever sent them sends them elsewhere now.
LOOK_S: Final = 0.1


class EdgeApp:
    """One edge at work."""

    def __init__(
        self,
        edge: Edge,
        clock: Clock,
        *,
        identities: Identities,
        admission: AdmissionClient,
        guard: Guard,
        directory: Directory,
        records: DialogRecords,
        events: EdgeEventPublisher,
        others: OtherEdges,
    ) -> None:
        self.edge = edge
        self._clock = clock
        self._identities = identities
        self._admission = admission
        self._guard = guard
        self._directory = directory
        self._records = records
        self._events = events
        self._others = others
        self._transport: DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._scanners: asyncio.Queue[ScannerSeen] = asyncio.Queue(BANS_WAITING_MAX)
        self._ticking = False
        self._complaints = TokenBucket()

    def attach(self, transport: DatagramTransport) -> None:
        """Where datagrams leave from now on."""
        self._transport = transport

    # In.

    def datagram(self, data: bytes, source: SocketAddress) -> None:
        """One that came in. Called from the socket's callback: does all it can at once, without a task."""
        clock = self._clock
        self.edge.receive(data, source, clock.mono_s(), clock.unix_s())
        self._perform()

    def send_failed(self, data: bytes) -> None:
        """A datagram that `DatagramTransport.send` was given did not arrive; `data` may be its beginning only."""
        self.edge.send_failed(data, self._clock.mono_s(), self._clock.unix_s())
        self._perform()

    def adopt(self, record: DialogRecord) -> None:
        """Go on with a call whose edge died."""
        self.edge.adopt(record, self._clock.mono_s(), self._clock.unix_s())
        self._perform()

    def heard(self, news: CallNews) -> None:
        """Another edge tells of a call that may be ours."""
        self.edge.heard(news, self._clock.mono_s(), self._clock.unix_s())
        self._perform()

    def _tick(self) -> None:
        self._ticking = False
        clock = self._clock
        if not self._others.is_heard:
            self.edge.apart(clock.mono_s())
        self.edge.handle_timers(clock.mono_s(), clock.unix_s())
        self._perform()

    # Out.

    def _perform(self) -> None:
        asks = self._take()
        for ask in asks:
            self._start(ask)
        self._set_tick()

    def _take(self) -> list[Ask]:
        """Do the effects; the questions among them are left to the caller."""
        asks: list[Ask] = []
        transport = self._transport
        for effect in self.edge.take_effects():
            kind = type(effect)
            # In order of how often they come.
            if kind is Send:
                if transport is not None:
                    self.edge.stats.sends += 1
                    sent: Any = effect
                    transport.send(sent[0], sent[1][0])  # by position, as ten leave for each call
            elif kind is Ask:
                asks.append(effect)  # type: ignore[arg-type]
            else:
                _TELL[kind](self, effect)
        return asks

    def _set_tick(self) -> None:
        """One timer for all, set only while something is waited for: an idle edge sleeps.

        It rings every TICK_MAX_S at least, so that what is set meanwhile and due earlier isn't late by more: looking
        for the earliest after each datagram took 3 % of a call.
        """
        if self._ticking:
            return
        next_s = self.edge.next_timer_s()
        if next_s is None:
            return
        self._ticking = True
        wait_s = min(max(TICK_S, next_s - self._clock.mono_s()), TICK_MAX_S)
        asyncio.get_running_loop().call_later(wait_s, self._tick)

    # Questions.

    def _start(self, ask: Ask) -> None:
        if len(self._tasks) >= QUESTIONS_MAX:
            self.edge.resume(ask.number, Unanswered(overloaded=True), self._clock.mono_s(), self._clock.unix_s())
            for more in self._take():
                self._start(more)
            return
        task = asyncio.get_running_loop().create_task(self._pursue(ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pursue(self, ask: Ask) -> None:
        """Find the answer, and that of the question which follows from it: one task a call instead of two."""
        following: Ask | None = ask
        while following is not None:
            question = following.question
            trace.set_scope(trace.Scope(question.traceparent, question.call_id[: trace.CALL_ID_BYTES_MAX]))
            answer = await self._answer(following)
            self.edge.resume(following.number, answer, self._clock.mono_s(), self._clock.unix_s())
            asks = self._take()
            following = asks[0] if asks else None
            for other in asks[1:]:
                self._start(other)
        self._set_tick()

    async def _answer(self, ask: Ask) -> Answer:
        question = ask.question
        try:
            # In order of how often they come; a match statement with class patterns costs four times as much.
            kind = type(question)
            if kind is VerifyDigest:
                return await self._identities.verify(question)  # type: ignore[arg-type]
            if kind is AdmitCall:
                return await self._admission.admit(question)  # type: ignore[arg-type]
            if kind is ExtendCall:
                return await self._admission.extend(question)  # type: ignore[arg-type]
            if kind is LoadRecord:
                return await self._records.load(question)  # type: ignore[arg-type]
            if kind is FindCalled:
                return await self._identities.find_called(question)  # type: ignore[arg-type]
            assert isinstance(question, VerifySource)
            return await self._identities.verify_source(question)
        except CallwardenError as error:
            if not self._complaints.take(COMPLAINTS, self._clock.mono_s()):
                log.warning("question.unanswered", error=error, question=type(question).__name__)
            return Unanswered(overloaded=isinstance(error, Exhausted))

    # What happened.

    def _started(self, event: CallStarted) -> None:
        before = _enter(event.traceparent, event.call_id)
        try:
            self._events.started(event)
            log.debug("call.started", hold=event.hold_id, account=event.account_id, trunk=event.trunk)
        finally:
            trace.set_scope(before)

    def _ended(self, event: CallEnded) -> None:
        before = _enter(event.traceparent, event.call_id)
        try:
            self._events.ended(event)
            write = log.info if event.reason.startswith("cut-") else log.debug
            write("call.ended", hold=event.hold_id, account=event.account_id, reason=event.reason)
        finally:
            trace.set_scope(before)

    def _decided(self, event: EdgeDecision) -> None:
        with trace.scope(traceparent=event.traceparent, call_id=event.call_id):
            self._events.decided(event)
            refuse = event.refuse
            log.info(
                "request.refused",
                method=event.method,
                reason=refuse.reason.value,
                rule=refuse.rule,
                source=event.source,
                account=event.account_id,
            )

    def _store(self, change: StoreLocation) -> None:
        self._directory.store(change)

    def _store_record(self, change: StoreRecord) -> None:
        self._records.store(change)

    def _forget_record(self, change: ForgetRecord) -> None:
        self._records.forget(change.hold_id)

    def _publish_news(self, news: CallNews) -> None:
        self._others.publish(news)

    def _scanner(self, scanner: ScannerSeen) -> None:
        if not self._scanners.full():
            self._scanners.put_nowait(scanner)

    # In the background.

    async def report_counts(self) -> None:
        """Give rate-guard the sums, each FLUSH_S; for ever."""
        while True:
            await asyncio.sleep(FLUSH_S)
            reports = self.edge.counters.take_report(self._clock.mono_s())
            if reports:
                await self._guard.report(reports)

    async def report_scanners(self) -> None:
        """Have scanners banned everywhere; for ever."""
        while True:
            scanner = await self._scanners.get()
            try:
                await self._guard.ban(scanner)
            except CallwardenError as error:
                log.warning("scanner.not_banned", error=error, source=scanner.source)

    async def drain(self, stopping: asyncio.Event, timeout_s: float) -> None:
        """Once stopping: where other edges stay, serve what still comes until nothing does, and hand the running calls
        over; where none stays, refuse new calls and let running ones end. Then cut what is left.
        """
        await stopping.wait()
        stopped_s = self._clock.mono_s()
        await self._records.say_draining()
        log.info("edge.draining", calls=len(self.edge.calls))
        await self._serve_on(stopped_s, timeout_s)
        if self._records.has_successor:
            await self._hand_over()
        left = len(self.edge.calls)
        if left:
            log.warning("edge.drain_cut", calls=left)
        self.edge.cut_all("edge-drain", self._clock.mono_s(), self._clock.unix_s())
        self._perform()

    async def _serve_on(self, stopped_s: MonoS, timeout_s: float) -> None:
        """A balancer may send new calls here for some time yet, since it keeps the flows of UDP where they are."""
        edge = self.edge
        heard, heard_s = edge.requests, stopped_s
        while True:
            mono_s = self._clock.mono_s()
            if self._records.has_successor:
                edge.take_calls(Intake.OPEN)
                if edge.requests != heard:
                    heard, heard_s = edge.requests, mono_s
                is_done = mono_s - heard_s >= QUIET_S and not edge.in_setup
                margin_s = min(HAND_OVER_S, timeout_s / 2)
            else:
                edge.take_calls(Intake.REFUSED)
                is_done = not len(edge.calls)
                margin_s = DRAIN_MARGIN_S
            if is_done or mono_s - stopped_s >= timeout_s - margin_s:
                return
            await asyncio.sleep(LOOK_S)

    async def _hand_over(self) -> None:
        """Another edge goes on with each running call: nobody hears anything of it."""
        edge, records = self.edge, self._records
        edge.take_calls(Intake.IGNORED)
        found = edge.records()
        kept = await records.hand_over(found)
        running = {call.hold_id for call in edge.calls.all() if call.state in TALKING}
        for hold_id in kept - running:  # ended while it was written
            records.forget(hold_id)
        handed = kept & running
        # First: what reaches this edge from now on it passes on as any edge does that doesn't know the call.
        edge.release(handed, self._clock.mono_s())
        untaken = await records.leave(handed)
        for each in found:
            if each.record.hold_id in untaken:
                self.adopt(each.record)
        log.info("edge.handed_over", calls=len(handed) - len(untaken), untaken=len(untaken))


def _enter(traceparent: str, call_id: str) -> trace.Scope:
    """Be inside this call until `trace.set_scope` of what is returned: 1 µs, against 3 for `with trace.scope(…)`."""
    before = trace.current_scope()
    trace.set_scope(trace.Scope(traceparent, call_id[: trace.CALL_ID_BYTES_MAX]))
    return before


_TELL: dict[type, Callable[[EdgeApp, object], None]] = {
    CallStarted: EdgeApp._started,  # type: ignore[dict-item]
    CallEnded: EdgeApp._ended,  # type: ignore[dict-item]
    EdgeDecision: EdgeApp._decided,  # type: ignore[dict-item]
    StoreLocation: EdgeApp._store,  # type: ignore[dict-item]
    StoreRecord: EdgeApp._store_record,  # type: ignore[dict-item]
    ForgetRecord: EdgeApp._forget_record,  # type: ignore[dict-item]
    CallNews: EdgeApp._publish_news,  # type: ignore[dict-item]
    ScannerSeen: EdgeApp._scanner,  # type: ignore[dict-item]
}
