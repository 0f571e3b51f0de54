"""Events: ends and starts of calls, other services' decisions in; changes of accounts out."""

import asyncio
from typing import Final
from uuid import UUID, uuid5

from nats.aio.msg import Msg

from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.admission.adapters.quotes_grpc import GrpcQuotes
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.core.commands import DecisionRecord
from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.ports import CallObserver
from callwarden.call_admission.model import usage
from callwarden.call_admission.model.calls import Ended, Started
from callwarden.call_admission.model.codecs.fields import (
    CALL_ID_CHARS_MAX,
    TEXT_CHARS_MAX,
    seconds_of,
    text_of,
    uuid_of,
)
from callwarden.common import trace
from callwarden.common.bus import Bus, Delivery, Poison, Publisher, Stream
from callwarden.common.logs import get_logger
from callwarden.common.runtime import Runtime
from callwarden.kernel import ids
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.errors import Invalid

log = get_logger(__name__)

STARTED: Final = "calls.started"
ENDED: Final = "calls.ended"
BATCH: Final = "calls.batch"
DECISION: Final = "security.decision"
ACCOUNT_CHANGED: Final = "security.account_changed"
LIMIT: Final = "security.limit"
RATING_CHANGED: Final = "rating.changed"

# Messages in hand at a time: starts gather for half a second, so alone in theirs this is 2,000 calls/s. A batch has up
# to 64: what the lanes have no room for comes again.
CALLS_CONCURRENCY: Final = 1_024
DECISIONS_CONCURRENCY: Final = 256
DURABLE: Final = "call-admission"  # the consumer of calls.*
# Once NATS is back, edges reconnect (every 0.2 s) and send what they have spooled: thousands of ends a second.
SPOOLS_EMPTY_S: Final = 10.0
DECISION_BYTES_MAX: Final = 16 * 1024  # ours have 0.6 KB; it is kept as it comes
_RECORDS: Final = UUID("6d1cf5be-3d2f-4c0e-9a55-6a3c7a1f0c11")  # namespace of ids for events that bring none


class CallEvents:
    """Hands what JetStream delivers to the app; each is acknowledged when it is committed, and may come again."""

    def __init__(self, app: CallAdmission, watch: CallObserver) -> None:
        self._app = app
        self._watch = watch

    async def call(self, delivery: Delivery) -> None:
        """Starts and ends, alone or in batches, in the order of the stream."""
        if delivery.subject == BATCH:
            await self._batch(_batch(delivery.payload))
        elif delivery.subject == STARTED:
            await self._app.started(_started(delivery.payload))
        elif delivery.subject == ENDED:
            await self._ended(_call_ended(delivery.payload))
        else:
            raise Poison(f"unknown subject {delivery.subject}")

    async def _ended(self, event: events_pb2.CallEnded) -> None:
        ended = _ended(event)
        if await self._app.ended(ended):
            talk_s = ended.ended_at_s - ended.answered_at_s if ended.answered_at_s is not None else None
            self._watch.ended(
                ended.account_id,
                event.destination,
                event.caller_number,
                talk_s,
                ended.sip_status,
                ended.reason,
                local=event.local,
                source=event.source_address,
            )

    async def _batch(self, batch: events_pb2.CallEvents) -> None:
        """All of them, whatever becomes of one. If one is to be tried again all are: the others change nothing then."""
        outcomes = await asyncio.gather(*(self._one(event) for event in batch.events), return_exceptions=True)
        for event, error in zip(batch.events, outcomes, strict=True):
            if isinstance(error, Poison | Invalid):
                log.error("event.poison", error=error, what=event.WhichOneof("what") or "")
            elif error is not None:
                raise error

    async def _one(self, event: events_pb2.CallEvent) -> None:
        match event.WhichOneof("what"):
            case "started":
                started = event.started
                with trace.scope(traceparent=started.traceparent, call_id=started.call_id):
                    await self._app.started(_start_of(started))
            case "ended":
                ended = event.ended
                with trace.scope(traceparent=ended.traceparent, call_id=ended.call_id):
                    await self._ended(ended)
            case _:
                raise Poison("neither a start nor an end")

    async def decision(self, delivery: Delivery) -> None:
        """security.decision: what the edge or auth refused."""
        await self._app.record(_decision_record(delivery))


def _batch(payload: bytes) -> events_pb2.CallEvents:
    try:
        return events_pb2.CallEvents.FromString(payload)
    except ValueError as error:  # protobuf's DecodeError
        raise Poison("not CallEvents") from error


def _started(payload: bytes) -> Started:
    try:
        return _start_of(events_pb2.CallStarted.FromString(payload))
    except ValueError as error:
        raise Poison("not a CallStarted") from error


def _start_of(event: events_pb2.CallStarted) -> Started:
    return Started(
        uuid_of(event.hold_id, "hold_id"),
        uuid_of(event.account_id, "account_id"),
        seconds_of(event.answered_at_s, "answered_at_s"),
        text_of(event.trunk, "trunk", TEXT_CHARS_MAX),
    )


def _call_ended(payload: bytes) -> events_pb2.CallEnded:
    try:
        return events_pb2.CallEnded.FromString(payload)
    except ValueError as error:
        raise Poison("not a CallEnded") from error


