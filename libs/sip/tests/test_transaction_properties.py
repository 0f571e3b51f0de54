"""The layer under any order of events: it raises nothing, forgets everything, and keeps its promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from callwarden.sip import build
from callwarden.sip.message import Request
from callwarden.sip.tables import TransactionState
from callwarden.sip.transaction import (
    AckReceived,
    Cancelled,
    ClientTransaction,
    Output,
    RequestReceived,
    ResponseReceived,
    Send,
    ServerTransaction,
    Terminated,
    Transaction,
    TransactionLayer,
    TransactionTimedOut,
    TransportFailed,
)

from .sip_samples import CALLEE, CALLER, following, other, request

BRANCHES = st.sampled_from(["z9hG4bKa", "z9hG4bKb", "z9hG4bKc"])
METHODS = st.sampled_from(["INVITE", "BYE", "REGISTER"])
STATUSES = st.sampled_from([100, 180, 200, 302, 404, 486, 503, 603])
TRANSACTIONS_MAX = 12


def make(method: str, branch: str) -> Request:
    if method != "INVITE":
        return other(method, branch)
    invite = request()
    invite.set_top_via(invite.via._replace(params={"branch": branch}))
    return invite


class Layer(RuleBasedStateMachine):
    """Drives one layer with all that a network, a user and a clock can do to it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = TransactionLayer(transactions_max=TRANSACTIONS_MAX)
        self.mono_s = 1.0
        self.servers: dict[ServerTransaction, Request] = {}
        self.clients: dict[ClientTransaction, Request] = {}
        self.finals: dict[ClientTransaction, int] = {}
        self.cancelled: set[ServerTransaction] = set()
        self.told: set[tuple[ClientTransaction, int]] = set()
        self.ended: set[object] = set()

    def take(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case ResponseReceived(client, response):
                    assert client not in self.ended
                    if response.status >= 200:
                        first = self.finals.setdefault(client, response.status)
                        # Once only, but that every 2xx to an INVITE is passed on (RFC 6026 7.2).
                        repeated = (client, response.status // 100) in self.told
                        assert not repeated or (client.method == "INVITE" and first < 300 and response.status < 300)
                        self.told.add((client, response.status // 100))
                case Cancelled(server):
                    assert server.state is TransactionState.PROCEEDING
                    assert server not in self.cancelled
                    self.cancelled.add(server)
                case TransactionTimedOut(transaction) | TransportFailed(transaction):
                    assert transaction not in self.ended
                case Terminated(transaction):
                    assert transaction not in self.ended
                    self.ended.add(transaction)
                case Send(data, _):
                    assert data
                case RequestReceived() | AckReceived():
                    pass
                case _:
                    raise AssertionError(output)

    @rule(method=METHODS, branch=BRANCHES)
    def a_request_comes(self, method: str, branch: str) -> None:
        message = make(method, branch)
        outputs = self.layer.receive(message, CALLER, self.mono_s)
        self.take(outputs)
        if outputs and isinstance(outputs[0], RequestReceived) and len(self.layer) < TRANSACTIONS_MAX:
            self.servers[self.layer.accept(message, CALLER, self.mono_s)] = message

    @rule(branch=BRANCHES, method=st.sampled_from(["ACK", "CANCEL"]))
    def an_ack_or_cancel_comes(self, branch: str, method: str) -> None:
        self.take(self.layer.receive(following(make("INVITE", branch), method), CALLER, self.mono_s))

    @rule(data=st.data(), status=STATUSES)
    def we_answer(self, data: st.DataObject, status: int) -> None:
        if self.servers:
            server = data.draw(st.sampled_from(list(self.servers)))
            before = server.is_final
            outputs = self.layer.respond(server, build.response(self.servers[server], status), self.mono_s)
            if not before:
                assert isinstance(outputs[0], Send)
            self.take(outputs)

    @rule(method=METHODS, branch=BRANCHES)
    def we_ask(self, method: str, branch: str) -> None:
        message = make(method, branch)
        if len(self.layer) < TRANSACTIONS_MAX and not any(
            client.key == f"{branch}|{method}" and client not in self.ended for client in self.clients
        ):
            client, outputs = self.layer.send_request(message, CALLEE, self.mono_s)
            self.clients[client] = message
            self.take(outputs)

    @rule(data=st.data(), status=STATUSES, tag=st.sampled_from(["x", "y"]))
    def an_answer_comes(self, data: st.DataObject, status: int, tag: str) -> None:
        live = [client for client in self.clients if client not in self.ended]
        if live:
            client = data.draw(st.sampled_from(live))
            response = build.response(self.clients[client], status, to_tag=tag)
            self.take(self.layer.receive(response, CALLEE, self.mono_s))

    @rule(data=st.data())
    def we_cancel(self, data: st.DataObject) -> None:
        invites = [client for client in self.clients if client.method == "INVITE"]
        if invites:
            self.take(self.layer.cancel(data.draw(st.sampled_from(invites)), self.mono_s))

    @rule(data=st.data())
    def the_transport_fails(self, data: st.DataObject) -> None:
        transactions: list[Transaction] = [*self.servers, *self.clients]
        if transactions:
            self.take(self.layer.transport_failed(data.draw(st.sampled_from(transactions)), self.mono_s))

    @rule(after_s=st.sampled_from([0.1, 0.5, 1.0, 5.0, 40.0]))
    def time_passes(self, after_s: float) -> None:
        self.mono_s += after_s
        self.take(self.layer.handle_timers(self.mono_s))
        next_s = self.layer.next_timer_s()
        assert next_s is None or next_s > self.mono_s

    @invariant()
    def nothing_is_kept_that_has_ended(self) -> None:
        live = {id(transaction) for transaction in [*self.servers, *self.clients] if transaction not in self.ended}
        kept = [*self.layer._servers.values(), *self.layer._clients.values()]
        assert all(id(transaction) in live or transaction.method == "CANCEL" for transaction in kept)

    def teardown(self) -> None:
        """Answer what waits, let the clock run out: nothing is left."""
        for server in self.servers:
            self.take(self.layer.respond(server, build.response(self.servers[server], 500), self.mono_s))
        for client in self.clients:
            if client.method == "INVITE":
                self.take(self.layer.cancel(client, self.mono_s))
        for _ in range(1000):
            if (next_s := self.layer.next_timer_s()) is None:
                break
            self.mono_s = max(self.mono_s, next_s)
            self.take(self.layer.handle_timers(self.mono_s))
        assert len(self.layer) == 0
        assert len(self.layer._timers) == 0


TestLayer = Layer.TestCase
TestLayer.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
