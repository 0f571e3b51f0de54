"""Whether what was booked about calls is right: each record against its price, its talk and the ledger, each hold
against what has become of its call.

In: rows as they are read, what is wrong with each. Out: reading them (adapters.charges_sql), going through all of them
(app.charge_check). What an operator has corrected since is meant, and so is no finding.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID

from callwarden.call_admission.model.calls import HoldStage
from callwarden.call_admission.model.settle import EXPIRED, charge_micros, talk_s
from callwarden.kernel.clock import UnixS
from callwarden.kernel.tariff import Price

# A moment is stored to the microsecond: what was worked out of it before may have been on the other side of a second.
_STORED_S: Final = 1e-6
_NEARBY_S: Final = (0.0, -_STORED_S, _STORED_S)
# The reaper lets a hold lapse within seconds, and waits for the end of a lapsed one for as long as NATS is away.
RUNNING_LATE_S: Final = 300.0
LAPSED_LATE_S: Final = 3_600.0
# An edge writes down a call a moment after its answer, and one that takes over a dead edge's needs some seconds.
KNOWN_AFTER_S: Final = 120.0


class FindingKind(StrEnum):
    """What can be wrong. The value is what operators and metrics are told."""

    UNDERCHARGED = "undercharged"
    """The call was charged less than its price says for its talk."""
    OVERCHARGED = "overcharged"
    TALK = "talk-differs"
    """The record's duration isn't the time between answer and end."""
    ENTRY_MISSING = "entry-missing"
    """The record charges the call, the ledger has no entry for it."""
    ENTRY_DIFFERS = "entry-differs"
    """The ledger's entry has another amount, or another account, than the record."""
    RECORD_MISSING = "record-missing"
    """The ledger has charged a call that has no record."""
    HOLD_LEFT = "hold-left"
    """The call has ended and has its record, but its hold is still there."""
    HOLD_STUCK = "hold-stuck"
    """The hold has expired long ago, and nobody has let it lapse, or recorded its call."""
    CALL_UNKNOWN = "call-unknown"
    """The hold is in force, and no edge knows the call."""


@dataclass(frozen=True, slots=True)
class ChargeFinding:
    """One thing that is wrong with one call."""

    kind: FindingKind
    hold_id: UUID
    call_id: str
    """Empty: not known any more."""
    account: str
    currency: str
    expected_micros: int
    found_micros: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class ChargedCall:
    """A call record, with what the ledger has of it; read at one moment."""

    hold_id: UUID
    account_id: UUID
    account: str
    call_id: str
    currency: str
    started_at_s: float
    answered_at_s: float | None
    ended_at_s: float
    duration_s: int
    price_micros: int
    """As it was settled first."""
    corrected_micros: int
    """What its late end has added since, or (below 0) given back."""
    uncharged_micros: int
    price: Price | None
    """None: recorded by a release that didn't keep it."""
    granted_s: int
    held_micros: int
    entry_micros: int | None
    """Of the ledger's entry; None: there is none."""
    entry_account_id: UUID | None


@dataclass(frozen=True, slots=True)
class BookedCharge:
    """A ledger entry of the charge of a call."""

    entry_id: UUID
    hold_id: UUID
    account: str
    currency: str
    amount_micros: int
    is_first: bool
    """Not the correction by a late end."""


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold, and whether its call has a record."""

    hold_id: UUID
    account: str
    currency: str
    call_id: str
    edge: str
    stage: HoldStage
    created_at_s: float
    answered_at_s: float | None
    expires_at_s: float
    held_micros: int
    recorded_as: str | None
    """The record's reason; None: there is no record."""


@dataclass(slots=True)
class ChargeCount:
    """What was looked at so far, and how much was found."""

    records: int = 0
    unpriced: int = 0
    """Records that say nothing of their price: their charges can't be checked."""
    uncharged: int = 0
    """Records of calls that prepaid accounts could not pay in full."""
    entries: int = 0
    holds: int = 0
    edges_asked: bool = True
    """Whether the edges could be asked which calls they know."""
    found: Counter[FindingKind] = field(default_factory=Counter)


