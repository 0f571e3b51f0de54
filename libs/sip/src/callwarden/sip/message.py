"""SIP messages: bytes to message, edits, message to bytes (RFC 3261 section 7).

In: one datagram (or one message cut from a stream), read lazily.  ``parse`` finds the start line and the headers in one
linear pass, checks what is needed to route and answer (start line, required headers present, singletons single, CSeq,
top Via, Content-Length) and leaves the rest as text.  Headers are read when asked for and remembered; ``validate``
reads all that are known.  Edits touch only their own line, so what is passed on leaves as it came, byte for byte.

Out: making messages from nothing (``build``), what a message means (``transaction``, ``dialog``).

Strict where two readers could see two different messages: line ends other than CRLF, repeated singletons, control
characters and bytes that are not UTF-8 in what is read.  What isn't read passes through as bytes: a display name in
Latin-1 leaves as it came (``surrogateescape``).  Answers are read with more patience than requests, because a 200 that
is lost leaves a call half up.  A line without a colon stays where it was, under no name; a Content-Length that is
repeated or no number is set right by what the datagram holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from callwarden.sip.cseq import parse_cseq
from callwarden.sip.grammar import is_token, parse_uint, split_list
from callwarden.sip.headers import SipMessage
from callwarden.sip.malformed import Malformed
from callwarden.sip.names import KEYS, REQUIRED, SINGLE, canonical
from callwarden.sip.uri import Uri, parse_uri
from callwarden.sip.via import Via, parse_via

__all__ = ["Request", "Response", "SipMessage", "header_lines", "parse"]

MESSAGE_BYTES_MAX = 65535  # What one UDP datagram can carry.
HEAD_BYTES_MAX = 32768  # Real heads have 0.5 to 4 KiB; a body may need the rest.
HEADERS_MAX = 128  # Of a request.  A 64 KiB datagram can carry thousands; no phone sends a hundred.
RESPONSE_HEADERS_MAX = 1024  # Also the most that is read of a request to answer it 513.
LINE_MAX = 8192  # Of a request.  An Identity header with a full PASSporT has about 1 KiB.
METHOD_MAX = 64  # The longest registered method has 9 characters, RFC 4475 3.1.1.2 tries 43.

METHODS = frozenset(
    "INVITE ACK BYE CANCEL REGISTER OPTIONS PRACK SUBSCRIBE NOTIFY PUBLISH INFO REFER MESSAGE UPDATE".split()  # noqa: SIM905
)

# How the header blocks of messages that were good look: names as spelled, in order, to what follows from them. Phones
# and switches write a few dozen. Bounded, since strangers can make up as many as they like: 4 MB at worst.
SHAPES_MAX = 512
SHAPE_HEADERS_MAX = 32


class _HeaderShape(NamedTuple):
    """Every required header is there, and no header twice that may occur once."""

    keys: list[str]
    via_at: int
    cseq_at: int
    length_at: int  # -1: there is no Content-Length


_shapes: dict[tuple[str, ...], _HeaderShape] = {}

_STATUSES = {str(status): status for status in range(100, 700)}
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])  # all but TAB
_BLANKS = (" ", "\t")
_UNREAD = ""  # the key of a line that is no header, as answers may have
# What is read and handed on to others: every byte of it is text.  Of addresses all but the display name.
_ADDRESSES = frozenset(
    {"from", "to", "contact", "route", "record-route", "refer-to", "referred-by", "reply-to", "path"}
)
_TEXTS = frozenset(
    {
        "authorization",
        "call-id",
        "content-length",
        "content-type",
        "cseq",
        "expires",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-require",
        "require",
        "session-expires",
        "via",
        "www-authenticate",
    }
)
_surrogate = re.compile(r"[\ud800-\udfff]").search
_without_quoted = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"').sub
_bare_control = re.compile(r"(?<!\\)[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_fold = re.compile(r"\r\n[ \t]+")  # starts at a line end only: blanks before it would be scanned over and over


class Request(SipMessage):
    """A SIP request."""

    __slots__ = ("method", "uri_text")

    def __init__(self, method: str, uri_text: str, keys: list[str], lines: list[str], body: bytes = b"") -> None:
        self._keys = keys
        self._lines = lines
        self._read = {}
        self.body = body
        self.method = method
        self.uri_text = uri_text

    @property
    def uri(self) -> Uri:
        """The Request-URI.  Raises Malformed."""
        uri: Uri | None = self._read.get("@uri")
        if uri is None:
            try:
                uri = parse_uri(self.uri_text)
                if uri.headers:
                    raise Malformed("Headers in Request-URI")  # RFC 3261 19.1.1 table 1
            except Malformed as error:
                self._blame(error)
                raise
            self._read["@uri"] = uri
        return uri

    def set_uri(self, uri: Uri | str) -> None:
        text = str(uri)
        if not text or " " in text or "\r" in text or "\n" in text:
            raise ValueError("not a Request-URI")
        self.uri_text = text
        self._read.pop("@uri", None)

    @property
    def is_in_dialog(self) -> bool:
        """The To has a tag (RFC 3261 12.2)."""
        return self.to.tag is not None

    def copy(self) -> Request:
        """One to change while the other stays; what was read so far is shared."""
        request = Request(self.method, self.uri_text, self._keys.copy(), self._lines.copy(), self.body)
        request._read = self._read.copy()
        return request

    def stamp_source(self, host: str, port: int) -> Via:
        """Write the packet's source into the top Via (RFC 3261 18.2.1, RFC 3581 4) and return it."""
        before = self.via
        via = before.stamped(host, port)
        if via.params != before.params:
            at = self._keys.index("via")
            line = self._lines[at]
            if line.endswith(";rport") and "," not in line and len(via.params) == len(before.params) + 1:
                # Nearly always: the line is extended, and nothing else is touched.
                self._lines[at] = f"{line}={port};received={host}"
                self._read["via"] = via
            else:
                self.set_top_via(via)
        return via

    def validate(self) -> None:
        """Read every header this library knows, and the Request-URI; raises Malformed for the first that is bad."""
        try:
            _ = self.uri
            super().validate()
        except Malformed as error:
            self._blame(error)
            raise

    def _blame(self, error: Malformed) -> None:
        if self.method != "ACK":
            error.request = self

    def _start_line(self) -> str:
        return f"{self.method} {self.uri_text} SIP/2.0"

    def __repr__(self) -> str:
        return f"<Request {self.method}>"


