"""Reading and editing messages: framing, bounds, headers, what a proxy changes and what it leaves alone."""

import pytest

from callwarden.sip import message as message_module
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.names import SINGLE
from callwarden.sip.via import Via

from .sip_samples import INVITE, SDP, request, response

OPTIONS = (
    b"OPTIONS sip:bob@example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
    b"From: <sip:alice@example.com>;tag=a\r\n"
    b"To: <sip:bob@example.com>\r\n"
    b"Call-ID: 1\r\n"
    b"CSeq: 1 OPTIONS\r\n"
    b"%b"
    b"\r\n"
)
OK = (
    b"SIP/2.0 200 OK\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
    b"From: <sip:alice@example.com>;tag=a\r\n"
    b"To: <sip:bob@example.com>;tag=b\r\n"
    b"Call-ID: 1\r\n"
    b"CSeq: 1 OPTIONS\r\n"
    b"\r\n"
)


def options(*headers: str) -> Request:
    return request(OPTIONS % "".join(f"{header}\r\n" for header in headers).encode())


def refused(data: bytes) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse(data).validate()
    return caught.value


# Reading.


def test_a_request_in_parts() -> None:
    message = request()
    message.validate()
    assert (message.method, message.uri.user, message.uri.params) == ("INVITE", "+4930123456", {"user": "phone"})
    assert message.via == Via("UDP", "192.0.2.1", 5060, {"branch": "z9hG4bK776asdhds", "rport": None})
    assert (message.from_.display, message.from_.tag, message.to.tag) == ("Alice Liddell", "1928301774", None)
    assert (message.call_id, message.cseq) == ("a84b4c76e66710@192.0.2.1", (314159, "INVITE"))
    assert (message.max_forwards, message.expires_s) == (70, None)
    assert message.contacts[0].uri.params == {"ob": None}
    assert message.content_type == "application/sdp"
    assert message.body == SDP
    assert not message.is_in_dialog


def test_a_response_in_parts() -> None:
    message = response(OK)
    assert (message.status, message.reason) == (200, "OK")
    assert message.cseq == (1, "OPTIONS")


def test_an_untouched_message_is_written_as_it_came() -> None:
    assert request().to_bytes() == INVITE
    assert bytes(response(OK)) == OK


def test_names_are_the_same_in_any_spelling() -> None:
    message = options("S: one", "x-foo: two", "Subjects: three")
    for name in ("Subject", "s", "SUBJECT", "subJect"):
        assert message.get(name) == "one"
        assert name in message
    assert message.get("X-FOO") == "two"
    assert message.get("X-Bar") is None
    assert "X-Bar" not in message


def test_a_blank_before_the_colon_is_legal() -> None:
    data = (OPTIONS % b"").replace(b"Call-ID: 1", b"Call-ID \t:1")
    assert request(data).call_id == "1"


def test_folded_lines_are_one_line() -> None:
    message = options("Subject: one\r\n two\r\n\t three", "Supported:\r\n timer")
    assert message.get("subject") == "one two three"
    assert message.get("supported") == "timer"


def test_lists_may_be_one_line_or_many() -> None:
    message = options("Route: <sip:a,b@a;lr>, <sip:c;lr>", 'Contact: "x, y" <sip:d>;q=1', "Route: <sip:e;lr>")
    assert [str(route.uri) for route in message.routes] == ["sip:a,b@a;lr", "sip:c;lr", "sip:e;lr"]
    assert [contact.display for contact in message.contacts] == ["x, y"]


def test_keep_alive_line_ends_before_a_message_are_skipped() -> None:
    assert request(b"\r\n\r\n" + INVITE).to_bytes() == INVITE


def test_a_body_without_content_length_fills_the_datagram() -> None:
    data = (OPTIONS % b"") + b"body"
    assert parse(data).body == b"body"


def test_a_longer_body_is_cut_and_a_shorter_one_refused() -> None:
    """RFC 3261 18.3."""
    assert parse((OPTIONS % b"Content-Length: 2\r\n") + b"body").body == b"bo"
    error = refused((OPTIONS % b"l: 5\r\n") + b"body")
    assert (error.reason, error.status) == ("Body Shorter Than Content-Length", 400)
    assert error.request is not None


