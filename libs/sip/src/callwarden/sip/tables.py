"""The four transaction machines of RFC 3261 section 17, with the Accepted state of RFC 6026, as tables.

The law: a machine in a state, hit by an event, goes to the row's state and does the row's actions in order.  An event
that is not in the table is an error of ours (``transaction`` raises), never a silent else; every event that the network
can cause is in the table of every state it can meet, and a test proves that.

In: states, events, actions.  Out: what an action does (``transaction``).
"""

from __future__ import annotations

from enum import StrEnum


class TransactionKind(StrEnum):
    """The four machines."""

    INVITE_CLIENT = "invite client"  # 17.1.1
    CLIENT = "client"  # 17.1.2
    INVITE_SERVER = "invite server"  # 17.2.1
    SERVER = "server"  # 17.2.2


class TransactionState(StrEnum):
    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    ACCEPTED = "accepted"  # RFC 6026 7
    TERMINATED = "terminated"


class TransactionEvent(StrEnum):
    # From the network.
    REQUEST = "request"  # the request once more
    ACK = "ack"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    # From the user: a response to send.
    SEND_PROVISIONAL = "send 1xx"
    SEND_SUCCESS = "send 2xx"
    SEND_FAILURE = "send 300-699"
    # From the clock.
    RETRANSMIT = "timer A, E or G"
    EXPIRE = "timer B, D, F, H, I, J, K, L or M"
    # From the transport.
    TRANSPORT_ERROR = "transport error"


class Action(StrEnum):
    SEND = "send what is at hand, remember it"
    RESEND = "send again what was sent last"
    BACK_OFF = "send again, wait twice as long"  # timers A, G; E up to T2
    SLOW_DOWN = "wait T2 between further retransmissions"  # timer E in Proceeding, 17.1.2.2
    STOP_RETRANSMITTING = "stop timers A, E, G"
    STOP_EXPIRING = "stop timer B"
    SEND_ACK = "build the ACK, send it, remember it"
    DELIVER = "hand the message to the user"
    TIME_OUT = "notify the user that no answer came"
    FAIL = "notify the user that the transport failed"
    START_D = "wait for retransmitted answers (D, 32 s)"
    START_H = "send again until the ACK comes (G), give up after 64 T1 (H)"
    START_I = "absorb further ACKs (I, T4)"
    START_J = "absorb further requests (J, 64 T1)"
    START_K = "absorb further answers (K, T4)"
    START_L = "absorb further INVITEs (L, 64 T1)"
    START_M = "pass further 2xx on (M, 64 T1)"


Row = tuple[TransactionState, tuple[Action, ...]]
Table = dict[TransactionState, dict[TransactionEvent, Row]]

_C = TransactionState.CALLING
_T = TransactionState.TRYING
_P = TransactionState.PROCEEDING
_D = TransactionState.COMPLETED
_F = TransactionState.CONFIRMED
_A = TransactionState.ACCEPTED
_X = TransactionState.TERMINATED

_E = TransactionEvent
_DO = Action