def _ended(event: events_pb2.CallEnded) -> Ended:
    return Ended(
        uuid_of(event.hold_id, "hold_id"),
        uuid_of(event.account_id, "account_id"),
        seconds_of(event.answered_at_s, "answered_at_s") or None,
        seconds_of(event.ended_at_s, "ended_at_s"),
        text_of(event.reason, "reason", TEXT_CHARS_MAX),
        event.sip_status if event.sip_status < 1_000 else 0,
        text_of(event.trunk, "trunk", TEXT_CHARS_MAX),
        text_of(event.edge, "edge", TEXT_CHARS_MAX),
    )


def _decision_record(delivery: Delivery) -> DecisionRecord:
    if len(delivery.payload) > DECISION_BYTES_MAX:
        raise Poison("a decision of this size is none")
    try:
        event = events_pb2.DecisionMade.FromString(delivery.payload)
    except ValueError as error:
        raise Poison("not a DecisionMade") from error
    decision = event.decision
    return DecisionRecord(
        ids.parse(event.event_id) or uuid5(_RECORDS, delivery.message_id or str(delivery.sequence)),
        text_of(event.call_id, "call_id", CALL_ID_CHARS_MAX),
        ids.parse(decision.account),
        seconds_of(decision.at_s, "decision.at_s"),
        text_of(decision.outcome, "decision.outcome", TEXT_CHARS_MAX),
        None,
        decision.SerializeToString(),
    )


def consume(runtime: Runtime, bus: Bus, app: CallAdmission, watch: CallObserver) -> None:
    """Has both streams consumed until the process stops; all processes share one durable consumer each."""
    events = CallEvents(app, watch)
    for name, stream, subject, handler, concurrency in (
        (DURABLE, Stream.CALLS, "calls.*", events.call, CALLS_CONCURRENCY),
        ("call-admission-decisions", Stream.SECURITY, DECISION, events.decision, DECISIONS_CONCURRENCY),
    ):
        runtime.spawn(
            f"consume-{subject}", bus.consume(stream, name, subject, handler, concurrency=concurrency), drains=True
        )


class ConsumerProgress:
    """Implements ports.EventProgress by what the server says of the consumer that all processes share."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._losses = bus.losses
        self._connected_since_s = clock.mono_s()

    async def heard_until(self) -> UnixS | None:
        if not self._is_steady():
            return None
        asked_at_s = self._clock.unix_s()
        waiting = await self._bus.waiting(Stream.CALLS, DURABLE)
        return asked_at_s if waiting == 0 and self._is_steady() else None

    def _is_steady(self) -> bool:
        """Whether the connection has stood for so long that edges have sent what they had spooled."""
        mono_s = self._clock.mono_s()
        # It may have been lost and made again since the last look.
        if not self._bus.connected or self._losses != self._bus.losses:
            self._losses, self._connected_since_s = self._bus.losses, mono_s
            return False
        return mono_s >= self._connected_since_s + SPOOLS_EMPTY_S


class NatsNotifier:
    """Implements ports.Notifier."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def notify(self, notice: Notice) -> None:
        event = events_pb2.LimitNotice(
            account_id=str(notice.account_id),
            account=notice.account,
            realm=notice.realm,
            rule=notice.rule,
            counter=notice.counter,
            value=notice.value,
            limit=notice.limit,
            window=notice.window,
            at_s=notice.at_s,
            call_id=notice.call_id,
        )
        match notice.level:
            case usage.BLOCKED:
                event.blocked = True
            case usage.WARNED:
                event.warning = True
            case percent:
                event.percent = percent
        # Its transaction creates each notice once; the message id makes one that is sent again after a reconnect count
        # once, too.
        message_id = f"{notice.account_id}.{notice.rule}.{notice.level}.{notice.at_s}"
        self._publisher.publish(LIMIT, event.SerializeToString(), message_id=message_id)


# Of an account's changes, those that move routes; rating hears of them, as of a policy, at the same moment, and what it
# says until it has read them again is dropped once more.
_MOVES_ROUTES: Final = frozenset({"trunk", "status"})
_RATING_RELOADS_S: Final = 2.0


def forget_quotes(quotes: GrpcQuotes) -> None:
    """Forgets prices and routes for a change that rating may not have seen yet."""
    quotes.forget()
    asyncio.get_running_loop().call_later(_RATING_RELOADS_S, quotes.forget)


async def follow_rating(bus: Bus, quotes: GrpcQuotes) -> None:
    """Forgets prices and routes when they change; all of them after NATS was away, since what was said isn't kept."""

    async def rating_changed(message: Msg) -> None:
        quotes.forget()

    async def account_changed(message: Msg) -> None:
        event = events_pb2.AccountChanged.FromString(message.data)
        if event.what in _MOVES_ROUTES:
            forget_quotes(quotes)

    async def back() -> None:
        quotes.forget()

    await bus.subscribe(RATING_CHANGED, rating_changed)
    await bus.subscribe(ACCOUNT_CHANGED, account_changed)
    bus.on_reconnect(back)
