"""One call as the edge knows it, from the INVITE with credentials to the end; and all of them.

In: what is known of a call. Out: what may follow what (`call_states`), and what is done (`call_setup`, `active_call`).
"""

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from callwarden.edge_proxy.core.call_states import (
    CALL,
    GRANT,
    OVER,
    SIDE,
    CallEvent,
    CallState,
    GrantEvent,
    GrantState,
    ImpossibleEvent,
    SideEvent,
    SideState,
)
from callwarden.edge_proxy.core.rules import Rules
from callwarden.edge_proxy.core.wheel import Wheel
from callwarden.sip.address import Endpoint
from callwarden.sip.dialog import Dialog
from callwarden.sip.message import Request, Response
from callwarden.sip.transaction import ClientTransaction, ServerTransaction

if TYPE_CHECKING:
    from callwarden.edge_proxy.core.termination import LateAnswer

CALLS_MAX = 50_000  # 2 KB each. More at once than one process can set up in the longest usual call.
CLOSED_MAX = 20_000  # Ended calls that are remembered, so that their cookies open nothing any more.


class Target(NamedTuple):
    """One place to try. `uri` is the Request-URI there; `is_phone`: a binding of ours, whose Contact may lie behind a
    NAT, so that all requests to it go to `address`."""

    uri: str
    address: Endpoint
    trunk: str = ""
    is_phone: bool = False
    account_id: str = ""  # whose phone it is


class CallSide:
    """One side of a call: where it is, and what a BYE to the other needs. Kept up to date while requests pass."""

    __slots__ = ("account_id", "address", "cseq", "hosts", "is_phone", "state", "target", "trunk")

    def __init__(
        self,
        address: Endpoint,
        is_phone: bool,
        cseq: int,
        account_id: str = "",
        trunk: str = "",
    ) -> None:
        self.hosts: tuple[str, ...] = (address.host,)  # the only ones that it may speak from, but for its trunk's
        self.account_id = account_id  # whose credentials let it speak from elsewhere; empty: nobody's
        self.trunk = trunk  # by which its address is known; empty: it has credentials
        self.address = address  # where requests to it go
        self.is_phone = is_phone  # then it is where its packets come from, whatever its Contact is
        self.cseq = cseq  # the highest that this side has used
        self.target: str | None = None  # its Contact, where a request changed it (RFC 3261 12.2)
        self.state = SideState.UP

    def step(self, event: SideEvent) -> None:
        """Go to the state that follows. Raises ImpossibleEvent."""
        state = SIDE[self.state].get(event)
        if state is None:
            raise ImpossibleEvent(f"side: {event} in state {self.state}")
        self.state = state


class EdgeCall:
    """Mutable slots: it is the state, and there are thousands."""

    __slots__ = (
        "account_id",
        "admitted_mono_s",
        "answer_bytes",
        "answered_mono_s",
        "answered_unix_s",
        "attempt",
        "best",
        "branch",
        "call_id",
        "callee",
        "callee_tag",
        "caller",
        "caller_cookie",
        "caller_number",
        "caller_tag",
        "caller_trunk",
        "cookie",
        "destination",
        "dialogs",
        "early",
        "final_reason",
        "forks",
        "grant",
        "granted_s",
        "hold_id",
        "invite_bytes",
        "is_acknowledged",
        "is_elsewhere",
        "is_local",
        "is_trunk",
        "max_s",
        "probe_at_mono_s",
        "record_routes",
        "repeated_mono_s",
        "rules",
        "server",
        "session_ends_mono_s",
        "session_s",
        "source",
        "state",
        "target",
        "targets",
        "tick",
        "traceparent",
    )

    def __init__(
        self,
        hold_id: UUID,
        call_id: str,
        traceparent: str,
        server: ServerTransaction | None,
        source: Endpoint,
        rules: Rules,
        state: CallState = CallState.IDENTIFYING,
    ) -> None:
        """`state` is another one where the call was adopted from another edge."""
        self.hold_id = hold_id
        self.call_id = call_id
        self.traceparent = traceparent
        self.server = server
        self.source = source
        self.rules = rules
        self.state = state
        self.grant = GrantState.OPEN
        self.tick = 0  # the wheel's
        # Who.
        self.account_id = ""
        self.is_trunk = False
        self.caller_trunk = ""  # by which its address was known
        self.caller_number = ""
        self.caller_tag = ""
        self.destination = ""  # as call-admission was asked for it
        self.is_local = False
        # Setting up.
        self.admitted_mono_s = 0.0
        self.targets: list[Target] = []
        self.target: Target | None = None
        self.attempt = 0
        self.cookie = ""  # the callee's, of the present attempt
        self.caller_cookie = ""  # of the dialog that was answered
        self.callee_tag = ""  # of the dialog that was answered
        self.early: dict[str, str] = {}  # tags of the callee that the caller knows, and its cookie for each
        self.forks: dict[str, LateAnswer] | None = None  # by tag: the answers after the first one (RFC 3261 13.2.2.4)
        self.branch: ClientTransaction | None = None
        self.best: Response | None = None
        # Talking. `granted_s` and `max_s` count from the answer.
        self.granted_s = 0
        self.final_reason = "credit"  # why there is no more
        self.max_s = 0
        self.answered_mono_s = 0.0
        self.answered_unix_s = 0.0
        self.repeated_mono_s = 0.0  # when the callee last sent its 2xx, as it does until it has the ACK
        self.is_acknowledged = False  # the 2xx has its ACK
        self.is_elsewhere = False  # another edge watches the call; this is what its record says
        self.session_s = 0  # each refresh is good for that long (RFC 4028); 0: for ever
        self.session_ends_mono_s = 0.0
        self.probe_at_mono_s = 0.0
        self.caller: CallSide | None = None
        self.callee: CallSide | None = None
        # What a dialog is made of, of the INVITE and its 200 as they came: read only if the edge must cut the call.
        self.dialogs: tuple[Dialog, Dialog] | None = None  # instead, where another edge read it
        self.invite_bytes = b""
        self.answer_bytes = b""
        self.record_routes: list[str] = []
        """Of the proxies between the caller and us; known from the answer on."""

    def step(self, event: CallEvent) -> CallState:
        """Go to the state that follows, and return it. Raises ImpossibleEvent."""
        state = CALL[self.state].get(event)
        if state is None:
            raise ImpossibleEvent(f"call: {event} in state {self.state}")
        self.state = state
        return state

    def step_grant(self, event: GrantEvent) -> None:
        """As `step`, for what may still be talked."""
        state = GRANT[self.grant].get(event)
        if state is None:
            raise ImpossibleEvent(f"grant: {event} in state {self.grant}")
        self.grant = state

    @property
    def request(self) -> Request:
        """The INVITE; only before it has a final answer."""
        assert self.server is not None
        return self.server.request

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def trunk(self) -> str:
        return self.target.trunk if self.target is not None else ""

    def __repr__(self) -> str:
        return f"<Call {self.hold_id} {self.state}>"


