"""What we make ourselves: answers, requests, tags and branches."""

import pytest

from callwarden.sip import build
from callwarden.sip.message import parse

from .sip_samples import INVITE, following, other, request


def test_an_answer_copies_what_it_must_and_nothing_else() -> None:
    """RFC 3261 8.2.6.2."""
    invite = request()
    invite.push_record_route("sip:edge.example.com;lr")
    invite.push_via("SIP/2.0/UDP edge.example.com;branch=z9hG4bKe")
    answer = build.response(invite, 404)
    assert [name for name, _ in answer.headers()] == ["via", "via", "from", "to", "call-id", "cseq", "content-length"]
    for name in ("via", "from", "call-id", "cseq"):
        assert answer.get_all(name) == invite.get_all(name)
    assert (answer.status, answer.reason) == (404, "Not Found")
    assert answer.to._replace(params={}) == invite.to
    assert parse(answer.to_bytes()).to_bytes() == answer.to_bytes()


def test_record_routes_are_copied_where_the_answer_forms_a_dialog() -> None:
    """RFC 3261 12.1.1."""
    invite = request()
    invite.push_record_route("sip:edge.example.com;lr")
    for status, copied in ((100, False), (180, True), (200, True), (302, False), (486, False)):
        assert ("record-route" in build.response(invite, status)) is copied
    register = other("REGISTER")
    register.push_record_route("sip:edge.example.com;lr")
    assert "record-route" not in build.response(register, 200)


def test_a_100_has_no_tag_but_the_timestamp() -> None:
    invite = request()
    invite.add("Timestamp", "54")
    assert build.response(invite, 100).to.tag is None
    assert build.response(invite, 100).get("timestamp") == "54"
    assert build.response(invite, 180).get("timestamp") is None


def test_a_tag_is_added_once() -> None:
    assert build.response(request(), 200, to_tag="x").to.tag == "x"
    assert build.response(other("BYE", to_tag="theirs"), 200, to_tag="x").to.tag == "theirs"
    tricky = request(INVITE.replace(b"To: <", b'To: "a;tag=1" <'))
    assert build.response(tricky, 200, to_tag="x").to.tag == "x"


def test_headers_body_and_reason_of_an_answer() -> None:
    answer = build.response(
        request(), 503, "Too Busy", headers=[("Retry-After", "5"), ("Content-Type", "text/plain")], body=b"no"
    )
    again = parse(answer.to_bytes())
    assert (again.get("retry-after"), again.content_type, again.body) == ("5", "text/plain", b"no")
    assert answer.to_bytes().startswith(b"SIP/2.0 503 Too Busy\r\n")
    for bad in ({"reason": "a\r\nb"}, {"headers": [("X", "a\r\nb")]}):
        with pytest.raises(ValueError):
            build.response(request(), 503, **bad)


def test_a_to_that_cannot_be_read_goes_back_as_it_came() -> None:
    invite = request(INVITE.replace(b"To: <sip:", b'To: "<sip:'))
    assert build.response(invite, 400).get("to") == invite.get("to")


def test_a_stateless_server_answers_a_retransmission_alike() -> None:
    """RFC 3261 8.2.7; the same for the CANCEL and the ACK of that hop, another for the next try."""
    invite = request()
    tag = build.local_tag(invite, b"secret")
    assert build.local_tag(request(), b"secret") == tag
    assert build.local_tag(following(invite, "CANCEL"), b"secret") == tag
    assert build.local_tag(following(invite, "ACK", f"<sip:x@y>;tag={tag}"), b"secret") == tag
    assert build.local_tag(invite, b"other") != tag
    again = request()
    again.set("CSeq", "314160 INVITE")
    assert build.local_tag(again, b"secret") != tag
    stamped = request()
    stamped.stamp_source("203.0.113.1", 9)
    assert build.local_tag(stamped, b"secret") == tag


def test_a_stateless_branch_is_the_same_for_a_retransmission_only() -> None:
    """RFC 3261 16.11."""
    ack = other("ACK")
    assert build.stateless_branch(ack) == build.stateless_branch(other("ACK"))
    assert build.stateless_branch(ack).startswith("z9hG4bK")
    assert build.stateless_branch(ack) != build.stateless_branch(other("ACK", cseq=2))
    assert build.stateless_branch(ack) != build.stateless_branch(other("ACK", branch="z9hG4bKx"))
    assert build.stateless_branch(ack) != build.stateless_branch(other("BYE"))


def test_a_request_from_nothing() -> None:
    options = build.request(
        "OPTIONS",
        "sip:bob@example.com",
        via="SIP/2.0/UDP edge.example.com;branch=z9hG4bK1",
        from_="<sip:edge.example.com>;tag=a",
        to="<sip:bob@example.com>",
        call_id="1@edge",
        cseq=7,
        routes=["<sip:a;lr>", "<sip:b;lr>"],
        headers=[("X-A", "1")],
        body=b"x",
    )
    again = request(options.to_bytes())
    again.validate()
    assert [route.uri.host for route in again.routes] == ["a", "b"]
    assert (again.cseq, again.max_forwards, again.body, again.get("x-a")) == ((7, "OPTIONS"), 70, b"x", "1")


@pytest.mark.parametrize("uri", ["sip:a b", "sip:a\r\nX: y"])
def test_a_request_line_cannot_be_broken(uri: str) -> None:
    with pytest.raises(ValueError):
        build.request("OPTIONS", uri, via="", from_="", to="", call_id="", cseq=1)


def test_every_status_we_may_send_has_its_reason() -> None:
    for status in (100, 180, 200, 400, 401, 402, 403, 404, 407, 408, 416, 420, 480, 481, 483, 486, 487, 500, 503, 608):
        assert build.response(request(), status).reason == build.REASONS[status]
    assert build.response(request(), 599).reason == "Unknown"