# RFC 3261 figure 5 as changed by RFC 6026 figure 5.  A new client has sent its request and runs A and B.
INVITE_CLIENT: Table = {
    _C: {
        _E.RETRANSMIT: (_C, (_DO.BACK_OFF,)),
        _E.PROVISIONAL: (_P, (_DO.STOP_RETRANSMITTING, _DO.STOP_EXPIRING, _DO.DELIVER)),
        _E.SUCCESS: (_A, (_DO.STOP_RETRANSMITTING, _DO.START_M, _DO.DELIVER)),
        _E.FAILURE: (_D, (_DO.STOP_RETRANSMITTING, _DO.SEND_ACK, _DO.START_D, _DO.DELIVER)),
        _E.EXPIRE: (_X, (_DO.TIME_OUT,)),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _P: {
        _E.PROVISIONAL: (_P, (_DO.DELIVER,)),
        _E.SUCCESS: (_A, (_DO.START_M, _DO.DELIVER)),
        _E.FAILURE: (_D, (_DO.SEND_ACK, _DO.START_D, _DO.DELIVER)),
        # No timer runs here, but a proxy gives up by timer C or after a CANCEL without an answer (9.1).
        _E.EXPIRE: (_X, (_DO.TIME_OUT,)),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _D: {
        _E.PROVISIONAL: (_D, ()),
        _E.SUCCESS: (_D, ()),  # a 2xx after a failure from the same branch: dropped, as RFC 6026 8.5 has it for servers
        _E.FAILURE: (_D, (_DO.RESEND,)),
        _E.EXPIRE: (_X, ()),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _A: {
        _E.PROVISIONAL: (_A, ()),
        _E.SUCCESS: (_A, (_DO.DELIVER,)),
        _E.FAILURE: (_A, ()),
        _E.EXPIRE: (_X, ()),
        _E.TRANSPORT_ERROR: (_A, ()),  # nothing is sent from here: the ACK to a 2xx is the user's
    },
}

# RFC 3261 figure 6.  A new client has sent its request and runs E and F.
CLIENT: Table = {
    _T: {
        _E.RETRANSMIT: (_T, (_DO.BACK_OFF,)),
        _E.PROVISIONAL: (_P, (_DO.SLOW_DOWN, _DO.DELIVER)),
        _E.SUCCESS: (_D, (_DO.STOP_RETRANSMITTING, _DO.START_K, _DO.DELIVER)),
        _E.FAILURE: (_D, (_DO.STOP_RETRANSMITTING, _DO.START_K, _DO.DELIVER)),
        _E.EXPIRE: (_X, (_DO.TIME_OUT,)),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _P: {
        _E.RETRANSMIT: (_P, (_DO.BACK_OFF,)),
        _E.PROVISIONAL: (_P, (_DO.DELIVER,)),
        _E.SUCCESS: (_D, (_DO.STOP_RETRANSMITTING, _DO.START_K, _DO.DELIVER)),
        _E.FAILURE: (_D, (_DO.STOP_RETRANSMITTING, _DO.START_K, _DO.DELIVER)),
        _E.EXPIRE: (_X, (_DO.TIME_OUT,)),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _D: {
        _E.PROVISIONAL: (_D, ()),
        _E.SUCCESS: (_D, ()),
        _E.FAILURE: (_D, ()),
        _E.EXPIRE: (_X, ()),
        _E.TRANSPORT_ERROR: (_D, ()),  # nothing is sent from here
    },
}

# RFC 3261 figure 7 as changed by RFC 6026 figure 7.  A new server has been handed to the user.
INVITE_SERVER: Table = {
    _P: {
        _E.REQUEST: (_P, (_DO.RESEND,)),
        _E.ACK: (_P, ()),  # to an answer that we never gave
        _E.SEND_PROVISIONAL: (_P, (_DO.SEND,)),
        _E.SEND_SUCCESS: (_A, (_DO.SEND, _DO.START_L)),
        _E.SEND_FAILURE: (_D, (_DO.SEND, _DO.START_H)),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _D: {
        _E.REQUEST: (_D, (_DO.RESEND,)),
        _E.ACK: (_F, (_DO.STOP_RETRANSMITTING, _DO.START_I)),
        _E.RETRANSMIT: (_D, (_DO.BACK_OFF,)),
        _E.EXPIRE: (_X, (_DO.TIME_OUT,)),
        # The user's answers cross on the way: what comes after the first final is dropped (17.2.1).
        _E.SEND_PROVISIONAL: (_D, ()),
        _E.SEND_SUCCESS: (_D, ()),
        _E.SEND_FAILURE: (_D, ()),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _F: {
        _E.REQUEST: (_F, ()),
        _E.ACK: (_F, ()),
        _E.EXPIRE: (_X, ()),
        _E.SEND_PROVISIONAL: (_F, ()),
        _E.SEND_SUCCESS: (_F, ()),
        _E.SEND_FAILURE: (_F, ()),
        _E.TRANSPORT_ERROR: (_F, ()),
    },
    _A: {
        _E.REQUEST: (_A, ()),  # RFC 6026 7.1: absorbed; the user's 2xx retransmissions answer it
        _E.ACK: (_A, (_DO.DELIVER,)),
        _E.SEND_PROVISIONAL: (_A, ()),
        _E.SEND_SUCCESS: (_A, (_DO.SEND,)),
        _E.SEND_FAILURE: (_A, ()),
        _E.EXPIRE: (_X, ()),
        _E.TRANSPORT_ERROR: (_A, (_DO.FAIL,)),
    },
}

# RFC 3261 figure 8.
SERVER: Table = {
    _T: {
        _E.REQUEST: (_T, ()),
        _E.SEND_PROVISIONAL: (_P, (_DO.SEND,)),
        _E.SEND_SUCCESS: (_D, (_DO.SEND, _DO.START_J)),
        _E.SEND_FAILURE: (_D, (_DO.SEND, _DO.START_J)),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _P: {
        _E.REQUEST: (_P, (_DO.RESEND,)),
        _E.SEND_PROVISIONAL: (_P, (_DO.SEND,)),
        _E.SEND_SUCCESS: (_D, (_DO.SEND, _DO.START_J)),
        _E.SEND_FAILURE: (_D, (_DO.SEND, _DO.START_J)),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
    _D: {
        _E.REQUEST: (_D, (_DO.RESEND,)),
        _E.SEND_PROVISIONAL: (_D, ()),
        _E.SEND_SUCCESS: (_D, ()),
        _E.SEND_FAILURE: (_D, ()),
        _E.EXPIRE: (_X, ()),
        _E.TRANSPORT_ERROR: (_X, (_DO.FAIL,)),
    },
}

# The user's answer may come when all is over (a 2xx retransmitted after timer L): dropped.
for _table in (INVITE_SERVER, SERVER):
    _table[_X] = {_E.SEND_PROVISIONAL: (_X, ()), _E.SEND_SUCCESS: (_X, ()), _E.SEND_FAILURE: (_X, ())}

TABLES: dict[TransactionKind, Table] = {
    TransactionKind.INVITE_CLIENT: INVITE_CLIENT,
    TransactionKind.CLIENT: CLIENT,
    TransactionKind.INVITE_SERVER: INVITE_SERVER,
    TransactionKind.SERVER: SERVER,
}