def test_the_star_contact_is_not_an_address() -> None:
    message = options("Contact: *", "Expires: 0")
    message.validate()
    assert (message.contact_star, message.contacts, message.expires_s) == (True, [], 0)
    assert refused(OPTIONS % b"Contact: *\r\nContact: <sip:a@b>\r\n").reason == "Bad Contact"


# Refusing.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Empty"),
        (b"\r\n\r\n", "Empty"),
        (b"\x00" * 20, "No End of Headers"),
        (INVITE.partition(b"\r\n\r\n")[0], "No End of Headers"),
        (INVITE.replace(b"\r\n", b"\n"), "No End of Headers"),
        (INVITE.replace(b"Max-Forwards: 70\r\n", b"Max-Forwards: 70\n"), "Bad Line End"),
        (INVITE.replace(b"Max-Forwards: 70\r\n", b"Max-Forwards: 70\rX: y\r\n"), "Bad Line End"),
        (INVITE.replace(b"Alice", b"Al\x00ice"), "Control Character"),
        (INVITE.replace(b"Alice", b"Al\x1b[2Jice"), "Control Character"),
        (INVITE.replace(b"a84", b"a\xe984"), "Not UTF-8"),
        (INVITE.replace(b"INVITE sip:+", b"INVITE sip:\xe9", 1), "Not UTF-8"),
        (INVITE.replace(b"alice@192", b"al\xe9ce@192"), "Not UTF-8"),
        (INVITE.replace(b"Call-ID: ", b"Call-ID "), "Header Without Colon"),
        (INVITE.replace(b"Max-Forwards: 70", b"Subject"), "Header Without Colon"),
        (INVITE.replace(b"Max-Forwards: 70", b"x"), "Header Without Colon"),
        (INVITE.replace(b"Supported: ", b"Supp orted: "), "Bad Header Name"),
        (INVITE.replace(b"Supported: ", b": "), "Bad Header Name"),
        (INVITE.replace(b"INVITE sip", b"INV(TE sip", 1), "Bad Method"),
        (INVITE.replace(b"INVITE sip", b" sip", 1), "Bad Method"),
        (INVITE.replace(b"INVITE sip", b"A" * 65 + b" sip", 1), "Bad Method"),
        (INVITE.replace(b" SIP/2.0\r\n", b"\r\n", 1), "Bad Request Line"),
        (INVITE.replace(b" SIP/2.0\r\n", b" HTTP/1.1\r\n", 1), "Bad Request Line"),
        (INVITE.replace(b"CSeq: 314159 INVITE", b"CSeq: 314159 BYE"), "CSeq Method Mismatch"),
        (INVITE.replace(b"CSeq: 314159", b"CSeq: 2147483648"), "Bad CSeq"),
        (INVITE.replace(b"CSeq: 314159", "CSeq: ١".encode()), "Bad CSeq"),
        (INVITE.replace(b"SIP/2.0/UDP", b"SIP/2.0 UDP"), "Bad Via"),
        (INVITE.replace(b"192.0.2.1:5060;branch", b"192.0.2.1:99999;branch"), "Bad Port"),
        (INVITE.replace(b"Max-Forwards: 70", b"Max-Forwards: 256"), "Bad Max-Forwards"),
        (INVITE.replace(b"Max-Forwards: 70", b"Max-Forwards: -1"), "Bad Max-Forwards"),
        (INVITE.replace(b"Content-Length: ", b"Content-Length: +"), "Bad Content-Length"),
        (INVITE.replace(b"Call-ID: a84", b"Call-ID: a 84"), "Bad Call-ID"),
        (INVITE.replace(b"tag=1928301774", b"tag=1;tag=2"), "Repeated Parameter"),
        (INVITE.replace(b"sip:alice@192", b"sip:alice@@192"), "Bad URI"),
        (OK.replace(b"200 OK", b"099 OK"), "Bad Status Code"),
        (OK.replace(b"200 OK", b"700 OK"), "Bad Status Code"),
        (OK.replace(b"200 OK", b"2000 OK"), "Bad Status Code"),
        (OK.replace(b"SIP/2.0 200", b"SIP/3.0 200"), "Version Not Supported"),
    ],
)
def test_what_is_not_sip_is_refused(data: bytes, reason: str) -> None:
    assert refused(data).reason == reason


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_each_required_header_is_required(name: str) -> None:
    lines = [line for line in INVITE.split(b"\r\n") if not line.startswith(name.encode() + b":")]
    error = refused(b"\r\n".join(lines))
    assert (error.reason, error.request) == ("Missing Header", None)


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_no_singleton_may_be_repeated(name: str) -> None:
    line = f"{name}: 1\r\n".encode()
    assert refused(OPTIONS % (line + line)).reason == "Repeated Header"


