"""Events to JetStream, by way of the spool while NATS is away. See `ports.Events`.

Starts and ends of calls go together: alone, each costs NATS, its acknowledgement and its consumer as much as twenty in
one message.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from callwarden.api.admission.v1 import admission_pb2
from callwarden.api.events.v1 import events_pb2
from callwarden.common import trace
from callwarden.common.bus import Publisher
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.trace import TraceContext
from callwarden.edge_proxy.core.effects import CallEnded, CallStarted, EdgeDecision
from callwarden.kernel.errors import Exhausted
from callwarden.kernel.verdict import RuleResult

log = get_logger(__name__)

SERVICE = "edge-proxy"
GATHER_S: Final = 0.02  # A line is free this much later; an edge that dies loses the events of as long a time more.
BATCH_MAX: Final = 64  # 20 KB; a consumer retries a batch whole
BATCH_CHARS_MAX: Final = 32 * 1024  # of Call-IDs, which callers choose, up to 8 KiB each
LOST = Metric("callwarden_edge_events_lost_total", "counter", "{events}", "Events for which the spool had no room.")


class EventsNats:
    """Makes protobuf of the core's events and hands them to the publisher. Left (`async with`) before that one is."""

    def __init__(self, publisher: Publisher, edge: str, metrics: Metrics, random_bytes: Callable[[int], bytes]) -> None:
        self._publisher = publisher
        self._edge = edge
        self._random_bytes = random_bytes
        self._lost = metrics.counter(LOST)
        self._batch = events_pb2.CallEvents()
        self._count = self._chars = 0
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.flush()

    def started(self, event: CallStarted) -> None:
        message = events_pb2.CallStarted(
            hold_id=str(event.hold_id),
            call_id=event.call_id,
            account_id=event.account_id,
            answered_at_s=event.answered_at_s,
            trunk=event.trunk,
            edge=self._edge,
            traceparent=event.traceparent,
        )
        self._batch.events.add(started=message)
        self._added(event.call_id)

    def ended(self, event: CallEnded) -> None:
        message = events_pb2.CallEnded(
            hold_id=str(event.hold_id),
            call_id=event.call_id,
            account_id=event.account_id,
            answered_at_s=event.answered_at_s,
            ended_at_s=event.ended_at_s,
            reason=event.reason,
            sip_status=event.sip_status,
            trunk=event.trunk,
            edge=self._edge,
            traceparent=event.traceparent,
            destination=event.destination,
            caller_number=event.caller_number,
            source_address=event.source,
            local=event.local,
        )
        self._batch.events.add(ended=message)
        self._added(event.call_id)

    def _added(self, call_id: str) -> None:
        self._count += 1
        self._chars += len(call_id)
        if self._count >= BATCH_MAX or self._chars >= BATCH_CHARS_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        """Hand over what was gathered, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._count:
            return
        batch, self._batch, self._count, self._chars = self._batch, events_pb2.CallEvents(), 0, 0
        with trace.scope():  # each event has a trace of its own, the batch has none
            self._publish("calls.batch", batch.SerializeToString(), self._random_bytes(16).hex())

    def decided(self, event: EdgeDecision) -> None:
        refuse = event.refuse
        context = TraceContext.parse(event.traceparent)
        message = events_pb2.DecisionMade(
            call_id=event.call_id,
            event_id=str(event.event_id),
            decision=admission_pb2.Decision(
                at_s=event.at_s,
                service=SERVICE,
                outcome="refuse",
                refused=admission_pb2.Refused(
                    reason=refuse.reason.value,
                    rule=refuse.rule,
                    counter=refuse.counter,
                    value=refuse.value,
                    limit=refuse.limit,
                    window=refuse.window,
                    text=refuse.text,
                    retry_after_s=refuse.retry_after_s,
                ),
                rules=[_verdict(rule) for rule in event.rules],
                policy_revision=event.revision,
                trace_id=context.trace_id if context is not None else "",
                account=event.account_id,
                source_address=event.source,
            ),
        )
        self._publish("security.decision", message.SerializeToString(), str(event.event_id))

    def _publish(self, subject: str, payload: bytes, message_id: str) -> None:
        try:
            self._publisher.publish(subject, payload, message_id=message_id)
        except (Exhausted, OSError) as error:
            self._lost.value += 1
            log.error("event.lost", error=error, subject=subject, message_id=message_id)


def _verdict(rule: RuleResult) -> admission_pb2.RuleVerdict:
    return admission_pb2.RuleVerdict(
        rule=rule.rule,
        mode=rule.mode.value,
        verdict="refuse" if rule.refused is not None else "skip" if rule.skipped else "pass",
        counter=rule.counter,
        value=rule.value,
        limit=rule.limit or 0,
        window=rule.window,
        text=rule.skipped or (rule.refused.text if rule.refused is not None else ""),
    )
