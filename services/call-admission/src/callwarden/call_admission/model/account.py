"""Who pays for calls: an account, with its limits. Out: what is counted of it (usage)."""

from dataclasses import dataclass
from enum import Enum
from uuid import UUID


class AccountType(Enum):
    """The value is what the database says."""

    ENDUSER = "enduser"
    TRAFFIC_SENDER = "traffic-sender"
    CARRIER = "carrier"
    RESELLER = "reseller"


@dataclass(slots=True)
class Account:
    """Who pays, with its limits. None: the policy's default holds, or there is no limit.

    A value. Not frozen, because one is made whenever an account is read (1.2 instead of 3.5 µs).
    """

    id: UUID
    realm: str
    name: str
    type: AccountType
    active: bool
    currency: str
    time_zone: str
    prepaid: bool
    deck: str
    balance_micros: int
    held_micros: int
    overdraft_micros: int
    max_lines: int | None
    daily_micros: int | None
    lists: tuple[str, ...] = ()
    """Number lists that apply to its calls in addition to the policy's."""
    parent: UUID | None = None
    """Its reseller."""
    shards: int = 0
    """Above 1: its counts are shared out to so many."""
    max_lines_off_peak: int | None = None
    max_per_second: int | None = None
    monthly_micros: int | None = None
    monthly_increment_micros: int | None = None
    monthly_ceiling_micros: int | None = None
    talk_day_s: int | None = None
    talk_month_s: int | None = None
    country: str = ""
    """ISO 3166; home to its calls."""
    email: str = ""
    phone: str = ""
    email_verified: bool = False
    phone_verified: bool = False


def shards_of(account: Account) -> int:
    """In how many rows the account's own calls are counted; 1: in its own. A reseller's shards are those of what its
    accounts come to."""
    return account.shards if account.shards > 1 and account.type is not AccountType.RESELLER else 1
