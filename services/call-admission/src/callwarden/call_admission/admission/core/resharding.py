"""How an account's counts move when the number of rows that they are kept in changes.

More shards than before: nothing moves, since what was granted to so many is void for another number (limits.shards).
The first shard takes over what the account's own row has counted; fewer are merged; with none the row takes it back,
and the charges that lay in the shards with it. Running calls end where their counts are: their owners follow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from callwarden.call_admission.model.calls import LimitScope
from callwarden.call_admission.model.leases import Leases
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.usage_shards import merged
from callwarden.kernel.clock import UnixS


@dataclass(frozen=True, slots=True)
class AccountCounts:
    """An account's money and counts: in its own row, and in its shards by number."""

    balance_micros: int
    held_micros: int
    own: Usage
    shards: Mapping[int, Usage]


def moves(before: int, after: int) -> bool:
    """Whether counts move at all. Numbers of rows: 1, where the account isn't sharded."""
    return after < before or before == 1 < after


def resharded(counts: AccountCounts, before: int, after: int, expire_at_s: Iterable[float]) -> AccountCounts:
    """The counts in so many rows; shards that are absent then are no more. `expire_at_s`: of all holds of the account,
    whose number its own row doesn't count."""
    if not moves(before, after):
        return counts
    own = counts.own
    notified = Usage(notice_day=own.notice_day, notices=dict(own.notices))
    if before == 1:
        first = own.copy()
        first.notice_day, first.notices = 0, {}
        first.spent_micros = 0  # What was charged so far is in the balance.
        first.leases = Leases()
        for at_s in expire_at_s:
            first.leases.begin(at_s, UnixS(0.0))
        return AccountCounts(counts.balance_micros, 0, notified, {0: first})
    total = merged([usage for index, usage in counts.shards.items() if index == 0 or index >= after])
    kept = {index: usage for index, usage in counts.shards.items() if 0 < index < after}
    if after > 1:
        return AccountCounts(counts.balance_micros, counts.held_micros, own, {0: total, **kept})
    total.leases = None
    total.notice_day, total.notices = notified.notice_day, notified.notices
    return AccountCounts(
        counts.balance_micros - total.spent_micros, counts.held_micros + total.held_micros, total, {}
    )  # fmt: skip


def scopes_after(owners: tuple[LimitScope, ...], after: int) -> tuple[LimitScope, ...]:
    """Where a call that runs is counted then."""
    return tuple(
        owner._replace(shard=0) if owner.kind == ACCOUNT and owner.shard >= after else owner
        for owner in owners
        if owner.kind != ACCOUNT or after > 1
    )
