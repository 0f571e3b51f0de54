"""The end of a call that was not answered: the caller's final failure, and the notice that frees its hold.

In: refusals and failures, and how each side hears of them. Out: when a call fails (`call_setup`), which status a
refusal has (`statuses`).
"""

from callwarden.edge_proxy.core.call import EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.call_states import IN_SETUP, MAY_HOLD, CallEvent, CallState
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.effects import CallEnded
from callwarden.edge_proxy.core.statuses import answer_for
from callwarden.kernel.verdict import Refuse
from callwarden.sip import build


class CallFailures:
    """Ends calls that were not answered. Holds no state but what it shares."""

    def __init__(self, context: Context, calls: EdgeCalls) -> None:
        self._context = context
        self._calls = calls

    def fail(
        self,
        call: EdgeCall,
        status: int,
        why: str,
        reason: str | None = None,
        headers: build.Headers = (),
        *,
        event: CallEvent = CallEvent.FAILED,
    ) -> None:
        """Our own final answer."""
        assert call.server is not None
        self._context.answer(call.server, status, reason, headers)
        self.end(call, event, why, status)

    def refuse(
        self,
        call: EdgeCall,
        refuse: Refuse,
        passed: tuple[str, ...],
        *,
        headers: build.Headers = (),
        wanted: int = 0,
        decided_here: bool = True,
        event: CallEvent | None = None,
    ) -> None:
        context = self._context
        answer = answer_for(
            refuse.reason,
            is_trunk=call.is_trunk,
            quota_status=call.rules.quota_status,
            wanted=wanted,
            retry_after_s=refuse.retry_after_s,
        )
        more = list(headers)
        if answer.retry_after_s:
            more.append(("Retry-After", str(answer.retry_after_s)))
        if call.is_trunk:
            # RFC 3326, to trusted peers only: others must not learn which limit it was.
            text = f"{refuse.reason.value}: {refuse.rule} {refuse.window}".strip()
            more.append(("Reason", f'SIP;cause={answer.status};text="{_quotable(text)}"'))
        if decided_here:
            context.note_refusal(
                refuse,
                request_method="INVITE",
                call_id=call.call_id,
                traceparent=call.traceparent,
                source=call.source.host,
                account_id=call.account_id,
                passed=passed,
                rules=call.rules,
            )
        if event is None:
            event = CallEvent.FAILED if call.state in IN_SETUP else CallEvent.REFUSED
        self.fail(call, answer.status, f"refused-{refuse.reason.value}", answer.text or None, more, event=event)

    def end(self, call: EdgeCall, event: CallEvent, why: str, status: int) -> None:
        """The caller has its final answer. The call is over, unless call-admission still owes its own."""
        before = call.state
        after = call.step(event)
        call.server = None
        call.best = None
        if before is not CallState.ABANDONED:
            self._context.stats.calls_failed += 1
        if after is CallState.ABANDONED:
            return
        if before in MAY_HOLD and event is not CallEvent.REFUSED:
            self._notify_end(call, why, status)
        self._calls.close(call)

    def _notify_end(self, call: EdgeCall, why: str, status: int) -> None:
        context = self._context
        context.effects.append(
            CallEnded(
                call.hold_id,
                call.call_id,
                call.account_id,
                0.0,
                context.unix_s,
                why,
                status,
                call.trunk,
                call.traceparent,
                call.destination,
                call.caller_number,
                call.source.host,
                call.is_local,
            )
        )


def _quotable(text: str) -> str:
    return "".join(char for char in text if char.isprintable() and char not in '"\\')[:128]
