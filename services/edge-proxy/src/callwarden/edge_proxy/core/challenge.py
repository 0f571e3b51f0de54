"""Asking who it is, without remembering that we asked: signed nonces out, credentials in (RFC 3261 22, RFC 7616, 8760).

In: challenges by policy, and what a request's credentials are worth before anybody is asked. Out: passwords (auth), how
nonces are signed (callwarden.sip.digest), counting (`counters`).
"""

from collections.abc import Callable
from enum import Enum

from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.rules import Rules
from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.limits.bucket import Rate, TokenBucket
from callwarden.sip.address import SocketAddress
from callwarden.sip.digest import Algorithm, Credentials, Freshness, NonceKeys, parse_credentials
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request
from callwarden.sip.uri import parse_uri

_SALT_BYTES = 5
# They give up at any challenge that isn't MD5, wherever it stands (libre before 2.0; Debian 12 has baresip 1.0.0).
_MD5_AGENTS = ("baresip v0.", "baresip v1.")
# Notes of phones that can't answer our challenge: a User-Agent comes in packets that anybody can forge.
_NOTES = Rate(per_second=1, burst=10)
_PASSED = ("banned", "rate", "scanner")
USES_MAX = 65_536  # In each of two generations; at 500 calls/s and a nonce life of 300 s the last 130 s at least.


class CredentialsFault(Enum):
    """Why credentials aren't worth a question to auth."""

    NONE = "none"  # there are none for a realm of ours
    STALE = "stale"  # an old nonce, one of another address, one used before: ask again, counts as nothing
    UNREADABLE = "unreadable"  # not Digest, or not what it should be: a wrong message
    WRONG = "wrong"  # a fresh nonce of ours in credentials that can't be right
    ALGORITHM = "algorithm"  # a fresh nonce of ours, hashed by an algorithm that policy doesn't accept: wrong, too