def test_a_repetition_is_seen_through_compact_forms() -> None:
    assert refused(OPTIONS % b"i: 2\r\n").reason == "Repeated Header"


def test_what_is_refused_when_it_is_read_can_be_answered_too() -> None:
    message = request(INVITE.replace(b"To: <sip:", b"To: <sip:@").replace(b"INVITE sip:+49", b"INVITE sip:@"))
    for name in ("to", "uri"):
        with pytest.raises(Malformed) as caught:
            getattr(message, name)
        assert caught.value.request is message


def test_an_ack_is_never_answered() -> None:
    data = INVITE.replace(b"INVITE", b"ACK")
    assert refused(data.replace(b"sip:alice@192", b"sip:alice@@192")).request is None
    assert refused(data.replace(b"CSeq: 314159 ACK", b"CSeq: 314159 BYE")).request is None


def test_a_reason_holds_nothing_of_the_input() -> None:
    """The reasons are a closed list of fixed texts: what an attacker sends is neither logged nor sent back."""
    for data in (INVITE.replace(b"sip:alice@192", b"sip:evil@@192"), INVITE.replace(b"INVITE sip", b"EV(L sip", 1)):
        error = refused(data)
        assert "evil" not in f"{error!r} {error} {error.reason}".lower()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (INVITE + b"x" * message_module.MESSAGE_BYTES_MAX, 513),
        (OPTIONS % b"".join(b"X-%d: %s\r\n" % (n, b"y" * 900) for n in range(40)), 513),
        (OPTIONS % (b"X: y\r\n" * message_module.HEADERS_MAX), 513),
        (OPTIONS % (b"X: " + b"y" * message_module.LINE_MAX + b"\r\n"), 513),
        (OPTIONS % (b"x" * 200 + b": y\r\n"), 400),
        (OPTIONS % (b"Via: " + b", ".join([b"SIP/2.0/UDP a"] * 71) + b"\r\n"), 400),
        (OPTIONS % (b"Via: SIP/2.0/UDP a\r\n" * 71), 400),
        (OPTIONS % (b"Contact: <sip:a>" + b"".join(b";a%d" % n for n in range(65)) + b"\r\n"), 400),
        (OPTIONS % (b"Contact: <sip:a" + b"".join(b";a%d" % n for n in range(65)) + b">\r\n"), 400),
        (OPTIONS % (b"Contact: <sip:" + b"a" * 3000 + b"@b>\r\n"), 414),
    ],
)
def test_everything_has_a_bound(data: bytes, status: int) -> None:
    assert refused(data).status == status


# Editing.


def test_headers_are_added_replaced_and_taken_away() -> None:
    message = options("X-A: 1", "X-B: 2", "x-a: 3")
    message.set("X-A", "4")
    assert message.headers()[-2:] == [("x-a", "4"), ("x-b", "2")]
    message.add("X-A", "5")
    message.add_first("X-A", "6")
    assert message.get_all("x-a") == ["6", "4", "5"]
    message.remove("X-A")
    message.remove("X-A")
    assert "x-a" not in message
    assert request(message.to_bytes()).headers() == message.headers()


@pytest.mark.parametrize("value", ["a\r\nEvil: yes", "a\nb", "a\rb"])
def test_nothing_can_be_smuggled_in_by_a_line_break(value: str) -> None:
    message = options()
    for edit in (message.add, message.add_first, message.set):
        with pytest.raises(ValueError):
            edit("X-A", value)
        with pytest.raises(ValueError):
            edit("Subject", value)
    with pytest.raises(ValueError):
        message.set_uri(f"sip:{value}")
    assert message.to_bytes() == OPTIONS % b""


def test_an_edit_is_seen_by_what_was_read_before() -> None:
    message = options("Contact: <sip:a@b>")
    assert (message.to.tag, message.contacts[0].uri.user, message.uri.user, message.via.branch) == (
        None,
        "a",
        "bob",
        "z9hG4bK1",
    )
    message.set("To", "<sip:bob@example.com>;tag=b")
    message.add("Contact", "<sip:c@d>")
    message.set_uri("sip:carol@example.com")
    message.push_via("SIP/2.0/TCP x;branch=z9hG4bK2")
    assert message.is_in_dialog
    assert [contact.uri.user for contact in message.contacts] == ["a", "c"]
    assert (message.uri.user, message.via.branch) == ("carol", "z9hG4bK2")


