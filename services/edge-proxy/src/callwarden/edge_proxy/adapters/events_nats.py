"""Events to JetStream, by way of the spool while NATS is away. See `ports.Events`."""

from callwarden.api.admission.v1 import admission_pb2
from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Publisher
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.trace import TraceContext
from callwarden.edge_proxy.core.effects import CallEnded, CallStarted, Decided
from callwarden.kernel.errors import Exhausted
from callwarden.kernel.verdict import RuleResult

log = get_logger(__name__)

SERVICE = "edge-proxy"
LOST = Metric("callwarden_edge_events_lost_total", "counter", "{events}", "Events for which the spool had no room.")


class EventsNats:
    """Makes protobuf of the core's events and hands them to the publisher."""

    def __init__(self, publisher: Publisher, edge: str, metrics: Metrics) -> None:
        self._publisher = publisher
        self._edge = edge
        self._lost = metrics.counter(LOST)

    def started(self, event: CallStarted) -> None:
        hold_id = str(event.hold_id)
        message = events_pb2.CallStarted(
            hold_id=hold_id,
            call_id=event.call_id,
            account_id=event.account_id,
            answered_at_s=event.answered_at_s,
            trunk=event.trunk,
            edge=self._edge,
            traceparent=event.traceparent,
        )
        self._publish("calls.started", message.SerializeToString(), f"{hold_id}.started")

    def ended(self, event: CallEnded) -> None:
        hold_id = str(event.hold_id)
        message = events_pb2.CallEnded(
            hold_id=hold_id,
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
        self._publish("calls.ended", message.SerializeToString(), f"{hold_id}.ended")

    def decided(self, event: Decided) -> None:
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
