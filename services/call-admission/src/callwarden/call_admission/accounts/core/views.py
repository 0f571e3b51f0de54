"""What is shown of accounts and calls. Out: what an operator sets of an account (callwarden.kernel.account)."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.kernel.account import NewAccount


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account with what is true of it now."""

    id: UUID
    account: NewAccount
    balance_micros: int
    held_micros: int
    lines_in_use: int
    spent_today_micros: int
    """Settled, and held by running calls."""


@dataclass(frozen=True, slots=True)
class CallView:
    """A call that runs, is settled, or was refused. Moments 0: not."""

    hold_id: str
    call_id: str
    account: str
    destination: str
    state: str
    started_at_s: float
    answered_at_s: float = 0.0
    ended_at_s: float = 0.0
    duration_s: int = 0
    billed_s: int = 0
    price_micros: int = 0
    currency: str = ""
    reason: str = ""
    trunk: str = ""
    policy_revision: int = 0
    trace_id: str = ""
    caller_number: str = ""
    cost_micros: int = 0
    corrected_micros: int = 0
    """What corrections have added to the price since, or given back."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a Call-ID. Decisions are kept as they were written (their wire form), oldest first."""

    decisions: tuple[bytes, ...]
    call: CallView | None


@dataclass(frozen=True, slots=True)
class LedgerAudit:
    """Sums over accounts, ledger and holds. `mismatched`: names of accounts whose balance isn't the sum of their ledger
    entries, or whose held money isn't the sum of their holds; at most MISMATCHED_MAX."""

    accounts: int
    entries: int
    balance_sum_micros: int
    ledger_sum_micros: int
    held_sum_micros: int
    hold_rows_sum_micros: int
    open_holds: int
    mismatched: tuple[str, ...]


MISMATCHED_MAX: Final = 100  # One is an alarm; a hundred are enough to see what they have in common.
