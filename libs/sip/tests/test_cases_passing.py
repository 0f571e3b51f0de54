"""Cases: what isn't read passes through as bytes, answers above all; what can't be read is said so, where it can be."""

import pytest

from callwarden.sip import build
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import HEADERS_MAX, RESPONSE_HEADERS_MAX, Request, Response, parse

pytestmark = pytest.mark.cases

BODY = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"
HEAD = [
    b"Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK1",
    b"From: <sip:alice@example.com>;tag=a",
    b"To: <sip:bob@example.com>;tag=b",
    b"Call-ID: call-1",
    b"CSeq: 1 INVITE",
    b"Contact: <sip:gw@198.51.100.1>",
]


def answer(*more: bytes, head: list[bytes] = HEAD, start: bytes = b"SIP/2.0 200 OK", length: bool = True) -> bytes:
    lines = [start, *head, *more]
    if length:
        lines.append(b"Content-Length: %d" % len(BODY))
    return b"\r\n".join([*lines, b"", b""]) + BODY


def request(*more: bytes) -> bytes:
    head = [line.replace(b";tag=b", b"") for line in HEAD]
    return answer(*more, head=head, start=b"INVITE sip:bob@example.com SIP/2.0")


PASSING = {
    "Latin-1 in Server": answer(b"Server: B\xfcro"),
    "Latin-1 in a display name": answer(
        head=[*HEAD[:2], b'To: "J\xfcrgen <x>" <sip:bob@example.com>;tag=b', *HEAD[3:]]
    ),
    "Latin-1 without quotes": answer(head=[*HEAD[:5], b"Contact: J\xfcrgen <sip:gw@198.51.100.1>"]),
    "Latin-1 reason phrase": answer(start=b"SIP/2.0 200 D\xe9j\xe0"),
    "a line without a colon": answer(b"what is this"),
    "a name with a blank": answer(b"X Y: z"),
    "a bell in a header": answer(b"X-Note: \x07"),
    "300 headers": answer(*[b"X-H%d: %d" % (n, n) for n in range(300)]),
    "a line of 20,000": answer(b"X-Long: " + b"a" * 20_000),
    "40 KB of headers": answer(*[b"X-Long: " + b"a" * 4_000 for _ in range(10)]),
    "Content-Type twice": answer(b"Content-Type: application/sdp", b"Content-Type: application/sdp"),
    "Session-Expires twice": answer(b"Session-Expires: 1800", b"Session-Expires: 1800"),
}


@pytest.mark.parametrize("data", PASSING.values(), ids=PASSING.keys())
def test_an_answer_passes_byte_for_byte(data: bytes) -> None:
    for _ in range(2):  # the second time shapes are known
        message = parse(data)
        assert isinstance(message, Response)
        assert (message.status, message.call_id, message.to.tag, str(message.contacts[0].uri.host)) == (
            200,
            "call-1",
            "b",
            "198.51.100.1",
        )
        assert message.copy().to_bytes() == data


@pytest.mark.parametrize("lengths", [(len(BODY),) * 2, (7, len(BODY)), (1, 2, 3), (b"x",), (b"-1", len(BODY))])
def test_an_answer_with_a_bad_content_length_leaves_with_a_good_one(lengths: tuple[object, ...]) -> None:
    lines = [b"Content-Length: %s" % str(n if not isinstance(n, bytes) else n.decode()).encode() for n in lengths]
    message = parse(answer(*lines, length=False))
    assert message.body == BODY
    assert message.get_all("content-length") == [str(len(BODY))]


@pytest.mark.parametrize("at", [0, 3, 4, 5], ids=["Via", "Call-ID", "CSeq", "Contact"])
def test_bytes_that_are_no_text_are_refused_where_they_are_read(at: int) -> None:
    bad = [line.replace(b"1", b"\xfc") if n == at else line for n, line in enumerate(HEAD)]
    with pytest.raises(Malformed):
        parse(answer(head=bad))


def test_a_stray_answer_of_headers_without_end_is_not_read() -> None:
    with pytest.raises(Malformed):
        parse(answer(*[b"a:"] * RESPONSE_HEADERS_MAX))


REFUSED = {
    "no colon": (request(b"what is this"), 400),
    "a name with a blank": (request(b"X Y: z"), 400),
    "Content-Length twice": (request(b"Content-Length: 1"), 400),
    "a bell": (request(b"Subject: \x07"), 400),
    "Latin-1 in what is read": (request(b"Require: \xfc"), 400),
    "too many headers": (request(*[b"a: b"] * HEADERS_MAX), 513),
    "a header too long": (request(b"Subject: " + b"a" * 9_000), 513),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_can_not_be_read_can_be_answered(data: bytes, status: int) -> None:
    with pytest.raises(Malformed) as caught:
        parse(data)
    error = caught.value
    assert error.status == status
    assert isinstance(error.request, Request)
    assert b"Call-ID: call-1" in build.response(error.request, error.status).to_bytes()


def test_a_request_with_a_name_in_latin_1_is_answered_with_it() -> None:
    data = request(b"Server: B\xfcro").replace(b"From: ", b'From: "J\xfcrgen" ')
    message = parse(data)
    assert isinstance(message, Request)
    assert message.to_bytes() == data
    assert b'From: "J\xfcrgen" <sip:alice@example.com>;tag=a' in build.response(message, 486).to_bytes()


def test_a_name_without_quotes_may_be_a_mail_address() -> None:
    message = parse(request().replace(b"From: ", b"From: alice@home "))
    assert (message.from_.display, str(message.from_.uri)) == ("alice@home", "sip:alice@example.com")
