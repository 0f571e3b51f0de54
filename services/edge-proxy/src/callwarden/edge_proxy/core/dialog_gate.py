"""Requests inside a call before they pass: is it a dialog of ours, may this side speak from there, may it ask for that.

The signed cookie of our Record-Route shows that the call is ours, which side is speaking and where from (DESIGN D6,
D14). Where another edge watches the call, its record in the bucket `dialogs` tells the rest. In: every request with a
tag in To but ACK. Out: passing on (`relay`).
"""

from typing import NamedTuple

from callwarden.edge_proxy.core import validation
from callwarden.edge_proxy.core.active_call import ActiveCalls
from callwarden.edge_proxy.core.call import CallSide, EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.challenge import Challenger, CredentialsFault
from callwarden.edge_proxy.core.context import Context, unavailable
from callwarden.edge_proxy.core.cookie import Cookie, CookieFault
from callwarden.edge_proxy.core.effects import (
    AdmitCall,
    CallAdmitted,
    CallerIdentity,
    CallNews,
    CallRefused,
    FoundCalled,
    LoadRecord,
    NewsKind,
    NoRecord,
    Rejected,
    Unanswered,
    VerifyDigest,
    VerifySource,
)
from callwarden.edge_proxy.core.locations import Locations
from callwarden.edge_proxy.core.records import DialogRecord, call_of
from callwarden.edge_proxy.core.relay import Relay
from callwarden.edge_proxy.core.sources import Sources
from callwarden.edge_proxy.core.speakers import Speakers, sender
from callwarden.edge_proxy.core.statuses import OVERLOAD_RETRY_S, answer_for
from callwarden.edge_proxy.core.transfers import Transfers
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.digest import Credentials
from callwarden.sip.message import Request

WAITING_MAX = 5_000  # Of 2 KB each, for a millisecond.


class Arrival(NamedTuple):
    """A request that is being examined."""

    request: Request
    source: SocketAddress
    found: Cookie
    call: EdgeCall | None
    is_from_peer: bool


class AwaitingRecord(NamedTuple):
    """Asked of the bucket: what another edge knows of the call."""

    arrival: Arrival


class AwaitingSpeaker(NamedTuple):
    """Asked of auth: who speaks from an address that isn't the leg's. `username` of a digest."""

    arrival: Arrival
    username: str


class AwaitingTransfer(NamedTuple):
    """Asked of call-admission: whether the other side may be asked to place this call."""

    arrival: Arrival
    question: AdmitCall


class AwaitingTarget(NamedTuple):
    """Asked of auth: whether the other side is asked to call a number of ours."""

    arrival: Arrival
    question: AdmitCall


