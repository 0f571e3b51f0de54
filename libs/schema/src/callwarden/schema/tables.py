"""Every table, in SQL that CockroachDB and PostgreSQL both run.

In: tables, keys, CHECK constraints that repeat the money's invariants. Out: what an operator sets of an account and a
trunk (callwarden.kernel.account, .trunk: their columns are derived from it), queries (each service's adapters) and how
the schema changes (migrations/).

Keys are random UUIDs or natural names, never sequences: a sequential key sends all inserts of CockroachDB to one range.
No SERIAL, triggers, advisory locks, LISTEN/NOTIFY or extensions. Money is BIGINT micros. Times are TIMESTAMPTZ.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.types import TypeEngine

from callwarden.kernel.account import FIELDS
from callwarden.kernel.fields import DataField, FieldKind
from callwarden.kernel.trunk import TRUNK_FIELDS

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _at(name: str, *, nullable: bool = False, default_now: bool = False) -> Column[object]:
    default = text("now()") if default_now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


# The column's type by a field's kind, and what its default is where nothing is set.
_TYPES: Final[Mapping[FieldKind, tuple[type[TypeEngine[Any]], str]]] = {
    FieldKind.FLAG: (Boolean, "false"),
    FieldKind.COUNT: (Integer, "0"),
    FieldKind.AMOUNT: (BigInteger, "0"),
    FieldKind.DURATION: (BigInteger, "0"),
}


def _column(field: DataField) -> Column[Any]:
    """The column of a field that an operator sets."""
    kind, empty = _TYPES.get(field.kind, (Text, ""))
    default: Any = str(field.preset).lower() if field.kind is FieldKind.FLAG and field.preset else field.preset or empty
    if field.is_required or field.is_optional:
        default = None
    elif kind is Boolean:
        default = text(default)
    return Column(field.column, kind, nullable=field.is_optional, server_default=default)


account = Table(
    "account",
    metadata,
    Column("id", Uuid, primary_key=True),
    # What an operator sets; a limit that is NULL: the policy's applies, or there is none.
    *(_column(field) for field in FIELDS if field.column and field.name != "parent"),
    # The reseller that it belongs to, whose ceilings hold over all of its accounts.
    Column("parent", Uuid, ForeignKey("account.id")),
    # The sum of the account's ledger entries; changed only in the transaction that writes an entry.
    Column("balance_micros", BigInteger, nullable=False, server_default="0"),
    # The sum of held_micros over the account's rows in hold; changed only together with them.
    Column("held_micros", BigInteger, nullable=False, server_default="0"),
    # How far below zero a prepaid account may go; 0 for nearly all.
    Column("overdraft_micros", BigInteger, nullable=False, server_default="0"),
    # Grows by one whenever the account's holds change, so that call-admission can read, decide, and write only if
    # nothing came between.
    Column("version", BigInteger, nullable=False, server_default="0"),
    # What rules count beyond money and lines (call-admission's Usage as bytes); written with the version.
    Column("usage", LargeBinary, nullable=False, server_default=text("''")),
    _at("created_at", default_now=True),
    UniqueConstraint("realm", "name"),
    Index("ix_account_parent", "parent"),
    CheckConstraint("type IN ('enduser', 'traffic-sender', 'carrier', 'reseller')", name="type_known"),
    CheckConstraint("shards BETWEEN 0 AND 64", name="shards_bounded"),
    CheckConstraint("status IN ('active', 'disabled')", name="status_known"),
    CheckConstraint("held_micros >= 0", name="held_not_negative"),
    CheckConstraint("overdraft_micros >= 0", name="overdraft_not_negative"),
    # The promise of prepaid, said once more where no bug of ours can pass it.
    CheckConstraint("NOT prepaid OR balance_micros - held_micros >= -overdraft_micros", name="prepaid_never_overdrawn"),
    CheckConstraint("max_lines IS NULL OR max_lines >= 0", name="max_lines_not_negative"),
    CheckConstraint("daily_micros IS NULL OR daily_micros >= 0", name="daily_not_negative"),
    CheckConstraint(
        "coalesce(max_lines_off_peak, 0) >= 0 AND coalesce(max_per_second, 0) >= 0 AND coalesce(monthly_micros, 0) >= 0"
        " AND coalesce(monthly_increment_micros, 0) >= 0 AND coalesce(monthly_ceiling_micros, 0) >= 0"
        " AND coalesce(talk_day_s, 0) >= 0 AND coalesce(talk_month_s, 0) >= 0",
        name="limits_not_negative",
    ),
)
"""Who calls and pays. `held_micros` is derived; it is kept here so that one CHECK bounds balance and holds together."""

counter = Table(
    "counter",
    metadata,
    # The account's id, or one made of the owner's name (UUID 5): a realm, the system, a source address, a carrier.
    Column("scope", Uuid, primary_key=True),
    Column("shard", BigInteger, primary_key=True),
    Column("version", BigInteger, nullable=False, server_default="0"),
    # Of a sharded account: held by its calls in this shard, and charged but not yet taken from the account's balance.
    Column("held_micros", BigInteger, nullable=False, server_default="0"),
    Column("spent_micros", BigInteger, nullable=False, server_default="0"),
    # call-admission's Usage.
    Column("usage", LargeBinary, nullable=False, server_default=text("''")),
    # Room that this shard has borrowed (or lent, negative) beyond its fair part of each limit.
    Column("transfers", LargeBinary, nullable=False, server_default=text("''")),
    _at("updated_at", default_now=True),
    CheckConstraint("held_micros >= 0", name="held_not_negative"),
    CheckConstraint("spent_micros >= 0", name="spent_not_negative"),
)
"""What is counted for somebody whose row isn't account's, in as many rows as it needs not to be in anybody's way."""