class Challenger:
    """Mutable only in what it remembers of used nonces."""

    def __init__(self, keys: NonceKeys, realms: tuple[str, ...], random_bytes: Callable[[int], bytes]) -> None:
        """`realms`: those served, the first is offered where the request names none of them."""
        self._keys = keys
        self._realms = realms
        self._random_bytes = random_bytes
        self._uses = Uses()
        self._notes = TokenBucket()

    def headers(
        self, name: str, realm: str, rules: Rules, request: Request, host: str, unix_s: UnixS, *, stale: bool
    ) -> list[tuple[str, str]]:
        """The challenges as headers called `name` (WWW-Authenticate or Proxy-Authenticate), in policy's order. 8 µs."""
        offered = rules.offered
        if len(offered) > 1 and _knows_md5_only(request):
            offered = (Algorithm.MD5,)
        # Bound to the address: a nonce seen on the wire is worth nothing elsewhere, and a client that
        # answers a challenge has shown that packets reach it there.
        nonce = self._keys.issue(unix_s, self._random_bytes(_SALT_BYTES), host)
        more = ", stale=true" if stale else ""
        # As str(Challenge) has it; the realm is ours and needs no escapes. 3 µs less for each.
        return [
            (name, f'Digest realm="{realm}", nonce="{nonce}", algorithm={algorithm}, qop="auth"{more}')
            for algorithm in offered
        ]

    def examine(
        self, request: Request, name: str, rules: Rules, host: str, unix_s: UnixS
    ) -> Credentials | CredentialsFault:
        """The request's credentials for a realm of ours (header `name`), if they are worth asking about."""
        fault = CredentialsFault.NONE
        for value in request.get_all(name):
            try:
                credentials = parse_credentials(value)
            except Malformed:
                # No guess at a password, which takes a nonce of ours; the first REGISTER of an IMS phone has an empty
                # one (3GPP TS 24.229 5.1.1.2).
                if 'nonce=""' not in value:
                    fault = CredentialsFault.UNREADABLE
                continue
            if credentials.realm not in self._realms:  # for another proxy on the way (RFC 3261 22.3)
                continue
            judged = self._examine(credentials, request, rules, host, unix_s)
            if judged is not CredentialsFault.ALGORITHM:
                return judged
            fault = judged  # linphone answers all challenges at once: another of its answers may do
        return fault

    def count(
        self, fault: CredentialsFault, context: Context, request: Request, rules: Rules, source: SocketAddress
    ) -> None:
        """Counts what isn't worth a question to auth, and notes for `callwarden explain` why a phone that is too old
        for the policy can't get in: to its owner it looks like a wrong password."""
        accepted = " or ".join(sorted(rules.accepted))
        text = ""
        match fault:
            case CredentialsFault.ALGORITHM:
                context.counters.failed(source.host, source.port, "", context.mono_s)
                text = f"the phone answers by another digest algorithm; the policy accepts {accepted}"
            case CredentialsFault.WRONG:
                context.counters.failed(source.host, source.port, "", context.mono_s)
            case CredentialsFault.UNREADABLE:
                context.counters.wrong(source.host, context.mono_s)
            case CredentialsFault.NONE if Algorithm.MD5 not in rules.accepted and _knows_md5_only(request):
                # It gives up at this challenge: nothing else will come.
                if not self._notes.take(_NOTES, context.mono_s):
                    text = f"this kind of phone knows MD5 only; the policy accepts {accepted}"
            case _:
                pass
        if text:
            context.note_refusal(
                Refuse(Reason.CREDENTIALS, "digest-algorithm", text=text),
                request_method=request.method,
                call_id=request.call_id,
                traceparent=context.new_traceparent(),
                source=source.host,
                passed=_PASSED,
                rules=rules,
            )

    def is_authentic(self, request: Request, rules: Rules, host: str, unix_s: UnixS) -> bool:
        """Whether the request carries a fresh nonce that we gave to this address: it was not sent in its name."""
        for name in ("authorization", "proxy-authorization"):
            for value in request.get_all(name):
                try:
                    nonce = parse_credentials(value).nonce
                except Malformed:
                    continue
                if self._keys.check(nonce, unix_s, rules.nonce_lifetime_s, host) is Freshness.FRESH:
                    return True
        return False

    def _examine(
        self, credentials: Credentials, request: Request, rules: Rules, host: str, unix_s: UnixS
    ) -> Credentials | CredentialsFault:
        if self._keys.check(credentials.nonce, unix_s, rules.nonce_lifetime_s, host) is not Freshness.FRESH:
            return CredentialsFault.STALE
        if credentials.algorithm not in rules.accepted:
            return CredentialsFault.ALGORITHM
        if not _is_for(credentials.uri, request):
            return CredentialsFault.WRONG
        if not self._uses.is_first(credentials.nonce, credentials.nc, unix_s, rules.nonce_lifetime_s):
            return CredentialsFault.STALE
        return credentials


class Uses:
    """Which nonce was used with which count: a request that is replayed by another sender is refused.

    Kept in two generations of hashes, so that it is bounded and old ones go without being looked for. What falls out
    early under load can be replayed for the rest of its nonce's life, from the address the nonce is bound to.
    """

    __slots__ = ("_new", "_old", "_turned_s")

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()
        self._turned_s = 0.0

    def is_first(self, nonce: str, count: str, unix_s: UnixS, lifetime_s: float) -> bool:
        """Whether nonce and count (nc) come for the first time; they don't from now on."""
        if len(self._new) >= USES_MAX or unix_s - self._turned_s > lifetime_s:
            self._old, self._new, self._turned_s = self._new, set(), unix_s
        use = hash((nonce, count.lower()))
        if use in self._new or use in self._old:
            return False
        self._new.add(use)
        return True


def _knows_md5_only(request: Request) -> bool:
    return (request.get("user-agent") or "").startswith(_MD5_AGENTS)


def _is_for(uri: str, request: Request) -> bool:
    """Whether credentials for `uri` were made for this request (RFC 7616 3.4.6).

    A number that differs would let captured credentials call elsewhere. Hosts, ports and parameters differ in many
    phones, and some name no user at all; those can't be used twice anyway (`Uses`).
    """
    if uri == request.uri_text:
        return True
    try:
        user = parse_uri(uri).username
        return not user or user == request.uri.username
    except Malformed:
        return False
