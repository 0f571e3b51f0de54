"""An answered call: talk time is asked for ahead in slices, the call is cut when no more is granted.

In: the clock of a call. Out: how it is set up (`call_setup`), requests inside it (`relay`), the BYEs (`termination`).
"""

from typing import NamedTuple

from callwarden.edge_proxy.core import dialogs, termination
from callwarden.edge_proxy.core.call import CallSide, EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.call_states import TALKING, CallEvent, CallState, GrantEvent, GrantState
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.effects import (
    CallEnded,
    CallExtended,
    CallRefused,
    CallStarted,
    ExtendCall,
    ForgetRecord,
    StoreRecord,
    Unanswered,
)
from callwarden.edge_proxy.core.records import DialogRecord, call_of, record_of
from callwarden.limits.bucket import Rate, TokenBucket
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Response
from callwarden.sip.transaction import ClientTransaction, TooManyTransactions

EXTEND_MARGIN_S = 2.0  # Time for a question, a failover to another pod and a second question; half a shorter slice.
EXTEND_SHARE = 0.1  # Of what is granted: of long slices more, so that a restart of call-admission goes unnoticed.
EXTEND_MARGIN_MAX_S = 10.0
ASK_AGAIN_S = 1.0  # While call-admission can't be reached.
RECORD_AFTER_S = 3.0  # Most calls that are only tried are over by then, and cost nothing.
# A record takes 150 µs; beyond this rate calls get theirs a second later.
RECORDS = Rate(per_second=200, burst=200)
RECORD_MARGIN_S = 60.0


class AwaitingExtension(NamedTuple):
    """Asked of call-admission: more talk time for this call."""

    call: EdgeCall


