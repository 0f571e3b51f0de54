"""The header block and the body: what requests and responses share.

In: headers as text and as values, read when asked for and remembered, and the edits that a proxy makes (RFC 3261 16.6,
16.7); each edit touches its own line only.  Out: start lines and bytes to messages (``message``).
"""

from __future__ import annotations

import re
from typing import Any

from callwarden.sip.cseq import CSeq, parse_cseq
from callwarden.sip.grammar import LIST_MAX, parse_uint, split_list
from callwarden.sip.malformed import Malformed
from callwarden.sip.nameaddr import NameAddr, parse_name_addr
from callwarden.sip.names import KEYS, canonical
from callwarden.sip.via import Via, parse_via

MAX_FORWARDS_DEFAULT = 70  # RFC 3261 8.1.1.6

_is_callid = re.compile(r"[^\s\x00-\x1f\x7f]+").fullmatch

_NAME_ADDR_LISTS = frozenset({"contact", "route", "record-route", "path", "service-route"})
_NAME_ADDRS = frozenset({"from", "to", "refer-to", "referred-by", "reply-to"})
_KNOWN = _NAME_ADDR_LISTS | _NAME_ADDRS | {"call-id", "max-forwards", "expires"}


class SipMessage:
    """What requests and responses share: headers in order, and a body of bytes.

    Mutable, with slots and private lists, because it is the hot path: a proxy changes four lines and passes the other
    twelve on.  ``_keys[i]`` is the canonical name of ``_lines[i]``, a whole line without its line end; ``_read``
    remembers what was read from the headers, by key.
    """

    __slots__ = ("_keys", "_lines", "_read", "body")

    def __init__(self, keys: list[str], lines: list[str], body: bytes) -> None:
        self._keys = keys
        self._lines = lines
        self._read: dict[str, Any] = {}
        self.body = body

    # Headers as text.

    def get(self, name: str) -> str | None:
        """The value of the first header of that name (any spelling, compact or not), blanks around it cut; or None."""
        key = KEYS.get(name) or canonical(name)
        keys = self._keys
        if key not in keys:
            return None
        return self._lines[keys.index(key)].partition(":")[2].strip(" \t")

    def get_all(self, name: str) -> list[str]:
        """The values of all headers of that name, one for each line, in order."""
        key = KEYS.get(name) or canonical(name)
        keys = self._keys
        if key not in keys:
            return []
        if keys.count(key) == 1:
            return [_value(self._lines[keys.index(key)])]
        return [_value(line) for k, line in zip(keys, self._lines, strict=True) if k == key]

    def elements(self, name: str) -> list[str]:
        """All elements of a comma-separated header, over all its lines (RFC 3261 7.3.1).  Raises Malformed."""
        found: list[str] = []
        for value in self.get_all(name):
            if "," in value:
                found += split_list(value)
            else:
                found.append(value)
            if len(found) > LIST_MAX:
                raise Malformed("Too Many List Elements")
        return found

    def headers(self) -> list[tuple[str, str]]:
        """All headers in order as (key in lower case, value)."""
        return [(key, _value(line)) for key, line in zip(self._keys, self._lines, strict=True)]

    def __contains__(self, name: str) -> bool:
        return (KEYS.get(name) or canonical(name)) in self._keys

    # Edits.  Values with line breaks raise ValueError, so that nothing can be smuggled in.

    def add(self, name: str, value: str) -> None:
        """Append a header line."""
        self.insert(len(self._keys), name, value)

    def add_first(self, name: str, value: str) -> None:
        """Put a header line before others of its name, or before all."""
        key = KEYS.get(name) or canonical(name)
        self.insert(self._keys.index(key) if key in self._keys else 0, name, value)

    def insert(self, at: int, name: str, value: str) -> None:
        line = f"{name}: {value}"
        if "\r" in line or "\n" in line:
            raise ValueError("line break in a header")
        key = KEYS.get(name) or canonical(name)
        self._keys.insert(at, key)
        self._lines.insert(at, line)
        self._read.pop(key, None)

    def set(self, name: str, value: str) -> None:
        """Replace all headers of that name by one, in the place of the first, or append it."""
        key = KEYS.get(name) or canonical(name)
        keys = self._keys
        if key not in keys:
            self.insert(len(keys), name, value)
            return
        at = keys.index(key)
        self.remove(key)
        self.insert(at, name, value)

    def remove(self, name: str) -> None:
        """Take all headers of that name away; none is no error."""
        key = KEYS.get(name) or canonical(name)
        keys = self._keys
        if key not in keys:
            return
        lines = self._lines
        while key in keys:
            at = keys.index(key)
            del keys[at], lines[at]
        self._read.pop(key, None)

    def set_body(self, body: bytes, content_type: str | None) -> None:
        """Replace the body, and with it Content-Type (None: take it away) and Content-Length."""
        self.body = body
        if content_type is None:
            self.remove("content-type")
        else:
            self.set("Content-Type", content_type)
        self.set("Content-Length", str(len(body)))

    # Headers as values, read once.  All raise Malformed if the header is not what it should be.

    @property
    def via(self) -> Via:
        """The top Via."""
        via: Via | None = self._read.get("via")
        if via is None:
            value = self._first("via")
            self._read["via"] = via = parse_via(split_list(value)[0] if "," in value else value)
        return via

    @property
    def vias(self) -> list[Via]:
        return [parse_via(element) for element in self.elements("via")]

    @property
    def cseq(self) -> CSeq:
        cseq: CSeq | None = self._read.get("cseq")
        if cseq is None:
            self._read["cseq"] = cseq = parse_cseq(self._first("cseq"))
        return cseq

    @property
    def call_id(self) -> str:
        return self._first("call-id")

    @property
    def from_(self) -> NameAddr:
        return self._name_addr("from")

    @property
    def to(self) -> NameAddr:
        return self._name_addr("to")

    @property
    def contacts(self) -> list[NameAddr]:
        """The Contacts; the single ``*`` of RFC 3261 10.2.2 is not among them (``contact_star``)."""
        return [] if self.get("contact") == "*" else self._name_addrs("contact")

    @property
    def contact_star(self) -> bool:
        return self.get("contact") == "*"

    @property
    def routes(self) -> list[NameAddr]:
        return self._name_addrs("route")

    @property
    def record_routes(self) -> list[NameAddr]:
        return self._name_addrs("record-route")

    @property
    def expires_s(self) -> int | None:
        """Expires in seconds (RFC 3261 20.19), None where there is none."""
        value = self.get("expires")
        return None if value is None else parse_uint(value, "Expires")

    @property
    def max_forwards(self) -> int | None:
        value = self.get("max-forwards")
        return None if value is None else parse_uint(value, "Max-Forwards", 255)

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters, '' where there is none."""
        return (self.get("content-type") or "").partition(";")[0].strip(" \t").lower()

    def _first(self, key: str) -> str:
        keys = self._keys
        if key not in keys:
            raise Malformed("Missing Header")
        return self._lines[keys.index(key)].partition(":")[2].strip(" \t")

    def _name_addr(self, key: str) -> NameAddr:
        found: NameAddr | None = self._read.get(key)
        if found is None:
            try:
                self._read[key] = found = parse_name_addr(self._first(key))
            except Malformed as error:
                self._blame(error)
                raise
        return found

    def _name_addrs(self, key: str) -> list[NameAddr]:
        found: list[NameAddr] | None = self._read.get(key)
        if found is None:
            try:
                self._read[key] = found = [parse_name_addr(element) for element in self.elements(key)]
            except Malformed as error:
                self._blame(error)
                raise
        return found

    def _blame(self, error: Malformed) -> None:
        """Tell the error which message it is about, so that it can be answered."""

    # What a proxy does to messages (RFC 3261 16.6, 16.7).

    def push_via(self, via: Via | str, text: str | None = None) -> None:
        """Put our Via on top.  ``text``: how it is written, where that is known already (3 µs less)."""
        keys = self._keys
        at = keys.index("via") if "via" in keys else 0
        keys.insert(at, "via")
        self._lines.insert(at, f"Via: {via}" if text is None else f"Via: {text}")
        if isinstance(via, str):
            self._read.pop("via", None)
        else:
            self._read["via"] = via

    def pop_via(self) -> None:
        """Take the top Via away; none is no error."""
        self._pop_first("via")

    def set_top_via(self, via: Via) -> None:
        """Replace the top Via, as for ``via.stamped(host, port)``."""
        at = self._keys.index("via")
        if "," in self._lines[at]:
            self._pop_first("via")
            self.push_via(via)
        else:
            self._lines[at] = f"Via: {via}"
            self._read["via"] = via

    def push_record_route(self, uri: str) -> None:
        """Put a Record-Route for this URI on top.  The URI is ours: it is not checked."""
        keys = self._keys
        at = keys.index("record-route") if "record-route" in keys else keys.index("via") if "via" in keys else 0
        keys.insert(at, "record-route")
        self._lines.insert(at, f"Record-Route: <{uri}>")
        self._read.pop("record-route", None)

    def pop_route(self) -> None:
        """Take the top Route away; none is no error."""
        self._pop_first("route")

    def push_route(self, uri: str) -> None:
        self.add_first("Route", f"<{uri}>")

    def decrement_max_forwards(self) -> int:
        """Take one from Max-Forwards, or add it with 70 (RFC 3261 16.6).  Returns what was there; 0: no further."""
        keys = self._keys
        if "max-forwards" not in keys:
            self.add("Max-Forwards", str(MAX_FORWARDS_DEFAULT))
            return MAX_FORWARDS_DEFAULT
        at = keys.index("max-forwards")
        before = parse_uint(_value(self._lines[at]), "Max-Forwards", 255)
        if before:
            self._lines[at] = f"Max-Forwards: {before - 1}"
        return before

    def _pop_first(self, key: str) -> None:
        keys, lines = self._keys, self._lines
        if key not in keys:
            return
        at = keys.index(key)
        line = lines[at]
        if "," in line and len(elements := split_list(_value(line))) > 1:
            name = line[: line.index(":")]
            lines[at] = f"{name}: {', '.join(elements[1:])}"
        else:
            del keys[at], lines[at]
        self._read.pop(key, None)

    def validate(self) -> None:
        """Read every header this library knows; raises Malformed for the first that is not what it should be."""
        keys, lines, read = self._keys, self._lines, self._read
        for key, line in zip(keys, lines, strict=True):
            if key not in _KNOWN or key in read:
                continue
            value = line.partition(":")[2].strip(" \t")
            match key:
                case "from" | "to" | "refer-to" | "referred-by" | "reply-to":
                    read[key] = parse_name_addr(value)
                case "call-id":
                    if _is_callid(value) is None:
                        raise Malformed("Bad Call-ID")
                case "max-forwards":
                    parse_uint(value, "Max-Forwards", 255)
                case "expires":
                    parse_uint(value, "Expires")
                case "contact" if value == "*":
                    if keys.count("contact") > 1:
                        raise Malformed("Bad Contact")
                case _:
                    self._name_addrs(key)
        if keys.count("via") > 1 or "," in lines[keys.index("via")]:
            _ = self.vias

    def _start_line(self) -> str:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        return "\r\n".join([self._start_line(), *self._lines, "", ""]).encode(errors="surrogateescape") + self.body

    def __bytes__(self) -> bytes:
        return self.to_bytes()


def _value(line: str) -> str:
    return line.partition(":")[2].strip(" \t")
