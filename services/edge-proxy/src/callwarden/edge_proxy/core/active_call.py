"""An answered call: talk time is asked for ahead in slices, the call is cut when no more is granted.

In: the clock of a call. Out: how it is set up (`call_setup`), requests inside it (`relay`), the BYEs (`termination`).
"""

from typing import NamedTuple, TypeGuard

from callwarden.edge_proxy.core import cookie, dialogs, forwarding, tags, termination
from callwarden.edge_proxy.core.call import CallSide, EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.call_states import TALKING, CallEvent, CallState, GrantEvent, GrantState
from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.effects import (
    CallEnded,
    CallExtended,
    CallNews,
    CallRefused,
    CallStarted,
    ExtendCall,
    ForgetRecord,
    NewsKind,
    StoreRecord,
    Unanswered,
)
from callwarden.edge_proxy.core.records import DialogRecord, call_of, record_of
from callwarden.edge_proxy.core.sources import Sources
from callwarden.limits.bucket import Rate, TokenBucket
from callwarden.sip.address import Endpoint, SocketAddress
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
ACK_TIMEOUT_S = 32.0  # RFC 3261 13.3.1.4: 64 × T1.
REPEAT_S = 12.0  # Until its ACK comes the callee repeats its 2xx each T2 (4 s) at least; two may be lost.
NEWS_LATE_S = 2.0  # What edges tell each other comes within milliseconds.
FORKS_MAX = 16  # Answers of one INVITE that are ended one by one; no proxy forks to more phones.


class AwaitingExtension(NamedTuple):
    """Asked of call-admission: more talk time for this call."""

    call: EdgeCall


