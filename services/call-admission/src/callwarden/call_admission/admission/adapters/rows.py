"""Rows of the database to the values of a transaction, and back."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.admission.adapters.statements import ACCOUNT_FIELDS
from callwarden.call_admission.admission.core.commands import DecisionRecord
from callwarden.call_admission.admission.core.state import Changes, Correction, Loaded, NewHold
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Hold, HoldStage
from callwarden.call_admission.model.codecs.hold_bytes import costs_bytes, costs_from, scopes_bytes, scopes_from
from callwarden.call_admission.model.codecs.messages import decision_bytes, price_bytes, price_from, refuse_from
from callwarden.call_admission.model.codecs.usage_bytes import grants_bytes, usage_bytes
from callwarden.call_admission.model.settle import Settlement
from callwarden.kernel.account import SHARED_FIELDS, AccountType
from callwarden.kernel.fields import FieldKind

Row: TypeAlias = tuple[Any, ...]

_TYPES: Final = {kind.value: kind for kind in AccountType}


def _names(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(",")) if joined else ()


# How columns are read that hold another form than the field, by the field's kind, and where they are.
_LOAD: Final[Mapping[FieldKind, Callable[[Any], Any]]] = {
    FieldKind.WORD: _TYPES.__getitem__,
    FieldKind.STATUS: "active".__eq__,
    FieldKind.NAMES: _names,
}
_LOADED: Final = tuple((place, _LOAD[field.kind]) for place, field in enumerate(SHARED_FIELDS) if field.kind in _LOAD)
_STAGES: Final = tuple(HoldStage)
# The row's kind is before them.
_SHARED_END: Final = 1 + len(SHARED_FIELDS)
_ACCOUNT_END: Final = 1 + ACCOUNT_FIELDS


def account_from(row: Any) -> tuple[Account, int, bytes]:
    # By position: 31 look-ups by name take 5 µs.
    values = [*row[1:_SHARED_END]]
    for place, load in _LOADED:
        values[place] = load(values[place])
    id_, parent, balance, held, overdraft, version, usage = row[_SHARED_END:_ACCOUNT_END]
    account = Account(
        *values, id=id_, parent=parent, balance_micros=balance, held_micros=held, overdraft_micros=overdraft
    )
    return account, version, usage


def add_hold(loaded: Loaded, row: Any) -> None:
    (
        id_, account_id, created_at, answered_at, expires_at, granted_s, max_duration_s, final, held_micros, spend_day,
        price, trunk, owners, cost, stage, edge, booked, body, _, _,
    ) = row[_ACCOUNT_END:]  # fmt: skip
    if account_id is not None:
        counted_in, marks, limits_hit = scopes_from(owners)
        loaded.holds[id_] = Hold(
            id_, account_id, created_at.timestamp(), None if answered_at is None else answered_at.timestamp(),
            expires_at.timestamp(), granted_s, max_duration_s, final, held_micros, spend_day, price_from(price), trunk,
            marks, counted_in, costs_from(cost), limits_hit, _STAGES[stage], edge,
        )  # fmt: skip
    if booked is not None:
        loaded.settled[id_] = booked
    if body is not None:
        decision = admission_pb2.Decision.FromString(body)
        if decision.outcome == "refuse":
            loaded.refused[id_] = refuse_from(decision.refused)


def counter_rows(changes: Changes) -> list[Row]:
    rows: list[Row] = []
    for key in sorted(changes.counters):
        scope, shard = key
        counter = changes.counters[key]
        usage = counter.usage
        # Money of accounts' own shards, which the books are audited by; of others' calls it is counted there, too.
        held, spent = (usage.held_micros, usage.spent_micros) if scope in changes.own_shards else (0, 0)
        rows.append((scope, shard, counter.version, held, spent, usage_bytes(usage), grants_bytes(counter.grants)))
    return rows


def hold_row(new: NewHold) -> Row:
    hold, request = new.hold, new.request
    return (
        hold.id, hold.account_id, request.call_id, request.destination, request.dialled, request.caller_number,
        request.source_address, request.edge, time_of(hold.created_at_s), time_or_none(hold.answered_at_s),
        time_of(hold.expires_at_s), hold.granted_s, hold.max_duration_s, hold.final, hold.held_micros, hold.spend_day,
        price_bytes(hold.price), new.prefix, hold.trunk, new.decision.policy_revision, request.trace_id,
        scopes_bytes(hold), costs_bytes(hold.costs), decision_bytes(new.decision),
    )  # fmt: skip


def closed_row(hold: Hold) -> Row:
    return (hold.id, hold.account_id, time_of(hold.created_at_s), hold.spend_day, price_bytes(hold.price))


def update_row(hold: Hold, expiry_s: float) -> Row:
    return (
        hold.id, time_or_none(hold.answered_at_s), time_of(hold.expires_at_s), hold.granted_s, hold.final,
        hold.held_micros, hold.trunk, scopes_bytes(hold), hold.stage.value, time_of(expiry_s),
    )  # fmt: skip


def end_row(settlement: Settlement, expiry_s: float) -> Row:
    s = settlement
    return (
        s.hold_id, s.account_id, time_or_none(s.answered_at_s), time_of(s.ended_at_s), s.duration_s, s.billed_s,
        s.price_micros, s.currency, s.trunk, s.reason, s.sip_status, s.cost_micros, s.carrier_account_id,
        ",".join(s.limits_hit), s.granted_s, s.held_micros, s.uncharged_micros, time_of(expiry_s),
    )  # fmt: skip


def late_row(correction: Correction, expiry_s: float) -> Row:
    return (*end_row(correction.settlement, expiry_s), correction.more_micros, correction.entry_id)


def decision_row(record: DecisionRecord) -> Row:
    body = record.body if record.decision is None else decision_bytes(record.decision)
    return (record.id, record.call_id, record.account_id, time_of(record.at_s), record.outcome, body)


def time_of(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def time_or_none(at_s: float | None) -> datetime | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC)
