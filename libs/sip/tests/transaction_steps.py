"""Steps that the tests of transactions share."""

from callwarden.sip import build
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.transaction import (
    ClientTransaction,
    Output,
    Peer,
    RequestReceived,
    Send,
    ServerTransaction,
    TransactionLayer,
)

from .sip_samples import CALLEE, CALLER, request

TCP = CALLEE._replace(transport="TCP")


def sent(outputs: list[Output]) -> list[str]:
    """The start lines of what is to be sent."""
    return [str(parse(output.data)._start_line()) for output in outputs if isinstance(output, Send)]


def kinds(outputs: list[Output]) -> list[type]:
    return [type(output) for output in outputs]


def run_clock(layer: TransactionLayer, until_s: float) -> list[tuple[float, Output]]:
    """Fire all timers up to that time, each when it is due."""
    happened: list[tuple[float, Output]] = []
    while (at_s := layer.next_timer_s()) is not None and at_s <= until_s:
        happened += [(round(at_s, 3), output) for output in layer.handle_timers(at_s)]
    return happened


def times(happened: list[tuple[float, Output]], kind: type) -> list[float]:
    return [at_s for at_s, output in happened if isinstance(output, kind)]


def accepted(layer: TransactionLayer, message: Request, peer: Peer = CALLER, mono_s: float = 0.0) -> ServerTransaction:
    assert kinds(layer.receive(message, peer, mono_s)) == [RequestReceived]
    return layer.accept(message, peer, mono_s)


def calling(layer: TransactionLayer, peer: Peer = CALLEE) -> tuple[Request, ClientTransaction]:
    invite = request()
    client, outputs = layer.send_request(invite, peer, 0.0)
    assert outputs == [Send(invite.to_bytes(), peer)]
    return invite, client


def answer(message: Request, status: int, to_tag: str = "b") -> Response:
    response = parse(build.response(message, status, to_tag=to_tag).to_bytes())
    assert isinstance(response, Response)
    return response
