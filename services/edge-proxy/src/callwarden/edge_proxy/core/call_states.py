"""The machines that every call is in, as tables: its way from INVITE to end, what it may still talk, and whether each
of its sides has been told of the end.

The law: a machine in a state, met by an event, goes to the row's state. An event that has no row raises
`ImpossibleEvent`: our own code did what it must not. A test goes through all pairs of state and event, so that none is
left out by oversight, and drives the core until it has been through every row.

In: states, events, rows. Out: what is done on the way (`call_setup`, `active_call`, `relay`).
"""

from enum import StrEnum
from typing import Final


class CallState(StrEnum):
    """Where a call is."""

    IDENTIFYING = "identifying"  # auth is asked who calls
    ADMITTING = "admitting"  # call-admission is asked: from now on a hold may exist
    ABANDONED = "abandoned"  # the caller gave up while call-admission was asked; its answer is awaited to end the hold
    CALLING = "calling"  # a target has the INVITE and has not answered
    RINGING = "ringing"  # a target has answered provisionally
    CANCELLING = "cancelling"  # the caller gave up; the target has the CANCEL and owes its final answer
    ANSWERED = "answered"  # both sides talk
    RECORDED = "recorded"  # both sides talk, and another edge could go on with the call
    CUTTING = "cutting"  # the edge has ended it: each side has its BYE, and not each has answered
    ENDED = "ended"


class CallEvent(StrEnum):
    # From auth and call-admission.
    IDENTIFIED = "identified"  # who calls and whom is known, and call-admission is asked
    ADMITTED = "admitted"
    REFUSED = "refused"  # there is no hold: call-admission refused, or it was never asked
    PLACED_ELSEWHERE = "placed elsewhere"  # call-admission has admitted it for another edge
    UNANSWERED = "unanswered"  # call-admission didn't answer: there may be a hold
    # From the two sides.
    PROGRESSED = "progressed"  # a provisional answer
    ANSWERED = "answered"  # a 2xx to the INVITE, each time it comes
    FAILED = "failed"  # the caller has its final failure
    CANCELLED = "cancelled"
    HUNG_UP = "hung up"  # one side's BYE has the other's 2xx
    # From the edge.
    RETARGETED = "retargeted"  # the next target has the INVITE
    RECORD = "record"  # the record is stored
    CUT = "cut"  # each side that isn't known to be gone has a BYE from the edge
    CLOSED = "closed"  # both sides are gone


_S, _E = CallState, CallEvent

CALL: Final[dict[CallState, dict[CallEvent, CallState]]] = {
    _S.IDENTIFYING: {
        _E.IDENTIFIED: _S.ADMITTING,
        _E.REFUSED: _S.ENDED,
        _E.CANCELLED: _S.ENDED,
    },
    _S.ADMITTING: {
        _E.ADMITTED: _S.CALLING,
        _E.REFUSED: _S.ENDED,
        _E.PLACED_ELSEWHERE: _S.ENDED,
        _E.UNANSWERED: _S.ENDED,
        _E.CANCELLED: _S.ABANDONED,
    },
    _S.ABANDONED: {
        _E.ADMITTED: _S.ENDED,
        _E.REFUSED: _S.ENDED,
        _E.PLACED_ELSEWHERE: _S.ENDED,
        _E.UNANSWERED: _S.ENDED,
    },
    _S.CALLING: {
        _E.RETARGETED: _S.CALLING,
        _E.PROGRESSED: _S.RINGING,
        _E.ANSWERED: _S.ANSWERED,
        _E.FAILED: _S.ENDED,
        _E.CANCELLED: _S.ENDED,  # the CANCEL waits for a provisional answer (RFC 3261 9.1), the caller's 487 doesn't
    },
    _S.RINGING: {
        _E.RETARGETED: _S.CALLING,
        _E.PROGRESSED: _S.RINGING,
        _E.ANSWERED: _S.ANSWERED,
        _E.FAILED: _S.ENDED,
        _E.CANCELLED: _S.CANCELLING,
    },
    _S.CANCELLING: {
        _E.PROGRESSED: _S.CANCELLING,
        _E.ANSWERED: _S.ANSWERED,  # it crossed the CANCEL and wins (RFC 3261 9.1)
        _E.FAILED: _S.ENDED,
    },
    _S.ANSWERED: {
        _E.ANSWERED: _S.ANSWERED,
        _E.RECORD: _S.RECORDED,
        _E.HUNG_UP: _S.ENDED,
        _E.CUT: _S.CUTTING,
    },
    _S.RECORDED: {
        _E.ANSWERED: _S.RECORDED,
        _E.HUNG_UP: _S.ENDED,
        _E.CUT: _S.CUTTING,
    },
    _S.CUTTING: {
        _E.CLOSED: _S.ENDED,
    },
    _S.ENDED: {},
}

# A target has been chosen and owes an answer.
IN_SETUP: Final = frozenset({_S.CALLING, _S.RINGING, _S.CANCELLING})
# The caller may still give up.
CANCELLABLE: Final = frozenset({_S.IDENTIFYING, _S.ADMITTING, _S.CALLING, _S.RINGING})
TALKING: Final = frozenset({_S.ANSWERED, _S.RECORDED})
# The charge has ended.
OVER: Final = frozenset({_S.CUTTING, _S.ENDED})
# call-admission may hold a line and money for the call: its end must be notified.
MAY_HOLD: Final = frozenset({_S.ADMITTING, _S.ABANDONED, *IN_SETUP, *TALKING})


class GrantState(StrEnum):
    """What talk time is to be had beyond what is granted."""

    OPEN = "open"  # more can be asked for
    ASKED = "asked"  # call-admission is asked
    FINAL = "final"  # there is no more


class GrantEvent(StrEnum):
    ASK = "ask"
    GRANTED = "granted"
    UNANSWERED = "unanswered"  # no answer, or one that grants nothing new
    LAST = "last"  # no more can be had


_G, _H = GrantState, GrantEvent

GRANT: Final[dict[GrantState, dict[GrantEvent, GrantState]]] = {
    _G.OPEN: {_H.ASK: _G.ASKED, _H.LAST: _G.FINAL},  # LAST: the first grant is final
    _G.ASKED: {_H.GRANTED: _G.OPEN, _H.UNANSWERED: _G.OPEN, _H.LAST: _G.FINAL},
    _G.FINAL: {},
}


class SideState(StrEnum):
    """What a side of an answered call knows of its end."""

    UP = "up"  # it believes in the call
    TOLD = "told"  # it has a BYE from the edge, and owes the answer
    GONE = "gone"


class SideEvent(StrEnum):
    TELL = "tell"  # a BYE of the edge is sent, again if the first one was refused
    CLOSED = "closed"  # that BYE has its final answer, or will never have one


_D, _V = SideState, SideEvent

SIDE: Final[dict[SideState, dict[SideEvent, SideState]]] = {
    _D.UP: {_V.TELL: _D.TOLD},
    _D.TOLD: {_V.TELL: _D.TOLD, _V.CLOSED: _D.GONE},
    _D.GONE: {},
}


class ImpossibleEvent(RuntimeError):
    """Our own code made a step that the table doesn't have."""
