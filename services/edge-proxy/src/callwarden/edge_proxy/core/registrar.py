"""The registrar (RFC 3261 10.3): who may register what, and which bindings that leaves.

In: a REGISTER of an authenticated user and the bindings it had. Out: who it is (`registration`), keeping (adapters).
"""

import re
from dataclasses import dataclass, replace

from callwarden.edge_proxy.core.locations import Binding, Location
from callwarden.kernel.clock import UnixS
from callwarden.sip.address import SocketAddress
from callwarden.sip.build import Headers
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request
from callwarden.sip.nameaddr import NameAddr
from callwarden.sip.uri import parse_uri

EXPIRES_DEFAULT_S = 3_600  # RFC 3261 10.2
EXPIRES_MAX_S = 7_200  # A phone that was unplugged is called for that long at most.
EXPIRES_MIN_S = 60  # What keeps a NAT open over UDP; less is only load.
BINDINGS_MAX = 10  # Phones of one user; no user needs more to ring at once.
URI_MAX = 512
_is_q = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
TEXT_MAX = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to answer, and the new location; None: nothing changes."""

    status: int
    reason: str | None = None
    headers: Headers = ()
    location: Location | None = None


def register(
    request: Request,
    *,
    realm: str,
    username: str,
    account_id: str,
    source: SocketAddress,
    current: Location | None,
    unix_s: UnixS,
) -> Outcome:
    """RFC 3261 10.3 steps 5 to 8 for an authenticated user."""
    try:
        return _register(
            request,
            Location(realm, username, current.live(unix_s) if current else ()),
            account_id,
            source,
            unix_s,
        )
    except Malformed as error:
        return Outcome(400, error.reason)


def _register(request: Request, location: Location, account_id: str, source: SocketAddress, unix_s: UnixS) -> Outcome:
    call_id, cseq = request.call_id, request.cseq.number
    if "require" in request:
        # 8.2.2.3, 10.3 step 2: we support no extension that a phone could insist on.
        return Outcome(420, None, [("Unsupported", ", ".join(request.elements("require")))])
    if request.contact_star:
        if request.expires_s != 0 or len(request.get_all("contact")) > 1:
            return Outcome(400, "Contact * Needs Expires 0")  # 10.3 step 6
        if any(_is_old(binding, call_id, cseq) for binding in location.bindings):
            return Outcome(500, "Out Of Order")
        return _outcome(replace(location, bindings=()), unix_s)
    bindings = location.bindings
    contacts = request.contacts
    if not contacts:
        return Outcome(200, None, _contact_headers(location, unix_s))  # a query: 10.3 step 6 and 8
    if len(contacts) > BINDINGS_MAX:
        return Outcome(403, "Too Many Contacts")
    for contact in contacts:
        expires_s = _expires_s(contact, request)
        if 0 < expires_s < EXPIRES_MIN_S:
            return Outcome(423, None, [("Min-Expires", str(EXPIRES_MIN_S))])
        if not contact.uri.is_sip or len(str(contact.uri)) > URI_MAX:
            return Outcome(400, "Bad Contact")
        for old in [b for b in bindings if _is_same(b, contact)]:
            if _is_old(old, call_id, cseq):
                return Outcome(500, "Out Of Order")  # 10.3 step 7: the whole request fails
            bindings = tuple(b for b in bindings if b is not old)
        if expires_s:
            bindings = (_binding(request, contact, expires_s, account_id, source, unix_s), *bindings)
    # A phone that takes a new port at each start would lock its user out: the oldest go.
    return _outcome(replace(location, bindings=bindings[:BINDINGS_MAX]), unix_s)


def _binding(
    request: Request, contact: NameAddr, expires_s: int, account_id: str, source: SocketAddress, unix_s: UnixS
) -> Binding:
    return Binding(
        uri=str(contact.uri),
        received=_reached_at(contact, source),
        q=_q(contact),
        expires_s=unix_s + min(expires_s, EXPIRES_MAX_S),
        call_id=request.call_id[:TEXT_MAX],
        cseq=request.cseq.number,
        account_id=account_id,
        instance_id=_instance(contact),
        user_agent=_text(request.get("user-agent") or ""),
    )


def _text(value: str) -> str:
    """A header that isn't ours to judge, to be kept: bytes that are no UTF-8 become question marks."""
    return value[:TEXT_MAX].encode(errors="replace").decode()


def _outcome(location: Location, unix_s: UnixS) -> Outcome:
    return Outcome(200, None, _contact_headers(location, unix_s), location)


def _contact_headers(location: Location, unix_s: UnixS) -> list[tuple[str, str]]:
    return [
        ("Contact", f"<{binding.uri}>{_q_text(binding)};expires={max(0, int(binding.expires_s - unix_s))}")
        for binding in location.bindings
    ]


def _expires_s(contact: NameAddr, request: Request) -> int:
    """The contact's own expires, or the header, or the default (10.2.1.1). A bad value means the default (20.10)."""
    text = contact.params.get("expires")
    text = (request.get("expires") or "") if text is None else text.strip('"')
    if not (text.isascii() and text.isdigit()):
        return EXPIRES_DEFAULT_S  # none, or a date, as phones of RFC 2543 write it
    return int(text) if len(text) <= 10 else EXPIRES_MAX_S


def _q(contact: NameAddr) -> float | None:
    """How much the phone is preferred (20.10), None where it doesn't say."""
    text = contact.params.get("q")
    return float(text) if text is not None and _is_q(text) is not None else None


def _q_text(binding: Binding) -> str:
    return "" if binding.q is None else f";q={binding.q:.3g}"


def _instance(contact: NameAddr) -> str:
    """Which phone it is, and which of its flows (RFC 5626 4.1, 4.2)."""
    instance = (contact.params.get("+sip.instance") or "").strip('"')
    flow = contact.params.get("reg-id")
    return f"{instance};reg-id={flow}"[:TEXT_MAX] if instance and flow else instance[:TEXT_MAX]


def _reached_at(contact: NameAddr, source: SocketAddress) -> SocketAddress:
    """Where the phone gets its calls: at its Contact where that is in front of any NAT, else where it sent from."""
    try:
        named = contact.uri.endpoint
    except Malformed:
        return source
    return named if isinstance(named, SocketAddress) and named.host == source.host else source


def _is_same(binding: Binding, contact: NameAddr) -> bool:
    """The same Contact (10.3 step 7: by 19.1.4), or the same phone at another place since it was restarted."""
    instance = _instance(contact)
    if instance and binding.instance_id == instance:
        return True
    return parse_uri(binding.uri).matches(contact.uri)


def _is_old(binding: Binding, call_id: str, cseq: int) -> bool:
    """An update that was overtaken by a later one of the same phone (10.3 step 7)."""
    return binding.call_id == call_id[:TEXT_MAX] and cseq <= binding.cseq
