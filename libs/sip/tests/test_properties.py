"""What holds for any bytes, and for any message."""

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callwarden.sip.grammar import parse_params, quote, split_list, unquote
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import HEADERS_MAX, SipMessage, parse
from callwarden.sip.nameaddr import NameAddr, parse_name_addr
from callwarden.sip.uri import Uri, parse_uri
from callwarden.sip.via import Via, parse_via

from ..fuzz.exercise import exercise  # noqa: TID252 - no package of its own, only test files
from .sip_samples import INVITE, request

TOKEN = st.text("abcXYZ019-.!%*_+`'~", min_size=1, max_size=12)
# Whatever may stand in a line: text without line ends, controls and surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
LABEL = st.text("abz019", min_size=1, max_size=8)
HOST = st.lists(LABEL, min_size=1, max_size=3).map(".".join) | st.sampled_from(["[2001:db8::1]", "[::]", "192.0.2.1"])
PORT = st.none() | st.integers(1, 65535)
PARAMS = st.dictionaries(TOKEN.map(str.lower), st.none() | TOKEN | TEXT.map(lambda text: quote(text)), max_size=6)
URI_PARAMS = st.dictionaries(
    st.text("abc-_.!~*'()19", min_size=1, max_size=8),
    st.none() | TOKEN.map(lambda t: t.replace("%", "").replace("`", "")),
    max_size=4,
)
USER = st.text("abcXYZ019-_.!~*'()&=+$,;?/#", min_size=1, max_size=20)
URI = st.builds(
    Uri,
    scheme=st.sampled_from(["sip", "sips"]),
    user=USER | st.none(),
    password=st.none(),
    host=HOST,
    port=PORT,
    params=URI_PARAMS,
    headers=st.just(""),
    opaque=st.just(""),
)
HEADERS = [
    b"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n",
    b"Call-ID: 2\r\n",
    b"l: 3\r\n",
    b"Route: <sip:a;lr>, <sip:b>\r\n",
]
BITS = [
    b"\r\n",
    b"\r\n ",
    b"\n",
    b"\x00",
    b"\xc3\xa9",
    b"\xff",
    b" " * 300,
    *(bytes([byte]) for byte in b'"\\<>,;:=%@['),
]
SPLICES = st.sampled_from([*HEADERS, *BITS])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    exercise(data)


@given(
    st.lists(st.tuples(st.integers(0, len(INVITE)), st.integers(0, 12), SPLICES | st.binary(max_size=6)), max_size=5)
)
@settings(max_examples=300)
def test_any_damage_to_a_message_is_read_or_refused(damages: list[tuple[int, int, bytes]]) -> None:
    data = INVITE
    for at, cut, insert in damages:
        data = data[:at] + insert + data[at + cut :]
    exercise(data)


@given(st.lists(st.tuples(TOKEN.map(lambda name: f"X-{name}"), TEXT), max_size=20), st.binary(max_size=100))
def test_unknown_headers_and_bodies_pass_untouched(headers: list[tuple[str, str]], body: bytes) -> None:
    message = request()
    for name, value in headers:
        message.add(name, value)
    message.set_body(body, "application/octet-stream")
    again = parse(message.to_bytes())
    assert again.headers() == message.headers()
    assert again.to_bytes() == message.to_bytes()
    assert again.body == body


@given(TEXT)
def test_any_text_survives_its_quotes(text: str) -> None:
    assert unquote(quote(text)) == text


@given(URI)
def test_uris_survive_the_round_trip(uri: Uri) -> None:
    assert parse_uri(str(uri)) == uri
    assert uri.matches(parse_uri(str(uri)))


@given(st.builds(NameAddr, TEXT, URI, PARAMS))
def test_addresses_survive_the_round_trip(address: NameAddr) -> None:
    assert parse_name_addr(str(address)) == address


@given(st.builds(Via, st.sampled_from(["UDP", "TCP", "TLS", "WSS"]), HOST, PORT, PARAMS))
def test_vias_survive_the_round_trip(via: Via) -> None:
    assert parse_via(str(via)) == via


@given(st.lists(st.builds(NameAddr, TEXT, URI, PARAMS), min_size=1, max_size=5))
def test_a_list_of_addresses_is_taken_apart_as_it_was_put_together(addresses: list[NameAddr]) -> None:
    texts = [str(address) for address in addresses]
    assert split_list(", ".join(texts)) == texts
    message = request()
    message.set("Contact", ", ".join(texts))
    assert request(message.to_bytes()).contacts == addresses


@given(st.text(max_size=60))
@example(" " * 60)
def test_the_parts_read_any_text_or_refuse_it(text: str) -> None:
    for read in (parse_uri, parse_name_addr, parse_via, parse_params, split_list):
        try:
            read(text)
        except Malformed:
            pass


def work(data: bytes) -> int:
    """How many lines of our Python run for this input."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        message: SipMessage = parse(data)
        message.validate()
    except Malformed:
        pass
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize(
    "header",
    ["X-A: b\r\n", "Via: SIP/2.0/UDP a;b;c\r\n", "Contact: <sip:a@b>;c=d\r\n", "Route: <sip:a;lr>,\r\n <sip:b;lr>\r\n"],
)
def test_twice_the_headers_are_at_most_twice_the_work(header: str) -> None:
    head, _, rest = INVITE.partition(b"Content-Type")

    def sized(count: int) -> bytes:
        return head + header.encode() * count + b"Content-Type" + rest

    base = work(sized(0))
    few, many = work(sized(HEADERS_MAX // 8)) - base, work(sized(HEADERS_MAX // 4)) - base
    assert 0 < few < many <= 2 * few + 10


@pytest.mark.parametrize("part", [";p%d", ", <sip:a@b>", ';q="%d,;"'])
def test_a_longer_header_is_at_most_so_much_more_work(part: str) -> None:
    def sized(count: int) -> bytes:
        value = "<sip:a@b>" + "".join(part.replace("%d", str(number)) for number in range(count))
        return INVITE.replace(b"<sip:alice@192.0.2.1:5060;ob>", value.encode())

    base = work(sized(0))
    few, many = work(sized(10)) - base, work(sized(20)) - base
    assert 0 <= few <= many <= 2 * few + 10
