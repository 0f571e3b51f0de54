"""The torture messages of RFC 4475 and RFC 5118: which are read, which are refused, and for which reason.

"valid" means that the form is right.  What a server does with a right form (416 for an unknown scheme, 420 for an
unknown extension, 483 for no hops left) is not the parser's business; where RFC 4475 lets a server choose between
guessing and refusing, we refuse.
"""

import json
from pathlib import Path

import pytest

from callwarden.sip import build
from callwarden.sip.address import SocketAddress
from callwarden.sip.check import describe
from callwarden.sip.digest import parse_credentials
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, parse
from callwarden.sip.transaction import Peer, RequestReceived, Send, TransactionLayer

FOLDER = Path(__file__).parent / "torture"

VALID = {
    "rfc4475/wsinv.dat": "3.1.1.1 a short tortuous INVITE",
    "rfc4475/intmeth.dat": "3.1.1.2 wide range of valid characters",
    "rfc4475/esc01.dat": "3.1.1.3 valid use of the % escaping mechanism",
    "rfc4475/escnull.dat": "3.1.1.4 escaped nulls in URIs",
    "rfc4475/esc02.dat": "3.1.1.5 use of % when it is not an escape",
    "rfc4475/lwsdisp.dat": "3.1.1.6 no LWS between display name and <",
    "rfc4475/longreq.dat": "3.1.1.7 long values in header fields",
    "rfc4475/dblreq.dat": "3.1.1.8 extra trailing octets in a UDP datagram",
    "rfc4475/semiuri.dat": "3.1.1.9 semicolon-separated parameters in the user part",
    "rfc4475/transports.dat": "3.1.1.10 varied and unknown transport types",
    "rfc4475/mpart01.dat": "3.1.1.11 multipart MIME message",
    "rfc4475/unreason.dat": "3.1.1.12 unusual reason phrase",
    "rfc4475/noreason.dat": "3.1.1.13 empty reason phrase",
    "rfc4475/baddate.dat": "3.1.2.12 invalid time zone in Date, which we don't read",
    "rfc4475/badbranch.dat": "3.2.1 missing transaction identifier: matched as of RFC 2543",
    "rfc4475/unkscm.dat": "3.3.2 unknown scheme in the Request-URI (416 by the server)",
    "rfc4475/novelsc.dat": "3.3.3 known but atypical scheme (416 by the server)",
    "rfc4475/unksm2.dat": "3.3.4 unknown schemes in header fields",
    "rfc4475/bext01.dat": "3.3.5 unknown Require and Proxy-Require (420 by the server)",
    "rfc4475/invut.dat": "3.3.6 unknown Content-Type (415 by the user agent)",
    "rfc4475/regaut01.dat": "3.3.7 unknown Authorization scheme",
    "rfc4475/bcast.dat": "3.3.10 200 with broadcast Via (dropped: no such transaction)",
    "rfc4475/zeromf.dat": "3.3.11 Max-Forwards of zero (483 or answered by the server)",
    "rfc4475/cparam01.dat": "3.3.12 REGISTER with a Contact header parameter",
    "rfc4475/cparam02.dat": "3.3.13 REGISTER with a URL parameter",
    "rfc4475/regescrt.dat": "3.3.14 REGISTER with a URL escaped header",
    "rfc4475/sdp01.dat": "3.3.15 unacceptable Accept (406 by the user agent)",
    "rfc4475/inv2543.dat": "3.4.1 INVITE with RFC 2543 syntax",
    "rfc5118/ipv6-correct-abnf-2-colons": "4.9 IPv4 in IPv6 as it should be",
    "rfc5118/ipv6-in-sdp": "4.6 IPv6 address in SDP",
    "rfc5118/port-unambiguous": "4.4 port after an IPv6 reference",
    "rfc5118/via-received-param-no-delim": "4.5 received without brackets",
    "rfc5118/mult-ip-in-header": "4.7 IPv4 and IPv6 in Vias",
    "rfc5118/ipv4-mapped-ipv6": "4.8 IPv4-mapped IPv6 address",
}

# name: (section, reason, status, can be answered)
REFUSED = {
    "rfc4475/badinv01.dat": ("3.1.2.1 extraneous separators", "Empty List Element", 400, False),
    "rfc4475/clerr.dat": ("3.1.2.2 Content-Length larger than message", "Body Shorter Than Content-Length", 400, True),
    "rfc4475/ncl.dat": ("3.1.2.3 negative Content-Length", "Bad Content-Length", 400, True),
    "rfc4475/scalar02.dat": ("3.1.2.4 scalars with overlarge values, request", "Bad CSeq", 400, False),
    "rfc4475/scalarlg.dat": ("3.1.2.5 scalars with overlarge values, response", "Bad CSeq", 400, False),
    "rfc4475/quotbal.dat": ("3.1.2.6 unterminated quoted string", "Unbalanced Quotes", 400, True),
    "rfc4475/ltgtruri.dat": ("3.1.2.7 <> around Request-URI", "Bad URI", 400, True),
    "rfc4475/lwsruri.dat": ("3.1.2.8 LWS within Request-URI", "Bad Request Line", 400, True),
    "rfc4475/lwsstart.dat": ("3.1.2.9 multiple SP in the request line", "Bad Request Line", 400, True),
    "rfc4475/trws.dat": ("3.1.2.10 SP at the end of the request line", "Bad Request Line", 400, True),
    "rfc4475/escruri.dat": ("3.1.2.11 escaped headers in Request-URI", "Headers in Request-URI", 400, True),
    "rfc4475/regbadct.dat": ("3.1.2.13 name-addr not in <>", "URI Needs Angle Brackets", 400, True),
    "rfc4475/badaspec.dat": ("3.1.2.14 spaces within addr-spec", "Bad URI", 400, True),
    "rfc4475/baddn.dat": ("3.1.2.15 non-token characters in display name", "Bad Display Name", 400, True),
    "rfc4475/badvers.dat": ("3.1.2.16 unknown protocol version", "Version Not Supported", 505, False),
    "rfc4475/mismatch01.dat": ("3.1.2.17 method mismatch", "CSeq Method Mismatch", 400, True),
    "rfc4475/mismatch02.dat": ("3.1.2.18 unknown method, method mismatch", "CSeq Method Mismatch", 400, True),
    "rfc4475/bigcode.dat": ("3.1.2.19 overlarge response code", "Bad Status Code", 400, False),
    "rfc4475/insuf.dat": ("3.3.1 missing required header fields", "Missing Header", 400, False),
    "rfc4475/multi01.dat": ("3.3.8 multiple values in single value fields", "Repeated Header", 400, False),
    "rfc4475/mcl01.dat": ("3.3.9 multiple Content-Length values", "Repeated Header", 400, True),
    "rfc5118/ipv6-bad": ("4.2 IPv6 address without brackets", "Bad URI", 400, True),
    "rfc5118/ipv6-bug-abnf-3-colons": ("4.10 three colons", "Bad Host", 400, True),
}