class Response(SipMessage):
    """A SIP response."""

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: str, keys: list[str], lines: list[str], body: bytes = b"") -> None:
        self._keys = keys
        self._lines = lines
        self._read = {}
        self.body = body
        self.status = status
        self.reason = reason

    def copy(self) -> Response:
        """One to change while the other stays; what was read so far is shared."""
        response = Response(self.status, self.reason, self._keys.copy(), self._lines.copy(), self.body)
        response._read = self._read.copy()
        return response

    def _start_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.reason}"

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def parse(data: bytes) -> Request | Response:
    """Read one message, which fills the datagram but for what Content-Length leaves over.  Raises Malformed only."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise Malformed("Message Too Large", 513)
    if data[:2] == b"\r\n":
        data = data.lstrip(b"\r\n")  # RFC 3261 7.5
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise Malformed("No End of Headers" if data.strip() else "Empty")
    is_answer = data[:4] == b"SIP/"
    if end > HEAD_BYTES_MAX and not is_answer:
        raise Malformed("Headers Too Large", 513)
    head_bytes = data[:end]
    error: Malformed | None = None
    is_text = True
    try:
        head = head_bytes.decode()
    except UnicodeDecodeError:
        head = head_bytes.decode(errors="surrogateescape")
        is_text = False
    lines = head.split("\r\n")
    # One look for all of these: what is left without control characters tells whether CRLF were the only ones.
    if len(head_bytes.translate(None, _CONTROLS)) != end - 2 * (len(lines) - 1):
        error = _check_controls(head)
    start = lines.pop(0)
    try:
        names = tuple([line[: line.index(":")] for line in lines])
    except ValueError:
        names = ()  # a folded line, or none of ours: found out below
    shape = _shapes.get(names)
    if shape is not None and end <= LINE_MAX and is_text and error is None:
        return _assemble(start, shape.keys.copy(), lines, data[end + 4 :], shape)
    if len(lines) > RESPONSE_HEADERS_MAX:
        raise Malformed("Too Many Headers", 513)
    keys, lines, unnamed = _read_names(lines)
    # An answer's reason phrase is nobody's to read.
    if not is_text and not (all(map(_is_text, keys, lines)) and (is_answer or _surrogate(start) is None)):
        error = error or Malformed("Not UTF-8")
    if error is not None and any(
        key in REQUIRED and not (_is_text(key, line) and _bare_control(line) is None)
        for key, line in zip(keys, lines, strict=True)
    ):
        raise error  # An answer would be made of what is wrong.
    body = data[end + 4 :]
    if is_answer:
        if error is not None and error.reason == "Control Character" and not _is_controlled(keys, lines):
            error = None
        keys, lines = _mend_length(keys, lines, len(body))
    else:
        if unnamed is not None:
            error = error or unnamed
        if len(lines) > HEADERS_MAX:
            error = error or Malformed("Too Many Headers", 513)
        if end > LINE_MAX and max(map(len, lines), default=0) > LINE_MAX:
            error = error or Malformed("Header Too Long", 513)
    message = _assemble(start, keys, lines, body, None, error)
    if (
        is_text and 0 < len(names) == len(keys) <= SHAPE_HEADERS_MAX and _UNREAD not in keys
    ):  # without folds, and good, or we weren't here
        if len(_shapes) >= SHAPES_MAX:
            _shapes.clear()
        length_at = keys.index("content-length") if "content-length" in keys else -1
        _shapes[names] = _HeaderShape(keys.copy(), keys.index("via"), keys.index("cseq"), length_at)
    return message


def _check_controls(head: str) -> Malformed | None:
    """Control characters are allowed after a backslash in a quoted string (RFC 3261 25.1); CR and LF only as CRLF."""
    if head.count("\r\n") != head.count("\n") or head.count("\n") != head.count("\r"):
        raise Malformed("Bad Line End")
    return Malformed("Control Character") if _bare_control(head) else None


def _is_text(key: str, line: str) -> bool:
    """What is read of this line is UTF-8."""
    if key in _ADDRESSES:
        line = _without_quoted("", line)
        line = line[max(line.find("<"), 0) :]
    elif key not in _TEXTS:
        return True
    return _surrogate(line) is None


def _is_controlled(keys: list[str], lines: list[str]) -> bool:
    """There is a control character in a line that is read."""
    return any(
        _bare_control(line) is not None
        for key, line in zip(keys, lines, strict=True)
        if key in _ADDRESSES or key in _TEXTS
    )


def _mend_length(keys: list[str], lines: list[str], body_bytes: int) -> tuple[list[str], list[str]]:
    """An answer with one Content-Length, where it had several or one that is no number."""
    if "content-length" not in keys:
        return keys, lines
    found = {_value(line) for key, line in zip(keys, lines, strict=True) if key == "content-length"}
    if len(found) == 1 and keys.count("content-length") == 1 and all(map(_is_length, found)):
        return keys, lines
    kept = [(key, line) for key, line in zip(keys, lines, strict=True) if key != "content-length"]
    length = found.pop() if len(found) == 1 and all(map(_is_length, found)) else str(body_bytes)
    kept.append(("content-length", f"Content-Length: {length}"))
    return [key for key, _ in kept], [line for _, line in kept]


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _value(line: str) -> str:
    return line.partition(":")[2].strip(" \t")


def _read_names(lines: list[str]) -> tuple[list[str], list[str], Malformed | None]:
    """The keys of the header lines, the lines, folds undone (RFC 3261 7.3.1), and what is wrong with the names."""
    error: Malformed | None = None
    keys: list[str] = []
    known = KEYS.get
    for line in lines:
        name, colon, _ = line.partition(":")
        key = known(name)
        if key is None and line[:1] in _BLANKS and keys:
            return _read_names(_fold.sub(" ", "\r\n".join(lines)).split("\r\n"))
        if not colon:
            error = error or Malformed("Header Without Colon")
            key = _UNREAD
        elif key is None:
            try:
                key = canonical(name)
            except Malformed as bad:
                error = error or bad
                key = _UNREAD
        keys.append(key)
    return keys, lines, error


def _assemble(
    start: str,
    keys: list[str],
    lines: list[str],
    body: bytes,
    shape: _HeaderShape | None,
    error: Malformed | None = None,
) -> Request | Response:
    """`error`: what is known to be wrong already, and may be answered if the rest can be read."""
    message: Request | Response
    if start[:8] == "SIP/2.0 " and (status := start[8:11]) in _STATUSES and start[11:12] == " ":  # nearly always
        message = Response(_STATUSES[status], start[12:], keys, lines, body)
        method = None
    elif start[:4] in ("SIP/", "sip/"):
        version, _, rest = start.partition(" ")
        status, _, reason = rest.partition(" ")
        if version not in ("SIP/2.0", "sip/2.0"):
            raise Malformed("Version Not Supported", 505)
        if len(status) != 3 or not status.isascii() or not status.isdigit() or not "100" <= status <= "699":
            raise Malformed("Bad Status Code")
        message = Response(int(status), reason, keys, lines, body)
        method = None
    else:
        parts = start.split(" ")
        method = parts[0]
        if method not in METHODS and (len(method) > METHOD_MAX or not is_token(method)):
            raise Malformed("Bad Method")
        if len(parts) != 3 or not parts[1] or "\t" in start:
            error = error or Malformed("Bad Request Line")
        elif parts[2] != "SIP/2.0" and parts[2].upper() != "SIP/2.0":
            error = error or _bad_version(parts[2])
        message = Request(method, parts[1] if len(parts) > 1 else "", keys, lines, body)

    if shape is not None:
        _, via_at, cseq_at, length_at = shape
    else:
        present = set(keys)
        if not present >= REQUIRED:
            raise error or Malformed("Missing Header")
        if len(present) != len(keys):
            for key in present & SINGLE:
                if keys.count(key) > 1:
                    # Answered only where the answer is not made of the header in doubt (RFC 4475 3.3.8).
                    repeated = Malformed("Repeated Header")
                    if key in REQUIRED:
                        raise repeated
                    if method is not None:
                        error = error or repeated
        via_at, cseq_at = keys.index("via"), keys.index("cseq")
        length_at = keys.index("content-length") if "content-length" in present else -1
    try:
        via_text = lines[via_at].partition(":")[2].strip(" \t")
        cseq = parse_cseq(lines[cseq_at].partition(":")[2].strip(" \t"))
        message._read["cseq"] = cseq
        message._read["via"] = parse_via(split_list(via_text)[0] if "," in via_text else via_text)
    except Malformed as bad:
        raise error or bad from None
    if method is not None and cseq.method != method:
        error = error or Malformed("CSeq Method Mismatch")
    if length_at >= 0 and (length_text := lines[length_at].partition(":")[2].strip(" \t")) != str(len(body)):
        try:
            length = parse_uint(length_text, "Content-Length")
        except Malformed as bad:
            if method is None:
                lines[length_at] = f"Content-Length: {len(body)}"
            else:
                error = error or bad
        else:
            if length < len(body):
                message.body = body[:length]  # RFC 3261 18.3
            elif length > len(body):
                error = error or Malformed("Body Shorter Than Content-Length")
    if error is not None:
        message._blame(error)
        raise error
    return message


def _bad_version(text: str) -> Malformed:
    if re.fullmatch(r"SIP/[0-9]+\.[0-9]+", text, re.IGNORECASE | re.ASCII):
        return Malformed("Version Not Supported", 505)
    return Malformed("Bad Request Line")


def header_lines(headers: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Keys and lines of headers given as (name, value), for ``build``.  Raises ValueError for line breaks."""
    keys: list[str] = []
    lines: list[str] = []
    for name, value in headers:
        line = f"{name}: {value}"
        if "\r" in line or "\n" in line:
            raise ValueError("line break in a header")
        keys.append(KEYS.get(name) or canonical(name))
        lines.append(line)
    return keys, lines
