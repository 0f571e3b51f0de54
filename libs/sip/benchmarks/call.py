"""What this library costs: one message, and a whole call through a stateful proxy.

``python libs/sip/benchmarks/call.py`` prints a table.  The call is a phone's with digest: INVITE, 407, ACK, INVITE with
credentials, 100, 180, 200, ACK, BYE, 200.  That is 9 datagrams in and 8 out, with tags, branches and Call-ID of its own
each time, so that caches meet what they meet in service.  No socket and no decision is in the figures.  CPU time of
this process, best of several rounds; a busy machine doubles it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import process_time

from callwarden.sip import build, dialog
from callwarden.sip.address import SocketAddress
from callwarden.sip.digest import Algorithm, NonceKeys, challenges, ha1, parse_credentials
from callwarden.sip.message import Request, Response, parse
from callwarden.sip.transaction import (
    AckReceived,
    Output,
    Peer,
    RequestReceived,
    ResponseReceived,
    Send,
    ServerTransaction,
    TransactionLayer,
)

CALLS = 3000
ROUNDS = 5
RATE_PER_S = 500.0  # how fast the calls come on the layer's clock, so that as many timers run as in service
SECRET = b"s" * 32
CALLER, CALLEE = Peer(SocketAddress("192.0.2.1", 5061)), Peer(SocketAddress("10.1.1.1", 5060))
KEYS = NonceKeys({1: b"k" * 32}, current=1)
HA1 = ha1(Algorithm.SHA_256, "alice", "sip.example.com", "secret")
SDP = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)
CALLEE_HEADERS = [
    ("Contact", "<sip:bob@10.1.1.1:5060>"),
    ("User-Agent", "Callee 1.0"),
    ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS"),
]


def invite(number: int, answer: str | None) -> Request:
    return build.request(
        "INVITE",
        "sip:+4930123456@sip.example.com;user=phone",
        via=f"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{'b' if answer else 'a'}{number};rport",
        from_=f'"Alice Liddell" <sip:alice@sip.example.com>;tag=t{number}',
        to="<sip:+4930123456@sip.example.com>",
        call_id=f"{number}-a84b4c76e66710@192.0.2.1",
        cseq=2 if answer else 1,
        headers=[
            ("Contact", "<sip:alice@192.0.2.1:5060;ob>"),
            ("Allow", "PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER, MESSAGE, OPTIONS"),
            ("Supported", "replaces, 100rel, timer, norefersub"),
            ("Session-Expires", "1800"),
            ("Min-SE", "90"),
            ("User-Agent", "Phone v3.1"),
            *([("Proxy-Authorization", answer)] if answer else []),
            ("Content-Type", "application/sdp"),
        ],
        body=SDP,
    )


def datagrams(number: int) -> list[tuple[bytes, Peer]]:
    """What comes in during one call, in order."""
    first = invite(number, None)
    challenge = build.response(first, 407, to_tag=build.local_tag(first, SECRET))
    (offer,) = challenges("sip.example.com", KEYS.issue(1e9, b"12345"), [Algorithm.SHA_256])
    second = invite(number, str(offer.answer("alice", "secret", "INVITE", first.uri_text, cnonce="c")))
    passed_on = forward(second.copy(), number, "e")
    tag = f"callee{number}"
    ok = build.response(
        passed_on, 200, to_tag=tag, headers=[*CALLEE_HEADERS, ("Content-Type", "application/sdp")], body=SDP
    )
    caller = dialog.uac(second, ok)
    caller, ack = caller.request("ACK", f"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKc{number};rport")
    caller, bye = caller.request("BYE", f"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKd{number};rport")
    bye_on = bye.copy()
    bye_on.stamp_source(*CALLER.address)
    bye_on.push_via(f"SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKf{number}")
    return [
        (first.to_bytes(), CALLER),
        (build.ack(first, challenge).to_bytes(), CALLER),
        (second.to_bytes(), CALLER),
        (build.response(passed_on, 100).to_bytes(), CALLEE),
        (build.response(passed_on, 180, to_tag=tag, headers=CALLEE_HEADERS).to_bytes(), CALLEE),
        (ok.to_bytes(), CALLEE),
        (ack.to_bytes(), CALLER),
        (bye.to_bytes(), CALLER),
        (build.response(bye_on, 200).to_bytes(), CALLEE),
    ]


def forward(request: Request, number: int, branch: str) -> Request:
    """The edits of a proxy on an INVITE."""
    request.stamp_source(*CALLER.address)
    request.decrement_max_forwards()
    request.remove("proxy-authorization")
    request.set_uri("sip:bob@10.1.1.1:5060")
    request.push_record_route("sip:10.0.0.1:5060;lr;cw=abcdefabcdefabcdef")
    request.push_via(f"SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK{branch}{number}")
    return request


class Proxy:
    """As little of a proxy as makes the library do all its work."""

    def __init__(self) -> None:
        self.layer = TransactionLayer(tag_secret=SECRET)
        self.sent = 0

    def take(self, outputs: list[Output], number: int, mono_s: float) -> None:
        for output in outputs:
            match output:
                case Send():
                    self.sent += 1
                case RequestReceived(request, source):
                    self.request(request, source, number, mono_s)
                case ResponseReceived(client, response) if response.status > 100:
                    response.pop_via()
                    self.take(self.layer.respond(client.context, response, mono_s), number, mono_s)
                case AckReceived(ack, _) if ack.to.tag != build.local_tag(ack, SECRET):
                    ack.pop_route()
                    ack.decrement_max_forwards()
                    ack.push_via(f"SIP/2.0/UDP 10.0.0.1:5060;branch={build.stateless_branch(ack, SECRET)}")
                    ack.to_bytes()
                    self.sent += 1
                case _:
                    pass

    def request(self, request: Request, source: Peer, number: int, mono_s: float) -> None:
        request.validate()
        request.stamp_source(*source.address)
        if request.method == "INVITE" and "proxy-authorization" not in request:
            nonce = KEYS.issue(1e9, b"12345")
            offers = challenges("sip.example.com", nonce, [Algorithm.SHA_256, Algorithm.MD5])
            headers = [("Proxy-Authenticate", str(offer)) for offer in offers]
            tag = build.local_tag(request, SECRET)
            build.response(request, 407, to_tag=tag, headers=headers).to_bytes()
            self.sent += 1
            return
        server = self.layer.accept(request, source, mono_s)
        if request.method == "INVITE":
            credentials = parse_credentials(request.get("proxy-authorization") or "")
            assert credentials.verify(HA1, "INVITE")
            self.take(self.layer.respond(server, build.response(request, 100), mono_s), number, mono_s)
            onward = forward(request.copy(), number, "e")
        else:
            onward = request.copy()
            onward.pop_route()
            onward.decrement_max_forwards()
            onward.push_via(f"SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKf{number}")
        self.pass_on(server, onward, number, mono_s)

    def pass_on(self, server: ServerTransaction, onward: Request, number: int, mono_s: float) -> None:
        client, outputs = self.layer.send_request(onward, CALLEE, mono_s)
        client.context = server
        self.take(outputs, number, mono_s)


def best_us(work: Callable[[], None]) -> float:
    """CPU time of the best round, for each call."""
    rounds = []
    for _ in range(ROUNDS):
        begun = process_time()
        work()
        rounds.append(process_time() - begun)
    return min(rounds) / CALLS * 1e6


def main() -> None:
    calls = [datagrams(number) for number in range(CALLS)]
    proxies: list[Proxy] = []

    def read_invites() -> None:
        for call in calls:
            parse(call[2][0])

    def pass_invites_on() -> None:
        for call in calls:
            message = parse(call[2][0])
            assert isinstance(message, Request)
            forward(message, 1, "x").to_bytes()

    def read_all() -> None:
        for call in calls:
            for data, _ in call:
                parse(data)

    def whole_calls() -> None:
        proxy = Proxy()
        proxies.append(proxy)
        for number, call in enumerate(calls):
            mono_s = 1.0 + number / RATE_PER_S
            for data, peer in call:
                message: Request | Response = parse(data)
                proxy.take(proxy.layer.receive(message, peer, mono_s), number, mono_s)
            proxy.take(proxy.layer.handle_timers(mono_s), number, mono_s)

    def forget() -> None:
        layer = proxies[-1].layer
        while (next_s := layer.next_timer_s()) is not None:
            layer.handle_timers(next_s)

    rows = [
        (f"parse an INVITE of {len(calls[0][2][0])} bytes", best_us(read_invites)),
        ("parse it, edit it as a proxy, write it", best_us(pass_invites_on)),
        (f"parse the {len(calls[0])} datagrams of a call", best_us(read_all)),
        ("a whole call", best_us(whole_calls)),
    ]
    live, sent = len(proxies[-1].layer) / CALLS, proxies[-1].sent / CALLS
    assert sent == 8
    begun = process_time()
    forget()
    rows.append((f"the timers that end its {live:.1f} transactions", (process_time() - begun) / CALLS * 1e6))
    sys.stdout.writelines(f"{what:50} {cost_us:8.1f} us\n" for what, cost_us in rows)


if __name__ == "__main__":
    main()
