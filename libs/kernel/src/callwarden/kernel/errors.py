"""Errors that say what went wrong, in our own words. Statuses (gRPC, SIP, exit codes) belong to the edges.

A refusal is not an error: "over the limit" is a verdict (callwarden.kernel.verdict). An error means that the question
could not be answered.
"""

from enum import Enum


class ErrorKind(Enum):
    """What kind of failure it is; each edge maps every kind to its own status in one table."""

    INVALID = "invalid"  # the caller's input is wrong and stays wrong
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"  # exists already, or changed in between: look again
    EXHAUSTED = "exhausted"  # we have too much to do: come back later
    UNAVAILABLE = "unavailable"  # something we need doesn't answer
    TIMEOUT = "timeout"
    INTERNAL = "internal"  # our fault; the caller learns no more than that


class CallwardenError(Exception):
    """An error whose message is meant for the caller: it contains no secret and no internal detail.

    `field` names the input that is wrong, where there is one (for example "spec.spend.daily.endUser").
    """

    kind = ErrorKind.INTERNAL

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class Invalid(CallwardenError):
    kind = ErrorKind.INVALID


class Unauthenticated(CallwardenError):
    kind = ErrorKind.UNAUTHENTICATED


class Denied(CallwardenError):
    kind = ErrorKind.DENIED


class NotFound(CallwardenError):
    kind = ErrorKind.NOT_FOUND


class Conflict(CallwardenError):
    kind = ErrorKind.CONFLICT


class Exhausted(CallwardenError):
    kind = ErrorKind.EXHAUSTED


class Unavailable(CallwardenError):
    kind = ErrorKind.UNAVAILABLE


class TimedOut(CallwardenError):
    kind = ErrorKind.TIMEOUT


class Internal(CallwardenError):
    kind = ErrorKind.INTERNAL


ERROR_OF_KIND: dict[ErrorKind, type[CallwardenError]] = {
    cls.kind: cls
    for cls in (Invalid, Unauthenticated, Denied, NotFound, Conflict, Exhausted, Unavailable, TimedOut, Internal)
}
"""The class for each kind, for edges that translate a status back; total (tested)."""