def check_call(call: ChargedCall) -> Iterator[ChargeFinding]:
    """What is wrong with a record. Without its price, only what the ledger says."""

    def finding(kind: FindingKind, expected_micros: int, found_micros: int, note: str = "") -> ChargeFinding:
        return ChargeFinding(
            kind, call.hold_id, call.call_id, call.account, call.currency, expected_micros, found_micros, note
        )

    if call.price is not None:
        due = [_due_micros(call, call.price, nearby_s) - call.uncharged_micros for nearby_s in _NEARBY_S]
        charged = call.price_micros + call.corrected_micros
        if charged not in due:
            kind = FindingKind.UNDERCHARGED if charged < due[0] else FindingKind.OVERCHARGED
            yield finding(kind, due[0], charged)
        talked = [_talked_s(call, nearby_s) for nearby_s in _NEARBY_S]
        if call.duration_s not in talked:
            note = f"{call.duration_s} s recorded, {talked[0]} s between answer and end"
            yield finding(FindingKind.TALK, due[0], charged, note)
    entry_micros = call.entry_micros
    if entry_micros is None:
        if call.price_micros:
            yield finding(FindingKind.ENTRY_MISSING, -call.price_micros, 0)
    elif entry_micros != -call.price_micros:
        yield finding(FindingKind.ENTRY_DIFFERS, -call.price_micros, entry_micros)
    elif call.entry_account_id != call.account_id:
        yield finding(FindingKind.ENTRY_DIFFERS, entry_micros, entry_micros, "booked on another account")


def _due_micros(call: ChargedCall, price: Price, nearby_s: float) -> int:
    if call.answered_at_s is None:
        return 0
    return charge_micros(price, call.answered_at_s + nearby_s, call.duration_s, call.granted_s, call.held_micros)


def _talked_s(call: ChargedCall, nearby_s: float) -> int:
    return 0 if call.answered_at_s is None else talk_s(call.answered_at_s + nearby_s, call.ended_at_s)


def check_entry(entry: BookedCharge, *, has_record: bool) -> Iterator[ChargeFinding]:
    """What is wrong with a ledger entry whose record would still be kept."""
    if entry.is_first and not has_record:
        yield ChargeFinding(
            FindingKind.RECORD_MISSING, entry.hold_id, "", entry.account, entry.currency, 0, entry.amount_micros
        )


def check_hold(hold: OpenHold, unix_s: UnixS, kept_since_s: float) -> Iterator[ChargeFinding]:
    """What is wrong with a hold. Records of calls that began before `kept_since_s` may have been deleted."""
    is_recorded = hold.recorded_as is not None
    if hold.stage is HoldStage.RECORDED:
        if not is_recorded and hold.created_at_s >= kept_since_s:
            yield _of_hold(FindingKind.RECORD_MISSING, hold, "its hold says that it was recorded as expired")
        elif is_recorded and hold.recorded_as != EXPIRED:
            yield _of_hold(FindingKind.HOLD_LEFT, hold, f"recorded as {hold.recorded_as}")
    elif is_recorded:
        yield _of_hold(FindingKind.HOLD_LEFT, hold, f"recorded as {hold.recorded_as}")
    elif hold.stage is not HoldStage.CLOSED:
        late_s = LAPSED_LATE_S if hold.stage is HoldStage.LAPSED else RUNNING_LATE_S
        if hold.expires_at_s < unix_s - late_s:
            yield _of_hold(FindingKind.HOLD_STUCK, hold, f"{hold.stage.name.lower()}, expired long ago")


def is_to_be_known(hold: OpenHold, unix_s: UnixS) -> bool:
    """Whether an edge must know the call of this hold by now."""
    since_s = hold.created_at_s if hold.answered_at_s is None else hold.answered_at_s
    return (
        hold.stage is HoldStage.RUNNING
        and hold.recorded_as is None
        and since_s < unix_s - KNOWN_AFTER_S < hold.expires_at_s
    )


def unknown_call(hold: OpenHold) -> ChargeFinding:
    return _of_hold(FindingKind.CALL_UNKNOWN, hold, f"admitted by {hold.edge}")


def _of_hold(kind: FindingKind, hold: OpenHold, note: str) -> ChargeFinding:
    return ChargeFinding(kind, hold.hold_id, hold.call_id, hold.account, hold.currency, 0, hold.held_micros, note)
