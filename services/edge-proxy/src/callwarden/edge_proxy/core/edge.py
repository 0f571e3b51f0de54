"""The edge in one piece: datagrams, answers and time in; effects out.

    edge = Edge(site, keys, book, chance=os.urandom)
    edge.receive(data, source, mono_s, unix_s)        # a datagram
    edge.resume(ask.number, answer, mono_s, unix_s)   # the answer to a question it asked
    edge.handle_timers(mono_s, unix_s)                # when edge.next_timer_s() has come
    for effect in edge.take_effects(): ...            # after each of these: Send, Ask, CallStarted … in their order

In: which part a message goes to. Out: what each part does with it (`registration`, `call_setup`, `active_call`,
`relay`).
"""

from collections.abc import Callable, Container
from typing import Any
from uuid import UUID

from callwarden.edge_proxy.core import tags, validation
from callwarden.edge_proxy.core.active_call import ActiveCalls, AwaitingExtension
from callwarden.edge_proxy.core.call import EdgeCall, EdgeCalls
from callwarden.edge_proxy.core.call_setup import AwaitingAdmission, AwaitingIdentity, AwaitingSource, CallSetup
from callwarden.edge_proxy.core.call_states import IN_SETUP, TALKING
from callwarden.edge_proxy.core.challenge import Challenger
from callwarden.edge_proxy.core.context import SERVER_NAME, Context, Intake, ProxyIdentity
from callwarden.edge_proxy.core.dialog_gate import (
    AwaitingRecord,
    AwaitingSpeaker,
    AwaitingTarget,
    AwaitingTransfer,
    DialogGate,
)
from callwarden.edge_proxy.core.duplicates import Duplicates
from callwarden.edge_proxy.core.effects import Answer, CallNews, NewsKind, ScannerSeen, StoreRecord
from callwarden.edge_proxy.core.keepalive import is_keepalive
from callwarden.edge_proxy.core.keys import EdgeKeys
from callwarden.edge_proxy.core.locations import Locations
from callwarden.edge_proxy.core.records import DialogRecord
from callwarden.edge_proxy.core.registration import AwaitingRegistration, EdgeRegistration
from callwarden.edge_proxy.core.relay import InDialogRequest, Relay
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.edge_proxy.core.source_filter import Drop, SourceFilter
from callwarden.edge_proxy.core.sources import Sources
from callwarden.edge_proxy.core.speakers import Speakers
from callwarden.edge_proxy.core.termination import CutBye, LateAnswer, Probe
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip.address import SocketAddress
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, parse
from callwarden.sip.transaction import (
    AckReceived,
    Cancelled,
    Output,
    Peer,
    RequestReceived,
    ResponseReceived,
    Send,
    ServerTransaction,
    StrayResponse,
    Terminated,
    TransactionLayer,
    TransactionTimedOut,
    TransportFailed,
)

_ANSWER = b"SIP/2.0 "
_OPTIONS_HEADERS = [
    ("Allow", validation.ALLOW),
    ("Accept", "application/sdp"),
    ("Server", SERVER_NAME),
]


