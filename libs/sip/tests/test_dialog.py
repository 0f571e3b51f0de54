"""Dialogs as both ends see them, and as a proxy between them does."""

import pytest

from callwarden.sip import build, dialog
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.uri import Uri

from .sip_samples import request

NEAR, EDGE_IN, EDGE_OUT, FAR = "near.example.com", "edge.example.com", "10.0.0.1", "far.example.com"


def is_ours(uri: Uri) -> bool:
    return uri.host in (EDGE_IN, EDGE_OUT)


def record(message: Request, host: str) -> Request:
    message = message.copy()
    message.push_record_route(f"sip:{host};lr")
    message.push_via(f"SIP/2.0/UDP {host};branch=z9hG4bK{host}")
    return message


@pytest.fixture
def call() -> tuple[Request, Request, Request, Response]:
    """caller → near → edge (two addresses) → far → callee: INVITE as sent, at the edge, at the callee; the answer."""
    invite = request()
    at_edge = record(invite, NEAR)
    at_callee = record(record(record(at_edge, EDGE_IN), EDGE_OUT), FAR)
    ok = build.response(at_callee, 200, to_tag="callee", headers=[("Contact", "<sip:bob@192.0.2.2:5070>")])
    parsed = parse(ok.to_bytes())
    assert isinstance(parsed, Response)
    return invite, at_edge, at_callee, parsed


def hosts(message: Request) -> list[str]:
    return [route.uri.host for route in message.routes]


def test_both_ends_route_through_all_proxies_in_their_direction(
    call: tuple[Request, Request, Request, Response],
) -> None:
    invite, _, at_callee, ok = call
    caller, callee = dialog.uac(invite, ok), dialog.uas(at_callee, ok)
    _, bye = caller.request("BYE", "SIP/2.0/UDP x;branch=z9hG4bK1")
    assert hosts(bye) == [NEAR, EDGE_IN, EDGE_OUT, FAR]
    assert bye.uri_text == "sip:bob@192.0.2.2:5070"
    _, bye = callee.request("BYE", "SIP/2.0/UDP x;branch=z9hG4bK1")
    assert hosts(bye) == [FAR, EDGE_OUT, EDGE_IN, NEAR]
    assert bye.uri_text == "sip:alice@192.0.2.1:5060;ob"
    assert caller.id == (invite.call_id, "1928301774", "callee")
    assert callee.id == (invite.call_id, "callee", "1928301774")


def test_the_proxy_between_ends_the_call_at_both_sides_as_if_from_the_other(
    call: tuple[Request, Request, Request, Response],
) -> None:
    invite, at_edge, at_callee, ok = call
    as_caller, as_callee = dialog.between(at_edge, ok, is_ours)

    # To the callee: what the caller would send, minus the hops before us.
    _, theirs = dialog.uac(invite, ok).request("BYE", "SIP/2.0/UDP x;branch=z9hG4bK1")
    _, bye = as_caller.request("BYE", "SIP/2.0/UDP edge;branch=z9hG4bK1", headers=[("Reason", "SIP;cause=402")])
    assert hosts(bye) == [FAR]
    for name in ("from", "to", "call-id", "cseq"):
        assert bye.get(name) == theirs.get(name)
    assert bye.uri_text == theirs.uri_text
    assert bye.cseq == (314160, "BYE")
    assert bye.get("reason") == "SIP;cause=402"

    # To the caller: what the callee would send, minus the hops beyond us.
    _, theirs = dialog.uas(at_callee, ok).request("BYE", "SIP/2.0/UDP x;branch=z9hG4bK1")
    _, bye = as_callee.request("BYE", "SIP/2.0/UDP edge;branch=z9hG4bK1")
    assert hosts(bye) == [NEAR]
    for name in ("from", "to", "call-id", "cseq"):
        assert bye.get(name) == theirs.get(name)
    assert bye.uri_text == theirs.uri_text
    request(bye.to_bytes()).validate()


def test_an_answer_without_record_routes_leaves_the_callee_reached_directly(
    call: tuple[Request, Request, Request, Response],
) -> None:
    _, at_edge, _, ok = call
    ok.remove("record-route")
    as_caller, as_callee = dialog.between(at_edge, ok, is_ours)
    assert as_caller.routes == ()
    assert as_caller.target == "sip:bob@192.0.2.2:5070"
    assert as_callee.routes == (f"<sip:{NEAR};lr>",)


def test_a_route_without_lr_becomes_the_request_uri(call: tuple[Request, Request, Request, Response]) -> None:
    """RFC 3261 12.2.1.1, strict routing."""
    invite, _, _, ok = call
    ok.set("Record-Route", f"<sip:{FAR};lr>, <sip:strict.example.com>")
    _, bye = dialog.uac(invite, ok).request("BYE", "SIP/2.0/UDP x;branch=z9hG4bK1")
    assert bye.uri_text == "sip:strict.example.com"
    assert [str(route) for route in bye.routes] == [f"<sip:{FAR};lr>", "<sip:bob@192.0.2.2:5070>"]


def test_numbers_go_up_and_never_down(call: tuple[Request, Request, Request, Response]) -> None:
    invite, _, _, ok = call
    caller = dialog.uac(invite, ok)
    caller, ack = caller.request("ACK", "SIP/2.0/UDP x;branch=z9hG4bK1")
    assert ack.cseq == (314159, "ACK")
    caller, info = caller.request("INFO", "SIP/2.0/UDP x;branch=z9hG4bK2")
    assert info.cseq.number == 314160


@pytest.mark.parametrize("header", ["to", "contact"])
def test_what_makes_no_dialog_is_refused(call: tuple[Request, Request, Request, Response], header: str) -> None:
    invite, _, _, ok = call
    if header == "to":
        ok.set("To", "<sip:bob@example.com>")
    else:
        ok.remove("contact")
    with pytest.raises(Malformed):
        dialog.uac(invite, ok)
