"""Messages that several tests speak of."""

from __future__ import annotations

from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.transaction import Peer

CALLER = Peer(SocketAddress("192.0.2.1", 5060))
CALLEE = Peer(SocketAddress("192.0.2.2", 5060))

SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n"

INVITE = (
    b"INVITE sip:+4930123456@sip.example.com;user=phone SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds;rport\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice Liddell" <sip:alice@sip.example.com>;tag=1928301774\r\n'
    b"To: <sip:+4930123456@sip.example.com>\r\n"
    b"Call-ID: a84b4c76e66710@192.0.2.1\r\n"
    b"CSeq: 314159 INVITE\r\n"
    b"Contact: <sip:alice@192.0.2.1:5060;ob>\r\n"
    b"Allow: PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER, MESSAGE, OPTIONS\r\n"
    b"Supported: replaces, 100rel, timer, norefersub\r\n"
    b"User-Agent: Phone 3.1\r\n"
    b"Content-Type: application/sdp\r\n"
    b"Content-Length: %d\r\n\r\n" % len(SDP)
) + SDP


def request(data: bytes = INVITE) -> Request:
    message = parse(data)
    assert isinstance(message, Request)
    return message


def response(data: bytes) -> Response:
    message = parse(data)
    assert isinstance(message, Response)
    return message


def other(method: str, branch: str = "z9hG4bKother", cseq: int = 1, to_tag: str = "") -> Request:
    """A request of that method without body."""
    return request(
        f"{method} sip:bob@192.0.2.2 SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}\r\n"
        "Max-Forwards: 70\r\n"
        "From: <sip:alice@example.com>;tag=a\r\n"
        f"To: <sip:bob@example.com>{f';tag={to_tag}' if to_tag else ''}\r\n"
        "Call-ID: one@192.0.2.1\r\n"
        f"CSeq: {cseq} {method}\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )


def following(invite: Request, method: str, to: str | None = None) -> Request:
    """The ACK or CANCEL of the same hop as this INVITE."""
    copy = invite.copy()
    copy.method = method
    copy.set("CSeq", f"{invite.cseq.number} {method}")
    if to is not None:
        copy.set("To", to)
    copy.set_body(b"", None)
    return request(copy.to_bytes())