class ActiveCalls:
    """Runs answered calls. Holds no state but what it shares."""

    def __init__(self, context: Context, calls: EdgeCalls) -> None:
        self._context = context
        self._calls = calls
        self._records = TokenBucket()

    # Begin.

    def answered(self, call: EdgeCall, response: Response) -> None:
        """A 2xx of the call's branch; the first one starts the clock, the others are passed on only."""
        context = self._context
        server = call.server
        is_first = call.state not in TALKING
        call.step(CallEvent.ANSWERED)
        if is_first:
            assert server is not None
            target = call.target
            assert target is not None
            invite = server.request
            call.answered_mono_s, call.answered_unix_s = context.mono_s, context.unix_s
            call.invite_bytes = dialogs.skeleton(f"INVITE {invite.uri_text} SIP/2.0", invite)
            call.answer_bytes = dialogs.skeleton("SIP/2.0 200 OK", response)
            call.caller = CallSide(call.source, not call.is_trunk, invite.cseq.number)
            call.callee = CallSide(target.address, target.is_phone, 0)
            self._find_trunk_hops(call, response)
            call.targets, call.best = [], None
            context.stats.calls_answered += 1
            context.effects.append(
                CallStarted(call.hold_id, call.call_id, call.account_id, context.unix_s, call.trunk, call.traceparent)
            )
            self._set_alarm(call)
        if server is not None:
            response.pop_via()
            context.respond(server, response)

    def _find_trunk_hops(self, call: EdgeCall, response: Response) -> None:
        """A switch may want the rest of a dialog at another address than its INVITE: that of its route or Contact."""
        assert call.caller is not None
        assert call.callee is not None
        assert call.server is not None
        try:
            if not call.callee.is_phone:
                contact = response.contacts[0].uri if response.contacts else None
                if hop := dialogs.next_hop(dialogs.routes_beyond(response), contact):
                    call.callee.address = hop
            if not call.caller.is_phone:
                invite = call.server.request
                contact = invite.contacts[0].uri if invite.contacts else None
                if hop := dialogs.next_hop([route.uri for route in invite.record_routes], contact):
                    call.caller.address = hop
        except Malformed:
            return  # where the INVITE went, or came from, is as good a guess

    def refuse_late(self, call: EdgeCall, branch: ClientTransaction, response: Response) -> None:
        """A 2xx of a branch that was given up: no one but the edge can end that call."""
        context = self._context
        if isinstance(branch.context, termination.LateAnswer):
            branch.context.again(context)
            return
        if branch is call.branch and call.answered_mono_s:
            return  # the call was answered and is over; its 200 comes once more
        try:
            branch.context = termination.LateAnswer(context, response, branch.peer)
        except (Malformed, TooManyTransactions):
            return  # the callee repeats its 200 for half a minute and then gives up by itself

    # Go on.

    def alarm(self, call: EdgeCall) -> None:
        """A moment has come that `_set_alarm` chose."""
        context = self._context
        mono_s = context.mono_s
        if mono_s >= call.admitted_mono_s + call.rules.absolute_timeout_s:
            self.cut(call, "cut-absolute")
        elif mono_s >= self._cut_at_s(call):
            if call.granted_s >= call.max_s:
                self.cut(call, "cut-duration")
            else:
                self.cut(call, f"cut-{call.final_reason}" if call.grant is GrantState.FINAL else "cut-unavailable")
        else:
            if call.grant is GrantState.OPEN and self._wants_more(call) and mono_s >= self._extend_at_s(call):
                self._extend(call)
            if call.state is CallState.ANSWERED and mono_s >= call.answered_mono_s + RECORD_AFTER_S:
                self._record(call)
            self._set_alarm(call)

    def _extend(self, call: EdgeCall, known_s: int | None = None) -> None:
        call.step_grant(GrantEvent.ASK)
        granted_s = call.granted_s if known_s is None else known_s
        question = ExtendCall(
            call.hold_id, call.account_id, call.answered_unix_s, granted_s, call.call_id, call.traceparent
        )
        self._context.ask(question, AwaitingExtension(call))

    def extended(self, waiting: AwaitingExtension, answer: CallExtended | CallRefused | Unanswered) -> None:
        """The answer to a question for more talk time."""
        call = waiting.call
        if call.is_ended:
            return
        if isinstance(answer, CallRefused):
            call.step_grant(GrantEvent.LAST)
            call.final_reason = answer.refuse.reason.value
        elif isinstance(answer, CallExtended) and (answer.final or answer.granted_s > call.granted_s):
            # Never backwards: an answer to a question asked twice may be old.
            call.granted_s = max(call.granted_s, answer.granted_s)
            call.step_grant(GrantEvent.LAST if answer.final else GrantEvent.GRANTED)
        else:
            call.step_grant(GrantEvent.UNANSWERED)
            self._calls.wheel.set(call, min(self._context.mono_s + ASK_AGAIN_S, self._cut_at_s(call)))
            return
        self._set_alarm(call)

    def _record(self, call: EdgeCall) -> None:
        """Have the call known beyond this process, which may die."""
        context = self._context
        if self._records.take(RECORDS, context.mono_s):
            return
        call.step(CallEvent.RECORD)
        record = record_of(call)
        if record is not None:
            left_s = call.answered_mono_s + call.max_s - context.mono_s
            context.effects.append(StoreRecord(record, left_s + RECORD_MARGIN_S))

    def adopt(self, record: DialogRecord) -> None:
        """Go on with a call whose edge died: what it may still talk is asked for at once."""
        context = self._context
        if self._calls.get(record.hold_id) is not None or self._calls.was_closed(record.hold_id):
            return
        call = call_of(record, context.book.default, context.new_traceparent(), context.mono_s, context.unix_s)
        self._calls.add(call)
        context.stats.calls_adopted += 1
        if self._wants_more(call):
            # Its slice may have ended while no edge watched: the question decides, and the grace runs from now.
            call.granted_s = max(call.granted_s, int(context.mono_s - call.answered_mono_s))
            self._extend(call, record.granted_s)
        self._set_alarm(call)

    def _wants_more(self, call: EdgeCall) -> bool:
        return call.grant is not GrantState.FINAL and call.granted_s < call.max_s

    def _extend_at_s(self, call: EdgeCall) -> float:
        granted_s = call.granted_s
        margin_s = min(max(EXTEND_MARGIN_S, EXTEND_SHARE * granted_s), EXTEND_MARGIN_MAX_S, granted_s / 2)
        return call.answered_mono_s + granted_s - margin_s

    def _cut_at_s(self, call: EdgeCall) -> float:
        granted_s = min(call.granted_s, call.max_s)
        # While call-admission is unreachable, the call goes on for the policy's grace, which is never charged.
        grace_s = call.rules.grace_s if self._wants_more(call) else 0
        return call.answered_mono_s + granted_s + grace_s

    def _set_alarm(self, call: EdgeCall) -> None:
        at_s = self._cut_at_s(call)
        if call.grant is GrantState.OPEN and self._wants_more(call):
            at_s = min(at_s, self._extend_at_s(call))
        if call.state is CallState.ANSWERED:
            at_s = min(at_s, max(call.answered_mono_s + RECORD_AFTER_S, self._context.mono_s + ASK_AGAIN_S))
        self._calls.wheel.set(call, min(at_s, call.admitted_mono_s + call.rules.absolute_timeout_s))

    # End.

    def cut(self, call: EdgeCall, why: str) -> None:
        """End a running call from the middle: BYE to both sides."""
        context = self._context
        context.stats.calls_cut += 1
        termination.send_byes(context, call)
        self._end(call, CallEvent.CUT, why, context.unix_s)

    def hung_up(self, call: EdgeCall, why: str, ended_at_s: float) -> None:
        """A side hung up. A second end of the same call changes nothing."""
        self._end(call, CallEvent.HUNG_UP, why, ended_at_s)

    def _end(self, call: EdgeCall, event: CallEvent, why: str, ended_at_s: float) -> None:
        context = self._context
        before = call.state
        call.step(event)
        if before not in TALKING:
            return
        context.effects.append(
            CallEnded(
                call.hold_id,
                call.call_id,
                call.account_id,
                call.answered_unix_s,
                max(ended_at_s, call.answered_unix_s),
                why,
                0,
                call.trunk,
                call.traceparent,
                call.destination,
                call.caller_number,
                call.source.host,
                call.is_local,
            )
        )
        if before is CallState.RECORDED:
            context.effects.append(ForgetRecord(call.hold_id))
        self._calls.close(call)
        call.server = None
        call.dialogs = None
        call.invite_bytes = call.answer_bytes = b""
        call.caller = call.callee = None
