"""The one error of this library: a message, or a part of it, that is not SIP.

In: the reason (short fixed text, safe to log and to send back, never a piece of the input) and what a server would
answer.
Out: who answers, and whether an answer is given at all; that is the edge's decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callwarden.sip.message import Request


class Malformed(ValueError):
    """The bytes are not the SIP they should be.

    ``reason`` is fixed text without a byte of the input.  ``status`` is what an RFC 3261 server would answer (400, 413,
    416, 505, 513).  ``request`` is there if enough was read to build that answer with ``build.response``; it is None
    for responses, for ACK (never answered) and for what has no usable Via, From, To, Call-ID or CSeq.
    """

    __slots__ = ("reason", "request", "status")

    def __init__(self, reason: str, status: int = 400, request: Request | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.request = request