class Edge:
    """One edge: everything behind one socket. Mutable: it is the state."""

    def __init__(
        self,
        proxy: ProxyIdentity,
        keys: EdgeKeys,
        book: RuleBook,
        random_bytes: Callable[[int], bytes],
        sampled_share: float = 0.0,
    ) -> None:
        self.layer = TransactionLayer(tag_secret=keys.tags[:32])
        self.context = Context(proxy, keys, book, self.layer, random_bytes, sampled_share)
        self.stats = self.context.stats
        self.requests = 0
        """That came in, keepalives not counted."""
        self.counters = self.context.counters
        self.source_filter = SourceFilter(book.default)
        self.locations = Locations()
        self.sources = Sources()
        self.calls = EdgeCalls()
        self._challenger = challenger = Challenger(keys.nonces, proxy.realms, random_bytes)
        self._active_calls = ActiveCalls(self.context, self.calls, self.sources)
        self._duplicates = Duplicates(self.context, self.calls)
        self._call_setup = CallSetup(
            self.context, self.calls, self.locations, challenger, self.sources, self._active_calls, self._duplicates
        )
        speakers = Speakers(self.context, self.calls, self.sources)
        self._relay = Relay(self.context, self.calls, speakers, self._active_calls, self._is_peer)
        self._gate = DialogGate(
            self.context,
            self.calls,
            self.locations,
            self.sources,
            challenger,
            self._active_calls,
            speakers,
            self._relay,
        )
        self._registration = EdgeRegistration(self.context, self.locations, challenger)

    # Inputs.

    def receive(self, data: bytes, source: SocketAddress, mono_s: MonoS, unix_s: UnixS) -> None:
        """A datagram."""
        context, stats = self.context, self.stats
        context.mono_s, context.unix_s, context.source = mono_s, unix_s, source
        stats.datagrams += 1
        host = source.host
        drop = self.source_filter.judge_address(host, source.port, mono_s)
        if drop is not None:
            if drop is Drop.BANNED:
                stats.bans_dropped += 1
            else:
                stats.denied_dropped += 1
            return
        # An answer is most likely one that we asked for, and a carrier's answers must not ban it: it is counted when it
        # turns out to belong to no request (`_take_stray`), or not to be SIP.
        if not data.startswith(_ANSWER):
            if is_keepalive(data):
                stats.keepalives += 1
                return
            self.requests += 1
            if not self._counted(host):
                return
        try:
            message = parse(data)
            outputs = self.layer.receive(message, Peer(source), mono_s)
            if outputs:
                self._take(outputs)
        except Malformed as error:
            self._malformed(error, source)

    def send_failed(self, data: bytes, mono_s: MonoS, unix_s: UnixS) -> None:
        """A datagram that was among the effects did not arrive; `data` may be its beginning only."""
        self.context.mono_s, self.context.unix_s = mono_s, unix_s
        self._take(self.layer.send_failed(data, mono_s))

    def resume(self, number: int, answer: Answer, mono_s: MonoS, unix_s: UnixS) -> None:
        """The answer to the question of this number, which was among the effects. Raises NotAsked."""
        self.context.mono_s, self.context.unix_s = mono_s, unix_s
        waiting = self.context.answered(number)
        _RESUME[type(waiting)](self, waiting, answer)

    def next_timer_s(self) -> float | None:
        """When `handle_timers` has something to do (on the clock of `mono_s`); None: nothing is waited for."""
        ours, theirs = self.calls.wheel.next_s(), self.layer.next_timer_s()
        if ours is None or theirs is None:
            return theirs if ours is None else ours
        return min(ours, theirs)

    def handle_timers(self, mono_s: MonoS, unix_s: UnixS) -> None:
        """Do what is due."""
        self.context.mono_s, self.context.unix_s = mono_s, unix_s
        self._take(self.layer.handle_timers(mono_s))
        for call in self.calls.wheel.take_due(mono_s):
            if call.state in TALKING:
                self._active_calls.alarm(call)
            elif call.state in IN_SETUP:
                self._call_setup.alarm(call)

    def apply(self, book: RuleBook) -> None:
        """Another policy. Running calls keep the time limits they began with."""
        self.context.book = book
        self.source_filter.apply(book.default)
        self.counters.apply(book.default)

    def take_calls(self, intake: Intake) -> None:
        """What becomes of new calls from now on; running ones go on."""
        self.context.intake = intake

    @property
    def in_setup(self) -> int:
        """Calls that no other edge could go on with."""
        return sum(call.state not in TALKING and not call.is_over for call in self.calls.all())

    def records(self) -> list[StoreRecord]:
        """What other edges need to go on with the calls that run."""
        found = [self._active_calls.record(call) for call in self.calls.all() if call.state in TALKING]
        return [stored for stored in found if stored is not None]

    def release(self, hold_ids: Container[UUID], mono_s: MonoS) -> None:
        """Other edges go on with these calls: what comes of them now is passed on as for any call of another edge."""
        self.context.mono_s = mono_s
        for call in self.calls.all():
            if call.hold_id in hold_ids:
                self.calls.release(call)

    def cut_all(self, why: str, mono_s: MonoS, unix_s: UnixS) -> None:
        """End every running call: after this no edge would watch its clock."""
        self.context.mono_s, self.context.unix_s = mono_s, unix_s
        for call in self.calls.all():
            if call.state in TALKING:
                self._active_calls.cut(call, why)
            else:
                self._call_setup.break_off(call, why)

    def adopt(self, record: DialogRecord, mono_s: MonoS, unix_s: UnixS) -> None:
        """Go on with a call of an edge that died, or of this one before it was restarted."""
        self.context.mono_s, self.context.unix_s = mono_s, unix_s
        self._active_calls.adopt(record)

    def apart(self, mono_s: MonoS) -> None:
        """The other edges can't be heard now: what they would tell of a call isn't known."""
        self.context.apart_mono_s = mono_s

    def heard(self, news: CallNews, mono_s: MonoS, unix_s: UnixS) -> None:
        """Another edge tells of a call that may be ours."""
        self.context.mono_s, self.context.unix_s = mono_s, unix_s
        if news.kind is NewsKind.CANCELLED:
            self._call_setup.cancelled_elsewhere(news.hold_id)
        else:
            self._active_calls.heard(news)

    def take_effects(self) -> list[object]:
        """What is to be done, in order; asked for after each call of the above."""
        effects = self.context.effects
        if effects:
            self.context.effects = []
        return effects

    # To whom.

    def _take(self, outputs: list[Output]) -> None:
        effects = self.context.effects
        for output in outputs:
            kind = type(output)
            if kind is Send:
                effects.append(output)
            else:
                _TAKE[kind](self, output)
                effects = self.context.effects

    def _take_request(self, output: RequestReceived) -> None:
        source = _source(output.source)
        self.context.is_from_peer = self._is_peer(source.host)
        self._request(output.request, source)

    def _take_response(self, output: ResponseReceived) -> None:
        owner = output.transaction.context
        kind = type(owner)
        if kind is EdgeCall:
            self._call_setup.response(owner, output.transaction, output.response)
        elif kind is InDialogRequest:
            self._relay.response(owner, output.response)
        elif kind is CutBye:
            owner.answered(self.context, output.response.status)
        elif kind is Probe:
            self._active_calls.probed(owner.call, output.response.status)
        elif kind is LateAnswer:
            owner.again(self.context)

    def _take_ack(self, output: AckReceived) -> None:
        source = _source(output.source)
        self.context.is_from_peer = self._is_peer(source.host)
        self._relay.ack(output.request, source)

    def _take_cancelled(self, output: Cancelled) -> None:
        owner = output.transaction.context
        if isinstance(owner, EdgeCall):
            self._call_setup.cancelled(owner)
        elif isinstance(owner, InDialogRequest):
            self._relay.cancelled(owner)

    def _take_transport_failure(self, output: TransportFailed) -> None:
        transaction, owner = output.transaction, output.transaction.context
        if isinstance(transaction, ServerTransaction):
            return
        if isinstance(owner, EdgeCall):
            self._call_setup.send_failed(owner, transaction)
        elif isinstance(owner, InDialogRequest):
            self._relay.send_failed(owner)
        elif isinstance(owner, CutBye):
            owner.closed()
        elif isinstance(owner, Probe):
            self._active_calls.probed(owner.call, 408)

    def _take_time_out(self, output: TransactionTimedOut) -> None:
        transaction, owner = output.transaction, output.transaction.context
        if isinstance(transaction, ServerTransaction):
            return  # our failure was never acknowledged: nothing is waiting for it
        if isinstance(owner, EdgeCall):
            self._call_setup.timed_out(owner, transaction)
        elif isinstance(owner, InDialogRequest):
            self._relay.timed_out(owner)
        elif isinstance(owner, CutBye):
            owner.closed()
        elif isinstance(owner, Probe):
            self._active_calls.probed(owner.call, 408)

    def _take_stray(self, output: StrayResponse) -> None:
        self.stats.strays += 1
        host = output.source.address.host
        if self.counters.message(host, self.context.mono_s) and not self.source_filter.is_allowed(host):
            self.stats.rate_dropped += 1  # It was for nobody anyway.

    def _counted(self, host: str) -> bool:
        """Counts an unsolicited message; whether it is to be served."""
        mono_s = self.context.mono_s
        excess = self.counters.message(host, mono_s)
        if excess is None or self.source_filter.is_allowed(host):
            return True
        if self.counters.may_exceed(host, excess, mono_s, known=self._is_named(host)):
            return True
        self.stats.rate_dropped += 1
        return False

    def _is_peer(self, host: str) -> bool:
        """A trunk or carrier of ours sends from there, and no phone does."""
        return (host in self.context.carriers or self.sources.is_trunk(host)) and not self.locations.is_source(host)

    def _is_named(self, host: str) -> bool:
        """Whether we know who is there: a phone is registered, a trunk or carrier of ours, or we ourselves."""
        return (
            self.locations.is_near(host)
            or self.sources.is_trunk(host)
            or host in self.context.carriers
            or host == self.context.proxy.endpoint.host
        )

    def _take_terminated(self, output: Terminated) -> None:
        output.transaction.context = None  # a cycle less for the collector

    def _request(self, request: Request, source: SocketAddress) -> None:
        context = self.context
        drop = self.source_filter.judge_agent(request)
        if drop is not None:
            self._unwanted(request, source, drop)
            return
        if len(request.call_id) > validation.CALL_ID_MAX:
            context.counters.wrong(source.host, context.mono_s)
            context.answer_stateless(request, source, 400, "Call-ID Too Long")
            return
        method = request.method
        if method == "CANCEL":
            self._duplicates.cancel(request, source)
        elif tags.to_tag(request) is not None:
            self._gate.request(request, source)
        elif method == "INVITE":
            self._call_setup.invite(request, source)
        elif method == "REGISTER":
            self._registration.request(request, source)
        elif method == "OPTIONS":
            self._options(request, source)
        elif method in validation.ALLOWED:
            context.answer_stateless(request, source, 405, None, [("Allow", validation.ALLOW)])
        else:
            context.answer_stateless(request, source, 501)

    def _options(self, request: Request, source: SocketAddress) -> None:
        """A ping, or a query of capabilities (RFC 3261 11). 404 for every user: it must not tell who is registered."""
        context = self.context
        fault = validation.check(request, context.proxy.address)
        if fault is not None and fault.status != 483:  # 16.3 step 3: an OPTIONS that ends here may be answered
            context.counters.wrong(source.host, context.mono_s)
            context.answer_stateless(request, source, fault.status, fault.reason, fault.headers)
        elif context.proxy.realm_of(request.uri) is None or request.uri.user:
            context.answer_stateless(request, source, 404)
        else:
            context.answer_stateless(request, source, 200, None, _OPTIONS_HEADERS)

    # What isn't wanted.

    def _unwanted(self, request: Request, source: SocketAddress, drop: Drop) -> None:
        """A scanner's request, or that of an agent that policy blocks: not a word."""
        context = self.context
        context.counters.wrong(source.host, context.mono_s)
        if drop is not Drop.SCANNER:
            self.stats.agents_dropped += 1
            return
        self.stats.scanners += 1
        refuse = Refuse(Reason.SCANNER, "scanner", text="User-Agent of a known scanner")
        context.note_refusal(
            refuse,
            request_method=request.method,
            call_id=request.call_id,
            traceparent=context.new_traceparent(),
            source=source.host,
            passed=("banned", "rate"),
        )
        # The address may have been put in by anybody, unless a nonce that we sent there came back (DESIGN D16); and a
        # phone that has shown who it is must not be locked out by another one behind the same address.
        rules = context.book.default
        if (
            self._challenger.is_authentic(request, rules, source.host, context.unix_s)
            and not self._is_named(source.host)
            and not self.counters.is_known(source.host, context.mono_s)
            and not self.source_filter.is_allowed(source.host)
        ):
            ban_s = rules.ban_s
            self.source_filter.ban(source.host, None, context.mono_s + ban_s)
            context.effects.append(ScannerSeen(source.host, "User-Agent of a known scanner", ban_s))

    def _malformed(self, error: Malformed, source: SocketAddress) -> None:
        """Not SIP: counted, and answered only where RFC 3261 asks for it and its Via can be read."""
        context = self.context
        self.stats.malformed += 1
        context.counters.wrong(source.host, context.mono_s)
        request = error.request
        if request is not None and self.source_filter.judge_agent(request) is None:
            try:
                context.answer_stateless(request, source, error.status, error.reason)
            except Malformed:
                return  # its Via can't be read, either


