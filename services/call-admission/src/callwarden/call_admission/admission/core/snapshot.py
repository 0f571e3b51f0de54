"""Everything that one decision looks at, as it was in one moment of the database.

Out: how it is read (ports.AdmissionStore), how it is built for a call (snapshots).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Final
from uuid import UUID

from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import NoQuote, Quote
from callwarden.call_admission.model.lists import Listing
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.clock import EPOCH_S, UnixS
from callwarden.limits.shards import Shard


@dataclass(slots=True)
class CounterView:
    """One owner of counters as it was read: all of its counts, or those of one shard."""

    owner: str
    """Its kind, see usage.OWNERS."""
    key: UUID
    usage: Usage
    shard: Shard | None = None
    """Of several; None: `usage` is all."""
    account: Account | None = None
    """Of a reseller or a carrier."""
    total: Usage | None = None
    """Over all shards, where they have been read; for showing."""

    @property
    def is_sharded(self) -> bool:
        return self.shard is not None

    def allowance(self, quantity: str, limit: int) -> int:
        """What may be used of the limit here: the limit itself, or this shard's part of it."""
        return limit if self.shard is None else self.shard.allowance(quantity, limit)


@dataclass(frozen=True, slots=True)
class SourceTrunk:
    """What is said of the trunk by which the call came in."""

    name: str
    only_local: bool = False
    allowed_prefixes: frozenset[str] = frozenset()
    blocked_prefixes: frozenset[str] = frozenset()


_NOTHING: Final[Mapping[str, CounterView]] = MappingProxyType({})


def _nothing() -> Mapping[str, CounterView]:
    return _NOTHING


@dataclass(slots=True)
class Snapshot:
    """One account in one moment, and the price of the call in question.

    Not frozen: made for every decision (0.5 instead of 1.8 µs); rules only read it.
    """

    account: Account
    balance_micros: int
    """With what the batch has settled so far."""
    held_micros: int
    """Over all running calls, those of the batch included. Of a sharded account with what has been spent, which leaves
    its balance only when its shards are joined; of a shard: its own."""
    lines: int
    """Running calls now."""
    day: date
    """The account's calendar day on which the call began."""
    spent_micros: int
    """Settled on that day."""
    held_day_micros: int
    """Held by running calls that began on that day."""
    quote: Quote | NoQuote | None
    """None: a local call, which costs nothing."""
    listing: Listing | None = None
    """Number lists; None: of a call that runs already."""
    unix_s: UnixS = EPOCH_S
    counted: Mapping[str, CounterView] = field(default_factory=_nothing)
    """By kind of owner; the account's own is always there. Another that is absent: no limit needs it."""
    carriers: Mapping[str, CounterView] = field(default_factory=_nothing)
    """By a route's carrier_account_id: carriers that have limits of talk time."""
    trunk: SourceTrunk | None = None
    """None: it came in by no trunk."""

    @property
    def available_micros(self) -> int:
        """What a prepaid account can still hold; of a sharded one, what this shard can."""
        credit_micros = self.balance_micros + self.account.overdraft_micros
        return self.counted["account"].allowance("credit", credit_micros) - self.held_micros
