"""What is done with each input of the fuzzer, and what must hold whatever the input is.

Plain code without the fuzzer, so that the property tests do the same with other inputs.
"""

from __future__ import annotations

import json
from contextlib import suppress

from callwarden.sip import build, dialog, digest
from callwarden.sip.address import SocketAddress
from callwarden.sip.check import describe
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.transaction import Peer, RequestReceived, Send, StrayResponse, TransactionLayer

SOURCE = Peer(SocketAddress("192.0.2.7", 5060))


def exercise(data: bytes) -> bool:
    """Do with these bytes all that an edge does with a datagram; True if they are a message.

    Anything but Malformed that comes out is a finding, and so is a failed assertion.
    """
    try:
        message = parse(data)
    except Malformed as error:
        if error.request is not None:
            _answer(error.request, error.status)
        return False
    wire = message.to_bytes()
    again = parse(wire)
    assert again.to_bytes() == wire, "the round trip is not stable"
    assert again.headers() == message.headers()
    assert len(wire) <= len(data) + 2, "passing on makes it longer"

    with suppress(Malformed):
        assert json.dumps(describe(message))
        again.validate()
        for address in [message.from_, message.to, *message.contacts, *message.routes, *message.record_routes]:
            with suppress(ValueError):
                assert type(address)(*address) == address
                assert str(address)
            with suppress(Malformed):
                assert address.uri.matches(address.uri)
                assert address.uri.username.isprintable() or address.uri.username
    for name in ("authorization", "proxy-authorization"):
        for value in message.get_all(name):
            with suppress(Malformed):
                credentials = digest.parse_credentials(value)
                assert not credentials.verify("0" * 32, "INVITE")
    if isinstance(message, Request):
        _as_request(message)
    else:
        _as_response(message)
    return True


def _as_request(message: Request) -> None:
    layer = TransactionLayer(transactions_max=4)
    outputs = layer.receive(message, SOURCE, 1.0)
    _answer(message, 407)
    forward = message.copy()
    stamped = forward.stamp_source(*SOURCE.address)
    with suppress(Malformed):
        forward.decrement_max_forwards()
    forward.push_record_route("sip:edge.example.com;lr")
    forward.push_via(f"SIP/2.0/UDP edge.example.com;branch={build.stateless_branch(message)}")
    with suppress(Malformed):
        while "route" in forward:
            forward.pop_route()
    passed_on = parse(forward.to_bytes())
    passed_on.pop_via()
    assert passed_on.via == stamped
    if isinstance(outputs[0], RequestReceived):
        server = layer.accept(message, SOURCE, 1.0)
        assert not any(type(output) is RequestReceived for output in layer.receive(message, SOURCE, 1.1))
        layer.respond(server, build.response(message, 180), 1.2)
        layer.respond(server, build.response(message, 486), 1.3)
        client, _ = layer.send_request(forward, SOURCE, 1.0)
        answer = parse(build.response(forward, 486).to_bytes())
        assert isinstance(answer, Response)
        assert type(layer.receive(answer, SOURCE, 2.0)[-1]) is not StrayResponse
        if client.method == "INVITE":
            ok = build.response(forward, 200, headers=[("Contact", "<sip:b@192.0.2.9>")])
            with suppress(Malformed):
                _, as_callee = dialog.between(message, ok, lambda uri: uri.host == "edge.example.com")
                _, bye = as_callee.request("BYE", "SIP/2.0/UDP edge.example.com;branch=z9hG4bK1")
                parse(bye.to_bytes())
    layer.handle_timers(1000.0)
    layer.handle_timers(2000.0)
    layer.handle_timers(3000.0)
    assert len(layer) == 0


def _as_response(message: Response) -> None:
    assert type(TransactionLayer().receive(message, SOURCE, 1.0)[0]) is StrayResponse
    _ = message.via.stamped(*SOURCE.address)
    message.pop_via()


def _answer(request: Request, status: int) -> None:
    answer = parse(build.response(request, status).to_bytes())
    assert isinstance(answer, Response)
    assert answer.via == request.via
    assert Send(answer.to_bytes(), SOURCE).data