def test_a_copy_is_changed_alone() -> None:
    first = request()
    _ = first.to
    second = first.copy()
    second.set("To", "<sip:bob@example.com>;tag=b")
    second.push_via("SIP/2.0/UDP x;branch=z9hG4bK2")
    second.set_uri("sip:x@y")
    second.set_body(b"", None)
    assert first.to_bytes() == INVITE
    assert first.to.tag is None
    reply = response(OK)
    other = reply.copy()
    other.pop_via()
    assert reply.to_bytes() == OK


def test_a_proxy_changes_its_own_lines_and_no_other() -> None:
    message = request()
    before = INVITE.split(b"\r\n")
    message.stamp_source("203.0.113.5", 4321)
    assert message.decrement_max_forwards() == 70
    message.push_record_route("sip:edge.example.com;lr")
    message.push_via("SIP/2.0/UDP edge.example.com;branch=z9hG4bKe")
    message.set_uri("sip:bob@192.0.2.2")
    after = message.to_bytes().split(b"\r\n")
    assert [line for line in after if line not in before] == [
        b"INVITE sip:bob@192.0.2.2 SIP/2.0",
        b"Record-Route: <sip:edge.example.com;lr>",
        b"Via: SIP/2.0/UDP edge.example.com;branch=z9hG4bKe",
        b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds;rport=4321;received=203.0.113.5",
        b"Max-Forwards: 69",
    ]
    message.pop_via()
    assert message.via.received == "203.0.113.5"


def test_vias_and_routes_in_one_line_are_taken_from_its_front() -> None:
    message = options("Route: <sip:a;lr>,<sip:b;lr> , <sip:c;lr>", "Route: <sip:d;lr>")
    message.set("v", "SIP/2.0/UDP a;branch=z9hG4bKa, SIP/2.0/UDP b;branch=z9hG4bKb")
    message.pop_via()
    assert message.get_all("via") == ["SIP/2.0/UDP b;branch=z9hG4bKb"]
    message.pop_route()
    message.pop_route()
    assert message.get_all("route") == ["<sip:c;lr>", "<sip:d;lr>"]
    message.pop_route()
    message.pop_route()
    assert message.routes == []
    message.pop_route()
    message.push_route("sip:e;lr")
    assert [str(route) for route in message.routes] == ["<sip:e;lr>"]


def test_the_top_via_is_stamped_though_others_stand_in_its_line() -> None:
    message = options()
    message.set("Via", "SIP/2.0/UDP a;branch=z9hG4bKa, SIP/2.0/UDP b;branch=z9hG4bKb")
    message.stamp_source("192.0.2.1", 5060)
    assert [str(via) for via in message.vias] == [
        "SIP/2.0/UDP a;branch=z9hG4bKa;received=192.0.2.1",
        "SIP/2.0/UDP b;branch=z9hG4bKb",
    ]


def test_a_missing_max_forwards_is_added_and_zero_stays_zero() -> None:
    message = options()
    assert message.decrement_max_forwards() == 70
    assert message.max_forwards == 70
    message.set("Max-Forwards", "0")
    assert message.decrement_max_forwards() == 0
    assert message.max_forwards == 0


def test_a_new_record_route_stands_above_older_ones() -> None:
    message = options("Record-Route: <sip:a;lr>")
    message.push_record_route("sip:b;lr")
    assert [route.uri.host for route in message.record_routes] == ["b", "a"]


def test_a_body_is_set_with_its_type_and_length() -> None:
    message = options("Content-Length: 0")
    message.set_body(b"v=0\r\n", "application/sdp")
    assert request(message.to_bytes()).body == b"v=0\r\n"
    assert message.get("content-length") == "5"
    message.set_body(b"", None)
    assert "content-type" not in message
    assert message.get("content-length") == "0"


def test_messages_show_nothing_but_their_kind() -> None:
    """A repr ends up in logs; numbers and bodies must not."""
    assert repr(request()) == "<Request INVITE>"
    assert repr(Response(404, "Not Found", [], [])) == "<Response 404>"
