"""Who pays for calls: an account, with its limits. Out: what is counted of it (usage)."""

from dataclasses import dataclass, field
from uuid import UUID

from callwarden.kernel.account import AccountFields, AccountType


@dataclass(slots=True)
class Account(AccountFields):
    """What an operator sets of an account, and what it has. A limit that is None: the policy's applies, or none."""

    id: UUID = field(kw_only=True)
    balance_micros: int = field(kw_only=True)
    held_micros: int = field(kw_only=True)
    overdraft_micros: int = field(kw_only=True)
    parent: UUID | None = field(default=None, kw_only=True)
    """Its reseller."""


def shards_of(account: Account) -> int:
    """In how many rows the account's own calls are counted; 1: in its own. A reseller's shards are those of what its
    accounts come to."""
    return max(account.shards, 1) if account.type is not AccountType.RESELLER else 1