class ActiveCalls:
    """Runs answered calls. Holds no state but what it shares."""

    def __init__(self, context: Context, calls: EdgeCalls, sources: Sources) -> None:
        self._context = context
        self._calls = calls
        self._sources = sources
        self._records = TokenBucket()

    # Begin.

    def answered(self, call: EdgeCall, response: Response) -> None:
        """A 2xx of the call's branch: the first one starts the clock and is passed on whenever it comes.

        Those of other dialogs, where the INVITE was forked, are ended at once (RFC 3261 13.2.2.4).
        """
        context = self._context
        server = call.server
        is_first = call.state not in TALKING
        tag = tags.to_tag(response) or ""
        if not is_first and tag != call.callee_tag:
            self._end_fork(call, tag, response)
            return
        call.step(CallEvent.ANSWERED)
        call.repeated_mono_s = context.mono_s
        if is_first:
            assert server is not None
            invite = server.request
            call.answered_mono_s, call.answered_unix_s = context.mono_s, context.unix_s
            call.invite_bytes = dialogs.skeleton(f"INVITE {invite.uri_text} SIP/2.0", invite)
            call.answer_bytes = dialogs.skeleton("SIP/2.0 200 OK", response)
            call.callee_tag = tag
            call.record_routes = invite.get_all("record-route")
            self._find_trunk_hops(call, response)
            self._calls.give_caller_cookie(call, call.early.get(tag) or self.caller_cookie(call, tag))
            self._calls.answered(call)
            self._start_session(call, response)
            call.probe_at_mono_s = context.mono_s + call.rules.probe_s
            call.targets, call.best, call.early = [], None, {}
            context.stats.calls_answered += 1
            context.effects.append(
                CallStarted(call.hold_id, call.call_id, call.account_id, context.unix_s, call.trunk, call.traceparent)
            )
            self._set_alarm(call)
        if server is not None:
            assert call.target is not None
            if call.target.is_phone:
                forwarding.clean_identity(response)
            response.pop_via()
            self._put_cookie(call, response, call.caller_cookie)
            context.respond(server, response)

    def progressed(self, call: EdgeCall, response: Response) -> None:
        """A provisional answer is passed on; one with a tag makes an early dialog (RFC 3261 12.1)."""
        tag = tags.to_tag(response)
        if tag is not None:
            text = call.early.get(tag)
            if text is None:
                text = self.caller_cookie(call, tag)
                if len(call.early) < FORKS_MAX:
                    call.early[tag] = text
            dialogs.put_cookie(response, call.cookie, text)
        assert call.server is not None
        if call.target is not None and call.target.is_phone:
            forwarding.clean_identity(response)
        response.pop_via()
        self._context.respond(call.server, response)

    def caller_cookie(self, call: EdgeCall, callee_tag: str) -> str:
        """The caller's cookie of this dialog. It knows where the callee answered from, if that was known by name."""
        context = self._context
        text, target, source = call.cookie, call.target, context.source
        assert target is not None
        if source is not None and not isinstance(target.address, SocketAddress):
            expires_s = context.unix_s + call.rules.absolute_timeout_s + cookie.MARGIN_S
            text = cookie.issue(
                context.keys,
                call.hold_id,
                expires_s,
                call.call_id,
                call.caller_tag,
                caller=call.source,
                callee=source,
                account_id=call.account_id,
                attempt=call.attempt,
            )
        return cookie.for_caller(context.keys, text, call.call_id, call.caller_tag, callee_tag)

    def _put_cookie(self, call: EdgeCall, response: Response, text: str) -> None:
        """The caller's own cookie in place of the callee's; again, if the callee has dropped it.

        A callee that leaves Record-Route out (RFC 3261 12.1.1 forbids it, SIPp does it) would have the caller's BYE go
        by us.
        """
        if dialogs.put_cookie(response, call.cookie, text):
            return
        response.remove("record-route")
        response.add("Record-Route", f"<sip:{self._context.proxy.address};lr;{cookie.PARAMETER}={text}>")
        for route in call.record_routes:
            response.add("Record-Route", route)

    def _end_fork(self, call: EdgeCall, tag: str, response: Response) -> None:
        if call.forks is None:
            call.forks = {}
        known = call.forks.get(tag)
        if known is not None:
            known.again(self._context)
        elif len(call.forks) < FORKS_MAX and call.branch is not None:
            call.forks[tag] = self._late(call, call.branch, response)

    def _late(self, call: EdgeCall, branch: ClientTransaction, response: Response) -> termination.LateAnswer:
        target = call.target if branch is call.branch else None
        uri = f"sip:{branch.peer.address}" if target is None else target.uri
        return termination.LateAnswer(self._context, response, branch.peer, uri)

    def _start_session(self, call: EdgeCall, response: Response) -> None:
        """How long the session lasts if nobody refreshes it (RFC 4028 7.2); no header: for ever."""
        call.session_s = dialogs.session_s_of(response)
        call.session_ends_mono_s = self._context.mono_s + call.session_s

    def refreshed(self, call: EdgeCall, session_s: int) -> None:
        """A 2xx to a re-INVITE or an UPDATE, here or at another edge."""
        if call.state not in TALKING:
            return
        before_s = call.session_s
        call.session_s, call.session_ends_mono_s = session_s, self._context.mono_s + session_s
        if call.session_s or before_s:
            self._set_alarm(call)

    def _find_trunk_hops(self, call: EdgeCall, response: Response) -> None:
        """A switch may want the rest of a dialog at another address than its INVITE: that of its route or Contact.

        It may have what it has shown to be its own, or what is known as the same trunk's: no other host, and no name.
        """
        assert call.caller is not None
        assert call.callee is not None
        assert call.server is not None
        source = self._context.source
        if source is not None and not call.callee.is_phone:
            if source.host not in call.callee.hosts:
                call.callee.hosts += (source.host,)
            if not isinstance(call.callee.address, SocketAddress):
                call.callee.address = source  # known by name so far
        try:
            if not call.callee.is_phone:
                contact = response.contacts[0].uri if response.contacts else None
                hop = dialogs.next_hop(dialogs.routes_beyond(response), contact)
                if self._is_its_own(hop, call.callee):
                    call.callee.address = hop
            if not call.caller.is_phone:
                invite = call.server.request
                contact = invite.contacts[0].uri if invite.contacts else None
                hop = dialogs.next_hop([route.uri for route in invite.record_routes], contact)
                if self._is_its_own(hop, call.caller):
                    call.caller.address = hop
        except Malformed:
            return  # where the INVITE went, or came from, is as good a guess

    def _is_its_own(self, hop: Endpoint | None, side: CallSide) -> TypeGuard[SocketAddress]:
        return isinstance(hop, SocketAddress) and (
            hop.host in side.hosts
            or self._sources.is_of(hop.host, side.trunk)
            or self._context.is_carriers(hop.host, side.trunk)
        )

    def refuse_late(self, call: EdgeCall, branch: ClientTransaction, response: Response) -> None:
        """A 2xx of a branch that was given up, or of a call that is over: no one but the edge can end that dialog."""
        if branch is call.branch and call.answered_mono_s:
            tag = tags.to_tag(response) or ""
            if tag != call.callee_tag:  # else its 200 comes once more
                self._end_fork(call, tag, response)
            return
        branch.context = self._late(call, branch, response)

    # Go on.

    def alarm(self, call: EdgeCall) -> None:
        """A moment has come that `_set_alarm` chose."""
        context = self._context
        mono_s = context.mono_s
        if mono_s >= call.admitted_mono_s + call.rules.absolute_timeout_s:
            self.cut(call, "cut-absolute")
        elif not call.is_acknowledged and mono_s >= call.answered_mono_s + ACK_TIMEOUT_S:
            if self._heard_since(call.answered_mono_s) or mono_s - call.repeated_mono_s < REPEAT_S:
                self.cut(call, "cut-no-ack")
            else:
                call.is_acknowledged = True  # another edge may have passed it on: the callee has stopped asking for it
                self._set_alarm(call)
        elif call.session_s and mono_s >= call.session_ends_mono_s:
            if self._heard_since(call.session_ends_mono_s - call.session_s):
                self.cut(call, "cut-session-expired")
            else:
                self.refreshed(call, call.session_s)  # maybe, by another edge; whether a side is gone probes find out
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
            if call.rules.probe_s and mono_s >= call.probe_at_mono_s:
                self._probe(call)
            self._set_alarm(call)

    def _heard_since(self, since_s: float) -> bool:
        """Whether other edges could be heard all the time since then."""
        return self._context.apart_mono_s < since_s

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
        if call.is_over:
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
        self._store(call)

    def _store(self, call: EdgeCall) -> None:
        stored = self.record(call)
        if stored is not None:
            self._context.effects.append(stored)

    def record(self, call: EdgeCall) -> StoreRecord | None:
        """What another edge needs to go on with a running call; None where none could."""
        record = record_of(call)
        if record is None:
            return None
        left_s = call.answered_mono_s + call.max_s - self._context.mono_s
        return StoreRecord(record, left_s + RECORD_MARGIN_S)

    def adopt(self, record: DialogRecord) -> None:
        """Go on with a call whose edge died: what it may still talk is asked for at once."""
        context = self._context
        if self._calls.get(record.hold_id) is not None or self._calls.was_closed(record.hold_id):
            return
        call = call_of(record, context.book.default, context.new_traceparent(), context.mono_s, context.unix_s)
        self._calls.add(call)
        self._calls.answered(call)
        call.probe_at_mono_s = context.mono_s + call.rules.probe_s
        context.stats.calls_adopted += 1
        if self._wants_more(call):
            # Its slice may have ended while no edge watched: the question decides, and the grace runs from now.
            call.granted_s = max(call.granted_s, int(context.mono_s - call.answered_mono_s))
            self._extend(call, record.granted_s)
        self._set_alarm(call)

    def changed(self, call: EdgeCall) -> None:
        """A leg is somewhere else: who would go on with the call needs to know."""
        if call.state is CallState.RECORDED:
            self._store(call)

    def take_over(self, call: EdgeCall) -> None:
        """Go on with a call that another edge watches, of its record: to end it here."""
        call.is_elsewhere = False
        self._calls.add(call)
        self._calls.answered(call)

    def heard(self, news: CallNews) -> None:
        """Another edge tells of a call that may be ours."""
        call = self._calls.get(news.hold_id)
        if call is None or call.state not in TALKING:
            return
        if news.kind is NewsKind.ACKNOWLEDGED:
            call.is_acknowledged = True
        elif news.kind is NewsKind.REFRESHED:
            self.refreshed(call, news.session_s)
        elif news.kind is NewsKind.ENDED:
            why = "caller-bye" if news.from_caller else "callee-bye"
            mono_s = self._context.mono_s
            self._hung_up(call, why, begun_mono_s=mono_s - news.age_s - NEWS_LATE_S, ended_mono_s=mono_s)
        elif news.address is not None and (side := call.caller if news.from_caller else call.callee) is not None:
            side.hosts, side.address = (news.address.host,), news.address
            self.changed(call)

    def _probe(self, call: EdgeCall) -> None:
        """Ask both sides whether they know the call: one may have ended it by a way that isn't ours."""
        call.probe_at_mono_s = self._context.mono_s + call.rules.probe_s
        try:
            termination.send_probes(self._context, call)
        except TooManyTransactions:
            return  # it is asked again the next time

    def probed(self, call: EdgeCall, status: int) -> None:
        """A side's answer to a probe; 408 is none."""
        if status in (408, 481):
            self.cut(call, "cut-gone")

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
        if not call.is_acknowledged:
            at_s = min(at_s, call.answered_mono_s + ACK_TIMEOUT_S)
        if call.session_s:
            at_s = min(at_s, call.session_ends_mono_s)
        if call.rules.probe_s:
            at_s = min(at_s, call.probe_at_mono_s)
        self._calls.wheel.set(call, min(at_s, call.admitted_mono_s + call.rules.absolute_timeout_s))

    # End.

    def cut(self, call: EdgeCall, why: str) -> None:
        """End a running call from the middle: BYE to both sides. One that is over stays as it is."""
        context = self._context
        if call.state not in TALKING:
            return
        context.stats.calls_cut += 1
        self._end(call, CallEvent.CUT, why, context.mono_s)

    def hung_up(self, call: EdgeCall, why: str, ended_mono_s: float) -> None:
        """A side hung up at that moment, and the other one has accepted it.

        In an early dialog the answer to the INVITE decides (RFC 3261 15.1.1); a second end of a call changes nothing.
        """
        if call.state in TALKING:
            self._hung_up(call, why, begun_mono_s=ended_mono_s, ended_mono_s=ended_mono_s)

    def _hung_up(self, call: EdgeCall, why: str, *, begun_mono_s: float, ended_mono_s: float) -> None:
        if begun_mono_s < call.answered_mono_s:
            # The BYE came while it rang. Who accepted it and answers the INVITE all the same may believe in the call.
            self._end(call, CallEvent.CUT, why, self._context.mono_s)
        else:
            self._end(call, CallEvent.HUNG_UP, why, ended_mono_s)

    def _end(self, call: EdgeCall, event: CallEvent, why: str, ended_mono_s: float) -> None:
        context = self._context
        # The monotonic clock says how long the talk was. The wall clock, which may have been set meanwhile, only says
        # when it began (DESIGN D15).
        talk_s = max(ended_mono_s - call.answered_mono_s, 0.0)
        before = call.state
        call.step(event)
        if event is CallEvent.CUT:
            termination.send_byes(context, call)
        context.effects.append(
            CallEnded(
                call.hold_id,
                call.call_id,
                call.account_id,
                call.answered_unix_s,
                call.answered_unix_s + talk_s,
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
        if call.state is CallState.ENDED:
            call.caller = call.callee = None
