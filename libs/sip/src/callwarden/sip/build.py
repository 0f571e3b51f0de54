"""Messages made by us: answers to a request (RFC 3261 8.2.6), requests from nothing, ACK and CANCEL for a request sent.

In: values.  Out: chance; tags and branches are either given or derived by a keyed hash from the request, so that a
stateless server gives the same answer to a retransmission (RFC 3261 8.2.7, 16.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2s

from callwarden.sip.headers import MAX_FORWARDS_DEFAULT
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response, header_lines
from callwarden.sip.via import MAGIC_COOKIE

Headers = Sequence[tuple[str, str]]

# RFC 3261 21, and those of its extensions that a proxy or this system answers with.
REASONS = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",  # RFC 4028
    423: "Interval Too Brief",
    428: "Use Identity Header",  # RFC 8224
    430: "Flow Failed",  # RFC 5626
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    485: "Ambiguous",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
    607: "Unwanted",  # RFC 8197
    608: "Rejected",  # RFC 8688
}

_DIALOG_FORMING = ("INVITE", "SUBSCRIBE", "REFER", "NOTIFY")


def response(
    request: Request,
    status: int,
    reason: str | None = None,
    *,
    to_tag: str | None = None,
    headers: Headers = (),
    body: bytes = b"",
) -> Response:
    """An answer to the request: its Via*, From, To, Call-ID, CSeq, and what a status needs besides.

    ``to_tag`` goes into a To without tag; None derives one from the request (``local_tag``) for all but 100.
    Record-Route is copied where the answer can form a dialog (RFC 3261 12.1.1), Timestamp into a 100 (8.2.6.1).
    A body comes with its Content-Type in ``headers``.
    """
    keys: list[str] = []
    lines: list[str] = []
    dialog = 100 < status < 300 and request.method in _DIALOG_FORMING
    for key, line in zip(request._keys, request._lines, strict=True):
        match key:
            case "via" | "from" | "call-id" | "cseq":
                pass
            case "to":
                if status > 100 and not _has_tag(request):
                    line = f"{line};tag={local_tag(request) if to_tag is None else to_tag}"
            case "record-route" if dialog:
                pass
            case "timestamp" if status == 100:
                pass
            case _:
                continue
        keys.append(key)
        lines.append(line)
    if headers:
        more_keys, more_lines = header_lines(headers)
        keys += more_keys
        lines += more_lines
    keys.append("content-length")
    lines.append(f"Content-Length: {len(body)}")
    return Response(status, REASONS.get(status, "Unknown") if reason is None else _line(reason), keys, lines, body)


def request(
    method: str,
    uri: str,
    *,
    via: str,
    from_: str,
    to: str,
    call_id: str,
    cseq: int,
    routes: Sequence[str] = (),
    max_forwards: int = MAX_FORWARDS_DEFAULT,
    headers: Headers = (),
    body: bytes = b"",
) -> Request:
    """A request from nothing; the arguments are header values as on the wire.

    ``from_`` carries its tag.  Raises ValueError for line breaks in a value.
    """
    if " " in uri:
        raise ValueError("blank in a Request-URI")
    keys, lines = header_lines(
        [
            ("Via", via),
            ("Max-Forwards", str(max_forwards)),
            *[("Route", route) for route in routes],
            ("From", from_),
            ("To", to),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} {method}"),
            *headers,
            ("Content-Length", str(len(body))),
        ]
    )
    return Request(_line(method), _line(uri), keys, lines, body)


def ack(invite: Request, response: Response) -> Request:
    """The ACK for a non-2xx answer to an INVITE we sent, in the same transaction (RFC 3261 17.1.1.3)."""
    return _hop(invite, "ACK", response)


def cancel(invite: Request) -> Request:
    """The CANCEL for an INVITE we sent (RFC 3261 9.1)."""
    return _hop(invite, "CANCEL", None)


def _hop(invite: Request, method: str, response: Response | None) -> Request:
    keys = ["via", "max-forwards"]
    lines = [f"Via: {invite.via}", f"Max-Forwards: {MAX_FORWARDS_DEFAULT}"]
    for key, line in zip(invite._keys, invite._lines, strict=True):
        match key:
            case "route" | "from" | "call-id":
                pass
            case "to":
                if response is not None:
                    line = f"To: {response.get('to')}"
            case "cseq":
                line = f"CSeq: {invite.cseq.number} {method}"
            case _:
                continue
        keys.append(key)
        lines.append(line)
    keys.append("content-length")
    lines.append("Content-Length: 0")
    return Request(method, invite.uri_text, keys, lines)


def local_tag(request: Request, secret: bytes = b"") -> str:
    """The tag a stateless server puts into To: the same for a request, its retransmissions, its CANCEL and its ACK.

    So the edge knows the ACK to its own stateless 407: ``ack.to.tag == local_tag(ack, secret)``.  ``secret`` (up to 32
    bytes) keeps others from computing it.
    """
    return _digest(request, secret, "")


def stateless_branch(request: Request, secret: bytes = b"") -> str:
    """The branch for a request passed on without a transaction, such as an ACK to a 2xx (RFC 3261 16.11)."""
    return MAGIC_COOKIE + _digest(request, secret, f"{request.cseq.method}|{request.uri_text}")


def _digest(request: Request, secret: bytes, more: str) -> str:
    via = request.via
    text = (
        f"{via.params.get('branch')}|{via.sent_by}|{request.call_id}|{request.get('from')}|{request.cseq.number}|{more}"
    )
    return blake2s(text.encode(errors="surrogateescape"), key=secret, digest_size=10).hexdigest()


def _has_tag(request: Request) -> bool:
    try:
        return request.to.tag is not None
    except Malformed:
        return True  # A To that can't be read is sent back as it came, with the 400 that it deserves.


def _line(text: str) -> str:
    if "\r" in text or "\n" in text:
        raise ValueError("line break in a start line")
    return text
