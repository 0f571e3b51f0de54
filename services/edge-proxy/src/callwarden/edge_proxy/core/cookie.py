"""The route cookie: what the edge must know of a call when it knows nothing else of it.

It is a parameter of our Record-Route URI, comes back in the Route of every request of the dialog, and lets any
edge pod pass that request on and settle a BYE (DESIGN D6). In: the hold and its account, when the cookie ends, and
where each side really is (behind a NAT its Contact does not tell). Signed together with the Call-ID and the caller's
tag: so it is good for this one dialog, and the tag in From or To shows which side is speaking. Account and addresses
are hidden from both sides.

Out: Record-Route itself (`forwarding`), and what a request with a cookie may do (`relay`).
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import blake2b, blake2s
from hmac import compare_digest
from ipaddress import IPv4Address, IPv6Address, ip_address
from uuid import UUID

from callwarden.edge_proxy.core.keys import EdgeKeys
from callwarden.kernel import ids
from callwarden.kernel.clock import UnixS
from callwarden.sip.address import Endpoint, SocketAddress

PARAMETER = "cw"
_HEAD_BYTES = 1 + 16 + 4 + 1  # key number, hold, expiry, flags
_MAC_BYTES = 12
_TEXT_MAX = 128  # Two IPv6 addresses make 115 characters.
_ATTEMPTS = 8

_CALLER, _CALLER_V6, _CALLEE, _CALLEE_V6, _ACCOUNT = 1, 2, 4, 8, 16


class CookieFault(Enum):
    """Why a cookie is worth nothing."""

    FORGED = "forged"  # never ours, or of another dialog
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Cookie:
    """The content of a genuine cookie. `target` is where the other side is; None: it is known by name only."""

    hold_id: UUID
    from_caller: bool
    target: SocketAddress | None
    account_id: str = ""


def issue(
    keys: EdgeKeys,
    hold_id: UUID,
    expires_s: float,
    call_id: str,
    caller_tag: str,
    *,
    caller: Endpoint | None,
    callee: Endpoint | None,
    account_id: str = "",
    attempt: int = 0,
) -> str:
    """The cookie's text, 83 characters with two IPv4 addresses. About 5 µs.

    `attempt` numbers the branches of a call, so that no two cookies hide different addresses under the same key stream.
    """
    number = keys.cookie_number
    key = keys.cookies[number]
    flags = (attempt % _ATTEMPTS) << 5
    plain = b""
    if isinstance(caller, SocketAddress):
        packed = _pack(caller)
        flags |= _CALLER | (_CALLER_V6 if len(packed) > 6 else 0)
        plain += packed
    if isinstance(callee, SocketAddress):
        packed = _pack(callee)
        flags |= _CALLEE | (_CALLEE_V6 if len(packed) > 6 else 0)
        plain += packed
    account = ids.parse(account_id)
    if account is not None:
        flags |= _ACCOUNT
        plain += account.bytes
    head = bytes((number,)) + hold_id.bytes + int(expires_s).to_bytes(4, "big") + bytes((flags,))
    body = head + _hide(key, head, plain)
    return urlsafe_b64encode(body + _mac(key, body, call_id, caller_tag)).rstrip(b"=").decode()


def read(
    keys: EdgeKeys, text: str, call_id: str, from_tag: str | None, to_tag: str | None, unix_s: UnixS
) -> Cookie | CookieFault:
    """The content of a request's cookie, given the request's Call-ID and tags."""
    if len(text) > _TEXT_MAX:
        return CookieFault.FORGED
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return CookieFault.FORGED
    if len(data) < _HEAD_BYTES + _MAC_BYTES or (key := keys.cookies.get(data[0])) is None:
        return CookieFault.FORGED
    body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if from_tag and compare_digest(_mac(key, body, call_id, from_tag), mac):
        from_caller = True
    elif to_tag and compare_digest(_mac(key, body, call_id, to_tag), mac):
        from_caller = False
    else:
        return CookieFault.FORGED
    if int.from_bytes(data[17:21], "big") < unix_s:
        return CookieFault.EXPIRED
    head = body[:_HEAD_BYTES]
    plain = _hide(key, head, body[_HEAD_BYTES:])
    caller, callee = _unpack(plain, head[-1])
    account_id = str(UUID(bytes=plain[-16:])) if head[-1] & _ACCOUNT else ""
    return Cookie(UUID(bytes=data[1:17]), from_caller, callee if from_caller else caller, account_id)


def _mac(key: bytes, body: bytes, call_id: str, caller_tag: str) -> bytes:
    # The Call-ID's length goes first, so that no piece of it can move into the tag.
    dialog = call_id.encode()
    return blake2s(
        body + len(dialog).to_bytes(4, "big") + dialog + caller_tag.encode(),
        key=key,
        digest_size=_MAC_BYTES,
        person=b"cw-route",
    ).digest()


def _hide(key: bytes, head: bytes, data: bytes) -> bytes:
    """XOR with a key stream of 64 bytes that is the head's own; twice gives the data back."""
    if not data:
        return b""
    stream = blake2b(head, key=key, person=b"cw-hide").digest()[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")


@lru_cache(maxsize=4_096)  # The same phones and carriers come again; 5 µs each time otherwise.
def _pack(address: SocketAddress) -> bytes:
    return ip_address(address[0]).packed + address[1].to_bytes(2, "big")


def _unpack(data: bytes, flags: int) -> tuple[SocketAddress | None, SocketAddress | None]:
    caller = callee = None
    if flags & _CALLER:
        size = 18 if flags & _CALLER_V6 else 6
        caller, data = _address(data[:size]), data[size:]
    if flags & _CALLEE:
        callee = _address(data[: 18 if flags & _CALLEE_V6 else 6])
    return caller, callee


@lru_cache(maxsize=4_096)
def _address(data: bytes) -> SocketAddress:
    packed = data[:-2]
    host = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
    return SocketAddress(str(host), int.from_bytes(data[-2:], "big"))