class DialogGate:
    """Examines requests inside calls. Mutable only in which of them wait for an answer."""

    def __init__(
        self,
        context: Context,
        calls: EdgeCalls,
        locations: Locations,
        sources: Sources,
        challenger: Challenger,
        active_calls: ActiveCalls,
        speakers: Speakers,
        relay: Relay,
    ) -> None:
        self._context = context
        self._calls = calls
        self._locations = locations
        self._sources = sources
        self._challenger = challenger
        self._active_calls = active_calls
        self._speakers = speakers
        self._relay = relay
        self._transfers = Transfers(context, locations)
        self._waiting: set[tuple[str | None, str, str, SocketAddress]] = set()

    def request(self, request: Request, source: SocketAddress) -> None:
        """A request with a tag in To, but ACK."""
        context = self._context
        fault = validation.check(request, context.proxy.address, inside=True)
        if fault is not None:
            context.counters.wrong(source.host, context.mono_s)
            context.answer_stateless(request, source, fault.status, fault.reason, fault.headers)
            return
        found = self._speakers.read(request)
        if not isinstance(found, Cookie):
            context.answer_stateless(request, source, self._judge(found, source))
            return
        call = self._calls.get(found.hold_id)
        if call is None:
            if self._calls.was_closed(found.hold_id):
                context.answer_stateless(request, source, 481)
            else:
                self._look_up(Arrival(request, source, found, None, context.is_from_peer))
        elif request.method == "REFER" or not self._speakers.may_speak(found, call, source):
            self._examine(Arrival(request, source, found, call, context.is_from_peer))
        else:
            self._relay.pass_on(request, source, found, call)

    def _look_up(self, arrival: Arrival) -> None:
        """Ask for the record of a call that another edge watches: it tells more than the cookie does."""
        context = self._context
        if self._waits(arrival):
            question = LoadRecord(arrival.found.hold_id, arrival.request.call_id, context.new_traceparent())
            context.ask(question, AwaitingRecord(arrival))

    def looked_up(self, waiting: AwaitingRecord, answer: DialogRecord | NoRecord | Unanswered) -> None:
        """The record; a call that has none, being seconds old, is known by its cookie alone."""
        context = self._context
        arrival = waiting.arrival
        found = arrival.found
        self._resume(arrival)
        call = self._calls.get(found.hold_id)  # adopted meanwhile
        if call is None and isinstance(answer, DialogRecord):
            call = call_of(answer, context.book.default, context.new_traceparent(), context.mono_s, context.unix_s)
            call.is_elsewhere = True
            self._speakers.reconcile(call, found)
        if (
            call is None
            and isinstance(answer, Unanswered)
            and not self._speakers.may_speak(found, None, arrival.source)
        ):
            # Only the record could tell whether it may speak from there: not to be known now isn't to be a stranger.
            context.stats.unavailable += 1
            self._answer(arrival, 503, [("Retry-After", str(OVERLOAD_RETRY_S))])
            return
        if call is not None and not self._speakers.is_in(call, arrival.request, found):
            self._answer(arrival, self._judge(CookieFault.WRONG_TAG, arrival.source))
            return
        self._examine(arrival._replace(call=call))

    def _examine(self, arrival: Arrival) -> None:
        """Whether it may pass: who speaks from another address shows who it is, and a transfer is decided."""
        request, source, found, call, _ = arrival
        if not self._speakers.may_speak(found, call, source):
            self._ask_who(arrival)
        elif request.method == "REFER":
            self._transfer(arrival)
        else:
            self._relay.pass_on(request, source, found, call)

    # From another address.

    def _ask_who(self, arrival: Arrival) -> None:
        """A phone that went from one network to another goes on after a digest; a trunk, if the address is its own."""
        context = self._context
        request, source, found, call, _ = arrival
        side = None if call is None else sender(call, found)
        if call is None or side is None:
            self._refuse_stranger(arrival)
        elif side.trunk:
            if not self._sources.may_ask_once(source.host, context.mono_s):
                self._refuse_stranger(arrival)
            elif self._waits(arrival):
                called = request.to.uri.user or ""  # as the trunk dialled it, with any tech prefix
                question = VerifySource(source.host, called, request.call_id, call.traceparent)
                context.ask(question, AwaitingSpeaker(arrival, ""))
        elif not side.account_id:
            self._refuse_stranger(arrival)
        else:
            given = self._challenger.examine(request, "proxy-authorization", call.rules, source.host, context.unix_s)
            if not isinstance(given, Credentials):
                self._challenger.count(given, context, request, call.rules, source)
                self._challenge(arrival, stale=given is CredentialsFault.STALE)
            elif self._waits(arrival):
                verify = VerifyDigest(given, request.method, source.host, request.call_id, call.traceparent)
                context.ask(verify, AwaitingSpeaker(arrival, given.user))

    def identified(self, waiting: AwaitingSpeaker, answer: CallerIdentity | Rejected | Unanswered) -> None:
        """auth's answer: who speaks from the new address."""
        context = self._context
        arrival, username = waiting
        _, source, found, call, _ = arrival
        assert call is not None
        self._resume(arrival)
        side = sender(call, found)
        if side is None or call.is_over:
            self._answer(arrival, 481)
        elif isinstance(answer, Unanswered):
            context.stats.unavailable += 1
            self._answer(arrival, 503, [("Retry-After", str(OVERLOAD_RETRY_S))])
        elif side.trunk:
            self._sources.learn(source.host, answer.trunk if isinstance(answer, CallerIdentity) else "", context.mono_s)
            if self._speakers.may_speak(found, call, source):
                self._examine(arrival)
            else:
                self._refuse_stranger(arrival)
        elif isinstance(answer, Rejected):
            context.counters.failed(source.host, source.port, username, context.mono_s)
            if answer.reason is Reason.CREDENTIALS:
                self._challenge(arrival, stale=False)
            else:
                self._answer(arrival, 403)
        elif answer.account_id != side.account_id:
            context.counters.succeeded(source.host, source.port, username, context.mono_s)
            self._refuse_stranger(arrival)
        else:
            context.counters.succeeded(source.host, source.port, username, context.mono_s)
            self._move(found, call, side, source)
            self._examine(arrival)

    def _move(self, found: Cookie, call: EdgeCall, side: CallSide, to: SocketAddress) -> None:
        """The leg is there from now on, for every edge."""
        side.hosts, side.address = (to.host,), to
        self._context.stats.legs_moved += 1
        if call.is_elsewhere:
            self._speakers.moved(found, to)
            self._context.effects.append(CallNews(call.hold_id, NewsKind.MOVED, found.from_caller, to))
        else:
            self._active_calls.changed(call)

    def _challenge(self, arrival: Arrival, *, stale: bool) -> None:
        context = self._context
        request, source, _, call, _ = arrival
        assert call is not None
        context.stats.challenges += 1
        context.counters.challenged(source.host, source.port, "", context.mono_s)
        realm = context.proxy.realm_of(request.from_.uri) or context.proxy.realms[0]
        headers = self._challenger.headers(
            "Proxy-Authenticate", realm, call.rules, request, source.host, context.unix_s, stale=stale
        )
        self._answer(arrival, 407, headers)

    def _refuse_stranger(self, arrival: Arrival) -> None:
        context = self._context
        context.stats.cookies_forged += 1
        context.counters.wrong(arrival.source.host, context.mono_s)
        self._answer(arrival, 403)

    # Transfers.

    def _transfer(self, arrival: Arrival) -> None:
        """REFER: by policy, and only to whom the sender could call."""
        context = self._context
        request, source, found, call, _ = arrival
        decided = self._transfers.judge(request, found, call, source, self._are_phones(arrival))
        if isinstance(decided, Refuse):
            self._refuse_transfer(arrival, decided)
        elif isinstance(decided, AdmitCall):
            if decided.local:
                self._ask_transfer(arrival, decided)
            elif self._waits(arrival):
                context.ask(self._transfers.whose(request, decided), AwaitingTarget(arrival, decided))
        else:
            self._relay.pass_on(request, source, found, call)

    def target_found(self, waiting: AwaitingTarget, answer: FoundCalled | Unanswered) -> None:
        """auth's answer: a call to a number of ours never leaves, and so nobody else is asked to place it."""
        arrival, question = waiting
        self._resume(arrival)
        if isinstance(answer, Unanswered):
            self._refuse_transfer(arrival, unavailable("auth", overloaded=answer.overloaded))
        elif answer.ours:
            self._refuse_transfer(arrival, Refuse(Reason.TRANSFER, "transfer", text="a number of ours never leaves"))
        else:
            self._ask_transfer(arrival, question)

    def _ask_transfer(self, arrival: Arrival, question: AdmitCall) -> None:
        if self._waits(arrival):
            self._context.ask(question, AwaitingTransfer(arrival, question))

    def transfer_decided(self, waiting: AwaitingTransfer, answer: CallAdmitted | CallRefused | Unanswered) -> None:
        """call-admission's answer: whether the account could place the call that the other side is asked to place."""
        context = self._context
        arrival, question = waiting
        self._resume(arrival)
        if not isinstance(answer, CallRefused):
            context.effects.append(self._transfers.release(question))  # there may be a hold, even without an answer
        if isinstance(answer, CallAdmitted):
            request, source, found, call, _ = arrival
            if call is not None and call.is_over:
                self._answer(arrival, 481)
            else:
                self._relay.pass_on(request, source, found, call)
        elif isinstance(answer, CallRefused):
            self._refuse_transfer(arrival, answer.refuse)
        else:
            self._refuse_transfer(arrival, unavailable("call-admission", overloaded=answer.overloaded))

    def _refuse_transfer(self, arrival: Arrival, refuse: Refuse) -> None:
        quota_status = (arrival.call.rules if arrival.call else self._context.book.default).quota_status
        answer = answer_for(
            refuse.reason, is_trunk=False, quota_status=quota_status, retry_after_s=refuse.retry_after_s
        )
        headers = [("Retry-After", str(answer.retry_after_s))] if answer.retry_after_s else []
        self._answer(arrival, answer.status, headers)
        context = self._context
        context.note_refusal(
            refuse,
            request_method="REFER",
            call_id=arrival.request.call_id,
            traceparent=context.new_traceparent() if arrival.call is None else arrival.call.traceparent,
            source=arrival.source.host,
            account_id=arrival.found.account_id if arrival.call is None else arrival.call.account_id,
        )

    def _are_phones(self, arrival: Arrival) -> bool:
        """Whether phones of ours speak with each other, as far as is known."""
        found, call = arrival.found, arrival.call
        if call is not None:
            return all(side is not None and side.is_phone for side in (call.caller, call.callee))
        target = self._speakers.moved_receiver(found) or found.target
        return not arrival.is_from_peer and target is not None and self._locations.is_source(target.host)

    # On.

    def _waits(self, arrival: Arrival) -> bool:
        """Remember that it waits for an answer; False: it does already, or too many do.

        It has no transaction meanwhile: who copies a request must not have its answer in the other's place.
        """
        key = self._key(arrival)
        if key in self._waiting:
            return False
        if len(self._waiting) >= WAITING_MAX:
            self._context.stats.unavailable += 1
            self._answer(arrival, 503, [("Retry-After", str(OVERLOAD_RETRY_S))])
            return False
        self._waiting.add(key)
        return True

    def _resume(self, arrival: Arrival) -> None:
        self._waiting.discard(self._key(arrival))
        self._context.is_from_peer = arrival.is_from_peer

    @staticmethod
    def _key(arrival: Arrival) -> tuple[str | None, str, str, SocketAddress]:
        via = arrival.request.via
        return via.branch, via.sent_by, arrival.request.method, arrival.source

    def _answer(self, arrival: Arrival, status: int, headers: build.Headers = ()) -> None:
        self._context.answer_stateless(arrival.request, arrival.source, status, None, headers)

    def _judge(self, fault: CookieFault | None, source: SocketAddress) -> int:
        """Count a request whose cookie is worth nothing, and say that there is no such dialog (RFC 3261 12.2.2)."""
        context = self._context
        match fault:
            case CookieFault.FORGED | CookieFault.WRONG_TAG:
                context.stats.cookies_forged += 1
                context.counters.wrong(source.host, context.mono_s)
            case CookieFault.EXPIRED:
                context.stats.cookies_expired += 1
        return 481
