"""What the parts of the core share: who we are, the time of this moment, the transactions, and where effects go.

In: no behaviour of its own beyond sending, asking and noting. Out: everything that decides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from callwarden.edge_proxy.core.counters import EdgeCounters
from callwarden.edge_proxy.core.effects import Ask, EdgeDecision, Question
from callwarden.edge_proxy.core.keys import EdgeKeys
from callwarden.edge_proxy.core.rules import RuleBook, Rules
from callwarden.edge_proxy.core.stats import EdgeStats
from callwarden.edge_proxy.core.validation import CALL_ID_MAX
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult
from callwarden.limits.bucket import Rate, TokenBucket
from callwarden.sip import build
from callwarden.sip.address import BadAddress, Endpoint, SocketAddress, endpoint
from callwarden.sip.message import Request, Response
from callwarden.sip.transaction import Peer, Send, ServerTransaction, TransactionLayer
from callwarden.sip.uri import Uri
from callwarden.sip.via import PORT_DEFAULT

SERVER_NAME = "Callwarden"
CARRIERS_MAX = 10_000  # Addresses, which only configuration brings here.
TRUNKS_OF_HOST_MAX = 16
# So that an attacker can't fill the database with refusals; what is dropped is counted.
DECISIONS = Rate(per_second=50, burst=200)


@dataclass(frozen=True, slots=True)
class ProxyIdentity:
    """Who we are on the wire: the address we name in Via and Record-Route, and the domains we serve."""

    endpoint: Endpoint
    realms: tuple[str, ...]
    address: str = field(init=False)  # as in a URI: "192.0.2.1:5060", "[2001:db8::1]:5060"
    uri_host: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", str(self.endpoint))
        object.__setattr__(self, "uri_host", self.endpoint.uri_host)

    def is_us(self, uri: Uri) -> bool:
        """The URI names this edge, or a domain that it serves."""
        return uri.host.lower() in self.realms or self._names_us(uri, PORT_DEFAULT)

    def realm_of(self, uri: Uri) -> str | None:
        """The domain of ours that the URI is in; None: a foreign one. Our own address means the first domain."""
        if uri.scheme == "tel":
            return self.realms[0]  # a number without a domain is ours to place
        host = uri.host.lower()
        if host in self.realms:
            return host
        return self.realms[0] if self._names_us(uri, self.endpoint.port) else None

    def _names_us(self, uri: Uri, port_default: int) -> bool:
        try:
            return endpoint(uri.host, uri.port or port_default) == self.endpoint
        except BadAddress:
            return False


class Intake(Enum):
    """What becomes of new calls."""

    OPEN = "open"
    REFUSED = "refused"  # 503: nobody else is there to take them
    IGNORED = "ignored"  # not answered: another edge hears the next of the caller's retransmissions


class NotAsked(RuntimeError):
    """An answer to a question that was never asked, or that has its answer."""


class Context:
    """Mutable: `mono_s` and `unix_s` are those of the datagram, answer or timer being worked on.

    Each input of `Edge` sets them from its arguments; nothing else does. Handing both through every call below
    would make each signature longer and nothing clearer.
    """

    __slots__ = (
        "_asked",
        "_decisions",
        "_waiting",
        "apart_mono_s",
        "book",
        "carriers",
        "counters",
        "effects",
        "intake",
        "is_from_peer",
        "keys",
        "layer",
        "mono_s",
        "proxy",
        "random_bytes",
        "sampled_share",
        "source",
        "stats",
        "unix_s",
    )

    def __init__(
        self,
        proxy: ProxyIdentity,
        keys: EdgeKeys,
        book: RuleBook,
        layer: TransactionLayer,
        random_bytes: Callable[[int], bytes],
        sampled_share: float,
    ) -> None:
        """`random_bytes(n)` gives n unpredictable random bytes."""
        self.proxy = proxy
        self.keys = keys
        self.book = book
        self.layer = layer
        self.random_bytes = random_bytes
        self.sampled_share = sampled_share
        self.counters = EdgeCounters(book.default)
        self.carriers: dict[str, tuple[str, ...]] = {}  # addresses of routes, with their trunks; see `note_carrier`
        self.stats = EdgeStats()
        self.effects: list[object] = []
        self.intake = Intake.OPEN
        self.apart_mono_s = -math.inf  # when the other edges could last not be heard
        self.is_from_peer = False  # the request being worked on came from a trunk or carrier of ours
        self.source: SocketAddress | None = None  # of the datagram being worked on
        self.mono_s = MonoS(0.0)
        self.unix_s = UnixS(0.0)
        self._decisions = TokenBucket()
        self._asked = 0
        self._waiting: dict[int, object] = {}  # by the number of the question; the app bounds how many

    # Out.

    def ask(self, question: Question, waiting: object) -> None:
        """Have a question answered; `waiting` is what goes on with its answer (`Edge.resume`)."""
        self._asked += 1
        self._waiting[self._asked] = waiting
        self.effects.append(Ask(self._asked, question))

    def answered(self, number: int) -> object:
        """What waited for the answer to this question. Raises NotAsked."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            raise NotAsked(f"question {number} is not open")
        return waiting

    def respond(self, server: ServerTransaction, response: Response) -> None:
        self.effects += self.layer.respond(server, response, self.mono_s)

    def answer(
        self,
        server: ServerTransaction,
        status: int,
        reason: str | None = None,
        headers: build.Headers = (),
    ) -> None:
        """Our own answer in a transaction."""
        response = build.response(server.request, status, reason, headers=headers, to_tag=self.tag(server.request))
        self.respond(server, response)

    def answer_stateless(
        self,
        request: Request,
        source: SocketAddress,
        status: int,
        reason: str | None = None,
        headers: build.Headers = (),
    ) -> None:
        """Our own answer without a transaction: to whom we want to remember nothing of (RFC 3261 8.2.7).

        It goes to the address that the request came from, whatever its Via claims: no reflection at others.
        """
        via = request.stamp_source(source.host, source.port)
        response = build.response(request, status, reason, headers=headers, to_tag=self.tag(request))
        port = source.port if via.wants_rport else via.port or PORT_DEFAULT
        self.effects.append(Send(response.to_bytes(), Peer(source.with_port(port))))

    def reply_peer(self, request: Request, source: SocketAddress) -> Peer:
        """Where a request's answers go (RFC 3261 18.2.2, RFC 3581 4): never to another host than it came from."""
        via = request.stamp_source(source.host, source.port)
        if via.wants_rport:
            return Peer(source)
        return Peer(source.with_port(via.port or PORT_DEFAULT))

    def tag(self, request: Request) -> str:
        """The To tag of our own answers: the same for a request whenever it comes."""
        return build.local_tag(request, self.keys.tags[:32])

    def note_carrier(self, host: str, trunk: str) -> None:
        """Calls are routed there: what is sent in its name must not shut it out."""
        trunks = self.carriers.get(host)
        if trunks is None:
            if len(self.carriers) >= CARRIERS_MAX:
                del self.carriers[next(iter(self.carriers))]
            self.carriers[host] = (trunk,)
        elif trunk not in trunks:
            self.carriers[host] = (trunk, *trunks[: TRUNKS_OF_HOST_MAX - 1])

    def is_carriers(self, host: str, trunk: str) -> bool:
        """Whether calls are routed there by this trunk."""
        return trunk in self.carriers.get(host, ())

    # Chance.

    def new_id(self) -> UUID:
        return UUID(bytes=self.random_bytes(16), version=4)

    def new_traceparent(self) -> str:
        """The root of a new trace (W3C trace context). Every hop records spans of it if it is sampled."""
        ids = self.random_bytes(24)
        is_sampled = int.from_bytes(ids[8:16], "big") < self.sampled_share * 2**64
        return f"00-{ids[:16].hex()}-{ids[16:].hex()}-{'01' if is_sampled else '00'}"

    # Refusals.

    def note_refusal(
        self,
        refuse: Refuse,
        *,
        request_method: str,
        call_id: str,
        traceparent: str,
        source: str,
        account_id: str = "",
        passed: tuple[str, ...] = (),
        rules: Rules | None = None,
    ) -> None:
        """Report a refusal with its chain of rules: `passed` are the rules that let it through before."""
        self.stats.refused += 1
        if self._decisions.take(DECISIONS, self.mono_s):
            self.stats.decisions_dropped += 1
            return
        chain = tuple(RuleResult(rule, Mode.ENFORCE) for rule in passed)
        refused = RuleResult(
            refuse.rule,
            Mode.ENFORCE,
            refused=refuse,
            counter=refuse.counter,
            value=refuse.value,
            limit=refuse.limit or None,
            window=refuse.window,
        )
        self.effects.append(
            EdgeDecision(
                event_id=self.new_id(),
                at_s=self.unix_s,
                call_id=call_id[:CALL_ID_MAX],
                traceparent=traceparent,
                method=request_method,
                refuse=refuse,
                rules=(*chain, refused),
                revision=(rules or self.book.default).revision,
                account_id=account_id,
                source=source,
            )
        )


def unavailable(what: str, *, overloaded: bool = False) -> Refuse:
    """The refusal for a question that had no answer."""
    reason = Reason.OVERLOAD if overloaded else Reason.UNAVAILABLE
    return Refuse(reason, what, text=f"{what} can't be asked")
