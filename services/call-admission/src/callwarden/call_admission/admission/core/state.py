"""The values that a transaction stands on and produces: what was read, as each command moves it on, and what is to be
written. Out: how commands change them (transaction), how they are stored (ports.AdmissionStore).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import inf
from typing import TypeAlias
from uuid import UUID, uuid5

from callwarden.call_admission.admission.core.commands import (
    Admission,
    Command,
    DecisionRecord,
    Extension,
    accounts_of,
    carriers_of,
    holds_of,
)
from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.core.snapshot import CounterView
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import CallRequest, Decision, Hold
from callwarden.call_admission.model.settle import Settlement
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.clock import EPOCH_S, UnixS
from callwarden.kernel.verdict import Refuse
from callwarden.limits.shards import Grant

CounterKey: TypeAlias = tuple[UUID, int]
"""Scope and shard of a row of counters."""


@dataclass(frozen=True, slots=True)
class ReadSet:
    """The rows that a batch needs. Each key occurs once and in order, so that all processes lock rows in the same
    order."""

    accounts: Sequence[UUID] = ()
    """All accounts of the batch."""
    counted: Sequence[UUID] = ()
    """Those of them whose running lines have to be counted."""
    holds: Sequence[UUID] = ()
    """The holds of the batch and, by the same ids, call records and refusals."""
    unix_s: UnixS = EPOCH_S
    """Unix time. Holds that expire later count as lines."""
    referenced: Sequence[UUID] = ()
    """Accounts that are only referenced, in addition to the resellers of `accounts`: carriers."""

    @classmethod
    def of(cls, commands: Sequence[Command], unix_s: UnixS) -> "ReadSet":
        """What these commands need."""
        asked = [command for command in commands if isinstance(command, Admission | Extension)]
        return cls(accounts_of(commands), accounts_of(asked), holds_of(commands), unix_s, carriers_of(commands))


# ------------------------------------------------------------------ what was read


@dataclass(slots=True)
class AccountState:
    """An account as it was read; each command of the batch moves it on."""

    account: Account
    version: int
    """Of the account's row, as it was read."""
    balance_micros: int
    held_micros: int
    lines: int
    lines_until_s: float
    """No hold that `lines` counts expires before this moment."""
    usage: Usage
    """Of all its calls. Of a sharded account only the notices that were sent."""
    view: Mapping[str, CounterView] | None = None
    """What rules look at where only the account itself is counted; built once."""

    @classmethod
    def of(cls, account: Account, version: int = 0, lines: int = 0, usage: Usage | None = None) -> "AccountState":
        return cls(account, version, account.balance_micros, account.held_micros, lines, inf, usage or Usage())


@dataclass(slots=True)
class CounterRow:
    """A row of counters as it was read; each command of the batch moves it on. `version` 0: there is no row yet."""

    version: int
    usage: Usage
    grants: Mapping[str, Grant] = field(default_factory=dict)


@dataclass(slots=True)
class ReferencedAccount:
    """An account that is only looked at: a reseller or a carrier."""

    account: Account
    version: int


@dataclass(slots=True)
class Loaded:
    """What the transaction has read for the batch."""

    accounts: dict[UUID, AccountState]
    holds: dict[UUID, Hold]
    settled: dict[UUID, int] = field(default_factory=dict)
    """Holds of the batch that have a call record: what it says that the call cost."""
    refused: dict[UUID, Refuse] = field(default_factory=dict)
    """Admissions of the batch that were refused before."""
    referenced: dict[UUID, ReferencedAccount] = field(default_factory=dict)
    """Resellers of the accounts, and the carriers that were asked for."""
    counters: dict[CounterKey, CounterRow] = field(default_factory=dict)
    """Those that were asked for, whether there is such a row or not."""


# ------------------------------------------------------------------ what is to be written


@dataclass(slots=True)
class NewHold:
    """A new hold, with everything that its call record will contain."""

    hold: Hold
    request: CallRequest
    prefix: str
    decision: Decision


@dataclass(slots=True)
class Correction:
    """How a call ended that has a call record as expired: the record changes, and the hold goes."""

    settlement: Settlement
    """`price_micros` is what the call costs now; the record keeps what was booked first."""
    more_micros: int
    """What that is more than was booked; negative: less. The ledger entry's amount, with the other sign."""

    @property
    def entry_id(self) -> UUID:
        """Derived, so that no call is corrected twice."""
        return uuid5(self.settlement.hold_id, "late-end")


@dataclass(slots=True)
class Changes:
    """What is to be written, all of it or nothing. Sums, where several commands touch one row."""

    new_holds: dict[UUID, NewHold] = field(default_factory=dict)
    updated: dict[UUID, Hold] = field(default_factory=dict)
    settled: list[Settlement] = field(default_factory=list)
    recorded: list[Settlement] = field(default_factory=list)
    """Of calls whose end nobody has told: a call record is written, and the hold is kept."""
    corrected: list[Correction] = field(default_factory=list)
    closed: dict[UUID, Hold] = field(default_factory=dict)
    """Holds that were never placed, and must not be any more (HoldStage.CLOSED)."""
    expiries: dict[UUID, float] = field(default_factory=dict)
    """`expires_at_s` of every hold that is updated or settled, as it was read. The write goes through only if it is
    still the same: it moves whenever a hold does, which for a sharded account moves no version of the account."""
    versions: dict[UUID, int] = field(default_factory=dict)
    """Of every account whose row changes: the version that was read, and that must still be there."""
    balances: dict[UUID, int] = field(default_factory=dict)
    held: dict[UUID, int] = field(default_factory=dict)
    spent: dict[tuple[UUID, date], int] = field(default_factory=dict)
    usages: dict[UUID, Usage] = field(default_factory=dict)
    """Of every account in `versions`."""
    checked: dict[UUID, int] = field(default_factory=dict)
    """Versions of accounts that don't change but must still be what was read: sharded accounts, resellers."""
    counters: dict[CounterKey, CounterRow] = field(default_factory=dict)
    """Rows that change, with the version that was read. Shards of accounts have columns for money held and spent."""
    own_shards: set[UUID] = field(default_factory=set)
    """Accounts whose shards are among `counters`."""
    decisions: list[DecisionRecord] = field(default_factory=list)
    check_hold_ids: bool = False
    """The ids of new holds weren't read: the write itself has to find out whether one has a call record or a refusal
    already."""

    # From here on nothing is written.
    notices: list[Notice] = field(default_factory=list)
    """Published once the transaction is committed."""
    reported: list[str] = field(default_factory=list)
    """Rules that would have refused a call if they were enforced, for the metrics."""
    missing_counters: set[CounterKey] = field(default_factory=set)
    """Rows that have to be read first. As long as there are any, the changes must not be written."""
    is_applied: bool = False
    """Commands have moved on what was read: it can't be added to any more, and has to be read again."""
    must_revalidate: set[UUID] = field(default_factory=set)
    """Accounts that were refused something, or got less than they asked for. If what was read may be stale, that has to
    be decided again on fresh data. An admission needn't be: it is only written if nothing has changed."""
