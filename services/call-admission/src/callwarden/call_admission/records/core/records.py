"""Records of settled calls as they leave the system (CSV, JSON lines), and lists of decisions about calls.

In: which fields there are and how each is written. Out: where they come from (adapters.records_sql).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from callwarden.call_admission.model import csv_text
from callwarden.kernel import ids
from callwarden.kernel.errors import Invalid
from callwarden.kernel.money import format_amount
from callwarden.kernel.printable import csv_cell

FORMATS: Final = ("csv", "jsonl")


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A settled call with everything: who, where, when, price, cost, why. Moments in seconds since 1970; 0: not."""

    hold_id: str
    call_id: str
    account_id: str
    account: str
    realm: str
    destination: str
    dialled: str
    caller_number: str
    source_address: str
    edge: str
    started_at_s: float
    answered_at_s: float
    ended_at_s: float
    duration_s: int
    billed_s: int
    price_micros: int
    corrected_micros: int
    """What corrections have added to the price, or (below 0) given back."""
    cost_micros: int | None
    """What the carrier charges; None: unknown."""
    margin_micros: int | None
    currency: str
    prefix: str
    trunk: str
    carrier_account_id: str
    reason: str
    sip_status: int
    limits_hit: str
    policy_revision: int
    trace_id: str


_MOMENTS: Final = ("started_at_s", "answered_at_s", "ended_at_s")
_AMOUNTS: Final = ("price_micros", "corrected_micros", "cost_micros", "margin_micros")


def header(format_: str) -> str:
    """What goes before the first record. CSV is for people: moments in ISO 8601 and amounts in the currency's unit."""
    if format_ == "jsonl":
        return ""
    return csv_text.lines([[_column(field.name) for field in fields(CallRecord)]])


def write(records: Sequence[CallRecord], format_: str) -> str:
    """Lines of the format."""
    if format_ == "jsonl":
        return "".join(f"{json.dumps(asdict(record), ensure_ascii=False)}\n" for record in records)
    return csv_text.lines(
        [_cell(name, value, record.currency) for name, value in asdict(record).items()] for record in records
    )


def _column(name: str) -> str:
    if name in _MOMENTS:
        return name.removesuffix("_s")
    return name.removesuffix("_micros") if name in _AMOUNTS else name


def _cell(name: str, value: object, currency: str) -> object:
    if value is None:
        return ""
    if name in _MOMENTS:
        assert isinstance(value, float)
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds") if value else ""
    if name in _AMOUNTS:
        assert isinstance(value, int)
        return format_amount(value, currency).removesuffix(f" {currency}")
    return csv_cell(value) if isinstance(value, str) else value


def check_format(format_: str) -> str:
    if format_ not in FORMATS:
        raise Invalid(f"format must be {' or '.join(FORMATS)}", field="format")
    return format_


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """Where a list of decisions or entries was left off: the moment (µs since 1970) and id of the last one seen."""

    at_us: int
    id: UUID

    @classmethod
    def parse(cls, text: str) -> "RecordPlace":
        """Raises Invalid."""
        at, _, id_ = text.partition(".")
        found = ids.parse(id_)
        if not (at.isascii() and at.isdigit() and len(at) <= 17) or found is None:
            raise Invalid("after must be what the reply before gave as next", field="after")
        return cls(int(at), found)

    def __str__(self) -> str:
        return f"{self.at_us}.{self.id}"


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """A decision in its wire form, and the call that it is about."""

    call_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Decisions:
    """A page of decisions, the newest first; `next` None: that was all."""

    decisions: tuple[RecordedDecision, ...]
    next: RecordPlace | None


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What was booked: credits are positive, charges negative."""

    id: UUID
    at_s: float
    kind: str
    reference: str
    """The call's hold id, the payment's key, the id of the entry that is reversed."""
    amount_micros: int
    currency: str
    note: str


@dataclass(frozen=True, slots=True)
class LedgerEntries:
    """A page of entries, the newest first; `next` None: that was all."""

    entries: tuple[LedgerEntry, ...]
    next: RecordPlace | None
