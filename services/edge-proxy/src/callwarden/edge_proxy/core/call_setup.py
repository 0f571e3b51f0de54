"""From an INVITE to its final answer: who is it, may it, to whom, and what comes back (RFC 3261 16).

In: new INVITEs outside a dialog. Out: the call once it is answered (`active_call`), requests inside it (`relay`).
"""

from typing import NamedTuple
from uuid import UUID

from callwarden.edge_proxy.core import callers, cookie, forwarding, tags, validation
from callwarden.edge_proxy.core.active_call import ActiveCalls
from callwarden.edge_proxy.core.call import CallSide, EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.call_failure import CallFailures
from callwarden.edge_proxy.core.call_states import CANCELLABLE, IN_SETUP, OVER, CallEvent, CallState, GrantEvent
from callwarden.edge_proxy.core.challenge import Challenger, CredentialsFault
from callwarden.edge_proxy.core.context import Context, Intake, unavailable
from callwarden.edge_proxy.core.duplicates import Duplicates, hold_id_of
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    CallAdmitted,
    CallerIdentity,
    CallPlacedElsewhere,
    CallRefused,
    Rejected,
    Unanswered,
    VerifyDigest,
    VerifySource,
)
from callwarden.edge_proxy.core.locations import Locations
from callwarden.edge_proxy.core.sources import Sources, SourceStep
from callwarden.edge_proxy.core.statuses import OVERLOAD_RETRY_S
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.digest import Credentials
from callwarden.sip.message import Request, Response
from callwarden.sip.transaction import ClientTransaction, Peer, TooManyTransactions

_PASSED_AUTH = ("banned", "rate", "scanner", "credentials")
_PASSED_SOURCE = ("banned", "rate", "scanner", "trunk-address")

_ADMISSION_EVENTS: dict[type, CallEvent] = {
    CallAdmitted: CallEvent.ADMITTED,
    CallRefused: CallEvent.REFUSED,
    Unanswered: CallEvent.UNANSWERED,
}


class AwaitingIdentity(NamedTuple):
    """Asked of auth: whose credentials this call has."""

    call: EdgeCall
    username: str
    port: int


class AwaitingSource(NamedTuple):
    """Asked of auth: whose address this INVITE came from."""

    request: Request
    source: SocketAddress


class AwaitingAdmission(NamedTuple):
    """Asked of call-admission: whether this call may be placed."""

    call: EdgeCall