def _source(peer: Peer) -> SocketAddress:
    """Where a message came from, which the layer hands back as it was given: never a name."""
    address = peer.address
    assert isinstance(address, SocketAddress)
    return address


# By type: class patterns cost three times as much, nine times a call.
_TAKE: dict[type, Callable[[Edge, Any], None]] = {
    RequestReceived: Edge._take_request,
    ResponseReceived: Edge._take_response,
    AckReceived: Edge._take_ack,
    Cancelled: Edge._take_cancelled,
    TransactionTimedOut: Edge._take_time_out,
    TransportFailed: Edge._take_transport_failure,
    StrayResponse: Edge._take_stray,
    Terminated: Edge._take_terminated,
}

# What goes on with an answer, by what waited for it.
_RESUME: dict[type, Callable[[Edge, Any, Any], None]] = {
    AwaitingIdentity: lambda edge, waiting, answer: edge._call_setup.verified(waiting, answer),
    AwaitingSource: lambda edge, waiting, answer: edge._call_setup.source_found(waiting, answer),
    AwaitingAdmission: lambda edge, waiting, answer: edge._call_setup.decided(waiting, answer),
    AwaitingExtension: lambda edge, waiting, answer: edge._active_calls.extended(waiting, answer),
    AwaitingRecord: lambda edge, waiting, answer: edge._gate.looked_up(waiting, answer),
    AwaitingSpeaker: lambda edge, waiting, answer: edge._gate.identified(waiting, answer),
    AwaitingTarget: lambda edge, waiting, answer: edge._gate.target_found(waiting, answer),
    AwaitingTransfer: lambda edge, waiting, answer: edge._gate.transfer_decided(waiting, answer),
    AwaitingRegistration: lambda edge, waiting, answer: edge._registration.verified(waiting, answer),
}