def load(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def read(name: str) -> Request:
    message = parse(load(name))
    assert isinstance(message, Request)
    return message


def test_every_message_has_its_expectation() -> None:
    names = {str(path.relative_to(FOLDER)) for path in FOLDER.glob("rfc*/*")}
    assert names == VALID.keys() | REFUSED.keys()
    assert not VALID.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", VALID)
def test_a_valid_message_is_read_and_survives_the_round_trip(name: str) -> None:
    message = parse(load(name))
    description = describe(message)
    assert json.loads(json.dumps(description)) == description
    again = parse(message.to_bytes())
    assert again.to_bytes() == message.to_bytes()
    assert describe(again) == description


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_message_is_refused_with_its_reason(name: str) -> None:
    _, reason, status, answerable = REFUSED[name]
    with pytest.raises(Malformed) as caught:
        parse(load(name)).validate()
    assert (caught.value.reason, caught.value.status) == (reason, status)
    assert (caught.value.request is not None) is answerable
    if caught.value.request is not None:
        answer = parse(build.response(caught.value.request, caught.value.status).to_bytes())
        assert answer.via == caught.value.request.via


def test_wsinv_is_read_as_the_rfc_explains_it() -> None:
    message = read("rfc4475/wsinv.dat")
    assert message.to.tag == "1918181833n"
    assert (message.from_.display, message.from_.tag) == ('J Rosenberg \\"', "98asjd8")
    assert (message.max_forwards, message.cseq) == (68, (9, "INVITE"))
    assert [via.branch for via in message.vias] == ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]
    assert [via.transport for via in message.vias] == ["UDP", "TCP", "UDP"]
    assert message.get("subject") == ""
    assert message.get("NewFangledHeader") == "newfangled value continued newfangled value"
    assert message.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
    assert message.routes[0].uri.params == {"lr": None, "unknownwith": "value", "unknown-no-value": None}
    assert message.contacts[0].display == 'Quoted string ""'
    assert message.contacts[0].params == {"newparam": "newvalue", "secondparam": None, "q": "0.33"}


def test_intmeth_keeps_its_strange_characters() -> None:
    message = read("rfc4475/intmeth.dat")
    assert message.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert message.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert message.uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert message.from_.params["fromparam''~+*_!.-%"] == '"работающий"'


def test_escapes_are_undone_in_users_and_nowhere_else() -> None:
    assert read("rfc4475/esc01.dat").uri.username == "sips:user@example.com"
    assert read("rfc4475/esc01.dat").to.uri.username == "user"
    assert read("rfc4475/semiuri.dat").uri.user == "user;par=u%40example.net"
    message = read("rfc4475/esc02.dat")
    assert message.method == "RE%47IST%45R"
    assert len(message.contacts) == 2
    assert message.to.display == "%Z%45"


def test_escnull_is_read_but_nobody_is_called_null() -> None:
    message = read("rfc4475/escnull.dat")
    assert message.to.uri.user == "null-%00-null"
    first, second = message.contacts
    assert not first.uri.matches(second.uri)
    with pytest.raises(Malformed):
        _ = message.to.uri.username


def test_dblreq_ends_where_its_content_length_says() -> None:
    assert read("rfc4475/dblreq.dat").body == b""


def test_a_contact_parameter_is_told_from_a_uri_parameter() -> None:
    header, uri = read("rfc4475/cparam01.dat").contacts[0], read("rfc4475/cparam02.dat").contacts[0]
    assert (header.params, header.uri.params) == ({"unknownparam": None}, {})
    assert (uri.params, uri.uri.params) == ({}, {"unknownparam": None})


def test_an_unknown_authorization_scheme_is_no_digest() -> None:
    with pytest.raises(Malformed, match="Not Digest"):
        parse_credentials(read("rfc4475/regaut01.dat").get("authorization") or "")


@pytest.mark.parametrize("name", ["rfc4475/badbranch.dat", "rfc4475/inv2543.dat"])
def test_a_request_without_a_usable_branch_is_matched_as_of_rfc_2543(name: str) -> None:
    layer = TransactionLayer()
    peer = Peer(SocketAddress("192.0.2.1", 5060))
    server = layer.accept(read(name), peer, 0.0)
    (sent,) = layer.respond(server, build.response(server.request, 200), 0.0)
    assert isinstance(sent, Send)
    other = read(name)
    other.set("Call-ID", "another")
    assert type(layer.receive(other, peer, 0.1)[0]) is RequestReceived
    assert all(type(output) is Send for output in layer.receive(read(name), peer, 0.1))
