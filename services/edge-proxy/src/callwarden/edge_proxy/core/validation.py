"""Whether a request can be passed on at all (RFC 3261 16.3). The faults SIP itself has statuses for.

In: one request. Out: who may send it, where it goes.
"""

import re
from hashlib import blake2s
from typing import NamedTuple

from callwarden.edge_proxy.core import tags
from callwarden.sip.build import Headers
from callwarden.sip.cseq import NUMBER_MAX
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request
from callwarden.sip.via import MAGIC_COOKIE

ALLOWED = (
    "INVITE",
    "ACK",
    "CANCEL",
    "BYE",
    "REGISTER",
    "OPTIONS",
    "PRACK",
    "UPDATE",
    "INFO",
    "REFER",
    "NOTIFY",
    "MESSAGE",
)
ALLOW = ", ".join(ALLOWED)


CALL_ID_MAX = 256  # Events, records and their consumers take no more; a UUID with a host name has a hundred.
# The number of the edge's own BYE must be higher than any before, and below 2^31 (RFC 3261 8.1.1.5).
CSEQ_MAX = NUMBER_MAX - 16_384

# Written as nearly everybody writes it; another one is read whole, at ten times the price.
_plain_contact = re.compile(
    r'(?:"[^"\\<>]*"|[A-Za-z0-9 .\-]*)[ \t]*<sips?:(?:[A-Za-z0-9\-._~+*!]+@)?'
    r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:]+\])(?::[0-9]{1,5})?(?:;[A-Za-z0-9\-.=]+)*>(?:;[A-Za-z0-9\-.=]+)*"
).fullmatch


class RequestFault(NamedTuple):
    """What to answer. `reason` None: the status's own phrase."""

    status: int
    reason: str | None = None
    headers: Headers = ()


def check(request: Request, sent_by: str, *, inside: bool = False) -> RequestFault | None:
    """The checks of RFC 3261 16.3 but for authentication; None: it may go on. `sent_by` is how we name ourselves.

    Of a request `inside` a call only the tags count; of another one From and To are read whole, because nothing later
    can report that they are unreadable.
    """
    try:
        uri = request.uri
        if uri.scheme not in ("sip", "tel"):
            return RequestFault(416)
        if request.cseq.number > CSEQ_MAX:
            return RequestFault(400, "CSeq Too High")
        if request.max_forwards == 0:
            return RequestFault(483)
        if inside:
            tags.from_tag(request)
            tags.to_tag(request)
        else:
            _ = request.from_.uri.username
            _ = request.to.uri.username
        if "proxy-require" in request:
            # We support no option of any proxy extension (16.3 step 5).
            return RequestFault(420, None, [("Unsupported", ", ".join(request.elements("proxy-require")))])
        if _is_loop(request, sent_by):
            return RequestFault(482)
    except Malformed as error:
        return RequestFault(error.status, error.reason)
    return None


def check_dialog(request: Request) -> RequestFault | None:
    """Whether the dialog that an INVITE would make can be ended by others than its sender; None: it can.

    Its BYE needs a Contact to go to, and the routes to it (RFC 3261 12.1.1).
    """
    count = request._keys.count("contact")
    if count != 1:
        return RequestFault(400, "Bad Contact" if count else "Missing Contact")
    try:
        if _plain_contact(request.get("contact") or "") is None:
            if request.contact_star or len(request.contacts) != 1 or not request.contacts[0].uri.is_sip:
                return RequestFault(400, "Bad Contact")
            _ = request.contacts[0].uri.endpoint
    except Malformed:
        return RequestFault(400, "Bad Contact")
    if "record-route" in request._keys:
        try:
            if not all(route.uri.is_sip for route in request.record_routes):
                return RequestFault(400, "Bad Record-Route")
        except Malformed:
            return RequestFault(400, "Bad Record-Route")
    return None


def fingerprint(request: Request) -> str:
    """What a looping request has in common with itself (RFC 5393 4.2.1): all that decides where it goes.

    It ends our branches, so that a request which comes back unchanged is known, and one that was given another target
    in between (a spiral) passes.
    """
    text = f"{request.uri_text}|{request.call_id}|{request.cseq}|{tags.from_tag(request)}|{tags.to_tag(request)}"
    if "route" in request:
        text += "|".join(request.get_all("route"))
    return blake2s(text.encode(), digest_size=4).hexdigest()


def _is_loop(request: Request, sent_by: str) -> bool:
    if request._keys.count("via") == 1 and request.via.sent_by != sent_by and "," not in (request.get("via") or ""):
        return False
    own = [via.branch or "" for via in request.vias if via.sent_by.lower() == sent_by]
    if not own:
        return False
    end = fingerprint(request)
    return any(branch.startswith(MAGIC_COOKIE) and branch.endswith(end) for branch in own)