class EdgeCalls:
    """All calls by hold, their alarms, and the holds of those that ended lately. Mutable: it is the state."""

    def __init__(self) -> None:
        self._by_hold: dict[UUID, EdgeCall] = {}
        self._by_cookie: dict[str, EdgeCall] = {}
        self._by_call_id: dict[str, EdgeCall] = {}  # answered ones
        self._closed: dict[UUID, None] = {}
        self.wheel: Wheel[EdgeCall] = Wheel()

    def __len__(self) -> int:
        return len(self._by_hold)

    @property
    def is_full(self) -> bool:
        return len(self._by_hold) >= CALLS_MAX

    def add(self, call: EdgeCall) -> None:
        self._by_hold[call.hold_id] = call

    def get(self, hold_id: UUID) -> EdgeCall | None:
        return self._by_hold.get(hold_id)

    def give_cookie(self, call: EdgeCall, text: str) -> None:
        """The cookie of the call's present attempt."""
        self._by_cookie.pop(call.cookie, None)
        call.cookie = text
        self._by_cookie[text] = call

    def give_caller_cookie(self, call: EdgeCall, text: str) -> None:
        """The caller's cookie of the dialog that was answered."""
        call.caller_cookie = text
        self._by_cookie[text] = call

    def find_dialog(self, call_id: str) -> EdgeCall | None:
        """The answered call of that Call-ID."""
        return self._by_call_id.get(call_id)

    def answered(self, call: EdgeCall) -> None:
        """The call can be found by its Call-ID from now on. Of two with the same one, the first keeps it."""
        self._by_call_id.setdefault(call.call_id, call)

    def find_cookie(self, text: str) -> EdgeCall | None:
        """The call with this cookie. A cookie can't be guessed: knowing it is as good as its signature (20 µs less)."""
        return self._by_cookie.get(text)

    def all(self) -> list[EdgeCall]:
        return list(self._by_hold.values())

    def close(self, call: EdgeCall) -> None:
        """The call is over; its hold is remembered for a while."""
        if self.release(call):
            self.close_unknown(call.hold_id)

    def release(self, call: EdgeCall) -> bool:
        """The call goes on without this edge; whether it was here."""
        self.wheel.cancel(call)
        self._by_cookie.pop(call.cookie, None)
        self._by_cookie.pop(call.caller_cookie, None)
        if self._by_call_id.get(call.call_id) is call:
            del self._by_call_id[call.call_id]
        return self._by_hold.pop(call.hold_id, None) is not None

    def remove(self, call: EdgeCall) -> None:
        """The call isn't this edge's; nothing of it is remembered."""
        self.wheel.cancel(call)
        self._by_hold.pop(call.hold_id, None)

    def close_unknown(self, hold_id: UUID) -> None:
        """A call that this edge never knew is over."""
        if len(self._closed) >= CLOSED_MAX:
            del self._closed[next(iter(self._closed))]
        self._closed[hold_id] = None

    def was_closed(self, hold_id: UUID) -> bool:
        return hold_id in self._closed
