"""What follows a call through every hop: W3C trace context, Call-ID, deadline. Spans are made in `telemetry`.

The three live in one immutable `Scope` in one context variable, because setting a context variable per request costs on
the hot path and they always change together. Parsing happens when the value is read, not when a request passes.
https://www.w3.org/TR/trace-context/
"""

import re
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACEPARENT_KEY: Final = "traceparent"
CALL_ID_KEY: Final = "callwarden-call-id"
CALL_ID_BYTES_MAX: Final = 256  # What libs/sip accepts is shorter; a longer one is cut, never passed on whole.

# W3C trace context 3.2.2: version 00; all-zero ids are invalid (checked apart).
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 0x01


class TraceContext(NamedTuple):
    """One parsed traceparent: 32 and 16 lower-case hex digits, and whether spans are recorded."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def parse(cls, header: str) -> "TraceContext | None":
        """None for anything that is not a valid version 00 header (the receiver then starts a new trace)."""
        match = _TRACEPARENT.fullmatch(header)
        if match is None:
            return None
        trace_id, span_id, flags = match.groups()
        if trace_id == "0" * 32 or span_id == "0" * 16:
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


class Scope:
    """What one request carries. Plain slots instead of a frozen dataclass: made for every request (0.15 µs against
    0.6).
    """

    __slots__ = ("call_id", "deadline_s", "traceparent")

    def __init__(self, traceparent: str = "", call_id: str = "", deadline_s: float | None = None) -> None:
        self.traceparent = traceparent
        self.call_id = call_id
        self.deadline_s = deadline_s  # on time.monotonic()


_NONE = Scope()
_scope: ContextVar[Scope] = ContextVar("callwarden_scope", default=_NONE)

current_scope = _scope.get
set_scope = _scope.set


def traceparent() -> str:
    """The traceparent of the request being served, or ''."""
    return _scope.get().traceparent


def call_id() -> str:
    """The SIP Call-ID of the call being served, or ''."""
    return _scope.get().call_id


def deadline_remaining_s() -> float | None:
    """Seconds left until the caller gives up (negative when it has), or None outside a request."""
    deadline_s = _scope.get().deadline_s
    return None if deadline_s is None else deadline_s - time.monotonic()


def headers() -> tuple[tuple[str, str], ...]:
    """Trace and Call-ID of the current scope, for gRPC metadata and NATS headers.

    A Call-ID that a header can't carry (not printable ASCII, as RFC 3261's callid is) is left out.
    """
    current = _scope.get()
    found: tuple[tuple[str, str], ...] = ()
    if current.traceparent:
        found += ((TRACEPARENT_KEY, current.traceparent),)
    if current.call_id and current.call_id.isascii() and current.call_id.isprintable():
        found += ((CALL_ID_KEY, current.call_id),)
    return found


@contextmanager
def scope(*, traceparent: str = "", call_id: str = "", deadline_s: float | None = None) -> "Iterator[Scope]":
    """For the block, be inside this call. `deadline_s` is on time.monotonic()."""
    inner = Scope(traceparent, call_id[:CALL_ID_BYTES_MAX], deadline_s)
    token = _scope.set(inner)
    try:
        yield inner
    finally:
        _scope.reset(token)