account_number = Table(
    "account_number",
    metadata,
    Column("number", Text, primary_key=True),
    Column("account_id", Uuid, ForeignKey("account.id"), nullable=False),
    Index("ix_account_number_account_id", "account_id"),
)
"""Numbers (E.164 digits) that an account owns: they route to it, and it may show them."""

credential = Table(
    "credential",
    metadata,
    Column("realm", Text, primary_key=True),
    Column("username", Text, primary_key=True),
    Column("account_id", Uuid, ForeignKey("account.id"), nullable=False),
    # AES-GCM of the three HA1 values (MD5, SHA-256, SHA-512-256), nonce first; the key's id names which key.
    Column("sealed_ha1", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    _at("updated_at", default_now=True),
    Index("ix_credential_account_id", "account_id"),
)

trunk = Table(
    "trunk",
    metadata,
    Column("name", Text, primary_key=True),
    Column("account_id", Uuid, ForeignKey("account.id"), nullable=False),
    *(_column(field) for field in TRUNK_FIELDS if field.column and field.name not in ("name", "account")),
    CheckConstraint("direction IN ('carrier', 'traffic-sender')", name="direction_known"),
    CheckConstraint("strip_digits BETWEEN 0 AND 15", name="strip_digits_bounded"),
)

hold = Table(
    "hold",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey("account.id"), nullable=False),
    Column("call_id", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("dialled", Text, nullable=False),
    Column("caller_number", Text, nullable=False),
    Column("source_address", Text, nullable=False),
    Column("edge", Text, nullable=False),
    _at("created_at"),
    # NULL until the callee answers.
    _at("answered_at", nullable=True),
    # After this it lapses; a line counts until then.
    _at("expires_at"),
    # 0: it counts. 1: it has lapsed, and waits for its end. 2: it has a call record that says "expired", and is kept in
    # case that the end comes after all. 3: the call was over before the hold was placed, which it can't be any more.
    Column("stage", Integer, nullable=False, server_default="0"),
    # Talk time paid for, from the answer.
    Column("granted_s", Integer, nullable=False),
    Column("max_duration_s", Integer, nullable=False),
    # Nothing further will be granted: a limit or the credit ends there.
    Column("final", Boolean, nullable=False),
    Column("held_micros", BigInteger, nullable=False),
    # The calendar day (in the account's zone) whose spend this call belongs to: that of its start.
    Column("spend_day", Date, nullable=False),
    # The price that was true at admission (protobuf Price): a deck changed later doesn't change a running call.
    Column("price", LargeBinary, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("trunk", Text, nullable=False),
    Column("policy_revision", BigInteger, nullable=False),
    Column("trace_id", Text, nullable=False),
    # The counters beside the account's that this call is counted in: it ends where it began, whatever policy says then.
    Column("owners", LargeBinary, nullable=False, server_default=text("''")),
    # What the carrier charges (protobuf Price); empty where nobody knows.
    Column("cost", LargeBinary, nullable=False, server_default=text("''")),
    Column("carrier_account_id", Uuid),
    # The decision chain of the admission (protobuf Decision), for explain.
    Column("decision", LargeBinary, nullable=False),
    CheckConstraint("held_micros >= 0", name="held_not_negative"),
    CheckConstraint("granted_s >= 0", name="granted_not_negative"),
    Index("ix_hold_account_id_expires_at", "account_id", "expires_at"),
    Index("ix_hold_call_id", "call_id"),
    # By the id's first digit first: by time alone every new hold would be written at the index's end, in one range.
    Index("ix_hold_expires_at", text("substr(CAST(id AS TEXT), 1, 1)"), "expires_at"),
)
"""A running call: one line and the money for what it was granted. Deleted by the transaction that says how it ended."""

ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey("account.id"), nullable=False),
    # "call", "top-up", "reversal"; "correction": the end of a call came after it was settled as expired
    Column("kind", Text, nullable=False),
    # The call's hold id, the payment's key, the reversed entry's id.
    Column("reference", Text, nullable=False),
    Column("slice", Integer, nullable=False, server_default="0"),
    # Credits are positive, charges negative.
    Column("amount_micros", BigInteger, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    _at("created_at", default_now=True),
    # Exactly once, whatever is delivered twice.
    UniqueConstraint("kind", "reference", "slice"),
    CheckConstraint("kind IN ('call', 'top-up', 'reversal', 'correction')", name="kind_known"),
    CheckConstraint("kind <> 'top-up' OR amount_micros > 0", name="top_up_positive"),
    CheckConstraint("kind <> 'call' OR amount_micros <= 0", name="call_not_positive"),
    Index("ix_ledger_entry_account_id_created_at", "account_id", "created_at"),
)
"""Append-only: the sum of an account's entries is its balance. Mistakes are corrected by reversing entries."""

payment = Table(
    "payment",
    metadata,
    Column("key", Text, primary_key=True),
    Column("account_id", Uuid, ForeignKey("account.id"), nullable=False),
    Column("amount_micros", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("entry_id", Uuid, ForeignKey("ledger_entry.id"), nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    _at("created_at", default_now=True),
    CheckConstraint("amount_micros > 0", name="amount_positive"),
)

spend_day = Table(
    "spend_day",
    metadata,
    Column("account_id", Uuid, ForeignKey("account.id"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("spent_micros", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("spent_micros >= 0", name="spent_not_negative"),
)
"""Settled spend of each account and calendar day (in the account's zone); what is held comes on top from hold."""

cdr = Table(
    "cdr",
    metadata,
    # The hold's id: a call is settled once.
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey("account.id"), nullable=False),
    Column("call_id", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("dialled", Text, nullable=False),
    Column("caller_number", Text, nullable=False),
    Column("source_address", Text, nullable=False),
    Column("edge", Text, nullable=False),
    _at("started_at"),
    _at("answered_at", nullable=True),
    _at("ended_at"),
    Column("duration_s", Integer, nullable=False),
    Column("billed_s", Integer, nullable=False),
    Column("price_micros", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    # By what the charge can be worked out again; NULL in records of releases that didn't keep it. The price that was
    # true at admission (protobuf Price), the talk time that was granted and the money that was held for it in the end.
    Column("price", LargeBinary),
    Column("granted_s", Integer),
    Column("held_micros", BigInteger),
    # What a prepaid account could not pay any more when the end came late: the call was charged so much less.
    Column("uncharged_micros", BigInteger, nullable=False, server_default="0"),
    # What the carrier charges; NULL where nobody knows.
    Column("cost_micros", BigInteger),
    Column("carrier_account_id", Uuid),
    # Names of the limits that this call met, with commas between.
    Column("limits_hit", Text, nullable=False, server_default=""),
    Column("prefix", Text, nullable=False),
    Column("trunk", Text, nullable=False),
    # Why it ended: the edge's word, or "expired" where the reaper settled it.
    Column("reason", Text, nullable=False),
    Column("sip_status", Integer, nullable=False),
    Column("policy_revision", BigInteger, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("decision", LargeBinary, nullable=False),
    CheckConstraint("price_micros >= 0", name="price_not_negative"),
    CheckConstraint("duration_s >= 0", name="duration_not_negative"),
    Index("ix_cdr_call_id", "call_id"),
    Index("ix_cdr_account_id_started_at", "account_id", "started_at"),
)

decision = Table(
    "decision",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("call_id", Text, nullable=False),
    Column("account_id", Uuid),
    _at("at"),
    Column("outcome", Text, nullable=False),
    # Protobuf Decision.
    Column("body", LargeBinary, nullable=False),
    Index("ix_decision_call_id", "call_id"),
    Index("ix_decision_account_id_at", "account_id", "at"),
)
"""Refusals and what else was decided about calls outside an admission; admissions keep theirs in hold and cdr."""

deck = Table(
    "deck",
    metadata,
    Column("name", Text, primary_key=True),
    Column("currency", Text, nullable=False),
    # The version of deck_row that holds; an import writes a new one and then points here: all or nothing.
    Column("version", BigInteger, nullable=False),
    Column("peak_hours", Text, nullable=False, server_default=""),
    Column("time_zone", Text, nullable=False, server_default="UTC"),
    Column("rounding_method", Text, nullable=False, server_default="up"),
    Column("rounding_decimals", Integer, nullable=False, server_default="6"),
    # Hours of the week with prices of their own (JSON, [[name, hours], …]); empty: none.
    Column("windows", Text, nullable=False, server_default=text("''")),
    _at("updated_at", default_now=True),
    CheckConstraint("rounding_method IN ('up', 'middle', 'down')", name="rounding_known"),
    CheckConstraint("rounding_decimals BETWEEN 0 AND 6", name="decimals_bounded"),
)

deck_row = Table(
    "deck_row",
    metadata,
    Column("deck", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("prefix", Text, primary_key=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("connect_fee_micros", BigInteger, nullable=False, server_default="0"),
    # Price of unit_s seconds.
    Column("rate_micros", BigInteger, nullable=False),
    Column("unit_s", Integer, nullable=False, server_default="60"),
    Column("first_increment_s", Integer, nullable=False, server_default="1"),
    Column("next_increment_s", Integer, nullable=False, server_default="1"),
    Column("free_s", Integer, nullable=False, server_default="0"),
    Column("minimum_micros", BigInteger, nullable=False, server_default="0"),
    # Outside the deck's peak hours; NULL: the same as in them.
    Column("off_peak_rate_micros", BigInteger),
    Column("off_peak_connect_fee_micros", BigInteger),
    # Other rates after some seconds (callwarden.rating.core.steps); off-peak NULL: the same as in peak hours.
    Column("steps", Text, nullable=False, server_default=text("''")),
    Column("off_peak_steps", Text),
    # What differs in each of the deck's windows (JSON, in their order); empty: nothing.
    Column("windows", Text, nullable=False, server_default=text("''")),
    # NULL: a call may cost any amount.
    Column("maximum_micros", BigInteger),
    Column("cuts_at_maximum", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("rate_micros >= 0 AND connect_fee_micros >= 0 AND minimum_micros >= 0", name="not_negative"),
    CheckConstraint("unit_s > 0 AND first_increment_s > 0 AND next_increment_s > 0 AND free_s >= 0", name="seconds"),
)

route = Table(
    "route",
    metadata,
    Column("prefix", Text, primary_key=True),
    Column("trunk", Text, ForeignKey("trunk.name"), primary_key=True),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("cost_deck", Text, nullable=False, server_default=""),
)

number_list = Table(
    "number_list",
    metadata,
    Column("name", Text, primary_key=True),
    # The version of number_list_entry that holds; an import writes a new one and then points here: all or nothing.
    Column("version", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("entries", BigInteger, nullable=False),
    # The file or URL that it was imported from.
    Column("source", Text, nullable=False, server_default=""),
    # Names of trunks for whose calls it holds, with commas.
    Column("trunks", Text, nullable=False, server_default=""),
    _at("updated_at", default_now=True),
    CheckConstraint("kind IN ('block', 'allow')", name="kind_known"),
    CheckConstraint("side IN ('called', 'calling', 'both')", name="side_known"),
    CheckConstraint("entries >= 0", name="entries_not_negative"),
)

number_list_entry = Table(
    "number_list_entry",
    metadata,
    Column("list", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    # "4930123456" a number, "4990*" a prefix, "4990?555*" with a wildcard for one digit.
    Column("pattern", Text, primary_key=True),
    Column("note", Text, nullable=False, server_default=""),
)
"""Without a foreign key: rows of a version are written before number_list points to it."""

__all__ = [
    "account",
    "account_number",
    "cdr",
    "counter",
    "credential",
    "decision",
    "deck",
    "deck_row",
    "hold",
    "ledger_entry",
    "metadata",
    "number_list",
    "number_list_entry",
    "payment",
    "route",
    "spend_day",
    "trunk",
]
