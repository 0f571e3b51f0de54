"""The route cookie: what the edge must know of a call when it knows nothing else of it.

It is a parameter of our Record-Route URI, comes back in the Route of every request of the dialog, and lets any
edge pod pass that request on and settle a BYE (DESIGN D6). In: the hold and its account, when the cookie ends, and
where each side speaks from (behind a NAT its Contact does not tell). Account and addresses are hidden from both sides.

Each side has a cookie of its own, and neither can make the other's of its own (DESIGN D14). The callee's is in the
INVITE, and is signed with the Call-ID and the caller's tag. The caller's is put in its place in the answers, and is
signed with the callee's tag, too. So a cookie is good for one dialog and one side of it.

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
_MAC_BYTES = 12  # of the callee's
_SIDE_MAC_BYTES = 8  # of the caller's: one shows that the call is ours, another one the callee's tag
_TEXT_MAX = 128  # Two IPv6 addresses make 115 characters.
_ATTEMPTS = 8
MARGIN_S = 3_600  # A cookie outlives the longest call by this: clocks differ, and a BYE must still pass.

_CALLER, _CALLER_V6, _CALLEE, _CALLEE_V6, _ACCOUNT = 1, 2, 4, 8, 16


class CookieFault(Enum):
    """Why a cookie is worth nothing."""

    FORGED = "forged"  # never ours, or of another call, or of the other side
    WRONG_TAG = "wrong tag"  # of this call, and of another dialog
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Cookie:
    """The content of a genuine cookie.

    `target` is where the other side is and `source` where this one speaks from; None: it is known by name only.
    """

    hold_id: UUID
    from_caller: bool
    target: SocketAddress | None
    account_id: str = ""
    source: SocketAddress | None = None


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
    """The callee's cookie, 83 characters with two IPv4 addresses. About 5 µs.

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


def for_caller(keys: EdgeKeys, text: str, call_id: str, caller_tag: str, callee_tag: str) -> str:
    """The caller's cookie, of one that `issue` made, for the dialog with this tag of the callee's. About 5 µs."""
    body = urlsafe_b64decode(text + "=" * (-len(text) % 4))[:-_MAC_BYTES]
    key = keys.cookies[body[0]]
    mac = _mac(key, body, call_id, caller_tag, b"cw-side")[:_SIDE_MAC_BYTES]
    return urlsafe_b64encode(body + mac + _mac_of_dialog(key, mac, callee_tag)).rstrip(b"=").decode()


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
    body_bytes = _HEAD_BYTES + _plain_bytes(data[_HEAD_BYTES - 1])
    body, mac = data[:body_bytes], data[body_bytes:]
    if len(mac) == 2 * _SIDE_MAC_BYTES:
        from_caller = True
        ours, of_dialog = mac[:_SIDE_MAC_BYTES], mac[_SIDE_MAC_BYTES:]
        if not from_tag or not compare_digest(_mac(key, body, call_id, from_tag, b"cw-side")[:_SIDE_MAC_BYTES], ours):
            return CookieFault.FORGED
        if not to_tag or not compare_digest(_mac_of_dialog(key, ours, to_tag), of_dialog):
            return CookieFault.WRONG_TAG
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
    source, target = (caller, callee) if from_caller else (callee, caller)
    return Cookie(UUID(bytes=data[1:17]), from_caller, target, account_id, source)


def _mac(key: bytes, body: bytes, call_id: str, caller_tag: str, person: bytes = b"cw-route") -> bytes:
    # The Call-ID's length goes first, so that no piece of it can move into the tag.
    dialog = call_id.encode()
    return blake2s(
        body + len(dialog).to_bytes(4, "big") + dialog + caller_tag.encode(),
        key=key,
        digest_size=_MAC_BYTES,
        person=person,
    ).digest()


def _mac_of_dialog(key: bytes, mac: bytes, callee_tag: str) -> bytes:
    return blake2s(mac + callee_tag.encode(), key=key, digest_size=_SIDE_MAC_BYTES, person=b"cw-tag").digest()


def _hide(key: bytes, head: bytes, data: bytes) -> bytes:
    """XOR with a key stream of 64 bytes that is the head's own; twice gives the data back."""
    if not data:
        return b""
    stream = blake2b(head, key=key, person=b"cw-hide").digest()[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")


def _plain_bytes(flags: int) -> int:
    """How much the flags say that there is between head and MAC."""
    size = 16 if flags & _ACCOUNT else 0
    if flags & _CALLER:
        size += 18 if flags & _CALLER_V6 else 6
    if flags & _CALLEE:
        size += 18 if flags & _CALLEE_V6 else 6
    return size


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
