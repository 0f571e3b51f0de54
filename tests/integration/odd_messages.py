"""Messages that devices send, odd but legal or much seen, and what must come of each (test_cases_messages)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from callwarden.testing.operator import DEFAULT_REALM
from tests.integration.wire import Datagram

Edit = Callable[[bytes], bytes]
REALM: Final = DEFAULT_REALM


def replaced(old: str | bytes, new: str | bytes) -> Edit:
    """All of the old; it must be there."""
    before = old.encode() if isinstance(old, str) else old
    after = new.encode() if isinstance(new, str) else new

    def edit(data: bytes) -> bytes:
        assert before in data, before
        return data.replace(before, after)

    return edit


def rewritten(pattern: bytes, new: str | bytes) -> Edit:
    """The first match of the pattern; there must be one."""
    after = new.encode() if isinstance(new, str) else new

    def edit(data: bytes) -> bytes:
        changed, count = re.subn(pattern, after, data, count=1)
        assert count == 1, pattern
        return changed

    return edit


def compact(data: bytes) -> bytes:
    for name, short in (
        ("Via", "v"), ("From", "f"), ("To", "t"), ("Call-ID", "i"), ("Contact", "m"), ("Content-Length", "l"),
        ("Content-Type", "c"),
    ):  # fmt: skip
        data = data.replace(f"\r\n{name}:".encode(), f"\r\n{short}:".encode())
    return data


def in_front(lines: str) -> Edit:
    return replaced("Max-Forwards", lines + "Max-Forwards")


MANY_LINES: Final = "".join(f"X-H{number}: {'a' * 100}\r\n" for number in range(40))

# p01: such an INVITE goes to the carrier, and the carrier's answer comes back.
ODD_INVITES: Final[Mapping[str, Edit]] = {
    "as usual": lambda data: data,
    "short names": compact,
    "strange case, blanks before the colon": lambda data: replaced("Call-ID:", "CALL-id\t:")(
        replaced("From:", "fRoM  :")(data)
    ),
    "folded lines": lambda data: replaced("Contact: ", "Contact:\r\n\t")(replaced("From: ", "From:\r\n  ")(data)),
    "UTF-8 in quotes": replaced("From: ", 'From: "Jürgen 张 \\"x\\"" '),
    "UTF-8 without quotes": replaced("From: ", "From: Jürgen Müller "),
    "Latin-1": replaced(b"From: ", b'From: "J\xfcrgen" '),
    "backslash before a blank": replaced("From: ", 'From: "Sami\\ " '),
    "brackets in quotes": replaced("From: ", 'From: "Doe, John; <x@y>" '),
    "apostrophe": replaced("From: ", "From: O'Brien "),
    "empty name": replaced("From: ", 'From: "" '),
    "no brackets": rewritten(rb"From: <([^>]+)>", rb"From: \1"),
    "address as name": replaced("From: ", "From: alice@home "),
    "blanks in Via": replaced("Via: SIP/2.0/UDP ", "Via: SIP / 2.0 / UDP  "),
    "two hops on one line": rewritten(
        rb"Via: ([^\r]+)\r\n", rb"Via: \1, SIP/2.0/TCP 10.1.1.1:5060;branch=z9hG4bKinner\r\n"
    ),
    "received filled in": replaced(";rport;", ";rport=1;received=9.9.9.9;"),
    "parameters of outbound": replaced(";rport;", ";rport;alias;keep;"),
    "underscore in a host": rewritten(rb"Via: SIP/2.0/UDP [0-9.]+", "Via: SIP/2.0/UDP my_phone.local"),
    "IPv6 in Via": rewritten(rb"Via: SIP/2.0/UDP [0-9.]+", "Via: SIP/2.0/UDP [2001:db8::9]"),
    "no Max-Forwards": replaced("Max-Forwards: 70\r\n", ""),
    "Max-Forwards with zeros": replaced("Max-Forwards: 70", "Max-Forwards: 0070"),
    "line ends before it": lambda data: b"\r\n\r\n" + data,
    "no Content-Length": rewritten(rb"Content-Length: \d+\r\n", ""),
    "short Content-Length": rewritten(rb"Content-Length: \d+", "Content-Length: 20"),
    "NULs behind it": lambda data: data + b"\0\0\0",
    "small sip": replaced(" SIP/2.0\r\nVia", " sip/2.0\r\nVia"),
    "odd Call-ID": rewritten(rb"Call-ID: ", 'Call-ID: <a"[b]{c}>/?\\\\:'),
    "100rel required": in_front("Require: 100rel\r\n"),
    "parameters of From": rewritten(rb"(From: <[^>]+>)", rb"\1;epid=AB12;isup-oli=0"),
    "odd tag": rewritten(rb"(From: <[^>]+>;tag=)\w+", rb"\1a~b`c'd%41.e!f*g+h_i"),
    "base64 as tag": rewritten(rb"(From: <[^>]+>;tag=)\w+", rb"\1abc==/x"),
    "empty values": in_front("Subject:\r\nSupported:\r\n"),
    "Allow twice": in_front("Allow: INVITE\r\nAllow: ACK, BYE\r\n"),
    "odd Date and Warning": in_front("Date: now\r\nWarning: x\r\n"),
    "session timer": in_front("x: 1800;refresher=uac\r\nMin-SE: 90\r\nk: timer,100rel\r\n"),
    "large": in_front(MANY_LINES),
}


@dataclass(frozen=True, slots=True)
class Dialled:
    """What is dialled. `number`: what the carrier is asked for; empty: a 4xx comes instead."""

    name: str
    uri: str
    number: str = "4930123456"
    call: Mapping[str, Any] = field(default_factory=dict)
    refused: int = 0
    """The status; 0: any 4xx."""


OWN: Final = "+493055501"
# n01, and what F6 tries. EDGE stands for the address of the edge that is asked.
DIALLED: Final = [
    Dialled("plain", f"sip:4930123456@{REALM}"),
    Dialled("plus", f"sip:+4930123456@{REALM}"),
    Dialled("escaped plus", f"sip:%2B4930123456@{REALM}"),
    Dialled("two zeros", f"sip:004930123456@{REALM}"),
    Dialled("user=phone", f"sip:+4930123456@{REALM};user=phone"),
    Dialled("separators", f"sip:+49-30-123.456@{REALM};user=phone"),
    Dialled("tel", "tel:+49-30-123456"),
    Dialled("phone-context", f"sip:30123456;phone-context=+49@{REALM};user=phone"),
    Dialled("number portability", f"sip:+4930123456;npdi;rn=+4915112345@{REALM};user=phone"),
    Dialled("post dial", f"sip:+4930123456;postd=pp22@{REALM};user=phone"),
    Dialled("subaddress", f"sip:+4930123456;isub=411@{REALM};user=phone"),
    Dialled("with a password", f"sip:4930123456:x@{REALM}"),
    Dialled("our address", "sip:4930123456@EDGE"),
    Dialled("capitals, port, transport", f"sip:4930123456@{REALM.upper()}:5060;transport=UDP"),
    Dialled("feature code", f"sip:*31#4930123456@{REALM}", ""),
    Dialled("North American prefix", f"sip:0114930123456@{REALM}", ""),
    Dialled("16 digits", f"sip:4930123456789012@{REALM}", ""),
    Dialled("Arabic digits", f"sip:%D9%A4%D9%A9%D9%A3%D9%A0%D9%A1%D9%A2%D9%A3@{REALM}", ""),
    Dialled("letters", f"sip:4930CALLME@{REALM}", ""),
    Dialled("two plus", f"sip:++4930123456@{REALM}", ""),
    Dialled("plus and zeros", f"sip:+004930123456@{REALM}", ""),
    Dialled("From with tel", f"sip:4930123456@{REALM}", call={"from_": f"<tel:{OWN}>"}),
    Dialled("own number with zeros", f"sip:4930123456@{REALM}", call={"from_": f"<sip:00{OWN[1:]}@{REALM}>"}),
    Dialled("own number, user=phone", f"sip:4930123456@{REALM}", call={"from_": f"<sip:{OWN}@{REALM};user=phone>"}),
    Dialled("own number, national", f"sip:4930123456@{REALM}", "", {"from_": f"<sip:03055501@{REALM}>"}),
    Dialled(
        "anonymous", f"sip:4930123456@{REALM}",
        call={
            "from_": '"Anonymous" <sip:anonymous@anonymous.invalid>',
            "more": [f"P-Preferred-Identity: <sip:alice@{REALM}>", "Privacy: id"],
        },
    ),
    Dialled("another To", f"sip:4930123456@{REALM}", call={"to": "<sip:someone@else.example>"}),
    Dialled("Route to us", f"sip:4930123456@{REALM}", call={"more": ["Route: <sip:EDGE;lr>"]}),
    Dialled("another's number", f"sip:4930123456@{REALM}", "", {"from_": f"<sip:+4930110@{REALM}>"}),
    Dialled("another user", f"sip:4930123456@{REALM}", "", {"from_": f"<sip:bob@{REALM}>"}),
    Dialled("another's tel", f"sip:4930123456@{REALM}", "", {"from_": "<tel:+4930110>"}),
    Dialled("NUL in the user", f"sip:4930123456@{REALM}", "", {"from_": f"<sip:alice%00@{REALM}>"}),
    Dialled("line end in a number", f"sip:+4930123456%0d%0aX@{REALM}", ""),
    Dialled("escape in a user", f"sip:%1b%5b31m@{REALM}", ""),
    Dialled("line end in a context", f"sip:30123456;phone-context=%0d%0aX:y@{REALM}", ""),
    Dialled("foreign context", "tel:30123456;phone-context=evil", ""),
    Dialled("another domain", "sip:4930123456@evil.example", ""),
    Dialled("a port of ours", "sip:4930123456@127.0.0.1:5432", ""),
    Dialled("10,000 digits", f"sip:{'9' * 10_000}@{REALM}", "", refused=513),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Registration:
    """A REGISTER with good credentials. `edit` changes it before it is sent, `digest` its credentials."""

    name: str
    statuses: tuple[int, ...] = (200,)
    edit: Callable[[str], str] = lambda text: text
    digest: Callable[[str], str] = lambda value: value
    algorithm: str = "MD5"
    check: Callable[[Datagram], bool] = lambda answer: True


def contact(value: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        return re.sub(r"Contact: <sip:(\w+)@([\d.:]+)>", lambda found: value_of(found[1], found[2]), text)

    def value_of(user: str, address: str) -> str:
        return f"Contact: {value.format(user=user, address=address)}"

    return edit


def line(new: str, old: str = "Expires: 600") -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text, old
        return text.replace(old, new) if new else text.replace(f"{old}\r\n", "")

    return edit


# r01
REGISTRATIONS: Final = [
    Registration("as usual"),
    Registration(
        "two contacts", edit=contact("<sip:{user}@127.0.0.12:7001>;q=0.2, <sip:{user}@127.0.0.12:7002>;q=0.9"),
        check=lambda answer: answer.text.count("q=0.") == 2,
    ),
    Registration("quoted expires", edit=contact('<sip:{user}@{address}>;expires="600"')),
    Registration("a date", edit=line("Expires: Tue, 01 Dec 2026 16:00:00 GMT")),
    Registration("2^32 s", edit=line("Expires: 4294967296")),
    Registration("no Expires", edit=line("")),
    Registration("30 s", (423,), line("Expires: 30"), check=lambda answer: answer.get("min-expires") != ""),
    Registration(
        "unknown option", (420,), line("Expires: 600\r\nRequire: x-unknown"),
        check=lambda answer: "x-unknown" in answer.get("unsupported"),
    ),
    Registration("path required", (420,), line("Expires: 600\r\nRequire: path\r\nPath: <sip:edge1.example;lr>")),
    Registration(
        "no brackets", edit=contact("sip:{user}@{address};transport=udp;expires=120"),
        check=lambda answer: "=120" in answer.get("contact"),
    ),
    Registration("sips over UDP", (200, 400), contact("<sips:{user}@{address}>")),
    Registration("star with an expiry", (400,), contact("*")),
    Registration("star without one", (400,), lambda text: line("")(contact("*")(text))),
    Registration("a query", edit=lambda text: re.sub(r"Contact: .*\r\n", "", text)),
    Registration("capitals in the domain", edit=line(f"@{REALM.upper()}>\r\nCall", f"@{REALM}>\r\nCall")),
    Registration("another user", (403, 404), lambda text: re.sub(r"To: <sip:\w+", "To: <sip:somebody", text)),
    Registration("private Via without rport", edit=lambda text: text.replace("127.0.8.1:", "192.168.1.50:", 1)),
    Registration("lower-case algorithm", digest=lambda value: value.replace("algorithm=MD5", "algorithm=md5")),
]  # fmt: skip


def named(user: str) -> Callable[[str], str]:
    return lambda value: re.sub(r'username="[^"]*"', lambda _: f'username="{user}"', value)


# d01
DIGESTS: Final = [
    Registration("MD5"),
    Registration("SHA-256", algorithm="SHA-256"),
    Registration("quoted algorithm", digest=lambda value: value.replace("algorithm=MD5", 'algorithm="MD5"')),
    Registration("no algorithm", digest=lambda value: value.replace(", algorithm=MD5", "")),
    Registration("quoted qop", digest=lambda value: value.replace("qop=auth", 'qop="auth"')),
    Registration("quoted nc", digest=lambda value: value.replace("nc=00000001", 'nc="00000001"')),
    Registration("capitals", digest=lambda value: re.sub(
        r'response="(\w+)"', lambda found: f'response="{found[1].upper()}"', value
    )),
    Registration("an opaque, a comma, blanks", digest=lambda value: value + ', opaque="" ,'),
    Registration("an opaque without value", (401,), digest=lambda value: value + ", opaque="),
    Registration("unknown fields", digest=lambda value: value + ', x-y=z, foo="b,a\\"r"'),
    Registration("two commas", digest=lambda value: value.replace(", nonce", ", , nonce")),
    Registration("folded", digest=lambda value: value.replace(", nonce", ",\r\n nonce").replace(", uri", ",\r\n\turi")),
    Registration("small digest", digest=lambda value: value.replace("Digest", "digest")),
    Registration("another realm first", digest=lambda value: (
        'Digest username="x", realm="other", nonce="1", uri="sip:x", response="' + "0" * 32 + '"'
        f"\r\nAuthorization: {value}"
    )),
    Registration("Basic first", digest=lambda value: f"Basic Ym9iOng=\r\nAuthorization: {value}"),
    Registration("realm in capitals", (401,), digest=line(f'realm="{REALM.upper()}"', f'realm="{REALM}"')),
    Registration("auth-int", (401,), digest=lambda value: value.replace("qop=auth", "qop=auth-int")),
    Registration("MD5-sess", (401,), digest=lambda value: value.replace("algorithm=MD5", "algorithm=MD5-sess")),
    Registration("escaped letter", digest=lambda value: re.sub(r'username="(\w)', r'username="\\\1', value)),
    Registration("no user", (401,), digest=lambda value: re.sub(r'username="[^"]*"', 'username=""', value)),
    Registration("IMS", (401,), digest=lambda value: re.sub(
        r'(nonce|response)="[^"]*"', r'\1=""', re.sub(r", (algorithm|qop|nc|cnonce)=[^,]+", "", value)
    )),
    *(
        Registration(f"user {user!r}", (400, 401, 403, 513), digest=named(user))
        for user in ("a b", ">", "*", "$KV.x.>", "x" * 10_000, "' OR 1=1--", "../../etc", "\x1b[31m", "%s%n", "ümläut")
    ),
]  # fmt: skip