class CallSetup:
    """Sets calls up. Holds no state but what it shares."""

    def __init__(
        self,
        context: Context,
        calls: EdgeCalls,
        locations: Locations,
        challenger: Challenger,
        sources: Sources,
        active_calls: ActiveCalls,
        duplicates: Duplicates,
    ) -> None:
        self._context = context
        self._calls = calls
        self._locations = locations
        self._challenger = challenger
        self._sources = sources
        self._active_calls = active_calls
        self._duplicates = duplicates
        self._failures = CallFailures(context, calls)

    # Who is it.

    def invite(self, request: Request, source: SocketAddress) -> None:
        """A new INVITE. Without good credentials it costs no memory."""
        context = self._context
        if self._duplicates.find(request, source) is not None:
            return  # it is answered from there
        fault = validation.check(request, context.proxy.address) or validation.check_dialog(request)
        if fault is not None:
            context.counters.wrong(source.host, context.mono_s)
            context.answer_stateless(request, source, fault.status, fault.reason, fault.headers)
            return
        if context.intake is Intake.IGNORED:
            return
        if context.intake is Intake.REFUSED or self._calls.is_full:
            context.stats.unavailable += 1
            context.answer_stateless(request, source, 503, None, [("Retry-After", str(OVERLOAD_RETRY_S))])
            return
        rules = context.book.for_realm(context.proxy.realm_of(request.uri) or "")
        found = self._challenger.examine(request, "proxy-authorization", rules, source.host, context.unix_s)
        if isinstance(found, Credentials):
            call = self._accept(request, source, found.realm)
            if call is not None:
                called, realm = callers.called_user(request, context.proxy)
                is_registered = self._locations.is_at_home(found.realm, found.user, source.host)
                question = VerifyDigest(
                    found, "INVITE", source.host, call.call_id, call.traceparent, called, is_registered, realm
                )
                context.ask(question, AwaitingIdentity(call, found.user, source.port))
        elif found is CredentialsFault.NONE and self._may_be_trunk(source):
            self._ask_source(request, source)
        else:
            self._challenger.count(found, context, request, rules, source)
            self._challenge(request, source, stale=found is CredentialsFault.STALE)

    def _challenge(self, request: Request, source: SocketAddress, *, stale: bool) -> None:
        context = self._context
        context.stats.challenges += 1
        context.counters.challenged(source.host, source.port, "", context.mono_s)
        realm = self._realm(request)
        rules = context.book.for_realm(realm)
        headers = self._challenger.headers(
            "Proxy-Authenticate", realm, rules, request, source.host, context.unix_s, stale=stale
        )
        context.answer_stateless(request, source, 407, None, headers)

    def _accept(self, request: Request, source: SocketAddress, realm: str) -> EdgeCall | None:
        """Make a transaction and a call of the INVITE, and answer 100. None: that was done, or there is no room."""
        context = self._context
        hold_id = hold_id_of(request, source) or context.new_id()
        if self._calls.get(hold_id) is not None:
            return None  # it comes once more, when its transaction is over and its call goes on
        peer = context.reply_peer(request, source)
        try:
            server = context.layer.accept(request, peer, context.mono_s)
        except TooManyTransactions:
            context.stats.unavailable += 1
            context.answer_stateless(request, source, 503, None, [("Retry-After", str(OVERLOAD_RETRY_S))])
            return None
        context.respond(server, build.response(request, 100))
        call = EdgeCall(
            hold_id,
            request.call_id,
            context.new_traceparent(),
            server,
            source,
            context.book.for_realm(realm),
        )
        server.context = call
        call.caller_tag = tags.from_tag(request) or ""
        self._calls.add(call)
        context.stats.calls_started += 1
        return call

    def verified(self, waiting: AwaitingIdentity, answer: CallerIdentity | Rejected | Unanswered) -> None:
        """auth's answer: whose credentials they are."""
        context = self._context
        call, username, port = waiting
        if call.is_over:
            return
        host = call.source.host
        if isinstance(answer, CallerIdentity):
            context.counters.succeeded(host, port, username, context.mono_s)
            self._identified(call, answer, username, _PASSED_AUTH)
        elif isinstance(answer, Rejected):
            context.counters.failed(host, port, username, context.mono_s)
            if answer.reason is Reason.CREDENTIALS:
                # Asked again, as RFC 3261 22.1 has it; the guess is counted.
                refuse = Refuse(answer.reason, "credentials", text="wrong credentials")
                headers = self._challenger.headers(
                    "Proxy-Authenticate",
                    self._realm(call.request),
                    call.rules,
                    call.request,
                    host,
                    context.unix_s,
                    stale=False,
                )
                self._failures.refuse(call, refuse, _PASSED_AUTH[:-1], headers=headers)
            else:
                self._failures.refuse(call, Refuse(answer.reason, "credentials"), _PASSED_AUTH[:-1])
        else:
            self._failures.refuse(call, unavailable("auth", overloaded=answer.overloaded), _PASSED_AUTH[:-1])

    def _realm(self, request: Request) -> str:
        """The caller's; an anonymous one's is that of whom it calls."""
        proxy = self._context.proxy
        return proxy.realm_of(request.from_.uri) or proxy.realm_of(request.uri) or proxy.realms[0]

    # Trunks, known by their address.

    def _may_be_trunk(self, source: SocketAddress) -> bool:
        """Not the phone that registered from there, and not what auth doesn't know."""
        if self._locations.is_endpoint(source):
            return False
        return self._sources.may_ask(source.host, self._context.mono_s)

    def _ask_source(self, request: Request, source: SocketAddress) -> None:
        """Ask auth whose address it is: of strangers only now and then; until the answer they have no transaction."""
        context = self._context
        match self._sources.begin(source.host, (request, source), context.mono_s):
            case SourceStep.ASK:
                called, realm = callers.called_user(request, context.proxy)
                question = VerifySource(source.host, called, request.call_id, context.new_traceparent(), realm)
                context.ask(question, AwaitingSource(request, source))
            case SourceStep.REFUSE:
                self._challenge(request, source, stale=False)
            case SourceStep.WAIT:
                pass

    def source_found(self, first: AwaitingSource, answer: CallerIdentity | Rejected | Unanswered) -> None:
        """auth's answer: whose address it is."""
        context = self._context
        request, source = first
        is_trunk = isinstance(answer, CallerIdentity)
        name = answer.trunk if isinstance(answer, CallerIdentity) else ""
        waiting = self._sources.end(source.host, None if isinstance(answer, Unanswered) else name, context.mono_s)
        if isinstance(answer, CallerIdentity):
            # Sent again while we asked, it has a transaction by now.
            call = self._accept(request, source, context.proxy.realms[0])
            if call is not None:
                self._identified(call, answer, "", _PASSED_SOURCE)
        else:
            # With auth dead, too: a phone hears of it with its next INVITE.
            self._challenge(request, source, stale=False)
        for other, its_source in waiting:
            if is_trunk:
                self._ask_source(other, its_source)
            else:
                self._challenge(other, its_source, stale=False)

    # May it.

    def _identified(self, call: EdgeCall, identity: CallerIdentity, username: str, passed: tuple[str, ...]) -> None:
        context = self._context
        request = call.request
        call.account_id = identity.account_id
        call.is_trunk = identity.is_trunk
        number = callers.caller_number(request, identity, username, context.proxy)
        if isinstance(number, Refuse):
            self._failures.refuse(call, number, passed)
            return
        call.caller_number = number
        called = callers.called_party(request, identity, context.proxy, self._locations, context.unix_s)
        if isinstance(called, Refuse):
            self._failures.refuse(call, called, (*passed, "caller-id"))
            return
        call.destination, call.is_local = called.destination, called.local
        call.caller_trunk = identity.trunk
        call.targets = list(called.targets)
        call.step(CallEvent.IDENTIFIED)
        question = AdmitCall(
            hold_id=call.hold_id,
            account_id=identity.account_id,
            destination=called.destination,
            dialled=called.dialled,
            caller_number=number,
            source=call.source.host,
            local=called.local,
            at_s=context.unix_s,
            call_id=call.call_id,
            traceparent=call.traceparent,
            trunk=identity.trunk,
        )
        context.ask(question, AwaitingAdmission(call))

    def decided(
        self, waiting: AwaitingAdmission, answer: CallAdmitted | CallRefused | CallPlacedElsewhere | Unanswered
    ) -> None:
        """call-admission's answer."""
        context = self._context
        call = waiting.call
        if isinstance(answer, CallPlacedElsewhere):
            self._duplicates.leave(call)
            return
        if call.state is CallState.ABANDONED:
            # Its end is notified only now: one that came before its hold would be lost.
            self._failures.end(call, _ADMISSION_EVENTS[type(answer)], "cancelled", 487)
            return
        passed = (*(_PASSED_SOURCE if call.is_trunk else _PASSED_AUTH), "caller-id", "called")
        if isinstance(answer, Unanswered):
            # There may be a hold all the same: its end is notified, and it expires by itself if that comes too early.
            refuse = unavailable("call-admission", overloaded=answer.overloaded)
            self._failures.refuse(call, refuse, passed, event=CallEvent.UNANSWERED)
            return
        if isinstance(answer, CallRefused):
            self._failures.refuse(call, answer.refuse, passed, wanted=answer.sip_status, decided_here=False)
            return
        call.targets += [callers.trunk_target(call.destination, route) for route in answer.routes]
        for target in call.targets:
            if target.trunk:
                context.note_carrier(target.address.host, target.trunk)
        call.step(CallEvent.ADMITTED)
        call.admitted_mono_s = context.mono_s
        call.granted_s = answer.granted_s
        if answer.final:
            call.step_grant(GrantEvent.LAST)
        call.max_s = min(answer.max_duration_s or call.rules.call_timeout_s, call.rules.call_timeout_s)
        self._try_next(call)

    # To whom.

    def _try_next(self, call: EdgeCall) -> None:
        """The next target, or the end of the call with the best answer there was."""
        context = self._context
        rules = call.rules
        if call.state is CallState.CANCELLING:
            self._failures.fail(call, 487, "cancelled")
            return
        # What the hold was made for.
        deadline_s = call.admitted_mono_s + rules.ring_timeout_s + rules.call_init_timeout_s
        if not call.targets or context.mono_s >= deadline_s:
            self._give_up(call)
            return
        call.target = target = call.targets.pop(0)
        call.attempt += 1
        text = cookie.issue(
            context.keys,
            call.hold_id,
            context.unix_s + rules.absolute_timeout_s + cookie.MARGIN_S,
            call.call_id,
            call.caller_tag,
            caller=call.source,
            callee=target.address,
            account_id=call.account_id,
            attempt=call.attempt,
        )
        self._calls.give_cookie(call, text)
        call.early = {}
        if call.caller is None:
            account_id = "" if call.caller_trunk else call.account_id
            call.caller = CallSide(
                call.source, not call.is_trunk, call.request.cseq.number, account_id, call.caller_trunk
            )
        call.callee = CallSide(target.address, target.is_phone, 0, target.account_id, target.trunk)
        copy = forwarding.forward(context, call.request, uri=target.uri, cookie=text, trusted=call.is_trunk)
        copy.remove("route")  # the edge decides where a new call goes (no open relay)
        try:
            call.branch, effects = context.layer.send_request(copy, Peer(target.address), context.mono_s)
        except TooManyTransactions:
            self._failures.refuse(call, Refuse(Reason.OVERLOAD, "transactions"), ())
            return
        call.branch.context = call
        call.step(CallEvent.RETARGETED)
        context.effects += effects
        self._calls.wheel.set(call, context.mono_s + rules.call_init_timeout_s)

    def alarm(self, call: EdgeCall) -> None:
        """No provisional answer within the initial time-out, or it rang too long."""
        context = self._context
        branch = call.branch
        if branch is None:
            return
        context.effects += context.layer.cancel(branch, context.mono_s)
        if call.state is CallState.RINGING:
            self._failures.fail(call, 408, "ring-timeout")
            return
        # Not a word: CANCEL follows should it wake up (RFC 3261 9.1); the next one is tried now.
        self._leave_branch(call)
        self._remember(call, None)
        self._try_next(call)

    # What comes back.

    def response(self, call: EdgeCall, branch: ClientTransaction, response: Response) -> None:
        """An answer of a branch of a call that is being set up, or of one it has left."""
        context = self._context
        if branch is not call.branch or call.state in OVER:
            if 200 <= response.status < 300:
                self._active_calls.refuse_late(call, branch, response)
            return
        status = response.status
        if status < 200:
            first = call.state is CallState.CALLING
            call.step(CallEvent.PROGRESSED)
            if first:
                context_deadline_s = call.admitted_mono_s + call.rules.ring_timeout_s + call.rules.call_init_timeout_s
                self._calls.wheel.set(call, min(context.mono_s + call.rules.ring_timeout_s, context_deadline_s))
            if status > 100 and call.state is not CallState.CANCELLING:
                self._active_calls.progressed(call, response)
        elif status < 300:
            self._active_calls.answered(call, response)
        else:
            self._branch_failed(call, response)

    def timed_out(self, call: EdgeCall, branch: ClientTransaction) -> None:
        """A branch had no answer (timer B), or its CANCEL had none."""
        if branch is not call.branch or call.state not in IN_SETUP:
            return
        self._leave_branch(call)
        self._remember(call, None)
        self._try_next(call)

    def send_failed(self, call: EdgeCall, branch: ClientTransaction) -> None:
        """A branch could not be sent: as if it had answered 503 (RFC 3261 16.9, 8.1.3.1)."""
        if branch is call.branch and call.state in IN_SETUP:
            self._branch_failed(call, build.response(call.request, 503))

    def cancelled_elsewhere(self, hold_id: UUID) -> None:
        """The caller has given up, at another edge."""
        call = self._calls.get(hold_id)
        if call is not None and call.state in CANCELLABLE:
            self.cancelled(call)

    def break_off(self, call: EdgeCall, why: str) -> None:
        """It can't be set up here any more: the caller may try elsewhere, and who rings stops."""
        if call.state in CANCELLABLE:
            event = CallEvent.FAILED if call.state in IN_SETUP else CallEvent.CANCELLED
            self._cancel_target(call)
            self._failures.fail(call, 503, why, event=event)

    def _cancel_target(self, call: EdgeCall) -> None:
        if call.state in IN_SETUP:
            assert call.branch is not None
            self._context.effects += self._context.layer.cancel(call.branch, self._context.mono_s)
            call.targets = []
            self._calls.wheel.cancel(call)

    def cancelled(self, call: EdgeCall) -> None:
        """The caller gave up; its CANCEL has its answer already."""
        self._cancel_target(call)
        if call.state is CallState.RINGING:
            # Its 487 ends the call; should it never come, timer B or the layer's own time-out does.
            call.step(CallEvent.CANCELLED)
        else:
            self._failures.fail(call, 487, "cancelled", event=CallEvent.CANCELLED)

    def _branch_failed(self, call: EdgeCall, response: Response) -> None:
        self._leave_branch(call)
        status = response.status
        target = call.target
        is_phone = target is not None and target.is_phone
        if is_phone:
            forwarding.clean_identity(response)
        if call.state is CallState.CANCELLING:
            self._failures.fail(call, 487, "cancelled")
        elif status >= 600:
            self._remember(call, response)  # 16.7 step 5: no other target is tried
            call.targets = []
            self._give_up(call)
        elif is_phone or status >= 500 or status in (401, 407, 408, 430) or status < 400:
            # Another phone of the same user may answer. Of a carrier only what speaks of the carrier and not of the
            # callee leads on; its challenges aren't for our caller, its redirections are not followed.
            self._remember(call, response)
            self._try_next(call)
        else:
            self._remember(call, response)
            call.targets = []
            self._give_up(call)

    def _leave_branch(self, call: EdgeCall) -> None:
        call.branch = None
        self._calls.wheel.cancel(call)

    def _remember(self, call: EdgeCall, response: Response | None) -> None:
        """Keep the best answer so far (RFC 3261 16.7 step 6): 6xx, else the lowest class."""
        if response is None:
            return
        best = call.best
        if (
            best is None
            or response.status >= 600
            or (best.status < 600 and response.status // 100 < best.status // 100)
        ):
            call.best = response

    def _give_up(self, call: EdgeCall) -> None:
        """No target is left: the best answer, or 408."""
        best = call.best
        if best is None:
            self._failures.fail(call, 408, "timeout")
            return
        forwarding.take_out_our_challenges(best, self._context.proxy.realms)
        if (
            (best.status in (401, 407) and not forwarding.has_challenge(best))
            or best.status == 503
            or best.status < 400
        ):
            # 16.7 step 6: 503 is for us and not for our caller. A challenge in our name or a redirection isn't his.
            self._failures.fail(call, 500 if best.status == 503 else 502, "rejected")
            return
        assert call.server is not None
        self._pass_up(call, best)
        self._failures.end(call, CallEvent.FAILED, "rejected", best.status)

    def _pass_up(self, call: EdgeCall, response: Response) -> None:
        server = call.server
        assert server is not None
        response.pop_via()
        self._context.respond(server, response)
